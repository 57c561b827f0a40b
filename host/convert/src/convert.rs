//! Conversion of checkpoints to a bundle.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use loftup_bundle::{BundleWriter, Manifest, Normalization, Precision, Size};
use loftup_import::{
    bundle::{self, BACKBONE_FILE},
    checkpoint::{Checkpoint, CheckpointError},
    convnext::{self, ConvNext, ConvNextError},
    upsampler::Upsampler,
    vit::{ConfigFiles, Preset, Vit, VitOptions},
};
use loftup_spec::naf;

use crate::{
    Check, ConvertError,
    foreign::{self, Foreign, OnnxBackbone},
    guard::guarded,
    provenance, references, verify,
};

/// The source of a backbone.
#[derive(Debug, Clone)]
pub enum BackboneSource {
    /// A checkpoint of a supported vision transformer or ConvNeXt, exported to ONNX.
    Checkpoint {
        /// The architecture, as for [`Preset::parse`] or [`convnext::Preset::parse`].
        preset: String,
        /// Its weights.
        weights: PathBuf,
        /// Settings that override the config files next to the weights.
        options: VitOptions,
    },
    /// Any ONNX model.
    Onnx(OnnxBackbone),
}

/// Settings of a conversion.
#[derive(Debug, Clone)]
pub struct Request {
    /// The backbone, if any.
    pub backbone: Option<BackboneSource>,
    /// Checkpoint of the upsampler, if any.
    pub upsampler: Option<PathBuf>,
    /// Prefix of the backbone's tensor names in a checkpoint of several models; without a backbone,
    /// of the upsampler's.
    pub prefix: Option<String>,
    /// License of the weights, recorded in the manifest.
    pub license: Option<String>,
    /// Input size of the backbone; rounded to the nearest multiple of the patch size.
    pub size: Option<Size>,
    /// Destination.
    pub out: PathBuf,
    /// Whether an existing bundle at `out` may be replaced.
    pub replace: bool,
}

/// Result of a conversion.
#[derive(Debug, Clone)]
pub struct Converted {
    /// The manifest of the new bundle.
    pub manifest: Manifest,
    /// The checks it passed.
    pub checks: Vec<Check>,
}

/// Converts, verifies the result and moves it to its destination. `stage` is called before each
/// stage, and may cancel the conversion.
///
/// # Errors
/// The message names the file, the tensor and a remedy. No files are left behind.
pub fn convert(
    request: &Request,
    mut watch: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<Converted, ConvertError> {
    let mut stage = |name: &str| proceed(watch(name));
    if request.backbone.is_none() && request.upsampler.is_none() {
        return Err(ConvertError::Nothing);
    }
    let mut writer = BundleWriter::create(&request.out, request.replace)?;
    let mut sources = Vec::new();
    let mut normalization = Normalization::IMAGENET;
    let mut backbone = None;
    if let Some(source) = &request.backbone {
        stage("reading the backbone")?;
        let (part, its_normalization, onnx) = match source {
            BackboneSource::Checkpoint {
                preset,
                weights,
                options,
            } => {
                let checkpoint = open(weights, request.prefix.as_deref())?;
                sources.extend(bundle::sources("backbone weights", &checkpoint));
                let files = ConfigFiles::next_to(checkpoint.path())?;
                match convnext::Preset::parse(preset) {
                    Some(preset) => convnext(preset, &checkpoint, options, &files, request.size)?,
                    None => vision_transformer(preset, &checkpoint, options, &files, request.size)?,
                }
            }
            BackboneSource::Onnx(onnx) => {
                let size = request.size.map(|s| rounded(s, onnx.patch));
                let foreign = foreign::read(onnx, size)?;
                sources.extend(foreign.sources());
                foreign_backbone(onnx, size, foreign)
            }
        };
        writer.add(BACKBONE_FILE, &onnx)?;
        normalization = its_normalization;
        backbone = Some(part);
    }
    let (mut upsampler, mut training) = (None, None);
    if let Some(path) = &request.upsampler {
        stage("reading the upsampler")?;
        let prefix = request.prefix.as_deref().filter(|_| backbone.is_none());
        let checkpoint = open(path, prefix)?;
        sources.extend(bundle::sources("upsampler weights", &checkpoint));
        training = provenance::read_for(path, &checkpoint.sha256().unwrap_or_default());
        let model = loftup_import::upsampler::read(&checkpoint)?;
        drop(checkpoint);
        check_upsampler(path, &model, backbone.as_ref())?;
        stage("writing the upsampler")?;
        upsampler = Some(match &model {
            Upsampler::LoftUp(model) => bundle::add_upsampler(&mut writer, model)?,
            Upsampler::Naf(weights) => {
                let dim = backbone.as_ref().map_or(0, |b| b.dim);
                bundle::add_naf(&mut writer, weights, dim, backbone.as_ref())?
            }
        });
    }
    let mut manifest = bundle::manifest(normalization, backbone, upsampler, sources, training);
    manifest.provenance.license.clone_from(&request.license);
    finish(writer, manifest, &mut watch)
}

/// Adds reference outputs to a bundle, verifies it and moves it to its destination.
///
/// # Errors
/// If a check fails, a file cannot be written, or `stage` cancels. No files are left behind.
pub(crate) fn finish(
    mut writer: BundleWriter,
    mut manifest: Manifest,
    stage: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<Converted, ConvertError> {
    let mut stage = |name: &str| proceed(stage(name));
    let failed = |name: &str, what: String| ConvertError::Verification {
        name: name.into(),
        what,
    };
    stage("computing the reference outputs")?;
    let sealed = loftup_bundle::Bundle::open(writer.seal(manifest.clone())?)?;
    let made = guarded(|| references::of(&sealed));
    let (references, outputs) = made.map_err(|what| failed("runs", what))?;
    references::add(&mut writer, &references, &outputs, &manifest)?;
    manifest.references = Some(references);
    stage("verifying the bundle")?;
    let sealed = loftup_bundle::Bundle::open(writer.seal(manifest)?)?;
    let manifest = sealed.manifest().clone();
    let checks = guarded(|| verify(sealed)).map_err(|what| failed("runs", what))?;
    if let Some(check) = checks.iter().find(|c| !c.passed) {
        return Err(failed(&check.name, check.to_string()));
    }
    stage("moving the bundle to its destination")?;
    writer.commit()?;
    Ok(Converted { manifest, checks })
}

/// Converts the cancellation of a stage to an error.
fn proceed(flow: ControlFlow<()>) -> Result<(), ConvertError> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(ConvertError::Interrupted),
    }
}

