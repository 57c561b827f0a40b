//! Pictures: reading, Pillow's bilinear resize, normalization, writing.
//!
//! The backbones were trained behind torchvision's transforms on PIL images, so the same
//! arithmetic is done here: [`RgbImage::resized`] gives Pillow's bytes, and [`RgbImage::normalized`]
//! gives torch's floats, bit for bit. (Decoded JPEG may differ from Pillow's by a level or two:
//! the standard leaves decoders that freedom.)

pub(crate) mod atomic;
mod decode;
pub mod folders;
mod jpeg;
mod resize;

use std::path::{Path, PathBuf};

pub use decode::{Decoded, Orientation, decode, decode_with, open, open_with};

/// The largest width and the largest height of a picture, read or made here.
pub const MAX_SIDE: usize = 16384;

/// The most bytes that a decoder may hold at once, and the largest file it is given.
pub const MAX_BYTES: u64 = 1 << 30;

/// What can be wrong with a picture. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The file could not be opened, read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The picture file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes are none of the formats read here.
    #[error(
        "{name}: not a picture that can be read here: {found}; expected JPEG, PNG, BMP, PNM, TIFF or WebP"
    )]
    NotAPicture {
        /// The file, or what the caller called the bytes.
        name: String,
        /// What the bytes look like.
        found: String,
    },
    /// A picture of a known format, but damaged or of a kind that is not read.
    #[error("{name}: {format} picture cannot be decoded: {what}")]
    Undecodable {
        /// The file, or what the caller called the bytes.
        name: String,
        /// The format, by its first bytes.
        format: &'static str,
        /// What is wrong.
        what: String,
    },
    /// A picture of more pixels or bytes than are accepted.
    #[error("{name}: {what}; the limits are {MAX_SIDE} x {MAX_SIDE} pixels and {} MiB: shrink the picture first", MAX_BYTES >> 20)]
    TooLarge {
        /// The file, or what the caller called the bytes.
        name: String,
        /// What is too large, and how large it is.
        what: String,
    },
    /// A width or height that no picture can have.
    #[error(
        "a picture of {width} x {height} pixels cannot be made: each side must be 1 to {MAX_SIDE}"
    )]
    BadSize {
        /// The width asked for.
        width: usize,
        /// The height asked for.
        height: usize,
    },
    /// Pixel data that does not fit the width and height.
    #[error(
        "{bytes} bytes of pixels do not make an RGB picture of {width} x {height}: expected {width} * {height} * 3"
    )]
    BadData {
        /// The width given.
        width: usize,
        /// The height given.
        height: usize,
        /// The bytes given.
        bytes: usize,
    },
    /// Rows of pixels that do not fit the sides.
    #[error(
        "{bytes} bytes in rows of {stride} do not hold an RGB picture of {width} x {height}: a row takes {width} * 3 bytes, and the stride is at least that"
    )]
    BadStride {
        /// The width given.
        width: usize,
        /// The height given.
        height: usize,
        /// Bytes from row to row.
        stride: usize,
        /// The bytes given.
        bytes: usize,
    },
}

/// An 8-bit RGB picture: rows from the top, pixels from the left, R, G, B.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbImage {
    width: usize,
    height: usize,
    data: Vec<u8>,
}

impl std::fmt::Debug for RgbImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RgbImage({} x {})", self.width, self.height)
    }
}

impl RgbImage {
    /// A picture of the given pixels, `height * width * 3` bytes.
    ///
    /// # Errors
    /// A side of 0 or over [`MAX_SIDE`], or another number of bytes.
    pub fn new(width: usize, height: usize, data: Vec<u8>) -> Result<Self, ImageError> {
        check_size(width, height)?;
        if data.len() != width * height * 3 {
            let bytes = data.len();
            return Err(ImageError::BadData {
                width,
                height,
                bytes,
            });
        }
        Ok(Self {
            width,
            height,
            data,
        })
    }

