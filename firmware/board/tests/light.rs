//! The status light distinguishes the states.

use std::cell::Cell;
use std::rc::Rc;

use embedded_hal_mock::eh1::MockError;
use embedded_hal_mock::eh1::digital::{Mock, State as Level, Transaction};
use loftup_board::{Color, Lamp, MonoLamp, Pattern, Polarity, RgbError, RgbLamp, StatusLight};
use loftup_wire::health::{Reason, State};

fn set(level: Level) -> Transaction {
    Transaction::set(level)
}

fn high() -> Transaction {
    set(Level::High)
}

fn low() -> Transaction {
    set(Level::Low)
}

/// Records each change; fails while `broken` is set.
#[derive(Default)]
struct Recorder {
    changes: Vec<Color>,
    broken: Rc<Cell<bool>>,
}

impl Lamp for &mut Recorder {
    type Error = &'static str;

    fn set(&mut self, color: Color) -> Result<(), &'static str> {
        if self.broken.get() {
            return Err("broken");
        }
        self.changes.push(color);
        Ok(())
    }
}

const ALL: [Option<State>; 6] = [
    None,
    Some(State::Starting),
    Some(State::Running),
    Some(State::Degraded(Reason::Late)),
    Some(State::Recovering),
    Some(State::Failed(Reason::Bundle)),
];

/// On or off for each millisecond over 12 s, ignoring the color.
fn rhythm(state: Option<State>) -> Vec<bool> {
    let pattern = Pattern::of(state);
    (0..12_000).map(|ms| pattern.at(ms) != Color::OFF).collect()
}

#[test]
fn every_state_has_a_color_and_a_rhythm_of_its_own() {
    for (i, one) in ALL.iter().enumerate() {
        for other in &ALL[i + 1..] {
            assert_ne!(Pattern::of(*one).color, Pattern::of(*other).color);
            assert_ne!(rhythm(*one), rhythm(*other), "{one:?} {other:?}");
        }
        // Neither off nor on for more than three seconds, so that a hung
        // controller is noticed.
        let longest = rhythm(*one)
            .chunk_by(|a, b| a == b)
            .map(<[bool]>::len)
            .max();
        assert!(longest <= Some(3_000), "{one:?}: {longest:?} ms");
    }
}

#[test]
fn a_failure_blinks_the_number_of_its_reason() {
    for (reason, number) in [
        (Reason::TooHot, 1),
        (Reason::Bundle, 5),
        (Reason::Other(7), 9),
    ] {
        let pattern = Pattern::of(Some(State::Failed(reason)));
        let one_round: Vec<bool> = (0..u64::from(pattern.length_ms()))
            .map(|ms| pattern.at(ms) == Color::RED)
            .collect();
        let flashes = one_round
            .chunk_by(|a, b| a == b)
            .filter(|run| run[0])
            .count();
        assert_eq!(flashes, number, "{reason:?}");
    }
}

#[test]
fn a_pattern_of_no_length_is_dark() {
    let nothing = Pattern {
        color: Color::RED,
        flashes: 3,
        on_ms: 0,
        off_ms: 0,
        pause_ms: 9,
    };
    assert_eq!(nothing.at(5), Color::OFF);
    let never = Pattern {
        pause_ms: 0,
        ..nothing
    };
    assert_eq!((never.at(5), never.length_ms()), (Color::OFF, 0));
}

#[test]
fn ticks_touch_the_lamp_only_when_something_changes() {
    let mut recorder = Recorder::default();
    let state = State::Degraded(Reason::TooHot);
    let pattern = Pattern::of(Some(state));
    let mut changes = 0;
    {
        let mut light = StatusLight::new(&mut recorder, 60_000);
        light.report(state, 0);
        let mut shown = None;
        for ms in 0..3_000 {
            light.tick(ms).unwrap();
            if shown != Some(pattern.at(ms)) {
                shown = Some(pattern.at(ms));
                changes += 1;
            }
        }
        light.release().unwrap();
    }
    // Two periods of two flashes are eight changes, plus one for the release.
    assert_eq!(changes, 8);
    assert_eq!(recorder.changes.len(), changes + 1);
    assert_eq!(recorder.changes.last(), Some(&Color::OFF));
}

#[test]
fn repeated_news_do_not_disturb_the_rhythm_and_old_news_are_no_news() {
    let mut recorder = Recorder::default();
    let mut light = StatusLight::new(&mut recorder, 1_000);
    assert_eq!(light.state(), None);
    light.report(State::Starting, 10_000);
    light.tick(10_000).unwrap();
    light.report(State::Starting, 10_700);
    light.tick(10_700).unwrap();
    light.tick(11_700).unwrap();
    assert_eq!(light.state(), Some(State::Starting), "just in time");
    light.tick(11_701).unwrap();
    assert_eq!(light.state(), None);
    // Blue at 0 ms, off at 700 ms, and off again 1700 ms into the next pattern.
    assert_eq!(recorder.changes, [Color::BLUE, Color::OFF, Color::MAGENTA]);
}

#[test]
fn a_lamp_that_failed_is_tried_again() {
    let mut recorder = Recorder::default();
    let broken = recorder.broken.clone();
    broken.set(true);
    let mut light = StatusLight::new(&mut recorder, 1_000);
    assert_eq!(light.tick(0), Err("broken"));
    assert_eq!(light.tick(1), Err("broken"));
    broken.set(false);
    assert_eq!(light.tick(2), Ok(()));
    assert_eq!(light.tick(3), Ok(()));
    assert_eq!(recorder.changes, [Color::MAGENTA]);
}

#[test]
fn one_pin_shines_for_any_color_and_knows_its_polarity() {
    let mut pin = Mock::new(&[high(), high(), low()]);
    let mut lamp = MonoLamp::new(pin.clone(), Polarity::ActiveHigh);
    for color in [Color::RED, Color::CYAN, Color::OFF] {
        lamp.set(color).unwrap();
    }
    pin.done();
    let mut pin = Mock::new(&[low(), high()]);
    let mut lamp = MonoLamp::new(pin.clone(), Polarity::ActiveLow);
    lamp.set(Color::BLUE).unwrap();
    lamp.set(Color::OFF).unwrap();
    pin.done();
}

#[test]
fn three_pins_mix_the_color_and_a_broken_one_is_named() {
    let mut red = Mock::new(&[high(), low()]);
    let mut green = Mock::new(&[high(), low()]);
    let mut blue = Mock::new(&[
        low(),
        low().with_error(MockError::Io(std::io::ErrorKind::BrokenPipe)),
    ]);
    let pins = (red.clone(), green.clone(), blue.clone());
    let mut lamp = RgbLamp::new(pins.0, pins.1, pins.2, Polarity::ActiveHigh);
    lamp.set(Color::YELLOW).unwrap();
    assert!(matches!(lamp.set(Color::OFF), Err(RgbError::Blue(_))));
    red.done();
    green.done();
    blue.done();
}
