//! Faults of a serial or UDP line.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};
use loftup_wire::faults::{FaultInjector, Faults};

/// Buffer size of the fault injector.
const BUFFER: usize = 8192;

/// A line that corrupts written data.
#[derive(Debug)]
pub struct FaultyLine<IO> {
    inner: IO,
    injector: Box<FaultInjector<BUFFER>>,
    corrupted: Arc<AtomicU64>,
}

impl<IO> FaultyLine<IO> {
    /// Injects `faults` into data written to `inner`. `corrupted` counts the bytes that are flipped or
    /// dropped.
    pub fn new(inner: IO, faults: Faults, seed: u64, corrupted: Arc<AtomicU64>) -> Self {
        Self {
            inner,
            injector: Box::new(FaultInjector::new(seed, faults)),
            corrupted,
        }
    }

    /// The wrapped line.
    pub fn inner(&mut self) -> &mut IO {
        &mut self.inner
    }
}

impl<IO: ErrorType> ErrorType for FaultyLine<IO> {
    type Error = IO::Error;
}

impl<IO: Read> Read for FaultyLine<IO> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, IO::Error> {
        self.inner.read(out)
    }
}

impl<IO: ReadReady> ReadReady for FaultyLine<IO> {
    fn read_ready(&mut self) -> Result<bool, IO::Error> {
        self.inner.read_ready()
    }
}

impl<IO: Write> Write for FaultyLine<IO> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, IO::Error> {
        let bytes = bytes.get(..BUFFER / 2).unwrap_or(bytes);
        let before = *self.injector.counters();
        self.injector.write(bytes);
        let after = self.injector.counters();
        let corrupted = after.flipped + after.dropped - before.flipped - before.dropped;
        self.corrupted.fetch_add(corrupted, Relaxed);
        let mut out = [0; 256];
        // The injector also stalls and splits data; here that only delays the write.
        while self.injector.held() > 0 {
            let n = self.injector.read(&mut out);
            let mut rest = &out[..n];
            while !rest.is_empty() {
                let written = self.inner.write(rest)?;
                rest = &rest[written.min(rest.len())..];
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), IO::Error> {
        self.inner.flush()
    }
}

impl<IO: WriteReady> WriteReady for FaultyLine<IO> {
    fn write_ready(&mut self) -> Result<bool, IO::Error> {
        self.inner.write_ready()
    }
}
