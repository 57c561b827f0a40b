//! Handling of Ctrl-C that leaves no partial files behind.
//!
//! If nothing is being written, the process exits at once. Otherwise the command polls [`check`]
//! between its steps and returns an error, and temporary files are removed as after any error.
//! Training, which can be resumed, polls [`flag`] instead; a second Ctrl-C exits at once.

use std::{
    fmt,
    io::Write,
    ops::ControlFlow,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// The conventional exit code after SIGINT: 128 + 2.
pub const EXIT_CODE: u8 = 130;

static WRITING: AtomicUsize = AtomicUsize::new(0);
static PENDING: AtomicBool = AtomicBool::new(false);
static RESUMABLE: AtomicBool = AtomicBool::new(false);

/// Installs the handler for SIGINT, SIGTERM and SIGHUP.
pub fn install() {
    let handler = || {
        // Set before the other flags are read: a writer that starts now sees it.
        let again = PENDING.swap(true, Ordering::SeqCst);
        if RESUMABLE.load(Ordering::SeqCst) {
            if again {
                std::process::exit(EXIT_CODE.into());
            }
            tell(format_args!(
                "stopping after this step; press Ctrl-C again to stop immediately"
            ));
            return;
        }
        if WRITING.load(Ordering::SeqCst) == 0 {
            tell(format_args!("error: {Interrupted}"));
            std::process::exit(EXIT_CODE.into());
        }
    };
    if let Err(e) = ctrlc::set_handler(handler) {
        log::debug!("no signal handler, so Ctrl-C exits without cleaning up: {e}");
    }
}

/// Writes a line to standard error. Unlike `eprintln!` it does not panic if that is closed.
pub fn tell(line: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Whether an interrupt is pending.
pub fn pending() -> bool {
    PENDING.load(Ordering::SeqCst)
}

/// For callbacks that end their caller's work: `Break` if an interrupt is pending.
pub fn flow() -> ControlFlow<()> {
    match pending() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    }
}

/// Becomes true on an interrupt.
#[cfg(feature = "train")]
pub fn flag() -> &'static AtomicBool {
    &PENDING
}

/// An error if an interrupt is pending.
pub fn check() -> Result<(), Interrupted> {
    if pending() { Err(Interrupted) } else { Ok(()) }
}

/// Like [`check`], for callbacks that cannot return an error: unwinds to `main`, which reports
/// [`Interrupted`]. The panic hook is not called.
pub fn unwind_if_pending() {
    if pending() {
        std::panic::resume_unwind(Box::new(Interrupted));
    }
}

/// Marks that files are being written. Must be declared before the writer, so that it is dropped
/// after it.
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

/// Marks that the work can be resumed: an interrupt stops it after the current step, and a second one
/// exits at once. Its files must be complete at any time.
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

/// The command was interrupted.
#[derive(Debug, Clone, Copy)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted; nothing was written")
    }
}

impl std::error::Error for Interrupted {}
