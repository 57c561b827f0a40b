//! `loftup export`

use std::{path::PathBuf, sync::Arc, time::Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use loftup_bundle::{Bundle, Precision, Size};
use loftup_onnx::Interface;
use loftup_runtime::{
    ExecutionOptions, FrameGraphOutput, FrameGraphQuery, Perceptor, backend::CpuBackend,
    heads::Head,
};
use serde_json::json;

use super::open_head;
use crate::{
    args::{BundleArgs, RangeArg},
    output,
};

/// Export one ONNX graph for a whole camera frame.
///
/// The graph takes the camera's image, uint8 [1,H,W,3] in RGB, and returns classes, the outputs of a
/// head, or features. It contains everything in between: both resizes, the normalization, the backbone,
/// the upsampler and the head. Camera size, output size and head are fixed. Any ONNX runtime runs it; on
/// a GPU, only the image and the result are copied.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Outputs: classes, uint8 [1,H,W], 255 where the scores are not finite; scores, float32 \
[1,H,W,k]; features, float32 [1,H,W,d].

Examples:
  loftup export seg.loftup --camera 640x480 --head classes --out frame.onnx
  loftup export robot.loftup --camera 1280x720 --size 448x252 --range full --out features.onnx
  trtexec --onnx=frame.onnx --saveEngine=frame.plan --useCudaGraph"
)]
pub struct Args {
    #[command(flatten)]
    bundle: BundleArgs,
    /// Size of the camera image
    #[arg(long, value_name = "WxH")]
    camera: Size,
    /// Output size [default: the backbone's input size]
    #[arg(long, value_name = "WxH")]
    size: Option<Size>,
    /// Head of the bundle, or a file written by `loftup head`. Heads of words are not supported
    #[arg(long, value_name = "NAME")]
    head: Option<String>,
    /// Outputs of the graph, separated by commas: classes, scores, or features
    /// [default: classes for a head of classes, scores for other heads, features without a head]
    #[arg(long, value_name = "OUTPUT", value_enum, value_delimiter = ',')]
    output: Vec<OutputArg>,
    /// Color range for min-max scaling of the guidance, as in `run`. With a fixed range, the guidance
    /// has the same bits on every engine
    #[arg(long, value_name = "RANGE", default_value = "image")]
    range: RangeArg,
    /// Precision of the bundle's graphs to include
    #[arg(long, value_enum, default_value_t = PrecisionArg::Fp32)]
    precision: PrecisionArg,
    /// Longest side of a tile of the upsampler. Larger tiles need more memory
    #[arg(long, value_name = "PIXELS", default_value = "224")]
    tile: std::num::NonZeroUsize,
    /// The ONNX file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Print a description of the graph as JSON
    #[arg(long)]
    json: bool,
}

/// `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutputArg {
    Classes,
    Scores,
    Features,
}

/// `--precision`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum PrecisionArg {
    Fp32,
    Fp16,
    Int8,
    Fp16Weights,
}

impl From<PrecisionArg> for Precision {
    fn from(precision: PrecisionArg) -> Self {
        match precision {
            PrecisionArg::Fp32 => Self::Fp32,
            PrecisionArg::Fp16 => Self::Fp16,
            PrecisionArg::Int8 => Self::Int8,
            PrecisionArg::Fp16Weights => Self::Fp16Weights,
        }
    }
}

