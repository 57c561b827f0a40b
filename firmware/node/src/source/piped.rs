//! Raw images from a program: from GStreamer above all, which knows the cameras of a Jetson.
//!
//! The program writes rows of RGB, each padded to a multiple of four bytes as GStreamer does, to its
//! standard output. A thread reads them, and the newest wins.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{Clock, NAP, Poll, Source, SourceError};
use crate::frame::RawFrame;

/// Between two starts of a program that fails.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest that its last words are waited for.
const WORDS: Duration = Duration::from_millis(200);
/// Longest line of its standard error that is kept.
const LINE: u64 = 400;

/// Makes the program's command line, as often as it is started.
pub type Launcher = Box<dyn Fn() -> Command + Send>;

/// Images of one size from a program's standard output.
pub struct Piped {
    name: String,
    launch: Launcher,
    width: usize,
    height: usize,
    running: Option<Running>,
    retry_at: Instant,
    /// Images of the runs before this one.
    before: u64,
}

struct Running {
    child: Child,
    inbox: Arc<Inbox>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
    /// Whether it ended in the middle of an image.
    cut: bool,
    last_words: String,
    /// Whether no more words will come.
    quiet: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes from one row to the next.
fn stride(width: usize) -> usize {
    (3 * width).next_multiple_of(4)
}

impl Piped {
    /// Images of `width` x `height` from what `launch` starts; `name` is for messages.
    pub fn new(name: &str, width: usize, height: usize, launch: Launcher) -> Self {
        Self {
            name: name.into(),
            launch,
            width,
            height,
            running: None,
            retry_at: Instant::now(),
            before: 0,
        }
    }

    /// Images from the elements of a GStreamer pipeline that end in some kind of raw video, such
    /// as `nvarguscamerasrc ! nvvidconv`. They are converted and scaled here.
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
        self.retry_at = Instant::now() + AGAIN;
        let spawned = (self.launch)()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = spawned.map_err(|e| match e.kind() {
            ErrorKind::NotFound => self.failed("not found: install it"),
            _ => self.failed(e),
        })?;
        let (out, words) = (child.stdout.take(), child.stderr.take());
        let inbox = Arc::new(Inbox::default());
        let size = stride(self.width) * self.height;
        // From here on it is ended whatever happens.
        self.running = Some(Running {
            child,
            inbox: inbox.clone(),
        });
        let reader = thread::Builder::new().name("pictures".into()).spawn({
            let inbox = inbox.clone();
            move || match out {
                Some(out) => read(out, size, clock, &inbox),
                None => inbox.lock().ended = true,
            }
        });
        let listener = thread::Builder::new()
            .name("last words".into())
            .spawn(move || {
                if let Some(words) = words {
                    listen(words, &inbox);
                }
            });
        match reader.and(listener) {
            Ok(_) => Ok(()),
            Err(e) => {
                self.running = None;
                Err(self.failed(e))
            }
        }
    }

    /// What became of a program that wrote its last image.
    fn end(&mut self, mut running: Running) -> Result<Poll, SourceError> {
        self.before += running.inbox.lock().count;
        let status = running.child.wait().map_err(|e| self.failed(e))?;
        // A program that it started may still hold the line: so not for ever.
        let state = running.inbox.lock();
        let changed = &running.inbox.changed;
        let waited = changed.wait_timeout_while(state, WORDS, |state| !state.quiet);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let (cut, words) = (state.cut, state.last_words.clone());
        drop(state);
        if status.success() && !cut {
            return Ok(Poll::End);
        }
        let how = if cut {
            " in the middle of an image: check source.size"
        } else {
            ""
        };
        let words = if words.is_empty() {
            String::new()
        } else {
            format!(": {words}")
        };
        Err(self.failed(format!("it ended with {status}{how}{words}")))
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
        let mut state = inbox.lock();
        std::mem::swap(&mut state.bytes, &mut bytes);
        state.count += 1;
        state.stamp_us = clock.now_us();
        state.fresh = true;
        drop(state);
        inbox.changed.notify_one();
        bytes.resize(size, 0);
    }
    let mut state = inbox.lock();
    (state.ended, state.cut) = (true, filled > 0);
    drop(state);
    inbox.changed.notify_one();
}

/// Keeps the last line that says something.
fn listen(words: impl Read, inbox: &Inbox) {
    let mut words = BufReader::new(words);
    let mut line = Vec::new();
    loop {
        line.clear();
        match words.by_ref().take(LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim();
        if !text.is_empty() {
            log::debug!("{text}");
            inbox.lock().last_words = text.into();
        }
    }
}

impl Source for Piped {
    fn next(&mut self, clock: &Clock, into: &mut RawFrame) -> Result<Poll, SourceError> {
        let Some(running) = &self.running else {
            let wait = self.retry_at.saturating_duration_since(Instant::now());
            thread::sleep(wait.min(NAP));
            if wait <= NAP {
                self.start(*clock)?;
            }
            return Ok(Poll::Nothing);
        };
        let inbox = running.inbox.clone();
        let state = inbox.lock();
        let waits = |state: &mut State| !state.fresh && !state.ended;
        let waited = inbox.changed.wait_timeout_while(state, NAP, waits);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
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
