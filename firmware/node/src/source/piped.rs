//! Raw images from another program, mainly GStreamer, which supports the cameras of a Jetson.
//!
//! The program writes RGB rows to its standard output, each padded to a multiple of four bytes as
//! GStreamer does. A thread reads them and keeps the newest image.

use std::{
    io::{ErrorKind, Read},
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use loftup_runtime::video::{EXIT_TIMEOUT, Program, last_line};
use parking_lot::{Condvar, Mutex};

use super::{Clock, MAX_SLEEP, Poll, Source, SourceError};
use crate::frame::RawFrame;

/// Interval between two starts of a failing program.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Returns the command to start.
pub type Launcher = Box<dyn Fn() -> Command + Send>;

/// Images of a fixed size from the standard output of a program.
pub struct Piped {
    name: String,
    launch: Launcher,
    width: usize,
    height: usize,
    running: Option<Running>,
    retry_at: Instant,
    /// Number of images of earlier runs.
    before: u64,
    repeat: bool,
}

struct Running {
    program: Program,
    inbox: Arc<Inbox>,
}

#[derive(Default)]
struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    /// Images read so far.
    count: u64,
    stamp_us: u64,
    fresh: bool,
    ended: bool,
    /// Whether the output ended in the middle of an image.
    truncated: bool,
}

/// Bytes from one row to the next.
fn stride(width: usize) -> usize {
    (3 * width).next_multiple_of(4)
}

impl Piped {
    /// Reads images of `width` x `height` from the program that `launch` returns. `name` is for
    /// messages.
    pub fn new(name: &str, width: usize, height: usize, launch: Launcher) -> Self {
        Self {
            name: name.into(),
            launch,
            width,
            height,
            running: None,
            retry_at: Instant::now(),
            before: 0,
            repeat: false,
        }
    }

    /// Sets whether the program is restarted after it has exited normally, as at the end of a stream.
    pub fn repeated(mut self, repeat: bool) -> Self {
        self.repeat = repeat;
        self
    }

    /// Reads images from GStreamer elements that output raw video, such as
    /// `nvarguscamerasrc ! nvvidconv`. Converts and scales them.
    pub fn gstreamer(pipeline: &str, width: usize, height: usize) -> Self {
        let elements = format!(
            "{pipeline} ! videoconvert ! videoscale ! \
             video/x-raw,format=RGB,width={width},height={height} ! fdsink fd=1 sync=false"
        );
        let launch = move || {
            let mut command = Command::new("gst-launch-1.0");
            command.arg("-q").args(elements.split_whitespace());
            command
        };
        Self::new("gst-launch-1.0", width, height, Box::new(launch))
    }

    fn failed(&self, what: impl std::fmt::Display) -> SourceError {
        SourceError::Other(format!("{}: {what}", self.name))
    }

    fn start(&mut self, clock: Clock) -> Result<(), SourceError> {
        self.retry_at = Instant::now() + RETRY_INTERVAL;
        let mut command = (self.launch)();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut program = Program::start(&mut command, last_line).map_err(|e| match e.kind() {
            ErrorKind::NotFound => self.failed("not found: install it"),
            _ => self.failed(e),
        })?;
        let out = program.child().stdout.take();
        let inbox = Arc::new(Inbox::default());
        let size = stride(self.width) * self.height;
        let reader = thread::Builder::new().name("images".into()).spawn({
            let inbox = inbox.clone();
            move || match out {
                Some(out) => read(out, size, clock, &inbox),
                None => inbox.state.lock().ended = true,
            }
        });
        reader.map_err(|e| self.failed(e))?;
        // Kills the program when dropped.
        self.running = Some(Running { program, inbox });
        Ok(())
    }

    /// Handles a program whose output has ended.
    fn end(&mut self, running: Running) -> Result<Poll, SourceError> {
        let state = running.inbox.state.lock();
        self.before += state.count;
        let truncated = state.truncated;
        drop(state);
        let ended = running.program.finish(EXIT_TIMEOUT);
        let (status, message) = ended.map_err(|e| self.failed(e))?;
        if status.success() && !truncated {
            return Ok(if self.repeat {
                Poll::Nothing
            } else {
                Poll::End
            });
        }
        let how = if truncated {
            " in the middle of an image: check source.size"
        } else {
            ""
        };
        let message = if message.is_empty() {
            String::new()
        } else {
            format!(": {message}")
        };
        Err(self.failed(format!("it ended with {status}{how}{message}")))
    }
}

fn read(mut out: impl Read, size: usize, clock: Clock, inbox: &Inbox) {
    let mut bytes = vec![0; size];
    let mut filled = 0;
    loop {
        match out.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
        if filled < size {
            continue;
        }
        filled = 0;
        let mut state = inbox.state.lock();
        std::mem::swap(&mut state.bytes, &mut bytes);
        state.count += 1;
        state.stamp_us = clock.now_us();
        state.fresh = true;
        drop(state);
        inbox.changed.notify_one();
        bytes.resize(size, 0);
    }
    let mut state = inbox.state.lock();
    (state.ended, state.truncated) = (true, filled > 0);
    drop(state);
    inbox.changed.notify_one();
}

impl Source for Piped {
    fn next(&mut self, clock: &Clock, into: &mut RawFrame) -> Result<Poll, SourceError> {
        let Some(running) = &self.running else {
            let wait = self.retry_at.saturating_duration_since(Instant::now());
            thread::sleep(wait.min(MAX_SLEEP));
            if wait <= MAX_SLEEP {
                self.start(*clock)?;
            }
            return Ok(Poll::Nothing);
        };
        let inbox = running.inbox.clone();
        let mut state = inbox.state.lock();
        let waiting = |state: &mut State| !state.fresh && !state.ended;
        inbox.changed.wait_while_for(&mut state, waiting, MAX_SLEEP);
        if state.fresh {
            state.fresh = false;
            into.number = self.before + state.count - 1;
            into.stamp_us = state.stamp_us;
            (into.width, into.height) = (self.width, self.height);
            into.bytes.clear();
            for row in state.bytes.chunks_exact(stride(self.width)) {
                into.bytes.extend_from_slice(&row[..3 * self.width]);
            }
            return Ok(Poll::Frame);
        }
        let ended = state.ended;
        drop(state);
        match self.running.take_if(|_| ended) {
            Some(running) => self.end(running),
            None => Ok(Poll::Nothing),
        }
    }
}
