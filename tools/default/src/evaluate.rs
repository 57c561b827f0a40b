//! Evaluates the weights: the same linear probe on LoftUp's features and on interpolated ones.

use std::{ops::ControlFlow, path::Path};

use anyhow::Result;
use loftup_bundle::Size;
use loftup_convert::{BackboneSource, Request, convert};
use loftup_eval::{probe, segmentation};
use loftup_runtime::{ColorRange, ExecutionOptions, Perceptor};

use crate::{scenes::SIDE, vit::Shape};

/// Writes a bundle with the weights.
///
/// # Errors
/// The weights do not match each other, or the bundle cannot be written.
pub fn bundle(shape: &Shape, backbone: &Path, upsampler: Option<&Path>, out: &Path) -> Result<()> {
    convert(
        &Request {
            backbone: Some(BackboneSource::Checkpoint {
                preset: "dinov2".into(),
                weights: backbone.into(),
                options: loftup_import::vit::VitOptions {
                    heads: Some(shape.heads),
                    ..Default::default()
                },
            }),
            upsampler: upsampler.map(Into::into),
            size: Some(Size {
                width: SIDE,
                height: SIDE,
            }),
            out: out.into(),
            prefix: None,
            license: None,
            replace: true,
        },
        |_| ControlFlow::Continue(()),
    )?;
    Ok(())
}

/// Pixels sampled from each training image of the probes.
const SAMPLES: usize = 1000;

/// Trains probes on the `train` split of a dataset and evaluates them on `val`.
///
/// # Errors
/// The bundle cannot be run, or the data cannot be read.
pub fn evaluate(
    bundle: &Path,
    data: &Path,
    progress: crate::Progress<'_>,
) -> Result<segmentation::Report> {
    let perceptor = Perceptor::open_on_cpu(bundle, ExecutionOptions::default())?;
    let request = segmentation::Request {
        data,
        size: None,
        range: ColorRange::PerImage,
        orientation: loftup_runtime::image::Orientation::Upright,
        methods: Vec::new(),
        samples: SAMPLES,
        most: None,
        tolerance: None,
        probe: probe::Options::default(),
    };
    let mut tell =
        |stage: &str, done: usize, all: usize| progress(stage, done as u64, all as u64, "");
    Ok(segmentation::evaluate(&perceptor, &request, &mut tell)?)
}

/// The results of a report as a Markdown table.
pub fn table(report: &segmentation::Report) -> String {
    let mut out = String::from(
        "| features | mIoU | boundary F | pixel accuracy |\n| --- | --- | --- | --- |\n",
    );
    for r in &report.results {
        out += &format!(
            "| {} | {:.1} % | {:.1} % | {:.1} % |\n",
            r.method.name(),
            100.0 * r.mean_iou,
            100.0 * r.boundary_f,
            100.0 * r.accuracy
        );
    }
    out
}

/// IoU per class and method as a Markdown table.
pub fn classes(report: &segmentation::Report) -> String {
    let mut out = String::from("| class |");
    for r in &report.results {
        out += &format!(" {} |", r.method.name());
    }
    out += "\n| --- |";
    out += &" --- |".repeat(report.results.len());
    for (i, name) in report.classes.iter().enumerate() {
        out += &format!("\n| {name} |");
        for r in &report.results {
            out += &match r.iou.get(i).copied().flatten() {
                Some(iou) => format!(" {:.1} % |", 100.0 * iou),
                None => " - |".into(),
            };
        }
    }
    out + "\n"
}
