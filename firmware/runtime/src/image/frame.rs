//! Images in a camera's buffer.

use std::fmt;

use super::{ImageError, RgbImage, check_size};

/// Layout of the pixels in a camera's buffer.
///
/// The YUV formats are ITU-R BT.601 in video range (16 to 235), as USB cameras send it. A chroma value
/// counts for all pixels that it covers, without interpolation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PixelFormat {
    /// Red, green, blue.
    #[default]
    Rgb8,
    /// Blue, green, red.
    Bgr8,
    /// Red, green, blue, and a byte that is not used.
    Rgba8,
    /// Blue, green, red, and a byte that is not used.
    Bgra8,
    /// One gray level per pixel.
    Gray8,
    /// YUV 4:2:0: the rows of Y, then half as many rows of interleaved U and V, with the same stride.
    Nv12,
    /// YUV 4:2:2: Y0, U, Y1, V for two pixels.
    Yuyv,
    /// YUV 4:2:2: U, Y0, V, Y1 for two pixels.
    Uyvy,
}

impl PixelFormat {
    /// All formats.
    pub const ALL: [Self; 8] = [
        Self::Rgb8,
        Self::Bgr8,
        Self::Rgba8,
        Self::Bgra8,
        Self::Gray8,
        Self::Nv12,
        Self::Yuyv,
        Self::Uyvy,
    ];

    /// Bytes of a row of `width` pixels without padding. For NV12, bytes of a row of U and V, which is longer
    /// than a row of Y if the width is odd. Saturates on overflow.
    pub fn row_bytes(self, width: usize) -> usize {
        match self {
            Self::Rgb8 | Self::Bgr8 => width.saturating_mul(3),
            Self::Rgba8 | Self::Bgra8 => width.saturating_mul(4),
            Self::Gray8 => width,
            Self::Nv12 => width.div_ceil(2).saturating_mul(2),
            Self::Yuyv | Self::Uyvy => width.div_ceil(2).saturating_mul(4),
        }
    }

    /// Rows in the buffer of an image of `height` rows.
    fn rows(self, height: usize) -> usize {
        match self {
            Self::Nv12 => height.saturating_add(height.div_ceil(2)),
            _ => height,
        }
    }

    /// Minimum size of an image in bytes with rows of `stride` bytes; the last row needs no padding. `None` on
    /// overflow or if there are no pixels.
    pub fn least_bytes(self, width: usize, height: usize, stride: usize) -> Option<usize> {
        let before = self.rows(height).checked_sub(1)?.checked_mul(stride)?;
        let row = self.row_bytes(width);
        (width > 0).then(|| before.checked_add(row)).flatten()
    }

    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rgb8 => "RGB8",
            Self::Bgr8 => "BGR8",
            Self::Rgba8 => "RGBA8",
            Self::Bgra8 => "BGRA8",
            Self::Gray8 => "GRAY8",
            Self::Nv12 => "NV12",
            Self::Yuyv => "YUYV",
            Self::Uyvy => "UYVY",
        }
    }
}

impl fmt::Display for PixelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An image in a camera's buffer, rows from top to bottom.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// The rows. The last one may be shorter than the stride.
    pub data: &'a [u8],
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Bytes from one row to the next, at least [`PixelFormat::row_bytes`].
    pub stride: usize,
    /// Layout of the pixels.
    pub format: PixelFormat,
}

impl<'a> Frame<'a> {
    /// Creates an RGB8 image without padding: a stride of `3 * width`.
    pub fn packed(data: &'a [u8], width: usize, height: usize) -> Self {
        let format = PixelFormat::Rgb8;
        Self {
            data,
            width,
            height,
            stride: format.row_bytes(width),
            format,
        }
    }

    /// Copies the image to RGB without padding.
    ///
    /// # Errors
    /// If the stride is shorter than a row, the data is too short or too long for the rows, or a
    /// side is 0 or more than [`super::MAX_SIDE`].
    pub fn to_image(self) -> Result<RgbImage, ImageError> {
        let mut data = Vec::new();
        self.append_rgb(&mut data)?;
        RgbImage::new(self.width, self.height, data)
    }

    /// Appends the pixels as RGB to `out`, whose memory can be reused.
    ///
    /// # Errors
    /// Same as [`Frame::to_image`]. On error, nothing is appended.
    pub fn append_rgb(self, out: &mut Vec<u8>) -> Result<(), ImageError> {
        self.check()?;
        let Self {
            data,
            width,
            height,
            stride,
            format,
        } = self;
        out.reserve(3 * width * height);
        let row = |y: usize, bytes: usize| &data[y * stride..][..bytes];
        for y in 0..height {
            let bytes = match format {
                PixelFormat::Nv12 => width,
                _ => format.row_bytes(width),
            };
            let line = row(y, bytes);
            match format {
                PixelFormat::Rgb8 => out.extend_from_slice(line),
                PixelFormat::Bgr8 => {
                    out.extend(line.as_chunks().0.iter().flat_map(|&[b, g, r]| [r, g, b]));
                }
                PixelFormat::Rgba8 => {
                    let pixels = line.as_chunks().0.iter();
                    out.extend(pixels.flat_map(|&[r, g, b, _]| [r, g, b]));
                }
                PixelFormat::Bgra8 => {
                    let pixels = line.as_chunks().0.iter();
                    out.extend(pixels.flat_map(|&[b, g, r, _]| [r, g, b]));
                }
                PixelFormat::Gray8 => out.extend(line.iter().flat_map(|level| [*level; 3])),
                PixelFormat::Nv12 => {
                    let chroma = row(height + y / 2, format.row_bytes(width));
                    for (pair, [u, v]) in line.chunks(2).zip(chroma.as_chunks().0) {
                        out.extend(pair.iter().flat_map(|y| bt601(*y, *u, *v)));
                    }
                }
                PixelFormat::Yuyv | PixelFormat::Uyvy => {
                    let (pairs, _) = line.as_chunks();
                    for (i, &[a, b, c, d]) in pairs.iter().enumerate() {
                        let [y0, u, y1, v] = match format {
                            PixelFormat::Uyvy => [b, a, d, c],
                            _ => [a, b, c, d],
                        };
                        out.extend(bt601(y0, u, v));
                        if 2 * i + 1 < width {
                            out.extend(bt601(y1, u, v));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks sizes and lengths.
    ///
    /// # Errors
    /// Same as [`Frame::to_image`].
    pub fn check(&self) -> Result<(), ImageError> {
        let (format, stride) = (self.format, self.stride);
        let bytes = self.data.len();
        let least = format.least_bytes(self.width, self.height, stride);
        let most = format.rows(self.height).checked_mul(stride);
        let fits = least.is_some_and(|n| n <= bytes) && most.is_some_and(|n| bytes <= n);
        if stride < format.row_bytes(self.width) || !fits {
            return Err(ImageError::BadStride {
                format,
                width: self.width,
                height: self.height,
                stride,
                bytes,
            });
        }
        check_size(self.width, self.height)
    }
}

/// Converts ITU-R BT.601 in video range, in 16-bit fixed point.
fn bt601(y: u8, u: u8, v: u8) -> [u8; 3] {
    let y = 76_309 * (i32::from(y) - 16);
    let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
    let round = |x: i32| ((x + 32_768) >> 16).clamp(0, 255) as u8;
    [
        round(y + 104_597 * v),
        round(y - 25_675 * u - 53_279 * v),
        round(y + 132_201 * u),
    ]
}
