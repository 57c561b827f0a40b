//! Heads: linear layers for classes, depth or short descriptors, and similarities with words. They run
//! tile by tile, so the features of a whole frame are never in memory.

use loftup_bundle::{HeadKind, Linear};

use crate::{
    RuntimeError,
    dot::linear,
    guidance::bit_eq,
    words::{self, ChannelNorm},
};

/// The class of a pixel whose scores are NaN.
pub const NO_CLASS: u8 = 255;

/// A head with its weights.
#[derive(Debug, Clone)]
pub struct Head {
    kind: HeadKind,
    linear: Linear,
    /// For words: the channel norm to undo, to map the upsampler's output back to the backbone's space.
    pub(crate) norm: Option<ChannelNorm>,
    /// For words: the sum of each row of the weights.
    pub(crate) sums: Vec<f32>,
}

impl Head {
    /// Creates a head from its weights. For words, use
    /// [`Perceptor::custom_head`](crate::Perceptor::custom_head), since they also need data from the bundle.
    ///
    /// # Errors
    /// If the shape of the weights does not match the manifest.
    pub fn new(manifest: loftup_bundle::Head, mut linear: Linear) -> Result<Self, RuntimeError> {
        let rows = manifest.kind.rows();
        let expected = (rows, manifest.dim);
        let found = (linear.outputs(), linear.inputs);
        if found != expected
            || linear.weight.len() != rows * manifest.dim
            || manifest.kind.outputs() == 0
        {
            return Err(RuntimeError::HeadShape { found, expected });
        }
        let mut sums = Vec::new();
        if let HeadKind::Words { .. } = manifest.kind {
            words::normalize(&mut linear);
            // Words are directions and have no bias.
            linear.bias.fill(0.0);
            let words = linear.weight.chunks_exact(linear.inputs);
            sums.extend(words.map(words::sum));
        }
        Ok(Self {
            kind: manifest.kind,
            linear,
            norm: None,
            sums,
        })
    }

    /// The meaning of its outputs.
    pub fn kind(&self) -> &HeadKind {
        &self.kind
    }

    /// Channels of the input features.
    pub fn dim(&self) -> usize {
        self.linear.inputs
    }

    /// Whether its weights are bit-identical to those of `other`.
    pub(crate) fn bit_eq(&self, other: &Self) -> bool {
        let words = self.is_words() || other.is_words();
        bit_eq(&self.linear.weight, &other.linear.weight)
            && bit_eq(&self.linear.bias, &other.linear.bias)
            && (!words || self.kind == other.kind)
            && match (&self.norm, &other.norm) {
                (Some(a), Some(b)) => a.bit_eq(b),
                (a, b) => a.is_none() && b.is_none(),
            }
    }

    /// Outputs per pixel.
    pub fn outputs(&self) -> usize {
        self.kind.outputs()
    }

    /// Whether this is a text head: similarities with words, in the backbone's feature space.
    pub(crate) fn is_words(&self) -> bool {
        matches!(self.kind, HeadKind::Words { .. })
    }

    /// The rows of its weights.
    pub(crate) fn linear(&self) -> &Linear {
        &self.linear
    }

    /// Appends the outputs for `features` `[n, d]` to `out`, `[n, k]`. A text head expects features in
    /// the backbone's space.
    pub fn apply(&self, features: &[f32], out: &mut Vec<f32>) {
        let start = out.len();
        self.scores(features, out);
        words::decide(&self.kind, out, start);
    }

    /// Appends the inputs of [`words::decide`]: for words, the similarities with all words, including
    /// the negative ones; otherwise the outputs.
    pub(crate) fn scores(&self, features: &[f32], out: &mut Vec<f32>) {
        if self.is_words() {
            return words::similarities(&self.linear, features, out);
        }
        let Linear {
            inputs,
            weight,
            bias,
        } = &self.linear;
        out.reserve(features.len() / inputs * bias.len());
        for pixel in features.chunks_exact(*inputs) {
            linear(weight, bias, pixel, out);
        }
    }
}

/// Returns the index of the largest score, the first if several are equal; [`NO_CLASS`] if any score is NaN.
pub fn argmax(scores: &[f32]) -> u8 {
    let mut best = (NO_CLASS, f32::NEG_INFINITY);
    for (class, &score) in scores.iter().enumerate() {
        if score.is_nan() {
            return NO_CLASS;
        }
        if score > best.1 {
            best = (class as u8, score);
        }
    }
    best.0
}

/// Writes [`argmax`] of each pixel of `scores` `[n, outputs]` to `classes`.
pub fn argmax_pixels(scores: &[f32], outputs: usize, classes: &mut [u8]) {
    for (class, scores) in classes.iter_mut().zip(scores.chunks_exact(outputs)) {
        *class = argmax(scores);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(outputs: usize, dim: usize) -> Head {
        let value = |i: usize| ((i * 37 + 11) % 64) as f32 / 32.0 - 1.0;
        let weight = (0..outputs * dim).map(value).collect();
        let bias = (0..outputs).map(|i| value(i + 5)).collect();
        let names = (0..outputs).map(|i| i.to_string()).collect();
        let manifest = loftup_bundle::Head {
            kind: HeadKind::Classes { names },
            dim,
            file: String::new(),
        };
        Head::new(
            manifest,
            Linear {
                inputs: dim,
                weight,
                bias,
            },
        )
        .unwrap()
    }

    #[test]
    fn outputs_are_the_affine_map() {
        // Sums of small multiples of 2^-10 are exact in 32 bit in any order.
        for (outputs, dim) in [(1, 1), (3, 8), (11, 37), (2, 384)] {
            let head = head(outputs, dim);
            let features: Vec<f32> = (0..5 * dim)
                .map(|i| ((i * 13) % 32) as f32 / 32.0)
                .collect();
            let mut out = vec![9.0];
            head.apply(&features, &mut out);
            let Linear { weight, bias, .. } = &head.linear;
            let slow = features.chunks(dim).flat_map(|x| {
                (0..outputs).map(move |k| {
                    let row = &weight[k * dim..][..dim];
                    row.iter()
                        .zip(x)
                        .map(|(w, x)| f64::from(w * x))
                        .sum::<f64>() as f32
                        + bias[k]
                })
            });
            assert_eq!(out[1..], slow.collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_first_of_the_greatest_scores_wins_and_nan_is_no_class() {
        assert_eq!(argmax(&[0.0, 2.0, 2.0, 1.0]), 1);
        assert_eq!(argmax(&[-5.0]), 0);
        assert_eq!(argmax(&[0.0, f32::NAN]), NO_CLASS);
        assert_eq!(argmax(&[f32::NEG_INFINITY; 2]), NO_CLASS);
    }

    #[test]
    fn weights_of_another_shape_are_refused() {
        let kind = HeadKind::Descriptors { channels: 2 };
        let manifest = loftup_bundle::Head {
            kind,
            dim: 3,
            file: String::new(),
        };
        let linear = Linear {
            inputs: 3,
            weight: vec![0.0; 5],
            bias: vec![0.0; 2],
        };
        assert!(matches!(
            Head::new(manifest, linear),
            Err(RuntimeError::HeadShape { .. })
        ));
    }
}
