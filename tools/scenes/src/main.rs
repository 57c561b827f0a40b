//! Writes generated scenes as a dataset.

#![forbid(unsafe_code)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use image::{ExtendedColorType, ImageBuffer, Luma, RgbImage};
use loftup_scenes::{CLASSES, Frame, PALETTE, Scene};

/// Writes generated scenes with labels.
///
/// DIR/train and DIR/val contain images/, labels/ (grayscale PNG, the value is the class), instances/
/// (16-bit PNG, the value is the instance) and, with --colors, colors/ (color-coded labels).
/// DIR/classes.txt lists the class names in order, one per line.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Output directory
    #[arg(long)]
    out: PathBuf,
    /// Number of training scenes
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(..=VAL))]
    train: u64,
    /// Number of validation scenes, with other seeds
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(..=VAL))]
    val: u64,
    /// Frames per scene
    #[arg(long, default_value_t = 1)]
    frames: u32,
    /// Seconds between frames of a scene
    #[arg(long, default_value_t = 4.0)]
    every: f64,
    /// Frame size, WIDTHxHEIGHT
    #[arg(long, default_value = "224x224")]
    size: String,
    /// First seed
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1 << 62))]
    seed: u64,
    /// Standard deviation of the sensor noise, in levels of 255
    #[arg(long, default_value_t = 0.0)]
    noise: f32,
    /// Write color-coded labels as well
    #[arg(long)]
    colors: bool,
    /// Write instance masks next to each image, as JSON in the format of SA-1B
    #[arg(long)]
    masks: bool,
}

/// Offset of the validation seeds from the training seeds.
const VAL: u64 = 1 << 32;

fn main() -> Result<()> {
    let args = Args::parse();
    let side = |s: &str| s.parse().ok().filter(|n| (1..=16384).contains(n));
    let (width, height) = args
        .size
        .split_once('x')
        .and_then(|(w, h)| Some((side(w)?, side(h)?)))
        .with_context(|| {
            format!(
                "--size {:?}: expected WIDTHxHEIGHT, as in 224x224",
                args.size
            )
        })?;
    ensure!(
        args.every.is_finite(),
        "--every {}: expected a number of seconds",
        args.every
    );
    ensure!(
        (0.0..=255.0).contains(&args.noise),
        "--noise {}: expected 0 to 255",
        args.noise
    );
    fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let names = CLASSES.join("\n") + "\n";
    let file = args.out.join("classes.txt");
    fs::write(&file, names).with_context(|| file.display().to_string())?;
    let mut count = 0;
    for (part, first, scenes) in [
        ("train", args.seed, args.train),
        ("val", args.seed + VAL, args.val),
    ] {
        for seed in first..first + scenes {
            let scene = Scene::new(seed).with_noise(args.noise);
            for i in 0..args.frames {
                let frame = scene.frame(f64::from(i) * args.every, width, height);
                let name = format!("{:06}_{i:04}.png", seed - first);
                write(&args.out.join(part), &name, frame, &args)?;
                count += 1;
            }
        }
    }
    println!("{}: {count} frames of {}", args.out.display(), args.size);
    Ok(())
}

fn write(dir: &Path, name: &str, frame: Frame, args: &Args) -> Result<()> {
    let (w, h) = (frame.width as u32, frame.height as u32);
    let place = |kind: &str| -> Result<PathBuf> {
        let dir = dir.join(kind);
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        Ok(dir.join(name))
    };
    let whole = "the buffer has the frame's size";
    if args.colors {
        let data = frame
            .classes
            .iter()
            .flat_map(|c| PALETTE[usize::from(*c)])
            .collect();
        let path = place("colors")?;
        RgbImage::from_raw(w, h, data)
            .context(whole)?
            .save(&path)
            .with_context(|| path.display().to_string())?;
    }
    let path = place("images")?;
    if args.masks {
        let path = path.with_extension("json");
        fs::write(&path, frame.masks_json(name)).with_context(|| path.display().to_string())?;
    }
    RgbImage::from_raw(w, h, frame.rgb)
        .context(whole)?
        .save(&path)
        .with_context(|| path.display().to_string())?;
    let path = place("labels")?;
    image::save_buffer(&path, &frame.classes, w, h, ExtendedColorType::L8)
        .with_context(|| path.display().to_string())?;
    let path = place("instances")?;
    let instances: ImageBuffer<Luma<u16>, _> =
        ImageBuffer::from_raw(w, h, frame.instances).context(whole)?;
    instances
        .save(&path)
        .with_context(|| path.display().to_string())
}
