//! Decodes image files to RGB pixels.

use std::io::{Cursor, Read};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use super::{ImageError, MAX_BYTES, MAX_SIDE, RgbImage, jpeg};

/// How EXIF orientation is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Orientation {
    /// Rotated and mirrored according to the EXIF orientation, as the image is meant to be viewed.
    #[default]
    Upright,
    /// As the pixels are stored.
    AsStored,
}

impl Orientation {
    /// Converts a setting: whether EXIF orientation is applied.
    pub fn exif(applied: bool) -> Self {
        if applied {
            Self::Upright
        } else {
            Self::AsStored
        }
    }
}

/// An image and the orientation that was applied.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// The pixels.
    pub image: RgbImage,
    /// The EXIF orientation that was applied, 1 to 8; 1 changes nothing.
    pub exif_orientation: u8,
}

impl Decoded {
    /// Explains why labels do not match the image size if EXIF orientation swapped its sides:
    /// empty, or a clause to append to a message. `size` is `(width, height)` of the labels.
    pub fn why_labels_differ(&self, size: (usize, usize)) -> String {
        let stored = (self.image.height(), self.image.width());
        if self.exif_orientation < 5 || size != stored {
            return String::new();
        }
        format!(
            "; the image was rotated by its EXIF orientation {}, but labels are used as stored: rotate the labels too, or disable EXIF orientation",
            self.exif_orientation
        )
    }
}

/// Reads an image and applies its EXIF orientation: [`open_with`] and [`Orientation::Upright`].
///
/// # Errors
/// Same as for [`open_with`].
pub fn open(path: &Path) -> Result<RgbImage, ImageError> {
    Ok(open_with(path, Orientation::Upright)?.image)
}

/// Decodes an image from the bytes of a file, as [`open`] does; `name` is for messages.
///
/// # Errors
/// Same as for [`open_with`].
pub fn decode(bytes: &[u8], name: &str) -> Result<RgbImage, ImageError> {
    Ok(decode_with(bytes, name, Orientation::Upright)?.image)
}

/// Reads an image: JPEG, PNG, BMP, PNM, TIFF or WebP, detected from its first bytes, not its name.
/// Of a file with several images, the first is read.
///
/// Gray is expanded to three equal channels, a palette to its colors; alpha is dropped and not
/// composited, as PIL's `convert("RGB")` does; of 16 bits the upper 8 are used. (PIL does the same
/// for 16-bit color, but turns 16-bit gray white wherever a value exceeds 255, which is useless
/// here.)
///
/// # Errors
/// The file cannot be read, is not in one of these formats, is damaged or truncated, has
/// floating-point pixels, or exceeds [`MAX_SIDE`] or [`MAX_BYTES`].
pub fn open_with(path: &Path, orientation: Orientation) -> Result<Decoded, ImageError> {
    let io = |source| ImageError::Io {
        path: path.to_owned(),
        source,
    };
    let name = path.display().to_string();
    let file = std::fs::File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if metadata.is_dir() {
        let found = "it is a directory".to_owned();
        return Err(ImageError::NotAnImage { name, found });
    }
    // Limits the bytes actually read, whatever the file size claims: the file may be growing.
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() as u64 > MAX_BYTES {
        let what = format!("a file of {} MiB or more", MAX_BYTES >> 20);
        return Err(ImageError::TooLarge { name, what });
    }
    decode_with(&bytes, &name, orientation)
}

/// Decodes an image from the bytes of a file, as [`open_with`] does; `name` is for messages.
///
/// # Errors
/// Same as for [`open_with`].
pub fn decode_with(
    bytes: &[u8],
    name: &str,
    orientation: Orientation,
) -> Result<Decoded, ImageError> {
    let Some((format, format_name)) = supported(bytes) else {
        return Err(ImageError::NotAnImage {
            name: name.to_owned(),
            found: looks_like(bytes),
        });
    };
    let undecodable = |what: String| ImageError::Undecodable {
        name: name.to_owned(),
        format: format_name,
        // Decoders' messages may span several lines.
        what: what.split_whitespace().collect::<Vec<_>>().join(" "),
    };
    if format == ImageFormat::Jpeg {
        // The decoder would fill in missing data with gray.
        jpeg::check(bytes).map_err(undecodable)?;
    }
    if format == ImageFormat::WebP
        && let Some(length) = bytes.get(4..).and_then(|rest| rest.first_chunk::<4>())
    {
        // The decoder accepts truncated files. Some encoders omit the padding byte at the end.
        let length = 8 + u64::from(u32::from_le_bytes(*length));
        let have = bytes.len() as u64;
        if have + 1 < length {
            return Err(undecodable(format!(
                "it has {have} of {length} bytes, the file is truncated"
            )));
        }
    }
    let (mut decoded, exif) = pixels(bytes, format, orientation).map_err(|error| match error {
        image::ImageError::Limits(_) => ImageError::TooLarge {
            name: name.to_owned(),
            what: match ImageReader::with_format(Cursor::new(bytes), format).into_dimensions() {
                Ok((width, height)) => format!("a {format_name} of {width} x {height} pixels"),
                Err(_) => format!("a {format_name} that takes too much memory to decode"),
            },
        },
        other => undecodable(other.to_string()),
    })?;
    decoded.apply_orientation(exif);
    let (width, height) = (decoded.width() as usize, decoded.height() as usize);
    let data = rgb8(decoded).ok_or_else(|| {
        undecodable(
            "floating-point pixels are not supported; save it with 8 bits per channel".to_owned(),
        )
    })?;
    Ok(Decoded {
        image: RgbImage::new(width, height, data)?,
        exif_orientation: exif.to_exif(),
    })
}

