//! Ctrl-C, so that no half-written file is left behind.
//!
//! Where nothing is being written, the process ends at once. While something is, the work looks at
//! [`check`] between its steps and fails like any other, and temporary files go as on every failure.
//! Work that can be gone on from looks at [`flag`] instead, and can be ended at once by a second
//! Ctrl-C.

use std::{
    fmt,
    io::Write,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// What a shell reports for a command that was stopped with Ctrl-C: 128 + SIGINT.
pub const EXIT_CODE: u8 = 130;

static WRITING: AtomicUsize = AtomicUsize::new(0);
static PENDING: AtomicBool = AtomicBool::new(false);
static RESUMABLE: AtomicBool = AtomicBool::new(false);

/// Takes over Ctrl-C, and requests to terminate.
pub fn install() {
    let handler = || {
        // Asked before it is looked who writes: a writer that begins now will see it.
        let again = PENDING.swap(true, Ordering::SeqCst);
        if RESUMABLE.load(Ordering::SeqCst) {
            if again {
                std::process::exit(EXIT_CODE.into());
            }
            tell(format_args!(
                "stopping after this step; press Ctrl-C again to stop at once"
            ));
            return;
        }
        if WRITING.load(Ordering::SeqCst) == 0 {
            tell(format_args!("error: {Interrupted}"));
            std::process::exit(EXIT_CODE.into());
        }
    };
    if let Err(e) = ctrlc::set_handler(handler) {
        log::debug!("Ctrl-C ends the program without cleaning up: {e}");
    }
}

/// Writes a line to standard error. That nobody reads it any more is no reason to panic.
pub fn tell(line: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Somebody has asked to stop.
pub fn pending() -> bool {
    PENDING.load(Ordering::SeqCst)
}

/// True once somebody has asked to stop.
#[cfg(feature = "train")]
pub fn flag() -> &'static AtomicBool {
    &PENDING
}

/// An error once somebody has asked to stop.
pub fn check() -> Result<(), Interrupted> {
    if pending() { Err(Interrupted) } else { Ok(()) }
}

/// Ends the work once somebody has asked to stop, from inside a callback that cannot return an
/// error: unwinds to `main`, which says what [`check`] would have said. No panic is reported.
pub fn unwind_if_pending() {
    if pending() {
        std::panic::resume_unwind(Box::new(Interrupted));
    }
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

/// While this lives, the work stops where it can be gone on from when it is asked to, and at once
/// when it is asked twice: its files are whole at any moment.
#[cfg(feature = "train")]
#[derive(Debug)]
pub struct Resumable(());

#[cfg(feature = "train")]
impl Resumable {
    pub fn begin() -> Result<Self, Interrupted> {
        RESUMABLE.store(true, Ordering::SeqCst);
        let resumable = Self(());
        check().map(|()| resumable)
    }
}

#[cfg(feature = "train")]
impl Drop for Resumable {
    fn drop(&mut self) {
        RESUMABLE.store(false, Ordering::SeqCst);
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
