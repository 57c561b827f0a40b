//! `loftup eval clicks`

use std::path::PathBuf;

use anyhow::Result;
use loftup_eval::clicks;

use crate::{
    args::{EngineArgs, count},
    commands::data_args::ObjectArgs,
    output, progress,
};

/// Compare nearest, bilinear and bicubic interpolation, joint bilateral upsampling (JBU) and LoftUp by
/// segmentation of objects from clicks.
///
/// Clicks are simulated as in RITM and iSegProbe: each goes to the innermost pixel of the larger error
/// region. Reports the mean IoU after 1, 3, 5, 10 and 20 clicks and the mean number of clicks to reach
/// an IoU of 80, 85 and 90 %. The threshold of each method is fitted to the images in --train.
///
/// Datasets are as for `loftup head clicks`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loftup eval clicks robot.loftup --data coco/
  loftup eval clicks robot.loftup --data grabcut/ --train coco/train")]
pub struct ClicksEvalArgs {
    /// The bundle
    bundle: PathBuf,
    /// The dataset: DIR/val if it exists, or DIR
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Images to fit thresholds to: DIR/train if it exists, or DIR [default: --data]
    #[arg(long, value_name = "DIR")]
    train: Option<PathBuf>,
    /// Clicks per object
    #[arg(long, value_name = "N", default_value_t = clicks::CLICKS, value_parser = count)]
    clicks: usize,
    #[command(flatten)]
    objects: ObjectArgs,
    /// Print all results, including the whole curve, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

pub fn run(args: &ClicksEvalArgs) -> Result<()> {
    let perceptor = args.engine.perceptor(&args.bundle)?;
    let request = clicks::Request {
        train: args.train.as_deref(),
        clicks: args.clicks,
        ..args.objects.request(&perceptor, &args.data)
    };
    let report = clicks::evaluate(&perceptor, &request, &mut progress::stages())?;
    if args.json {
        return output::line(serde_json::to_string_pretty(&report)?);
    }
    print(&report)
}

fn print(report: &clicks::Report) -> Result<()> {
    output::line(format!(
        "{} objects in {} images at {}x{}, {} clicks each; thresholds from {} objects in {} images",
        report.objects,
        report.images,
        report.width,
        report.height,
        report.clicks,
        report.train_objects,
        report.train_images
    ))?;
    if !report.skipped.is_empty() {
        output::line(format!("{} images skipped", report.skipped.len()))?;
    }
    let shown = [1, 3, 5, 10, 20];
    let shown = shown.map(|k| (k <= report.clicks).then_some(k));
    let heads = shown.iter().flatten().map(|k| format!("  IoU@{k:<2}"));
    output::line(format!(
        "          threshold{}   NoC@80 (never)   NoC@85 (never)   NoC@90 (never)",
        heads.collect::<String>()
    ))?;
    for r in &report.results {
        let iou = shown
            .iter()
            .flatten()
            .map(|k| format!("  {:4.1} %", 100.0 * r.iou[k - 1]));
        let reach = r.to_reach.iter();
        let reach = reach.map(|n| format!("   {:5.2} {:9}", n.clicks, format!("({})", n.never)));
        output::line(format!(
            "{:9}    {:6.3}{}{}",
            r.method.name(),
            r.threshold,
            iou.collect::<String>(),
            reach.collect::<String>()
        ))?;
    }
    for (rival, minus) in [
        ("bilinear", rivals(report, |r| r.minus_bilinear)),
        ("JBU", rivals(report, |r| r.minus_jbu)),
    ] {
        if minus.is_empty() {
            continue;
        }
        output::line(format!(
            "minus {rival:8}  IoU@1, % (95 %)        IoU@5, % (95 %)        NoC@80 (95 %)"
        ))?;
        for (name, d) in minus {
            output::line(format!(
                "{name:9}       {:21}  {:21}  {}",
                output::interval(d.iou_1, 100.0, 1),
                output::interval(d.iou_5, 100.0, 1),
                output::interval(d.clicks_80, 1.0, 2)
            ))?;
        }
    }
    Ok(())
}

fn rivals(
    report: &clicks::Report,
    differences: impl Fn(&clicks::Outcome) -> Option<clicks::Differences>,
) -> Vec<(&'static str, clicks::Differences)> {
    let results = report.results.iter();
    results
        .filter_map(|r| Some((r.method.name(), differences(r)?)))
        .collect()
}
