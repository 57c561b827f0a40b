//! Masks of class indices.

use std::{fs::File, io::BufReader, path::Path};

use loftup_bundle::Size;
use png::{BitDepth, ColorType, Decoder, Limits, Transformations};

use crate::EvalError;

/// The value of a pixel that has no label.
pub const UNLABELED: u8 = 255;

/// A mask larger than this is none of ours: 16384 x 16384 bytes.
const MOST_BYTES: usize = 1 << 28;

/// One value for each pixel, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// Its size.
    pub size: Size,
    /// Classes, or [`UNLABELED`].
    pub values: Vec<u8>,
}

impl Labels {
    /// Reads a PNG whose values are class indices: gray, or with a palette, whose colors do not
    /// matter; 1 to 8 bits.
    ///
    /// # Errors
    /// Another kind of file, or a damaged one.
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
        let not_png = |e: png::DecodingError| wrong(format!("not a PNG that can be read: {e}"));
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
                "a mask holds class indices: gray or palette PNG of at most 8 bits, not {color:?} of {} bits",
                depth as u8
            )));
        }
        let longest = Size::LONGEST_SIDE;
        let bytes = reader.output_buffer_size().filter(|n| *n <= MOST_BYTES);
        let (Some(bytes), true) = (bytes, size.width.max(size.height) <= longest) else {
            return Err(wrong(format!(
                "a mask of {size}: sides are at most {longest}"
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

    /// At another size: each pixel takes the label under its center.
    pub fn resized(&self, size: Size) -> Self {
        let place = |i: usize, to: usize, from: usize| (2 * i + 1) * from / (2 * to);
        let columns: Vec<usize> = (0..size.width)
            .map(|x| place(x, size.width, self.size.width))
            .collect();
        let values = (0..size.height)
            .flat_map(|y| {
                let row = place(y, size.height, self.size.height) * self.size.width;
                columns.iter().map(move |x| self.values[row + x])
            })
            .collect();
        Self { size, values }
    }
}

/// Value `x` of a line of packed values, highest bits first.
fn unpack(line: &[u8], x: usize, bits: usize) -> u8 {
    if bits == 8 {
        return line[x];
    }
    let in_byte = 8 / bits;
    let shift = 8 - bits * (x % in_byte + 1);
    (line[x / in_byte] >> shift) & ((1 << bits) - 1)
}
