//! A monotonic clock.

/// A monotonic clock. embedded-hal has no such trait; a hardware timer can
/// implement it.
pub trait Clock {
    /// Microseconds since an arbitrary time in the past.
    fn now_us(&mut self) -> u64;

    /// Milliseconds since the same time.
    fn now_ms(&mut self) -> u64 {
        self.now_us() / 1_000
    }
}

impl<C: Clock + ?Sized> Clock for &mut C {
    fn now_us(&mut self) -> u64 {
        (**self).now_us()
    }
}
