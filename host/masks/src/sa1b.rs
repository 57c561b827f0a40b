//! The JSON that SA-1B has beside each image.

use serde::Deserialize;

use crate::Rle;

/// The most characters or runs of one mask: four for every pixel of the largest image.
const MOST_RUNS: usize = 1 << 26;

#[derive(Deserialize)]
struct File {
    annotations: Vec<Annotation>,
}

#[derive(Deserialize)]
struct Annotation {
    segmentation: serde_json::Value,
}

#[derive(Deserialize)]
struct Segmentation {
    size: [usize; 2],
    counts: Counts,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Counts {
    Compressed(String),
    Runs(Vec<u32>),
}

/// A mask that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenMask {
    /// What is wrong with it.
    pub what: String,
    /// Its `(width, height)`, where that is what is wrong.
    pub size: Option<(usize, usize)>,
}

impl From<String> for BrokenMask {
    fn from(what: String) -> Self {
        Self { what, size: None }
    }
}

/// The first `most` masks of an image of `(height, width)` from the bytes of its JSON, and what
/// is wrong with those that cannot be read.
///
/// # Errors
/// Where the JSON is damaged or of another kind.
pub fn read_masks(
    bytes: &[u8],
    size: (usize, usize),
    most: usize,
) -> Result<(Vec<Rle>, Vec<BrokenMask>), String> {
    let file: File = serde_json::from_slice(bytes)
        .map_err(|e| format!("not a JSON with `annotations` as SA-1B has it: {e}"))?;
    let (mut masks, mut broken) = (Vec::new(), Vec::new());
    for annotation in file.annotations.into_iter().take(most) {
        match read(annotation, size) {
            Ok(mask) => masks.push(mask),
            Err(what) => broken.push(what),
        }
    }
    Ok((masks, broken))
}

fn read(annotation: Annotation, size: (usize, usize)) -> Result<Rle, BrokenMask> {
    let Segmentation {
        size: [height, width],
        counts,
    } = serde_json::from_value(annotation.segmentation)
        .map_err(|e| format!("not run-length encoded: {e}"))
        .map_err(BrokenMask::from)?;
    if (height, width) != size {
        return Err(BrokenMask {
            what: format!(
                "a mask of {width}x{height} for an image of {}x{}",
                size.1, size.0
            ),
            size: Some((width, height)),
        });
    }
    let length = match &counts {
        Counts::Compressed(text) => text.len(),
        Counts::Runs(runs) => runs.len(),
    };
    if length > MOST_RUNS {
        return Err(format!("{length} runs").into());
    }
    match counts {
        Counts::Compressed(text) => Rle::parse(height, width, &text),
        Counts::Runs(runs) => Rle::new(height, width, runs),
    }
    .map_err(|e| e.to_string().into())
}
