//! Masks of class indices.

use std::{fs::File, io::BufReader, path::Path};

use loftup_bundle::Size;
use png::{BitDepth, ColorType, Decoder, Limits, Transformations};

use crate::{EvalError, resize::under_centers};

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
        let wrong = |what: String| EvalError::Labels {
            path: path.into(),
            what,
        };
        let file = File::open(path).map_err(|source| EvalError::Io {
            path: path.into(),
            source,
        })?;
        let limits = Limits { bytes: MOST_BYTES };
        let mut decoder = Decoder::new_with_limits(BufReader::new(file), limits);
        decoder.set_transformations(Transformations::IDENTITY);
        let not_png = |e: png::DecodingError| wrong(format!("cannot be decoded as PNG: {e}"));
        let mut reader = decoder.read_info().map_err(not_png)?;
        let info = reader.info();
        let (color, depth) = (info.color_type, info.bit_depth);
        let size = Size {
            width: info.width as usize,
            height: info.height as usize,
        };
        if !matches!(color, ColorType::Grayscale | ColorType::Indexed) || depth == BitDepth::Sixteen
        {
            return Err(wrong(format!(
                "a mask must be a grayscale or palette PNG with class indices of at most 8 bits, not {color:?} with {} bits",
                depth as u8
            )));
        }
        let longest = Size::LONGEST_SIDE;
        let bytes = reader.output_buffer_size().filter(|n| *n <= MOST_BYTES);
        let (Some(bytes), true) = (bytes, size.width.max(size.height) <= longest) else {
            return Err(wrong(format!(
                "mask size {size} exceeds the limit of {longest} per side"
            )));
        };
        let mut data = vec![0; bytes];
        let frame = reader.next_frame(&mut data).map_err(not_png)?;
        let bits = depth as usize;
        let values = data
            .chunks_exact(frame.line_size)
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
