//! Datasets: images with masks.
//!
//! `DIR/images` and `DIR/labels`, or the same in `DIR/train` and `DIR/val`. An image and its mask
//! have the same name except for the extension. `DIR/classes.txt` lists the class names from 0, one
//! per line; lines with `void`, `unlabeled` or `ignore` are not classes. 255 is always unlabeled.
//! CamVid's eleven classes, with 11 for void, are detected by its image names.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use loftup_bundle::HeadKind;

use crate::{
    EvalError,
    labels::{Labels, UNLABELED},
};

/// An image and its mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The image.
    pub image: PathBuf,
    /// Its mask.
    pub labels: PathBuf,
}

/// Maps mask values to classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    /// Class names.
    pub names: Vec<String>,
    /// Class of each value: `None` is not allowed, `Some(UNLABELED)` is ignored.
    values: Vec<Option<u8>>,
}

/// Name prefixes of CamVid's images, one for each sequence.
const CAMVID_DRIVES: [&str; 4] = ["0001TP_", "0006R0_", "0016E5_", "Seq05VD_"];
const CAMVID: [&str; 12] = [
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
    "void",
];
const NO_CLASS: [&str; 4] = ["void", "unlabeled", "unlabelled", "ignore"];

impl Classes {
    /// Reads the classes of the dataset in `dir`; `pairs` are some of its images.
    ///
    /// # Errors
    /// `classes.txt` is invalid, or there are too many classes.
    pub fn of(dir: &Path, pairs: &[Pair]) -> Result<Self, EvalError> {
        let file = dir.join("classes.txt");
        match fs::read_to_string(&file) {
            Ok(text) => return Self::from_lines(&file, text.lines()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(EvalError::Io { path: file, source }),
        }
        let stem = |pair: &Pair| {
            pair.labels
                .file_stem()
                .map(|s| s.to_string_lossy().into_owned())
        };
        let from_camvid = |pair: &Pair| {
            stem(pair).is_some_and(|s| CAMVID_DRIVES.iter().any(|drive| s.starts_with(drive)))
        };
        if !pairs.is_empty() && pairs.iter().all(from_camvid) {
            log::info!(
                "{}: detected CamVid by its file names: 11 classes, 11 is void",
                dir.display()
            );
            return Self::from_lines(&file, CAMVID.into_iter());
        }
        let mut greatest = None;
        for pair in pairs {
            if let Ok(labels) = Labels::open(&pair.labels) {
                let values = labels.values.iter().filter(|v| **v != UNLABELED);
                greatest = greatest.max(values.max().copied());
            }
        }
        let Some(greatest) = greatest else {
            let what = "no mask contains a label: values 0 to 254 are classes".into();
            return Err(EvalError::Data {
                path: dir.into(),
                what,
            });
        };
        log::info!(
            "{}: no classes.txt; using the values 0 to {greatest} as classes",
            dir.display()
        );
        let names: Vec<String> = (0..=greatest).map(|i| format!("class {i}")).collect();
        Self::from_lines(&file, names.iter().map(String::as_str))
    }

    fn from_lines<'a>(
        file: &Path,
        lines: impl Iterator<Item = &'a str>,
    ) -> Result<Self, EvalError> {
        let wrong = |what: String| EvalError::Data {
            path: file.into(),
            what,
        };
        let (mut names, mut values) = (Vec::new(), Vec::new());
        let mut lines: Vec<&str> = lines.map(str::trim).collect();
        while lines.last().is_some_and(|line| line.is_empty()) {
            lines.pop();
        }
        if lines.len() > HeadKind::MOST_CLASSES {
            let most = HeadKind::MOST_CLASSES;
            return Err(wrong(format!(
                "{} classes; a mask supports at most {most}",
                lines.len()
            )));
        }
        for (i, line) in lines.iter().enumerate() {
            if line.is_empty() {
                return Err(wrong(format!(
                    "line {} is empty; write void for a value that is not a class",
                    i + 1
                )));
            }
            if NO_CLASS.contains(&line.to_ascii_lowercase().as_str()) {
                values.push(Some(UNLABELED));
            } else {
                values.push(Some(names.len() as u8));
                names.push((*line).to_owned());
            }
        }
        if names.len() < 2 {
            return Err(wrong(format!(
                "{} classes; at least two are required",
                names.len()
            )));
        }
        values.resize(255, None);
        values.push(Some(UNLABELED));
        Ok(Self { names, values })
    }

