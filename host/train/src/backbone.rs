//! The frozen backbone, and a cache of its features on disk.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use loftup_bundle::{Bundle, Normalization, Size, UpsamplerKind, sha256_hex};
use loftup_runtime::{
    ExecutionOptions, Features, ImageTensor, Perceptor, backend::CpuBackend, image::RgbImage, npy,
};

use crate::{
    error::TrainError,
    resample::{Jitter, resample_values},
};

/// A frozen backbone.
pub struct Backbone {
    perceptor: Perceptor,
    /// Identifies its features: the graph and its normalization.
    name: String,
    dim: usize,
    patch: usize,
    cache: Option<Arc<FeatureCache>>,
}

impl Backbone {
    /// Opens the backbone of the bundle at `path`.
    ///
    /// # Errors
    /// The bundle is damaged or has no backbone.
    pub fn open(path: &Path, cache: Option<Arc<FeatureCache>>) -> Result<Self, TrainError> {
        let bundle = Bundle::open(path)?;
        let manifest = bundle.manifest();
        let part = manifest.backbone.clone().ok_or_else(|| {
            bundle.lacks(
                "backbone",
                "training needs one: convert again with --backbone or --backbone-onnx",
            )
        })?;
        let files: Vec<&str> = part
            .graphs
            .values()
            .filter_map(|file| manifest.files.get(file).map(|f| f.sha256.as_str()))
            .collect();
        let name = format!("{files:?} {:?}", manifest.normalization);
        let perceptor =
            Perceptor::with_backend(bundle, Arc::new(CpuBackend), ExecutionOptions::default())?;
        Ok(Self {
            perceptor,
            name,
            dim: part.dim,
            patch: part.patch,
            cache,
        })
    }

    /// Number of feature channels.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Patch size in pixels.
    pub fn patch(&self) -> usize {
        self.patch
    }

    /// SHA-256 of the graphs of several backbones and their normalizations.
    pub fn sha256_of(backbones: &[Self]) -> String {
        let names: Vec<&str> = backbones.iter().map(|b| b.name.as_str()).collect();
        sha256_hex(names.join("\n").as_bytes())
    }

    /// The perceptor that runs the whole bundle.
    pub(crate) fn perceptor(&self) -> &Perceptor {
        &self.perceptor
    }

    /// The input size for an image of `size`.
    ///
    /// # Errors
    /// Never fails, because the bundle is known to have a backbone.
    pub fn size(&self, size: Size) -> Result<Size, TrainError> {
        Ok(self.perceptor.backbone_size(size)?)
    }

    /// The grid of features of an input of `size`.
    pub fn grid(&self, size: Size) -> Size {
        Size {
            width: size.width / self.patch,
            height: size.height / self.patch,
        }
    }

    /// Converts an image to the input of the backbone, `[3, H, W]`.
    pub fn normalized(&self, image: &RgbImage) -> Vec<f32> {
        let Normalization { mean, std } = self.perceptor.manifest().normalization;
        image.normalized(mean, std)
    }

    /// Normalizes an image for an upsampler: like the backbone's input for LoftUp, and as ImageNet's for
    /// NAF, `[3, H, W]`.
    pub fn guidance(&self, kind: UpsamplerKind, image: &RgbImage) -> Vec<f32> {
        match kind {
            UpsamplerKind::LoftUp => self.normalized(image),
            UpsamplerKind::Naf => {
                let Normalization { mean, std } = Normalization::IMAGENET;
                image.normalized(mean, std)
            }
        }
    }

    /// Computes the features of an image that already has the input size.
    ///
    /// # Errors
    /// If the backend fails.
    pub fn features(&self, image: Vec<f32>, size: Size) -> Result<Features, TrainError> {
        Ok(self
            .perceptor
            .features(&ImageTensor { size, data: image })?)
    }

    /// Computes the features of an image, or reads them from the cache. `sha256` identifies the file and
    /// how it was cropped.
    ///
    /// # Errors
    /// If the backend fails. If the cache cannot be written, a warning is logged.
    pub fn kept_features(&self, sha256: &str, image: &RgbImage) -> Result<Features, TrainError> {
        let size = Size {
            width: image.width(),
            height: image.height(),
        };
        let key = sha256_hex(format!("{} {sha256} {size}", self.name).as_bytes());
        if let Some(found) = self.cache.as_ref().and_then(|c| c.get(&key, self.dim)) {
            return Ok(found);
        }
        let features = self.features(self.normalized(image), size)?;
        if let Some(cache) = &self.cache {
            cache.put(&key, &features);
        }
        Ok(features)
    }

