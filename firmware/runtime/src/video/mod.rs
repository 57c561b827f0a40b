//! Frames of a video file or stream, decoded by a program on this machine: ffmpeg, or GStreamer where
//! there is no ffmpeg.
//!
//! The program runs as a child process and writes RGB to a pipe. A thread reads one frame ahead, and the
//! program waits until that frame is taken, so memory does not grow with the video. Frames are upright: the
//! rotation in the file is applied.

mod error;
mod ffmpeg;
mod gstreamer;
mod process;
mod pump;
mod writer;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

pub use error::VideoError;
pub use process::{Program, last_line};
pub use writer::VideoWriter;

use pump::Shared;

use crate::image::{ImageError, RgbImage};

/// Time limit for a program to exit after it has closed its output.
pub const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time limit for GStreamer to decode a frame of a file.
const STUCK_TIMEOUT: Duration = Duration::from_secs(20);

/// A program that decodes videos.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoder {
    /// `ffmpeg`, with `ffprobe` for the number of frames.
    Ffmpeg,
    /// `gst-launch-1.0`.
    Gstreamer,
}

impl Decoder {
    /// Name of the program.
    pub fn program(self) -> &'static str {
        match self {
            Self::Ffmpeg => "ffmpeg",
            Self::Gstreamer => "gst-launch-1.0",
        }
    }
}

impl fmt::Display for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program())
    }
}

/// Whether `video` is the address of a stream, such as `rtsp://camera/1`, and not a file.
pub fn is_url(video: &Path) -> bool {
    let text = video.to_string_lossy();
    let Some((scheme, _)) = text.split_once("://") else {
        return false;
    };
    let known = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(known)
}

/// Parses a ratio such as `25/1`.
fn ratio(text: Option<&str>) -> Option<f64> {
    let (over, under) = text?.split_once('/')?;
    let (over, under): (f64, f64) = (over.parse().ok()?, under.parse().ok()?);
    (over > 0.0 && under > 0.0).then(|| over / under)
}

/// A frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VideoFrame {
    /// Number, from 0.
    pub number: u64,
    /// Time since the start of the video, if known.
    pub time: Option<Duration>,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `[height, width, 3]`, RGB.
    pub data: Vec<u8>,
}

impl VideoFrame {
    /// Moves the pixels out.
    ///
    /// # Errors
    /// A frame that was never read.
    pub fn take_image(&mut self) -> Result<RgbImage, ImageError> {
        RgbImage::new(self.width, self.height, std::mem::take(&mut self.data))
    }
}

/// The number of frames of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameCount {
    /// As stored in the file.
    Exact(u64),
    /// Estimated from its duration and frame rate.
    About(u64),
}

/// Result of [`VideoReader::poll`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polled {
    /// There is a frame.
    Frame,
    /// There is none yet.
    Nothing,
    /// The video has ended.
    End,
}

/// Reads the frames of a video in order.
#[derive(Debug)]
pub struct VideoReader {
    video: PathBuf,
    decoder: Decoder,
    probe: ffmpeg::Probe,
    /// `None` after the end.
    program: Option<Program>,
    shared: Arc<Shared>,
    frames: u64,
    /// Start of the wait for a frame from GStreamer.
    stuck: Option<Instant>,
    problem: Option<String>,
}

impl Drop for VideoReader {
    fn drop(&mut self) {
        // The reading thread ends when the pipe closes.
        self.shared.close();
    }
}

impl VideoReader {
    /// Opens a file or stream with ffmpeg, or with GStreamer if that is not installed.
    ///
    /// # Errors
    /// The file does not exist, or neither program is installed. If the video cannot be decoded, reading the first
    /// frame fails.
    pub fn open(video: &Path) -> Result<Self, VideoError> {
        match Self::open_with(video, Decoder::Ffmpeg) {
            Err(VideoError::NotInstalled { .. }) => {}
            other => return other,
        }
        match Self::open_with(video, Decoder::Gstreamer) {
            Err(VideoError::NotInstalled { video, .. }) => Err(VideoError::NoDecoder { video }),
            other => other,
        }
    }

    /// Opens a file or stream with one of the programs.
    ///
    /// # Errors
    /// Same as [`Self::open`].
    pub fn open_with(video: &Path, decoder: Decoder) -> Result<Self, VideoError> {
        let io = |source| VideoError::Io {
            path: video.into(),
            source,
        };
        let is_url = is_url(video);
        let mut is_file = false;
        if !is_url {
            let file = std::fs::metadata(video).map_err(io)?;
            if file.is_dir() {
                return Err(io(std::io::ErrorKind::IsADirectory.into()));
            }
            is_file = file.is_file();
            if is_file && file.len() == 0 {
                return Err(io(std::io::Error::other("the file is empty")));
            }
        }
        let shared = Arc::new(Shared::new(is_url));
        let started = match decoder {
            Decoder::Ffmpeg => ffmpeg::start(video, &shared),
            Decoder::Gstreamer => gstreamer::start(video, &shared),
        };
        let (program, pixels) =
            started.map_err(|e| VideoError::start(e, video, decoder.program()))?;
        let reader = thread::Builder::new().name("video".into()).spawn({
            let shared = shared.clone();
            move || shared.pump(pixels)
        });
        reader.map_err(io)?;
        let probe = match decoder {
            // Not for a pipe or device, whose data it would consume.
            Decoder::Ffmpeg if is_file => ffmpeg::probe(video),
            _ => ffmpeg::Probe::default(),
        };
        Ok(Self {
            video: video.into(),
            decoder,
            probe,
            program: Some(program),
            shared,
            frames: 0,
            stuck: None,
            problem: None,
        })
    }

