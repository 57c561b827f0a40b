//! The thread that reads frames, and the state that it shares with the reader.

use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, PipeReader, Read},
    process::ChildStdout,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use super::{Polled, VideoFrame};
use crate::image::MAX_SIDE;

/// Time to wait for the timestamp of a complete frame.
const TIME_TIMEOUT: Duration = Duration::from_secs(1);

/// The source of the pixels.
pub(super) enum Pixels {
    /// PPM images, each with its size in its header.
    Ppm(BufReader<ChildStdout>),
    /// Rows padded to a multiple of four bytes; the size is in the announcement.
    Padded(PipeReader),
}

/// Properties of a frame, which the program logs before it writes the pixels.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Announced {
    pub width: usize,
    pub height: usize,
    pub time: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    frame: VideoFrame,
    /// Whether `frame` contains a frame that has not been taken yet.
    full: bool,
    /// Whether all frames have been read.
    ended: bool,
    /// What is wrong with the data.
    invalid: Option<String>,
    /// Whether the reader has been dropped.
    closed: bool,
    announced: VecDeque<Announced>,
    /// Whether announcements are discarded.
    ignored: bool,
    /// Whether no more announcements will come.
    text_ended: bool,
    rate: Option<f64>,
    is_live: bool,
}

impl Shared {
    pub fn new(is_live: bool) -> Self {
        Self {
            state: Mutex::new(State {
                frame: VideoFrame::default(),
                full: false,
                ended: false,
                invalid: None,
                closed: false,
                announced: VecDeque::new(),
                ignored: false,
                text_ended: false,
                rate: None,
                is_live,
            }),
            changed: Condvar::new(),
        }
    }

    pub fn rate(&self) -> Option<f64> {
        self.state.lock().rate
    }

    pub fn set_rate(&self, rate: f64) {
        if rate > 0.0 && rate.is_finite() {
            self.state.lock().rate = Some(rate);
        }
    }

    pub fn is_live(&self) -> bool {
        self.state.lock().is_live
    }

    pub fn set_recorded(&self) {
        self.state.lock().is_live = false;
    }

    pub fn invalid(&self) -> Option<String> {
        self.state.lock().invalid.clone()
    }

    pub fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    /// Adds an announcement. The queue stays short, because the program waits for its pixels to be read.
    pub fn announce(&self, frame: Announced) {
        let mut state = self.state.lock();
        if !state.ignored {
            state.announced.push_back(frame);
        }
        drop(state);
        self.changed.notify_all();
    }

    pub fn end_text(&self) {
        self.state.lock().text_ended = true;
        self.changed.notify_all();
    }

    /// Removes all announcements and returns their timestamps.
    #[cfg(test)]
    pub fn announced_times(&self) -> Vec<Option<Duration>> {
        let mut state = self.state.lock();
        state.announced.drain(..).map(|a| a.time).collect()
    }

    /// Takes the next frame.
    pub fn take(&self, timeout: Duration, into: &mut VideoFrame) -> Polled {
        let mut state = self.state.lock();
        let waiting = |state: &mut State| !state.full && !state.ended;
        self.changed.wait_while_for(&mut state, waiting, timeout);
        if state.full {
            state.full = false;
            std::mem::swap(&mut state.frame, into);
            self.changed.notify_all();
            return Polled::Frame;
        }
        match state.ended {
            true => Polled::End,
            false => Polled::Nothing,
        }
    }

    /// Returns the announcement of the next frame, or `None` if there is none.
    fn announced(&self, timeout: Option<Duration>) -> Option<Announced> {
        let mut state = self.state.lock();
        let waiting =
            |state: &mut State| state.announced.is_empty() && !state.text_ended && !state.closed;
        match timeout {
            Some(timeout) => {
                self.changed.wait_while_for(&mut state, waiting, timeout);
            }
            None => self.changed.wait_while(&mut state, waiting),
        }
        state.announced.pop_front()
    }

    /// Discards the announcements so far and all later ones.
    fn ignore_announcements(&self) {
        let mut state = self.state.lock();
        state.ignored = true;
        state.announced = VecDeque::new();
    }

