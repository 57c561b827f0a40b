//! Images: decoding, Pillow's bilinear resize, normalization, encoding.
//!
//! The backbones were trained on PIL images preprocessed by torchvision, so the same arithmetic is
//! used here: [`RgbImage::resized`] matches Pillow and [`RgbImage::normalized`] matches torch, bit
//! for bit. (Decoded JPEGs may differ from Pillow's by a level or two, as the standard allows.)

pub(crate) mod atomic;
mod decode;
pub mod folders;
mod frame;
mod jpeg;
mod resize;

use std::path::{Path, PathBuf};

pub use decode::{Decoded, Orientation, decode, decode_with, open, open_with};
pub use frame::{Frame, PixelFormat};

/// Maximum width and maximum height of an image.
pub const MAX_SIDE: usize = 16384;

/// The weights of [`RgbImage::resized`] along one axis: of each of `from` input pixels for each of `to`
/// output pixels, `[to, from]`, times 2^22.
///
/// # Panics
/// If a side is 0.
pub fn resize_weights(from: usize, to: usize) -> Vec<i32> {
    assert!(from > 0 && to > 0, "a resize from {from} to {to} pixels");
    resize::weights(from, to)
}

/// Maximum memory of a decoder, and maximum file size, in bytes.
pub const MAX_BYTES: u64 = 1 << 30;

/// An image error. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The file could not be opened, read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Path of the image.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The bytes are not in a supported format.
    #[error("{name}: not a supported image: {found}; expected JPEG, PNG, BMP, PNM, TIFF or WebP")]
    NotAnImage {
        /// Path or name of the image.
        name: String,
        /// What the bytes look like.
        found: String,
    },
    /// An image in a supported format that is damaged or of an unsupported kind.
    #[error("{name}: {format} image cannot be decoded: {what}")]
    Undecodable {
        /// Path or name of the image.
        name: String,
        /// The format, from its first bytes.
        format: &'static str,
        /// What is wrong.
        what: String,
    },
    /// An image with too many pixels or bytes.
    #[error("{name}: {what}; the limits are {MAX_SIDE} x {MAX_SIDE} pixels and {} MiB: resize the image first", MAX_BYTES >> 20)]
    TooLarge {
        /// Path or name of the image.
        name: String,
        /// What is too large, with its size.
        what: String,
    },
    /// An invalid width or height.
    #[error("invalid image size {width} x {height}: each side must be from 1 to {MAX_SIDE}")]
    BadSize {
        /// The requested width.
        width: usize,
        /// The requested height.
        height: usize,
    },
    /// Pixel data whose length does not match width and height.
    #[error(
        "{bytes} bytes are not the pixels of an RGB image of {width} x {height}: expected {width} * {height} * 3"
    )]
    BadData {
        /// The width.
        width: usize,
        /// The height.
        height: usize,
        /// The number of bytes.
        bytes: usize,
    },
    /// A camera's buffer whose length or stride does not match width and height.
    #[error(
        "{bytes} bytes in rows of {stride} are not an image of {width} x {height} in {format}: a row has {} bytes, and the stride must be at least that", format.row_bytes(*width)
    )]
    BadStride {
        /// Layout of the pixels.
        format: PixelFormat,
        /// The width.
        width: usize,
        /// The height.
        height: usize,
        /// Bytes from one row to the next.
        stride: usize,
        /// The number of bytes.
        bytes: usize,
    },
}

/// An 8-bit RGB image, row-major, interleaved.
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
    /// An image with the given pixels, `height * width * 3` bytes.
    ///
    /// # Errors
    /// A side of 0 or more than [`MAX_SIDE`], or a wrong number of bytes.
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

    /// An image of one color.
    ///
    /// # Errors
    /// A side of 0 or more than [`MAX_SIDE`].
    pub fn filled(width: usize, height: usize, color: [u8; 3]) -> Result<Self, ImageError> {
        check_size(width, height)?;
        let data = color.repeat(width * height);
        Self::new(width, height, data)
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
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

    /// One row, mutable, `[width, 3]`.
    ///
    /// # Panics
    /// If there is no row `y`.
    pub fn row_mut(&mut self, y: usize) -> &mut [u8] {
        &mut self.data[y * self.width * 3..][..self.width * 3]
    }

    /// Resizes the image, with the same result as Pillow's `Image.resize((width, height),
    /// BILINEAR)`, which torchvision's `Resize` uses for PIL images. When downscaling, the triangle
    /// filter is widened by the scale (antialiasing).
    ///
    /// The horizontal pass comes first, as in Pillow up to version 12, with which the backbones
    /// were trained. Since version 13 Pillow chooses the order by the sizes; where its vertical
    /// pass comes first, some values differ by one level.
    ///
    /// # Errors
    /// A side of 0 or more than [`MAX_SIDE`].
    pub fn resized(&self, width: usize, height: usize) -> Result<Self, ImageError> {
        check_size(width, height)?;
        Ok(resize::bilinear(self, width, height))
    }

    /// The input of a network: planar `[3, height, width]`, `(level / 255 - mean) / std` for each
    /// channel, in the order and precision of torchvision's `to_tensor` and `normalize`, bit for
    /// bit.
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

    /// Restores the pixels of `before` wherever no channel differs by more than `tolerance` levels:
    /// static parts of a video then stay bit-identical despite sensor noise. `before` is the
    /// previous result of this function, so that slow changes are only delayed, not lost. If its
    /// size differs, nothing changes.
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

    /// Writes the image as PNG, atomically: to a temporary file next to the destination, which is
    /// synced and renamed.
    ///
    /// # Errors
    /// The file cannot be written; the destination is unchanged then.
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
    /// Errors of `out`.
    pub fn encode_png(&self, out: impl std::io::Write) -> std::io::Result<()> {
        // Sides are at most MAX_SIDE, so the casts are lossless.
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

/// Writes 16-bit gray levels, `[height, width]`, as PNG to `out`.
pub(crate) fn encode_gray16_png(
    out: impl std::io::Write,
    width: usize,
    height: usize,
    levels: &[u16],
) -> std::io::Result<()> {
    let side = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    encode_png(
        out,
        bytemuck::cast_slice(levels),
        [side(width), side(height)],
        image::ExtendedColorType::L16,
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
