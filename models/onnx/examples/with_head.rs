//! Writes the queries graph with a head, as engines get it: `with_head QUERIES.onnx OUT.onnx`.

use std::{env, error::Error, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [queries, out] = &arguments[..] else {
        return Err("expected QUERIES.onnx OUT.onnx".into());
    };
    fs::write(out, loftup_onnx::loftup::with_head(&fs::read(queries)?)?)?;
    Ok(())
}
