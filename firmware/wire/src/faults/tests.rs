extern crate std;

use std::vec;
use std::vec::Vec;

use super::*;

fn pass(seed: u64, faults: Faults, sent: &[u8]) -> (Vec<u8>, FaultCounters) {
    let mut cable = FaultInjector::<4096>::new(seed, faults);
    let mut taken = 0;
    let mut out = Vec::new();
    let mut buffer = [0; 64];
    while taken < sent.len() || cable.held() > 0 {
        taken += cable.write(&sent[taken..]);
        let length = cable.read(&mut buffer);
        out.extend_from_slice(&buffer[..length]);
    }
    (out, *cable.counters())
}

#[test]
fn a_good_cable_changes_nothing_even_when_it_stalls_and_splits() {
    let sent: Vec<u8> = (0..50_000u32).map(|i| i as u8).collect();
    let faults = Faults {
        split_ppm: 500_000,
        stall_ppm: 100_000,
        stall_polls: 5,
        ..Faults::default()
    };
    let (out, counters) = pass(1, faults, &sent);
    assert_eq!(out, sent);
    assert!(counters.splits > 0 && counters.stalls > 0);
}

#[test]
fn faults_come_as_often_as_asked_and_the_same_seed_brings_the_same() {
    let sent = vec![0xAA; 200_000];
    let faults = Faults {
        flip_ppm: 10_000,
        drop_ppm: 50_000,
        ..Faults::default()
    };
    let (out, counters) = pass(42, faults, &sent);
    assert_eq!(pass(42, faults, &sent).0, out);
    assert_ne!(pass(43, faults, &sent).0, out);
    // 5 % and 1 - 0.99^8 = 7.7 %, within five standard deviations.
    let share = |count: u64| count as f64 / sent.len() as f64;
    assert!((share(counters.dropped) - 0.05).abs() < 0.0025);
    assert!((share(counters.flipped) - 0.95 * 0.0773).abs() < 0.003);
    assert_eq!(out.len() as u64, counters.written - counters.dropped);
}

#[test]
fn the_trace_tells_what_arrives() {
    let sent: Vec<u8> = (0..3_000u32).map(|i| (i * 7) as u8).collect();
    let faults = Faults {
        flip_ppm: 20_000,
        drop_ppm: 100_000,
        ..Faults::default()
    };
    let mut cable = FaultInjector::<4096>::new(5, faults);
    let mut expected = Vec::new();
    cable.write_traced(&sent, |i, fate| match fate {
        Fate::Intact => expected.push(sent[i]),
        Fate::Flipped(mask) => expected.push(sent[i] ^ mask),
        Fate::Dropped => {}
    });
    let mut out = vec![0; expected.len() + 1];
    assert_eq!(cable.read(&mut out), expected.len());
    assert_eq!(out[..expected.len()], expected);
}

#[test]
fn a_full_cable_takes_no_more() {
    let mut cable = FaultInjector::<8>::new(1, Faults::default());
    assert_eq!(cable.write(&[1; 20]), 8);
    assert_eq!(cable.write(&[1; 20]), 0);
    assert_eq!(cable.read(&mut [0; 3]), 3);
    assert_eq!(cable.write(&[1; 20]), 3);
}

#[test]
fn a_stall_lasts_the_polls_it_says_and_ends() {
    let faults = Faults {
        stall_ppm: 1_000_000,
        stall_polls: 4,
        ..Faults::default()
    };
    let mut cable = FaultInjector::<8>::new(9, faults);
    cable.write(&[1, 2]);
    assert_eq!(cable.read(&mut [0; 2]), 0);
    cable.set_faults(Faults::default());
    let mut polls = 1;
    while cable.read(&mut [0; 2]) == 0 {
        polls += 1;
    }
    assert!(polls <= 4, "{polls}");
}
