//! Distillation of a compact upsampler: the target is the output of another bundle, projected to as many
//! channels as the compact bundle's backbone has.

use std::{path::Path, slice, sync::Arc};

use loftup_bundle::{Bundle, BundleError, Size, TensorFile, UpsamplerKind, sha256_hex};
use loftup_runtime::{
    ColorRange, Features, ImageTensor, Rect, dot, image::RgbImage, pca::Pca, sinks::VecSink,
};

use crate::{
    backbone::{Backbone, FeatureCache},
    config::Distillation,
    data::Sample,
    error::TrainError,
    model::least_squares::statistics,
};

/// Name of the weights in a file.
const WEIGHT: &str = "weight";
/// Name of the bias in a file.
const BIAS: &str = "bias";
/// Minimum fraction of a row outside the span of the previous ones for it to add a direction.
const NEW: f64 = 1e-4;

/// A projection of features to fewer channels: mean subtraction, then orthonormal directions.
#[derive(Debug, Clone, PartialEq)]
pub struct PrincipalChannels {
    /// The directions, `[k, d]`.
    weight: Vec<f32>,
    /// `[k]`.
    bias: Vec<f32>,
    /// Mean of the features, `[d]`.
    mean: Vec<f32>,
}

impl PrincipalChannels {
    /// Fits `k` channels to `features`, `[n, d]`: a basis of the rows of `kept`, `[r, d]`, then the
    /// principal components of the rest. Linear maps with the rows of `kept` are preserved exactly.
    ///
    /// # Errors
    /// A description: the features contain NaN or vary in fewer dimensions, `kept` needs more channels, or
    /// `k` is not in 1 to `d`.
    pub fn fit(features: &[f32], d: usize, k: usize, kept: &[f32]) -> Result<Self, String> {
        if k == 0 || k > d {
            return Err(format!("{k} channels of {d}: expected 1 to {d}"));
        }
        let mut directions = orthonormal(kept, d);
        let own = directions.len() / d;
        if own > k {
            return Err(format!(
                "the heads to keep need {own} channels, but there are {k}; use more, or keep fewer heads"
            ));
        }
        let mut rest = features.to_vec();
        for row in rest.chunks_exact_mut(d) {
            for direction in directions.chunks_exact(d) {
                let along = dot(row, direction);
                row.iter_mut()
                    .zip(direction)
                    .for_each(|(x, q)| *x -= along * q);
            }
        }
        if own < k {
            let pca = Pca::fit(&rest, d, k - own).map_err(|e| e.to_string())?;
            let rank = pca.variances().iter().filter(|v| **v > 0.0).count();
            if rank < k - own {
                return Err(format!(
                    "the features vary in {} dimensions only; use at most as many channels",
                    own + rank
                ));
            }
            directions.extend(pca.directions());
        }
        let (mean, _) = statistics(features, d);
        let rows = directions.chunks_exact(d);
        Ok(Self {
            bias: rows.map(|row| -dot(row, &mean)).collect(),
            weight: directions,
            mean,
        })
    }

    /// Number of channels of the features.
    pub fn inputs(&self) -> usize {
        self.weight.len() / self.channels()
    }

    /// Number of principal channels, `k`.
    pub fn channels(&self) -> usize {
        self.bias.len()
    }

    /// The weights, `[k, d]`.
    pub fn weight(&self) -> &[f32] {
        &self.weight
    }

    /// The bias, `[k]`.
    pub fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// Returns the fraction of the variance of `features`, `[n, d]`, that the channels explain.
    pub fn explained_variance(&self, features: &[f32]) -> f64 {
        let variance = |x: &[f32], d: usize| -> f64 {
            let (_, deviation) = statistics(x, d);
            deviation.iter().map(|s| f64::from(*s).powi(2)).sum()
        };
        let held = variance(&self.apply(features), self.channels());
        held / variance(features, self.inputs()).max(f64::MIN_POSITIVE)
    }

    /// Converts a linear map of features, `weight` `[r, d]` and `bias` `[r]`, to one of the channels. Exact if
    /// the rows were in `kept`.
    pub fn compose(&self, weight: &[f32], bias: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let d = self.inputs();
        let (mut rows, mut shifted) = (Vec::new(), Vec::new());
        for (row, bias) in weight.chunks_exact(d).zip(bias) {
            let new: Vec<f32> = self.weight.chunks_exact(d).map(|q| dot(row, q)).collect();
            // The channels are projections of the features minus the mean, so the mean moves to the bias.
            shifted.push(bias + dot(row, &self.mean));
            rows.extend(new);
        }
        (rows, shifted)
    }

    /// Projects features `[n, d]` to `[n, k]`.
    pub fn apply(&self, features: &[f32]) -> Vec<f32> {
        let d = self.inputs();
        let rows = features.chunks_exact(d).flat_map(|x| {
            let rows = self.weight.chunks_exact(d).zip(&self.bias);
            rows.map(|(row, bias)| bias + dot(row, x))
        });
        rows.collect()
    }

