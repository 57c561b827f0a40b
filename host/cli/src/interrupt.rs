//! Ctrl-C, so that no half-written file is left behind.
//!
//! Where nothing is being written, the process ends at once. While something is, the work looks at
//! [`check`] between its steps and fails like any other, and temporary files go as on every failure.

use std::{
    fmt,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// What a shell reports for a command that was stopped with Ctrl-C: 128 + SIGINT.
pub const EXIT_CODE: u8 = 130;

static WRITING: AtomicUsize = AtomicUsize::new(0);
static PENDING: AtomicBool = AtomicBool::new(false);

/// Takes over Ctrl-C, and requests to terminate.
pub fn install() {
    let handler = || {
        // Asked before it is looked who writes: a writer that begins now will see it.
        PENDING.store(true, Ordering::SeqCst);
        if WRITING.load(Ordering::SeqCst) == 0 {
            eprintln!("error: {Interrupted}");
            std::process::exit(EXIT_CODE.into());
        }
    };
    if let Err(e) = ctrlc::set_handler(handler) {
        log::debug!("Ctrl-C ends the program without cleaning up: {e}");
    }
}

/// Somebody has asked to stop.
pub fn pending() -> bool {
    PENDING.load(Ordering::SeqCst)
}

/// An error once somebody has asked to stop.
pub fn check() -> Result<(), Interrupted> {
    if pending() { Err(Interrupted) } else { Ok(()) }
}

/// Something is being written as long as this lives. It must outlive the writer, and be declared
/// before it.
#[derive(Debug)]
pub struct Writing(());

impl Writing {
    pub fn begin() -> Result<Self, Interrupted> {
        WRITING.fetch_add(1, Ordering::SeqCst);
        let writing = Self(());
        check().map(|()| writing)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        WRITING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The work was stopped.
#[derive(Debug, Clone, Copy)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted; nothing was written")
    }
}

impl std::error::Error for Interrupted {}
