//! Video files and streams as a source.

mod common;

use std::{
    net::UdpSocket,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use loftup_node::{
    frame::RawFrame,
    source::{Clock, Poll, Source, SourceError, Video},
};

/// Whether ffmpeg is installed; says so if it is not.
fn ffmpeg() -> bool {
    let found = Command::new("ffmpeg").arg("-version").output().is_ok();
    if !found {
        println!("SKIPPED: this test needs the program `ffmpeg`, which is not installed");
    }
    found
}

/// A clip of 40 x 30 at 50 frames per second. The level of its pixels is 20 times the frame number.
fn clip(path: &Path, frames: usize) {
    let source = "color=black:s=40x30:r=50,format=gbrp,geq=r=20*N:g=20*N:b=20*N";
    let status = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", source])
        .args(["-frames:v", &frames.to_string(), "-c:v", "ffv1"])
        .arg(path)
        .status();
    assert!(status.unwrap().success());
}

/// Polls until there is a result; panics after half a minute.
fn wait(source: &mut Video, clock: &Clock, into: &mut RawFrame) -> Result<Poll, SourceError> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let polled = source.next(clock, into);
        if !matches!(polled, Ok(Poll::Nothing | Poll::Starting)) {
            return polled;
        }
        assert!(Instant::now() < end, "no result");
    }
}

#[test]
fn a_file_plays_at_its_own_rate_and_ends() {
    if !ffmpeg() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a b.mkv");
    clip(&path, 10);
    // Its own rate, and another one.
    for (rate, period_us) in [(None, 20_000), (Some(100.0), 10_000)] {
        let mut source = Video::open(&path, rate, false).unwrap();
        let (clock, mut frame) = (Clock::start(), RawFrame::default());
        let (start, mut last) = (clock.now_us(), 0);
        for number in 0..10 {
            assert_eq!(wait(&mut source, &clock, &mut frame).unwrap(), Poll::Frame);
            assert_eq!((frame.number, frame.width, frame.height), (number, 40, 30));
            assert_eq!(frame.bytes, vec![20 * number as u8; 3 * 40 * 30]);
            assert!(frame.stamp_us <= clock.now_us() && (number == 0 || frame.stamp_us > last));
            last = frame.stamp_us;
        }
        // Not as fast as it is decoded.
        assert!(last - start >= 9 * period_us, "{} us", last - start);
        for _ in 0..2 {
            assert_eq!(wait(&mut source, &clock, &mut frame).unwrap(), Poll::End);
        }
    }
}

#[test]
fn a_file_repeats_with_numbers_that_go_on() {
    if !ffmpeg() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mkv");
    clip(&path, 3);
    let mut source = Video::open(&path, Some(200.0), true).unwrap();
    let (clock, mut frame) = (Clock::start(), RawFrame::default());
    for number in 0..7 {
        assert_eq!(wait(&mut source, &clock, &mut frame).unwrap(), Poll::Frame);
        assert_eq!(
            (frame.number, frame.bytes[0]),
            (number, 20 * (number % 3) as u8)
        );
    }
}

#[test]
fn damaged_and_missing_files_are_errors() {
    if !ffmpeg() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (clock, mut frame) = (Clock::start(), RawFrame::default());
    assert!(Video::open(&folder.path().join("none.mp4"), None, false).is_err());
    // It may be written later, so that it is tried again.
    let path = folder.path().join("text.mp4");
    std::fs::write(&path, "no video").unwrap();
    let mut source = Video::open(&path, None, false).unwrap();
    for _ in 0..2 {
        let error = wait(&mut source, &clock, &mut frame)
            .unwrap_err()
            .to_string();
        assert!(error.contains("text.mp4: ffmpeg: "), "{error}");
    }
    clip(&path.with_extension("mkv"), 12);
    let path = path.with_extension("mkv");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() * 2 / 3]).unwrap();
    let mut source = Video::open(&path, Some(200.0), false).unwrap();
    let mut count = 0;
    let error = loop {
        match wait(&mut source, &clock, &mut frame) {
            Ok(Poll::Frame) => count += 1,
            other => break other.unwrap_err().to_string(),
        }
    };
    assert!(count > 0 && count < 12, "{count}");
    assert!(
        error.contains(&format!("{count} frames could be decoded")),
        "{error}"
    );
    assert_eq!(wait(&mut source, &clock, &mut frame).unwrap(), Poll::End);
}

/// A sender over UDP, started again after its end.
#[test]
fn a_stream_is_opened_again_after_its_end() {
    if !ffmpeg() {
        return;
    }
    let port = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let send = || {
        let child = Command::new("ffmpeg")
            .args(["-nostdin", "-v", "error", "-re", "-f", "lavfi"])
            .args([
                "-i",
                "testsrc=s=64x48:r=20",
                "-c:v",
                "mpeg2video",
                "-g",
                "5",
            ])
            .args(["-f", "mpegts", &format!("udp://127.0.0.1:{port}")])
            .stdout(Stdio::null())
            .spawn();
        common::KillOnDrop(child.unwrap())
    };
    // ffmpeg reads on for as long as nothing comes; the time-out ends it.
    let address = format!("udp://127.0.0.1:{port}?timeout=700000");
    let mut source = Video::open(address.as_ref(), None, false).unwrap();
    let (clock, mut frame) = (Clock::start(), RawFrame::default());
    let mut next = 0;
    for _ in 0..2 {
        let sender = send();
        let mut seen = 0;
        while seen < 10 {
            match wait(&mut source, &clock, &mut frame) {
                Ok(Poll::Frame) => {
                    assert_eq!(frame.number, next);
                    assert_eq!((frame.width, frame.height), (64, 48));
                    (next, seen) = (next + 1, seen + 1);
                }
                // It was too early.
                Err(_) => {}
                other => panic!("{other:?}"),
            }
        }
        drop(sender);
        loop {
            match wait(&mut source, &clock, &mut frame) {
                Ok(Poll::Frame) => next = frame.number + 1,
                Err(e) => break println!("{e}"),
                other => panic!("{other:?}"),
            }
        }
    }
}
