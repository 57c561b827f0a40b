//! `loftup convert`

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anyhow::Result;
use loftup_bundle::{Normalization, Provenance, Size};
use loftup_convert::{BackboneSource, BuiltinUpsampler, Layout, OnnxBackbone, Request};
use loftup_import::vit::{Activation, Positions, VitOptions};

use crate::{
    args::{BuiltinArg, triple},
    interrupt, output, progress,
};

/// Create a bundle from checkpoints: a backbone, an upsampler, or both.
///
/// The new bundle is verified on a test image before it is moved to --out.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loftup convert --backbone dinov2-s14 --backbone-weights vits.pth --upsampler-weights loftup.bin --out robot.loftup
  loftup convert --backbone dinov3 --backbone-weights dinov3_vits16.pth --license LicenseRef-DINOv3 --out dinov3.loftup
  loftup convert --backbone-onnx vfm.onnx --patch 16 --mean 0.498,0.498,0.498 --std 0.502,0.502,0.502 --upsampler-weights up.safetensors --out robot.loftup
  loftup convert --backbone dinov2-s14 --backbone-weights vits.pth --builtin-upsampler --out naf.loftup
  loftup convert --backbone siglip2-b16 --backbone-weights siglip2.safetensors --text-space --upsampler-weights naf.pth --out words.loftup
  loftup convert --upsampler-weights loftup.bin --out up.loftup
  loftup convert --builtin --out small.loftup")]
#[command(group = clap::ArgGroup::new("parts")
    .args(["backbone_weights", "backbone_onnx", "upsampler_weights", "builtin_upsampler", "builtin"])
    .required(true)
    .multiple(true))]
#[command(group = clap::ArgGroup::new("any_backbone")
    .args(["backbone_weights", "backbone_onnx"])
    .multiple(true))]