    /// Computes the features of a view of a normalized image. `of` is the guidance's `(height, width)`.
    ///
    /// # Errors
    /// If the backend fails.
    pub fn view(
        &self,
        image: &[f32],
        size: Size,
        jitter: &Jitter,
        of: (usize, usize),
    ) -> Result<Features, TrainError> {
        let (rows, cols) = jitter.axes(of, size.height, size.width);
        let seen = image
            .chunks_exact(size.area())
            .flat_map(|c| resample_values(c, 1, &rows, &cols));
        self.features(seen.collect(), size)
    }
}

/// A cache of features on disk, by name. It grows up to a limit and never evicts: training iterates
/// over all images in turn, so eviction would not increase the hit rate.
#[derive(Debug)]
pub struct FeatureCache {
    folder: PathBuf,
    most: u64,
    used: AtomicU64,
    failed: AtomicBool,
}

impl FeatureCache {
    /// Opens the cache in `folder`, which is created if necessary, with a limit of `most` bytes.
    ///
    /// # Errors
    /// The folder cannot be created or read.
    pub fn open(folder: &Path, most: u64) -> Result<Self, TrainError> {
        std::fs::create_dir_all(folder).map_err(TrainError::io(folder))?;
        let mut used = 0;
        for item in std::fs::read_dir(folder).map_err(TrainError::io(folder))? {
            let metadata = item
                .and_then(|i| i.metadata())
                .map_err(TrainError::io(folder))?;
            used += metadata.len();
        }
        Ok(Self {
            folder: folder.into(),
            most,
            used: used.into(),
            failed: false.into(),
        })
    }

    fn file(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.npy"))
    }

    fn get(&self, key: &str, dim: usize) -> Option<Features> {
        let file = self.file(key);
        if !file.exists() {
            return None;
        }
        match npy::read(&file) {
            Ok(array) if array.shape.len() == 3 && array.shape[2] == dim => Some(Features {
                dim,
                height: array.shape[0],
                width: array.shape[1],
                tokens: array.data,
            }),
            Ok(array) => {
                log::warn!(
                    "{}: has shape {:?}; computing it again",
                    file.display(),
                    array.shape
                );
                None
            }
            Err(e) => {
                log::warn!("{e}; computing it again");
                None
            }
        }
    }

    fn put(&self, key: &str, features: &Features) {
        let bytes = features.tokens.len() as u64 * 4 + 128;
        if self.used.fetch_add(bytes, Ordering::Relaxed) + bytes > self.most {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            return;
        }
        let shape = [features.height, features.width, features.dim];
        if let Err(e) = npy::write(&self.file(key), &shape, &features.tokens)
            && !self.failed.swap(true, Ordering::Relaxed)
        {
            log::warn!("{e}; training continues without caching features");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(value: f32) -> Features {
        Features {
            dim: 4,
            height: 2,
            width: 3,
            tokens: vec![value; 2 * 3 * 4],
        }
    }

    #[test]
    fn the_cache_gives_back_what_was_put_in_and_stops_at_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        // Two entries of 2 * 3 * 4 * 4 + 128 = 224 bytes fit, a third does not.
        let cache = FeatureCache::open(folder.path(), 500).unwrap();
        for (key, value) in [("a", 1.0), ("b", 2.0), ("c", 3.0)] {
            cache.put(key, &features(value));
        }
        assert_eq!(cache.get("a", 4), Some(features(1.0)));
        assert_eq!(cache.get("b", 4), Some(features(2.0)));
        assert_eq!(cache.get("c", 4), None);
        let again = FeatureCache::open(folder.path(), 500).unwrap();
        again.put("c", &features(3.0));
        assert_eq!(again.get("c", 4), None, "the limit applies across runs");
    }

    #[test]
    fn damaged_features_are_computed_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = FeatureCache::open(folder.path(), 1 << 20).unwrap();
        cache.put("a", &features(1.0));
        std::fs::write(cache.file("a"), b"not features").unwrap();
        assert_eq!(cache.get("a", 4), None);
        cache.put("a", &features(1.0));
        assert_eq!(cache.get("a", 4), Some(features(1.0)));
        assert_eq!(cache.get("a", 5), None, "from another backbone");
    }
}
