//! The thermometer and the thermal guard.

use embedded_hal::i2c::ErrorKind;
use embedded_hal_mock::eh1::i2c::{Mock, Transaction};
use loftup_board::{
    Limits, LimitsError, ThermalGuard, ThermalState, Thermometer, Tmp102, Tmp102Error,
};

const AT: u8 = Tmp102::<Mock>::ADDRESS;

fn limits() -> Limits {
    Limits::new(8_000, 9_500, 500).unwrap()
}

/// The I2C transactions of the configuration: configuration written and read
/// back, then the limits of 75 and 80 degrees.
fn set_up(read_back: [u8; 2]) -> Vec<Transaction> {
    vec![
        Transaction::write(AT, vec![1, 0x10, 0x90]),
        Transaction::write_read(AT, vec![1], read_back.to_vec()),
        Transaction::write(AT, vec![2, 0x25, 0x80]),
        Transaction::write(AT, vec![3, 0x28, 0x00]),
    ]
}

/// The configuration as the chip returns it: resolution bits 11, alert bit 1.
const ALIVE: [u8; 2] = [0x70, 0xB0];

fn read(register: u8, value: [u8; 2]) -> Transaction {
    Transaction::write_read(AT, vec![register], value.to_vec())
}

#[test]
fn the_chip_is_set_up_and_read_in_extended_mode() {
    let mut script = set_up(ALIVE);
    let readings = [
        ([0x28, 0x01], 8_000),
        ([0x0C, 0x81], 2_500),
        ([0x00, 0x09], 6), // one step, 0.0625 degrees, rounded down
        ([0x00, 0x01], 0),
        ([0xFF, 0xF9], -7), // one step below 0, rounded down
        ([0xE4, 0x81], -5_500),
        ([0x4B, 0x01], 15_000),
    ];
    script.extend(readings.map(|(value, _)| read(0, value)));
    let mut chip = Tmp102::new(Mock::new(&script), AT, &limits()).unwrap();
    for (value, cc) in readings {
        assert_eq!(chip.read_cc(), Ok(cc), "{value:02x?}");
    }
    chip.release().done();
}

#[test]
fn something_else_at_the_address_is_noticed() {
    let mut script = set_up([0xFF, 0xFF]);
    script.truncate(2);
    let mut bus = Mock::new(&script);
    let refused = Tmp102::new(bus.clone(), AT, &limits());
    assert!(matches!(
        refused,
        Err(Tmp102Error::Setting {
            read: [0xFF, 0xFF],
            ..
        })
    ));
    bus.done();
}

#[test]
fn a_chip_that_was_reset_says_so_and_can_be_set_up_again() {
    let mut script = set_up(ALIVE);
    script.push(read(0, [0x19, 0x00])); // 12-bit mode: 25 degrees
    script.extend(set_up(ALIVE));
    script.push(read(0, [0x0C, 0x81]));
    let mut chip = Tmp102::new(Mock::new(&script), AT, &limits()).unwrap();
    assert_eq!(chip.read_cc(), Err(Tmp102Error::Reset));
    chip.init(&limits()).unwrap();
    assert_eq!(chip.read_cc(), Ok(2_500));
    chip.release().done();
}

#[test]
fn the_alert_is_the_bit_that_is_low_and_a_bus_error_is_told() {
    let mut script = set_up(ALIVE);
    script.extend([
        read(1, [0x70, 0xB0]),
        read(1, [0x70, 0x90]),
        read(1, [0, 0]).with_error(ErrorKind::Bus),
    ]);
    let mut chip = Tmp102::new(Mock::new(&script), AT, &limits()).unwrap();
    assert_eq!(chip.alert(), Ok(false));
    assert_eq!(chip.alert(), Ok(true));
    assert_eq!(chip.alert(), Err(Tmp102Error::Bus(ErrorKind::Bus)));
    chip.release().done();
}

/// Returns scripted readings.
struct Script(std::vec::IntoIter<Result<i16, &'static str>>);

impl Thermometer for Script {
    type Error = &'static str;

    fn read_cc(&mut self) -> Result<i16, &'static str> {
        self.0.next().expect("a reading")
    }
}

fn states(readings: Vec<Result<i16, &'static str>>) -> Vec<ThermalState> {
    let count = readings.len();
    let mut guard = ThermalGuard::new(Script(readings.into_iter()), limits());
    (0..count)
        .map(|_| {
            let polled = guard.poll();
            if let Ok(state) = polled {
                assert_eq!(state, guard.state());
            }
            guard.state()
        })
        .collect()
}

use ThermalState::{Critical, Hot, Normal};

#[test]
fn states_begin_at_their_limit_and_end_the_hysteresis_below() {
    let readings = [
        (7_999, Normal),
        (8_000, Hot),
        (7_500, Hot),
        (7_499, Normal),
        (7_900, Normal),
        (9_499, Hot),
        (9_500, Critical),
        (9_000, Critical),
        (8_999, Hot),
        (9_499, Hot),
        (i16::MAX, Critical),
        (7_400, Normal),
        (i16::MIN, Normal),
        (9_600, Critical),
    ];
    let found = states(readings.iter().map(|reading| Ok(reading.0)).collect());
    for (i, (reading, state)) in readings.iter().zip(found).enumerate() {
        assert_eq!(state, reading.1, "reading {i}, {}", reading.0);
    }
}

#[test]
fn a_temperature_that_flutters_at_the_limit_does_not_make_the_state_flutter() {
    let flutter = (0..100).map(|i| Ok(8_000 - (i % 2) * 400)).collect();
    assert!(states(flutter).iter().all(|state| *state == Hot));
}

#[test]
fn a_thermometer_that_fails_three_times_counts_as_hot_until_it_reads_again() {
    let bad = Err("no acknowledge");
    assert_eq!(
        states(vec![
            Ok(3_000),
            bad,
            bad,
            Ok(3_000),
            bad,
            bad,
            bad,
            Ok(3_000)
        ]),
        [Normal, Normal, Normal, Normal, Normal, Normal, Hot, Normal]
    );
    assert_eq!(
        states(vec![Ok(9_900), bad, bad, bad]),
        [Critical; 4],
        "a failure does not end the hot state"
    );
    let mut guard = ThermalGuard::new(Script(vec![Ok(42), bad, bad, bad].into_iter()), limits());
    guard.poll().unwrap();
    assert_eq!((guard.last_cc(), guard.is_blind()), (Some(42), false));
    for _ in 0..3 {
        assert_eq!(guard.poll(), Err("no acknowledge"));
    }
    assert_eq!((guard.last_cc(), guard.is_blind()), (None, true));
    assert_eq!(guard.thermometer().0.len(), 0);
}

#[test]
fn limits_that_overlap_are_refused() {
    for (hot_cc, critical_cc, hysteresis_cc) in
        [(80, 70, 5), (80, 90, 10), (80, 90, -1), (80, 80, 0)]
    {
        assert_eq!(
            Limits::new(hot_cc, critical_cc, hysteresis_cc),
            Err(LimitsError {
                hot_cc,
                critical_cc,
                hysteresis_cc
            })
        );
    }
    assert!(Limits::new(i16::MIN, i16::MAX, i16::MAX).is_ok());
}
