//! An in-memory serial link with optional fault injection.

use core::cell::RefCell;
use core::convert::Infallible;

use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};
use loftup_wire::faults::{FaultInjector, Faults};

/// Buffer size of one direction, in bytes.
pub const HELD: usize = 4_096;

/// A link with two ends.
pub struct Cable {
    there: RefCell<FaultInjector<HELD>>,
    back: RefCell<FaultInjector<HELD>>,
}

impl Cable {
    /// A link that injects `faults` in both directions.
    pub const fn new(seed: u64, faults: Faults) -> Self {
        Cable {
            there: RefCell::new(FaultInjector::new(seed, faults)),
            back: RefCell::new(FaultInjector::new(seed ^ u64::MAX, faults)),
        }
    }

    /// The two ends.
    pub const fn ends(&self) -> (End<'_>, End<'_>) {
        (
            End::new(&self.there, &self.back),
            End::new(&self.back, &self.there),
        )
    }
}

/// One end of a link.
pub struct End<'c> {
    out: &'c RefCell<FaultInjector<HELD>>,
    input: &'c RefCell<FaultInjector<HELD>>,
    held: [u8; 32],
    at: usize,
    end: usize,
}

impl<'c> End<'c> {
    const fn new(
        out: &'c RefCell<FaultInjector<HELD>>,
        input: &'c RefCell<FaultInjector<HELD>>,
    ) -> Self {
        End {
            out,
            input,
            held: [0; 32],
            at: 0,
            end: 0,
        }
    }
}

impl ErrorType for End<'_> {
    type Error = Infallible;
}

impl ReadReady for End<'_> {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        if self.at == self.end {
            self.at = 0;
            self.end = self.input.borrow_mut().read(&mut self.held);
        }
        Ok(self.at < self.end)
    }
}

impl Read for End<'_> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, Infallible> {
        while !self.read_ready()? {}
        let held = &self.held[self.at..self.end];
        let length = held.len().min(out.len());
        out[..length].copy_from_slice(&held[..length]);
        self.at += length;
        Ok(length)
    }
}

impl WriteReady for End<'_> {
    fn write_ready(&mut self) -> Result<bool, Infallible> {
        Ok(self.out.borrow().held() < HELD)
    }
}

impl Write for End<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        Ok(self.out.borrow_mut().write(bytes))
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}
