//! Runs work on several threads.

use std::thread;

/// Calls `work` on `threads` threads, including the current one, and returns the first error. If
/// the system cannot start that many threads, fewer are used.
pub(crate) fn on_threads<E: Send>(
    threads: usize,
    work: impl Fn() -> Result<(), E> + Sync,
) -> Result<(), E> {
    if threads <= 1 {
        return work();
    }
    let work = &work;
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map_while(|_| thread::Builder::new().spawn_scoped(scope, work).ok())
            .collect();
        let mut result = work();
        for other in others {
            match other.join() {
                Ok(r) => result = result.and(r),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        result
    })
}
