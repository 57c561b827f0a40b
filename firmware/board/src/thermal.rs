//! Thermal limits.

/// A temperature sensor.
pub trait Thermometer {
    /// Error of the sensor.
    type Error;

    /// The temperature, in hundredths of a degree Celsius.
    ///
    /// # Errors
    /// Errors of the bus or file.
    fn read_cc(&mut self) -> Result<i16, Self::Error>;
}

impl<T: Thermometer + ?Sized> Thermometer for &mut T {
    type Error = T::Error;

    fn read_cc(&mut self) -> Result<i16, T::Error> {
        (**self).read_cc()
    }
}

/// The thermal state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ThermalState {
    /// Normal.
    Normal,
    /// Hot: reduce the load.
    Hot,
    /// Critical: stop.
    Critical,
}

/// The limits of the thermal states, in hundredths of a degree Celsius.
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
    /// Hot from this temperature.
    pub hot_cc: i16,
    /// Critical from this temperature.
    pub critical_cc: i16,
    /// Hysteresis: a state ends when the temperature is this far below its limit.
    pub hysteresis_cc: i16,
}

impl Limits {
    /// Hot from `hot_cc`, critical from `critical_cc`. A state ends more than
    /// `hysteresis_cc` below its limit.
    ///
    /// # Errors
    /// [`LimitsError`] if the limits overlap.
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

    /// Hot from this temperature.
    #[must_use]
    pub const fn hot_cc(&self) -> i16 {
        self.hot_cc
    }

    /// Critical from this temperature.
    #[must_use]
    pub const fn critical_cc(&self) -> i16 {
        self.critical_cc
    }

    /// The state `Hot` ends below this temperature.
    #[must_use]
    pub const fn cool_cc(&self) -> i16 {
        self.hot_cc.saturating_sub(self.hysteresis_cc)
    }
}

/// Derives the thermal state from a temperature sensor.
#[derive(Debug)]
pub struct ThermalGuard<T> {
    thermometer: T,
    limits: Limits,
    state: ThermalState,
    last_cc: Option<i16>,
    failures: u8,
}

/// Number of consecutive failed readings that are tolerated; after one more the
/// sensor is considered failed.
const TOLERATED_FAILURES: u8 = 2;

impl<T: Thermometer> ThermalGuard<T> {
    /// A guard whose state is normal until the first reading.
    pub const fn new(thermometer: T, limits: Limits) -> Self {
        ThermalGuard {
            thermometer,
            limits,
            state: ThermalState::Normal,
            last_cc: None,
            failures: 0,
        }
    }

    /// Reads the sensor. After three consecutive failures the state is at least hot,
    /// since overheating could no longer be detected, until a reading succeeds.
    ///
    /// # Errors
    /// Errors of the sensor; [`state`](Self::state) is updated nevertheless.
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
        // The current state has a lower limit.
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

    /// The state after the last reading.
    #[must_use]
    pub const fn state(&self) -> ThermalState {
        self.state
    }

    /// The last temperature, unless the sensor has failed.
    #[must_use]
    pub const fn last_cc(&self) -> Option<i16> {
        self.last_cc
    }

    /// Whether the sensor is considered failed.
    #[must_use]
    pub const fn is_blind(&self) -> bool {
        self.failures > TOLERATED_FAILURES
    }

    /// The sensor.
    pub const fn thermometer(&mut self) -> &mut T {
        &mut self.thermometer
    }
}
