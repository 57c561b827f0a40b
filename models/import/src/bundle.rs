//! Creates bundles from models: fp32 graphs and their manifest entries, without reference outputs
//! and verification, which `loftup convert` adds.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use loftup_bundle::{
    Backbone, BundleError, BundleWriter, FORMAT, FeatureLayout, Manifest, Normalization, Precision,
    Provenance, Size, Source, TensorFile, Training, Upsampler, UpsamplerFiles, UpsamplerKind,
};
use loftup_onnx::{loftup::LoftUp, naf::NafShape};
use loftup_spec::naf::{self, NafWeights};

use crate::{
    checkpoint::Checkpoint,
    convnext::{self, ConvNext},
    vit::{self, Vit, VitError},
};

/// File of the backbone's fp32 graph.
pub const BACKBONE_FILE: &str = "backbone.onnx";

/// The bundle cannot be created. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The backbone cannot be built from its checkpoint.
    #[error(transparent)]
    Vit(#[from] VitError),
    /// The bundle cannot be written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// Manifest entry, input normalization and fp32 ONNX graph of a vision transformer for inputs of
/// `size` pixels, a multiple of the patch. The graph belongs in [`BACKBONE_FILE`].
///
/// # Errors
/// If the graph cannot be built for that size.
pub fn backbone(model: &Vit, size: Size) -> Result<(Backbone, Normalization, Vec<u8>), VitError> {
    let config = model.config();
    let onnx = model.graph(size.width, size.height)?;
    let part = Backbone {
        name: config.preset.name().into(),
        dim: config.dim,
        patch: config.patch,
        size,
        any_size: false,
        input: vit::INPUT.into(),
        output: vit::OUTPUT.into(),
        layout: FeatureLayout::Map,
        graphs: BTreeMap::from([(Precision::Fp32, BACKBONE_FILE.into())]),
        architecture: Some(config.architecture()),
    };
    let normalization = Normalization {
        mean: config.mean,
        std: config.std,
    };
    Ok((part, normalization, onnx))
}

/// Manifest entry and fp32 ONNX graph of a ConvNeXt with a default input size of `size`. The graph belongs
/// in [`BACKBONE_FILE`].
pub fn convnext(model: &ConvNext, size: Size) -> (Backbone, Vec<u8>) {
    let part = Backbone {
        name: model.preset().name().into(),
        dim: model.dim(),
        patch: convnext::STRIDE,
        size,
        any_size: true,
        input: convnext::INPUT.into(),
        output: convnext::OUTPUT.into(),
        layout: FeatureLayout::Map,
        graphs: BTreeMap::from([(Precision::Fp32, BACKBONE_FILE.into())]),
        architecture: None,
    };
    (part, model.graph())
}

/// Adds the fp32 graphs of an upsampler. Returns its manifest entry.
///
/// # Errors
/// If a file cannot be written.
pub fn add_upsampler(writer: &mut BundleWriter, model: &LoftUp) -> Result<Upsampler, BundleError> {
    let whole = "upsampler.onnx";
    let files = UpsamplerFiles {
        keys: "keys.onnx".into(),
        queries: "queries.onnx".into(),
        whole: Some(whole.into()),
    };
    writer.add(&files.keys, &model.keys_graph())?;
    writer.add(&files.queries, &model.queries_graph())?;
    writer.add(whole, &model.whole_graph())?;
    let config = model.config();
    Ok(Upsampler {
        kind: UpsamplerKind::LoftUp,
        dim: config.dim,
        layers: config.layers,
        heads: config.heads,
        head_width: config.padded_head_width(),
        graphs: BTreeMap::from([(Precision::Fp32, files)]),
        weights: None,
        whole: None,
    })
}

/// Adds NAF for features of `dim` channels: its weights, its fp32 graphs and, for other tools, one graph for
/// the grid and the input size of a backbone. Returns its manifest entry.
///
/// # Errors
/// If a file cannot be written.
pub fn add_naf(
    writer: &mut BundleWriter,
    weights: &NafWeights,
    dim: usize,
    backbone: Option<&Backbone>,
) -> Result<Upsampler, BundleError> {
    let file = "naf.safetensors";
    let tensors = weights.tensors();
    let bytes = TensorFile::to_bytes(
        (tensors.iter()).map(|(name, shape, values)| (name.as_str(), &shape[..], &values[..])),
    );
    let bytes = bytes.map_err(|what| BundleError::Damaged {
        path: file.into(),
        what,
    })?;
    writer.add(file, &bytes)?;
    let files = UpsamplerFiles {
        keys: "keys.onnx".into(),
        queries: "queries.onnx".into(),
        whole: None,
    };
    writer.add(&files.keys, &loftup_onnx::naf::keys_graph(weights))?;
    writer.add(&files.queries, &loftup_onnx::naf::queries_graph(weights))?;
    let graph = backbone.and_then(|b| {
        let Size { width, height } = b.size;
        let shape = NafShape {
            dim,
            grid: (height / b.patch, width / b.patch),
            size: (height, width),
        };
        loftup_onnx::naf::whole_graph(weights, shape)
    });
    let whole = graph.is_some().then(|| "upsampler.onnx".to_owned());
    if let (Some(file), Some(graph)) = (&whole, graph) {
        writer.add(file, &graph)?;
    }
    Ok(Upsampler {
        kind: UpsamplerKind::Naf,
        dim,
        layers: 1,
        heads: naf::HEADS,
        head_width: naf::HEAD_WIDTH,
        graphs: BTreeMap::from([(Precision::Fp32, files)]),
        weights: Some(file.into()),
        whole,
    })
}

/// The manifest of a new fp32 bundle, without heads, quantization records and reference outputs.
pub fn manifest(
    normalization: Normalization,
    backbone: Option<Backbone>,
    upsampler: Option<Upsampler>,
    sources: Vec<Source>,
    training: Option<Training>,
) -> Manifest {
    Manifest {
        format: FORMAT,
        normalization,
        backbone,
        upsampler,
        heads: BTreeMap::new(),
        clicks: None,
        quantization: BTreeMap::new(),
        references: None,
        files: BTreeMap::new(),
        provenance: Provenance {
            tool: concat!("loftup ", env!("CARGO_PKG_VERSION")).into(),
            created: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| d.as_secs()),
            sources,
            license: None,
            training,
        },
    }
}

/// Provenance entries for all files of a checkpoint.
pub fn sources<'a>(role: &'a str, checkpoint: &'a Checkpoint) -> impl Iterator<Item = Source> + 'a {
    checkpoint.files().iter().map(move |file| Source {
        role: role.into(),
        file: file
            .path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into(),
        sha256: file.sha256.clone(),
    })
}

/// Writes a bundle of a vision transformer, for inputs of `size` pixels, and its upsampler. The
/// destination must not exist.
///
/// # Errors
/// If the graph cannot be built for that size, or the bundle cannot be written. Nothing is left at
/// the destination.
pub fn write(
    path: &Path,
    (model, size): (&Vit, Size),
    upsampler: &LoftUp,
    sources: Vec<Source>,
) -> Result<(), ExportError> {
    let mut writer = BundleWriter::create(path, false)?;
    let (backbone, normalization, onnx) = backbone(model, size)?;
    writer.add(BACKBONE_FILE, &onnx)?;
    let upsampler = add_upsampler(&mut writer, upsampler)?;
    writer.seal(manifest(
        normalization,
        Some(backbone),
        Some(upsampler),
        sources,
        None,
    ))?;
    writer.commit()?;
    Ok(())
}
