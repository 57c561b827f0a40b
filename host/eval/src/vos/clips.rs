//! Reads data sets in DAVIS's layout.

use std::{
    fs,
    path::{Path, PathBuf},
};

use loftup_bundle::Size;
use loftup_runtime::{
    image::{self, Orientation, RgbImage},
    video::{VideoFrame, VideoReader},
};

use crate::{EvalError, labels::Labels};

/// A clip: images with a mask for each.
#[derive(Debug, Clone)]
pub(super) struct Clip {
    pub name: String,
    /// The video with the images, if there is no directory of images.
    pub video: Option<PathBuf>,
    pub frames: Vec<Frame>,
}

/// A frame and its mask.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    /// File name of the mask.
    pub name: String,
    /// The image, whose existence is not checked if only masks are scored.
    pub image: PathBuf,
    pub mask: PathBuf,
}

/// File extensions of videos.
const VIDEOS: [&str; 5] = ["mp4", "mkv", "webm", "mov", "avi"];

/// Minimum number of frames of a clip, since the first and the last are not scored.
const LEAST_FRAMES: usize = 3;

/// Lists the clips of a data set: `names`, or all if there are none; at most `most` frames of each.
pub(super) fn clips(
    data: &Path,
    names: &[String],
    most: Option<usize>,
) -> Result<Vec<Clip>, EvalError> {
    let (images, masks) = (
        data.join("JPEGImages").join("480p"),
        data.join("Annotations").join("480p"),
    );
    let names = match names {
        [] => entries(&masks, Path::is_dir)?,
        names => names.to_vec(),
    };
    if names.is_empty() {
        return Err(EvalError::Data {
            path: masks,
            what: "has no clips; expected DAVIS: Annotations/480p/CLIP/00000.png and \
                   JPEGImages/480p/CLIP/00000.jpg"
                .into(),
        });
    }
    let most = most.unwrap_or(usize::MAX);
    let clip = |name: String| {
        let videos = VIDEOS.map(|e| images.join(format!("{name}.{e}")));
        let (images, masks) = (images.join(&name), masks.join(&name));
        let video = videos.into_iter().find(|file| file.is_file());
        let video = video.filter(|_| !images.is_dir());
        let files = entries(&masks, |path| path.extension().is_some_and(|e| e == "png"))?;
        let frames: Vec<Frame> = files
            .into_iter()
            .take(most)
            .map(|name| Frame {
                image: image_of(&images.join(&name)),
                mask: masks.join(&name),
                name,
            })
            .collect();
        let number = |frame: &Frame| frame.name.trim_end_matches(".png").parse().ok();
        if video.is_some() && !frames.iter().map(number).eq((0..frames.len()).map(Some)) {
            return Err(EvalError::Data {
                path: masks,
                what: "a clip with a video needs a mask for every frame, numbered from 00000"
                    .into(),
            });
        }
        if frames.len() < LEAST_FRAMES {
            let count = frames.len();
            return Err(EvalError::Data {
                path: masks,
                what: format!(
                    "{count} frames; the first and the last are not scored, so at least {LEAST_FRAMES} are needed"
                ),
            });
        }
        Ok(Clip {
            name,
            video,
            frames,
        })
    };
    names.into_iter().map(clip).collect()
}

/// The images of a clip in order.
pub(super) enum Images<'a> {
    Files(std::slice::Iter<'a, Frame>),
    Video(&'a Path, VideoReader),
}

impl<'a> Images<'a> {
    pub fn open(clip: &'a Clip) -> Result<Self, EvalError> {
        Ok(match &clip.video {
            Some(video) => Self::Video(video, VideoReader::open(video)?),
            None => Self::Files(clip.frames.iter()),
        })
    }

    /// Reads the image of the next mask.
    pub fn next(&mut self) -> Result<RgbImage, EvalError> {
        let (video, reader) = match self {
            Self::Video(video, reader) => (video, reader),
            Self::Files(frames) => {
                let file = frames.next().map_or(Path::new(""), |frame| &frame.image);
                return Ok(image::open_with(file, Orientation::Upright)?.image);
            }
        };
        let mut frame = VideoFrame::default();
        if !reader.read(&mut frame)? {
            return Err(EvalError::Data {
                path: video.to_path_buf(),
                what: "it has fewer frames than there are masks".into(),
            });
        }
        Ok(frame.take_image()?)
    }
}

/// Returns the path of the image of a mask: a JPEG as in DAVIS, or a PNG.
fn image_of(mask: &Path) -> PathBuf {
    match mask.is_file() {
        true => mask.to_owned(),
        false => mask.with_extension("jpg"),
    }
}

/// Returns the sorted names of the entries of a directory that are `wanted`.
fn entries(dir: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Vec<String>, EvalError> {
    let io = |source| EvalError::Io {
        path: dir.into(),
        source,
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if wanted(&path)
            && let Some(name) = path.file_name().and_then(|n| n.to_str())
        {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Reads a mask; void (255) becomes background, as in the benchmark.
pub(super) fn read(path: &Path, size: Option<Size>) -> Result<Labels, EvalError> {
    let mut labels = Labels::open(path)?;
    if let Some(size) = size
        && size != labels.size
    {
        return Err(EvalError::Labels {
            path: path.into(),
            what: format!(
                "a mask of {}; the first mask of the clip is {size}",
                labels.size
            ),
        });
    }
    for value in &mut labels.values {
        if *value == 255 {
            *value = 0;
        }
    }
    Ok(labels)
}