    /// Reads frames until the end.
    pub fn pump(&self, mut pixels: Pixels) {
        let mut frame = VideoFrame::default();
        let mut number = 0;
        // Without the log, frames have no timestamps; wait for it only once.
        let mut timed = true;
        loop {
            let read = match &mut pixels {
                Pixels::Ppm(pipe) => {
                    let read = ppm(pipe, &mut frame);
                    frame.time = None;
                    if timed && matches!(read, Ok(true)) {
                        let announced = self.announced(Some(TIME_TIMEOUT));
                        timed = announced.is_some();
                        frame.time = announced.and_then(|a| a.time);
                        if !timed {
                            self.ignore_announcements();
                        }
                    }
                    read
                }
                Pixels::Padded(pipe) => match self.announced(None) {
                    Some(announced) => padded(pipe, announced, &mut frame),
                    None => Ok(false),
                },
            };
            let mut state = self.state.lock();
            match read {
                Ok(true) if !state.closed => {}
                Ok(_) => break,
                Err(e) => {
                    state.invalid = Some(e.to_string());
                    break;
                }
            }
            frame.number = number;
            let rate = state.rate;
            let by_rate = || Duration::try_from_secs_f64(number as f64 / rate?).ok();
            frame.time = frame.time.or_else(by_rate);
            number += 1;
            let waiting = |state: &mut State| state.full && !state.closed;
            self.changed.wait_while(&mut state, waiting);
            std::mem::swap(&mut state.frame, &mut frame);
            state.full = true;
            drop(state);
            self.changed.notify_all();
        }
        // Closes the pipe before signaling the end, so that a program that is still writing exits, too.
        drop(pixels);
        self.state.lock().ended = true;
        self.changed.notify_all();
    }
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Sets the size of a frame.
fn resize(frame: &mut VideoFrame, width: usize, height: usize) -> io::Result<()> {
    let side = 1..=MAX_SIDE;
    if !side.contains(&width) || !side.contains(&height) {
        return Err(invalid(format!(
            "a frame of {width}x{height}: each side must be from 1 to {MAX_SIDE}"
        )));
    }
    (frame.width, frame.height) = (width, height);
    frame.data.resize(3 * width * height, 0);
    Ok(())
}

fn cut(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => invalid("its output ended in the middle of a frame"),
        _ => error,
    }
}

/// Reads a binary PPM image of 8 bits. `false` at the end.
fn ppm(pipe: &mut impl BufRead, frame: &mut VideoFrame) -> io::Result<bool> {
    if pipe.fill_buf()?.is_empty() {
        return Ok(false);
    }
    let mut magic = [0; 2];
    pipe.read_exact(&mut magic).map_err(cut)?;
    if magic != *b"P6" {
        return Err(invalid("its output is not a sequence of PPM images"));
    }
    let mut fields = [0_usize; 3];
    for field in &mut fields {
        *field = ppm_number(pipe)?;
    }
    let [width, height, most] = fields;
    if most != 255 {
        return Err(invalid(format!(
            "its output has levels from 0 to {most}, not 255"
        )));
    }
    resize(frame, width, height)?;
    pipe.read_exact(&mut frame.data).map_err(cut)?;
    Ok(true)
}

/// Reads a decimal number with leading whitespace and one byte after it.
fn ppm_number(pipe: &mut impl Read) -> io::Result<usize> {
    let mut number = None;
    loop {
        let mut byte = [0];
        pipe.read_exact(&mut byte).map_err(cut)?;
        match (byte[0], number) {
            (digit @ b'0'..=b'9', before) => {
                let before: usize = before.unwrap_or(0);
                let next = before
                    .saturating_mul(10)
                    .saturating_add(usize::from(digit - b'0'));
                number = Some(next.min(1 << 20));
            }
            (byte, None) if byte.is_ascii_whitespace() => {}
            (byte, Some(number)) if byte.is_ascii_whitespace() => return Ok(number),
            _ => return Err(invalid("its output is not a sequence of PPM images")),
        }
    }
}

/// Reads padded rows.
fn padded(pipe: &mut impl Read, announced: Announced, frame: &mut VideoFrame) -> io::Result<bool> {
    resize(frame, announced.width, announced.height)?;
    frame.time = announced.time;
    let row = 3 * announced.width;
    let mut padding = [0; 3];
    for row in frame.data.chunks_exact_mut(row) {
        pipe.read_exact(row).map_err(cut)?;
        let padding = &mut padding[..row.len().next_multiple_of(4) - row.len()];
        pipe.read_exact(padding).map_err(cut)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ppm_images_are_read_one_after_another_and_damage_is_an_error() {
        let bytes = b"P6\n2 1\n255\nabcdefP6 1 1 255 xyz";
        let mut pipe = &bytes[..];
        let mut frame = VideoFrame::default();
        assert!(ppm(&mut pipe, &mut frame).unwrap());
        assert_eq!(
            (frame.width, frame.height, &frame.data[..]),
            (2, 1, &b"abcdef"[..])
        );
        assert!(ppm(&mut pipe, &mut frame).unwrap());
        assert_eq!(
            (frame.width, frame.height, &frame.data[..]),
            (1, 1, &b"xyz"[..])
        );
        assert!(!ppm(&mut pipe, &mut frame).unwrap());
        for cut in 1..17 {
            let read = ppm(&mut &bytes[..cut], &mut frame);
            assert!(read.unwrap_err().to_string().contains("middle"), "{cut}");
        }
        for (bytes, word) in [
            (&b"P5\n1 1\n255\n "[..], "PPM"),
            (b"P6\n1 1\n65535\n      ", "65535"),
            (b"P6\n0 1\n255\n", "0x1"),
            (b"P6\n99999999999999999999999 1\n255\n", "1048576x1"),
            (b"P6\nx 1\n255\n", "PPM"),
        ] {
            let error = ppm(&mut &bytes[..], &mut frame).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn padding_is_removed_and_missing_bytes_are_an_error() {
        let bytes = b"abcdef##ghijkl##";
        let announced = Announced {
            width: 2,
            height: 2,
            time: None,
        };
        let mut frame = VideoFrame::default();
        assert!(padded(&mut &bytes[..], announced, &mut frame).unwrap());
        assert_eq!(frame.data, b"abcdefghijkl");
        assert!(padded(&mut &bytes[..15], announced, &mut frame).is_err());
    }
}
