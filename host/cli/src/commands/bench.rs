//! `loftup bench`

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use loftup_bundle::{Size, UpsamplerKind};
use loftup_runtime::{
    ColorRange, Features, ImageTensor, IncrementalUpsampler, Perceptor, Point, Rect, cpu_time, npy,
};
use loftup_spec::naf;
use serde::{Deserialize, Serialize};

use crate::{
    args::{EngineArgs, TuneArgs},
    energy::Sensors,
    interrupt, output, progress,
    spread::Spread,
};

/// Measure the speed of a bundle.
///
/// Times are measured for a whole frame, a 64x64 region, 1, 100 and 1000 points, and a video frame in
/// which 64x64 pixels changed. They start from the backbone's features; the backbone is measured
/// separately. CPU time is summed over all threads and, unlike wall time, hardly depends on the load of
/// the machine. Each measurement is preceded by a warm-up run, and the measurements are interleaved.
///
/// The energy of a frame is measured where the machine has sensors for it: RAPL on Intel and AMD (usually
/// readable by root only), INA3221 on Jetson. It includes idle power and everything else that runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loftup bench robot.loftup
  loftup bench up.loftup --features lr.npy --guidance image.npy --threads 1 --json > baseline.json
  loftup bench up.loftup --features lr.npy --guidance image.npy --threads 1 --baseline baseline.json")]
pub struct Args {
    /// The bundle
    bundle: PathBuf,
    /// Backbone features as a `.npy` of shape [1,d,h,w] [default: random, with a patch size of 14, or smaller
    /// where NAF needs more patches]
    #[arg(long, value_name = "FILE", requires = "guidance")]
    features: Option<PathBuf>,
    /// Normalized image as a `.npy` of shape [1,3,H,W]; determines the output size
    #[arg(long, value_name = "FILE", requires = "features")]
    guidance: Option<PathBuf>,
    /// Output sizes for random inputs
    #[arg(long, value_name = "WxH", value_delimiter = ',', conflicts_with = "guidance",
        default_values = ["112x112", "224x224", "448x448"])]
    sizes: Vec<Size>,
    /// Number of measurements
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// Compare with the --json results of an earlier run
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    tune: TuneArgs,
    // Last, because it ends with a help heading.
    #[command(flatten)]
    engine: EngineArgs,
}

/// Time of one request, in seconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Cost {
    cpu_seconds: Spread,
    wall_seconds: Spread,
}

/// All measurements at one size.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Costs {
    /// The backbone, if the bundle has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    backbone: Option<Cost>,
    frame: Cost,
    region64: Cost,
    points1: Cost,
    points100: Cost,
    points1000: Cost,
    /// A video frame in which 64x64 pixels changed, upsampled incrementally.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    changed64: Option<Cost>,
    /// CPU seconds of each stage of a frame, if it ran in the project's own kernels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    stages: BTreeMap<String, f64>,
    /// Joules of a frame, by sensor.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    frame_joules: BTreeMap<String, f64>,
}

/// All results. Those of the main size are at the top level.
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
    /// Side of a tile, if it was given or tuned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tile: Option<usize>,
    backend: String,
}

/// Features and guidance.
struct Input {
    features: Features,
    image: ImageTensor,
}

