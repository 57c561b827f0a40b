//! Faults of a source.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use loftup_wire::faults::Random;

use crate::{
    frame::RawFrame,
    source::{Clock, Poll, Source, SourceError},
};

/// A fault of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceFault {
    /// The frame is lost.
    Drop,
    /// The frame is delivered twice.
    Duplicate,
    /// The next frame is delivered before it.
    Reorder,
    /// Bytes are missing.
    Truncate,
    /// The frame has a wrong size.
    WrongSize,
    /// The source delivers nothing for a while.
    Stuck,
    /// The time stamp is off by an hour.
    TimeJump,
}

impl SourceFault {
    /// All faults.
    pub const ALL: [Self; 7] = [
        Self::Drop,
        Self::Duplicate,
        Self::Reorder,
        Self::Truncate,
        Self::WrongSize,
        Self::Stuck,
        Self::TimeJump,
    ];

    /// The name in `--inject`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Duplicate => "duplicate",
            Self::Reorder => "reorder",
            Self::Truncate => "truncate",
            Self::WrongSize => "wrong-size",
            Self::Stuck => "stuck",
            Self::TimeJump => "time-jump",
        }
    }
}

/// Number of injected faults, by kind. Shared by all sources of a run.
#[derive(Debug, Default)]
pub struct Injected([AtomicU64; SourceFault::ALL.len()]);

impl Injected {
    /// Number of injected faults of this kind.
    pub fn count(&self, fault: SourceFault) -> u64 {
        self.0[fault as usize].load(Relaxed)
    }
}

/// Probabilities of faults, in parts per million frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SourceFaults {
    /// In the order of [`SourceFault::ALL`].
    pub ppm: [u32; SourceFault::ALL.len()],
    /// Duration of a stuck source, in milliseconds.
    pub stuck_ms: u64,
}

/// A source with injected faults, deterministic for a seed.
pub struct FaultySource<S> {
    inner: S,
    faults: SourceFaults,
    random: Random,
    injected: Arc<Injected>,
    /// A frame to deliver next.
    held: Option<RawFrame>,
    /// Whether `held` is delivered after the next frame instead.
    overtaken: bool,
    stuck_until_us: u64,
}

impl<S: Source> FaultySource<S> {
    /// Injects `faults` into `inner`.
    pub fn new(inner: S, faults: SourceFaults, seed: u64, injected: Arc<Injected>) -> Self {
        Self {
            inner,
            faults,
            random: Random::new(seed),
            injected,
            held: None,
            overtaken: false,
            stuck_until_us: 0,
        }
    }

    fn draw(&mut self) -> Option<SourceFault> {
        let mut at = self.random.below(1_000_000);
        for (fault, ppm) in SourceFault::ALL.into_iter().zip(self.faults.ppm) {
            if at < ppm {
                return Some(fault);
            }
            at -= ppm;
        }
        None
    }
}

impl Source for Box<dyn Source> {
    fn next(&mut self, clock: &Clock, into: &mut RawFrame) -> Result<Poll, SourceError> {
        (**self).next(clock, into)
    }
}

impl<S: Source> Source for FaultySource<S> {
    fn next(&mut self, clock: &Clock, into: &mut RawFrame) -> Result<Poll, SourceError> {
        if clock.now_us() < self.stuck_until_us {
            std::thread::sleep(Duration::from_millis(5));
            return Ok(Poll::Nothing);
        }
        if !self.overtaken
            && let Some(held) = self.held.take()
        {
            *into = held;
            return Ok(Poll::Frame);
        }
        let polled = self.inner.next(clock, into)?;
        if polled != Poll::Frame {
            return Ok(polled);
        }
        if self.overtaken {
            self.overtaken = false;
            return Ok(Poll::Frame);
        }
        let Some(fault) = self.draw() else {
            return Ok(Poll::Frame);
        };
        self.injected.0[fault as usize].fetch_add(1, Relaxed);
        match fault {
            SourceFault::Drop => return Ok(Poll::Nothing),
            SourceFault::Duplicate => self.held = Some(into.clone()),
            SourceFault::Reorder => {
                self.held = Some(into.clone());
                self.overtaken = true;
                return Ok(Poll::Nothing);
            }
            SourceFault::Truncate => {
                let length = u32::try_from(into.bytes.len()).unwrap_or(u32::MAX);
                into.bytes.truncate(self.random.below(length) as usize);
            }
            SourceFault::WrongSize => {
                into.width += 8;
                into.bytes.resize(3 * into.width * into.height, 0);
            }
            SourceFault::Stuck => {
                self.stuck_until_us = clock.now_us() + 1000 * self.faults.stuck_ms;
            }
            SourceFault::TimeJump => {
                let hour = 3_600_000_000;
                into.stamp_us = match self.random.chance(500_000) {
                    true => into.stamp_us + hour,
                    // The clock starts at zero.
                    false => into.stamp_us.saturating_sub(hour),
                };
                // Early in a run, an earlier time is plausible: use a later one instead.
                if clock.now_us() < hour {
                    into.stamp_us = clock.now_us() + hour;
                }
            }
        }
        Ok(Poll::Frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{frame::FrameValidator, metrics::DropReason};

    struct Counting(u64);

    impl Source for Counting {
        fn next(&mut self, clock: &Clock, into: &mut RawFrame) -> Result<Poll, SourceError> {
            *into = RawFrame {
                number: self.0,
                stamp_us: clock.now_us(),
                width: 8,
                height: 4,
                bytes: vec![self.0 as u8; 96],
                header: None,
            };
            self.0 += 1;
            Ok(Poll::Frame)
        }
    }

    #[test]
    fn every_fault_of_a_source_is_detected_and_nothing_else() {
        let faults = SourceFaults {
            ppm: [20_000, 20_000, 20_000, 20_000, 20_000, 0, 20_000],
            stuck_ms: 0,
        };
        let injected = Arc::new(Injected::default());
        let mut source = FaultySource::new(Counting(0), faults, 3, injected.clone());
        let clock = Clock::start();
        let mut first = RawFrame::default();
        while source.next(&clock, &mut first).unwrap() != Poll::Frame {}
        let mut validator = FrameValidator::new(
            Some(loftup_bundle::Size {
                width: 8,
                height: 4,
            }),
            1_000_000,
        );
        let (mut lost, mut jumps) = (0, 0);
        let mut refused = std::collections::HashMap::new();
        let mut raw = RawFrame::default();
        for _ in 0..20_000 {
            if source.next(&clock, &mut raw).unwrap() == Poll::Frame {
                let validation = validator.validate(&raw, clock.now_us());
                lost += validation.lost;
                jumps += u64::from(validation.time_jump);
                match validation.rejected {
                    Some(why) => *refused.entry(why).or_insert(0u64) += 1,
                    None => assert_eq!(raw.bytes, [raw.number as u8; 96]),
                }
            }
        }
        let count = |fault| injected.count(fault);
        let near = |a: u64, b: u64| assert!(a.abs_diff(b) <= 2, "{a} and {b}");
        near(
            refused[&DropReason::Duplicate],
            count(SourceFault::Duplicate),
        );
        near(refused[&DropReason::Reordered], count(SourceFault::Reorder));
        near(
            refused[&DropReason::Truncated],
            count(SourceFault::Truncate),
        );
        near(
            refused[&DropReason::WrongSize],
            count(SourceFault::WrongSize),
        );
        near(jumps, count(SourceFault::TimeJump));
        near(lost, count(SourceFault::Drop) + count(SourceFault::Reorder));
        assert!(SourceFault::ALL.iter().filter(|f| count(**f) > 200).count() == 6);
    }
}
