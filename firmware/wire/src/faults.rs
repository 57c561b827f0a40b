//! Fault injection for tests: bit flips, lost bytes, short reads and stalls. The
//! same seed gives the same faults.

/// Fault probabilities, in parts per million.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Probability that a bit flips.
    pub flip_ppm: u32,
    /// Probability that a byte is lost.
    pub drop_ppm: u32,
    /// Probability that a read returns only part of the available bytes.
    pub split_ppm: u32,
    /// Probability that a read starts a stall.
    pub stall_ppm: u32,
    /// Maximum length of a stall, in empty reads.
    pub stall_polls: u16,
}

/// What happens to a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It arrives as sent.
    Intact,
    /// It arrives with these bits flipped.
    Flipped(u8),
    /// It does not arrive.
    Dropped,
}

/// A xorshift64* generator (Vigna 2016).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator. Seed 0, which xorshift cannot leave, is replaced by 1.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Random(if seed == 0 { 1 } else { seed })
    }

    /// The next number.
    pub const fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) as u32
    }

    /// A number below `limit`, or 0 if `limit` is 0.
    pub const fn below(&mut self, limit: u32) -> u32 {
        ((self.next() as u64 * limit as u64) >> 32) as u32
    }

    /// True with a probability of `ppm` per million.
    pub const fn chance(&mut self, ppm: u32) -> bool {
        self.below(1_000_000) < ppm
    }
}

/// Statistics of injected faults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultCounters {
    /// Bytes written.
    pub written: u64,
    /// Bytes with flipped bits.
    pub flipped: u64,
    /// Bytes lost.
    pub dropped: u64,
    /// Short reads.
    pub splits: u64,
    /// Stalls started.
    pub stalls: u64,
}

/// One direction of a lossy link that buffers up to `N` bytes.
#[derive(Debug, Clone)]
pub struct FaultInjector<const N: usize> {
    held: heapless::Deque<u8, N>,
    faults: Faults,
    random: Random,
    stalled: u16,
    counters: FaultCounters,
}

impl<const N: usize> FaultInjector<N> {
    /// An empty link.
    #[must_use]
    pub const fn new(seed: u64, faults: Faults) -> Self {
        FaultInjector {
            held: heapless::Deque::new(),
            faults,
            random: Random::new(seed),
            stalled: 0,
            counters: FaultCounters {
                written: 0,
                flipped: 0,
                dropped: 0,
                splits: 0,
                stalls: 0,
            },
        }
    }

    /// Changes the fault probabilities.
    pub const fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Statistics since the start.
    #[must_use]
    pub const fn counters(&self) -> &FaultCounters {
        &self.counters
    }

    /// Bytes in transit.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Writes bytes until the link's buffer is full; returns the number
    /// written.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        self.write_traced(bytes, |_, _| {})
    }

    /// Same as [`write`](Self::write); also passes the position and fate of each
    /// byte written to `tell`.
    pub fn write_traced(&mut self, bytes: &[u8], mut tell: impl FnMut(usize, Fate)) -> usize {
        for (index, &byte) in bytes.iter().enumerate() {
            if self.held.is_full() {
                return index;
            }
            self.counters.written += 1;
            let fate = self.fate();
            match fate {
                Fate::Dropped => self.counters.dropped += 1,
                Fate::Intact => {
                    let _ = self.held.push_back(byte);
                }
                Fate::Flipped(mask) => {
                    self.counters.flipped += 1;
                    let _ = self.held.push_back(byte ^ mask);
                }
            }
            tell(index, fate);
        }
        bytes.len()
    }

    fn fate(&mut self) -> Fate {
        if self.random.chance(self.faults.drop_ppm) {
            return Fate::Dropped;
        }
        let mut mask = 0;
        if self.faults.flip_ppm > 0 {
            for bit in 0..8 {
                mask |= u8::from(self.random.chance(self.faults.flip_ppm)) << bit;
            }
        }
        if mask == 0 {
            Fate::Intact
        } else {
            Fate::Flipped(mask)
        }
    }

    /// Number of bytes that the next [`read`](Self::read) can return: 0 during
    /// a stall.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.stalled == 0 && !self.held.is_empty()
    }

    /// Reads up to `out.len()` bytes; returns the number read, which may be 0.
    pub fn read(&mut self, out: &mut [u8]) -> usize {
        if self.stalled > 0 {
            self.stalled -= 1;
            return 0;
        }
        if self.faults.stall_polls > 0 && self.random.chance(self.faults.stall_ppm) {
            let polls = self.random.below(u32::from(self.faults.stall_polls)) + 1;
            // This read counts as the first of them.
            self.stalled = u16::try_from(polls - 1).unwrap_or(0);
            self.counters.stalls += 1;
            return 0;
        }
        let mut length = out.len().min(self.held.len());
        if length > 1 && self.random.chance(self.faults.split_ppm) {
            self.counters.splits += 1;
            length = 1 + self.random.below(u32::try_from(length - 1).unwrap_or(0)) as usize;
        }
        for place in out.iter_mut().take(length) {
            *place = self.held.pop_front().unwrap_or_default();
        }
        length
    }
}

#[cfg(test)]
mod tests;
