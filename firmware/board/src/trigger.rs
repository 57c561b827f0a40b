//! The hardware trigger of a camera: a pulse at a steady rate.
//!
//! Pulse `n` is due at `start + n * period`, computed from the start each time,
//! so that being late once delays nothing after it.

use embedded_hal::delay::DelayNs;
use embedded_hal::digital::OutputPin;

use crate::Clock;

/// When pulses are due. All in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    period_us: u32,
    width_us: u32,
}

/// A schedule that no pin can keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a pulse of {width_us} us every {period_us} us: both must be over 0, the pulse the shorter"
)]
pub struct ScheduleError {
    /// Time from pulse to pulse.
    pub period_us: u32,
    /// Length of a pulse.
    pub width_us: u32,
}

impl Schedule {
    /// A pulse of `width_us` every `period_us`.
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

/// A pulse that has been given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulse {
    /// Its number in the schedule; numbers of missed pulses are left out.
    pub number: u64,
    /// When its edge came, by the clock.
    pub at_us: u64,
    /// That minus when it was due: above 0 late, below 0 early.
    pub deviation_us: i32,
}

/// How far the edges were off the schedule.
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

    /// Smallest deviation (earliest edge), where there was a pulse.
    #[must_use]
    pub fn min_us(&self) -> Option<i32> {
        (self.pulses > 0).then_some(self.min_us)
    }

    /// Largest deviation (latest edge), where there was a pulse.
    #[must_use]
    pub fn max_us(&self) -> Option<i32> {
        (self.pulses > 0).then_some(self.max_us)
    }

    /// Mean deviation, rounded towards 0, where there was a pulse.
    #[must_use]
    pub fn mean_us(&self) -> Option<i64> {
        self.sum_us.checked_div(i64::try_from(self.pulses).ok()?)
    }

    /// Pulses given.
    #[must_use]
    pub const fn pulses(&self) -> u64 {
        self.pulses
    }

    /// Pulses left out because their time had passed by a period or more.
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

/// Triggers a camera over a pin that is high for the length of a pulse.
///
/// Either call [`poll`](Self::poll) from a loop or a timer interrupt, which
/// never waits, or [`fire`](Self::fire), which waits for the next pulse and
/// gives it. Errors are those of the pin.
#[derive(Debug)]
pub struct CameraTrigger<P, C> {
    pin: P,
    clock: C,
    schedule: Schedule,
    start_us: u64,
    /// Number of the next pulse.
    next: u64,
    /// When the pulse under way ends.
    ends_us: Option<u64>,
    jitter: Jitter,
}

impl<P: OutputPin, C: Clock> CameraTrigger<P, C> {
    /// Pulls the pin low; the first pulse is due now.
    ///
    /// # Errors
    /// Those of the pin.
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

    /// When the next pulse is due, by the clock.
    #[must_use]
    pub fn due_us(&self) -> u64 {
        let period = u64::from(self.schedule.period_us);
        self.start_us
            .saturating_add(self.next.saturating_mul(period))
    }

    /// How far the pulses have been off the schedule so far.
    #[must_use]
    pub const fn jitter(&self) -> &Jitter {
        &self.jitter
    }

    /// Forgets the pulses so far, their deviations and misses.
    pub const fn reset_jitter(&mut self) {
        self.jitter = Jitter::NONE;
    }

    /// Begins or ends a pulse where it is time to. Gives the pulse that begins.
    ///
    /// # Errors
    /// Those of the pin. The same step is tried again next time.
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

    /// Waits until the next pulse is due, gives it, and waits for its end.
    ///
    /// # Errors
    /// Those of the pin.
    pub fn fire(&mut self, delay: &mut impl DelayNs) -> Result<Pulse, P::Error> {
        if self.ends_us.take().is_some() {
            self.pin.set_low()?;
        }
        let now = self.clock.now_us();
        self.skip_missed(now);
        let wait = self.due_us().saturating_sub(now);
        // At most one period, which is a `u32`, unless polls came before.
        delay.delay_us(u32::try_from(wait).unwrap_or(u32::MAX));
        let edge = self.clock.now_us();
        self.pin.set_high()?;
        delay.delay_us(self.schedule.width_us);
        self.pin.set_low()?;
        Ok(self.given(edge))
    }

    /// Leaves out the pulses whose successors are due already: a camera that
    /// gets two at once takes none.
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

    /// Pulls the pin low and gives pin and clock back.
    ///
    /// # Errors
    /// Those of the pin.
    pub fn release(mut self) -> Result<(P, C), P::Error> {
        self.pin.set_low()?;
        Ok((self.pin, self.clock))
    }
}
