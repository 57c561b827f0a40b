//! Masks of class indices.

use std::path::Path;

use loftup_bundle::Size;
use png::{BitDepth, ColorType};

use crate::{EvalError, gray_png, resize::under_centers};

/// The value of unlabeled pixels.
pub const UNLABELED: u8 = 255;

/// Maximum mask size: 16384 x 16384 bytes.
const MOST_BYTES: usize = 1 << 28;

/// One value per pixel, row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// Width and height.
    pub size: Size,
    /// Classes, or [`UNLABELED`].
    pub values: Vec<u8>,
}

impl Labels {
    /// Reads a PNG with class indices: grayscale or palette (whose colors are ignored), 1 to 8
    /// bits.
    ///
    /// # Errors
    /// Another file type, or a damaged file.
    pub fn open(path: &Path) -> Result<Self, EvalError> {
        let png = gray_png::read(
            path,
            gray_png::Rules {
                max_bytes: MOST_BYTES,
                wrong: |what| EvalError::Labels {
                    path: path.into(),
                    what,
                },
                check: |color, depth| {
                    let gray = matches!(color, ColorType::Grayscale | ColorType::Indexed);
                    (!gray || depth == BitDepth::Sixteen).then(|| format!(
                        "a mask must be a grayscale or palette PNG with class indices of at most 8 bits, not {color:?} with {} bits",
                        depth as u8
                    ))
                },
                too_large: |size| {
                    let longest = Size::LONGEST_SIDE;
                    format!("mask size {size} exceeds the limit of {longest} per side")
                },
            },
        )?;
        let (size, bits) = (png.size, png.bits);
        let values = png
            .data
            .chunks_exact(png.line_size)
            .take(size.height)
            .flat_map(|line| (0..size.width).map(move |x| unpack(line, x, bits)))
            .collect();
        Ok(Self { size, values })
    }

    /// Resizes the mask: each pixel takes the label under its center (nearest neighbor).
    pub fn resized(&self, size: Size) -> Self {
        let values = under_centers(&self.values, self.size, size);
        Self { size, values }
    }
}

/// Value `x` of a line of packed values, most significant bits first.
fn unpack(line: &[u8], x: usize, bits: usize) -> u8 {
    if bits == 8 {
        return line[x];
    }
    let in_byte = 8 / bits;
    let shift = 8 - bits * (x % in_byte + 1);
    (line[x / in_byte] >> shift) & ((1 << bits) - 1)
}
