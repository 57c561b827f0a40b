//! Errors of videos.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A video that cannot be read or written. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VideoError {
    /// A file cannot be opened or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Its path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A required program is not installed.
    #[error("{}: needs the program {program}, which was not found: install it", video.display())]
    NotInstalled {
        /// The video.
        video: PathBuf,
        /// Name of the program.
        program: &'static str,
    },
    /// Neither program is installed.
    #[error(
        "{}: no program to decode a video was found: install ffmpeg, or GStreamer with gst-launch-1.0",
        video.display()
    )]
    NoDecoder {
        /// The video.
        video: PathBuf,
    },
    /// The program failed.
    #[error("{}: {program}: {what}", video.display())]
    Failed {
        /// The video.
        video: PathBuf,
        /// Name of the program.
        program: &'static str,
        /// Its status, and its message.
        what: String,
    },
    /// A frame to write differs in size from the first one.
    #[error("{}: a frame of {width}x{height}; the first one had {}x{}, and all must have the same size", video.display(), first.0, first.1)]
    FrameSize {
        /// The video.
        video: PathBuf,
        /// Columns of the frame.
        width: usize,
        /// Rows of the frame.
        height: usize,
        /// Size of the first frame.
        first: (usize, usize),
    },
    /// A file name without a known video extension.
    #[error("{}: videos are written as .mp4, .mkv or .webm", video.display())]
    Format {
        /// The video.
        video: PathBuf,
    },
}

impl VideoError {
    /// Returns the error for a program that could not be started.
    pub(super) fn start(error: io::Error, video: &Path, program: &'static str) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotInstalled {
                video: video.into(),
                program,
            },
            _ => Self::Failed {
                video: video.into(),
                program,
                what: error.to_string(),
            },
        }
    }
}
