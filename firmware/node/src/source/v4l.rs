//! Video4Linux cameras, such as USB cameras.

use std::{
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use linuxvideo::{
    BufType, Device,
    format::{PixFormat, PixelFormat as FourCc},
    stream::ReadStream,
};
use loftup_runtime::{Frame, PixelFormat};

use super::{Clock, MAX_SLEEP, Poll, Source, SourceError};
use crate::frame::RawFrame;

/// Supported pixel formats, in order of preference.
const FORMATS: [(FourCc, PixelFormat); 2] = [
    (FourCc::RGB3, PixelFormat::Rgb8),
    (FourCc::YUYV, PixelFormat::Yuyv),
];

/// Interval between two checks for a frame.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// A Video4Linux camera.
pub struct Camera {
    path: PathBuf,
    stream: ReadStream,
    format: PixelFormat,
    width: usize,
    height: usize,
    /// Bytes from one row to the next.
    stride: usize,
    number: u64,
}

impl Camera {
    /// Opens a device such as `/dev/video0` for images of this size.
    ///
    /// # Errors
    /// If it cannot be opened, or does not support the size in RGB or YUYV.
    pub fn open(path: &Path, width: usize, height: usize) -> Result<Self, SourceError> {
        let io = |cause| SourceError::Io {
            path: path.into(),
            cause,
        };
        let other = |what: String| SourceError::Other(format!("{}: {what}", path.display()));
        let device = Device::open(path).map_err(io)?;
        let known: Vec<_> = device
            .formats(BufType::VIDEO_CAPTURE)
            .map(|format| format.map(|f| f.pixel_format()))
            .collect::<io::Result<_>>()
            .map_err(io)?;
        let Some((code, format)) = FORMATS.into_iter().find(|(f, _)| known.contains(f)) else {
            return Err(other(format!(
                "the camera supports {known:?}, but not RGB or YUYV: use a source of kind gstreamer"
            )));
        };
        let side = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let wanted = PixFormat::new(side(width), side(height), code);
        let capture = device.video_capture(wanted).map_err(io)?;
        let given = capture.format();
        let (columns, rows) = (given.width(), given.height());
        if (columns, rows) != (side(width), side(height)) {
            return Err(other(format!(
                "the camera does not support {width} x {height}; the closest size is {columns} x {rows}: change source.size"
            )));
        }
        let stride = (given.bytes_per_line() as usize).max(format.row_bytes(width));
        Ok(Self {
            path: path.into(),
            stream: capture.into_stream().map_err(io)?,
            format,
            width,
            height,
            stride,
            number: 0,
        })
    }
}

impl Source for Camera {
    fn next(&mut self, clock: &Clock, into: &mut RawFrame) -> Result<Poll, SourceError> {
        let failed = |cause| SourceError::Gone {
            path: self.path.clone(),
            cause,
        };
        let end = Instant::now() + MAX_SLEEP;
        while self.stream.will_block().map_err(failed)? {
            if Instant::now() >= end {
                return Ok(Poll::Nothing);
            }
            thread::sleep(POLL_INTERVAL);
        }
        (into.number, into.stamp_us) = (self.number, clock.now_us());
        (into.width, into.height) = (self.width, self.height);
        self.number += 1;
        let &mut Self {
            width,
            height,
            stride,
            format,
            ..
        } = self;
        self.stream
            .dequeue(|view| {
                into.bytes.clear();
                let frame = Frame {
                    data: &view,
                    width,
                    height,
                    stride,
                    format,
                };
                // A frame that the driver marks as bad, or that is too short, stays empty and is
                // rejected as truncated.
                if !view.is_error()
                    && let Err(e) = frame.append_rgb(&mut into.bytes)
                {
                    log::debug!("{e}");
                }
                Ok(())
            })
            .map_err(failed)?;
        Ok(Poll::Frame)
    }
}
