//! Images from C.

use loftup_runtime::{Frame, PixelFormat};

use crate::{
    border::{self, Growing},
    status::{Error, Result, loftup_status},
};

/// Layout of the pixels of a loftup_image. The YUV formats are ITU-R BT.601 in video range (16 to 235).
#[repr(i32)]
#[derive(Debug, Clone, Copy)]
pub enum loftup_pixel_format {
    /// Red, green, blue.
    Rgb8 = 0,
    /// Blue, green, red, as in OpenCV.
    Bgr8 = 1,
    /// Red, green, blue, and a byte that is not used.
    Rgba8 = 2,
    /// Blue, green, red, and a byte that is not used.
    Bgra8 = 3,
    /// One gray level per pixel.
    Gray8 = 4,
    /// YUV 4:2:0: the rows of Y, then half as many rows of U and V in turn, rounded up, with the same
    /// stride.
    Nv12 = 5,
    /// YUV 4:2:2: Y0, U, Y1, V for two pixels.
    Yuyv = 6,
    /// YUV 4:2:2: U, Y0, V, Y1 for two pixels.
    Uyvy = 7,
}

/// An image in memory, rows from top to bottom. It is only read, and only during the call.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct loftup_image {
    /// sizeof(loftup_image).
    pub size: usize,
    /// The first byte of the first row.
    pub data: *const u8,
    /// Bytes that may be read from there.
    pub length: usize,
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Bytes from one row to the next; 0 for rows without padding.
    pub stride: usize,
    /// A loftup_pixel_format.
    pub format: i32,
    /// Always 0.
    pub reserved: i32,
}

// SAFETY: `repr(C)`, the size is first, and zeros are numbers and a NULL.
unsafe impl Growing for loftup_image {
    const NAME: &'static str = "loftup_image";
}

const FORMATS: [(i32, PixelFormat); 8] = [
    (loftup_pixel_format::Rgb8 as i32, PixelFormat::Rgb8),
    (loftup_pixel_format::Bgr8 as i32, PixelFormat::Bgr8),
    (loftup_pixel_format::Rgba8 as i32, PixelFormat::Rgba8),
    (loftup_pixel_format::Bgra8 as i32, PixelFormat::Bgra8),
    (loftup_pixel_format::Gray8 as i32, PixelFormat::Gray8),
    (loftup_pixel_format::Nv12 as i32, PixelFormat::Nv12),
    (loftup_pixel_format::Yuyv as i32, PixelFormat::Yuyv),
    (loftup_pixel_format::Uyvy as i32, PixelFormat::Uyvy),
];

/// An image of the caller.
///
/// # Safety
/// `image` is NULL or as its fields say, as long as the result is used.
pub(crate) unsafe fn frame<'a>(image: *const loftup_image) -> Result<Frame<'a>> {
    // SAFETY: the caller's promise.
    let image = unsafe {
        border::get(image, "image")?;
        border::options(image)?
    };
    let (width, height) = (image.width, image.height);
    let format = border::choice(image.format, &FORMATS, "image.format")?;
    let stride = match image.stride {
        0 => format.row_bytes(width),
        stride => stride,
    };
    // SAFETY: the caller's promise.
    let data = unsafe { border::input(image.data, image.length, "image.data") }?;
    // The rest of a longer buffer is left alone.
    let needed = format.least_bytes(width, height, stride);
    let used = needed.map_or(data.len(), |needed| needed.min(data.len()));
    let frame = Frame {
        data: &data[..used],
        width,
        height,
        stride,
        format,
    };
    match frame.check() {
        Ok(()) => Ok(frame),
        Err(e) if needed.is_some_and(|needed| needed > data.len()) => {
            Err(Error::new(loftup_status::BufferTooShort, e.to_string()))
        }
        Err(e) => Err(e.into()),
    }
}