pub fn run(args: &Args) -> Result<()> {
    let baseline = args.baseline.as_deref().map(read_baseline).transpose()?;
    let perceptor = args.engine.tuned(&args.bundle, args.tune)?;
    let Some(upsampler) = &perceptor.manifest().upsampler else {
        bail!(
            "{}: the bundle has no upsampler; convert it with --upsampler-weights",
            args.bundle.display()
        );
    };
    let dim = upsampler.dim;
    let smallest_grid = match upsampler.kind {
        UpsamplerKind::LoftUp => 1,
        UpsamplerKind::Naf => naf::WINDOW,
    };
    let inputs = match (&args.features, &args.guidance) {
        (Some(features), Some(guidance)) => vec![read_input(features, guidance, dim)?],
        _ => args
            .sizes
            .iter()
            .map(|size| random_input(*size, dim, smallest_grid))
            .collect(),
    };
    let bar = progress::spinner();
    let mut all = BTreeMap::new();
    for input in &inputs {
        let size = input.image.size;
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
    let first = inputs[0].image.size.to_string();
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
    serde_json::from_str(&text)
        .with_context(|| format!("{}: not a result of `loftup bench --json`", path.display()))
}

fn read_input(features: &Path, guidance: &Path, dim: usize) -> Result<Input> {
    let array = npy::read(features)?;
    Ok(Input {
        features: Features::from_map(&array.shape, &array.data, dim)
            .with_context(|| features.display().to_string())?,
        image: ImageTensor::from_array(npy::read(guidance)?)
            .with_context(|| guidance.display().to_string())?,
    })
}

/// An 8-bit image of gradients and noise, and random features on a grid of at least `smallest_grid` rows and
/// columns: speed does not depend on the content.
fn random_input(size: Size, dim: usize, smallest_grid: usize) -> Input {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut noise = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let cells = |pixels: usize| pixels.div_ceil(14).max(smallest_grid);
    let (height, width) = (cells(size.height), cells(size.width));
    let tokens = (0..dim * height * width).map(|_| noise()).collect();
    let image = (0..3 * size.area())
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
        image: ImageTensor { size, data: image },
    }
}

type Measurement<'a> = Box<dyn FnMut() -> Result<()> + 'a>;

