//! Drivers for what is soldered beside the camera, over the embedded-hal 1.0
//! and embedded-io traits: the same code on a microcontroller and on Linux.
//! No `std`, no allocation, unless a feature asks for it.
//!
//! | part | here |
//! |---|---|
//! | hardware trigger of the camera | [`CameraTrigger`] |
//! | light that shows the health of the node | [`StatusLight`] |
//! | thermometer and what to do when it is hot | [`Tmp102`], [`ThermalGuard`] |
//! | [`loftup_wire`] messages over a serial line or socket | [`Link`] |
//!
//! Features: `std` adds `stdio`, links over any non-blocking reader and
//! writer of the operating system. `linux` adds `linux`, its pins, buses,
//! serial lines and thermal zones.
//!
//! `examples/mcu_receiver` shows all of it at work on the controller's side.

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
