//! Upsamplers of any width with random weights.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use loftup_convert::{Request, convert};
use loftup_import::checkpoint::Checkpoint;
use loftup_onnx::Tensor;
use safetensors::tensor::{Dtype, TensorView};

/// Reproducible noise.
pub struct Noise(u64);

impl Noise {
    /// The noise for a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A value from -1 to 1.
    pub fn sample(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// `n` values.
    pub fn vec(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.sample()).collect()
    }

    fn tensor(&mut self, shape: &[usize], scale: f32, base: f32) -> Tensor {
        Tensor::from_fn(shape, |_| base + scale * self.sample())
    }
}

/// A LoftUp checkpoint for features of `d` channels, with the original parameter names.
pub fn loftup(d: usize, seed: u64) -> Checkpoint {
    let e = d + 20;
    let mut noise = Noise::new(seed);
    let mut tensors = BTreeMap::new();
    let mut add = |name: String, shape: &[usize], scale: f32, base: f32| {
        tensors.insert(name, noise.tensor(shape, scale, base));
    };
    let mut layer = |name: &str, shape: &[usize]| {
        // The uniform distribution on +-sqrt(3/n) has variance 1/n, which keeps activations near 1.
        let inputs: usize = shape[1..].iter().product();
        add(
            format!("{name}.weight"),
            shape,
            (3.0 / inputs as f32).sqrt(),
            0.0,
        );
        add(format!("{name}.bias"), &shape[..1], 0.1, 0.0);
    };
    layer("upsampler.first_conv.1", &[e, 203, 3, 3]);
    layer("upsampler.first_conv.4", &[e, e, 3, 3]);
    layer("upsampler.final_conv.0", &[d, e, 1, 1]);
    for i in 0..2 {
        let block = format!("upsampler.ca_transformer.layers.{i}");
        layer(&format!("{block}.0.attention.out_proj"), &[e, e]);
        layer(&format!("{block}.1.net.1"), &[d, e]);
        layer(&format!("{block}.1.net.4"), &[e, d]);
    }
    for i in 0..2 {
        let attention = format!("upsampler.ca_transformer.layers.{i}.0.attention");
        add(
            format!("{attention}.in_proj_weight"),
            &[3 * e, e],
            (3.0 / e as f32).sqrt(),
            0.0,
        );
        add(format!("{attention}.in_proj_bias"), &[3 * e], 0.1, 0.0);
    }
    for i in [2, 5] {
        add(
            format!("upsampler.first_conv.{i}.running_mean"),
            &[e],
            0.1,
            0.0,
        );
        add(
            format!("upsampler.first_conv.{i}.running_var"),
            &[e],
            0.4,
            1.0,
        );
    }
    add(
        "upsampler.fourier_feat.1.biases".into(),
        &[2, 5, 20],
        1.7,
        0.0,
    );
    add("upsampler.lr_pe.biases".into(), &[2, 2, 5], 1.7, 0.0);
    let mut norm = |name: &str, n: usize| {
        add(format!("{name}.weight"), &[n], 0.2, 1.0);
        add(format!("{name}.bias"), &[n], 0.1, 0.0);
    };
    norm("channelnorm.norm", d);
    norm("upsampler.first_conv.0.norm", 203);
    norm("upsampler.first_conv.2", e);
    norm("upsampler.first_conv.5", e);
    norm("upsampler.ca_transformer.norm", e);
    norm("upsampler.final_conv.1", d);
    for i in 0..2 {
        let block = format!("upsampler.ca_transformer.layers.{i}");
        norm(&format!("{block}.0.norm_q"), e);
        norm(&format!("{block}.0.norm_kv"), e);
        norm(&format!("{block}.1.net.0"), e);
    }
    Checkpoint::from_tensors(format!("random-{d}.safetensors"), tensors)
}

/// Removes the reference outputs from a bundle, so that backends are not compared with them, as
/// with bundles from older versions.
///
/// # Panics
/// If it is not a bundle.
pub fn without_references(bundle: PathBuf) -> PathBuf {
    let file = bundle.join("manifest.json");
    let text = std::fs::read_to_string(&file).expect("a manifest");
    let mut manifest: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let fields = manifest.as_object_mut().expect("an object");
    fields.remove("references").expect("reference outputs");
    std::fs::write(&file, manifest.to_string()).expect("written");
    bundle
}

/// Creates a bundle in `directory` with only an upsampler, for features of `d` channels.
///
/// # Panics
/// If it cannot be written.
pub fn upsampler_bundle(d: usize, seed: u64, directory: &Path) -> PathBuf {
    let weights = directory.join("up.safetensors");
    let checkpoint = loftup(d, seed);
    let raw: Vec<_> = checkpoint
        .names()
        .map(|name| {
            let shape = checkpoint.shape(name).expect("a shape").to_vec();
            let tensor = checkpoint.tensor(name, &shape).expect("a tensor");
            let bytes: Vec<u8> = tensor.data().iter().flat_map(|x| x.to_le_bytes()).collect();
            (name.to_owned(), shape, bytes)
        })
        .collect();
    let views = raw.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        (name, view.expect("a view"))
    });
    safetensors::serialize_to_file(views, None, &weights).expect("a file");
    let out = directory.join("up.loftup");
    let request = Request {
        backbone: None,
        upsampler: Some(weights),
        size: None,
        out: out.clone(),
        prefix: None,
        license: None,
        replace: false,
    };
    convert(&request, |_| ControlFlow::Continue(())).expect("a bundle");
    out
}