pub struct Args {
    /// Backbone architecture: dinov2-s14, -b14, -l14, -g14 (each also with -reg), dinov3-s16,
    /// -s16-plus, -b16, -l16, dinov3-convnext-tiny, -small, -base, -large, clip-b32, -b16, -l14, -h14,
    /// -g14, -bigg14, siglip-b16, -l16, -so400m14, siglip2-b16, ...; or a family of any size: dinov2,
    /// dinov2-reg, dinov3, dinov3-convnext, clip, siglip, siglip2
    #[arg(
        long,
        value_name = "NAME",
        requires = "backbone_weights",
        conflicts_with = "backbone_onnx"
    )]
    backbone: Option<String>,
    /// Backbone checkpoint: PyTorch (.pth .pt .bin .ckpt) or safetensors. For a sharded checkpoint,
    /// any shard, the index or the directory
    #[arg(long, value_name = "FILE", requires = "backbone")]
    backbone_weights: Option<PathBuf>,
    /// Prefix of the backbone's tensor names in a checkpoint of several models, such as
    /// teacher.backbone or visual. Without a backbone, the prefix of the upsampler's
    #[arg(long, value_name = "PREFIX", conflicts_with_all = ["backbone_onnx", "builtin"])]
    prefix: Option<String>,
    /// Number of attention heads of the backbone [default: from config.json next to the weights, or
    /// that of the published model with these dimensions]
    #[arg(long, value_name = "N", requires = "backbone")]
    heads: Option<NonZeroUsize>,
    /// Activation function of the backbone's MLPs: gelu, quick-gelu or gelu-tanh [default: as for
    /// --heads]
    #[arg(long, value_name = "NAME", requires = "backbone")]
    activation: Option<Activation>,
    /// Implementation of position embedding interpolation to reproduce: facebook, timm or
    /// transformers [default: facebook, which LoftUp was trained with]. Not for DINOv3
    #[arg(long, value_name = "LIBRARY", requires = "backbone")]
    positions: Option<Positions>,
    /// For SigLIP: features in the space of its texts, for `loftup head text`. The pooling head is
    /// applied to each token. Not for a LoftUp trained on SigLIP's usual features
    #[arg(long, requires = "backbone")]
    text_space: bool,
    /// Any ONNX model as the backbone. Input: an image [1,3,H,W] or [1,H,W,3]. Output: a feature map
    /// [1,d,h,w] or [1,h,w,d], or tokens [1,n,d] or [1,d,n]. External data files are supported
    #[arg(long, value_name = "FILE", requires = "patch")]
    backbone_onnx: Option<PathBuf>,
    /// Output with the features, if the model has several outputs
    #[arg(long, value_name = "NAME", requires = "backbone_onnx")]
    backbone_output: Option<String>,
    /// Patch size of the model: input pixels per feature along each axis
    #[arg(long, value_name = "PIXELS", requires = "backbone_onnx")]
    patch: Option<NonZeroUsize>,
    /// Layout of the output, if its shape is ambiguous: tokens [1,n,d], tokens-transposed [1,d,n],
    /// map [1,d,h,w], map-nhwc [1,h,w,d]
    #[arg(long, value_name = "LAYOUT", requires = "backbone_onnx")]
    layout: Option<Layout>,
    /// Number of tokens before the patch tokens (class token, registers), which are dropped [default:
    /// 0, 1, 2, 4 or 5, whichever matches the output]
    #[arg(long, value_name = "N", requires = "backbone_onnx")]
    extra_tokens: Option<usize>,
    /// Mean of the colors, in 0 to 1 [default: for a checkpoint, from the config files next to it, or
    /// that of its family; for an ONNX model, ImageNet's 0.485,0.456,0.406, or none for a uint8 input,
    /// which gets values from 0 to 255]
    #[arg(long, value_name = "R,G,B", value_parser = triple, requires = "any_backbone")]
    mean: Option<[f32; 3]>,
    /// Standard deviation of the colors [default: as for --mean; ImageNet's is 0.229,0.224,0.225]
    #[arg(long, value_name = "R,G,B", value_parser = positive_triple, requires = "any_backbone")]
    std: Option<[f32; 3]>,
    /// Checkpoint of the upsampler, PyTorch or safetensors: LoftUp, published or from `loftup train`, or
    /// NAF or DiveUp, which serve any backbone. Its tensors tell which it is
    #[arg(long, value_name = "FILE")]
    upsampler_weights: Option<PathBuf>,
    /// Use the built-in NAF as the upsampler, which serves any backbone whose number of channels is a
    /// multiple of 4
    #[arg(long, requires = "any_backbone", conflicts_with = "upsampler_weights")]
    builtin_upsampler: bool,
    /// Use a built-in backbone and upsampler
    #[arg(
        long,
        value_name = "MODEL",
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "photos",
        conflicts_with_all = ["backbone_weights", "backbone_onnx", "upsampler_weights", "builtin_upsampler", "size"]
    )]
    builtin: Option<BuiltinArg>,
    /// Input size of the backbone [default: 224x224, or the size fixed in the ONNX model]
    #[arg(long, value_name = "WxH")]
    size: Option<Size>,
    /// License of the weights, recorded in the bundle and shown by `loftup inspect`: an SPDX identifier
    /// or a name, such as Apache-2.0 or LicenseRef-DINOv3
    #[arg(long, value_name = "NAME", value_parser = license, conflicts_with = "builtin")]
    license: Option<String>,
    /// Output directory; must not exist yet
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace an existing bundle
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
        interrupt::flow()
    };
    let converted = match args.builtin {
        Some(model) => model.model().write(&args.out, args.force, stage),
        None => {
            let builtin = args.builtin_upsampler.then(BuiltinUpsampler::create);
            let builtin = builtin.transpose()?;
            loftup_convert::convert(&request(args, builtin.as_ref()), stage)
        }
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

fn request(args: &Args, builtin: Option<&BuiltinUpsampler>) -> Request {
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
                text_space: args.text_space,
                mean: args.mean,
                std: args.std,
            },
        });
    let onnx = args
        .backbone_onnx
        .clone()
        .zip(args.patch)
        .map(|(path, patch)| {
            let given = args.mean.is_some() || args.std.is_some();
            BackboneSource::Onnx(OnnxBackbone {
                path,
                patch: patch.into(),
                normalization: given.then(|| Normalization::IMAGENET.with(args.mean, args.std)),
                output: args.backbone_output.clone(),
                layout: args.layout,
                extra_tokens: args.extra_tokens,
            })
        });
    Request {
        backbone: checkpoint.or(onnx),
        upsampler: (builtin.map(BuiltinUpsampler::path))
            .or(args.upsampler_weights.as_deref())
            .map(Path::to_path_buf),
        prefix: args.prefix.clone(),
        license: args.license.clone(),
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
        Err("standard deviations must be greater than 0".into())
    }
}

fn license(s: &str) -> Result<String, String> {
    Provenance::usable_license(s)?;
    Ok(s.into())
}
