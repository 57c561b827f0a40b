//! Follows an object of a generated scene: features of each frame, propagation of labels, mask.
//!
//!     loftup convert --builtin --out default.loftup
//!     cargo run -p loftup-runtime --example track default.loftup [SIDE] [FRAMES]
//!
//! SIDE is the side of the grid of features, 112 by default.

use std::path::PathBuf;

use loftup_bundle::Size;
use loftup_runtime::{
    ColorRange, ExecutionOptions, Perceptor, cpu_time,
    image::RgbImage,
    track::{TrackOptions, TrackedMask, Tracker},
};
use loftup_scenes::Scene;

const CAMERA: Size = Size {
    width: 320,
    height: 240,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1);
    let bundle = args.next().map(PathBuf::from);
    let bundle = bundle.ok_or(
        "usage: track BUNDLE [SIDE] [FRAMES]; make a bundle with `loftup convert --builtin`",
    )?;
    let mut number = |default: usize| match args.next() {
        Some(text) => text
            .to_string_lossy()
            .parse()
            .map_err(|_| "SIDE and FRAMES are numbers"),
        None => Ok(default),
    };
    let (side, frames) = (number(112)?, number(30)?);
    let grid = Size {
        width: side,
        height: side,
    };
    let perceptor = Perceptor::open(&bundle, ExecutionOptions::default())?;
    let scene = Scene::new(3);
    let mut tracker: Option<Tracker> = None;
    let (mut object, mut mask) = (0, TrackedMask::default());
    let (mut features, mut times) = (Vec::new(), Vec::new());
    for i in 0..frames {
        let frame = scene.frame(i as f64 / 30.0, CAMERA.width, CAMERA.height);
        let image = RgbImage::new(CAMERA.width, CAMERA.height, frame.rgb)?;

        let encoded = perceptor.encode(&image, grid, ColorRange::PerImage)?;
        let dim = encoded.dim();
        features.resize(grid.area() * dim, 0.0);
        encoded.frame(&mut |tile| {
            for y in 0..tile.rect.height {
                let first = ((tile.rect.y + y) * grid.width + tile.rect.x) * dim;
                let row = tile.row(y);
                features[first..][..row.len()].copy_from_slice(row);
            }
            Ok(())
        })?;

        let tracker = match &mut tracker {
            Some(tracker) => tracker,
            None => {
                let options = TrackOptions::default();
                tracker.insert(Tracker::new((grid.width, grid.height), dim, options)?)
            }
        };
        let start = cpu_time::process();
        tracker.update(&features)?;
        times.push(cpu_time::process() - start);
        if i == 0 {
            // The object in the middle of the first frame.
            object = frame.instances[CAMERA.area() / 2 + CAMERA.width / 2];
            let values: Vec<u8> = frame
                .instances
                .iter()
                .map(|v| u8::from(*v == object))
                .collect();
            tracker.start_mask(&values, CAMERA)?;
            println!("{} MB for frames", tracker.memory() >> 20);
        }
        tracker.mask(CAMERA, &mut mask)?;

        let truth = frame.instances.iter().map(|v| *v == object);
        let (mut both, mut any) = (0, 0);
        for (truth, label) in truth.zip(&mask.labels) {
            both += usize::from(truth && *label == 1);
            any += usize::from(truth || *label == 1);
        }
        if i < 3 || (i + 1) % 10 == 0 {
            println!(
                "frame {i}: IoU {:.2}, confidence {:.2}, {:.1?} of CPU time for labels{}",
                both as f64 / f64::from(any.max(1) as u32),
                mask.objects[0].confidence,
                times[i],
                resident()
            );
        }
    }
    times.sort();
    println!(
        "labels: {:.1?} of CPU time in half of the frames, at most {:.1?}",
        times[frames / 2],
        times[frames - 1]
    );
    Ok(())
}

/// Resident memory, where the system tells.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.map_or_else(String::new, |l| format!(", {} resident", l.trim()))
}
