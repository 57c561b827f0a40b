//! Inputs and outputs of the original PyTorch code, in `tests/data/golden`.

use std::path::{Path, PathBuf};

use loftup_bundle::Size;
use loftup_convert::{
    BackboneSource, Request,
    compare::{Difference, Tolerance},
};
use loftup_import::vit::{Activation, VitOptions};
use loftup_runtime::npy::{self, Array};
use serde_json::Value;

/// Upsampler cases: odd sizes, one of them wide; a training checkpoint and safetensors.
pub const UPSAMPLERS: [&str; 2] = ["loftup_odd", "loftup_wide"];

/// Backbone cases, at the training size and at others.
pub const BACKBONES: [&str; 7] = [
    "dinov2_native",
    "dinov2_resized",
    "dinov2_reg_native",
    "dinov2_reg_resized",
    "clip_native",
    "clip_resized",
    "siglip_native",
];

/// One golden case.
pub struct Case {
    directory: PathBuf,
    description: Value,
}

impl Case {
    /// Loads the case with this name.
    ///
    /// # Panics
    /// If it does not exist.
    pub fn load(name: &str) -> Self {
        let directory = root().join(name);
        let text = std::fs::read_to_string(directory.join("case.json")).expect("a case");
        Self {
            directory,
            description: serde_json::from_str(&text).expect("valid JSON"),
        }
    }

    /// The checkpoint of the case.
    pub fn weights(&self) -> PathBuf {
        root().join("weights").join(self.text("weights"))
    }

    /// An array of the case: `image`, `lr` or `out`.
    pub fn array(&self, name: &str) -> Array {
        npy::read(&self.directory.join(format!("{name}.npy"))).expect("an array")
    }

    /// The conversion request for a bundle of this case.
    pub fn request(&self, out: &Path) -> Request {
        let upsampler = (self.text("kind") == "loftup").then(|| self.weights());
        let shape = self.array("image").shape;
        let backbone = upsampler.is_none().then(|| BackboneSource::Checkpoint {
            preset: self.text("kind").to_owned(),
            weights: self.weights(),
            options: VitOptions {
                heads: self.description["heads"].as_u64().map(|n| n as usize),
                activation: match self.text("kind") {
                    "clip" => Some(Activation::QuickGelu),
                    "siglip" => Some(Activation::Gelu),
                    _ => None,
                },
                ..VitOptions::default()
            },
        });
        let size = Some(Size {
            width: shape[3],
            height: shape[2],
        })
        .filter(|_| backbone.is_some());
        Request {
            backbone,
            upsampler,
            size,
            out: out.into(),
            prefix: None,
            license: None,
            replace: false,
        }
    }

    fn text(&self, key: &str) -> &str {
        self.description[key].as_str().expect("a text in case.json")
    }
}

/// Compares features of `dim` channels with those of the original code, and prints the differences.
///
/// # Panics
/// If they exceed `tolerance`, or the sizes differ.
pub fn compare(name: &str, found: &[f32], expected: &[f32], dim: usize, tolerance: Tolerance) {
    let d = Difference::between(found, expected, dim).expect("maps of one size");
    println!(
        "{name}: max {:.1e}, mean {:.1e}, cosine {:.7}",
        d.max, d.mean, d.cosine
    );
    assert!(d.within(&tolerance), "{name}: {d:?} exceeds {tolerance:?}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/golden")
}