    /// Reads a mask and maps its values to classes.
    ///
    /// # Errors
    /// The mask cannot be read, or contains a value that is not a class.
    pub fn read(&self, path: &Path) -> Result<Labels, EvalError> {
        let mut labels = Labels::open(path)?;
        for (i, value) in labels.values.iter_mut().enumerate() {
            *value = self.values[usize::from(*value)].ok_or_else(|| {
                let (x, y) = (i % labels.size.width, i / labels.size.width);
                let what = format!(
                    "value {value} at ({x}, {y}) is not one of the {} classes or 255 (unlabeled)",
                    self.names.len()
                );
                EvalError::Labels {
                    path: path.into(),
                    what,
                }
            })?;
        }
        Ok(labels)
    }
}

/// Lists the pairs of the split `part` of the dataset in `dir`, sorted by name: from `dir/part` if it
/// exists, otherwise from `dir`.
///
/// # Errors
/// `images` or `labels` is missing, or there are no pairs.
pub fn pairs(dir: &Path, part: &str) -> Result<Vec<Pair>, EvalError> {
    paired(dir, part, ("labels", "mask"))
}

/// Same as [`pairs`], with `folder` instead of `labels`; `what` describes its contents.
pub(crate) fn paired(
    dir: &Path,
    part: &str,
    (folder, what): (&str, &str),
) -> Result<Vec<Pair>, EvalError> {
    let own = dir.join(part);
    let base = if own.is_dir() { own } else { dir.to_owned() };
    let missing = |kind: &str| EvalError::Data {
        path: base.clone(),
        what: format!(
            "has no {kind} directory; put images in images/ and their {what}s in {folder}/"
        ),
    };
    let (images, labels) = (base.join("images"), base.join(folder));
    for (path, kind) in [(&images, "images"), (&labels, folder)] {
        if !path.is_dir() {
            return Err(missing(kind));
        }
    }
    let masks: BTreeMap<_, _> = files(&labels, &["png"])?
        .into_iter()
        .filter_map(|p| Some((p.file_stem()?.to_owned(), p)))
        .collect();
    let mut without = 0;
    let mut pairs = Vec::new();
    for image in image_files(&images)? {
        match image.file_stem().and_then(|stem| masks.get(stem)) {
            Some(labels) => pairs.push(Pair {
                image,
                labels: labels.clone(),
            }),
            None => without += 1,
        }
    }
    if without > 0 {
        log::warn!(
            "{}: skipping {without} images without a {what}",
            images.display()
        );
    }
    if pairs.is_empty() {
        let what =
            format!("no image in images/ has a {what} of the same name in {folder}/ (NAME.png)");
        return Err(EvalError::Data { path: base, what });
    }
    Ok(pairs)
}

/// Lists the images in a directory, sorted by name.
///
/// # Errors
/// The directory cannot be read.
pub fn image_files(dir: &Path) -> Result<Vec<PathBuf>, EvalError> {
    files(
        dir,
        &[
            "jpg", "jpeg", "png", "bmp", "webp", "tif", "tiff", "ppm", "pgm", "pnm",
        ],
    )
}

fn files(dir: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>, EvalError> {
    let io = |source| EvalError::Io {
        path: dir.into(),
        source,
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let known = path
            .extension()
            .is_some_and(|e| extensions.iter().any(|known| e.eq_ignore_ascii_case(known)));
        if known && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
