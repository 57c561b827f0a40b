//! A small backbone, small images, and settings for a training of seconds.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use loftup_bundle::Size;
use loftup_convert::{BackboneSource, Request, convert};
use loftup_runtime::image::RgbImage;
use loftup_train::{
    Config, Event, Outcome,
    rng::{Purpose, Rng},
    train,
};

/// Makes `backbone.loftup` in `folder`: a tiny DINOv2, 48 channels on a grid of 4x4.
pub fn bundle(folder: &Path) -> PathBuf {
    tiny_dinov2(folder.join("backbone.loftup"), 56)
}

/// Makes the bundle `out`: a tiny DINOv2, 48 channels, for images of `side` pixels, 14 to a patch.
pub fn tiny_dinov2(out: PathBuf, side: usize) -> PathBuf {
    let weights =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/golden/weights/dinov2.bin");
    let backbone = BackboneSource::Checkpoint {
        preset: "dinov2-s14".into(),
        weights,
        options: loftup_import::vit::VitOptions {
            heads: Some(3),
            ..Default::default()
        },
    };
    let size = Some(Size {
        width: side,
        height: side,
    });
    let request = Request {
        backbone: Some(backbone),
        upsampler: None,
        size,
        out: out.clone(),
        prefix: None,
        license: None,
        replace: false,
    };
    convert(&request, |_| ControlFlow::Continue(())).unwrap();
    out
}

/// An image of a few discs.
pub fn image(seed: u64, width: usize, height: usize) -> RgbImage {
    let mut rng = Rng::new(seed, Purpose::Step, 1);
    let color = |rng: &mut Rng| [0; 3].map(|_: u8| rng.below(256) as u8);
    let mut image = RgbImage::filled(width, height, color(&mut rng)).unwrap();
    for _ in 0..4 {
        let color = color(&mut rng);
        let (x, y, r) = (rng.below(width), rng.below(height), 5 + rng.below(15));
        for row in 0..height {
            for col in 0..width {
                if row.abs_diff(y).pow(2) + col.abs_diff(x).pow(2) < r * r {
                    image.row_mut(row)[col * 3..][..3].copy_from_slice(&color);
                }
            }
        }
    }
    image
}

/// Makes a folder of `n` images.
pub fn images(folder: &Path, n: u64) -> PathBuf {
    let out = folder.join("images");
    std::fs::create_dir_all(&out).unwrap();
    for i in 0..n {
        image(i, 90, 70)
            .save_png(&out.join(format!("{i}.png")))
            .unwrap();
    }
    out
}

/// The text of settings.
pub fn settings(stage: u8, steps: u64, out: &str) -> String {
    format!(
        r#"
bundle = "backbone.loftup"
out = "{out}"
stage = {stage}
seed = 3
{}

[data]
paths = ["images"]

[run]
batch_size = 2
steps = {steps}
checkpoint_every = 2
log_every = 1
preview_every = 3
device = "cpu"

[optimizer]
learning_rate = 1e-3

[loss]
augmentations = 2
pad = 2
projection = 16

[stage1]
guidance = "28x28"

[stage2]
high = 64
sizes = [28, 56]
align = 4
update_every = 2
"#,
        if stage == 2 {
            "start = \"one/upsampler.safetensors\""
        } else {
            ""
        }
    )
}

/// Writes settings to `folder` and reads them back.
pub fn config(folder: &Path, name: &str, text: &str) -> (Config, PathBuf) {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    (Config::open(&path).unwrap(), path)
}

/// Trains, and stops after step `stop_at` if there is one.
pub fn run(config: &Config, path: &Path, resume: bool, stop_at: Option<u64>) -> Outcome {
    let stop = AtomicBool::new(false);
    train(config, path, resume, &stop, &mut |event| {
        if let Event::Stepped { step, .. } = event
            && Some(step) == stop_at
        {
            stop.store(true, Ordering::Relaxed);
        }
    })
    .unwrap()
}

/// A file.
pub fn read(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).unwrap()
}
