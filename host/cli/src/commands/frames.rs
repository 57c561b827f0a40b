//! The frames of a video: a file, a stream, or images.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use loftup_runtime::{
    NafStatistics,
    image::{self, Orientation, RgbImage},
    video::{self, FrameCount, Polled, VideoFrame, VideoReader, VideoWriter},
};

use crate::{args::count, interrupt};

/// How often to look for an interrupt while a stream delivers nothing.
const POLL: Duration = Duration::from_millis(200);

/// Frames per second of a video that is written, where the frames have no rate.
const RATE: f64 = 10.0;

/// Which frames of a video.
#[derive(Debug, Clone, Copy, Args)]
pub struct FrameArgs {
    /// First frame of the video, from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    start: usize,
    /// Most frames
    #[arg(long, value_name = "N", value_parser = count)]
    frames: Option<usize>,
    /// Take every n-th frame
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count)]
    every: usize,
    /// NAF's normalization statistics are those of every n-th frame; the frames after it reuse them, which
    /// saves time on large or still images
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = interval)]
    naf_statistics_interval: u32,
}

/// A number of frames.
pub fn interval(s: &str) -> Result<u32, String> {
    let number = s.parse().ok().filter(|n| *n > 0);
    number.ok_or_else(|| "expected a number of frames of at least 1".into())
}

impl FrameArgs {
    /// An error if any is given, for commands on an image.
    pub fn refuse(&self) -> Result<()> {
        ensure!(
            (self.start, self.frames, self.every) == (0, None, 1)
                && self.naf_statistics_interval == 1,
            "--start, --frames, --every and --naf-statistics-interval are for --video; add it, or omit them"
        );
        Ok(())
    }

    /// The statistics of NAF for the frames.
    pub fn naf_statistics(&self) -> NafStatistics {
        NafStatistics::every(self.naf_statistics_interval)
    }

    /// How many of `all` frames.
    fn of(&self, all: usize) -> usize {
        let rest = all.saturating_sub(self.start).div_ceil(self.every);
        rest.min(self.frames.unwrap_or(usize::MAX))
    }
}

/// A frame.
pub struct Frame {
    pub image: RgbImage,
    /// Its name without an extension: that of the image file, or the number in a video.
    pub name: String,
    /// For messages.
    pub shown: String,
    /// The image file, or the video.
    pub path: PathBuf,
    /// Number in a video, and seconds since its start.
    pub number: Option<u64>,
    pub seconds: Option<f64>,
}

/// Reads the frames one by one.
pub struct Frames {
    source: Source,
    args: FrameArgs,
    orientation: Orientation,
    /// Number of the next frame of the source, and how many were returned.
    next: usize,
    returned: usize,
}

enum Source {
    Images(Vec<(PathBuf, String)>),
    Video(PathBuf, VideoReader),
}

impl Frames {
    pub fn open(video: &Path, args: FrameArgs, orientation: Orientation) -> Result<Self> {
        let source = match video::is_url(video) || video.is_file() {
            true => Source::Video(video.into(), VideoReader::open(video)?),
            false => Source::Images(images(video)?),
        };
        if let Source::Images(files) = &source {
            let shown = video.display();
            ensure!(
                args.start < files.len(),
                "{shown}: {} frames, none from --start {}",
                files.len(),
                args.start
            );
        }
        Ok(Self {
            source,
            args,
            orientation,
            next: 0,
            returned: 0,
        })
    }

    /// How many frames there are, as far as that is known.
    pub fn expected(&self) -> Option<usize> {
        let all = match &self.source {
            Source::Images(files) => Some(files.len()),
            Source::Video(_, reader) => reader.count().map(|count| match count {
                FrameCount::Exact(n) | FrameCount::About(n) => {
                    usize::try_from(n).unwrap_or(usize::MAX)
                }
            }),
        };
        all.map_or(self.args.frames, |all| Some(self.args.of(all)))
    }

    /// Frames per second.
    pub fn rate(&self) -> f64 {
        let rate = match &self.source {
            Source::Images(_) => None,
            Source::Video(_, reader) => reader.rate(),
        };
        rate.map_or(RATE, |rate| rate / self.args.every as f64)
    }