    /// The program.
    pub fn decoder(&self) -> Decoder {
        self.decoder
    }

    /// The number of frames, if known in advance.
    pub fn count(&self) -> Option<FrameCount> {
        self.probe.count
    }

    /// Mean number of frames per second; available from the first frame on, if known.
    pub fn rate(&self) -> Option<f64> {
        self.probe.rate.or_else(|| self.shared.rate())
    }

    /// Whether frames arrive at a fixed rate, as from a camera. Frames of a file arrive as fast as they are
    /// decoded, also over HTTP with ffmpeg. With GStreamer any URL counts as live, since it does not report
    /// this. Known from the first frame on.
    pub fn is_live(&self) -> bool {
        self.shared.is_live()
    }

    /// After the end: a problem with the video although frames could be decoded, such as a truncated file, in one
    /// line.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Waits for the next frame. Returns `false` at the end.
    ///
    /// # Errors
    /// The program failed, or the video has no frames. No frames follow.
    pub fn read(&mut self, into: &mut VideoFrame) -> Result<bool, VideoError> {
        loop {
            match self.poll(Duration::from_secs(1), into)? {
                Polled::Frame => return Ok(true),
                Polled::Nothing => {}
                Polled::End => return Ok(false),
            }
        }
    }

    /// Waits at most `timeout` for the next frame and swaps it with `into`, so that memory is reused.
    ///
    /// # Errors
    /// Same as [`Self::read`].
    pub fn poll(&mut self, timeout: Duration, into: &mut VideoFrame) -> Result<Polled, VideoError> {
        match self.shared.take(timeout, into) {
            Polled::Frame => {
                self.frames = into.number + 1;
                self.stuck = None;
                Ok(Polled::Frame)
            }
            Polled::Nothing => self.check_stuck().map(|()| Polled::Nothing),
            Polled::End => match self.program.take() {
                Some(program) => self.finish(program).map(|()| Polled::End),
                None => Ok(Polled::End),
            },
        }
    }

    /// Detects a hung gst-launch-1.0, which does not always exit after an error, or even report it.
    fn check_stuck(&mut self) -> Result<(), VideoError> {
        let message = match &self.program {
            Some(program) if self.decoder == Decoder::Gstreamer => program.message(),
            _ => return Ok(()),
        };
        let (limit, said) = match message.as_str() {
            "" if self.is_live() => return Ok(()),
            "" => (STUCK_TIMEOUT, String::new()),
            message => (EXIT_TIMEOUT, format!(": {message}")),
        };
        if self.stuck.get_or_insert_with(Instant::now).elapsed() < limit {
            return Ok(());
        }
        self.program = None;
        Err(VideoError::Failed {
            video: self.video.clone(),
            program: self.decoder.program(),
            what: format!("it hangs after {} frames{said}", self.frames),
        })
    }

    /// Checks the result of a program whose output has ended.
    fn finish(&mut self, program: Program) -> Result<(), VideoError> {
        let failed = |what: String| VideoError::Failed {
            video: self.video.clone(),
            program: self.decoder.program(),
            what,
        };
        let (status, message) = program
            .finish(EXIT_TIMEOUT)
            .map_err(|e| failed(e.to_string()))?;
        let said = match message.as_str() {
            "" => String::new(),
            message => format!(": {message}"),
        };
        let frames = self.frames;
        let invalid = self.shared.invalid();
        if let Some(what) = invalid {
            return Err(failed(format!("after {frames} frames, {what}{said}")));
        }
        if !status.success() {
            let after = match frames {
                0 => String::new(),
                n => format!("after {n} frames, "),
            };
            return Err(failed(format!("{after}it ended with {status}{said}")));
        }
        if frames == 0 {
            return Err(failed(format!("no frames{said}")));
        }
        self.problem = match self.probe.count {
            // Without an error it is complete: an edit list can hide frames that the container counts.
            _ if message.is_empty() => None,
            Some(FrameCount::Exact(count)) if frames < count => {
                Some(format!("{frames} of {count} frames could be decoded{said}"))
            }
            _ => Some(format!("{frames} frames could be decoded{said}")),
        };
        Ok(())
    }
}
