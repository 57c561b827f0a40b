//! Linux devices that exist on every machine: a pseudo-terminal as the serial
//! line, a file as the thermal zone.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use loftup_board::linux::{LinuxError, ThermalZone, i2c, output_pin, serial};
use loftup_board::stdio::NonBlocking;
use loftup_board::{Link, Thermometer};
use loftup_wire::Bytes;
use loftup_wire::message::{MAX_DATA, MapChunk};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// A pseudo-terminal: its controlling side, and the path of its serial side.
fn terminal() -> (File, PathBuf) {
    let side = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&side).unwrap();
    unlockpt(&side).unwrap();
    fcntl_setfl(&side, OFlags::NONBLOCK).unwrap();
    let name = ptsname(&side, Vec::new()).unwrap();
    let path = Path::new(std::ffi::OsStr::from_bytes(name.to_bytes())).to_path_buf();
    (File::from(side), path)
}

#[test]
fn every_byte_crosses_a_serial_line_unchanged_both_ways() {
    let (side, path) = terminal();
    let mut line: Link<_> = Link::new(serial(&path, 921_600).unwrap());
    let mut other: Link<_> = Link::new(NonBlocking::new(side));
    // All byte values: a line that is not in raw mode drops or changes some.
    let data: Vec<u8> = (0..MAX_DATA as u32).map(|i| i as u8).collect();
    for (frame, there) in [(1, true), (2, false), (3, true)] {
        let chunk = MapChunk {
            frame,
            slot: 0,
            width: 20,
            height: 20,
            first: 0,
            count: 400,
            runs: Bytes::new(&data).unwrap(),
        };
        if there {
            line.send(&chunk.into()).unwrap();
            assert_eq!(other.receive().unwrap(), chunk.into());
        } else {
            other.send(&chunk.into()).unwrap();
            assert_eq!(line.receive().unwrap(), chunk.into());
        }
    }
    assert_eq!(line.counters().refused() + other.counters().refused(), 0);
}

#[test]
fn what_is_no_serial_line_is_told_with_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("plain");
    fs::write(&file, "").unwrap();
    let error = serial(&file, 9_600).unwrap_err();
    assert!(matches!(error, LinuxError::Serial { .. }), "{error}");
    assert!(error.to_string().contains("plain") && error.to_string().contains("9600"));
    let error = serial(directory.path().join("none"), 9_600).unwrap_err();
    assert!(matches!(error, LinuxError::File { .. }), "{error}");
}

#[test]
fn a_thermal_zone_is_read_in_hundredths_of_a_degree() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("temp");
    let mut zone = ThermalZone::new(&path);
    assert!(matches!(zone.read_cc(), Err(LinuxError::File { .. })));
    for (text, cc) in [
        ("51500\n", 5_150),
        ("0\n", 0),
        ("-1\n", -1),
        ("99999999\n", i16::MAX),
        ("-99999999", i16::MIN),
    ] {
        fs::write(&path, text).unwrap();
        assert_eq!(zone.read_cc().unwrap(), cc, "{text:?}");
    }
    for text in ["", "hot", "1.5", &"9".repeat(1_000_000)] {
        fs::write(&path, text).unwrap();
        let error = zone.read_cc().unwrap_err();
        assert!(matches!(error, LinuxError::Temperature { .. }), "{error}");
        assert!(error.to_string().len() < 200);
    }
}

#[test]
fn missing_chips_and_buses_are_told_with_their_path() {
    let error = output_pin("/dev/gpiochip-none", 3).err().unwrap();
    assert!(error.to_string().contains("gpiochip-none"), "{error}");
    let error = i2c("/dev/i2c-none").err().unwrap();
    assert!(error.to_string().contains("i2c-none"), "{error}");
}

#[test]
fn a_serial_line_has_one_owner_at_a_time() {
    let (_side, path) = terminal();
    let first = serial(&path, 115_200).unwrap();
    let error = serial(&path, 115_200).unwrap_err();
    assert!(matches!(error, LinuxError::InUse { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&*path.to_string_lossy()), "{text}");
    assert!(text.contains("in use by another process"), "{text}");
    drop(first);
    serial(&path, 115_200).unwrap();
}
