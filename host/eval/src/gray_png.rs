//! Reads grayscale and palette PNGs as stored, without conversion.

use std::{fs::File, io::BufReader, path::Path};

use loftup_bundle::Size;
use png::{BitDepth, ColorType, Decoder, Limits, Transformations};

use crate::EvalError;

/// Accepted files, and the errors for others.
pub(crate) struct Rules<W, C, L> {
    /// Maximum size of the decoded pixels in bytes.
    pub max_bytes: usize,
    /// Converts a message to the error of the file.
    pub wrong: W,
    /// Returns what is wrong with a color type and bit depth, if anything.
    pub check: C,
    /// Returns the message for an image that is too large.
    pub too_large: L,
}

/// Pixels as stored.
pub(crate) struct GrayPng {
    pub size: Size,
    /// Bits per pixel.
    pub bits: usize,
    /// Bytes per row.
    pub line_size: usize,
    pub data: Vec<u8>,
}

/// Reads a PNG.
///
/// # Errors
/// [`EvalError::Io`], or the error in `rules` for another file type, a damaged file, or a side longer than
/// [`Size::LONGEST_SIDE`].
pub(crate) fn read(
    path: &Path,
    rules: Rules<
        impl Fn(String) -> EvalError,
        impl Fn(ColorType, BitDepth) -> Option<String>,
        impl Fn(Size) -> String,
    >,
) -> Result<GrayPng, EvalError> {
    let file = File::open(path).map_err(|source| EvalError::Io {
        path: path.into(),
        source,
    })?;
    let limits = Limits {
        bytes: rules.max_bytes,
    };
    let mut decoder = Decoder::new_with_limits(BufReader::new(file), limits);
    decoder.set_transformations(Transformations::IDENTITY);
    let wrong = &rules.wrong;
    let not_png = |e: png::DecodingError| wrong(format!("cannot be decoded as PNG: {e}"));
    let mut reader = decoder.read_info().map_err(not_png)?;
    let info = reader.info();
    let (color, depth) = (info.color_type, info.bit_depth);
    let size = Size {
        width: info.width as usize,
        height: info.height as usize,
    };
    if let Some(what) = (rules.check)(color, depth) {
        return Err(wrong(what));
    }
    let bytes = reader
        .output_buffer_size()
        .filter(|n| *n <= rules.max_bytes && size.width.max(size.height) <= Size::LONGEST_SIDE);
    let Some(bytes) = bytes else {
        return Err(wrong((rules.too_large)(size)));
    };
    let mut data = vec![0; bytes];
    let frame = reader.next_frame(&mut data).map_err(not_png)?;
    Ok(GrayPng {
        size,
        bits: depth as usize,
        line_size: frame.line_size,
        data,
    })
}
