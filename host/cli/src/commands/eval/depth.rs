//! `loftup eval depth`

use std::path::PathBuf;

use anyhow::Result;
use loftup_bundle::Size;
use loftup_eval::depth;

use crate::{
    args::{CameraArgs, EngineArgs, MethodArg, RangeArg, ReadArgs, SampleArgs},
    commands::data_args::DepthArgs,
    output, progress,
};

/// Compare nearest, bilinear and bicubic interpolation, joint bilateral upsampling (JBU) and LoftUp by
/// linear heads for depth.
///
/// For each method, a ridge regression of the logarithm of the depth is fitted to the training images
/// and evaluated on the others: d1 (pixels within a factor of 1.25), absolute relative error, RMSE and
/// SILog of each image, averaged over images; on all pixels, and in the band of 4 pixels (at 224)
/// around depth jumps. Surface normals of the predicted depth are compared with those of the measured
/// depth, away from jumps: mean angle, and pixels within 11.25, 22.5 and 30 degrees. --json also prints the other metrics, and all of them after the least-squares
/// scale and shift of each image.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loftup eval depth robot.loftup --data depth/index.csv --set kitchen")]
pub struct DepthEvalArgs {
    /// The bundle
    bundle: PathBuf,
    #[command(flatten)]
    data: DepthArgs,
    /// Upsampling methods to compare [default: all that the bundle supports]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    methods: Vec<MethodArg>,
    /// Size of images and depth [default: the backbone's input size]
    #[arg(long, value_name = "WxH")]
    size: Option<Size>,
    /// Color range of the guidance, as in `run`
    #[arg(long, value_name = "RANGE", default_value = "image")]
    range: RangeArg,
    #[command(flatten)]
    camera: CameraArgs,
    #[command(flatten)]
    samples: SampleArgs,
    /// Print all results as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

pub fn run(args: &DepthEvalArgs) -> Result<()> {
    let perceptor = args.engine.perceptor(&args.bundle)?;
    let request = depth::Request {
        data: &args.data.data,
        set: args.data.set.as_deref(),
        size: args.size,
        range: args.range.color_range(&perceptor.manifest().normalization),
        orientation: args.read.orientation(),
        methods: args.methods.iter().map(|m| (*m).into()).collect(),
        samples: args.samples.samples,
        most: args.samples.limit,
        max_depth: args.data.max_depth,
        bins: args.data.bins,
        camera: args.camera.camera(),
        ridge: args.data.ridge,
        seed: args.samples.seed,
    };
    let report = depth::evaluate(&perceptor, &request, &mut progress::stages())?;
    if args.json {
        return output::line(serde_json::to_string_pretty(&report)?);
    }
    print(&report)
}

fn print(report: &depth::Report) -> Result<()> {
    output::line(format!(
        "{:.2} to {:.2} m at {}x{}: fitted to {} pixels of {} images, evaluated on {} images; band of {} pixels around depth jumps: {:.1} % of the pixels, in {} images",
        report.range_meters.0,
        report.range_meters.1,
        report.width,
        report.height,
        report.train_pixels,
        report.train_images,
        report.val_images,
        report.band_radius,
        100.0 * report.band_fraction,
        report.band_images
    ))?;
    if !report.skipped.is_empty() {
        output::line(format!("{} images skipped", report.skipped.len()))?;
    }
    let part = |name: &str, scores: &dyn Fn(&depth::Outcome) -> Option<depth::Scores>| {
        output::line(format!(
            "{name:12}   d1  AbsRel    RMSE   SILog   d1 aligned  AbsRel aligned"
        ))?;
        for r in &report.results {
            let Some(depth::Scores { absolute, aligned }) = scores(r) else {
                continue;
            };
            output::line(format!(
                "{:9} {:5.1} %  {:6.4}  {:5.3} m  {:5.2}      {:5.1} %          {:6.4}",
                r.method.name(),
                100.0 * absolute.d1,
                absolute.abs_rel,
                absolute.rmse,
                absolute.silog,
                100.0 * aligned.d1,
                aligned.abs_rel
            ))?;
        }
        anyhow::Ok(())
    };
    part("whole image", &|r| Some(r.whole))?;
    part("band", &|r| r.band)?;
    normals(report)?;
    for (rival, differences) in [
        ("bilinear", rivals(report, |r| r.minus_bilinear)),
        ("JBU", rivals(report, |r| r.minus_jbu)),
    ] {
        if differences.is_empty() {
            continue;
        }
        output::line(format!(
            "minus {rival:8}  AbsRel (95 %)                    AbsRel in the band (95 %)        normals, degrees (95 %)"
        ))?;
        for (name, d) in differences {
            let band = d
                .band_abs_rel
                .map_or("none".into(), |i| output::interval(i, 1.0, 4));
            let normals = d
                .normal_degrees
                .map_or("none".into(), |i| output::interval(i, 1.0, 2));
            output::line(format!(
                "{name:9}       {:31}  {band:31}  {normals}",
                output::interval(d.abs_rel, 1.0, 4)
            ))?;
        }
    }
    Ok(())
}

fn normals(report: &depth::Report) -> Result<()> {
    let scores = |r: &depth::Outcome| Some((r.method.name(), r.normals?));
    let scores: Vec<_> = report.results.iter().filter_map(scores).collect();
    if scores.is_empty() {
        return Ok(());
    }
    output::line(format!(
        "normals         mean  <11.25  <22.5   <30 degrees, on {:.1} % of the pixels",
        100.0 * report.normal_fraction
    ))?;
    for (name, n) in scores {
        output::line(format!(
            "{name:9} {:8.2} deg {:5.1} % {:5.1} % {:5.1} %",
            n.mean_degrees,
            100.0 * n.within_11_25,
            100.0 * n.within_22_5,
            100.0 * n.within_30
        ))?;
    }
    Ok(())
}

fn rivals(
    report: &depth::Report,
    differences: impl Fn(&depth::Outcome) -> Option<depth::Differences>,
) -> Vec<(&'static str, depth::Differences)> {
    let results = report.results.iter();
    results
        .filter_map(|r| Some((r.method.name(), differences(r)?)))
        .collect()
}
