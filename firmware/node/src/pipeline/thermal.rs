//! Polls the temperature sensors and reduces the load while they are hot.

use loftup_board::{
    Limits, ThermalGuard, ThermalState, Thermometer,
    linux::{LinuxError, ThermalZone},
};

use super::shared::Shared;
use crate::{config, health::Reason};

/// The hottest of several thermal zones.
struct Hottest(Vec<ThermalZone>);

impl Thermometer for Hottest {
    type Error = LinuxError;

    fn read_cc(&mut self) -> Result<i16, Self::Error> {
        let mut hottest = i16::MIN;
        for zone in &mut self.0 {
            hottest = hottest.max(zone.read_cc()?);
        }
        Ok(hottest)
    }
}

/// The thermal guard of a node.
pub(super) struct Thermal {
    guard: ThermalGuard<Hottest>,
    state: ThermalState,
    period_us: u64,
    next_us: u64,
}

impl Thermal {
    /// Creates a guard with the limits in `config`.
    pub(super) fn new(config: &config::Thermal) -> Option<Self> {
        let cc = |degrees: f64| (degrees * 100.0).round() as i16;
        let limits = Limits::new(
            cc(config.hot_c),
            cc(config.critical_c),
            cc(config.hysteresis_c),
        );
        // The configuration was checked: this does not fail.
        let limits = limits
            .inspect_err(|e| log::error!("{e}: temperature is not monitored"))
            .ok()?;
        let zones = config.zones.iter().map(ThermalZone::new).collect();
        Some(Self {
            guard: ThermalGuard::new(Hottest(zones), limits),
            state: ThermalState::Normal,
            period_us: 1000 * config.period_ms,
            next_us: 0,
        })
    }

    /// Reads the sensors if that is due, and updates the degradation controller.
    pub(super) fn poll(&mut self, shared: &Shared, now: u64) {
        if now >= self.next_us {
            self.next_us = now + self.period_us;
            self.read(shared, now);
        }
        let mut degradation = shared.degradation.lock();
        let step = degradation.heat(self.state, now);
        let level = degradation.level();
        drop(degradation);
        shared.record_step(step, level, "heat");
    }

    fn read(&mut self, shared: &Shared, now: u64) {
        let state = self.guard.poll().unwrap_or_else(|e| {
            shared.log_throttled("thermometer", || e.to_string());
            self.guard.state()
        });
        let cc = self.guard.last_cc();
        shared.metrics.set_temperature_cc(cc);
        if state == self.state {
            return;
        }
        self.state = state;
        let why = match cc {
            Some(cc) => format!("{:.1} degrees", f64::from(cc) / 100.0),
            None => "the sensor cannot be read".into(),
        };
        let text = format!("{state:?}: {why}");
        shared.monitor.record(now, "heat", text);
        let hot = state > ThermalState::Normal;
        shared.monitor.set(now, Reason::TooHot, hot, &why);
    }
}
