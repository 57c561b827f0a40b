//! From a wide bundle to a compact one.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use loftup_bundle::{Bundle, Head, Linear, Size};
use loftup_convert::{compact, quantize::spread};
use loftup_eval::data::image_files;
use loftup_onnx::rewrite::LinearMap;
use loftup_runtime::{ExecutionOptions, Perceptor, backend::CpuBackend, image};
use loftup_train::{Config, Outcome, distillation::PrincipalChannels, files, train};

use super::{Args, report};
use crate::{interrupt, output, progress};

/// Images that the channels are fitted to, at most.
const FITTED: usize = 128;
/// Every tenth image is held out.
const HELD_OUT: usize = 10;
/// Images that are held out, at most.
const MOST_HELD_OUT: usize = 16;
/// The least width of a LoftUp whose heads can compare colors (`init = "bilateral"`).
const BILATERAL: usize = 24;
/// Side of the window that a step computes.
const WINDOW: usize = 64;

/// Directory of the training in the directory of the work.
const RUN: &str = "run";

/// The images, divided.
struct Images {
    training: Vec<PathBuf>,
    held_out: Vec<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    let wide = Bundle::open(&args.bundle)?;
    let backbone = compact::compactable(&wide)?;
    let dim = backbone.dim;
    let k = args.channels.get();
    if k >= dim {
        bail!(
            "--channels {k}: {} has {dim} channels; ask for fewer",
            args.bundle.display()
        );
    }
    if args.out.exists() && !args.force {
        bail!(
            "{}: exists already; give another --out, or --force to replace it",
            args.out.display()
        );
    }
    loftup_train::memory::keep_buffers();
    let images = divided(&args.images)?;
    let heads = kept_heads(&wide, &args.heads)?;
    let work = args.work.clone().unwrap_or_else(|| beside(&args.out));
    let checkpoint = work.join(RUN).join(files::CHECKPOINT);
    match (checkpoint.exists(), args.resume) {
        (true, false) => bail!(
            "{}: there is a training already: continue with --resume, or delete the directory",
            work.display()
        ),
        (false, true) => bail!(
            "{}: there is no training to continue; leave out --resume",
            checkpoint.display()
        ),
        _ => {}
    }

    let resumable = interrupt::Resumable::begin()?;
    let bar = progress::spinner();
    let mut stage = |name: &str| {
        log::info!("{name}");
        bar.set_message(name.to_owned());
        interrupt::flow()
    };
    // Its files are checked already.
    let cpu = Arc::new(CpuBackend);
    let perceptor = Perceptor::with_backend(wide.clone(), cpu, ExecutionOptions::default())?;
    let size = args.size.unwrap_or(backbone.size);
    let _ = stage("finding the principal channels");
    let (channels, explained) = fit(&perceptor, k, &heads, &images.training, size)?;
    fs::create_dir_all(&work).with_context(|| work.display().to_string())?;
    let linear = LinearMap {
        weight: channels.weight(),
        bias: channels.bias(),
    };
    let projected = work.join("backbone.loftup");
    compact::project(&wide, linear, &projected, true, &mut stage)?;
    let projection = work.join("projection.safetensors");
    channels.write(&projection)?;
    bar.finish_and_clear();

    let settings = settings(args, size, &work, &images.training)?;
    let path = work.join("train.toml");
    let mut bar = progress::Steps::new();
    let outcome = train(
        &settings,
        &path,
        args.resume,
        interrupt::flag(),
        &mut |event| bar.show(&event),
    );
    drop(bar);
    drop(resumable);
    let weights = match outcome? {
        Outcome::Finished(weights) => weights,
        Outcome::Stopped(step) => {
            bail!("interrupted after {step} steps; run the same command with --resume to continue")
        }
    };
    let _writing = interrupt::Writing::begin()?;
    let bar = progress::spinner();
    let mut stage = |name: &str| {
        bar.set_message(name.to_owned());
        interrupt::flow()
    };
    let heads = heads.iter().map(|(name, head, linear)| {
        let (weight, bias) = channels.compose(&linear.weight, &linear.bias);
        (
            name.clone(),
            head.clone(),
            Linear {
                inputs: k,
                weight,
                bias,
            },
        )
    });
    let heads: Vec<_> = heads.collect();
    let small = Bundle::open(&projected)?;
    let out = (args.out.as_path(), args.force);
    compact::assemble((&small, &wide), &weights, &heads, out, &mut stage)?;
    bar.set_message("measuring");
    let explained = (&channels, explained);
    let mut report = report::measure(&perceptor, &args.out, explained, &images.held_out, size)?;
    bar.finish_and_clear();
    if args.work.is_none() {
        fs::remove_dir_all(&work).with_context(|| work.display().to_string())?;
    }
    for name in wide.manifest().heads.keys() {
        if !args.heads.contains(name) {
            report.notes.push(format!(
                "head {name} is not in it: its channels are others; train it again, or keep it with --head {name}"
            ));
        }
    }
    match args.json {
        true => output::line(serde_json::to_string_pretty(&report)?),
        false => report.print(&args.out),
    }
}