fn measure(args: &Args, perceptor: &Perceptor, input: &Input) -> Result<Costs> {
    let Size { width, height } = input.image.size;
    let encode = || perceptor.encode_features(&input.features, &input.image, ColorRange::PerImage);
    let points = |n: usize| -> Vec<Point> {
        // Spread over the frame by steps that are coprime to both sides.
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
    let backbone_input = match &perceptor.manifest().backbone {
        Some(backbone) => {
            let input_size = perceptor.backbone_size(input.image.size)?;
            log::info!("backbone: patch {}, input {input_size}", backbone.patch);
            Some(random_input(input_size, 1, 1).image)
        }
        None => None,
    };
    // Each measurement starts from the backbone's features and includes the keys.
    let mut measurements: Vec<Measurement<'_>> = vec![
        Box::new(|| Ok(encode()?.frame(&mut |_| Ok(interrupt::check()?))?)),
        Box::new(|| Ok(encode()?.region(region, &mut |_| Ok(interrupt::check()?))?)),
    ];
    for n in [1, 100, 1000] {
        let points = points(n);
        measurements.push(Box::new(move || {
            encode()?.points(&points)?;
            Ok(interrupt::check()?)
        }));
    }
    let other = mirrored(&input.image, region);
    let range = ColorRange::Fixed {
        min: [-3.0; 3],
        max: [3.0; 3],
    };
    let (mut video, mut turn) = (IncrementalUpsampler::new(), 0);
    measurements.push(Box::new(move || {
        turn += 1;
        let image = [&input.image, &other][turn % 2];
        let view = perceptor.encode_features(&input.features, image, range)?;
        video.frame(&view, &mut |_| Ok(interrupt::check()?))?;
        Ok(())
    }));
    if let Some(image) = &backbone_input {
        measurements.push(Box::new(|| {
            perceptor.features(image)?;
            Ok(interrupt::check()?)
        }));
    }
    for measurement in &mut measurements {
        measurement()?;
    }
    let sensors = Sensors::find(Path::new("/sys"));
    let mut joules: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut stages = vec![Vec::new(); loftup_kernels::stages().count()];
    let mut times = vec![(Vec::new(), Vec::new()); measurements.len()];
    for _ in 0..args.repeat {
        for (i, (measurement, (cpu, wall))) in measurements.iter_mut().zip(&mut times).enumerate() {
            let before: Vec<_> = loftup_kernels::stages().collect();
            let energy = (i == 0 && !sensors.is_empty()).then(|| sensors.start());
            let (start_cpu, start) = (cpu_time::process(), Instant::now());
            measurement()?;
            wall.push(start.elapsed().as_secs_f64());
            cpu.push((cpu_time::process() - start_cpu).as_secs_f64());
            for (name, used) in energy.into_iter().flat_map(|e| e.finish()) {
                joules.entry(name).or_default().push(used);
            }
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
    let mut next = || costs.next().context("every request was measured");
    Ok(Costs {
        frame: next()?,
        region64: next()?,
        points1: next()?,
        points100: next()?,
        points1000: next()?,
        changed64: Some(next()?),
        backbone: backbone_input.as_ref().map(|_| next()).transpose()?,
        stages: loftup_kernels::stages()
            .map(|(name, _)| name.to_owned())
            .zip(stages.into_iter().map(|seconds| Spread::of(seconds).p50))
            .filter(|(_, seconds)| *seconds > 0.0)
            .collect(),
        frame_joules: joules
            .into_iter()
            .map(|(name, used)| (name, Spread::of(used).p50))
            .collect(),
    })
}

/// The image with the columns of `rect` reversed: other pixels, the same colors.
fn mirrored(image: &ImageTensor, rect: Rect) -> ImageTensor {
    let Size { width, height } = image.size;
    let mut mirrored = image.clone();
    for row in (0..3).flat_map(|c| (rect.y..rect.y + rect.height).map(move |y| c * height + y)) {
        mirrored.data[row * width + rect.x..][..rect.width].reverse();
    }
    mirrored
}

/// Peak resident set size of this process.
fn peak_rss() -> Result<u64> {
    let path = "/proc/self/status";
    let status = fs::read_to_string(path).context(path)?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok())
        .map(|kilobytes| kilobytes * 1024)
        .with_context(|| format!("{path}: no VmHWM"))
}

fn print(report: &Report, baseline: Option<&Report>) -> Result<()> {
    let all = |report: &Report| -> Vec<(String, Costs)> {
        let main = (report.size.clone(), report.main.clone());
        std::iter::once(main).chain(report.sizes.clone()).collect()
    };
    let old = baseline.map(all).unwrap_or_default();
    let tile = report
        .tile
        .map_or(String::new(), |tile| format!(", tile size {tile}"));
    output::line(format!(
        "{} on {} threads{tile}; seconds, median (90th percentile)",
        report.backend, report.threads
    ))?;
    for (size, costs) in all(report) {
        let old = old.iter().find(|(s, _)| *s == size).map(|(_, c)| c);
        let frame = costs.frame.cpu_seconds.p50;
        output::line(format!(
            "\n{size:<12} {:>20} {:>20} {:>9}",
            "CPU", "wall", "of frame"
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
                format!("  {ratio:.2} of the baseline ({:.4})", old.cpu_seconds.p50)
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
        for (sensor, joules) in &costs.frame_joules {
            output::line(format!("  {sensor:<22} {joules:>8.3} J per frame"))?;
        }
    }
    if report.main.frame_joules.is_empty() {
        output::line("\nenergy: no sensor that can be read (RAPL: as root; INA3221)")?;
    }
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let old = baseline.map_or(String::new(), |old| {
        format!(", baseline {:.0} MB", megabytes(old.peak_rss_bytes))
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
    fn results_round_trip_through_json() {
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
            frame_joules: BTreeMap::from([("package-0".to_owned(), 31.5)]),
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

    #[test]
    fn a_grid_has_the_patches_that_naf_needs() {
        let side = |pixels| Size {
            width: pixels,
            height: pixels + 1,
        };
        for (pixels, smallest, expected) in [(112, 1, (9, 8)), (112, 9, (9, 9)), (224, 9, (17, 16))]
        {
            let Features { height, width, .. } = random_input(side(pixels), 4, smallest).features;
            assert_eq!((height, width), expected);
        }
    }
}