pub fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    let bundle = Bundle::open(&args.bundle.path()?)?;
    let precision = Precision::from(args.precision);
    let there = bundle.manifest().precisions();
    if !there.contains(&precision) {
        let names: Vec<&str> = there.iter().map(|p| p.name()).collect();
        bail!(
            "{}: has no graphs in {precision}, only in {}; make them with `loftup quantize`",
            args.bundle,
            names.join(", ")
        );
    }
    let options = ExecutionOptions::default();
    let perceptor = Perceptor::with_precision(bundle, Arc::new(CpuBackend), options, precision)?;
    let manifest = perceptor.manifest();
    let Some(backbone) = &manifest.backbone else {
        bail!(
            "{}: has no backbone, which a frame graph needs; convert again with --backbone",
            args.bundle
        );
    };
    let size = args.size.unwrap_or(backbone.size);
    let head = args.head.as_deref();
    let head = head.map(|name| open_head(&perceptor, name)).transpose()?;
    let query = FrameGraphQuery {
        camera: args.camera,
        size,
        range: args.range.color_range(&manifest.normalization),
        tile: Some(args.tile.get()),
        output: asked(&args.output, head.as_ref())?,
    };
    let mut metadata = vec![
        ("loftup.bundle", name_of(&args.bundle.path()?)),
        ("loftup.backbone", backbone.name.clone()),
        ("loftup.precision", precision.name().into()),
        ("loftup.camera", args.camera.to_string()),
        ("loftup.size", size.to_string()),
    ];
    if let (Some(name), Some(head)) = (&args.head, &head) {
        metadata.push(("loftup.head", name.clone()));
        if let Some(classes) = head.kind().class_names() {
            metadata.push(("loftup.classes", json!(classes).to_string()));
        }
    }
    let metadata = metadata.into_iter().map(|(k, v)| (k.to_owned(), v));
    let onnx = perceptor.frame_graph(&query, metadata.collect())?;
    output::write(&args.out, &onnx)?;
    describe(args, &onnx, start)
}

/// The outputs to include.
fn asked<'a>(wanted: &[OutputArg], head: Option<&'a Head>) -> Result<FrameGraphOutput<'a>> {
    let has = |output| wanted.contains(&output);
    let Some(head) = head else {
        if has(OutputArg::Classes) || has(OutputArg::Scores) {
            bail!("--output classes and scores are outputs of a head; name one with --head");
        }
        return Ok(FrameGraphOutput::Features);
    };
    if has(OutputArg::Features) {
        bail!("--output features is without a head; leave out --head");
    }
    Ok(match (has(OutputArg::Classes), has(OutputArg::Scores)) {
        (true, true) => FrameGraphOutput::ClassesAndScores(head),
        (true, false) => FrameGraphOutput::Classes(head),
        (false, true) => FrameGraphOutput::Scores(head),
        (false, false) if head.kind().class_names().is_some() => FrameGraphOutput::Classes(head),
        (false, false) => FrameGraphOutput::Scores(head),
    })
}

fn name_of(bundle: &std::path::Path) -> String {
    let name = bundle.file_name().unwrap_or(bundle.as_os_str());
    name.to_string_lossy().into_owned()
}

fn describe(args: &Args, onnx: &[u8], start: Instant) -> Result<()> {
    let interface = Interface::of(onnx).context("the graph cannot be read back")?;
    let port = |p: &loftup_onnx::Port| {
        let shape: Vec<usize> = (p.shape.iter().flatten()).map(|n| n.unwrap_or(0)).collect();
        (p.name.clone(), p.element.to_string(), shape)
    };
    let (inputs, outputs) = (&interface.inputs, &interface.outputs);
    if args.json {
        let ports = |ports: &[loftup_onnx::Port]| -> Vec<_> {
            let ports = ports.iter().map(port);
            ports
                .map(
                    |(name, element, shape)| json!({"name": name, "type": element, "shape": shape}),
                )
                .collect()
        };
        return output::line(format!(
            "{:#}",
            json!({
                "file": args.out,
                "bytes": onnx.len(),
                "nodes": interface.nodes,
                "inputs": ports(inputs),
                "outputs": ports(outputs),
            })
        ));
    }
    output::line(format!(
        "{}: {} nodes, {:.1} MB, in {:.1} s",
        args.out.display(),
        interface.nodes,
        onnx.len() as f64 / 1e6,
        start.elapsed().as_secs_f64()
    ))?;
    for (direction, ports) in [("input", inputs), ("output", outputs)] {
        for (name, element, shape) in ports.iter().map(port) {
            output::line(format!("  {direction} {name}: {element} {shape:?}"))?;
        }
    }
    Ok(())
}
