//! When it is too hot.

/// Something that tells a temperature.
pub trait Thermometer {
    /// What can go wrong.
    type Error;

    /// The temperature, in hundredths of a degree Celsius.
    ///
    /// # Errors
    /// Those of the bus or file it is read from.
    fn read_cc(&mut self) -> Result<i16, Self::Error>;
}

impl<T: Thermometer + ?Sized> Thermometer for &mut T {
    type Error = T::Error;

    fn read_cc(&mut self) -> Result<i16, T::Error> {
        (**self).read_cc()
    }
}

/// How hot it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ThermalState {
    /// Well.
    Normal,
    /// Work less.
    Hot,
    /// Stop working.
    Critical,
}

/// Where a state begins and ends. In hundredths of a degree Celsius.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    hot_cc: i16,
    critical_cc: i16,
    hysteresis_cc: i16,
}

/// Limits in the wrong order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "limits {hot_cc} < {critical_cc} with hysteresis {hysteresis_cc} (1/100 degree): the hysteresis must be 0 or more and less than the distance"
)]
pub struct LimitsError {
    /// From here on it is hot.
    pub hot_cc: i16,
    /// From here on it is critical.
    pub critical_cc: i16,
    /// How far below its limit a state ends.
    pub hysteresis_cc: i16,
}

impl Limits {
    /// Hot from `hot_cc` on, critical from `critical_cc` on; a state ends more
    /// than `hysteresis_cc` below where it began, so that it does not flutter.
    ///
    /// # Errors
    /// [`LimitsError`] where they overlap.
    pub const fn new(
        hot_cc: i16,
        critical_cc: i16,
        hysteresis_cc: i16,
    ) -> Result<Self, LimitsError> {
        let distance = critical_cc as i32 - hot_cc as i32;
        if hysteresis_cc < 0 || hysteresis_cc as i32 >= distance {
            return Err(LimitsError {
                hot_cc,
                critical_cc,
                hysteresis_cc,
            });
        }
        Ok(Limits {
            hot_cc,
            critical_cc,
            hysteresis_cc,
        })
    }

    /// From here on it is hot.
    #[must_use]
    pub const fn hot_cc(&self) -> i16 {
        self.hot_cc
    }

    /// From here on it is critical.
    #[must_use]
    pub const fn critical_cc(&self) -> i16 {
        self.critical_cc
    }

    /// Below this the state `Hot` ends.
    #[must_use]
    pub const fn cool_cc(&self) -> i16 {
        self.hot_cc.saturating_sub(self.hysteresis_cc)
    }
}

/// Reads a thermometer and says how hot it is.
#[derive(Debug)]
pub struct ThermalGuard<T> {
    thermometer: T,
    limits: Limits,
    state: ThermalState,
    last_cc: Option<i16>,
    failures: u8,
}

/// Failed readings in a row that are put down to a bad contact; with the next
/// one the thermometer counts as dead.
const TOLERATED_FAILURES: u8 = 2;

impl<T: Thermometer> ThermalGuard<T> {
    /// A guard that takes it for normal until the first reading.
    pub const fn new(thermometer: T, limits: Limits) -> Self {
        ThermalGuard {
            thermometer,
            limits,
            state: ThermalState::Normal,
            last_cc: None,
            failures: 0,
        }
    }

    /// Reads once. A thermometer that fails three times in a row cannot warn
    /// any more: it is then taken for hot at least, until it reads again.
    ///
    /// # Errors
    /// Those of the thermometer; [`state`](Self::state) is up to date all the
    /// same.
    pub fn poll(&mut self) -> Result<ThermalState, T::Error> {
        match self.thermometer.read_cc() {
            Ok(cc) => {
                self.failures = 0;
                self.last_cc = Some(cc);
                self.state = self.judge(cc);
                Ok(self.state)
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                if self.is_blind() {
                    self.last_cc = None;
                    self.state = self.state.max(ThermalState::Hot);
                }
                Err(error)
            }
        }
    }

    fn judge(&self, cc: i16) -> ThermalState {
        // A state that lasts already begins lower.
        let reached = |limit: i16, lasts: bool| {
            let slack = if lasts { self.limits.hysteresis_cc } else { 0 };
            cc >= limit.saturating_sub(slack)
        };
        if reached(
            self.limits.critical_cc,
            self.state == ThermalState::Critical,
        ) {
            ThermalState::Critical
        } else if reached(self.limits.hot_cc, self.state >= ThermalState::Hot) {
            ThermalState::Hot
        } else {
            ThermalState::Normal
        }
    }

    /// How hot it was last.
    #[must_use]
    pub const fn state(&self) -> ThermalState {
        self.state
    }

    /// The last temperature, unless the thermometer is dead.
    #[must_use]
    pub const fn last_cc(&self) -> Option<i16> {
        self.last_cc
    }

    /// Whether the thermometer counts as dead.
    #[must_use]
    pub const fn is_blind(&self) -> bool {
        self.failures > TOLERATED_FAILURES
    }

    /// The thermometer.
    pub const fn thermometer(&mut self) -> &mut T {
        &mut self.thermometer
    }
}