    /// Writes the projection to a file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), TrainError> {
        let (k, d) = (self.channels(), self.inputs());
        let tensors: [(&str, &[usize], &[f32]); 3] = [
            (WEIGHT, &[k, d], &self.weight),
            (BIAS, &[k], &self.bias),
            ("mean", &[d], &self.mean),
        ];
        let bytes = TensorFile::to_bytes(tensors.into_iter()).map_err(damaged(path))?;
        crate::checkpoint::replace(path, &bytes).map_err(TrainError::io(path))
    }

    /// Reads a projection of `d` to `k` channels from a file.
    ///
    /// # Errors
    /// If the file cannot be read, or has other numbers of channels.
    pub fn read(path: &Path, k: usize, d: usize) -> Result<Self, TrainError> {
        let bytes = std::fs::read(path).map_err(TrainError::io(path))?;
        let file = TensorFile::new(bytes);
        let read = |name: &str, shape: &[usize]| file.read(name, shape).map_err(damaged(path));
        Ok(Self {
            weight: read(WEIGHT, &[k, d])?,
            bias: read(BIAS, &[k])?,
            mean: read("mean", &[d])?,
        })
    }
}

/// Returns an orthonormal basis of the span of `rows`, `[r, d]`.
fn orthonormal(rows: &[f32], d: usize) -> Vec<f32> {
    let mut basis: Vec<Vec<f64>> = Vec::new();
    for row in rows.chunks_exact(d) {
        let mut new: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
        let length = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>().sqrt();
        let before = length(&new);
        // Twice, because of rounding errors.
        for _ in 0..2 {
            for q in &basis {
                let along: f64 = q.iter().zip(&new).map(|(a, b)| a * b).sum();
                new.iter_mut().zip(q).for_each(|(x, q)| *x -= along * q);
            }
        }
        let left = length(&new);
        if left > NEW * before {
            new.iter_mut().for_each(|x| *x /= left);
            basis.push(new);
        }
    }
    basis.concat().into_iter().map(|x| x as f32).collect()
}

/// Returns a function for `map_err`: the file cannot be used.
fn damaged(path: &Path) -> impl Fn(String) -> TrainError + '_ {
    |what| {
        TrainError::Bundle(BundleError::Damaged {
            path: path.into(),
            what,
        })
    }
}

/// The bundle that a compact upsampler is distilled from.
pub struct WideTeacher {
    backbone: Backbone,
    channels: PrincipalChannels,
}

impl WideTeacher {
    /// Opens the bundle and the projection to `k` channels.
    ///
    /// # Errors
    /// If one of them cannot be read, or the bundle has no LoftUp or no backbone.
    pub fn open(
        settings: &Distillation,
        k: usize,
        cache: Option<Arc<FeatureCache>>,
    ) -> Result<Self, TrainError> {
        let bundle = Bundle::open(&settings.bundle)?;
        let manifest = bundle.manifest();
        let loftup = (manifest.upsampler.as_ref()).filter(|u| u.kind == UpsamplerKind::LoftUp);
        let Some(dim) = loftup.map(|u| u.dim) else {
            return Err(bundle
                .lacks(
                    "LoftUp",
                    "only a LoftUp can be distilled: name a bundle with one",
                )
                .into());
        };
        Ok(Self {
            backbone: Backbone::open(&settings.bundle, cache)?,
            channels: PrincipalChannels::read(&settings.projection, k, dim)?,
        })
    }

    /// SHA-256 of everything that the target depends on.
    pub fn sha256(&self) -> String {
        let manifest = self.backbone.perceptor().manifest();
        let graphs = (manifest.upsampler.iter()).flat_map(|u| u.graphs.values());
        let hashes: Vec<&str> = graphs
            .flat_map(|files| [&files.keys, &files.queries])
            .filter_map(|file| manifest.files.get(file).map(|f| f.sha256.as_str()))
            .collect();
        let (weight, bias) = (self.channels.weight.iter(), self.channels.bias.iter());
        let values: Vec<u8> = weight.chain(bias).flat_map(|x| x.to_le_bytes()).collect();
        let text = format!(
            "{} {hashes:?} {}",
            Backbone::sha256_of(slice::from_ref(&self.backbone)),
            sha256_hex(&values)
        );
        sha256_hex(text.as_bytes())
    }

    /// Computes the target for a part of `guidance`, the image at output size: `[H * W, k]`. The input
    /// size of the backbone is `seen`.
    ///
    /// # Errors
    /// If the engine fails.
    pub fn target(
        &self,
        sample: &Sample,
        guidance: &RgbImage,
        seen: Size,
        part: Rect,
    ) -> Result<Vec<f32>, TrainError> {
        let small = sample.resized(seen)?;
        let features = self.backbone.kept_features(&sample.identity(), &small)?;
        let image = ImageTensor {
            size: Size {
                width: guidance.width(),
                height: guidance.height(),
            },
            data: self.backbone.normalized(guidance),
        };
        self.project(&features, &image, part)
    }

    fn project(
        &self,
        features: &Features,
        image: &ImageTensor,
        part: Rect,
    ) -> Result<Vec<f32>, TrainError> {
        let perceptor = self.backbone.perceptor();
        let frame = perceptor.encode_features(features, image, ColorRange::PerImage)?;
        let mut sink = VecSink::new(part, frame.dim())?;
        frame.region(part, &mut |tile| sink.push(tile))?;
        Ok(self.channels.apply(sink.values()))
    }
}

#[cfg(test)]
mod tests;