    /// The next frame; `None` after the last one, or if an interrupt is pending.
    pub fn next_frame(&mut self) -> Result<Option<Frame>> {
        if Some(self.returned) == self.args.frames {
            return Ok(None);
        }
        let wanted = self.args.start + self.returned * self.args.every;
        let frame = match &mut self.source {
            Source::Images(files) => {
                let Some((path, name)) = files.get(wanted) else {
                    return Ok(None);
                };
                Frame {
                    image: image::open_with(path, self.orientation)?.image,
                    name: name.clone(),
                    shown: path.display().to_string(),
                    path: path.clone(),
                    number: None,
                    seconds: None,
                }
            }
            Source::Video(path, reader) => {
                let mut frame = VideoFrame::default();
                while self.next <= wanted {
                    let polled = reader.poll(POLL, &mut frame);
                    // Ctrl-C in a terminal ends the decoder, too.
                    if !matches!(polled, Ok(Polled::Frame)) && interrupt::pending() {
                        return Ok(None);
                    }
                    match polled? {
                        Polled::Frame => self.next += 1,
                        Polled::Nothing => {}
                        Polled::End => {
                            let shown = path.display();
                            if let Some(problem) = reader.problem() {
                                log::warn!("{shown}: {problem}");
                            }
                            ensure!(
                                self.returned > 0,
                                "{shown}: {} frames, none from --start {}",
                                self.next,
                                self.args.start
                            );
                            return Ok(None);
                        }
                    }
                }
                Frame {
                    name: format!("{:06}", frame.number),
                    shown: format!("{}: frame {}", path.display(), frame.number),
                    path: path.clone(),
                    number: Some(frame.number),
                    seconds: frame.time.map(|time| time.as_secs_f64()),
                    image: frame.take_image()?,
                }
            }
        };
        self.returned += 1;
        Ok(Some(frame))
    }
}

/// The images of a directory, or those that match a glob, in the order of their names, each with its name
/// without the extension.
fn images(video: &Path) -> Result<Vec<(PathBuf, String)>> {
    let shown = video.display();
    let paths = if video.is_dir() {
        loftup_eval::data::image_files(video)?
    } else {
        let pattern = video.to_string_lossy();
        ensure!(
            pattern.contains(['*', '?', '[']),
            "{shown}: no such file or directory; --video takes a video, the address of a stream, a directory of images or a glob"
        );
        let found = glob::glob(&pattern).with_context(|| shown.to_string())?;
        let mut paths = found
            .collect::<Result<Vec<_>, _>>()
            .with_context(|| shown.to_string())?;
        paths.retain(|path| path.is_file());
        paths.sort();
        paths
    };
    ensure!(!paths.is_empty(), "{shown}: no images");
    let mut names: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut frames = Vec::new();
    for path in paths {
        let Some(name) = path.file_stem().and_then(|s| s.to_str()) else {
            bail!("{}: not a name in UTF-8", path.display());
        };
        if let Some(other) = names.insert(name.into(), path.clone()) {
            bail!(
                "{} and {} would have the same output {name}; rename one of them",
                other.display(),
                path.display()
            );
        }
        let name = name.to_owned();
        frames.push((path, name));
    }
    Ok(frames)
}

/// Where the pictures of frames go: a directory of PNG files, or a video.
pub enum Pictures {
    Directory(PathBuf),
    /// The file, its rate, and the writer from the first frame on.
    Video(PathBuf, f64, Option<VideoWriter>),
}

impl Pictures {
    /// A path with the extension of a video is one. `frames` tell its rate.
    pub fn create(path: &Path, frames: &Frames) -> Result<Self> {
        if VideoWriter::writes(path) {
            return Ok(Self::Video(path.into(), frames.rate(), None));
        }
        std::fs::create_dir_all(path).with_context(|| path.display().to_string())?;
        Ok(Self::Directory(path.into()))
    }

    pub fn write(&mut self, name: &str, picture: &RgbImage) -> Result<()> {
        match self {
            Self::Directory(path) => picture.save_png(&path.join(format!("{name}.png")))?,
            Self::Video(path, rate, writer) => {
                let writer = match writer {
                    Some(writer) => writer,
                    None => {
                        let (width, height) = (picture.width(), picture.height());
                        writer.insert(VideoWriter::create(path, width, height, *rate)?)
                    }
                };
                writer.write(picture)?;
            }
        }
        Ok(())
    }

    /// Completes a video.
    pub fn finish(self) -> Result<()> {
        if let Self::Video(_, _, Some(writer)) = self {
            writer.finish()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_as_they_are_taken() {
        for (start, frames, every, all) in [
            (0, None, 1, 10),
            (3, None, 2, 10),
            (3, Some(2), 3, 10),
            (9, None, 5, 10),
            (10, None, 1, 10),
            (0, Some(20), 1, 10),
        ] {
            let args = FrameArgs {
                start,
                frames,
                every,
                naf_statistics_interval: 1,
            };
            let taken = (start..all).step_by(every).take(frames.unwrap_or(all));
            assert_eq!(args.of(all), taken.count(), "{args:?}");
        }
    }
}
