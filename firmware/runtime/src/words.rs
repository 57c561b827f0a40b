//! Words: cosine similarities of features with directions in the backbone's feature space.
//!
//! LoftUp's input is features `f` after a layer norm over channels, `gamma (f - mean) / deviation + beta`,
//! and its output `y` is in that space, not in the backbone's, where words are directions. So the norm
//! is undone for each pixel: `f = deviation (y - beta) / gamma + mean`, with the mean and the standard
//! deviation of the backbone's tokens, bilinearly upsampled.

use loftup_bundle::{HeadKind, Linear, Size};
use loftup_spec::{interpolate::bilinear, weights::AffineWeights};

use crate::{Features, Rect, dot::dot, guidance::bit_eq};

/// Channels whose `gamma` is below this fraction of the largest cannot be recovered.
const LOST: f32 = 1e-4;

/// The inverse of an upsampler's channel norm.
#[derive(Debug, Clone)]
pub(crate) struct ChannelNorm {
    /// `1 / gamma`; 0 for a channel that cannot be recovered, which gets the mean.
    pub scale: Vec<f32>,
    /// `-beta / gamma`.
    pub offset: Vec<f32>,
}

impl ChannelNorm {
    pub fn new(norm: &AffineWeights) -> Self {
        let largest = norm.weight.iter().fold(0f32, |m, w| m.max(w.abs()));
        let scale = |w: &f32| match w.abs() > LOST * largest {
            true => 1.0 / w,
            false => 0.0,
        };
        let scale: Vec<f32> = norm.weight.iter().map(scale).collect();
        let offset = scale.iter().zip(&norm.bias).map(|(s, b)| -b * s).collect();
        Self { scale, offset }
    }

    /// Maps an upsampled feature to the backbone's space and writes it to `out`.
    fn undo(&self, upsampled: &[f32], token: TokenMoments, out: &mut [f32]) {
        let affine = self.scale.iter().zip(&self.offset);
        for ((y, out), (scale, offset)) in upsampled.iter().zip(out).zip(affine) {
            *out = token.deviation * (y * scale + offset) + token.mean;
        }
    }

    pub fn bit_eq(&self, other: &Self) -> bool {
        bit_eq(&self.scale, &other.scale) && bit_eq(&self.offset, &other.offset)
    }
}

/// Mean and standard deviation over the channels of a token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TokenMoments {
    pub mean: f32,
    pub deviation: f32,
}

/// The moments of all tokens, on their grid.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct MomentMap {
    width: usize,
    height: usize,
    tokens: Vec<TokenMoments>,
}

impl MomentMap {
    pub fn of(features: &Features) -> Self {
        let moments = |token: &[f32]| {
            let n = token.len() as f32;
            let mean = token.iter().sum::<f32>() / n;
            let square: f32 = token.iter().map(|x| (x - mean) * (x - mean)).sum();
            let deviation = (square / n + loftup_spec::EPS).sqrt();
            TokenMoments { mean, deviation }
        };
        Self {
            width: features.width,
            height: features.height,
            tokens: features
                .tokens
                .chunks_exact(features.dim)
                .map(moments)
                .collect(),
        }
    }

    /// Returns the bilinearly interpolated moments at a pixel of an output of `size`.
    fn at(&self, x: usize, y: usize, size: Size) -> TokenMoments {
        let (column, tx) = bilinear(x, self.width, size.width);
        let (row, ty) = bilinear(y, self.height, size.height);
        let right = (column + 1).min(self.width - 1);
        let below = (row + 1).min(self.height - 1);
        let mix = |part: fn(&TokenMoments) -> f32| {
            let value = |row: usize, column: usize| part(&self.tokens[row * self.width + column]);
            let line = |row: usize| value(row, column) * (1.0 - tx) + value(row, right) * tx;
            line(row) * (1.0 - ty) + line(below) * ty
        };
        TokenMoments {
            mean: mix(|t| t.mean),
            deviation: mix(|t| t.deviation),
        }
    }
}

/// Scales the direction of each word to length 1.
pub(crate) fn normalize(words: &mut Linear) {
    for word in words.weight.chunks_exact_mut(words.inputs) {
        let square: f64 = word.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        if square > 0.0 {
            let scale = 1.0 / square.sqrt();
            word.iter_mut()
                .for_each(|x| *x = (f64::from(*x) * scale) as f32);
        }
    }
}

