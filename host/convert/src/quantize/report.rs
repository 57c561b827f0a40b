//! The quantization report.

use std::{collections::BTreeSet, path::PathBuf};

use loftup_bundle::{Manifest, Precision, Quantization};
use serde::Serialize;

use super::{LayerReport, Worst};

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The fp32 bundle.
    pub bundle: PathBuf,
    /// The new one.
    pub out: PathBuf,
    /// Its precision.
    pub precision: Precision,
    /// The entry of the new manifest.
    pub quantization: Quantization,
    /// The worst feature vector of all outputs.
    pub worst: Worst,
    /// Its image.
    pub worst_image: PathBuf,
    /// Layer by layer.
    pub layers: Vec<LayerReport>,
    /// Notes.
    pub notes: Vec<String>,
    /// Time per frame on the available backends.
    pub timings: Vec<Timing>,
    /// Size of each graph.
    pub files: Vec<FileSize>,
}

/// Seconds per frame, backbone and upsampler.
#[derive(Debug, Clone, Serialize)]
pub struct Timing {
    /// The backend.
    pub engine: String,
    /// Time with the fp32 graphs, in seconds.
    pub before: f64,
    /// Time with the new graphs, in seconds.
    pub after: f64,
}

/// Bytes of one graph.
#[derive(Debug, Clone, Serialize)]
pub struct FileSize {
    /// `backbone`, `keys` or `queries`.
    pub graph: String,
    /// Size in fp32.
    pub before: u64,
    /// Size in the new precision.
    pub after: u64,
}

/// Files that a manifest names.
pub(super) fn files_of(manifest: &Manifest) -> BTreeSet<String> {
    let mut files: BTreeSet<String> = BTreeSet::new();
    files.extend(
        manifest
            .backbone
            .iter()
            .flat_map(|b| b.graphs.values().cloned()),
    );
    for graphs in manifest.upsampler.iter().flat_map(|u| u.graphs.values()) {
        files.extend([graphs.keys.clone(), graphs.queries.clone()]);
        files.extend(graphs.whole.clone());
    }
    let upsampler = manifest.upsampler.iter();
    files.extend(upsampler.flat_map(|u| u.weights.iter().chain(&u.whole).cloned()));
    files.extend(manifest.heads.values().map(|h| h.file.clone()));
    files.extend(manifest.references.iter().map(|r| r.file.clone()));
    files.extend(manifest.quantization.values().map(|q| q.check.file.clone()));
    files
}

/// Sizes of the graphs of two bundles.
pub(super) fn sizes(before: &Manifest, after: &Manifest, precision: Precision) -> Vec<FileSize> {
    let files = |m: &Manifest, p: Precision| {
        let bytes = |name: &String| m.files.get(name).map_or(0, |f| f.bytes);
        let backbone = m.backbone.as_ref().and_then(|b| b.graphs.get(&p));
        let upsampler = m.upsampler.as_ref().and_then(|u| u.graphs.get(&p));
        let mut found = Vec::new();
        found.extend(backbone.map(|f| ("backbone", bytes(f))));
        if let Some(f) = upsampler {
            found.extend([("keys", bytes(&f.keys)), ("queries", bytes(&f.queries))]);
        }
        found
    };
    let pairs = files(before, Precision::Fp32)
        .into_iter()
        .zip(files(after, precision));
    pairs
        .map(|((graph, before), (_, after))| FileSize {
            graph: graph.into(),
            before,
            after,
        })
        .collect()
}