/// The directory of the training, next to the destination.
fn beside(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".work");
    out.with_file_name(name)
}

/// The images for training, and those held out.
fn divided(folder: &Path) -> Result<Images> {
    let all = image_files(folder)?;
    if all.len() < 2 {
        bail!(
            "{}: {} images in it, but training and the report need two; give a directory of JPEG or PNG files like those the robot will see",
            folder.display(),
            all.len()
        );
    }
    let every = HELD_OUT.min(all.len());
    let (mut training, mut held_out) = (Vec::new(), Vec::new());
    for (i, path) in all.into_iter().enumerate() {
        match (i + 1) % every {
            0 => held_out.push(path),
            _ => training.push(path),
        }
    }
    Ok(Images {
        training,
        held_out: spread(held_out, MOST_HELD_OUT),
    })
}

fn kept_heads(wide: &Bundle, names: &[String]) -> Result<Vec<(String, Head, Linear)>> {
    let heads = names.iter().map(|name| {
        let (head, linear) = wide.head(name)?;
        Ok((name.clone(), head, linear))
    });
    heads.collect()
}

/// The channels, and the share of the variance of the backbone's features that they hold.
fn fit(
    perceptor: &Perceptor,
    k: usize,
    heads: &[(String, Head, Linear)],
    images: &[PathBuf],
    size: Size,
) -> Result<(PrincipalChannels, f64)> {
    let dim = perceptor.values_per_pixel(None);
    let seen = perceptor.backbone_size(size)?;
    let mut tokens = Vec::new();
    for path in spread(images.to_vec(), FITTED) {
        interrupt::check()?;
        match image::open(&path) {
            Ok(image) => tokens.extend(
                perceptor
                    .features(&perceptor.to_tensor(&image, seen)?)?
                    .tokens,
            ),
            // Training names it.
            Err(e) => log::debug!("{e}"),
        }
    }
    let kept: Vec<f32> = heads
        .iter()
        .flat_map(|(_, _, linear)| linear.weight.clone())
        .collect();
    let channels = PrincipalChannels::fit(&tokens, dim, k, &kept)
        .map_err(|what| anyhow::anyhow!("--channels {k}: {what}"))?;
    let explained = channels.explained_variance(&tokens);
    Ok((channels, explained))
}

/// The absolute path as a string of TOML. JSON's strings are valid there.
fn quoted(path: &Path) -> Result<String> {
    let absolute = std::path::absolute(path).with_context(|| path.display().to_string())?;
    let text = absolute
        .to_str()
        .with_context(|| format!("{}: the name is not UTF-8; rename it", path.display()))?;
    Ok(serde_json::to_string(text)?)
}

/// The settings of the training, also written to the directory of the training.
fn settings(args: &Args, size: Size, work: &Path, images: &[PathBuf]) -> Result<Config> {
    let images: Vec<String> = images.iter().map(|p| quoted(p)).collect::<Result<_>>()?;
    let window = Size {
        width: WINDOW.min(size.width),
        height: WINDOW.min(size.height),
    };
    let k = args.channels.get();
    let init = if k >= BILATERAL {
        "bilateral"
    } else {
        "bilinear"
    };
    let steps = args.steps;
    let text = format!(
        r#"
bundle = "backbone.loftup"
out = "{RUN}"
stage = 1
init = "{init}"

[data]
paths = [{images}]
horizontal_flip = true

[run]
batch_size = 6
steps = {steps}
checkpoint_every = 100
preview_every = 0

[optimizer]
learning_rate = 1e-3
warmup = {warmup}
cosine = true
freeze_batch_norm = true

[loss]
augmentations = 0
projection = 0
range = "image"

[stage1]
guidance = "{size}"
window = "{window}"

[distillation]
bundle = {bundle}
projection = "projection.safetensors"
"#,
        warmup = (steps / 10).min(30),
        images = images.join(", "),
        bundle = quoted(&args.bundle)?,
    );
    let path = work.join("train.toml");
    fs::write(&path, text).with_context(|| path.display().to_string())?;
    Ok(Config::open(&path)?)
}
