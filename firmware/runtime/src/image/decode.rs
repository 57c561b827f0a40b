//! From a file's bytes to RGB pixels.

use std::io::{Cursor, Read};
use std::path::Path;

use image::{DynamicImage, ImageFormat, ImageReader};

use super::{ImageError, MAX_BYTES, MAX_SIDE, Rgb8};

/// Reads a picture: JPEG, PNG, BMP, PNM, TIFF or WebP, told by its first bytes and not by its
/// name. Of a file with several pictures the first is read.
///
/// The pixels are as stored: an EXIF orientation is not applied. Grey becomes three equal
/// channels, a palette its colours; alpha is dropped and not composited, as PIL's
/// `convert("RGB")` does; of 16 bits the upper 8 are taken. (PIL does so for 16-bit colour. From
/// 16-bit grey it makes white wherever a value exceeds 255, which is of no use here.)
///
/// # Errors
/// The file cannot be read, is no picture of those formats, is damaged or cut short, holds
/// floating-point pixels, or exceeds [`MAX_SIDE`] or [`MAX_BYTES`].
pub fn open(path: &Path) -> Result<Rgb8, ImageError> {
    let io = |source| ImageError::Io {
        path: path.to_owned(),
        source,
    };
    let name = path.display().to_string();
    let file = std::fs::File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if metadata.is_dir() {
        let found = "it is a directory".to_owned();
        return Err(ImageError::NotAPicture { name, found });
    }
    // The limit holds for what is read, whatever the file's length claims: it may be growing.
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() as u64 > MAX_BYTES {
        let what = format!("a file of {} MiB or more", MAX_BYTES >> 20);
        return Err(ImageError::TooLarge { name, what });
    }
    decode(&bytes, &name)
}

/// Reads a picture from the bytes of a file, as [`open`] does; `name` is for the messages.
///
/// # Errors
/// As [`open`].
pub fn decode(bytes: &[u8], name: &str) -> Result<Rgb8, ImageError> {
    let Some((format, format_name)) = supported(bytes) else {
        return Err(ImageError::NotAPicture {
            name: name.to_owned(),
            found: looks_like(bytes),
        });
    };
    let undecodable = |what: String| ImageError::Undecodable {
        name: name.to_owned(),
        format: format_name,
        // Decoders' messages may run over several lines.
        what: what.split_whitespace().collect::<Vec<_>>().join(" "),
    };
    if format == ImageFormat::Jpeg && !jpeg_is_whole(bytes) {
        // The decoder would fill the rest with grey.
        return Err(undecodable(
            "the end-of-image marker is missing, the file is cut short".to_owned(),
        ));
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = image::Limits::no_limits();
    limits.max_image_width = Some(MAX_SIDE as u32);
    limits.max_image_height = Some(MAX_SIDE as u32);
    limits.max_alloc = Some(MAX_BYTES);
    reader.limits(limits);
    let decoded = reader.decode().map_err(|error| match error {
        image::ImageError::Limits(_) => ImageError::TooLarge {
            name: name.to_owned(),
            what: match ImageReader::with_format(Cursor::new(bytes), format).into_dimensions() {
                Ok((width, height)) => format!("a {format_name} of {width} x {height} pixels"),
                Err(_) => format!("a {format_name} that takes too much memory to decode"),
            },
        },
        other => undecodable(other.to_string()),
    })?;
    let (width, height) = (decoded.width() as usize, decoded.height() as usize);
    let data = rgb8(decoded).ok_or_else(|| {
        undecodable("its pixels are floating-point; save it with 8 bits per channel".to_owned())
    })?;
    Rgb8::new(width, height, data)
}

/// The format, if the bytes begin like one that is read here.
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

/// What bytes look like that are no picture read here, for the message.
fn looks_like(bytes: &[u8]) -> String {
    const KNOWN: &[(&[u8], &str)] = &[
        (b"\x93NUMPY", "it looks like a NumPy array (.npy)"),
        (b"PK\x03\x04", "it looks like a ZIP archive"),
        (b"GIF8", "it looks like a GIF"),
        (b"%PDF", "it looks like a PDF"),
        (b"\x76\x2f\x31\x01", "it looks like an OpenEXR picture"),
        (b"qoif", "it looks like a QOI picture"),
        (b"DDS ", "it looks like a DDS texture"),
        (b"\x00\x00\x01\x00", "it looks like an icon"),
        (b"\x1f\x8b", "it looks like gzip"),
        (b"\x7fELF", "it looks like a program"),
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
        Some(b"ftypavif") => return "it looks like an AVIF picture".to_owned(),
        Some(b"ftypheic" | b"ftypmif1") => return "it looks like a HEIC picture".to_owned(),
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
    format!("it begins with the bytes {}", hex.join(" "))
}

/// Whether the entropy-coded data of a JPEG is followed by an end-of-image marker. The segments
/// before it are skipped by their lengths: a thumbnail in one of them has an end of its own.
fn jpeg_is_whole(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        match bytes.get(at..at + 2) {
            // Fill bytes before a marker.
            Some([0xff, 0xff]) => at += 1,
            // Markers without a length.
            Some([0xff, 0x01 | 0xd0..=0xd8]) => at += 2,
            Some([0xff, marker]) => {
                let Some(&[high, low]) = bytes.get(at + 2..at + 4) else {
                    return false;
                };
                at += 2 + usize::from(u16::from_be_bytes([high, low]));
                if *marker == 0xda {
                    // The scan begins; in its data every 0xff is followed by 0 or a restart.
                    return bytes
                        .get(at..)
                        .is_some_and(|rest| rest.windows(2).any(|pair| pair == [0xff, 0xd9]));
                }
            }
            // No marker where one should be: the decoder will say it better.
            Some(_) => return true,
            None => return false,
        }
    }
}

/// The pixels as 8-bit RGB, or nothing if they are floating-point.
fn rgb8(picture: DynamicImage) -> Option<Vec<u8>> {
    fn high(value: u16) -> u8 {
        (value >> 8) as u8
    }
    fn grey<T: Copy>(values: &[T], channels: usize, level: impl Fn(T) -> u8) -> Vec<u8> {
        let pixels = values.chunks_exact(channels);
        pixels.flat_map(|pixel| [level(pixel[0]); 3]).collect()
    }
    fn colour<T: Copy>(values: &[T], channels: usize, level: impl Fn(T) -> u8) -> Vec<u8> {
        let pixels = values.chunks_exact(channels);
        pixels
            .flat_map(|pixel| [level(pixel[0]), level(pixel[1]), level(pixel[2])])
            .collect()
    }
    Some(match picture {
        DynamicImage::ImageRgb8(p) => p.into_raw(),
        DynamicImage::ImageRgba8(p) => colour(p.as_raw(), 4, |v| v),
        DynamicImage::ImageLuma8(p) => grey(p.as_raw(), 1, |v| v),
        DynamicImage::ImageLumaA8(p) => grey(p.as_raw(), 2, |v| v),
        DynamicImage::ImageRgb16(p) => colour(p.as_raw(), 3, high),
        DynamicImage::ImageRgba16(p) => colour(p.as_raw(), 4, high),
        DynamicImage::ImageLuma16(p) => grey(p.as_raw(), 1, high),
        DynamicImage::ImageLumaA16(p) => grey(p.as_raw(), 2, high),
        _ => return None,
    })
}
