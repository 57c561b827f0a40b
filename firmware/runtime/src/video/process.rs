//! Child processes: started without a shell, killed when dropped, with their last message kept.

use std::{
    io::{self, BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

/// Maximum length of a line of output in bytes; longer lines are split.
const MAX_LINE: u64 = 4096;
/// Time to wait for the end of standard error, which a child of the program may keep open.
const STDERR_TIMEOUT: Duration = Duration::from_millis(200);
/// Polling interval while waiting for the exit.
const POLL: Duration = Duration::from_millis(5);

/// A running program, which is killed when dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    messages: Arc<Messages>,
}

#[derive(Debug, Default)]
struct Messages {
    /// The message that is kept, and whether standard error has ended.
    state: Mutex<(String, bool)>,
    changed: Condvar,
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    /// Starts `command`. `select` gets each line of standard error, if that is a pipe, and the message kept
    /// so far, which it may replace.
    ///
    /// # Errors
    /// The program or a thread cannot be started.
    pub fn start(
        command: &mut Command,
        mut select: impl FnMut(&str, &mut String) + Send + 'static,
    ) -> io::Result<Self> {
        let mut child = command.spawn()?;
        let stderr = child.stderr.take();
        let messages = Arc::new(Messages::default());
        let program = Self {
            child,
            messages: messages.clone(),
        };
        thread::Builder::new()
            .name("stderr".into())
            .spawn(move || {
                if let Some(stderr) = stderr {
                    lines(stderr, |line| {
                        log::debug!("{line}");
                        select(line, &mut messages.state.lock().0);
                    });
                }
                messages.state.lock().1 = true;
                messages.changed.notify_all();
            })?;
        Ok(program)
    }

    /// The child process, to take its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// The message kept so far; empty if there is none.
    pub fn message(&self) -> String {
        self.messages.state.lock().0.clone()
    }

    /// Waits for a program whose pipes are closed to exit, and kills it after `limit`. Returns its status
    /// and the message.
    ///
    /// # Errors
    /// The status cannot be read.
    pub fn finish(mut self, limit: Duration) -> io::Result<(ExitStatus, String)> {
        let end = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() >= end {
                self.child.kill()?;
                break self.child.wait()?;
            }
            thread::sleep(POLL);
        };
        let mut state = self.messages.state.lock();
        let changed = &self.messages.changed;
        changed.wait_while_for(&mut state, |(_, ended)| !*ended, STDERR_TIMEOUT);
        Ok((status, state.0.clone()))
    }
}

/// Keeps the last line. Use with [`Program::start`].
pub fn last_line(line: &str, kept: &mut String) {
    kept.replace_range(.., line);
}

/// Calls `line` for each line that is not blank, trimmed.
pub(super) fn lines(from: impl Read, mut line: impl FnMut(&str)) {
    let mut from = BufReader::new(from);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match from.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim();
        if !text.is_empty() {
            line(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[test]
    fn the_last_line_and_the_status_are_reported_even_if_a_child_keeps_the_pipe() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "sleep 60 & echo one >&2; echo ' two ' >&2; exit 3"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let program = Program::start(&mut command, last_line).unwrap();
        let (status, message) = program.finish(Duration::from_secs(60)).unwrap();
        assert_eq!((status.code(), message.as_str()), (Some(3), "two"));
    }

    #[test]
    fn long_lines_are_split_and_bytes_that_are_not_text_do_no_harm() {
        let mut text = vec![b'x'; 5000];
        text.extend(b"\n\n  \xff end");
        let mut seen = Vec::new();
        lines(text.as_slice(), |line| seen.push(line.chars().count()));
        assert_eq!(seen, [4096, 904, 5]);
    }
}
