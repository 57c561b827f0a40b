//! Heads: class maps and short descriptors, computed tile by tile, so that the features of a whole
//! answer are never in memory.

use std::{
    io::{self, BufWriter, Write},
    path::Path,
};

use loftup_bundle::{HeadKind, Linear};

use crate::{
    Rect, RuntimeError, SinkError, TileFeatures, View,
    guidance::same_bits,
    image::{ImageError, atomic::AtomicFile},
    view::Applied,
};

/// The class of a pixel that has none: its scores are not numbers.
pub const NO_CLASS: u8 = 255;

/// A head, ready to be applied to features.
#[derive(Debug, Clone)]
pub struct Head {
    kind: HeadKind,
    linear: Linear,
}

impl Head {
    /// A head from its weights.
    ///
    /// # Errors
    /// Where the weights do not have the shape that the manifest says.
    pub fn new(manifest: loftup_bundle::Head, linear: Linear) -> Result<Self, RuntimeError> {
        let outputs = manifest.kind.outputs();
        let expected = (outputs, manifest.dim);
        let found = (linear.outputs(), linear.inputs);
        if found != expected || linear.weight.len() != outputs * manifest.dim || outputs == 0 {
            return Err(RuntimeError::HeadShape { found, expected });
        }
        Ok(Self {
            kind: manifest.kind,
            linear,
        })
    }

    /// What its outputs mean.
    pub fn kind(&self) -> &HeadKind {
        &self.kind
    }

    /// Channels of features that it takes.
    pub fn dim(&self) -> usize {
        self.linear.inputs
    }

    /// Whether its weights are to the bit those of `other`.
    pub(crate) fn same_bits(&self, other: &Self) -> bool {
        same_bits(&self.linear.weight, &other.linear.weight)
            && same_bits(&self.linear.bias, &other.linear.bias)
    }

    /// Outputs for each pixel.
    pub fn outputs(&self) -> usize {
        self.linear.outputs()
    }

    /// Appends the outputs for `features` `[n, d]` to `out`, `[n, k]`.
    pub fn apply(&self, features: &[f32], out: &mut Vec<f32>) {
        let Linear {
            inputs,
            weight,
            bias,
        } = &self.linear;
        out.reserve(features.len() / inputs * bias.len());
        for pixel in features.chunks_exact(*inputs) {
            let rows = weight.chunks_exact(*inputs).zip(bias);
            out.extend(rows.map(|(row, bias)| dot(row, pixel) + bias));
        }
    }
}

/// The class with the greatest of the scores, the first of several; [`NO_CLASS`] where a score is
/// not a number.
pub fn best(scores: &[f32]) -> u8 {
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

/// The inner product, up to the shorter of the two, as a head computes it: eight interleaved sums,
/// which the compiler turns into vector instructions.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a8, a_rest) = a.as_chunks::<8>();
    let (b8, b_rest) = b.as_chunks::<8>();
    let mut sums = [0f32; 8];
    for (a, b) in a8.iter().zip(b8) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

impl<'a> View<'a> {
    /// The same frame seen through a head: answers then have the head's outputs as channels.
    ///
    /// # Errors
    /// Where the head takes features of another width.
    pub fn through(mut self, head: &'a Head) -> Result<Self, RuntimeError> {
        let dim = self.upsampler.manifest.dim;
        if head.dim() != dim {
            return Err(RuntimeError::HeadDim {
                found: head.dim(),
                expected: dim,
            });
        }
        self.head = Some(head);
        Ok(self)
    }
}

impl Applied<'_> {
    /// What is answered for features `[n, d]`.
    pub fn to<'b>(&'b mut self, features: &'b [f32]) -> &'b [f32] {
        let Some(head) = self.head else {
            return features;
        };
        self.scratch.clear();
        head.apply(features, &mut self.scratch);
        &self.scratch
    }
}

/// Collects the classes of an answer that is seen through a head of classes.
#[derive(Debug)]
pub struct ClassMap {
    rect: Rect,
    classes: Vec<u8>,
}

impl ClassMap {
    /// For the answer to a question about `rect`.
    pub fn new(rect: Rect) -> Self {
        Self {
            rect,
            classes: vec![NO_CLASS; rect.area()],
        }
    }

