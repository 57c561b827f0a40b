//! GPIO pins, I2C buses, serial lines and thermal zones of Linux.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::string::String;

use linux_embedded_hal::gpio_cdev::{self, Chip, LineRequestFlags};
pub use linux_embedded_hal::{CdevPin, Delay, I2cdev};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use rustix::termios::{self, ControlModes, OptionalActions};

use crate::stdio::NonBlocking;
use crate::thermal::Thermometer;

/// Errors of this module.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinuxError {
    /// A device or file cannot be opened or read.
    #[error("{path}: {cause}")]
    File {
        /// Its path.
        path: PathBuf,
        /// The cause.
        #[source]
        cause: io::Error,
    },
    /// Another process has the device.
    #[error("{path}: in use by another process")]
    InUse {
        /// Its path.
        path: PathBuf,
    },
    /// A device cannot be configured as a serial line.
    #[error("{path}: cannot configure as a serial line at {baud} baud: {cause}")]
    Serial {
        /// Its path.
        path: PathBuf,
        /// The requested baud rate.
        baud: u32,
        /// The cause.
        #[source]
        cause: io::Error,
    },
    /// A line of a GPIO chip cannot be requested.
    #[error("{path}: line {line}: {cause}: check that it is free and that you have permission")]
    Gpio {
        /// The chip.
        path: PathBuf,
        /// The line.
        line: u32,
        /// The cause.
        #[source]
        cause: gpio_cdev::Error,
    },
    /// A bus cannot be opened.
    #[error("{path}: {cause}: check that it is an I2C bus and that you have permission")]
    Bus {
        /// Its path.
        path: PathBuf,
        /// The cause.
        #[source]
        cause: io::Error,
    },
    /// A thermal zone does not contain a temperature.
    #[error("{path}: {text:?} is not a temperature in thousandths of a degree")]
    Temperature {
        /// Its path.
        path: PathBuf,
        /// Its content.
        text: String,
    },
}

/// Opens line `line` of a chip such as `/dev/gpiochip0` as an output, initially low.
///
/// # Errors
/// [`LinuxError::Gpio`].
pub fn output_pin(chip: impl AsRef<Path>, line: u32) -> Result<CdevPin, LinuxError> {
    let path = chip.as_ref();
    Chip::new(path)
        .and_then(|mut chip| chip.get_line(line))
        .and_then(|line| line.request(LineRequestFlags::OUTPUT, 0, "loftup"))
        .and_then(CdevPin::new)
        .map_err(|cause| LinuxError::Gpio {
            path: path.into(),
            line,
            cause,
        })
}

/// Opens an I2C bus such as `/dev/i2c-1`.
///
/// # Errors
/// [`LinuxError::Bus`].
pub fn i2c(path: impl AsRef<Path>) -> Result<I2cdev, LinuxError> {
    let path = path.as_ref();
    I2cdev::new(path).map_err(|cause| LinuxError::Bus {
        path: path.into(),
        cause: cause.into(),
    })
}

/// Opens a serial line such as `/dev/ttyTHS1` in raw mode: 8 data bits, no parity,
/// one stop bit, no flow control.
///
/// The line is locked, since two readers would each get only a part of the
/// bytes: with `flock`, and with `TIOCEXCL` against programs that do not use
/// locks. Pseudo-terminals get no `TIOCEXCL`, because they keep it after their
/// owner has died.
///
/// # Errors
/// [`LinuxError::File`], [`LinuxError::InUse`], [`LinuxError::Serial`].
pub fn serial(path: impl AsRef<Path>, baud: u32) -> Result<NonBlocking<File>, LinuxError> {
    let path = path.as_ref();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let in_use = || LinuxError::InUse { path: path.into() };
    let line = rustix::fs::open(path, flags, Mode::empty()).map_err(|cause| match cause {
        Errno::BUSY => in_use(),
        _ => LinuxError::File {
            path: path.into(),
            cause: cause.into(),
        },
    })?;
    // On a file system without locks, only TIOCEXCL applies.
    if flock(&line, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
        return Err(in_use());
    }
    let pseudo = |real: PathBuf| real.starts_with("/dev/pts");
    if !path.canonicalize().is_ok_and(pseudo) {
        // If it is not a terminal, an error is reported below.
        let _ = termios::ioctl_tiocexcl(&line);
    }
    let set_up = || {
        let mut mode = termios::tcgetattr(&line)?;
        mode.make_raw();
        mode.control_modes
            .insert(ControlModes::CLOCAL | ControlModes::CREAD);
        mode.control_modes
            .remove(ControlModes::CRTSCTS | ControlModes::CSTOPB);
        mode.set_speed(baud)?;
        termios::tcsetattr(&line, OptionalActions::Now, &mode)
    };
    set_up().map_err(|cause: Errno| LinuxError::Serial {
        path: path.into(),
        baud,
        cause: cause.into(),
    })?;
    Ok(NonBlocking::new(File::from(line)))
}

/// A thermal zone, given by its file such as
/// `/sys/class/thermal/thermal_zone0/temp`, in thousandths of a degree Celsius.
#[derive(Debug, Clone)]
pub struct ThermalZone {
    path: PathBuf,
}

impl ThermalZone {
    /// The thermal zone with the temperature file `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        ThermalZone { path: path.into() }
    }
}

/// Maximum length of a temperature file, in bytes.
const MAX_TEXT: usize = 32;

impl Thermometer for ThermalZone {
    type Error = LinuxError;

    /// Rounded down, and clamped to the range of an `i16`.
    fn read_cc(&mut self) -> Result<i16, LinuxError> {
        let mut bytes = [0; MAX_TEXT];
        let mut length = 0;
        let read = File::open(&self.path).and_then(|mut file| {
            while let Some(room) = bytes.get_mut(length..).filter(|room| !room.is_empty()) {
                match file.read(room)? {
                    0 => break,
                    more => length += more,
                }
            }
            Ok(())
        });
        read.map_err(|cause| LinuxError::File {
            path: self.path.clone(),
            cause,
        })?;
        let text = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default());
        let milli: i64 = text.trim().parse().map_err(|_| LinuxError::Temperature {
            path: self.path.clone(),
            text: text.trim().into(),
        })?;
        let hundredths = milli.div_euclid(10);
        Ok(hundredths.clamp(i64::from(i16::MIN), i64::from(i16::MAX)) as i16)
    }
}
