//! Encoding with ffmpeg.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    time::Duration,
};

use super::{
    VideoError,
    process::{Program, last_line},
};
use crate::image::{RgbImage, atomic::AtomicFile};

/// Time limit for ffmpeg to write the last frames and the index.
const FINISH_TIMEOUT: Duration = Duration::from_secs(600);

/// Writes a video file: H.264 in .mp4 and .mkv, VP9 in .webm, if ffmpeg has these encoders, as 4:2:0 in
/// BT.709. Odd sides are padded by one black column or row, because 4:2:0 needs even sides. The file appears
/// when it is complete.
#[derive(Debug)]
pub struct VideoWriter {
    video: PathBuf,
    size: (usize, usize),
    /// The program and its input; `None` after an error. Dropped before the file that it writes.
    running: Option<(ChildStdin, Program)>,
    file: AtomicFile,
}

impl VideoWriter {
    /// Whether the file name has the extension of a supported video format.
    pub fn writes(path: &Path) -> bool {
        format(path).is_some()
    }

    /// Starts a video of frames of `width` x `height` at `rate` frames per second.
    ///
    /// # Errors
    /// ffmpeg is not installed, or the file cannot be written.
    pub fn create(
        video: &Path,
        width: usize,
        height: usize,
        rate: f64,
    ) -> Result<Self, VideoError> {
        let Some(format) = format(video) else {
            return Err(VideoError::Format {
                video: video.into(),
            });
        };
        let io = |source| VideoError::Io {
            path: video.into(),
            source,
        };
        let file = AtomicFile::create(video).map_err(io)?;
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-hide_banner", "-nostats", "-loglevel", "error"]);
        command.args(["-f", "rawvideo", "-pix_fmt", "rgb24"]);
        command.args(["-video_size", &format!("{width}x{height}")]);
        command.args(["-framerate", &format!("{rate:.6}"), "-i", "pipe:0"]);
        let even = "pad=ceil(iw/2)*2:ceil(ih/2)*2";
        command.args([
            "-vf",
            &format!("{even},scale=out_color_matrix=bt709,format=yuv420p"),
        ]);
        command.args([
            "-colorspace",
            "bt709",
            "-color_primaries",
            "bt709",
            "-color_trc",
            "bt709",
        ]);
        if format == "mp4" {
            command.args(["-movflags", "+faststart"]);
        }
        let mut to = std::ffi::OsString::from("file:");
        to.push(file.path());
        command.args(["-f", format, "-y"]).arg(to);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let started = Program::start(&mut command, last_line);
        let mut program = started.map_err(|e| VideoError::start(e, video, "ffmpeg"))?;
        let input = program.child().stdin.take();
        Ok(Self {
            video: video.into(),
            size: (width, height),
            running: input.map(|input| (input, program)),
            file,
        })
    }

    /// Appends a frame.
    ///
    /// # Errors
    /// The frame has a different size, or ffmpeg failed.
    pub fn write(&mut self, frame: &RgbImage) -> Result<(), VideoError> {
        if (frame.width(), frame.height()) != self.size {
            return Err(VideoError::FrameSize {
                video: self.video.clone(),
                width: frame.width(),
                height: frame.height(),
                first: self.size,
            });
        }
        let written = match &mut self.running {
            Some((input, _)) => input.write_all(frame.data()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        match written {
            Ok(()) => Ok(()),
            // It has exited, with a message.
            Err(e) => Err(self
                .end()
                .err()
                .unwrap_or_else(|| self.failed(e.to_string()))),
        }
    }

    /// Completes the file.
    ///
    /// # Errors
    /// ffmpeg failed, or the file cannot be written; no file is left then.
    pub fn finish(mut self) -> Result<(), VideoError> {
        self.end()?;
        let path = self.video;
        let committed = self.file.commit();
        committed.map_err(|source| VideoError::Io { path, source })
    }

    /// Closes the input and waits for the program to exit.
    fn end(&mut self) -> Result<(), VideoError> {
        let Some((input, program)) = self.running.take() else {
            return Err(self.failed("it has failed before".into()));
        };
        drop(input);
        let (status, message) = program
            .finish(FINISH_TIMEOUT)
            .map_err(|e| self.failed(e.to_string()))?;
        match status.success() {
            true => Ok(()),
            false => Err(self.failed(format!("it ended with {status}: {message}"))),
        }
    }

    fn failed(&self, what: String) -> VideoError {
        VideoError::Failed {
            video: self.video.clone(),
            program: "ffmpeg",
            what,
        }
    }
}

/// Returns ffmpeg's name of the format.
fn format(path: &Path) -> Option<&'static str> {
    let extension = path.extension()?.to_ascii_lowercase();
    match extension.to_str()? {
        "mp4" => Some("mp4"),
        "mkv" => Some("matroska"),
        "webm" => Some("webm"),
        _ => None,
    }
}