/// Decodes within the limits: the pixels as stored, and their orientation.
fn pixels(
    bytes: &[u8],
    format: ImageFormat,
    orientation: Orientation,
) -> image::ImageResult<(DynamicImage, image::metadata::Orientation)> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = image::Limits::no_limits();
    limits.max_image_width = Some(MAX_SIDE as u32);
    limits.max_image_height = Some(MAX_SIDE as u32);
    limits.max_alloc = Some(MAX_BYTES);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    limits.reserve(decoder.total_bytes())?;
    decoder.set_limits(limits)?;
    let exif = match orientation {
        Orientation::Upright => decoder.orientation()?,
        Orientation::AsStored => image::metadata::Orientation::NoTransforms,
    };
    Ok((DynamicImage::from_decoder(decoder)?, exif))
}

/// The format, if the bytes start like a supported one.
fn supported(bytes: &[u8]) -> Option<(ImageFormat, &'static str)> {
    let format = image::guess_format(bytes).ok()?;
    let name = match format {
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Png => "PNG",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Pnm => "PNM",
        ImageFormat::Tiff => "TIFF",
        ImageFormat::WebP => "WebP",
        _ => return None,
    };
    Some((format, name))
}

/// Describes unsupported bytes, for the message.
fn looks_like(bytes: &[u8]) -> String {
    const KNOWN: &[(&[u8], &str)] = &[
        (b"\x93NUMPY", "it looks like a NumPy array (.npy)"),
        (b"PK\x03\x04", "it looks like a ZIP archive"),
        (b"GIF8", "it looks like a GIF"),
        (b"%PDF", "it looks like a PDF"),
        (b"\x76\x2f\x31\x01", "it looks like an OpenEXR image"),
        (b"qoif", "it looks like a QOI image"),
        (b"DDS ", "it looks like a DDS texture"),
        (b"\x00\x00\x01\x00", "it looks like an icon"),
        (b"\x1f\x8b", "it looks like gzip"),
        (b"\x7fELF", "it looks like an executable"),
        (
            b"version https://git-lfs",
            "it is a Git LFS pointer, not the file itself",
        ),
    ];
    if bytes.is_empty() {
        return "the file is empty".to_owned();
    }
    for (magic, what) in KNOWN {
        if bytes.starts_with(magic) {
            return (*what).to_owned();
        }
    }
    match bytes.get(4..12) {
        Some(b"ftypavif") => return "it looks like an AVIF image".to_owned(),
        Some(b"ftypheic" | b"ftypmif1") => return "it looks like a HEIC image".to_owned(),
        Some(brand) if brand.starts_with(b"ftyp") => return "it looks like a video".to_owned(),
        _ => {}
    }
    let start = &bytes[..bytes.len().min(64)];
    let printable = |b: &u8| b.is_ascii_graphic() || b.is_ascii_whitespace();
    if start.iter().all(printable) {
        let text = String::from_utf8_lossy(&start[..start.len().min(24)]);
        return format!("it looks like text: {text:?}");
    }
    let hex: Vec<String> = start.iter().take(8).map(|b| format!("{b:02x}")).collect();
    format!("it starts with the bytes {}", hex.join(" "))
}

/// The pixels as 8-bit RGB, or `None` if they are floating-point.
fn rgb8(image: DynamicImage) -> Option<Vec<u8>> {
    fn high(value: u16) -> u8 {
        (value >> 8) as u8
    }
    fn gray<T: Copy>(values: &[T], channels: usize, level: impl Fn(T) -> u8) -> Vec<u8> {
        let pixels = values.chunks_exact(channels);
        pixels.flat_map(|pixel| [level(pixel[0]); 3]).collect()
    }
    fn color<T: Copy>(values: &[T], channels: usize, level: impl Fn(T) -> u8) -> Vec<u8> {
        let pixels = values.chunks_exact(channels);
        pixels
            .flat_map(|pixel| [level(pixel[0]), level(pixel[1]), level(pixel[2])])
            .collect()
    }
    Some(match image {
        DynamicImage::ImageRgb8(p) => p.into_raw(),
        DynamicImage::ImageRgba8(p) => color(p.as_raw(), 4, |v| v),
        DynamicImage::ImageLuma8(p) => gray(p.as_raw(), 1, |v| v),
        DynamicImage::ImageLumaA8(p) => gray(p.as_raw(), 2, |v| v),
        DynamicImage::ImageRgb16(p) => color(p.as_raw(), 3, high),
        DynamicImage::ImageRgba16(p) => color(p.as_raw(), 4, high),
        DynamicImage::ImageLuma16(p) => gray(p.as_raw(), 1, high),
        DynamicImage::ImageLumaA16(p) => gray(p.as_raw(), 2, high),
        _ => return None,
    })
}
