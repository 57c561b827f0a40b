//! Images from the standard output of another program.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use loftup_node::{
    frame::RawFrame,
    source::{Clock, Piped, Poll, Source, SourceError},
};

const WIDTH: usize = 5;
const HEIGHT: usize = 2;

/// A source of 5 x 2 images from a shell script. Each row has one byte of padding.
fn shell(script: &str) -> Piped {
    let script = script.to_owned();
    let launch = move || {
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        command
    };
    Piped::new("sh", WIDTH, HEIGHT, Box::new(launch))
}

/// Polls until there is a result; panics after ten seconds.
fn wait(source: &mut Piped, clock: &Clock, into: &mut RawFrame) -> Result<Poll, SourceError> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let polled = source.next(clock, into);
        if !matches!(polled, Ok(Poll::Nothing)) {
            return polled;
        }
        assert!(Instant::now() < end, "no result");
    }
}

#[test]
fn row_padding_is_removed_and_a_normal_exit_ends_the_source() {
    let row = "abcdefghijklmno#";
    let mut source = shell(&format!(
        "printf '{row}{row}'; sleep 0.3; printf '{row}{row}'"
    ));
    let (clock, mut frame) = (Clock::start(), RawFrame::default());
    let mut last = 0;
    for number in 0..2 {
        assert_eq!(wait(&mut source, &clock, &mut frame).unwrap(), Poll::Frame);
        assert_eq!(
            (frame.number, frame.width, frame.height),
            (number, WIDTH, HEIGHT)
        );
        assert_eq!(frame.bytes, "abcdefghijklmno".repeat(2).as_bytes());
        assert!(frame.stamp_us > last && frame.stamp_us <= clock.now_us());
        last = frame.stamp_us;
    }
    assert_eq!(wait(&mut source, &clock, &mut frame).unwrap(), Poll::End);
}

#[test]
fn a_source_can_start_over_at_a_normal_exit() {
    let mut source = shell("printf '%032d' 1; sleep 0.1").repeated(true);
    let (clock, mut frame) = (Clock::start(), RawFrame::default());
    for number in 0..2 {
        assert_eq!(wait(&mut source, &clock, &mut frame).unwrap(), Poll::Frame);
        assert_eq!(frame.number, number, "numbers increase across restarts");
    }
}

#[test]
fn the_newest_image_is_kept_and_numbers_show_lost_ones() {
    let mut source = shell("for i in 1 2 3 4 5 6 7 8 9; do printf '%032d' $i; done; sleep 5");
    let (clock, mut frame) = (Clock::start(), RawFrame::default());
    assert_eq!(source.next(&clock, &mut frame).unwrap(), Poll::Nothing);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(wait(&mut source, &clock, &mut frame).unwrap(), Poll::Frame);
    assert_eq!((frame.number, frame.bytes[29]), (8, b'0'));
    assert_eq!(source.next(&clock, &mut frame).unwrap(), Poll::Nothing);
}

#[test]
fn a_failing_program_is_reported_with_its_message_and_restarted() {
    let mut source = shell("printf '%032d' 1; sleep 0.1; echo 'no camera here' >&2; exit 3");
    let (clock, mut frame) = (Clock::start(), RawFrame::default());
    let start = Instant::now();
    for number in 0..2 {
        assert_eq!(wait(&mut source, &clock, &mut frame).unwrap(), Poll::Frame);
        assert_eq!(frame.number, number, "numbers increase across restarts");
        let error = wait(&mut source, &clock, &mut frame)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("status: 3: no camera here") && !error.contains('\n'),
            "{error}"
        );
    }
    assert!(
        start.elapsed() > Duration::from_millis(900),
        "restarted too early"
    );
    let error = wait(&mut shell("printf abc"), &clock, &mut frame)
        .unwrap_err()
        .to_string();
    assert!(error.contains("in the middle of an image"), "{error}");
    let missing = || Command::new("/no/such/program");
    let mut missing = Piped::new("nothing", WIDTH, HEIGHT, Box::new(missing));
    let error = wait(&mut missing, &clock, &mut frame)
        .unwrap_err()
        .to_string();
    assert_eq!(error, "nothing: not found: install it");
}

#[test]
fn a_program_is_killed_with_its_source() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!(
        "echo $$ > {}; printf '%032d' 1; exec sleep 60",
        file.display()
    );
    let mut source = shell(&script);
    let (clock, mut frame) = (Clock::start(), RawFrame::default());
    assert_eq!(wait(&mut source, &clock, &mut frame).unwrap(), Poll::Frame);
    let pid = std::fs::read_to_string(&file).unwrap();
    let process = Path::new("/proc").join(pid.trim());
    assert!(process.exists());
    drop(source);
    assert!(!process.exists());
}

#[test]
fn gstreamer_delivers_images() {
    let found = Command::new("gst-launch-1.0").arg("--version").output();
    if found.is_err() {
        println!("SKIPPED: this test needs the program `gst-launch-1.0`, which is not installed");
        return;
    }
    let pipeline =
        "videotestsrc pattern=red is-live=true num-buffers=30 ! video/x-raw,framerate=30/1";
    // A width whose rows are padded.
    let mut source = Piped::gstreamer(pipeline, 70, 50);
    let (clock, mut frame) = (Clock::start(), RawFrame::default());
    for _ in 0..5 {
        assert_eq!(wait(&mut source, &clock, &mut frame).unwrap(), Poll::Frame);
        assert_eq!(frame.bytes.len(), 3 * 70 * 50);
        let red = |p: &[u8]| p[0] > 240 && p[1] < 15 && p[2] < 15;
        assert!(frame.bytes.chunks(3).all(red), "{:?}", &frame.bytes[..6]);
    }
    let last = loop {
        match wait(&mut source, &clock, &mut frame).unwrap() {
            Poll::Frame => {}
            other => break other,
        }
    };
    assert_eq!((last, frame.number), (Poll::End, 29));
    let mut wrong = Piped::gstreamer("nosuchsource", 70, 50);
    let error = wait(&mut wrong, &clock, &mut frame)
        .unwrap_err()
        .to_string();
    assert!(error.contains("nosuchsource"), "{error}");
}
