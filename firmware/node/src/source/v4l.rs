//! Video4Linux cameras, such as USB cameras.

use std::{
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use linuxvideo::{
    BufType, Device,
    format::{PixFormat, PixelFormat},
    stream::ReadStream,
};

use super::{Clock, MAX_SLEEP, Poll, Source, SourceError};
use crate::frame::RawFrame;

/// Supported pixel formats, in order of preference.
const LAYOUTS: [(PixelFormat, Layout); 2] = [
    (PixelFormat::RGB3, Layout::Rgb),
    (PixelFormat::YUYV, Layout::Yuyv),
];

/// Interval between two checks for a frame.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Rgb,
    Yuyv,
}

impl Layout {
    fn bytes(self) -> usize {
        match self {
            Self::Rgb => 3,
            Self::Yuyv => 2,
        }
    }
}

/// A Video4Linux camera.
pub struct Camera {
    path: PathBuf,
    stream: ReadStream,
    layout: Layout,
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
        let Some((format, layout)) = LAYOUTS.into_iter().find(|(f, _)| known.contains(f)) else {
            return Err(other(format!(
                "the camera supports {known:?}, but not RGB or YUYV: use a source of kind gstreamer"
            )));
        };
        let side = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let wanted = PixFormat::new(side(width), side(height), format);
        let capture = device.video_capture(wanted).map_err(io)?;
        let given = capture.format();
        let (columns, rows) = (given.width(), given.height());
        if (columns, rows) != (side(width), side(height)) {
            return Err(other(format!(
                "the camera does not support {width} x {height}; the closest size is {columns} x {rows}: change source.size"
            )));
        }
        let stride = (given.bytes_per_line() as usize).max(layout.bytes() * width);
        Ok(Self {
            path: path.into(),
            stream: capture.into_stream().map_err(io)?,
            layout,
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
        let (layout, width, stride) = (self.layout, self.width, self.stride);
        self.stream
            .dequeue(|view| {
                into.bytes.clear();
                // A frame that the driver marks as bad stays empty and is rejected as truncated.
                if !view.is_error() {
                    for row in view.chunks(stride) {
                        append(layout, row, width, &mut into.bytes);
                    }
                }
                Ok(())
            })
            .map_err(failed)?;
        Ok(Poll::Frame)
    }
}

/// Appends a row as RGB. A short row yields fewer pixels.
fn append(layout: Layout, row: &[u8], width: usize, out: &mut Vec<u8>) {
    let row = &row[..row.len().min(layout.bytes() * width)];
    match layout {
        Layout::Rgb => out.extend_from_slice(row),
        Layout::Yuyv => {
            let (pairs, last) = row.as_chunks::<4>();
            for [y0, u, y1, v] in pairs {
                out.extend(rgb(*y0, *u, *v));
                out.extend(rgb(*y1, *u, *v));
            }
            // The last pixel of an odd width.
            if let [y, u] = last {
                out.extend(rgb(*y, *u, 128));
            }
        }
    }
}

/// Converts ITU-R BT.601 in video range, the format of USB cameras, in 16-bit fixed point.
fn rgb(y: u8, u: u8, v: u8) -> [u8; 3] {
    let y = 76_309 * (i32::from(y) - 16);
    let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
    let round = |x: i32| ((x + 32_768) >> 16).clamp(0, 255) as u8;
    [
        round(y + 104_597 * v),
        round(y - 25_675 * u - 53_279 * v),
        round(y + 132_201 * u),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_follow_bt_601() {
        // Y, Cb, Cr of 75 % and 100 % color bars, and their RGB values.
        for (yuv, expected) in [
            ([16, 128, 128], [0, 0, 0]),
            ([235, 128, 128], [255, 255, 255]),
            ([81, 90, 240], [254, 0, 0]),
            ([145, 54, 34], [0, 255, 1]),
            ([41, 240, 110], [0, 0, 255]),
            ([126, 128, 128], [128, 128, 128]),
        ] {
            let found = rgb(yuv[0], yuv[1], yuv[2]);
            for (a, b) in found.into_iter().zip(expected) {
                assert!(a.abs_diff(b) <= 1, "{yuv:?}: {found:?}, not {expected:?}");
            }
        }
    }

    #[test]
    fn row_padding_is_removed_and_short_rows_are_truncated() {
        let mut out = Vec::new();
        append(Layout::Rgb, &[1, 2, 3, 4, 5, 6, 0, 0], 2, &mut out);
        assert_eq!(out, [1, 2, 3, 4, 5, 6]);
        out.clear();
        append(Layout::Yuyv, &[16, 128, 235, 128, 9, 9, 9, 9], 2, &mut out);
        assert_eq!(out, [0, 0, 0, 255, 255, 255]);
        out.clear();
        append(Layout::Yuyv, &[16, 128, 235], 2, &mut out);
        assert!(out.len() < 6);
    }
}
