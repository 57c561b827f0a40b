//! TensorRT's logger: forwards to `log` and keeps recent warnings and errors.

use std::collections::VecDeque;
use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use parking_lot::{Mutex, MutexGuard};

use crate::abi::{self, InterfaceInfo, Pointer};
use crate::slots::Slots;

/// TensorRT's severity of a warning; errors are lower, less important messages higher.
pub(crate) const WARNING: i32 = 2;

/// Number of warnings and errors kept.
const REMEMBERED: usize = 64;

/// One message of TensorRT's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Number of the message among those kept since the library was opened.
    pub(crate) number: u64,
    /// 0 internal error, 1 error, 2 warning, 3 information, 4 verbose.
    pub severity: i32,
    /// The text.
    pub text: String,
}

impl Entry {
    /// Whether it is an error or internal error.
    pub fn is_error(&self) -> bool {
        self.severity < WARNING
    }
}

#[derive(Debug, Default)]
struct Memory {
    next: u64,
    entries: VecDeque<Entry>,
}

/// An implementation of `nvinfer1::ILogger`.
///
/// TensorRT's errors are logged as warnings, warnings as info, info as debug, and the rest as
/// trace, with target `tensorrt`. This is one level below TensorRT's own, because the cause of a
/// failed call is also part of the [`crate::Error`] that the call returns.
///
/// It is leaked, because TensorRT keeps the first logger that it is given until the process exits,
/// even after every object created with it is deleted.
#[derive(Debug)]
pub struct Logger {
    object: *mut LoggerObject,
}

// SAFETY: the object behind the pointer is never freed; its mutable state is behind a mutex; and
// TensorRT requires that a logger can be called from any thread.
unsafe impl Send for Logger {}
// SAFETY: as above.
unsafe impl Sync for Logger {}

/// The C++ object that TensorRT sees: the vtable pointer comes first.
#[repr(C)]
struct LoggerObject {
    table: *const Function,
    memory: Mutex<Memory>,
}

/// An entry of a vtable.
pub(crate) type Function = *const c_void;

/// Words before the address that a vtable pointer points to: offset to top, and type information.
/// Both are null here, because TensorRT uses neither.
const BEFORE: usize = 2;

/// Builds a vtable with `functions` at their slots and `filler` in all others, and leaks it.
/// Returns the address that a vtable pointer holds.
pub(crate) fn leak_table(
    length: usize,
    filler: Function,
    functions: &[(usize, Function)],
) -> *const Function {
    let mut table = vec![filler; BEFORE + length];
    table[..BEFORE].fill(ptr::null());
    for (slot, function) in functions {
        table[BEFORE + slot] = *function;
    }
    let table: &'static [Function] = Vec::leak(table);
    table[BEFORE..].as_ptr()
}

impl Logger {
    /// Creates the logger for a library with these slots. Called once per library.
    pub(crate) fn new(slots: &Slots) -> Logger {
        // Covers `getAPILanguage` (in slot 0 if `log` is not; 0 means C++) and both destructors,
        // which TensorRT never calls on a logger that it does not own.
        let filler = return_zero as extern "C" fn(Pointer) -> i32 as Function;
        let log = on_log as extern "C" fn(Pointer, i32, *const c_char) as Function;
        let mut functions = vec![(slots.logger_log.index(), log)];
        if slots.logger_info.exists() {
            let info = logger_info as extern "C" fn(Pointer) -> InterfaceInfo as Function;
            functions.push((slots.logger_info.index(), info));
        }
        let table = leak_table(8, filler, &functions);
        let object = LoggerObject {
            table,
            memory: Mutex::default(),
        };
        Logger {
            object: Box::leak(Box::new(object)),
        }
    }

    /// The pointer passed as `ILogger&`.
    pub(crate) fn pointer(&self) -> Pointer {
        self.object.cast()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // SAFETY: the object was leaked by `new` and is only accessed by shared reference.
        let object = unsafe { &*self.object };
        object.memory.lock()
    }

    /// A position in the log, for [`Logger::since`].
    pub(crate) fn mark(&self) -> u64 {
        self.memory().next
    }