    /// Takes a tile of scores.
    pub fn take(&mut self, tile: &TileFeatures<'_>) -> Result<(), SinkError> {
        let x = tile.rect.x - self.rect.x;
        for row in 0..tile.rect.height {
            let y = tile.rect.y - self.rect.y + row;
            let line = &mut self.classes[y * self.rect.width + x..][..tile.rect.width];
            for (class, scores) in line.iter_mut().zip(tile.row(row).chunks_exact(tile.dim())) {
                *class = best(scores);
            }
        }
        Ok(())
    }

    /// The classes, `[H, W]`.
    pub fn into_classes(self) -> Vec<u8> {
        self.classes
    }
}

/// Writes a map of classes: as `.npy`, uint8 `[height, width]`, where `path` ends so, and as a grey
/// PNG whose values are the classes otherwise. The file appears whole or not at all.
///
/// # Errors
/// `classes` has another number of pixels, or the file cannot be written.
pub fn save_classes(
    path: &Path,
    width: usize,
    height: usize,
    classes: &[u8],
) -> Result<(), ImageError> {
    let io = |source| ImageError::Io {
        path: path.to_owned(),
        source,
    };
    if width.checked_mul(height) != Some(classes.len()) || classes.is_empty() {
        let what = format!("{} classes for {width} x {height} pixels", classes.len());
        return Err(io(io::Error::new(io::ErrorKind::InvalidInput, what)));
    }
    let file = AtomicFile::create(path).map_err(io)?;
    let mut out = BufWriter::with_capacity(1 << 16, file.file());
    if path
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("npy"))
    {
        out.write_all(&bytes_header(width, height)).map_err(io)?;
        out.write_all(classes).map_err(io)?;
    } else {
        let encoder = image::codecs::png::PngEncoder::new(&mut out);
        let side = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (width, height, kind) = (side(width), side(height), image::ExtendedColorType::L8);
        image::ImageEncoder::write_image(encoder, classes, width, height, kind).map_err(
            |e| match e {
                image::ImageError::IoError(source) => io(source),
                other => io(io::Error::other(other)),
            },
        )?;
    }
    out.flush().map_err(io)?;
    drop(out);
    file.commit().map_err(io)
}

/// The beginning of a `.npy` of bytes, version 1.0: padded to a multiple of 64.
fn bytes_header(width: usize, height: usize) -> Vec<u8> {
    let mut text =
        format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({height}, {width}), }}");
    while (10 + text.len() + 1) % 64 != 0 {
        text.push(' ');
    }
    text.push('\n');
    // Two numbers of 20 digits at most: far below 65536.
    let length = (text.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], text.as_bytes()].concat()
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
        assert_eq!(best(&[0.0, 2.0, 2.0, 1.0]), 1);
        assert_eq!(best(&[-5.0]), 0);
        assert_eq!(best(&[0.0, f32::NAN]), NO_CLASS);
        assert_eq!(best(&[f32::NEG_INFINITY; 2]), NO_CLASS);
    }

    #[test]
    fn class_maps_are_written_as_numpy_and_png_read_them() {
        let dir = tempfile::tempdir().unwrap();
        let classes = [0, 1, 2, 3, 254, NO_CLASS];
        let npy = dir.path().join("map.npy");
        save_classes(&npy, 3, 2, &classes).unwrap();
        let bytes = std::fs::read(&npy).unwrap();
        assert_eq!(bytes.len(), 128 + 6);
        let header = std::str::from_utf8(&bytes[10..128]).unwrap();
        assert!(bytes.starts_with(b"\x93NUMPY\x01\x00\x76\x00") && header.ends_with('\n'));
        assert!(header.starts_with("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }"));
        assert_eq!(bytes[128..], classes);
        let png = dir.path().join("map.png");
        save_classes(&png, 3, 2, &classes).unwrap();
        let read = image::open(&png).unwrap();
        assert_eq!(read.color(), image::ColorType::L8);
        assert_eq!((read.width(), read.as_bytes()), (3, &classes[..]));
        assert!(save_classes(&png, 2, 2, &classes).is_err());
        assert!(save_classes(&dir.path().join("no/map.png"), 3, 2, &classes).is_err());
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
