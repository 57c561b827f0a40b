//! The camera trigger keeps its schedule.

mod common;

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use common::Time;
use embedded_hal::digital::{ErrorType, OutputPin};
use embedded_hal_mock::eh1::digital::{Mock, State, Transaction};
use loftup_board::{CameraTrigger, Clock, Schedule, ScheduleError};
use loftup_wire::faults::Random;

/// A pin that records its changes.
#[derive(Clone)]
struct Scope {
    time: Time,
    edges: Rc<RefCell<Vec<(u64, bool)>>>,
}

impl ErrorType for Scope {
    type Error = Infallible;
}

impl OutputPin for Scope {
    fn set_low(&mut self) -> Result<(), Infallible> {
        self.edges.borrow_mut().push((self.time.us(), false));
        Ok(())
    }
    fn set_high(&mut self) -> Result<(), Infallible> {
        self.edges.borrow_mut().push((self.time.us(), true));
        Ok(())
    }
}

fn scope(time: &Time) -> Scope {
    Scope {
        time: time.clone(),
        edges: Rc::default(),
    }
}

const FIFTEEN_HZ: u32 = 66_667;

fn schedule() -> Schedule {
    Schedule::new(FIFTEEN_HZ, 500).unwrap()
}

#[test]
fn a_pulse_must_be_shorter_than_its_period_and_longer_than_nothing() {
    for (period_us, width_us) in [(0, 0), (10, 0), (10, 10), (10, 11)] {
        assert_eq!(
            Schedule::new(period_us, width_us),
            Err(ScheduleError {
                period_us,
                width_us
            })
        );
    }
    assert!(Schedule::new(10, 9).is_ok());
}

#[test]
fn the_pin_goes_low_high_low_and_nothing_else() {
    let edges = [
        Transaction::set(State::Low),
        Transaction::set(State::High),
        Transaction::set(State::Low),
        Transaction::set(State::High),
        Transaction::set(State::Low),
        // Always released low.
        Transaction::set(State::Low),
    ];
    let time = Time::default();
    let mut trigger = CameraTrigger::new(Mock::new(&edges), time.clone(), schedule()).unwrap();
    for us in 0..=67_000 {
        time.set_us(us);
        let pulse = trigger.poll().unwrap();
        assert_eq!(pulse.is_some(), us == 0 || us == u64::from(FIFTEEN_HZ));
    }
    time.set_us(68_000);
    assert_eq!(trigger.poll().unwrap(), None, "the second pulse ends");
    let (mut pin, _) = trigger.release().unwrap();
    pin.done();
}

#[test]
fn a_loop_that_polls_irregularly_makes_jitter_but_no_drift() {
    let time = Time::default();
    let pin = scope(&time);
    time.set_us(123_456);
    let mut trigger = CameraTrigger::new(pin.clone(), time.clone(), schedule()).unwrap();
    let mut random = Random::new(8);
    let mut pulses = Vec::new();
    while pulses.len() < 10_000 {
        pulses.extend(trigger.poll().unwrap());
        time.add_us(1 + u64::from(random.below(300)));
    }
    let mut sum = 0;
    for (number, pulse) in pulses.iter().enumerate() {
        let due = 123_456 + number as u64 * u64::from(FIFTEEN_HZ);
        assert_eq!(pulse.number, number as u64);
        assert_eq!(pulse.at_us - due, pulse.deviation_us as u64);
        assert!((0..=300).contains(&pulse.deviation_us), "{pulse:?}");
        sum += i64::from(pulse.deviation_us);
    }
    let jitter = *trigger.jitter();
    println!("{jitter:?}, mean {:?} us", jitter.mean_us());
    assert_eq!(jitter.pulses(), 10_000);
    assert_eq!(jitter.missed(), 0);
    assert_eq!(jitter.mean_us(), Some(sum / 10_000));
    let all = || pulses.iter().map(|pulse| pulse.deviation_us);
    assert_eq!(jitter.min_us(), all().min());
    assert_eq!(jitter.max_us(), all().max());
    // The reported deviations match the edges at the pin.
    let edges = pin.edges.borrow();
    let rises: Vec<u64> = edges.iter().filter(|e| e.1).map(|e| e.0).collect();
    assert!(rises.iter().eq(pulses.iter().map(|pulse| &pulse.at_us)));
    for pair in edges[1..].chunks_exact(2) {
        let width = pair[1].0 - pair[0].0;
        assert!(pair[0].1 && !pair[1].1 && (500..=800).contains(&width));
    }
}

#[test]
fn waiting_for_each_pulse_does_not_drift_however_the_delay_oversleeps() {
    let time = Time::default();
    let pin = scope(&time);
    let mut trigger = CameraTrigger::new(pin.clone(), time.clone(), schedule()).unwrap();
    let mut delay = time.clone();
    let mut random = Random::new(2);
    for number in 0..5_000u64 {
        time.oversleep_ns.set(u64::from(random.below(90_000)));
        let pulse = trigger.fire(&mut delay).unwrap();
        assert_eq!(pulse.number, number);
        assert!((0..=90).contains(&pulse.deviation_us), "{pulse:?}");
        // The caller's own work, well below one period.
        time.add_us(u64::from(random.below(50_000)));
    }
    let (min, max) = (trigger.jitter().min_us(), trigger.jitter().max_us());
    println!(
        "deviation {min:?} to {max:?} us, mean {:?}",
        trigger.jitter().mean_us()
    );
    assert_eq!(trigger.jitter().missed(), 0);
    assert_eq!(trigger.due_us(), 5_000 * u64::from(FIFTEEN_HZ));
}

#[test]
fn pulses_whose_time_has_passed_are_left_out_and_counted() {
    let time = Time::default();
    let pin = scope(&time);
    let mut trigger = CameraTrigger::new(pin.clone(), time.clone(), schedule()).unwrap();
    assert_eq!(trigger.poll().unwrap().unwrap().number, 0);
    time.set_us(3 * u64::from(FIFTEEN_HZ) + 40);
    let pulse = trigger.poll().unwrap().unwrap();
    assert_eq!((pulse.number, pulse.deviation_us), (3, 40));
    assert_eq!(trigger.jitter().missed(), 2);
    time.add_us(10);
    assert_eq!(trigger.poll().unwrap(), None, "no burst of missed pulses");
    trigger.reset_jitter();
    assert_eq!(trigger.jitter().mean_us(), None);
    assert_eq!(trigger.jitter().min_us(), None);
    let fired = trigger.fire(&mut time.clone()).unwrap();
    assert_eq!((fired.number, fired.deviation_us), (4, 0));
}

#[test]
fn a_clock_by_reference_is_the_same_clock() {
    fn through(mut clock: impl Clock) -> u64 {
        clock.now_ms()
    }
    let mut time = Time::default();
    time.set_us(2_500);
    assert_eq!(through(&mut time), 2);
}