/// Checks that an upsampler fits the backbone.
pub(crate) fn check_upsampler(
    path: &Path,
    upsampler: &Upsampler,
    backbone: Option<&loftup_bundle::Backbone>,
) -> Result<(), ConvertError> {
    let path = || path.to_owned();
    match (upsampler, backbone) {
        (Upsampler::LoftUp(_), None) => Ok(()),
        (Upsampler::LoftUp(model), Some(b)) if b.dim == model.config().dim => Ok(()),
        (Upsampler::LoftUp(model), Some(b)) => Err(ConvertError::Channels {
            path: path(),
            upsampler: model.config().dim,
            backbone: b.dim,
        }),
        (Upsampler::Naf(_), None) => Err(ConvertError::NafAlone { path: path() }),
        (Upsampler::Naf(_), Some(b)) => {
            let cells = (b.size.width / b.patch).min(b.size.height / b.patch);
            if b.dim.is_multiple_of(naf::HEADS) && cells >= naf::WINDOW {
                return Ok(());
            }
            Err(ConvertError::NafBackbone {
                path: path(),
                dim: b.dim,
                cells,
            })
        }
    }
}

/// Opens a checkpoint, restricted to the tensors under `prefix`.
fn open(path: &Path, prefix: Option<&str>) -> Result<Checkpoint, CheckpointError> {
    let checkpoint = Checkpoint::open(path)?;
    match prefix {
        Some(prefix) => checkpoint.within(prefix),
        None => Ok(checkpoint),
    }
}

fn vision_transformer(
    preset: &str,
    checkpoint: &Checkpoint,
    options: &VitOptions,
    files: &ConfigFiles,
    size: Option<Size>,
) -> Result<(loftup_bundle::Backbone, Normalization, Vec<u8>), ConvertError> {
    let model = Vit::from_checkpoint(checkpoint, Preset::parse(preset)?, options, files)?;
    let (width, height) = model.config().default_size();
    let size = size.map_or(Size { width, height }, |s| rounded(s, model.config().patch));
    Ok(bundle::backbone(&model, size)?)
}

fn convnext(
    preset: convnext::Preset,
    checkpoint: &Checkpoint,
    options: &VitOptions,
    files: &ConfigFiles,
    size: Option<Size>,
) -> Result<(loftup_bundle::Backbone, Normalization, Vec<u8>), ConvertError> {
    let of_transformers = [
        ("--heads", options.heads.is_some()),
        ("--activation", options.activation.is_some()),
        ("--positions", options.positions.is_some()),
        ("--text-space", options.text_space),
    ];
    if let Some((option, _)) = of_transformers.into_iter().find(|(_, given)| *given) {
        let asked = preset.name();
        return Err(ConvNextError::Setting { option, asked }.into());
    }
    let model = ConvNext::from_checkpoint(checkpoint, preset)?;
    let colors = files.preprocessor().unwrap_or(Normalization::IMAGENET);
    let default = Size {
        width: 224,
        height: 224,
    };
    let size = size.map_or(default, |s| rounded(s, convnext::STRIDE));
    let (part, onnx) = bundle::convnext(&model, size);
    Ok((part, colors.with(options.mean, options.std), onnx))
}

fn foreign_backbone(
    source: &OnnxBackbone,
    size: Option<Size>,
    foreign: Foreign,
) -> (loftup_bundle::Backbone, Normalization, Vec<u8>) {
    let path = &source.path;
    if let Some(size) = size
        && size != foreign.size
    {
        log::warn!(
            "{}: the input size of the model is fixed to {}; --size {size} is ignored",
            path.display(),
            foreign.size
        );
    }
    let part = loftup_bundle::Backbone {
        name: path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into(),
        dim: foreign.dim,
        patch: source.patch,
        size: foreign.size,
        any_size: foreign.any_size,
        input: foreign.input,
        output: foreign.output,
        layout: foreign.layout,
        graphs: BTreeMap::from([(Precision::Fp32, BACKBONE_FILE.into())]),
        architecture: None,
    };
    (part, foreign.normalization, foreign.onnx)
}

/// Rounds `size` to a multiple of the patch size, with a warning if it differs.
fn rounded(size: Size, patch: usize) -> Size {
    let nearest = size.rounded_to(patch);
    if nearest != size {
        log::warn!(
            "{size} is not a multiple of the patch size {patch}; the input size of the backbone is {nearest}"
        );
    }
    nearest
}
