//! Time.

/// A clock that never runs backwards. embedded-hal has none; every chip has a
/// timer that can be one.
pub trait Clock {
    /// Microseconds since some moment in the past.
    fn now_us(&mut self) -> u64;

    /// Milliseconds since the same moment.
    fn now_ms(&mut self) -> u64 {
        self.now_us() / 1_000
    }
}

impl<C: Clock + ?Sized> Clock for &mut C {
    fn now_us(&mut self) -> u64 {
        (**self).now_us()
    }
}
