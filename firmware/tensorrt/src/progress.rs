//! Progress reports and cancellation of builds.

use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::abi::{self, InterfaceInfo, Pointer};
use crate::logger::{Function, leak_table};
use crate::slots::Slots;

/// Receives progress reports of a build, concurrently from several TensorRT threads. Phases can be
/// nested: a phase names its parent.
pub trait Progress: Send + Sync {
    /// A phase of `steps` steps starts.
    fn phase_started(&self, phase: &str, parent: Option<&str>, steps: u32) {
        let _ = (phase, parent, steps);
    }

    /// Step `step` (from 0) of a phase is done. Return `false` to cancel the build at TensorRT's
    /// next opportunity.
    fn step_done(&self, phase: &str, step: u32) -> bool {
        let _ = (phase, step);
        true
    }

    /// A phase ends, complete or not.
    fn phase_finished(&self, phase: &str) {
        let _ = phase;
    }
}

/// An implementation of `nvinfer1::IProgressMonitor`; the vtable pointer comes first.
#[repr(C)]
pub(crate) struct Monitor {
    table: *const Function,
    progress: Arc<dyn Progress>,
    cancelled: AtomicBool,
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor")
            .field("cancelled", &self.is_cancelled())
            .finish_non_exhaustive()
    }
}

impl Monitor {
    /// `None` if this version has no progress monitor (TensorRT 8).
    pub(crate) fn new(slots: &Slots, progress: Arc<dyn Progress>) -> Option<Box<Monitor>> {
        if !slots.config_monitor.exists() {
            return None;
        }
        // The slots of this interface are the same in every version that has it.
        static TABLE: OnceLock<usize> = OnceLock::new();
        let table = TABLE.get_or_init(|| {
            let functions = [
                (
                    slots.monitor_info.index(),
                    monitor_info as extern "C" fn(Pointer) -> _ as Function,
                ),
                (
                    slots.monitor_start.index(),
                    phase_start as extern "C" fn(Pointer, *const c_char, *const c_char, i32)
                        as Function,
                ),
                (
                    slots.monitor_step.index(),
                    step_complete as extern "C" fn(Pointer, *const c_char, i32) -> bool as Function,
                ),
                (
                    slots.monitor_finish.index(),
                    phase_finish as extern "C" fn(Pointer, *const c_char) as Function,
                ),
            ];
            // `getAPILanguage` (0 is C++), and the destructors, which TensorRT leaves to the owner.
            let filler = return_zero as extern "C" fn(Pointer) -> i32 as Function;
            leak_table(8, filler, &functions) as usize
        });
        let table = *table as *const Function;
        Some(Box::new(Monitor {
            table,
            progress,
            cancelled: AtomicBool::new(false),
        }))
    }

    /// The pointer passed as `IProgressMonitor*`.
    pub(crate) fn pointer(&self) -> Pointer {
        std::ptr::from_ref(self).cast_mut().cast()
    }

    /// Whether the build has been cancelled.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// Clears an earlier cancellation.
    pub(crate) fn reset(&self) {
        self.cancelled.store(false, Ordering::SeqCst);
    }
}

extern "C" fn return_zero(_: Pointer) -> i32 {
    0
}

extern "C" fn monitor_info(_: Pointer) -> InterfaceInfo {
    InterfaceInfo {
        kind: c"IProgressMonitor".as_ptr(),
        major: 1,
        minor: 0,
    }
}

/// Calls `work` with the monitor; a panic cancels the build instead of unwinding into C++.
fn with(this: Pointer, work: impl FnOnce(&Monitor) -> bool) -> bool {
    // SAFETY: TensorRT passes back the pointer given to `setProgressMonitor`. The configuration
    // keeps the monitor alive as long as TensorRT can call it, and it is only accessed by shared
    // reference; its mutable state is atomic.
    let monitor = unsafe { &*this.cast::<Monitor>() };
    let go_on = catch_unwind(AssertUnwindSafe(|| work(monitor))).unwrap_or(false);
    if !go_on {
        monitor.cancelled.store(true, Ordering::SeqCst);
    }
    go_on
}

/// Copies a string of TensorRT.
fn text(pointer: *const c_char) -> Option<String> {
    // SAFETY: TensorRT passes null or a NUL-terminated string.
    unsafe { abi::copy_text(pointer) }
}

extern "C" fn phase_start(this: Pointer, phase: *const c_char, parent: *const c_char, steps: i32) {
    with(this, |monitor| {
        let phase = text(phase).unwrap_or_default();
        let steps = u32::try_from(steps).unwrap_or(0);
        monitor
            .progress
            .phase_started(&phase, text(parent).as_deref(), steps);
        true
    });
}

extern "C" fn step_complete(this: Pointer, phase: *const c_char, step: i32) -> bool {
    with(this, |monitor| {
        let phase = text(phase).unwrap_or_default();
        monitor
            .progress
            .step_done(&phase, u32::try_from(step).unwrap_or(0))
    })
}

extern "C" fn phase_finish(this: Pointer, phase: *const c_char) {
    with(this, |monitor| {
        monitor
            .progress
            .phase_finished(&text(phase).unwrap_or_default());
        true
    });
}
