//! `loftup head clicks`

use std::path::PathBuf;

use anyhow::Result;
use loftup_eval::clicks;
use serde_json::json;

use super::check_out;
use crate::{args::EngineArgs, commands::data_args::ObjectArgs, interrupt, output, progress};

/// Fit the thresholds of segmentation from clicks, and store them in a bundle.
///
/// For each upsampling method, the cosine similarity with the greatest mean IoU after one click on
/// each object. `loftup segment` then uses it.
///
/// The dataset is DIR/train if it exists, or DIR, and contains images/ with PNG masks in masks/ (each
/// value an object, 0 none, 255 void; in a mask of 0 and 255, 255 is the object) or panoptic/ (with a
/// JSON list of `value`, `thing` and `crowd` beside each PNG; things are objects), or a JSON of masks
/// as in SA-1B beside each image.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loftup head clicks robot.loftup --data coco/ --out robot2.loftup
  loftup segment robot2.loftup --image desk.jpg --click 320,200 --out mask.png")]
pub struct Args {
    /// The bundle, with a backbone
    bundle: PathBuf,
    /// The dataset
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Output bundle; with --force it can be the input bundle
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace an existing bundle
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    objects: ObjectArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

pub fn run(args: &Args) -> Result<()> {
    check_out(&args.out, args.force)?;
    let perceptor = args.engine.perceptor(&args.bundle)?;
    let request = args.objects.request(&perceptor, &args.data);
    let fitted = clicks::fit(&perceptor, &request, &mut progress::stages())?;
    {
        let _writing = interrupt::Writing::begin()?;
        clicks::store(&args.bundle, &fitted, &args.out, args.force)?;
    }
    if args.json {
        let json = json!({ "out": args.out, "fitted": fitted });
        return output::line(format!("{json:#}"));
    }
    output::line(format!(
        "{}: thresholds for clicks, from {} objects in {} images",
        args.out.display(),
        fitted.objects,
        fitted.images
    ))?;
    output::line("           threshold  IoU after one click")?;
    for t in &fitted.thresholds {
        output::line(format!(
            "{:9}      {:6.3}               {:4.1} %",
            t.method.name(),
            t.threshold,
            100.0 * t.iou
        ))?;
    }
    if !fitted.skipped.is_empty() {
        output::line(format!("{} images skipped", fitted.skipped.len()))?;
    }
    Ok(())
}
