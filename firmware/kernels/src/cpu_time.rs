//! CPU time, which hardly depends on the load of the machine.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// CPU time of this thread.
pub fn thread() -> Duration {
    read(ClockId::ThreadCPUTime)
}

/// CPU time of all threads of this process.
pub fn process() -> Duration {
    read(ClockId::ProcessCPUTime)
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_grow_with_work_and_the_process_has_that_of_its_threads() {
        for clock in [thread, process] {
            let start = clock();
            while clock() < start + Duration::from_millis(10) {
                std::hint::black_box(start);
            }
        }
        let of_thread = thread();
        assert!(process() >= of_thread);
    }
}
