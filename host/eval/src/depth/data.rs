//! Images with measured depth.

use std::{
    fs,
    path::{Path, PathBuf},
};

use loftup_bundle::Size;
use loftup_runtime::image::{self, Orientation, RgbImage};
use png::{BitDepth, ColorType};

use crate::{EvalError, data, gray_png, resize::under_centers};

/// Default units per meter: millimeters.
pub const MILLIMETERS: f32 = 1000.0;

/// An image and its depth.
#[derive(Debug, Clone, PartialEq)]
pub struct DepthPair {
    /// The image.
    pub image: PathBuf,
    /// Its depth, a 16-bit PNG.
    pub depth: PathBuf,
    /// Depth units per meter.
    pub units: f32,
}

/// Lists the images of one split of `data`, which is a directory or an index (CSV).
///
/// In a directory: `images` and `depth` in `data/train` or `data/val`, or in `data` itself; depth in
/// millimeters. An index has the columns `image` and `depth` with paths relative to the index, and
/// may have `split` (`train`; `val` or `test`), `units` (per meter; 1000 if empty), `kind` (rows of
/// other kinds than `depth` are skipped) and `set`, which `set` selects by.
///
/// # Errors
/// There are no images, or the index cannot be read.
pub fn pairs(data: &Path, train: bool, set: Option<&str>) -> Result<Vec<DepthPair>, EvalError> {
    if !data.is_dir() {
        return indexed(data, train, set);
    }
    if let Some(set) = set {
        return Err(EvalError::Request(format!(
            "--set {set} selects rows of an index, but {} is a directory; use the CSV file",
            data.display()
        )));
    }
    let pairs = data::paired(
        data,
        if train { "train" } else { "val" },
        ("depth", "depth"),
    )?;
    let pair = |pair: data::Pair| DepthPair {
        image: pair.image,
        depth: pair.labels,
        units: MILLIMETERS,
    };
    Ok(pairs.into_iter().map(pair).collect())
}

fn indexed(index: &Path, train: bool, set: Option<&str>) -> Result<Vec<DepthPair>, EvalError> {
    let wrong = |what: String| EvalError::Data {
        path: index.into(),
        what,
    };
    let text = fs::read_to_string(index).map_err(|source| EvalError::Io {
        path: index.into(),
        source,
    })?;
    // Spreadsheets may write a byte order mark.
    let text = text.trim_start_matches('\u{feff}');
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line));
    let mut lines = lines.filter(|(_, line)| !line.trim().is_empty());
    let header = lines.next().map_or(Vec::new(), |(_, line)| cells(line));
    let column = |name: &str| header.iter().position(|h| h.eq_ignore_ascii_case(name));
    let need = |name: &str| {
        column(name).ok_or_else(|| {
            wrong(format!(
                "no column {name:?}; an index needs the columns image and depth in its first line"
            ))
        })
    };
    let (image, depth) = (need("image")?, need("depth")?);
    let (split, units) = (column("split"), column("units"));
    let (kind, sets) = (column("kind"), column("set"));
    if set.is_some() && sets.is_none() {
        return Err(wrong("no column \"set\" to select by".into()));
    }
    let base = index.parent().unwrap_or(Path::new(""));
    let (mut pairs, mut other_kinds) = (Vec::new(), 0);
    for (line, row) in lines {
        let row = cells(row);
        if row.len() != header.len() {
            return Err(wrong(format!(
                "line {line} has {} cells, the first line {}",
                row.len(),
                header.len()
            )));
        }
        let cell = |column: Option<usize>| column.map_or("", |c| &row[c]);
        let wanted: &[&str] = if train { &["train"] } else { &["val", "test"] };
        if split.is_some() && !wanted.contains(&cell(split))
            || set.is_some_and(|set| cell(sets) != set)
        {
            continue;
        }
        if !["", "depth"].contains(&cell(kind)) {
            other_kinds += 1;
            continue;
        }
        let units = match cell(units) {
            "" => MILLIMETERS,
            text => text
                .parse()
                .ok()
                .filter(|u: &f32| *u > 0.0 && u.is_finite())
                .ok_or_else(|| {
                    wrong(format!(
                        "line {line}: {text:?} is not a number of units per meter, such as 1000"
                    ))
                })?,
        };
        let path = |column| match cell(Some(column)) {
            "" => Err(wrong(format!("line {line}: a path is missing"))),
            path => Ok(base.join(path)),
        };
        pairs.push(DepthPair {
            image: path(image)?,
            depth: path(depth)?,
            units,
        });
    }
    if other_kinds > 0 {
        log::warn!(
            "{}: skipping {other_kinds} rows of another kind than depth",
            index.display()
        );
    }
    if pairs.is_empty() {
        let split = if train { "train" } else { "val or test" };
        let of = set.map_or(String::new(), |set| format!(" of set {set:?}"));
        return Err(wrong(format!("no row{of} with split {split} has depth")));
    }
    Ok(pairs)
}

/// Splits a line of CSV into cells. A quoted cell may contain commas and doubled double quotes.
fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut quoted) = (vec![String::new()], false);
    let mut chars = line.trim_end().chars().peekable();
    while let Some(c) = chars.next() {
        let cell = cells.len() - 1;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                cells[cell].push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            c => cells[cell].push(c),
        }
    }
    cells.iter().map(|cell| cell.trim().to_owned()).collect()
}

/// Depth in meters; 0 where there is none.
#[derive(Debug, Clone, PartialEq)]
pub struct DepthImage {
    /// Width and height.
    pub size: Size,
    /// `[height, width]`.
    pub meters: Vec<f32>,
}

/// Maximum size of a depth image in bytes: 16384 x 16384 pixels.
const MOST_BYTES: usize = 1 << 29;

