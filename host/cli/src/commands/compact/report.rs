//! What a compact bundle costs and gains.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Result;
use loftup_bundle::Size;
use loftup_runtime::{
    ColorRange, EncodedFrame, Perceptor, Rect, dot,
    image::{self, RgbImage},
    jbu::JbuOptions,
    sinks::VecSink,
};
use loftup_train::distillation::PrincipalChannels;
use serde::Serialize;

use crate::{output::line, spread::Spread};

/// Rounds of timing.
const ROUNDS: usize = 5;

/// What a compact bundle costs and gains.
#[derive(Debug, Serialize)]
pub struct Report {
    pub channels: usize,
    pub wide_channels: usize,
    /// Share of the variance of the backbone's features in the channels.
    pub explained_variance: f64,
    /// Images held out.
    pub held_out: usize,
    /// Mean cosine between the outputs and the wide one's, projected; over all pixels.
    pub cosine: f64,
    /// The same for joint bilateral upsampling of the compact backbone's features.
    pub cosine_jbu: f64,
    pub size: String,
    pub threads: usize,
    /// Seconds per frame, backbone included, median.
    pub wide_seconds: f64,
    pub compact_seconds: f64,
    pub notes: Vec<String>,
}

/// Compares the bundle at `out` with `wide`. The channels hold `explained_variance`.
pub fn measure(
    wide: &Perceptor,
    out: &Path,
    (channels, explained_variance): (&PrincipalChannels, f64),
    held_out: &[PathBuf],
    size: Size,
) -> Result<Report> {
    let small = Perceptor::open_on_cpu(out, wide.options())?;
    let (mut sums, mut pixels, mut used) = ([0.0; 2], 0usize, 0);
    let mut last = None;
    for path in held_out {
        let image = match image::open(path) {
            Ok(image) => image,
            Err(e) => {
                log::warn!("left out: {e}");
                continue;
            }
        };
        let target = channels.apply(&output(&encode(wide, &image, size)?)?);
        let inputs = small.preprocess(&image, size)?;
        let features = small.features(inputs.backbone())?;
        let loftup = small.encode_features(&features, &inputs.guidance, ColorRange::PerImage)?;
        let jbu = small.encode_jbu(features, &inputs.guidance, JbuOptions::default());
        for (sum, found) in sums.iter_mut().zip([output(&loftup)?, output(&jbu)?]) {
            *sum += cosines(&found, &target, channels.channels());
        }
        pixels += size.area();
        used += 1;
        last = Some(image);
    }
    let mut seconds = [Vec::new(), Vec::new()];
    if let Some(image) = &last {
        for _ in 0..ROUNDS {
            for (perceptor, seconds) in [wide, &small].into_iter().zip(&mut seconds) {
                let start = Instant::now();
                output(&encode(perceptor, image, size)?)?;
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
    }
    let [wide_seconds, compact_seconds] = seconds.map(|s| match s.is_empty() {
        true => f64::NAN,
        false => Spread::of(s).p50,
    });
    let [cosine, cosine_jbu] = sums.map(|sum| sum / pixels.max(1) as f64);
    Ok(Report {
        channels: channels.channels(),
        wide_channels: channels.inputs(),
        explained_variance,
        held_out: used,
        cosine,
        cosine_jbu,
        size: size.to_string(),
        threads: wide.options().threads,
        wide_seconds,
        compact_seconds,
        notes: Vec::new(),
    })
}

fn encode<'a>(perceptor: &'a Perceptor, image: &RgbImage, size: Size) -> Result<EncodedFrame<'a>> {
    Ok(perceptor.encode(image, size, ColorRange::PerImage)?)
}

/// The features of every pixel, `[height * width, channels]`.
fn output(frame: &EncodedFrame<'_>) -> Result<Vec<f32>> {
    let mut sink = VecSink::new(Rect::whole(frame.size()), frame.dim())?;
    frame.frame(&mut |tile| sink.push(tile))?;
    Ok(sink.into_values())
}

/// Sum of the cosines of the rows of two matrices of `k` columns.
fn cosines(a: &[f32], b: &[f32], k: usize) -> f64 {
    let rows = a.chunks_exact(k).zip(b.chunks_exact(k));
    rows.map(|(a, b)| f64::from(dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(1e-12)))
        .sum()
}

impl Report {
    pub fn print(&self, out: &Path) -> Result<()> {
        line(format!(
            "{}: {} channels of {}, with {:.1} % of the variance of the backbone's features",
            out.display(),
            self.channels,
            self.wide_channels,
            100.0 * self.explained_variance
        ))?;
        line(format!(
            "  cosine to the wide bundle's output, projected, on {} images held out: {:.3} (JBU {:.3})",
            self.held_out, self.cosine, self.cosine_jbu
        ))?;
        line(format!(
            "  a frame of {} on {} threads of the CPU: {:.1} ms, instead of {:.1} ms: {:.1} times as fast",
            self.size,
            self.threads,
            1e3 * self.compact_seconds,
            1e3 * self.wide_seconds,
            self.wide_seconds / self.compact_seconds
        ))?;
        for note in &self.notes {
            line(format!("  {note}"))?;
        }
        Ok(())
    }
}
