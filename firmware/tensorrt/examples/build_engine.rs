//! Builds an engine from an ONNX file and prints its size and the build time.
//!
//! ```text
//! cargo run -p loftup-tensorrt --example build_engine -- MODEL.onnx [--out FILE]
//!     [--workspace BYTES] [--target 8.6] [--range INPUT:1x3x112x112:1x3x224x224:1x3x448x448]...
//! ```
//!
//! Uses the library given by `LOFTUP_TENSORRT`, or the one that the loader finds. Without a GPU,
//! only TensorRT-RTX can build.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use loftup_tensorrt::cuda::{Cuda, Device};
use loftup_tensorrt::{Builder, Library, OnnxParser, Progress, ShapeRange};

type Failure = Box<dyn std::error::Error>;

struct Counter(std::sync::atomic::AtomicUsize);

impl Progress for Counter {
    fn step_done(&self, _: &str, _: u32) -> bool {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        true
    }
}

fn shape(text: &str) -> Result<Vec<i64>, Failure> {
    Ok(text.split('x').map(str::parse).collect::<Result<_, _>>()?)
}

fn range(text: &str) -> Result<ShapeRange, Failure> {
    let parts: Vec<&str> = text.split(':').collect();
    let [input, min, opt, max] = parts[..] else {
        return Err(format!("{text}: expected INPUT:MIN:OPT:MAX").into());
    };
    Ok(ShapeRange {
        input: input.into(),
        min: shape(min)?,
        opt: shape(opt)?,
        max: shape(max)?,
    })
}

fn main() -> Result<(), Failure> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let (mut model, mut out, mut workspace, mut ranges, mut targets) =
        (None, None, 1u64 << 30, Vec::new(), Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--out" => out = Some(PathBuf::from(value()?)),
            "--workspace" => workspace = value()?.parse()?,
            "--range" => ranges.push(range(&value()?)?),
            "--target" => {
                let value = value()?;
                let (major, minor) = value.split_once('.').ok_or("expected MAJOR.MINOR")?;
                targets.push((major.parse()?, minor.parse()?));
            }
            _ => model = Some(PathBuf::from(argument)),
        }
    }
    let model = model.ok_or("no model given: pass the path of an ONNX file")?;
    let library = Library::find()?;
    let device = match Cuda::find() {
        Ok(cuda) => Some(Device::new(&cuda, 0)?),
        Err(error) => {
            println!("no GPU: {error}");
            None
        }
    };
    let builder = Builder::new(&library, device.as_ref())?;
    let mut parser = OnnxParser::new(builder.network()?)?;
    let start = Instant::now();
    parser.parse(&std::fs::read(&model)?, Some(&model))?;
    let network = parser.network();
    println!(
        "parsed in {:?}: {} layers",
        start.elapsed(),
        network.layer_count()?
    );
    for tensor in network.inputs()?.iter().chain(&network.outputs()?) {
        println!("  {:?} {tensor}", tensor.direction);
    }
    let mut config = builder.config()?;
    config.set_workspace(workspace)?;
    config.allow_lower_precision(true, false)?;
    if !targets.is_empty() {
        config.set_targets(&targets)?;
    }
    if !ranges.is_empty() {
        let mut profile = builder.profile()?;
        for range in ranges {
            profile.set(range)?;
        }
        config.add_profile(&profile)?;
    }
    let counter = Arc::new(Counter(Default::default()));
    if let Err(error) = config.set_progress(counter.clone()) {
        println!("no progress reports: {error}");
    }
    let start = Instant::now();
    let engine = builder.build(network, &config)?;
    println!(
        "{}: built in {:?}: {} bytes, {} steps reported",
        library.version(),
        start.elapsed(),
        engine.as_slice().len(),
        counter.0.load(std::sync::atomic::Ordering::Relaxed)
    );
    if let Some(out) = out {
        std::fs::write(out, engine.as_slice())?;
    }
    Ok(())
}
