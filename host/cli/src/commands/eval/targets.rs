//! `loftup eval targets`

use std::path::PathBuf;

use anyhow::Result;
#[cfg(feature = "train")]
use loftup_eval::{EvalError, Photo, maps};
#[cfg(feature = "train")]
use loftup_runtime::ColorRange;
#[cfg(feature = "train")]
use loftup_train::{
    data::read_masks,
    regions::{Mask, Window},
    targets::{Regions, Target, candidates},
};

use crate::args::{EngineArgs, ProbeArgs};
#[cfg(feature = "train")]
use crate::{output, progress};

/// Most masks per image, the default of `data.max_masks`.
#[cfg(feature = "train")]
const MAX_MASKS: usize = 150;

/// Compare training targets of the upsampler: the same linear probe on each of them.
///
/// A target of stage 1 is the backbone's upsampled features, averaged within regions of the image.
/// An upsampler can hardly become better than its target. Probes are trained on DIR/train and
/// evaluated on DIR/val, as in `eval segmentation`. Images with a .json file of masks next to them
/// (SA-1B's format) are also averaged within these masks. The last column is the difference in mIoU
/// from bilinear interpolation, with its 95 % bootstrap interval over the validation images.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loftup eval targets backbone.loftup --data camvid/ --size 224x224 --limit 100")]
#[cfg_attr(not(feature = "train"), allow(dead_code))]
pub struct TargetsArgs {
    /// The bundle with the backbone
    bundle: PathBuf,
    #[command(flatten)]
    probe: ProbeArgs,
    /// Print as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

#[cfg(not(feature = "train"))]
pub fn run(_: &TargetsArgs) -> Result<()> {
    crate::commands::without_training("eval targets")
}

#[cfg(feature = "train")]
pub fn run(args: &TargetsArgs) -> Result<()> {
    let perceptor = args.engine.perceptor(&args.bundle)?;
    let request = args.probe.request(ColorRange::PerImage, Vec::new());
    let pairs = loftup_eval::data::pairs(&args.probe.data, "train")?;
    let masks = pairs
        .first()
        .is_some_and(|pair| pair.image.with_extension("json").is_file());
    let targets: Vec<Candidate> = candidates(masks).into_iter().map(Candidate).collect();
    let maps: Vec<&dyn maps::Map> = targets.iter().map(|t| t as &dyn maps::Map).collect();
    let report = maps::compare(&perceptor, &request, &maps, &mut progress::stages())?;
    if args.json {
        return output::line(serde_json::to_string_pretty(&report)?);
    }
    output::line(format!(
        "{} classes at {}x{}: trained on {} pixels of {} images, evaluated on {} images; boundaries within {} pixels",
        report.classes.len(),
        report.width,
        report.height,
        report.train_pixels,
        report.train_images,
        report.val_images,
        report.boundary_tolerance
    ))?;
    if !report.skipped.is_empty() {
        output::line(format!("{} images or labels skipped", report.skipped.len()))?;
    }
    output::line(
        "target                            mIoU  boundary F  accuracy  mIoU - bilinear (95 %)",
    )?;
    for r in &report.results {
        output::line(format!(
            "{:31} {:4.1} %      {:4.1} %    {:4.1} %  {}",
            r.name,
            100.0 * r.mean_iou,
            100.0 * r.boundary_f,
            100.0 * r.accuracy,
            output::interval(r.difference, 100.0, 1)
        ))?;
    }
    Ok(())
}

/// A training target as a feature map.
#[cfg(feature = "train")]
struct Candidate(Target);

#[cfg(feature = "train")]
impl maps::Map for Candidate {
    fn name(&self) -> String {
        self.0.name.into()
    }

    fn map(&self, photo: &Photo<'_>) -> Result<Vec<f32>, EvalError> {
        let masks = match self.0.regions {
            Regions::Masks => masks(photo)?,
            Regions::Color(_) => Vec::new(),
        };
        let (columns, rows) = photo.grid;
        Ok(self
            .0
            .map(photo.tokens, (rows, columns), photo.image, masks))
    }
}

/// The masks next to an image, at the size of the map.
#[cfg(feature = "train")]
fn masks(photo: &Photo<'_>) -> Result<Vec<Mask>, EvalError> {
    let path = photo.path.with_extension("json");
    let bytes = std::fs::read(&path).map_err(|source| EvalError::Io {
        path: path.clone(),
        source,
    })?;
    let (found, broken) =
        read_masks(&bytes, photo.size, MAX_MASKS).map_err(|what| EvalError::Data {
            path: path.clone(),
            what,
        })?;
    if let Some(first) = broken.first() {
        log::warn!(
            "{}: {} masks skipped, the first: {}",
            path.display(),
            broken.len(),
            first.what
        );
    }
    let window = Window {
        x: 0,
        y: 0,
        width: photo.size.1,
        height: photo.size.0,
        out_width: photo.image.width(),
        out_height: photo.image.height(),
    };
    Ok(found.iter().map(|m| m.seen(&window)).collect())
}
