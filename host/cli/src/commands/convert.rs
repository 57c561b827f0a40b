//! `loftup convert`

use std::{num::NonZeroUsize, ops::ControlFlow, path::PathBuf};

use anyhow::Result;
use loftup_bundle::{Normalization, Size};
use loftup_convert::{BackboneSource, Layout, OnnxBackbone, Request};
use loftup_import::vit::{Activation, Positions, VitOptions};

use crate::{args::triple, interrupt, output, progress};

/// Make a bundle from checkpoints: a backbone, an upsampler, or both.
///
/// The new bundle is run on a test picture before it appears at --out.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loftup convert --backbone dinov2-s14 --backbone-weights vits.pth --upsampler-weights loftup.bin --out robot.loftup
  loftup convert --backbone-onnx vfm.onnx --patch 16 --mean 0.498,0.498,0.498 --std 0.502,0.502,0.502 --upsampler-weights up.safetensors --out robot.loftup
  loftup convert --upsampler-weights loftup.bin --out up.loftup
  loftup convert --builtin --out small.loftup")]
#[command(group = clap::ArgGroup::new("parts")
    .args(["backbone_weights", "backbone_onnx", "upsampler_weights", "builtin"])
    .required(true)
    .multiple(true))]
pub struct Args {
    /// Backbone whose weights are given: dinov2-s14, -b14, -l14, -g14 (each also with -reg),
    /// clip-b32, -b16, -l14, -h14, -g14, -bigg14, siglip-b16, -l16, -so400m14, siglip2-b16, ...;
    /// or dinov2, dinov2-reg, clip, siglip, siglip2 in any size
    #[arg(
        long,
        value_name = "NAME",
        requires = "backbone_weights",
        conflicts_with = "backbone_onnx"
    )]
    backbone: Option<String>,
    /// Its checkpoint: PyTorch (.pth .pt .bin .ckpt) or safetensors; of several shards any one,
    /// their index or their directory
    #[arg(long, value_name = "FILE", requires = "backbone")]
    backbone_weights: Option<PathBuf>,
    /// What the names of the backbone begin with, where its checkpoint holds several models:
    /// teacher.backbone, visual, ... Without a backbone, those of the upsampler
    #[arg(long, value_name = "PREFIX", conflicts_with_all = ["backbone_onnx", "builtin"])]
    prefix: Option<String>,
    /// Attention heads of the backbone [default: from the config.json next to the weights, or
    /// those of the published model with these dimensions]
    #[arg(long, value_name = "N", requires = "backbone")]
    heads: Option<NonZeroUsize>,
    /// Activation of the backbone's MLPs: gelu, quick-gelu or gelu-tanh [default: as for --heads]
    #[arg(long, value_name = "NAME", requires = "backbone")]
    activation: Option<Activation>,
    /// Library whose resampling of position embeddings is reproduced at other sizes than the
    /// trained one: facebook, timm or transformers [default: facebook, as LoftUp was trained]
    #[arg(long, value_name = "LIBRARY", requires = "backbone")]
    positions: Option<Positions>,
    /// Any ONNX graph as the backbone: an image [1,3,H,W] or [1,H,W,3] to a feature map [1,d,h,w]
    /// or [1,h,w,d], or tokens [1,n,d] or [1,d,n]. Weights in a file next to it are read, too
    #[arg(long, value_name = "FILE", requires = "patch")]
    backbone_onnx: Option<PathBuf>,
    /// Output of that graph that holds the features, where there are several
    #[arg(long, value_name = "NAME", requires = "backbone_onnx")]
    backbone_output: Option<String>,
    /// Side of a patch of that graph in pixels: how many pixels one feature stands for
    #[arg(long, value_name = "PIXELS", requires = "backbone_onnx")]
    patch: Option<NonZeroUsize>,
    /// Order of the axes of that output, where its shape can be read in several ways: tokens
    /// [1,n,d], tokens-transposed [1,d,n], map [1,d,h,w], map-nhwc [1,h,w,d]
    #[arg(long, value_name = "LAYOUT", requires = "backbone_onnx")]
    layout: Option<Layout>,
    /// Tokens in front of those of the patches, which are left out (class token, registers)
    /// [default: 0, 1, 2, 4 or 5, whichever the output has]
    #[arg(long, value_name = "N", requires = "backbone_onnx")]
    extra_tokens: Option<usize>,
    /// Mean that is subtracted from colors in 0 to 1 [default: ImageNet's 0.485,0.456,0.406; none
    /// for a uint8 input, which is given 0 to 255]
    #[arg(long, value_name = "R,G,B", value_parser = triple, requires = "backbone_onnx")]
    mean: Option<[f32; 3]>,
    /// Standard deviation that colors are divided by [default: ImageNet's 0.229,0.224,0.225]
    #[arg(long, value_name = "R,G,B", value_parser = positive_triple, requires = "backbone_onnx")]
    std: Option<[f32; 3]>,
    /// LoftUp checkpoint: PyTorch or safetensors, from the hub or from training
    #[arg(long, value_name = "FILE")]
    upsampler_weights: Option<PathBuf>,
    /// The small backbone and upsampler that are built in, for trying things out
    #[arg(long, conflicts_with_all = ["backbone_weights", "backbone_onnx", "upsampler_weights", "size"])]
    builtin: bool,
    /// Size of the backbone's input [default: 224x224, or the graph's own]
    #[arg(long, value_name = "WxH")]
    size: Option<Size>,
    /// Where the bundle goes: a directory that does not exist yet
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace the bundle that is already there
    #[arg(long)]
    force: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let writing = interrupt::Writing::begin()?;
    let bar = progress::spinner();
    let stage = |stage: &str| {
        log::info!("{stage}");
        bar.set_message(stage.to_owned());
        if interrupt::pending() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let converted = match args.builtin {
        true => loftup_convert::builtin(&args.out, args.force, stage),
        false => loftup_convert::convert(&request(args), stage),
    };
    bar.finish_and_clear();
    let converted = converted?;
    drop(writing);
    if args.json {
        let json = serde_json::json!({
            "out": args.out,
            "manifest": converted.manifest,
            "checks": converted.checks,
        });
        output::line(format!("{json:#}"))?;
        return Ok(());
    }
    super::inspect::print_manifest(&args.out, &converted.manifest)?;
    for check in &converted.checks {
        output::line(format!("  {check}"))?;
    }
    Ok(())
}

