//! Candidates written as bundles.

use std::collections::BTreeMap;

use loftup_bundle::{Bundle, BundleWriter, Manifest, UpsamplerFiles};
use loftup_onnx::rewrite::Model;

use super::{QuantizeError, report, session::QuantizationSession};

/// A bundle in a temporary directory.
pub(super) struct Trial {
    pub bundle: Bundle,
    _directory: tempfile::TempDir,
}

impl QuantizationSession<'_> {
    /// Writes the models to a temporary bundle.
    pub fn trial(&self, models: &[Model]) -> Result<Trial, QuantizeError> {
        let directory = tempfile::tempdir().map_err(|source| QuantizeError::Io {
            path: std::env::temp_dir(),
            source,
        })?;
        let mut writer = BundleWriter::create(&directory.path().join("trial.loftup"), false)?;
        let manifest = self.write(&mut writer, models, false, |_, _| Ok(()))?;
        writer.seal(manifest)?;
        writer.commit()?;
        Ok(Trial {
            bundle: Bundle::open(&directory.path().join("trial.loftup"))?,
            _directory: directory,
        })
    }

    /// Adds the graphs and the unchanged files of the old bundle; returns the new manifest.
    pub fn write(
        &self,
        writer: &mut BundleWriter,
        models: &[Model],
        keep: bool,
        more: impl FnOnce(&mut BundleWriter, &mut Manifest) -> Result<(), QuantizeError>,
    ) -> Result<Manifest, QuantizeError> {
        let mut manifest = self.bundle.manifest().clone();
        if !keep {
            manifest.quantization.clear();
            if let Some(b) = &mut manifest.backbone {
                b.graphs.clear();
            }
            if let Some(u) = manifest
                .upsampler
                .as_mut()
                .filter(|u| u.kind.is_quantized())
            {
                u.graphs.clear();
            }
        }
        let precision = self.precision;
        let mut names = BTreeMap::new();
        for (graph, model) in self.graphs.iter().zip(models) {
            let name = format!("{}-{precision}.onnx", graph.role);
            writer.add(&name, &model.encode())?;
            names.insert(graph.role, name);
        }
        if let (Some(b), Some(name)) = (&mut manifest.backbone, names.get("backbone")) {
            b.graphs.insert(precision, name.clone());
        }
        if let (Some(u), Some(keys), Some(queries)) = (
            &mut manifest.upsampler,
            names.get("keys"),
            names.get("queries"),
        ) {
            let files = UpsamplerFiles {
                keys: keys.clone(),
                queries: queries.clone(),
                whole: None,
            };
            u.graphs.insert(precision, files);
        }
        more(writer, &mut manifest)?;
        for name in report::files_of(&manifest) {
            if self.bundle.manifest().files.contains_key(&name)
                && !names.values().any(|n| *n == name)
            {
                writer.add(&name, &self.bundle.read(&name)?)?;
            }
        }
        Ok(manifest)
    }
}