/// Returns the sum of the components of a direction.
pub(crate) fn sum(word: &[f32]) -> f32 {
    word.iter().map(|x| f64::from(*x)).sum::<f64>() as f32
}

/// Appends the cosine similarities of features `[n, d]` in the backbone's space with all words, negative
/// ones last: `[n, rows]`.
pub(crate) fn similarities(words: &Linear, features: &[f32], out: &mut Vec<f32>) {
    for feature in features.chunks_exact(words.inputs) {
        let norm = dot(feature, feature).sqrt();
        let rows = words.weight.chunks_exact(words.inputs);
        out.extend(rows.map(|word| dot(word, feature) / norm));
    }
}

/// Same as [`similarities`] for LoftUp's output `[n, d]` at the pixels of `rects` in a frame of `size`.
/// `feature` is a scratch buffer.
pub(crate) fn upsampled_similarities(
    (words, norm): (&Linear, &ChannelNorm),
    upsampled: &[f32],
    (rects, size, moments): (&[Rect], Size, &MomentMap),
    feature: &mut Vec<f32>,
    out: &mut Vec<f32>,
) {
    feature.resize(words.inputs, 0.0);
    let pixels = places(rects);
    for (pixel, (x, y)) in upsampled.chunks_exact(words.inputs).zip(pixels) {
        norm.undo(pixel, moments.at(x, y, size), feature);
        similarities(words, feature, out);
    }
}

/// Same as [`similarities`], from the outputs of a queries graph with a head: products of the words with
/// `x`, LoftUp's output after [`ChannelNorm`]'s scale and offset, `[n, rows]`; and mean and mean square
/// of `x`, `[n, 2]`. `sums` are the sums of the words, which have `dim` channels.
pub(crate) fn similarities_of_products(
    (sums, dim): (&[f32], usize),
    (products, moments): (&[f32], &[f32]),
    (rects, size, map): (&[Rect], Size, &MomentMap),
    out: &mut Vec<f32>,
) {
    let pixels = places(rects);
    let found = products
        .chunks_exact(sums.len())
        .zip(moments.as_chunks::<2>().0);
    for ((products, [mean, square]), (x, y)) in found.zip(pixels) {
        // The feature is `deviation * x + token.mean`; `mean` and `square` are the moments of `x`.
        let token = map.at(x, y, size);
        let (a, b) = (token.deviation, token.mean);
        let mean_square = a * a * square + 2.0 * a * b * mean + b * b;
        let norm = (dim as f32 * mean_square.max(0.0)).sqrt();
        let words = products.iter().zip(sums);
        out.extend(words.map(|(product, sum)| (a * product + b * sum) / norm));
    }
}

/// Column and row of each pixel of `rects`.
fn places(rects: &[Rect]) -> impl Iterator<Item = (usize, usize)> {
    rects.iter().flat_map(|r| {
        (r.y..r.y + r.height).flat_map(move |y| (r.x..r.x + r.width).map(move |x| (x, y)))
    })
}

/// Reduces similarities with all words, `[n, rows]` from index `start` on, to the words to find,
/// `[n, k]`, in place. If no word is found at a pixel, all its scores become negative infinity. NaN
/// stays NaN.
pub(crate) fn decide(kind: &HeadKind, scores: &mut Vec<f32>, start: usize) {
    let HeadKind::Words {
        names, threshold, ..
    } = kind
    else {
        return;
    };
    let (rows, outputs) = (kind.rows(), names.len());
    let threshold = threshold.unwrap_or(f32::NEG_INFINITY);
    let pixels = (scores.len() - start) / rows;
    for pixel in 0..pixels {
        let (from, to) = (start + pixel * rows, start + pixel * outputs);
        let (found, negative) = scores[from..from + rows].split_at(outputs);
        let best = found.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // NaN is kept, to distinguish it from a word that was not found.
        let valid = !found.iter().chain(negative).any(|score| score.is_nan());
        let none = valid && (best < threshold || negative.iter().any(|n| *n >= best));
        scores.copy_within(from..from + outputs, to);
        if none {
            scores[to..to + outputs].fill(f32::NEG_INFINITY);
        }
    }
    scores.truncate(start + pixels * outputs);
}
