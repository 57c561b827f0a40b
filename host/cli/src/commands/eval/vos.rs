//! `loftup eval vos`

use std::path::PathBuf;

use anyhow::{Context, Result};
use loftup_eval::vos::{self, Scores};
use loftup_runtime::ColorRange;

use crate::{
    args::{EngineArgs, MethodArg, RangeArg, TrackArgs, count},
    commands::frames::interval,
    output, progress,
};

/// Compare nearest, bilinear and bicubic interpolation, joint bilateral upsampling (JBU) and LoftUp by
/// video object segmentation on DAVIS.
///
/// The objects of the first frame's mask are followed by propagating their labels along similar features,
/// as in `loftup track`; nothing is trained. DIR has DAVIS' layout: JPEGImages/480p/CLIP/00000.jpg and
/// Annotations/480p/CLIP/00000.png; JPEGImages/480p/CLIP.mp4 (or .mkv, .webm, .mov, .avi), which ffmpeg or
/// GStreamer decodes, can take the place of the images. Reports region similarity J and contour accuracy F in percent, as the
/// benchmark does: means over objects, without the first and the last frame. The last columns are
/// differences in J&F, the mean over clips, with their 95 % bootstrap intervals. With --masks, existing
/// masks are scored, and no bundle is needed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loftup eval vos robot.loftup --data DAVIS/
  loftup eval vos robot.loftup --data DAVIS/ --clips blackswan,libby --max-frames 20 --methods bilinear,loftup
  loftup eval vos --data DAVIS/ --masks masks/")]
pub struct VosArgs {
    /// The bundle
    #[arg(required_unless_present = "masks", conflicts_with = "masks")]
    bundle: Option<PathBuf>,
    /// The dataset
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Score the masks DIR/CLIP/00000.png instead of tracking
    #[arg(long, value_name = "DIR")]
    masks: Option<PathBuf>,
    /// Upsampling methods to compare [default: all that the bundle supports]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    methods: Vec<MethodArg>,
    /// Clips [default: all]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    clips: Vec<String>,
    /// Most frames of each clip, from its first
    #[arg(long, value_name = "N", value_parser = count)]
    max_frames: Option<usize>,
    /// Color range of the guidance, as in `run`
    #[arg(long, value_name = "RANGE", default_value = "image")]
    range: RangeArg,
    /// NAF's normalization statistics are those of every n-th frame of a clip
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = interval)]
    naf_statistics_interval: u32,
    #[command(flatten)]
    track: TrackArgs,
    /// Seed of the bootstrap
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    /// Print all results, including those of each frame, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

pub fn run(args: &VosArgs) -> Result<()> {
    let mut request = vos::Request {
        data: &args.data,
        clips: args.clips.clone(),
        max_frames: args.max_frames,
        methods: args.methods.iter().map(|m| (*m).into()).collect(),
        grid: args.track.grid,
        range: ColorRange::PerImage,
        naf_statistics_interval: args.naf_statistics_interval,
        track: args.track.options(&args.engine),
        seed: args.seed,
    };
    if let Some(masks) = &args.masks {
        let scores = vos::score(&request, masks, &mut progress::stages())?;
        return score(args, &scores);
    }
    let bundle = args.bundle.as_ref().context("give a bundle, or --masks")?;
    let perceptor = args.engine.perceptor(bundle)?;
    request.range = args.range.color_range(&perceptor.manifest().normalization);
    let report = vos::evaluate(&perceptor, &request, &mut progress::stages())?;
    if args.json {
        return output::line(serde_json::to_string_pretty(&report)?);
    }
    output::line(format!(
        "{} clips, {} objects, {} frames on a grid of {}x{}",
        report.clips, report.objects, report.frames, report.grid_width, report.grid_height
    ))?;
    output::line(
        "            J&F  J mean  recall  decay  F mean  recall  decay  features  propagation    J&F - bilinear          J&F - JBU",
    )?;
    for r in &report.results {
        output::line(format!(
            "{:9} {} {:6.1} ms {:9.1} ms  {:21}  {}",
            r.method.name(),
            columns(&r.scores),
            r.features_ms,
            r.propagation_ms,
            super::minus(r.to_bilinear),
            super::minus(r.to_jbu),
        ))?;
    }
    Ok(())
}

fn score(args: &VosArgs, scores: &Scores) -> Result<()> {
    if args.json {
        return output::line(serde_json::to_string_pretty(scores)?);
    }
    output::line("                      J&F  J mean  recall  decay  F mean  recall  decay")?;
    for clip in &scores.clips {
        let one = Scores::of(vec![clip.clone()]);
        output::line(format!("{:19} {}", clip.clip, columns(&one)))?;
    }
    output::line(format!("{:19} {}", "all", columns(scores)))
}

fn columns(s: &Scores) -> String {
    let [j, f] = [s.j, s.f].map(|s| {
        let [mean, recall, decay] = [s.mean, s.recall, s.decay].map(|x| 100.0 * x);
        format!("{mean:7.1} {recall:7.1} {decay:6.1}")
    });
    format!("{:5.1} {j} {f}", 100.0 * s.j_and_f)
}
