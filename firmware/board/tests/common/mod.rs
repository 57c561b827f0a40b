//! A mock clock that advances only when told to or when someone waits.
#![allow(dead_code)]

use std::cell::Cell;
use std::rc::Rc;

use embedded_hal::delay::DelayNs;
use loftup_board::Clock;

/// Microseconds, shared by all clones.
#[derive(Clone, Default)]
pub struct Time {
    now_ns: Rc<Cell<u64>>,
    /// Added to each wait, to simulate a delay that takes too long.
    pub oversleep_ns: Rc<Cell<u64>>,
}

impl Time {
    pub fn set_us(&self, us: u64) {
        self.now_ns.set(us * 1_000);
    }
    pub fn add_us(&self, us: u64) {
        self.now_ns.set(self.now_ns.get() + us * 1_000);
    }
    pub fn us(&self) -> u64 {
        self.now_ns.get() / 1_000
    }
}

impl Clock for Time {
    fn now_us(&mut self) -> u64 {
        self.us()
    }
}

impl DelayNs for Time {
    fn delay_ns(&mut self, ns: u32) {
        let ns = u64::from(ns) + self.oversleep_ns.get();
        self.now_ns.set(self.now_ns.get() + ns);
    }
}
