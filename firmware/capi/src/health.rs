//! Health of the engine.

use std::ffi::c_char;

use crate::{
    border::{self, Growing, copy_text},
    model::loftup_model,
    status::{guard, loftup_status},
};

/// Which engine answers, and what went wrong since the bundle was opened.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct loftup_health {
    /// sizeof(loftup_health), set by the caller.
    pub size: usize,
    /// 1 while the fallback answers, 0 while the preferred engine does.
    pub degraded: i32,
    /// Always 0.
    pub reserved: i32,
    /// Runs completed by the preferred engine.
    pub preferred_runs: u64,
    /// Runs completed by the fallback.
    pub fallback_runs: u64,
    /// Errors of the preferred engine, while loading or running.
    pub errors: u64,
    /// Its runs with outputs that were not finite.
    pub not_finite: u64,
    /// Comparisons with the reference outputs of the bundle that it failed.
    pub wrong: u64,
    /// Its time-outs.
    pub timeouts: u64,
    /// How often it was tried again.
    pub retries: u64,
    /// Threads that hang in it now.
    pub stuck: u64,
    /// Name, version and device of the engine that answers, UTF-8, cut to what fits.
    pub engine: [c_char; 128],
    /// Why the preferred engine does not answer; empty if it does.
    pub reason: [c_char; 384],
}

// SAFETY: `repr(C)`, the size is first, and zeros are numbers.
unsafe impl Growing for loftup_health {
    const NAME: &'static str = "loftup_health";
}

/// Tells which engine answers, and why.
///
/// @param health  Gets it; health->size must be set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_model_get_health(
    model: *const loftup_model,
    health: *mut loftup_health,
) -> loftup_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        let perceptor = &border::get(model, "model")?.perceptor;
        let found = perceptor.health();
        let counters = found.counters;
        let mut result = loftup_health {
            size: size_of::<loftup_health>(),
            degraded: found.reason().is_some().into(),
            reserved: 0,
            preferred_runs: counters.preferred_runs,
            fallback_runs: counters.fallback_runs,
            errors: counters.errors,
            not_finite: counters.not_finite,
            wrong: counters.wrong,
            timeouts: counters.timeouts,
            retries: counters.retries,
            stuck: counters.stuck,
            engine: [0; 128],
            reason: [0; 384],
        };
        copy_text(&perceptor.engine(), &mut result.engine);
        copy_text(found.reason().unwrap_or_default(), &mut result.reason);
        border::results(health, result)
    })
}
