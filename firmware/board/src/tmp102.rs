//! The TMP102 temperature sensor of Texas Instruments (data sheet SBOS397): 12 bits
//! in steps of 1/16 degree, 13 bits in extended mode, over I2C, with an alert pin.

use embedded_hal::i2c::I2c;

use crate::thermal::{Limits, Thermometer};

const TEMPERATURE: u8 = 0;
const CONFIGURATION: u8 = 1;
const T_LOW: u8 = 2;
const T_HIGH: u8 = 3;

/// The configuration register: continuous conversion, comparator
/// mode, alert active low, four faults in a row before an alert (F1 F0 = 10),
/// 13 bits (EM), four conversions per second (CR1 CR0 = 10).
const SETTING: [u8; 2] = [0b0001_0000, 0b1001_0000];

/// Bits of the configuration register that read back as written. The others are the
/// one-shot bit, the resolution, which always reads 11, and the alert.
const KEPT: [u8; 2] = [0b0001_1111, 0b1101_0000];

/// Errors of a [`Tmp102`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Tmp102Error<E> {
    /// The bus failed.
    #[error("I2C error at the thermometer: check wiring and address")]
    Bus(E),
    /// The configuration does not read back as written: there is another device at
    /// this address.
    #[error(
        "wrote configuration {written:02x?}, read back {read:02x?}: check that there is a TMP102 at this address"
    )]
    Setting {
        /// The value written.
        written: [u8; 2],
        /// The value read back.
        read: [u8; 2],
    },
    /// Extended mode is off: the chip was reset or lost power.
    #[error("the thermometer has lost its configuration: initialize it again")]
    Reset,
}

/// A TMP102.
#[derive(Debug)]
pub struct Tmp102<I> {
    i2c: I,
    address: u8,
}

impl<I: I2c> Tmp102<I> {
    /// The address with pin ADD0 connected to ground; add one, two or three for
    /// supply, SDA or SCL.
    pub const ADDRESS: u8 = 0x48;

    /// Configures the chip at `address`. Its alert pin follows `limits`: low from hot,
    /// until it has cooled by the hysteresis. After power-up the chip reads 0 degrees
    /// until its first conversion, at most 35 ms.
    ///
    /// # Errors
    /// [`Tmp102Error::Bus`], [`Tmp102Error::Setting`].
    pub fn new(i2c: I, address: u8, limits: &Limits) -> Result<Self, Tmp102Error<I::Error>> {
        let mut chip = Tmp102 { i2c, address };
        chip.init(limits)?;
        Ok(chip)
    }

    /// Configures the chip again, after a reset.
    ///
    /// # Errors
    /// Same as for [`new`](Self::new).
    pub fn init(&mut self, limits: &Limits) -> Result<(), Tmp102Error<I::Error>> {
        self.write(CONFIGURATION, SETTING)?;
        let read = self.read(CONFIGURATION)?;
        let same = |i: usize| (read[i] ^ SETTING[i]) & KEPT[i] == 0;
        if !(same(0) && same(1)) {
            return Err(Tmp102Error::Setting {
                written: SETTING,
                read,
            });
        }
        self.write(T_LOW, to_register(limits.cool_cc()))?;
        self.write(T_HIGH, to_register(limits.hot_cc()))
    }

    /// Whether the alert pin is active: four consecutive readings were hot, and the
    /// chip has not cooled since.
    ///
    /// # Errors
    /// [`Tmp102Error::Bus`].
    pub fn alert(&mut self) -> Result<bool, Tmp102Error<I::Error>> {
        // With active-low polarity the bit is the level of the pin: 0 is an alert.
        Ok(self.read(CONFIGURATION)?[1] & 0b0010_0000 == 0)
    }

    /// Returns the bus.
    pub fn release(self) -> I {
        self.i2c
    }

    fn write(&mut self, register: u8, value: [u8; 2]) -> Result<(), Tmp102Error<I::Error>> {
        let [high, low] = value;
        self.i2c
            .write(self.address, &[register, high, low])
            .map_err(Tmp102Error::Bus)
    }

    fn read(&mut self, register: u8) -> Result<[u8; 2], Tmp102Error<I::Error>> {
        let mut value = [0; 2];
        self.i2c
            .write_read(self.address, &[register], &mut value)
            .map_err(Tmp102Error::Bus)?;
        Ok(value)
    }
}

impl<I: I2c> Thermometer for Tmp102<I> {
    type Error = Tmp102Error<I::Error>;

    /// In hundredths of a degree, rounded down.
    fn read_cc(&mut self) -> Result<i16, Self::Error> {
        let value = self.read(TEMPERATURE)?;
        // The lowest bit distinguishes 13-bit from 12-bit values.
        if value[1] & 1 == 0 {
            return Err(Tmp102Error::Reset);
        }
        let steps = i32::from(i16::from_be_bytes(value) >> 3);
        // 13 bits in steps of 1/16 degree are within +-25600 hundredths.
        Ok((steps * 25).div_euclid(4) as i16)
    }
}

/// Converts a temperature to the 13-bit format of the limit registers.
fn to_register(cc: i16) -> [u8; 2] {
    let steps = (i32::from(cc) * 4).div_euclid(25).clamp(-4_096, 4_095);
    ((steps as i16) << 3).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_the_values_of_the_data_sheet() {
        // From the table of the data sheet, extended mode: 150, 128, 80, 25, 0.25, 0,
        // -0.25, -25, -55 degrees.
        for (cc, register) in [
            (15_000, [0x4B, 0x00]),
            (12_800, [0x40, 0x00]),
            (8_000, [0x28, 0x00]),
            (2_500, [0x0C, 0x80]),
            (25, [0x00, 0x20]),
            (0, [0x00, 0x00]),
            (-25, [0xFF, 0xE0]),
            (-2_500, [0xF3, 0x80]),
            (-5_500, [0xE4, 0x80]),
            (i16::MAX, [0x7F, 0xF8]),
            (i16::MIN, [0x80, 0x00]),
        ] {
            assert_eq!(to_register(cc), register, "{cc}");
        }
    }
}
