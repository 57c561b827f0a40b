//! Files, models and numbers shared by the tests.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use loftup_import::{
    checkpoint::Checkpoint,
    vit::{Activation, ConfigFiles, Family, Preset, Vit, VitOptions},
};
use loftup_onnx::Tensor;
use tract_onnx::prelude::*;

/// Tensors of a checkpoint, by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// The golden cases of the workspace.
pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/golden")
}

/// The weights `tests/data/golden/weights/<file>`.
pub fn weights(file: &str) -> Tensors {
    let checkpoint = Checkpoint::open(&golden().join("weights").join(file)).unwrap();
    let tensor = |name: &str| {
        checkpoint
            .tensor(name, checkpoint.shape(name).unwrap())
            .unwrap()
    };
    checkpoint
        .names()
        .map(|name| (name.into(), tensor(name)))
        .collect()
}

/// Tensors of `tests/data/<file>` of this crate whose names start with `prefix`, without it.
pub fn fixture(file: &str, prefix: &str) -> Tensors {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(file);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let named = |name: &str| {
        let shape = checkpoint.shape(name).unwrap();
        let tensor = checkpoint.tensor(name, shape).unwrap();
        Some((name.strip_prefix(prefix)?.to_string(), tensor))
    };
    checkpoint.names().filter_map(named).collect()
}

/// Options with these heads, and the activation of the family's golden cases.
pub fn options(preset: Preset, heads: Option<usize>) -> VitOptions {
    VitOptions {
        heads,
        activation: match preset.family() {
            Family::Clip => Some(Activation::QuickGelu),
            Family::SigLip => Some(Activation::Gelu),
            Family::DinoV2 | Family::DinoV3 => None,
        },
        ..VitOptions::default()
    }
}

/// The backbone in `tensors`, read as by the command line.
pub fn vit(tensors: Tensors, preset: &str, heads: Option<usize>) -> Vit {
    try_vit(tensors, preset, heads).unwrap()
}

/// The backbone in `tensors`, or the one-line error.
pub fn try_vit(tensors: Tensors, preset: &str, heads: Option<usize>) -> Result<Vit, String> {
    let preset = Preset::parse(preset).map_err(|e| e.to_string())?;
    try_with(
        tensors,
        preset,
        &options(preset, heads),
        &ConfigFiles::default(),
    )
}

/// As `try_vit`, with all options and config files.
pub fn try_with(
    tensors: Tensors,
    preset: Preset,
    options: &VitOptions,
    files: &ConfigFiles,
) -> Result<Vit, String> {
    let checkpoint = Checkpoint::from_tensors("w.pth", tensors);
    let vit = Vit::from_checkpoint(&checkpoint, preset, options, files).map_err(|e| e.to_string());
    if let Err(message) = &vit {
        assert!(!message.contains('\n'), "{message}");
    }
    vit
}

/// Reads a 32-bit `.npy` file.
pub fn npy(path: &Path) -> Tensor {
    let bytes = fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00", "{}", path.display());
    let start = 10 + u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    let header = std::str::from_utf8(&bytes[10..start]).unwrap();
    assert!(
        header.contains("'<f4'") && header.contains("False"),
        "{header}"
    );
    let shape = header.split_once('(').unwrap().1.split_once(')').unwrap().0;
    let shape: Vec<usize> = shape
        .split(',')
        .filter_map(|n| n.trim().parse().ok())
        .collect();
    let data = bytes[start..]
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    Tensor::new(shape, data.collect()).unwrap()
}

/// Runs a backbone's graph in tract.
pub fn run(vit: &Vit, image: &Tensor) -> Tensor {
    let [1, 3, height, width] = image.shape()[..] else {
        panic!("{:?}", image.shape())
    };
    let bytes = vit.graph(width, height).unwrap();
    let model = load(&bytes).into_optimized().unwrap();
    let shape = model.input_fact(0).unwrap().shape.as_concrete().unwrap();
    assert_eq!(shape, image.shape(), "the input is static");
    run_model(model, image)
}

/// Runs a graph for images of any size in tract.
pub fn run_any_size(graph: &[u8], image: &Tensor) -> Tensor {
    let mut model = load(graph);
    let fact = InferenceFact::dt_shape(f32::datum_type(), image.shape());
    model.set_input_fact(0, fact).unwrap();
    run_model(model.into_optimized().unwrap(), image)
}

fn load(graph: &[u8]) -> InferenceModel {
    let mut graph = graph;
    tract_onnx::onnx().model_for_read(&mut graph).unwrap()
}

fn run_model(model: TypedModel, image: &Tensor) -> Tensor {
    let model = model.into_runnable().unwrap();
    let input = tract_onnx::prelude::Tensor::from_shape(image.shape(), image.data()).unwrap();
    let output = model.run(tvec!(input.into_tvalue())).unwrap().remove(0);
    let output = output.to_plain_array_view::<f32>().unwrap();
    Tensor::new(output.shape(), output.iter().copied().collect::<Vec<_>>()).unwrap()
}

/// The maximum absolute difference.
pub fn worst(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.shape(), b.shape());
    assert!(a.data().iter().all(|x| x.is_finite()));
    a.data()
        .iter()
        .zip(b.data())
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

/// Reproducible numbers, approximately uniform in -1..1.
pub fn noise(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}
