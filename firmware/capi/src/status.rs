//! Status codes, the message of the last error, and the guard around every call.

use std::{
    any::Any,
    cell::RefCell,
    ffi::{CString, c_char},
    panic::{AssertUnwindSafe, catch_unwind},
};

use loftup_bundle::BundleError;
use loftup_runtime::{RuntimeError, image::ImageError, track::TrackError};

/// Result of a call.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum loftup_status {
    /// Done.
    Ok = 0,
    /// A pointer is NULL, or a value is not one that the function takes.
    InvalidArgument = 1,
    /// A buffer is too short. The message says how long it must be.
    BufferTooShort = 2,
    /// There is no such file, head or part in the bundle.
    NotFound = 3,
    /// The bundle or a file is damaged, or not of a kind that this version reads.
    BadFile = 4,
    /// The engine is not available, or it failed.
    Engine = 5,
    /// There is not enough memory.
    OutOfMemory = 6,
    /// A defect of the library. The handle may be freed, but not used any more.
    Internal = 7,
}

/// Why a call failed.
#[derive(Debug)]
pub(crate) struct Error {
    status: loftup_status,
    message: String,
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(status: loftup_status, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, message }
    }

    pub fn argument(message: impl Into<String>) -> Self {
        Self::new(loftup_status::InvalidArgument, message)
    }
}

impl From<RuntimeError> for Error {
    fn from(e: RuntimeError) -> Self {
        let status = match &e {
            RuntimeError::Bundle(e) => bundle(e),
            RuntimeError::HeadFile { .. } | RuntimeError::HeadShape { .. } => {
                loftup_status::BadFile
            }
            RuntimeError::Backend(_)
            | RuntimeError::Kernel(_)
            | RuntimeError::BackboneOutput { .. } => loftup_status::Engine,
            RuntimeError::OutputTooLarge { .. } => loftup_status::OutOfMemory,
            _ => loftup_status::InvalidArgument,
        };
        Self::new(status, e.to_string())
    }
}

fn bundle(e: &BundleError) -> loftup_status {
    match e {
        BundleError::Io { source, .. } if source.kind() != std::io::ErrorKind::NotFound => {
            loftup_status::BadFile
        }
        BundleError::Io { .. } | BundleError::NoHead { .. } | BundleError::Lacks { .. } => {
            loftup_status::NotFound
        }
        _ => loftup_status::BadFile,
    }
}

impl From<BundleError> for Error {
    fn from(e: BundleError) -> Self {
        RuntimeError::from(e).into()
    }
}

impl From<ImageError> for Error {
    fn from(e: ImageError) -> Self {
        RuntimeError::from(e).into()
    }
}

impl From<TrackError> for Error {
    fn from(e: TrackError) -> Self {
        let status = match e {
            TrackError::TooLarge { .. } => loftup_status::OutOfMemory,
            _ => loftup_status::InvalidArgument,
        };
        Self::new(status, e.to_string())
    }
}

thread_local! {
    /// The message of the last call of this thread that failed.
    static LAST: RefCell<CString> = RefCell::default();
}

/// Runs the body of a function. An error or a panic becomes a status and the thread's message.
pub(crate) fn guard(body: impl FnOnce() -> Result<()>) -> loftup_status {
    // After a panic no handle is used any more, as the header says; what several threads share is
    // behind locks, and stays valid.
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let message = format!("internal error: {}", text_of(&*panic));
        Err(Error::new(loftup_status::Internal, message))
    });
    match result {
        Ok(()) => loftup_status::Ok,
        Err(e) => {
            let text = CString::new(e.message.replace('\0', "?")).unwrap_or_default();
            // A thread that ends has no message any more.
            let _ = LAST.try_with(|last| last.replace(text));
            e.status
        }
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("unknown")
}

/// Returns the message of the last call of this thread that failed, one line of UTF-8; empty if none
/// has. It is valid until the next call of this thread that fails. Calls that succeed leave it as it
/// is.
#[unsafe(no_mangle)]
pub extern "C" fn loftup_last_error() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ptr())
        .unwrap_or(c"".as_ptr())
}

/// Returns the name of a status, such as "invalid argument"; "unknown" for other numbers.
#[unsafe(no_mangle)]
pub extern "C" fn loftup_status_name(status: i32) -> *const c_char {
    const NAMES: [&std::ffi::CStr; 8] = [
        c"ok",
        c"invalid argument",
        c"buffer too short",
        c"not found",
        c"bad file",
        c"engine",
        c"out of memory",
        c"internal",
    ];
    let name = usize::try_from(status).ok().and_then(|i| NAMES.get(i));
    name.map_or(c"unknown", |name| name).as_ptr()
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    fn last() -> String {
        // SAFETY: the message of this thread, which nothing changes meanwhile.
        unsafe { CStr::from_ptr(loftup_last_error()) }
            .to_str()
            .unwrap()
            .into()
    }

    #[test]
    fn a_panic_is_a_status_and_a_message() {
        assert_eq!(guard(|| panic!("at the disco")), loftup_status::Internal);
        assert_eq!(last(), "internal error: at the disco");
        let n = 3;
        assert_eq!(guard(|| panic!("{n} of them")), loftup_status::Internal);
        assert_eq!(last(), "internal error: 3 of them");
        // A success leaves the message.
        assert_eq!(guard(|| Ok(())), loftup_status::Ok);
        assert_eq!(last(), "internal error: 3 of them");
        let nul = || Err(Error::argument("a\0b"));
        assert_eq!(guard(nul), loftup_status::InvalidArgument);
        assert_eq!(last(), "a?b");
        std::thread::spawn(|| assert_eq!(last(), ""))
            .join()
            .unwrap();
    }
}
