//! `loftup bench`

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use loftup_bundle::Size;
use loftup_runtime::{
    ColorRange, Features, ImageTensor, IncrementalUpsampler, Perceptor, Point, Rect, npy,
};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::{
    args::{EngineArgs, TuneArgs},
    interrupt, output, progress,
    spread::Spread,
};

/// Measure a bundle: a whole frame, a region of 64x64, 1, 100 and 1000 points, and a frame of a
/// video in which 64x64 pixels changed.
///
/// Processor time is summed over all threads and hardly depends on what else the machine does;
/// wall time does. Every question is asked once before it is measured, and the questions take turns.
/// A frame counts from the backbone's features on; the backbone is measured by itself.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loftup bench robot.loftup
  loftup bench up.loftup --features lr.npy --guidance image.npy --threads 1 --json > baseline.json
  loftup bench up.loftup --features lr.npy --guidance image.npy --threads 1 --baseline baseline.json")]
pub struct Args {
    /// The bundle
    bundle: PathBuf,
    /// Backbone features [1,d,h,w] in a `.npy` [default: made up, a patch of 14 pixels each]
    #[arg(long, value_name = "FILE", requires = "guidance")]
    features: Option<PathBuf>,
    /// A normalized picture [1,3,H,W] in a `.npy`, which sets the size
    #[arg(long, value_name = "FILE", requires = "features")]
    guidance: Option<PathBuf>,
    /// Sizes of the answer, WIDTHxHEIGHT, for made-up inputs
    #[arg(long, value_name = "WxH", value_delimiter = ',', conflicts_with = "guidance",
        default_values = ["112x112", "224x224", "448x448"])]
    sizes: Vec<Size>,
    /// How often each question is measured
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// Results of an earlier run with --json, to compare with
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    tune: TuneArgs,
    // Last: it ends with options under a heading of their own.
    #[command(flatten)]
    engine: EngineArgs,
}

/// What one question costs, in seconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Cost {
    cpu_seconds: Spread,
    wall_seconds: Spread,
}

/// All questions at one size.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Costs {
    /// The backbone, where the bundle has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    backbone: Option<Cost>,
    frame: Cost,
    region64: Cost,
    points1: Cost,
    points100: Cost,
    points1000: Cost,
    /// A frame of a video in which 64x64 pixels changed, with kept features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    changed64: Option<Cost>,
    /// Processor seconds of each stage of a frame, where kernels of our own ran.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    stages: BTreeMap<String, f64>,
}

/// The whole result. The main size stands at the top.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Report {
    size: String,
    #[serde(flatten)]
    main: Costs,
    /// The other sizes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    sizes: BTreeMap<String, Costs>,
    peak_rss_bytes: u64,
    threads: usize,
    /// Longest side of a tile, where it was given or measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tile: Option<usize>,
    backend: String,
}

/// What is asked.
struct Input {
    features: Features,
    picture: ImageTensor,
}

pub fn run(args: &Args) -> Result<()> {
    let baseline = args.baseline.as_deref().map(read_baseline).transpose()?;
    let perceptor = args.engine.tuned(&args.bundle, args.tune)?;
    let Some(upsampler) = &perceptor.manifest().upsampler else {
        bail!(
            "{}: the bundle has no upsampler to measure; convert it with --upsampler-weights",
            args.bundle.display()
        );
    };
    let dim = upsampler.dim;
    let inputs = match (&args.features, &args.guidance) {
        (Some(features), Some(guidance)) => vec![read_input(features, guidance, dim)?],
        _ => args.sizes.iter().map(|size| made_up(*size, dim)).collect(),
    };
    let bar = progress::spinner();
    let mut all = BTreeMap::new();
    for input in &inputs {
        let size = input.picture.size;
        bar.set_message(format!("measuring {size}"));
        all.insert(size.to_string(), measure(args, &perceptor, input)?);
    }
    bar.finish_and_clear();
    let main = [224, 448].map(|side| {
        let size = Size {
            width: side,
            height: side,
        };
        size.to_string()
    });
    let first = inputs[0].picture.size.to_string();
    let size = main
        .into_iter()
        .find(|size| all.contains_key(size))
        .unwrap_or(first);
    let main = all.remove(&size).context("the first size was measured")?;
    let report = Report {
        size,
        main,
        sizes: all,
        peak_rss_bytes: peak_rss()?,
        threads: perceptor.options().threads,
        tile: perceptor.options().tile,
        backend: perceptor.health().answering.into(),
    };
    if args.json {
        output::line(serde_json::to_string_pretty(&report)?)?;
        return Ok(());
    }
    print(&report, baseline.as_ref())
}

fn read_baseline(path: &Path) -> Result<Report> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| {
        format!(
            "{}: not a result of bench; make one with --json",
            path.display()
        )
    })
}