impl DepthImage {
    /// Reads a 16-bit grayscale PNG with `units` per meter, in which 0 means no depth.
    ///
    /// # Errors
    /// Another file type, or a damaged file.
    pub fn open(path: &Path, units: f32) -> Result<Self, EvalError> {
        let png = gray_png::read(
            path,
            gray_png::Rules {
                max_bytes: MOST_BYTES,
                wrong: |what| EvalError::Data {
                    path: path.into(),
                    what,
                },
                check: |color, bits| {
                    ((color, bits) != (ColorType::Grayscale, BitDepth::Sixteen)).then(|| {
                        format!(
                            "depth must be a grayscale PNG with 16 bits, not {color:?} with {}",
                            bits as u8
                        )
                    })
                },
                too_large: |size| format!("depth of {size} is too large"),
            },
        )?;
        let size = png.size;
        let (values, _) = png.data[..2 * size.area()].as_chunks::<2>();
        let meters = values
            .iter()
            .map(|v| f32::from(u16::from_be_bytes(*v)) / units);
        Ok(Self {
            size,
            meters: meters.collect(),
        })
    }

    /// Resizes by nearest neighbor (the depth under the pixel center), which does not mix near and far.
    pub fn resized(&self, size: Size) -> Vec<f32> {
        under_centers(&self.meters, self.size, size)
    }
}

/// Opens an image and its depth in meters at `size`; depth beyond `most` becomes 0.
pub(crate) fn open(
    pair: &DepthPair,
    size: Size,
    most: Option<f32>,
    orientation: Orientation,
) -> Result<(RgbImage, Vec<f32>), EvalError> {
    let decoded = image::open_with(&pair.image, orientation)?;
    let depth = DepthImage::open(&pair.depth, pair.units)?;
    let (width, height) = (decoded.image.width(), decoded.image.height());
    if depth.size != (Size { width, height }) {
        let what = format!(
            "depth of {} for {} of {width}x{height}{}",
            depth.size,
            pair.image.display(),
            decoded.why_labels_differ((depth.size.width, depth.size.height))
        );
        return Err(EvalError::Data {
            path: pair.depth.clone(),
            what,
        });
    }
    let mut meters = depth.resized(size);
    if let Some(most) = most {
        meters
            .iter_mut()
            .filter(|m| **m > most)
            .for_each(|m| *m = 0.0);
    }
    Ok((decoded.image, meters))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, (width, height): (u32, u32), bits: BitDepth, data: &[u8]) {
        let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), width, height);
        encoder.set_color(ColorType::Grayscale);
        encoder.set_depth(bits);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(data).unwrap();
    }

    #[test]
    fn depth_is_read_in_meters() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("depth.png");
        write(&path, (3, 1), BitDepth::Sixteen, &[0, 0, 3, 232, 255, 255]);
        let depth = DepthImage::open(&path, 1000.0).unwrap();
        assert_eq!(depth.meters, [0.0, 1.0, 65.535]);
        assert_eq!(DepthImage::open(&path, 250.0).unwrap().meters[1], 4.0);
        let size = Size {
            width: 6,
            height: 1,
        };
        let twice = depth.resized(size);
        assert_eq!(twice, [0.0, 0.0, 1.0, 1.0, 65.535, 65.535]);
        write(&path, (3, 1), BitDepth::Eight, &[1, 2, 3]);
        let text = DepthImage::open(&path, 1000.0).unwrap_err().to_string();
        assert!(
            text.contains("depth.png") && text.contains("16 bits"),
            "{text}"
        );
        fs::write(&path, b"no").unwrap();
        assert!(DepthImage::open(&path, 1000.0).is_err());
    }

    #[test]
    fn cells_may_be_quoted() {
        assert_eq!(
            cells("a, b ,,\"c, \"\"d\"\"\"\r"),
            ["a", "b", "", "c, \"d\""]
        );
    }

    #[test]
    fn an_index_lists_splits_sets_and_units() {
        let dir = tempfile::tempdir().unwrap();
        let index = dir.path().join("index.csv");
        let text = "set,split,kind,image,depth,units,note\n\
            a,train,depth,1.jpg,1.png,,\"one, two\"\n\
            a,test,depth,2.jpg,2.png,256,\n\
            a,test,disparity,3.jpg,3.png,64,\n\
            b,val,depth,sub/4.jpg,sub/4.png,1000,\n";
        fs::write(&index, text).unwrap();
        let names = |train, set| -> Vec<(String, f32)> {
            let pairs = pairs(&index, train, set).unwrap();
            let name = |p: &DepthPair| p.image.strip_prefix(dir.path()).unwrap().to_owned();
            let all = pairs
                .iter()
                .map(|p| (name(p).display().to_string(), p.units));
            all.collect()
        };
        let own = |name: &str, units| (name.to_owned(), units);
        assert_eq!(names(true, None), [own("1.jpg", 1000.0)]);
        assert_eq!(
            names(false, None),
            [own("2.jpg", 256.0), own("sub/4.jpg", 1000.0)]
        );
        assert_eq!(names(false, Some("b")), [own("sub/4.jpg", 1000.0)]);
        let error = |train, set| pairs(&index, train, set).unwrap_err().to_string();
        assert!(error(true, Some("b")).contains("no row of set \"b\" with split train"));
        fs::write(&index, "image,depth,units\n1.jpg,1.png,-3\n").unwrap();
        let text = error(true, None);
        assert!(text.contains("line 2") && text.contains("\"-3\""), "{text}");
        assert!(error(true, Some("b")).contains("no column \"set\""));
        fs::write(&index, "image,depth\n1.jpg\n").unwrap();
        assert!(error(true, None).contains("line 2 has 1 cells"));
        fs::write(&index, "image,units\n").unwrap();
        assert!(error(true, None).contains("no column \"depth\""));
    }
}
