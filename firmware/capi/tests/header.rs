//! The header is what cbindgen makes from the sources.

use std::path::Path;

#[test]
fn the_header_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("include/loftup.h");
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let sources = root.join("src/lib.rs");
    let bindings = cbindgen::Builder::new()
        .with_config(config)
        .with_src(sources)
        .generate()
        .unwrap();
    let mut made = Vec::new();
    bindings.write(&mut made);
    let made = String::from_utf8(made).unwrap();
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    if std::env::var_os("LOFTUP_UPDATE_HEADER").is_some() {
        std::fs::write(&path, &made).unwrap();
    } else {
        assert!(
            made == there,
            "{} is not up to date: run this test with LOFTUP_UPDATE_HEADER=1",
            path.display()
        );
    }
}
