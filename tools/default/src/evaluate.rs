//! Evaluates the weights: the same linear probe on LoftUp's and on interpolated features.

use std::{ops::ControlFlow, path::Path};

use anyhow::Result;
use loftup_bundle::Size;
use loftup_convert::{BackboneSource, Request, convert};
use loftup_eval::{probe, segmentation};
use loftup_runtime::{ColorRange, ExecutionOptions, Perceptor};

use crate::{scenes::SIDE, vit::Shape};

/// Writes a bundle of the weights.
///
/// # Errors
/// Where they do not go together, or the bundle cannot be written.
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
            replace: true,
        },
        |_| ControlFlow::Continue(()),
    )?;
    Ok(())
}

/// Pixels of each training image that probes are trained on.
const SAMPLES: usize = 1000;

/// Trains probes on `train` of a data set and evaluates them on `val`.
///
/// # Errors
/// Where the bundle cannot be run, or the data cannot be read.
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

/// The table of a report, in Markdown.
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

/// IoU of the classes by method, in Markdown.
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