fn request(args: &Args) -> Request {
    let checkpoint = args
        .backbone
        .clone()
        .zip(args.backbone_weights.clone())
        .map(|(preset, weights)| BackboneSource::Checkpoint {
            preset,
            weights,
            options: VitOptions {
                heads: args.heads.map(usize::from),
                activation: args.activation,
                positions: args.positions,
            },
        });
    let onnx = args
        .backbone_onnx
        .clone()
        .zip(args.patch)
        .map(|(path, patch)| {
            let default = Normalization::IMAGENET;
            let given = args.mean.is_some() || args.std.is_some();
            BackboneSource::Onnx(OnnxBackbone {
                path,
                patch: patch.into(),
                normalization: given.then(|| Normalization {
                    mean: args.mean.unwrap_or(default.mean),
                    std: args.std.unwrap_or(default.std),
                }),
                output: args.backbone_output.clone(),
                layout: args.layout,
                extra_tokens: args.extra_tokens,
            })
        });
    Request {
        backbone: checkpoint.or(onnx),
        upsampler: args.upsampler_weights.clone(),
        prefix: args.prefix.clone(),
        size: args.size,
        out: args.out.clone(),
        replace: args.force,
    }
}

fn positive_triple(s: &str) -> Result<[f32; 3], String> {
    let std = triple(s)?;
    if std.iter().all(|x| *x > 0.0) {
        Ok(std)
    } else {
        Err("a standard deviation is greater than 0".into())
    }
}
