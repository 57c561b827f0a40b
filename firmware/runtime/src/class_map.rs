//! Class maps from a classification head, and their files.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use crate::{
    Rect, SinkError, TileFeatures,
    heads::{NO_CLASS, argmax_pixels},
    image::{self, ImageError, atomic::AtomicFile},
    npy,
};

/// Collects the class of each pixel from a classification head's scores.
#[derive(Debug)]
pub struct ClassMap {
    rect: Rect,
    classes: Vec<u8>,
}

impl ClassMap {
    /// Creates an empty map for the pixels of `rect`.
    pub fn new(rect: Rect) -> Self {
        Self {
            rect,
            classes: vec![NO_CLASS; rect.area()],
        }
    }

    /// Adds a tile of scores.
    pub fn push(&mut self, tile: &TileFeatures<'_>) -> Result<(), SinkError> {
        for (first, row) in tile.rows_in(self.rect) {
            argmax_pixels(
                row,
                tile.dim(),
                &mut self.classes[first..][..tile.rect.width],
            );
        }
        Ok(())
    }

    /// The classes, `[H, W]`.
    pub fn into_classes(self) -> Vec<u8> {
        self.classes
    }
}

/// Writes a class map: as uint8 `[height, width]` if `path` ends in `.npy`, otherwise as a grayscale
/// PNG whose values are the classes. The write is atomic.
///
/// # Errors
/// `classes` has the wrong number of pixels, or the file cannot be written.
pub fn save_classes(
    path: &Path,
    width: usize,
    height: usize,
    classes: &[u8],
) -> Result<(), ImageError> {
    let extension = path.extension();
    let npy = extension.is_some_and(|e| e.eq_ignore_ascii_case("npy"));
    save(path, width, height, classes, |out| match npy {
        true => npy::write_u8(out, &[height, width], classes),
        false => image::encode_gray_png(out, width, height, classes),
    })
}

/// The colors of masks in PASCAL VOC and DAVIS: the bits of the label, spread over the upper bits of
/// the three channels.
pub const PALETTE: [[u8; 3]; 256] = {
    let mut colors = [[0; 3]; 256];
    let mut label = 0;
    while label < 256 {
        let mut bit = 0;
        while bit < 8 {
            colors[label][bit % 3] |= ((label >> bit & 1) << (7 - bit / 3)) as u8;
            bit += 1;
        }
        label += 1;
    }
    colors
};

/// Writes labels as a palette PNG with the colors of [`PALETTE`]. The write is atomic.
///
/// # Errors
/// `labels` has the wrong number of pixels, or the file cannot be written.
pub fn save_palette(
    path: &Path,
    width: usize,
    height: usize,
    labels: &[u8],
) -> Result<(), ImageError> {
    save(path, width, height, labels, |out| {
        let side = |n: usize| u32::try_from(n).map_err(io::Error::other);
        let mut encoder = png::Encoder::new(out, side(width)?, side(height)?);
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_palette(PALETTE.as_flattened());
        let mut writer = encoder.write_header()?;
        writer.write_image_data(labels)?;
        Ok(writer.finish()?)
    })
}

/// Writes a file atomically, after checking the number of values.
fn save(
    path: &Path,
    width: usize,
    height: usize,
    values: &[u8],
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> Result<(), ImageError> {
    let io = |source| ImageError::Io {
        path: path.to_owned(),
        source,
    };
    if width.checked_mul(height) != Some(values.len()) || values.is_empty() {
        let what = format!("{} classes for {width} x {height} pixels", values.len());
        return Err(io(io::Error::new(io::ErrorKind::InvalidInput, what)));
    }
    let file = AtomicFile::create(path).map_err(io)?;
    let mut out = BufWriter::with_capacity(1 << 16, file.file());
    write(&mut out).and_then(|()| out.flush()).map_err(io)?;
    drop(out);
    file.commit().map_err(io)
}

#[cfg(test)]
mod tests {
    use ::image::{ColorType, open};

    use super::*;

    #[test]
    fn class_maps_are_written_as_numpy_and_png_read_them() {
        let dir = tempfile::tempdir().unwrap();
        let classes = [0, 1, 2, 3, 254, NO_CLASS];
        let npy = dir.path().join("map.npy");
        save_classes(&npy, 3, 2, &classes).unwrap();
        let bytes = std::fs::read(&npy).unwrap();
        assert_eq!(bytes.len(), 128 + 6);
        let header = std::str::from_utf8(&bytes[10..128]).unwrap();
        assert!(bytes.starts_with(b"\x93NUMPY\x01\x00\x76\x00") && header.ends_with('\n'));
        assert!(header.starts_with("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }"));
        assert_eq!(bytes[128..], classes);
        let png_file = dir.path().join("map.png");
        save_classes(&png_file, 3, 2, &classes).unwrap();
        let read = open(&png_file).unwrap();
        assert_eq!(read.color(), ColorType::L8);
        assert_eq!((read.width(), read.as_bytes()), (3, &classes[..]));
        // As indices and as colors.
        save_palette(&png_file, 3, 2, &classes).unwrap();
        let bytes = std::fs::read(&png_file).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(&bytes))
            .read_info()
            .unwrap();
        assert_eq!(reader.info().color_type, png::ColorType::Indexed);
        let mut indices = vec![0; 6];
        reader.next_frame(&mut indices).unwrap();
        assert_eq!(indices, classes);
        let colors = open(&png_file).unwrap().into_rgb8();
        let expected = [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]];
        assert_eq!(colors.as_raw()[..12], *expected.as_flattened());
        assert!(save_palette(&png_file, 2, 2, &classes).is_err());
        assert!(save_classes(&png_file, 2, 2, &classes).is_err());
        assert!(save_classes(&dir.path().join("no/map.png"), 3, 2, &classes).is_err());
    }
}
