//! Limits the CPU use of the process by dropping frames before they are processed.

use loftup_runtime::cpu_time;

use super::supervisor::SECOND_US;

/// Unused CPU time is saved for up to this much wall time, in microseconds.
const SAVED_US: f64 = SECOND_US as f64 / 2.0;

/// A token bucket of CPU time.
#[derive(Debug)]
pub(super) struct CpuLimit {
    /// Average number of busy cores.
    cpus: f64,
    /// CPU time that may be used, in microseconds. Frames that have started may make it negative.
    allowance_us: f64,
    /// Wall time and CPU time of the last update, in microseconds.
    last: Option<(u64, u64)>,
}

impl CpuLimit {
    /// Creates a limit of `cpus` busy cores on average; `None` for 0, which is no limit.
    pub(super) fn new(cpus: f64) -> Option<Self> {
        (cpus > 0.0).then_some(Self {
            cpus,
            allowance_us: 0.0,
            last: None,
        })
    }

    /// Ignores the CPU time used until the next frame.
    pub(super) fn pause(&mut self) {
        self.last = None;
    }

    /// Whether a frame may start now, given the CPU time of the process since its start.
    pub(super) fn allows(&mut self, now_us: u64, cpu_us: u64) -> bool {
        let (wall, cpu) = self
            .last
            .replace((now_us, cpu_us))
            .unwrap_or((now_us, cpu_us));
        let earned = self.cpus * now_us.saturating_sub(wall) as f64;
        let used = cpu_us.saturating_sub(cpu) as f64;
        self.allowance_us = (self.allowance_us + earned - used).min(self.cpus * SAVED_US);
        self.allowance_us >= 0.0
    }
}

/// CPU time of all threads of this process, in microseconds.
pub(super) fn process_cpu_us() -> u64 {
    u64::try_from(cpu_time::process().as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offers frames of `cost_us` CPU microseconds at 100 Hz for 20 s; returns how many were allowed in the
    /// second half.
    fn allowed(cpus: f64, cost_us: u64) -> u64 {
        let mut limit = CpuLimit::new(cpus).unwrap();
        let (mut cpu, mut count) = (5_000_000, 0);
        for frame in 0..2000 {
            if limit.allows(10_000 * frame, cpu) {
                cpu += cost_us;
                count += u64::from(frame >= 1000);
            }
        }
        count
    }

    #[test]
    fn the_average_is_the_limit() {
        // 10 s with 0.5 CPUs are 5 s of CPU time: 100 frames of 50 ms.
        assert!(allowed(0.5, 50_000).abs_diff(100) <= 1);
        assert!(allowed(2.0, 50_000).abs_diff(400) <= 1);
        // Frames that cost more than is saved.
        assert!(allowed(0.25, 2_000_000).abs_diff(1) <= 1);
    }

    #[test]
    fn cheap_frames_are_not_limited() {
        assert_eq!(allowed(0.5, 4_000), 1000);
        assert!(CpuLimit::new(0.0).is_none());
    }

    #[test]
    fn a_pause_allows_only_a_short_burst() {
        let mut limit = CpuLimit::new(1.0).unwrap();
        limit.allows(0, 0);
        // An hour later half a second is saved.
        let hour = 3600 * SECOND_US;
        assert!(limit.allows(hour, 0));
        assert!(limit.allows(hour, 499_000));
        assert!(!limit.allows(hour, 501_000));
    }

    #[test]
    fn a_model_that_is_loaded_does_not_count() {
        let mut limit = CpuLimit::new(0.5).unwrap();
        assert!(limit.allows(0, 0));
        limit.pause();
        assert!(limit.allows(SECOND_US, 100 * SECOND_US));
        assert!(!limit.allows(SECOND_US, 101 * SECOND_US));
    }

    #[test]
    fn the_cpu_time_of_the_process_grows() {
        let start = process_cpu_us();
        while process_cpu_us() < start + 10_000 {
            std::hint::black_box(start);
        }
    }
}
