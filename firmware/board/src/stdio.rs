//! embedded-io over non-blocking streams of the operating system: serial lines,
//! pipes, sockets.

use std::io::{self, ErrorKind};
use std::thread;
use std::time::{Duration, Instant};

use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};

use crate::Clock;

/// Polling interval of blocking calls.
const NAP: Duration = Duration::from_micros(200);

/// An embedded-io adapter for a non-blocking stream `T`. `T` must already be in
/// non-blocking mode, otherwise `read_ready` blocks.
#[derive(Debug)]
pub struct NonBlocking<T> {
    stream: T,
    input: [u8; 256],
    at: usize,
    end: usize,
    closed: bool,
    output: [u8; 1024],
    waiting: usize,
}

impl<T> NonBlocking<T> {
    /// Wraps `stream`.
    pub const fn new(stream: T) -> Self {
        NonBlocking {
            stream,
            input: [0; 256],
            at: 0,
            end: 0,
            closed: false,
            output: [0; 1024],
            waiting: 0,
        }
    }

    /// The stream.
    pub const fn get(&mut self) -> &mut T {
        &mut self.stream
    }
}

impl<T> ErrorType for NonBlocking<T> {
    type Error = io::Error;
}

/// `None` if the call would block.
fn now_or_later(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(length) => Ok(Some(length)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl<T: io::Read> ReadReady for NonBlocking<T> {
    fn read_ready(&mut self) -> io::Result<bool> {
        if self.at < self.end || self.closed {
            return Ok(true);
        }
        let Some(length) = now_or_later(self.stream.read(&mut self.input))? else {
            return Ok(false);
        };
        (self.at, self.end) = (0, length.min(self.input.len()));
        self.closed = length == 0;
        Ok(true)
    }
}

impl<T: io::Read> Read for NonBlocking<T> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while !self.read_ready()? {
            thread::sleep(NAP);
        }
        let waiting = self.input.get(self.at..self.end).unwrap_or_default();
        let length = waiting.len().min(out.len());
        for (place, byte) in out.iter_mut().zip(waiting) {
            *place = *byte;
        }
        self.at += length;
        Ok(length)
    }
}

impl<T: io::Write> NonBlocking<T> {
    /// Writes as much as possible without blocking.
    fn drain(&mut self) -> io::Result<()> {
        while self.waiting > 0 {
            let waiting = self.output.get(..self.waiting).unwrap_or_default();
            match now_or_later(self.stream.write(waiting))? {
                None => break,
                Some(0) => return Err(ErrorKind::WriteZero.into()),
                Some(written) => {
                    self.output.copy_within(written..self.waiting, 0);
                    self.waiting -= written;
                }
            }
        }
        Ok(())
    }
}

impl<T: io::Write> WriteReady for NonBlocking<T> {
    fn write_ready(&mut self) -> io::Result<bool> {
        self.drain()?;
        Ok(self.waiting < self.output.len())
    }
}

impl<T: io::Write> Write for NonBlocking<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        while !self.write_ready()? {
            thread::sleep(NAP);
        }
        let room = self.output.get_mut(self.waiting..).unwrap_or_default();
        let length = room.len().min(bytes.len());
        for (place, byte) in room.iter_mut().zip(bytes) {
            *place = *byte;
        }
        self.waiting += length;
        self.drain()?;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.drain()?;
        while self.waiting > 0 {
            thread::sleep(NAP);
            self.drain()?;
        }
        self.stream.flush()
    }
}

/// The monotonic clock of the operating system, relative to its creation.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock(Instant);

impl SystemClock {
    /// A clock that starts at 0.
    #[must_use]
    pub fn new() -> Self {
        SystemClock(Instant::now())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now_us(&mut self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}