fn read_input(features: &Path, guidance: &Path, dim: usize) -> Result<Input> {
    let array = npy::read(features)?;
    Ok(Input {
        features: Features::from_map(&array.shape, &array.data, dim)
            .with_context(|| features.display().to_string())?,
        picture: ImageTensor::from_array(npy::read(guidance)?)
            .with_context(|| guidance.display().to_string())?,
    })
}

/// A picture of 256 levels with gradients and noise, and features of noise: speed does not depend
/// on what they show.
fn made_up(size: Size, dim: usize) -> Input {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut noise = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let (height, width) = (size.height.div_ceil(14), size.width.div_ceil(14));
    let tokens = (0..dim * height * width).map(|_| noise()).collect();
    let picture = (0..3 * size.area())
        .map(|i| {
            let (x, y) = (i % size.width, i / size.width % size.height);
            let slope = (x as f32 / size.width as f32 + y as f32 / size.height as f32) / 2.0;
            ((0.8 * slope + 0.1 * (noise() + 1.0)) * 255.0).round() / 255.0 * 4.0 - 2.0
        })
        .collect();
    Input {
        features: Features {
            dim,
            height,
            width,
            tokens,
        },
        picture: ImageTensor {
            size,
            data: picture,
        },
    }
}

type Question<'a> = Box<dyn FnMut() -> Result<()> + 'a>;

fn measure(args: &Args, perceptor: &Perceptor, input: &Input) -> Result<Costs> {
    let Size { width, height } = input.picture.size;
    let ask = || perceptor.encode_features(&input.features, &input.picture, ColorRange::PerImage);
    let points = |n: usize| -> Vec<Point> {
        // Spread over the frame: consecutive multiples of a number prime to both sides.
        (0..n)
            .map(|i| Point {
                x: i * 7919 % width,
                y: i * 104_729 / 7 % height,
            })
            .collect()
    };
    let region = Rect {
        x: (width - width.min(64)) / 2,
        y: (height - height.min(64)) / 2,
        width: width.min(64),
        height: height.min(64),
    };
    let picture = match &perceptor.manifest().backbone {
        Some(backbone) => {
            let seen = perceptor.backbone_size(input.picture.size)?;
            log::info!("the backbone, patch {}, looks at {seen}", backbone.patch);
            Some(made_up(seen, 1).picture)
        }
        None => None,
    };
    // Each question starts from the backbone's features: keys are a part of its price.
    let mut questions: Vec<Question<'_>> = vec![
        Box::new(|| Ok(ask()?.frame(&mut |_| Ok(interrupt::check()?))?)),
        Box::new(|| Ok(ask()?.region(region, &mut |_| Ok(interrupt::check()?))?)),
    ];
    for n in [1, 100, 1000] {
        let points = points(n);
        questions.push(Box::new(move || {
            ask()?.points(&points)?;
            Ok(interrupt::check()?)
        }));
    }
    let other = mirrored(&input.picture, region);
    let range = ColorRange::Fixed {
        min: [-3.0; 3],
        max: [3.0; 3],
    };
    let (mut video, mut turn) = (IncrementalUpsampler::new(), 0);
    questions.push(Box::new(move || {
        turn += 1;
        let picture = [&input.picture, &other][turn % 2];
        let view = perceptor.encode_features(&input.features, picture, range)?;
        video.frame(&view, &mut |_| Ok(interrupt::check()?))?;
        Ok(())
    }));
    if let Some(picture) = &picture {
        questions.push(Box::new(|| {
            perceptor.features(picture)?;
            Ok(interrupt::check()?)
        }));
    }
    for question in &mut questions {
        question()?;
    }
    let mut stages = vec![Vec::new(); loftup_kernels::stages().count()];
    let mut times = vec![(Vec::new(), Vec::new()); questions.len()];
    for _ in 0..args.repeat {
        for (i, (question, (cpu, wall))) in questions.iter_mut().zip(&mut times).enumerate() {
            let before: Vec<_> = loftup_kernels::stages().collect();
            let (start_cpu, start) = (processor_time(), Instant::now());
            question()?;
            wall.push(start.elapsed().as_secs_f64());
            cpu.push((processor_time() - start_cpu).as_secs_f64());
            if i == 0 {
                let after = loftup_kernels::stages();
                for ((seconds, (_, after)), (_, before)) in stages.iter_mut().zip(after).zip(before)
                {
                    seconds.push((after - before).as_secs_f64());
                }
            }
        }
    }
    let mut costs = times.into_iter().map(|(cpu, wall)| Cost {
        cpu_seconds: Spread::of(cpu),
        wall_seconds: Spread::of(wall),
    });
    let mut next = || costs.next().context("every question was measured");
    Ok(Costs {
        frame: next()?,
        region64: next()?,
        points1: next()?,
        points100: next()?,
        points1000: next()?,
        changed64: Some(next()?),
        backbone: picture.as_ref().map(|_| next()).transpose()?,
        stages: loftup_kernels::stages()
            .map(|(name, _)| name.to_owned())
            .zip(stages.into_iter().map(|seconds| Spread::of(seconds).p50))
            .filter(|(_, seconds)| *seconds > 0.0)
            .collect(),
    })
}

