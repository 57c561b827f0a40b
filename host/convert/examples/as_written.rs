//! Speed of a quantized bundle in tract, with its original graphs and with those that are run.
//!
//! `cargo run -p loftup-convert --example as_written -- BUNDLE [DIR]` times each graph on one thread,
//! back to back: the original graph, the graph converted to fp32 in plain tract, and the backend of
//! `--backend tract`. A file `x.onnx` with fixed shapes instead of a bundle is timed in plain
//! tract. With DIR it also writes the fake-quantized graphs, which `tools/check_quantized.py` compares with
//! ONNX Runtime.

use std::{error::Error, path::Path, time::Instant};

use loftup_bundle::{Bundle, Precision};
use loftup_onnx::{
    Interface, Port,
    rewrite::{self, Model},
};
use loftup_runtime::backend::{Backend, CpuBackend, Graph, TractBackend};
use loftup_spec::{HALO, io};

type Inputs = Vec<(String, Vec<usize>)>;

/// CPU seconds of this thread if the system reports them, which are meaningful on a busy machine, or
/// wall time since `begin`.
fn clock(begin: Instant) -> f64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = told.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    nanoseconds.map_or_else(|| begin.elapsed().as_secs_f64(), |ns| ns / 1e9)
}

/// Mean seconds of some runs.
fn seconds(
    backend: &dyn Backend,
    onnx: &[u8],
    precision: Precision,
    inputs: &Inputs,
    outputs: &[String],
) -> Result<f64, Box<dyn Error>> {
    let (names, shapes): (Vec<_>, Vec<_>) = inputs.iter().cloned().unzip();
    let graph = Graph {
        precision,
        ..Graph::new("graph", onnx, &names, outputs)
    };
    let mut session = backend.load(&graph)?.compile(&shapes, &[])?.session()?;
    for (i, (_, shape)) in inputs.iter().enumerate() {
        let values =
            (0..shape.iter().product::<usize>()).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0);
        session.set(i, &values.collect::<Vec<f32>>())?;
    }
    // A warm-up run, then enough runs for the resolution of the clock.
    session.run()?;
    let begin = Instant::now();
    let start = clock(begin);
    let mut runs = 0;
    while runs < 3 || clock(begin) - start < 0.5 {
        session.run()?;
        runs += 1;
        // fp16 matrix products can take minutes.
        if begin.elapsed().as_secs_f64() > 20.0 {
            break;
        }
    }
    Ok((clock(begin) - start) / f64::from(runs))
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let path = arguments.first().ok_or("usage: as_written BUNDLE [DIR]")?;
    if path.ends_with(".onnx") {
        let onnx = std::fs::read(path)?;
        let interface = Interface::of(&onnx).ok_or("not an ONNX file")?;
        let shape = |p: &Port| p.shape.iter().flatten().map(|n| n.unwrap_or(1)).collect();
        let inputs = interface.inputs.iter().map(|p| (p.name.clone(), shape(p)));
        let outputs: Vec<String> = interface.outputs.into_iter().map(|p| p.name).collect();
        let s = seconds(
            &TractBackend,
            &onnx,
            Precision::Fp32,
            &inputs.collect(),
            &outputs,
        )?;
        println!("{path}: {:.2} ms", 1e3 * s);
        return Ok(());
    }
    let bundle = Bundle::open(Path::new(path))?;
    let manifest = bundle.manifest();
    println!("graph                    as written   fp32, tract   fp32, engine");
    for precision in manifest.precisions() {
        let mut graphs: Vec<(String, Inputs, Vec<String>)> = Vec::new();
        let mut grid = (16, 16);
        if let Some(b) = &manifest.backbone {
            let input = (b.input.clone(), vec![1, 3, b.size.height, b.size.width]);
            graphs.push((
                b.graphs[&precision].clone(),
                vec![input],
                vec![b.output.clone()],
            ));
            grid = (b.size.height / b.patch, b.size.width / b.patch);
        }
        if let Some(u) = &manifest.upsampler {
            let (h, w) = grid;
            let keys = vec![
                (io::FEATURES.to_owned(), vec![1, h * w, u.dim]),
                (io::GRID.to_owned(), vec![2, h * w]),
            ];
            let outputs = (0..u.layers).flat_map(|i| [io::key(i), io::value(i)]);
            graphs.push((u.graphs[&precision].keys.clone(), keys, outputs.collect()));
            let side = 32 + 2 * HALO;
            let mut queries = vec![
                (io::GUIDANCE.to_owned(), vec![1, 3, side, side]),
                (io::COORDS.to_owned(), vec![1, 2, side, side]),
                (io::MASK.to_owned(), vec![1, 1, side, side]),
            ];
            for i in 0..u.layers {
                queries.push((io::key(i), vec![u.heads, u.head_width, h * w]));
                queries.push((io::value(i), vec![u.heads, h * w, u.head_width]));
            }
            let file = u.graphs[&precision].queries.clone();
            graphs.push((file, queries, vec![io::UPSAMPLED.to_owned()]));
        }
        for (file, inputs, outputs) in graphs {
            let onnx = bundle.read(&file)?;
            if let Some(directory) = arguments.get(1) {
                let fake_quantized = rewrite::fake_quantize(&Model::decode(&onnx)?)?;
                std::fs::write(Path::new(directory).join(&file), fake_quantized.encode())?;
            }
            let time = |backend: &dyn Backend, precision| match seconds(
                backend, &onnx, precision, &inputs, &outputs,
            ) {
                Ok(s) => format!("{:.2} ms", 1e3 * s),
                Err(e) => format!(
                    "no ({})",
                    e.to_string().chars().take(60).collect::<String>()
                ),
            };
            println!(
                "{file:24} {:>10} {:>16} {:>17}",
                // Declared as fp32, so that the graph is not converted.
                time(&TractBackend, Precision::Fp32),
                time(&TractBackend, precision),
                time(&CpuBackend, precision)
            );
        }
    }
    Ok(())
}
