//! Drivers for the hardware around the camera, generic over the embedded-hal 1.0
//! and embedded-io traits: the same code runs on a microcontroller and on Linux. No
//! `std` and no allocation, except with the features below.
//!
//! | part | items |
//! |---|---|
//! | hardware trigger of the camera | [`CameraTrigger`] |
//! | status LED that shows the health of the node | [`StatusLight`] |
//! | temperature sensor and thermal limits | [`Tmp102`], [`ThermalGuard`] |
//! | [`loftup_wire`] messages over a serial line or socket | [`Link`] |
//!
//! Features: `std` adds `stdio`, links over any non-blocking reader and writer of
//! the operating system. `linux` adds `linux`: GPIO pins, I2C buses, serial lines
//! and thermal zones.
//!
//! `examples/mcu_receiver` uses all of it on the controller's side.

#![no_std]

#[cfg(feature = "std")]
extern crate std;

mod clock;
mod light;
mod link;
#[cfg(feature = "linux")]
pub mod linux;
#[cfg(feature = "std")]
pub mod stdio;
mod thermal;
mod tmp102;
mod trigger;

pub use clock::Clock;
pub use light::{Color, Lamp, MonoLamp, Pattern, Polarity, RgbError, RgbLamp, StatusLight};
pub use link::{Link, LinkError};
pub use thermal::{Limits, LimitsError, ThermalGuard, ThermalState, Thermometer};
pub use tmp102::{Tmp102, Tmp102Error};
pub use trigger::{CameraTrigger, Jitter, Pulse, Schedule, ScheduleError};