/// The picture with the columns of `rect` in reverse: other pixels of the same colors.
fn mirrored(picture: &ImageTensor, rect: Rect) -> ImageTensor {
    let Size { width, height } = picture.size;
    let mut mirrored = picture.clone();
    for row in (0..3).flat_map(|c| (rect.y..rect.y + rect.height).map(move |y| c * height + y)) {
        mirrored.data[row * width + rect.x..][..rect.width].reverse();
    }
    mirrored
}

/// Processor time of this process, all threads together.
fn processor_time() -> Duration {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(t.tv_sec).unwrap_or(0),
        u32::try_from(t.tv_nsec).unwrap_or(0),
    )
}

/// The most memory that this process ever had resident.
fn peak_rss() -> Result<u64> {
    let path = "/proc/self/status";
    let status = fs::read_to_string(path).context(path)?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok())
        .map(|kilobytes| kilobytes * 1024)
        .with_context(|| format!("{path}: no peak of resident memory"))
}

fn print(report: &Report, baseline: Option<&Report>) -> Result<()> {
    let all = |report: &Report| -> Vec<(String, Costs)> {
        let main = (report.size.clone(), report.main.clone());
        std::iter::once(main).chain(report.sizes.clone()).collect()
    };
    let old = baseline.map(all).unwrap_or_default();
    let tile = report
        .tile
        .map_or(String::new(), |tile| format!(", tiles of {tile}"));
    output::line(format!(
        "{} on {} threads{tile}; seconds, median (90th percentile)",
        report.backend, report.threads
    ))?;
    for (size, costs) in all(report) {
        let old = old.iter().find(|(s, _)| *s == size).map(|(_, c)| c);
        let frame = costs.frame.cpu_seconds.p50;
        output::line(format!(
            "\n{size:<12} {:>20} {:>20} {:>9}",
            "processor", "wall", "of frame"
        ))?;
        for (name, cost, old) in [
            ("frame", Some(costs.frame), old.map(|o| o.frame)),
            ("region64", Some(costs.region64), old.map(|o| o.region64)),
            ("points1", Some(costs.points1), old.map(|o| o.points1)),
            ("points100", Some(costs.points100), old.map(|o| o.points100)),
            (
                "points1000",
                Some(costs.points1000),
                old.map(|o| o.points1000),
            ),
            ("changed64", costs.changed64, old.and_then(|o| o.changed64)),
            ("backbone", costs.backbone, old.and_then(|o| o.backbone)),
        ] {
            let Some(cost) = cost else { continue };
            let spread = |s: Spread| format!("{:.4} ({:.4})", s.p50, s.p90);
            let ratio = old.map_or(String::new(), |old| {
                let ratio = cost.cpu_seconds.p50 / old.cpu_seconds.p50;
                format!("  {ratio:.2} of the baseline's {:.4}", old.cpu_seconds.p50)
            });
            output::line(format!(
                "{name:<12} {:>20} {:>20} {:>9.4}{ratio}",
                spread(cost.cpu_seconds),
                spread(cost.wall_seconds),
                cost.cpu_seconds.p50 / frame,
            ))?;
        }
        for (stage, seconds) in &costs.stages {
            output::line(format!(
                "  {stage:<22} {seconds:>8.4} {:>5.1} %",
                100.0 * seconds / frame
            ))?;
        }
    }
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let old = baseline.map_or(String::new(), |old| {
        format!(", the baseline's {:.0} MB", megabytes(old.peak_rss_bytes))
    });
    output::line(format!(
        "\npeak memory {:.0} MB{old}",
        megabytes(report.peak_rss_bytes)
    ))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_back_as_they_were_written() {
        let cost = |x: f64| Cost {
            cpu_seconds: Spread {
                p50: x,
                p90: 2.0 * x,
            },
            wall_seconds: Spread { p50: x, p90: x },
        };
        let costs = Costs {
            backbone: None,
            frame: cost(2.0),
            region64: cost(0.2),
            points1: cost(0.01),
            points100: cost(0.02),
            points1000: cost(0.1),
            changed64: Some(cost(0.3)),
            stages: BTreeMap::from([("MLP".to_owned(), 0.5)]),
        };
        let report = Report {
            size: "224x224".into(),
            main: costs.clone(),
            sizes: BTreeMap::from([("112x112".to_owned(), costs)]),
            peak_rss_bytes: 100_000_000,
            threads: 1,
            tile: Some(48),
            backend: "tract".into(),
        };
        let text = serde_json::to_string(&report).expect("JSON");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(json["frame"]["cpu_seconds"]["p50"], 2.0);
        assert_eq!(json["points1000"]["wall_seconds"]["p90"], 0.1);
        assert_eq!(json["peak_rss_bytes"], 100_000_000);
        let back: Report = serde_json::from_str(&text).expect("the same");
        assert_eq!(serde_json::to_string(&back).expect("JSON"), text);
    }
}