    /// A picture of one color.
    ///
    /// # Errors
    /// A side of 0 or over [`MAX_SIDE`].
    pub fn filled(width: usize, height: usize, color: [u8; 3]) -> Result<Self, ImageError> {
        check_size(width, height)?;
        let data = color.repeat(width * height);
        Self::new(width, height, data)
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The pixels, `[height, width, 3]`.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// One row, `[width, 3]`.
    ///
    /// # Panics
    /// If there is no row `y`.
    pub fn row(&self, y: usize) -> &[u8] {
        &self.data[y * self.width * 3..][..self.width * 3]
    }

    /// One row to write to, `[width, 3]`.
    ///
    /// # Panics
    /// If there is no row `y`.
    pub fn row_mut(&mut self, y: usize) -> &mut [u8] {
        &mut self.data[y * self.width * 3..][..self.width * 3]
    }

    /// The picture at another size: the bytes of Pillow's `Image.resize((width, height),
    /// BILINEAR)`, which is what torchvision's `Resize` does to a PIL image. When it shrinks, the
    /// triangle filter is widened by the scale (antialiasing).
    ///
    /// Across first, then down, as Pillow did up to version 12, with which the backbones were
    /// trained. Since 13 Pillow chooses the order by the sizes; where it goes down first, some
    /// values differ by one level.
    ///
    /// # Errors
    /// A side of 0 or over [`MAX_SIDE`].
    pub fn resized(&self, width: usize, height: usize) -> Result<Self, ImageError> {
        check_size(width, height)?;
        Ok(resize::bilinear(self, width, height))
    }

    /// The picture as a network takes it: planar `[3, height, width]`,
    /// `(level / 255 - mean) / std` for each channel in the order and precision of torchvision's
    /// `to_tensor` and `normalize`, bit for bit.
    pub fn normalized(&self, mean: [f32; 3], std: [f32; 3]) -> Vec<f32> {
        let mut planes = Vec::with_capacity(self.data.len());
        for channel in 0..3 {
            let table: [f32; 256] =
                std::array::from_fn(|level| (level as f32 / 255.0 - mean[channel]) / std[channel]);
            let (pixels, _) = self.data.as_chunks::<3>();
            planes.extend(
                pixels
                    .iter()
                    .map(|pixel| table[usize::from(pixel[channel])]),
            );
        }
        planes
    }

    /// Puts `before` back wherever no color of a pixel differs from it by more than `tolerance`
    /// levels: what stands still in a video then stays the same to the bit in spite of the sensor's
    /// noise. `before` is the last picture this was done to, so that a slow change is not lost, only
    /// late; one of another size changes nothing.
    pub fn suppress_noise(&mut self, before: &Self, tolerance: u8) {
        if (self.width, self.height) != (before.width, before.height) {
            return;
        }
        let (pixels, _) = self.data.as_chunks_mut::<3>();
        let (before, _) = before.data.as_chunks::<3>();
        for (pixel, before) in pixels.iter_mut().zip(before) {
            let near = |(a, b): (&u8, &u8)| a.abs_diff(*b) <= tolerance;
            if pixel.iter().zip(before).all(near) {
                *pixel = *before;
            }
        }
    }

    /// Writes the picture as PNG. The file appears whole or not at all: it is written beside its
    /// destination, synced and renamed.
    ///
    /// # Errors
    /// The file cannot be written; the destination is then as it was.
    pub fn save_png(&self, path: &Path) -> Result<(), ImageError> {
        let io = |source| ImageError::Io {
            path: path.to_owned(),
            source,
        };
        let file = atomic::AtomicFile::create(path).map_err(io)?;
        let mut out = std::io::BufWriter::with_capacity(1 << 16, file.file());
        self.encode_png(&mut out).map_err(io)?;
        std::io::Write::flush(&mut out).map_err(io)?;
        drop(out);
        file.commit().map_err(io)
    }

    /// Writes the image as PNG to `out`.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn encode_png(&self, out: impl std::io::Write) -> std::io::Result<()> {
        // Sides are at most MAX_SIDE, so the casts lose nothing.
        let sides = [self.width as u32, self.height as u32];
        encode_png(out, &self.data, sides, image::ExtendedColorType::Rgb8)
    }
}

/// Writes gray levels, `[height, width]`, as PNG to `out`.
pub(crate) fn encode_gray_png(
    out: impl std::io::Write,
    width: usize,
    height: usize,
    levels: &[u8],
) -> std::io::Result<()> {
    let side = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    encode_png(
        out,
        levels,
        [side(width), side(height)],
        image::ExtendedColorType::L8,
    )
}

fn encode_png(
    out: impl std::io::Write,
    data: &[u8],
    [width, height]: [u32; 2],
    color: image::ExtendedColorType,
) -> std::io::Result<()> {
    let encoder = image::codecs::png::PngEncoder::new(out);
    image::ImageEncoder::write_image(encoder, data, width, height, color).map_err(|e| match e {
        image::ImageError::IoError(source) => source,
        other => std::io::Error::other(other),
    })
}

pub(crate) fn check_size(width: usize, height: usize) -> Result<(), ImageError> {
    let side = 1..=MAX_SIDE;
    if side.contains(&width) && side.contains(&height) {
        Ok(())
    } else {
        Err(ImageError::BadSize { width, height })
    }
}
