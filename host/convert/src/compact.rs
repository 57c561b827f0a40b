//! Compact bundles, with fewer feature channels.

use std::{collections::BTreeMap, ops::ControlFlow, path::Path};

use loftup_bundle::{
    Backbone, Bundle, BundleWriter, FeatureLayout, Head, Linear, Manifest, Precision, Source,
    UpsamplerKind,
};
use loftup_import::{
    bundle::{self, BACKBONE_FILE},
    checkpoint::Checkpoint,
    upsampler::Upsampler,
};
use loftup_onnx::rewrite::{LinearMap, Model, with_linear_map};

use crate::{
    ConvertError,
    convert::{Converted, check_upsampler, finish},
    provenance,
};

/// The role of a wide bundle's queries graph in the provenance of a compact one.
const DISTILLED: &str = "distilled from";

/// Checks that a compact bundle can be made from `wide`, and returns its backbone.
///
/// # Errors
/// The bundle has no backbone or no LoftUp, or not in fp32.
pub fn compactable(wide: &Bundle) -> Result<&Backbone, ConvertError> {
    let manifest = wide.manifest();
    let unusable = |what: &str| ConvertError::Compact {
        path: wide.path().into(),
        what: what.into(),
    };
    let backbone = (manifest.backbone.as_ref()).ok_or_else(|| {
        unusable("has no backbone: convert again with --backbone or --backbone-onnx")
    })?;
    let upsampler = (manifest.upsampler.as_ref()).ok_or_else(|| {
        unusable("has no upsampler to distill: convert again with --upsampler-weights")
    })?;
    if upsampler.kind == UpsamplerKind::Naf {
        return Err(unusable(
            "has NAF, whose cost hardly depends on the channels: only LoftUp can be distilled",
        ));
    }
    if !backbone.graphs.contains_key(&Precision::Fp32)
        || !upsampler.graphs.contains_key(&Precision::Fp32)
    {
        return Err(unusable(
            "has no fp32 graphs: use the bundle that it was quantized from, and quantize the compact one",
        ));
    }
    Ok(backbone)
}

/// Writes a bundle with only the backbone of `wide`, followed by a linear map of its channels, and
/// verifies it. `stage` is as in [`crate::convert()`].
///
/// # Errors
/// Same as [`compactable`], and if the graph cannot be rewritten or the result does not verify.
pub fn project(
    wide: &Bundle,
    linear: LinearMap<'_>,
    out: &Path,
    replace: bool,
    stage: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<Converted, ConvertError> {
    compactable(wide)?;
    let mut manifest = wide.manifest().clone();
    let unusable = |what: String| ConvertError::Compact {
        path: wide.path().into(),
        what,
    };
    let mut writer = BundleWriter::create(out, replace)?;
    if let Some(backbone) = &mut manifest.backbone {
        let file = &backbone.graphs[&Precision::Fp32];
        let model = Model::decode(&wide.read(file)?).map_err(|e| unusable(e.to_string()))?;
        let map = backbone.layout == FeatureLayout::Map;
        let (model, output) = with_linear_map(&model, &backbone.output, linear, map)
            .map_err(|e| unusable(e.to_string()))?;
        writer.add(BACKBONE_FILE, &model.encode())?;
        backbone.name = format!("{}-pca{}", backbone.name, linear.bias.len());
        backbone.dim = linear.bias.len();
        backbone.output = output;
        backbone.graphs = BTreeMap::from([(Precision::Fp32, BACKBONE_FILE.into())]);
        // It does not describe the projected features.
        backbone.architecture = None;
    }
    let sources = manifest.provenance.sources.into_iter();
    let mut new = bundle::manifest(
        manifest.normalization,
        manifest.backbone,
        None,
        sources.filter(|s| s.role != "upsampler weights").collect(),
        None,
    );
    new.provenance.license = manifest.provenance.license;
    finish(writer, new, stage)
}

/// Writes a bundle of a backbone from [`project`], an upsampler distilled from `wide`, and `heads` for
/// it, and verifies it. `stage` is as in [`crate::convert()`].
///
/// # Errors
/// Same as [`crate::convert()`].
pub fn assemble(
    (projected, wide): (&Bundle, &Bundle),
    weights: &Path,
    heads: &[(String, Head, Linear)],
    (out, replace): (&Path, bool),
    stage: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<Converted, ConvertError> {
    let manifest = projected.manifest();
    let mut writer = BundleWriter::create(out, replace)?;
    writer.add(BACKBONE_FILE, &projected.read(BACKBONE_FILE)?)?;
    let checkpoint = Checkpoint::open(weights)?;
    let model = loftup_import::upsampler::read(&checkpoint)?;
    check_upsampler(weights, &model, manifest.backbone.as_ref())?;
    let Upsampler::LoftUp(loftup) = &model else {
        return Err(ConvertError::Compact {
            path: weights.into(),
            what: "is not a LoftUp".into(),
        });
    };
    let upsampler = bundle::add_upsampler(&mut writer, loftup)?;
    let mut sources = manifest.provenance.sources.clone();
    sources.extend(distilled_from(wide.manifest()));
    sources.extend(bundle::sources("upsampler weights", &checkpoint));
    let training = provenance::read_for(weights, &checkpoint.sha256().unwrap_or_default());
    let mut new = bundle::manifest(
        manifest.normalization,
        manifest.backbone.clone(),
        Some(upsampler),
        sources,
        training,
    );
    let license = &manifest.provenance.license;
    new.provenance.license.clone_from(license);
    for (name, head, linear) in heads {
        let file = Head::file_name(name);
        let bytes = linear.to_bytes().map_err(|what| ConvertError::Compact {
            path: file.clone().into(),
            what,
        })?;
        writer.add(&file, &bytes)?;
        let (kind, dim) = (head.kind.clone(), linear.inputs);
        new.heads.insert(name.clone(), Head { kind, dim, file });
    }
    finish(writer, new, stage)
}

/// Returns the queries graph of a bundle's LoftUp as a provenance entry.
fn distilled_from(wide: &Manifest) -> Option<Source> {
    let files = wide.upsampler.as_ref()?.graphs.get(&Precision::Fp32)?;
    Some(Source {
        role: DISTILLED.into(),
        file: files.queries.clone(),
        sha256: wide.files.get(&files.queries)?.sha256.clone(),
    })
}
