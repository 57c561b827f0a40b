//! Messages of the library, such as the progress of an engine that is built.

use std::{
    ffi::{CString, c_char, c_void},
    sync::OnceLock,
};

use log::{LevelFilter, Log, Metadata, Record};

use crate::{
    border,
    status::{Error, guard, loftup_status},
};

/// Importance of a message.
#[repr(i32)]
#[derive(Debug, Clone, Copy)]
pub enum loftup_log_level {
    /// Something failed.
    Error = 1,
    /// Something to look at, such as the fallback taking over.
    Warn = 2,
    /// What is done, such as an engine being built.
    Info = 3,
    /// Details.
    Debug = 4,
}

/// Receives a message: its loftup_log_level, one line of UTF-8 that is valid during the call, and the
/// pointer that was given with the function. It may be called by any thread, by several at once, and
/// must not call the library.
pub type loftup_log_function =
    Option<unsafe extern "C" fn(level: i32, message: *const c_char, user: *mut c_void)>;

struct Callback {
    function: unsafe extern "C" fn(i32, *const c_char, *mut c_void),
    user: *mut c_void,
}

// SAFETY: the header allows calls by any thread, and the pointer is only passed on.
unsafe impl Send for Callback {}
// SAFETY: as above, also by several threads at once.
unsafe impl Sync for Callback {}

impl Log for Callback {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let text = record.args().to_string().replace('\0', "?");
            let text = CString::new(text).unwrap_or_default();
            // SAFETY: the function that the caller gave, with what the header says.
            unsafe { (self.function)(record.level() as i32, text.as_ptr(), self.user) }
        }
    }

    fn flush(&self) {}
}

/// Sends messages of the library to a function, for the rest of the process; without it there are none.
/// It can be called once.
///
/// @param level     The least important messages that are sent, a loftup_log_level.
/// @param function  Receives them.
/// @param user      Given to the function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_log_to(
    level: i32,
    function: loftup_log_function,
    user: *mut c_void,
) -> loftup_status {
    static CALLBACK: OnceLock<Callback> = OnceLock::new();
    guard(|| {
        let levels = [
            (loftup_log_level::Error as i32, LevelFilter::Error),
            (loftup_log_level::Warn as i32, LevelFilter::Warn),
            (loftup_log_level::Info as i32, LevelFilter::Info),
            (loftup_log_level::Debug as i32, LevelFilter::Debug),
        ];
        let level = border::choice(level, &levels, "level")?;
        let function = function.ok_or_else(|| Error::argument("function is NULL"))?;
        let callback = CALLBACK.get_or_init(|| Callback { function, user });
        log::set_logger(callback)
            .map_err(|_| Error::argument("messages of this process already go somewhere"))?;
        log::set_max_level(level);
        Ok(())
    })
}
