//! Hardware trigger of a camera: pulses at a constant rate.
//!
//! Pulse `n` is due at `start + n * period`, always relative to the start,
//! so that a late pulse does not delay the following ones.

use embedded_hal::delay::DelayNs;
use embedded_hal::digital::OutputPin;

use crate::Clock;

/// The timing of the pulses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    period_us: u32,
    width_us: u32,
}

/// An impossible schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a pulse of {width_us} us every {period_us} us: the pulse must be longer than 0 and shorter than the period"
)]
pub struct ScheduleError {
    /// Period, in microseconds.
    pub period_us: u32,
    /// Pulse width, in microseconds.
    pub width_us: u32,
}

impl Schedule {
    /// Pulses of `width_us` microseconds every `period_us` microseconds.
    ///
    /// # Errors
    /// [`ScheduleError`] unless `0 < width_us < period_us`.
    pub const fn new(period_us: u32, width_us: u32) -> Result<Self, ScheduleError> {
        if width_us == 0 || width_us >= period_us {
            return Err(ScheduleError {
                period_us,
                width_us,
            });
        }
        Ok(Schedule {
            period_us,
            width_us,
        })
    }
}

/// A pulse that has been emitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulse {
    /// Number in the schedule, in which missed pulses count.
    pub number: u64,
    /// Time of the rising edge, in microseconds of the clock.
    pub at_us: u64,
    /// Deviation from the schedule in microseconds; positive if late.
    pub deviation_us: i32,
}

/// Statistics of the deviations from the schedule, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jitter {
    min_us: i32,
    max_us: i32,
    sum_us: i64,
    pulses: u64,
    missed: u64,
}

impl Jitter {
    const NONE: Jitter = Jitter {
        min_us: i32::MAX,
        max_us: i32::MIN,
        sum_us: 0,
        pulses: 0,
        missed: 0,
    };

    /// Minimum deviation (earliest edge), if there was a pulse.
    #[must_use]
    pub fn min_us(&self) -> Option<i32> {
        (self.pulses > 0).then_some(self.min_us)
    }

    /// Maximum deviation (latest edge), if there was a pulse.
    #[must_use]
    pub fn max_us(&self) -> Option<i32> {
        (self.pulses > 0).then_some(self.max_us)
    }

    /// Mean deviation, rounded toward 0, if there was a pulse.
    #[must_use]
    pub fn mean_us(&self) -> Option<i64> {
        self.sum_us.checked_div(i64::try_from(self.pulses).ok()?)
    }

    /// Number of pulses emitted.
    #[must_use]
    pub const fn pulses(&self) -> u64 {
        self.pulses
    }

    /// Number of pulses skipped because they were late by a period or more.
    #[must_use]
    pub const fn missed(&self) -> u64 {
        self.missed
    }

    fn add(&mut self, deviation_us: i32) {
        self.min_us = self.min_us.min(deviation_us);
        self.max_us = self.max_us.max(deviation_us);
        self.sum_us = self.sum_us.saturating_add(i64::from(deviation_us));
        self.pulses += 1;
    }
}

/// Triggers a camera with a pin that is high during a pulse.
///
/// Either call [`poll`](Self::poll), which never blocks, from a loop or a timer
/// interrupt, or [`fire`](Self::fire), which blocks until the next pulse has been
/// emitted.
#[derive(Debug)]
pub struct CameraTrigger<P, C> {
    pin: P,
    clock: C,
    schedule: Schedule,
    start_us: u64,
    /// Number of the next pulse.
    next: u64,
    /// End of the current pulse.
    ends_us: Option<u64>,
    jitter: Jitter,
}

impl<P: OutputPin, C: Clock> CameraTrigger<P, C> {
    /// Sets the pin low; the first pulse is due immediately.
    ///
    /// # Errors
    /// Errors of the pin.
    pub fn new(mut pin: P, mut clock: C, schedule: Schedule) -> Result<Self, P::Error> {
        pin.set_low()?;
        let start_us = clock.now_us();
        Ok(CameraTrigger {
            pin,
            clock,
            schedule,
            start_us,
            next: 0,
            ends_us: None,
            jitter: Jitter::NONE,
        })
    }

    /// Due time of the next pulse, in microseconds of the clock.
    #[must_use]
    pub fn due_us(&self) -> u64 {
        let period = u64::from(self.schedule.period_us);
        self.start_us
            .saturating_add(self.next.saturating_mul(period))
    }

    /// Statistics since the start or the last reset.
    #[must_use]
    pub const fn jitter(&self) -> &Jitter {
        &self.jitter
    }

    /// Resets the statistics.
    pub const fn reset_jitter(&mut self) {
        self.jitter = Jitter::NONE;
    }

    /// Starts or ends a pulse if it is due. Returns a pulse that starts.
    ///
    /// # Errors
    /// Errors of the pin; the next call retries.
    pub fn poll(&mut self) -> Result<Option<Pulse>, P::Error> {
        let now = self.clock.now_us();
        if let Some(ends) = self.ends_us {
            if now < ends {
                return Ok(None);
            }
            self.pin.set_low()?;
            self.ends_us = None;
        }
        if now < self.due_us() {
            return Ok(None);
        }
        self.skip_missed(now);
        self.pin.set_high()?;
        self.ends_us = Some(now.saturating_add(u64::from(self.schedule.width_us)));
        Ok(Some(self.given(now)))
    }

    /// Blocks until the next pulse is due, emits it, and blocks until its end.
    ///
    /// # Errors
    /// Errors of the pin.
    pub fn fire(&mut self, delay: &mut impl DelayNs) -> Result<Pulse, P::Error> {
        if self.ends_us.take().is_some() {
            self.pin.set_low()?;
        }
        let now = self.clock.now_us();
        self.skip_missed(now);
        let wait = self.due_us().saturating_sub(now);
        // At most one period, which fits in a `u32`, unless `poll` was called before.
        delay.delay_us(u32::try_from(wait).unwrap_or(u32::MAX));
        let edge = self.clock.now_us();
        self.pin.set_high()?;
        delay.delay_us(self.schedule.width_us);
        self.pin.set_low()?;
        Ok(self.given(edge))
    }

    /// Skips the pulses whose successors are already due: a camera may ignore pulses
    /// in quick succession.
    fn skip_missed(&mut self, now: u64) {
        let late = now.saturating_sub(self.due_us());
        let missed = late / u64::from(self.schedule.period_us);
        self.next = self.next.saturating_add(missed);
        self.jitter.missed = self.jitter.missed.saturating_add(missed);
    }

    fn given(&mut self, at_us: u64) -> Pulse {
        let due = self.due_us();
        let off = i128::from(at_us) - i128::from(due);
        let deviation_us = off.clamp(i128::from(i32::MIN), i128::from(i32::MAX)) as i32;
        let number = self.next;
        self.next = self.next.saturating_add(1);
        self.jitter.add(deviation_us);
        Pulse {
            number,
            at_us,
            deviation_us,
        }
    }

    /// Sets the pin low and returns pin and clock.
    ///
    /// # Errors
    /// Errors of the pin.
    pub fn release(mut self) -> Result<(P, C), P::Error> {
        self.pin.set_low()?;
        Ok((self.pin, self.clock))
    }
}