    /// The warnings and errors since `mark` that are still kept. They include messages of
    /// concurrent calls on other threads.
    pub(crate) fn since(&self, mark: u64) -> Vec<Entry> {
        self.memory()
            .entries
            .iter()
            .filter(|entry| entry.number >= mark)
            .cloned()
            .collect()
    }

    /// The most recent warnings and errors, oldest first; at most 64.
    pub fn recent(&self) -> Vec<Entry> {
        self.since(0)
    }
}

extern "C" fn return_zero(_: Pointer) -> i32 {
    0
}

extern "C" fn logger_info(_: Pointer) -> InterfaceInfo {
    InterfaceInfo {
        kind: c"ILogger".as_ptr(),
        major: 1,
        minor: 0,
    }
}

extern "C" fn on_log(this: Pointer, severity: i32, text: *const c_char) {
    // A panic, for example in the program's own logger, must not unwind into C++.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: TensorRT passes a NUL-terminated string, or null.
        let Some(text) = (unsafe { abi::copy_text(text) }) else {
            return;
        };
        let level = match severity {
            ..WARNING => log::Level::Warn,
            WARNING => log::Level::Info,
            3 => log::Level::Debug,
            _ => log::Level::Trace,
        };
        log::log!(target: "tensorrt", level, "{}", text.trim_end());
        if severity <= WARNING {
            // SAFETY: TensorRT passes back the pointer that it was given: a leaked `LoggerObject`.
            let object = unsafe { &*this.cast::<LoggerObject>() };
            let mut memory = object.memory.lock();
            let number = memory.next;
            memory.next += 1;
            if memory.entries.len() == REMEMBERED {
                memory.entries.pop_front();
            }
            memory.entries.push_back(Entry {
                number,
                severity,
                text,
            });
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::virtual_call;
    use crate::version::Layout;

    /// Calls the logger through its vtable, as TensorRT does.
    fn write(logger: &Logger, layout: Layout, severity: i32, text: &std::ffi::CStr) {
        let slots = Slots::of(layout);
        // SAFETY: the logger's vtable has `log` with this signature at this slot.
        unsafe {
            virtual_call!(logger.pointer(), slots.logger_log,
                (i32 = severity, *const c_char = text.as_ptr()) -> ())
        };
    }

    #[test]
    fn a_line_written_through_the_table_is_remembered_in_every_layout() {
        for layout in Layout::ALL {
            let logger = Logger::new(&Slots::of(layout));
            write(&logger, layout, 1, c"first error");
            let mark = logger.mark();
            write(&logger, layout, 3, c"chatter");
            write(&logger, layout, 2, c"a warning");
            write(&logger, layout, 0, c"an internal error");
            let texts: Vec<_> = logger.since(mark).into_iter().map(|e| e.text).collect();
            assert_eq!(texts, ["a warning", "an internal error"], "{layout:?}");
            assert_eq!(logger.recent().len(), 3);
        }
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_the_newest() {
        let logger = Logger::new(&Slots::of(Layout::V10));
        for _ in 0..500 {
            write(&logger, Layout::V10, 1, c"again");
        }
        write(&logger, Layout::V10, 1, c"last");
        let recent = logger.recent();
        assert_eq!(
            (recent.len(), recent.last().unwrap().text.as_str()),
            (REMEMBERED, "last")
        );
    }

    #[test]
    fn later_versions_are_told_what_the_object_is() {
        for layout in [Layout::V11, Layout::Rtx1_5] {
            let slots = Slots::of(layout);
            let logger = Logger::new(&slots);
            // SAFETY: these vtables have `getInterfaceInfo` with this signature at this slot.
            let info =
                unsafe { virtual_call!(logger.pointer(), slots.logger_info, () -> InterfaceInfo) };
            // SAFETY: a static string of this crate.
            let kind = unsafe { abi::copy_text(info.kind) };
            assert_eq!(
                (kind.as_deref(), info.major, info.minor),
                (Some("ILogger"), 1, 0)
            );
        }
    }
}
