//! Images from ROS 2 publishers: `sensor_msgs/msg/Image` and `sensor_msgs/msg/CompressedImage`.

use loftup_runtime::{
    Frame, PixelFormat,
    image::{self, ImageError, Orientation, RgbImage},
};

use super::cdr::{CdrError, Header, Reader};

/// The supported encodings: names of `sensor_msgs/image_encodings.hpp`, and `nv12` of Isaac ROS.
pub const ENCODINGS: [(&str, PixelFormat); 10] = [
    ("rgb8", PixelFormat::Rgb8),
    ("bgr8", PixelFormat::Bgr8),
    ("rgba8", PixelFormat::Rgba8),
    ("bgra8", PixelFormat::Bgra8),
    ("mono8", PixelFormat::Gray8),
    ("uyvy", PixelFormat::Uyvy),
    ("yuv422", PixelFormat::Uyvy),
    ("yuyv", PixelFormat::Yuyv),
    ("yuv422_yuy2", PixelFormat::Yuyv),
    ("nv12", PixelFormat::Nv12),
];

/// Maximum length of a frame of reference, in bytes.
const MAX_FRAME_ID: usize = 255;
/// Maximum number of characters quoted from a message.
const QUOTED: usize = 40;

/// Why a message has no usable image. The text is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The bytes are not the message.
    #[error(transparent)]
    Cdr(#[from] CdrError),
    /// The name of the frame of reference is too long.
    #[error("header.frame_id has {0} bytes: at most {MAX_FRAME_ID} are supported")]
    FrameId(usize),
    /// The encoding is not supported.
    #[error("encoding {found:?} is not supported: publish one of {}", ENCODINGS.map(|(name, _)| name).join(", "))]
    Encoding {
        /// The encoding, shortened.
        found: String,
    },
    /// The message is marked as big-endian.
    #[error("is_bigendian is {0}: publish little-endian images")]
    BigEndian(u8),
    /// A compressed image is neither JPEG nor PNG.
    #[error("format {format:?}: the data are neither JPEG nor PNG")]
    Compression {
        /// The format, shortened.
        format: String,
    },
    /// The sizes do not match the data, or a compressed image cannot be decoded.
    #[error(transparent)]
    Image(#[from] ImageError),
}

fn quoted(text: &str) -> String {
    text.chars().take(QUOTED).collect()
}

/// Stamp and frame of reference of a message, with the frame checked.
fn header<'a>(reader: &mut Reader<'a>) -> Result<Header<'a>, MessageError> {
    let header = reader.header()?;
    match header.frame_id.len() {
        0..=MAX_FRAME_ID => Ok(header),
        length => Err(MessageError::FrameId(length)),
    }
}

/// A `sensor_msgs/msg/Image`, borrowed from the message.
#[derive(Debug, Clone, Copy)]
pub struct RawImage<'a> {
    /// Capture time and frame of reference.
    pub header: Header<'a>,
    /// Its pixels.
    pub frame: Frame<'a>,
}

impl<'a> RawImage<'a> {
    /// Reads a message. The sizes are checked when the pixels are converted.
    ///
    /// # Errors
    /// Any [`MessageError`] except [`MessageError::Compression`].
    pub fn parse(message: &'a [u8]) -> Result<Self, MessageError> {
        let mut reader = Reader::new(message)?;
        let header = header(&mut reader)?;
        let (height, width) = (reader.number("height")?, reader.number("width")?);
        let encoding = reader.text("encoding")?;
        let big_endian = reader.byte("is_bigendian")?;
        let step = reader.number("step")?;
        let data = reader.bytes("data")?;
        reader.end()?;
        let known = ENCODINGS.iter().find(|(name, _)| *name == encoding);
        let Some((_, format)) = known else {
            return Err(MessageError::Encoding {
                found: quoted(encoding),
            });
        };
        if big_endian != 0 {
            return Err(MessageError::BigEndian(big_endian));
        }
        let frame = Frame {
            data,
            width,
            height,
            stride: step,
            format: *format,
        };
        frame.check()?;
        Ok(Self { header, frame })
    }
}

/// A `sensor_msgs/msg/CompressedImage`, borrowed from the message.
#[derive(Debug, Clone, Copy)]
pub struct CompressedImage<'a> {
    /// Capture time and frame of reference.
    pub header: Header<'a>,
    /// The publisher's description of the data, such as `rgb8; jpeg compressed bgr8`.
    pub format: &'a str,
    /// A JPEG or PNG file.
    pub data: &'a [u8],
}

impl<'a> CompressedImage<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// [`MessageError::Cdr`], [`MessageError::FrameId`], and [`MessageError::Compression`] if the data does not
    /// begin like a JPEG or PNG file.
    pub fn parse(message: &'a [u8]) -> Result<Self, MessageError> {
        let mut reader = Reader::new(message)?;
        let header = header(&mut reader)?;
        let format = reader.text("format")?;
        let data = reader.bytes("data")?;
        reader.end()?;
        let known = [&b"\xff\xd8\xff"[..], b"\x89PNG\r\n\x1a\n"];
        if !known.iter().any(|magic| data.starts_with(magic)) {
            return Err(MessageError::Compression {
                format: quoted(format),
            });
        }
        Ok(Self {
            header,
            format,
            data,
        })
    }

    /// Decodes the image.
    ///
    /// # Errors
    /// [`MessageError::Image`].
    pub fn decode(&self, orientation: Orientation) -> Result<RgbImage, MessageError> {
        Ok(image::decode_with(self.data, "data", orientation)?.image)
    }
}

#[cfg(test)]
mod tests;
