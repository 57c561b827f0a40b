//! Frames of video files by ffmpeg and GStreamer, and video files by ffmpeg. Needs both programs; parts of it
//! are skipped where one is missing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use loftup_runtime::{
    image::RgbImage,
    video::{Decoder, FrameCount, Polled, VideoError, VideoFrame, VideoReader, VideoWriter},
};

const BOTH: [Decoder; 2] = [Decoder::Ffmpeg, Decoder::Gstreamer];

/// Whether a program is installed; says so if it is not.
fn installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        println!("SKIPPED: this test needs the program `{program}`, which is not installed");
    }
    found
}

/// The decoders that are installed.
fn decoders() -> impl Iterator<Item = Decoder> {
    BOTH.into_iter().filter(|d| installed(d.program()))
}

/// Runs ffmpeg, which writes `out` from `input`.
fn ffmpeg(input: &[&str], options: &[&str], out: &Path) {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y"]).args(input);
    let output = command.args(options).arg(out).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
}

/// A frame in which every pixel and every frame differs.
fn image(width: usize, height: usize, number: usize) -> RgbImage {
    let byte = |i: usize| ((i + 7919 * number).wrapping_mul(2_654_435_761) >> 13) as u8;
    RgbImage::new(width, height, (0..3 * width * height).map(byte).collect()).unwrap()
}

/// PNG files of `count` frames, as input for ffmpeg at 25 frames per second.
fn pngs(dir: &Path, width: usize, height: usize, count: usize) -> (Vec<RgbImage>, String) {
    let dir = dir.join(format!("{width}x{height}"));
    fs::create_dir_all(&dir).unwrap();
    let images: Vec<_> = (0..count).map(|i| image(width, height, i)).collect();
    for (i, image) in images.iter().enumerate() {
        image.save_png(&dir.join(format!("{i:03}.png"))).unwrap();
    }
    (images, dir.join("%03d.png").display().to_string())
}

/// A lossless clip: FFV1 in Matroska, or PNG in QuickTime, which GStreamer decodes without further packages.
fn clip(
    dir: &Path,
    name: &str,
    width: usize,
    height: usize,
    count: usize,
) -> (PathBuf, Vec<RgbImage>) {
    let (images, files) = pngs(dir, width, height, count);
    let out = dir.join(name);
    let codec = match name.ends_with("mkv") {
        true => ["-c:v", "ffv1", "-pix_fmt", "gbrp"],
        false => ["-c:v", "png", "-pix_fmt", "rgb24"],
    };
    ffmpeg(&["-framerate", "25", "-i", &files], &codec, &out);
    (out, images)
}

/// All frames, and the reader after the end; panics after a minute without an end.
fn frames(video: &Path, decoder: Decoder) -> Result<(Vec<VideoFrame>, VideoReader), VideoError> {
    let mut reader = VideoReader::open_with(video, decoder)?;
    let end = Instant::now() + Duration::from_secs(60);
    let mut frames = Vec::new();
    loop {
        let mut frame = VideoFrame::default();
        match reader.poll(Duration::from_millis(100), &mut frame)? {
            Polled::Frame => frames.push(frame),
            Polled::End => break,
            Polled::Nothing => assert!(Instant::now() < end, "no end of {}", video.display()),
        }
    }
    assert_eq!(
        reader.poll(Duration::ZERO, &mut VideoFrame::default())?,
        Polled::End
    );
    Ok((frames, reader))
}

fn assert_same(frames: &[VideoFrame], images: &[RgbImage], what: &str) {
    assert_eq!(frames.len(), images.len(), "{what}");
    for (i, (frame, image)) in frames.iter().zip(images).enumerate() {
        assert_eq!(frame.number, i as u64, "{what}");
        let size = (image.width(), image.height());
        assert_eq!((frame.width, frame.height), size, "{what}");
        assert!(frame.data == image.data(), "{what}: frame {i} differs");
    }
}

#[test]
fn lossless_clips_have_the_bits_of_their_images() {
    if !installed("ffmpeg") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // Names that a shell, an option parser, or the parser of a pipeline would stumble over.
    for (name, width, height) in [
        ("plain.mov", 64, 48),
        ("-i odd size.mov", 63, 47),
        ("a:b !'\"\\(1) %20;ä.mov", 5, 3),
        ("one.mov", 1, 1),
        ("film.mkv", 61, 33),
    ] {
        let (video, images) = clip(dir.path(), name, width, height, 12);
        for decoder in decoders() {
            let what = format!("{name} by {decoder}");
            if name.ends_with("mkv") && decoder == Decoder::Gstreamer {
                // FFV1 is in a package of its own.
                continue;
            }
            let (frames, reader) = frames(&video, decoder).unwrap();
            assert_same(&frames, &images, &what);
            for frame in &frames {
                let expected = Duration::from_millis(40 * frame.number);
                assert_eq!(frame.time, Some(expected), "{what}");
            }
            assert_eq!(
                (reader.rate(), reader.problem()),
                (Some(25.0), None),
                "{what}"
            );
            assert!(!reader.is_live());
            let expected = match decoder {
                Decoder::Ffmpeg if name.ends_with("mkv") => Some(FrameCount::About(12)),
                Decoder::Ffmpeg if installed("ffprobe") => Some(FrameCount::Exact(12)),
                _ => None,
            };
            assert_eq!(reader.count(), expected, "{what}");
        }
    }
}

#[test]
fn rotated_clips_are_upright() {
    if !installed("ffmpeg") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (video, images) = clip(dir.path(), "a.mov", 31, 18, 3);
    // The matrix of the track: a quarter turn clockwise.
    let mut bytes = fs::read(&video).unwrap();
    let track = bytes.windows(4).position(|w| w == b"tkhd").unwrap();
    let fixed = |values: [i32; 9]| values.map(i32::to_be_bytes).concat();
    let one = 1 << 16;
    let plain = fixed([one, 0, 0, 0, one, 0, 0, 0, 1 << 30]);
    let matrix = bytes[track..].windows(36).position(|w| w == plain).unwrap();
    let turned = fixed([0, one, 0, -one, 0, 0, 18 << 16, 0, 1 << 30]);
    bytes[track + matrix..][..36].copy_from_slice(&turned);
    fs::write(&video, bytes).unwrap();
    let turn = |image: &RgbImage| {
        let (width, height) = (image.height(), image.width());
        let pixels = (0..width * height).flat_map(|i| {
            let (x, y) = (i % width, i / width);
            let row = image.row(image.height() - 1 - x);
            [row[3 * y], row[3 * y + 1], row[3 * y + 2]]
        });
        RgbImage::new(width, height, pixels.collect()).unwrap()
    };
    let turned: Vec<_> = images.iter().map(turn).collect();
    for decoder in decoders() {
        let (frames, _) = frames(&video, decoder).unwrap();
        assert_same(&frames, &turned, decoder.program());
    }
}

#[test]
fn times_of_a_variable_rate_are_those_of_the_file() {
    if !installed("ffmpeg") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (images, files) = pngs(dir.path(), 8, 6, 6);
    let at = |name: &str| dir.path().join(name);
    let times = [
        "-vf",
        "settb=1/1000,setpts=N*N*70",
        "-enc_time_base",
        "1/1000",
        "-c:v",
        "png",
        "-pix_fmt",
        "rgb24",
    ];
    ffmpeg(&["-framerate", "25", "-i", &files], &times, &at("a.mkv"));
    ffmpeg(
        &["-i", at("a.mkv").to_str().unwrap()],
        &["-c", "copy"],
        &at("a.mov"),
    );
    for name in ["a.mkv", "a.mov"] {
        for decoder in decoders() {
            let what = format!("{name} by {decoder}");
            let (frames, _) = frames(&at(name), decoder).unwrap();
            assert_same(&frames, &images, &what);
            for (frame, n) in frames.iter().zip(0u64..) {
                let (time, expected) = (frame.time.unwrap(), Duration::from_millis(70 * n * n));
                assert!(
                    time.abs_diff(expected) < Duration::from_micros(1),
                    "{what}: {time:?}, not {expected:?}"
                );
            }
        }
    }
}

#[test]
fn truncated_files_are_an_error_or_end_early_and_say_so() {
    if !installed("ffmpeg") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (video, images) = clip(dir.path(), "a.mkv", 24, 18, 10);
    // The index first, as in a file to be streamed.
    let fast = dir.path().join("fast.mov");
    let copy = ["-c", "copy", "-movflags", "+faststart"];
    let (whole, _) = clip(dir.path(), "b.mov", 24, 18, 10);
    ffmpeg(&["-i", whole.to_str().unwrap()], &copy, &fast);
    let cut = dir.path().join("cut");
    let (mut errors, mut early) = (0, 0);
    for (video, decoder) in [
        (&video, Decoder::Ffmpeg),
        (&fast, Decoder::Ffmpeg),
        (&fast, Decoder::Gstreamer),
    ] {
        if !installed(decoder.program()) {
            continue;
        }
        let bytes = fs::read(video).unwrap();
        for part in [0, 3, 20, 40, 50, 75, 99] {
            let length = bytes.len() * part / 100;
            fs::write(&cut, &bytes[..length]).unwrap();
            let what = format!("{} by {decoder}, cut at {part} %", video.display());
            match frames(&cut, decoder) {
                Ok((frames, reader)) => {
                    println!("{what}: {} frames, {:?}", frames.len(), reader.problem());
                    assert!(frames.len() < images.len(), "{what}");
                    assert_same(&frames, &images[..frames.len()], &what);
                    early += 1;
                    // GStreamer counts a truncated file as complete.
                    if decoder == Decoder::Ffmpeg {
                        let problem = reader.problem().unwrap();
                        assert!(problem.contains(&frames.len().to_string()), "{problem}");
                    }
                }
                Err(e) => {
                    println!("{e}");
                    errors += 1;
                    assert!(e.to_string().contains("cut: "), "{e}");
                }
            }
        }
    }
    assert!(
        errors > 5 && early > 5,
        "{errors} errors, {early} early ends"
    );
}

/// A clip that is cut without encoding it again contains the frames before the cut, which are not shown.
#[test]
fn frames_hidden_by_an_edit_list_are_not_missing() {
    if !installed("ffmpeg") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (_, files) = pngs(folder.path(), 32, 16, 50);
    let whole = folder.path().join("whole.mp4");
    let codec = ["-c:v", "mpeg4", "-g", "50", "-bf", "0"];
    ffmpeg(&["-framerate", "25", "-i", &files], &codec, &whole);
    let cut = folder.path().join("cut.mp4");
    let input = ["-ss", "1", "-i", whole.to_str().unwrap()];
    ffmpeg(&input, &["-c", "copy"], &cut);
    let (found, reader) = frames(&cut, Decoder::Ffmpeg).unwrap();
    assert_eq!(reader.count(), Some(FrameCount::Exact(50)));
    assert!((20..30).contains(&found.len()), "{}", found.len());
    assert_eq!(reader.problem(), None);
}

#[test]
fn what_is_no_video_is_an_error_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("text.mp4"), "no video\n".repeat(100)).unwrap();
    let error = |name: &str, decoder| match frames(&at(name), decoder) {
        Ok((frames, _)) => panic!("{name} has {} frames", frames.len()),
        Err(e) => e.to_string(),
    };
    for decoder in BOTH {
        for name in ["none.mp4", ""] {
            let message = error(name, decoder);
            assert!(
                message.contains("(os error") || message.contains("directory"),
                "{message}"
            );
        }
    }
    for decoder in decoders() {
        let message = error("text.mp4", decoder);
        let program = decoder.program();
        assert!(
            message.contains("text.mp4: ") && message.contains(program),
            "{message}"
        );
        let reason = ["moov atom", "Invalid data", "type of stream", "text file"];
        assert!(reason.iter().any(|r| message.contains(r)), "{message}");
    }
    if !installed("ffmpeg") {
        return;
    }
    let source = ["-f", "lavfi", "-i", "testsrc=s=64x48:d=1"];
    ffmpeg(
        &source,
        &["-frames:v", "0", "-c:v", "ffv1"],
        &at("empty.mkv"),
    );
    ffmpeg(
        &source,
        &["-frames:v", "0", "-c:v", "png"],
        &at("empty.mov"),
    );
    ffmpeg(&["-f", "lavfi", "-i", "sine=d=1"], &[], &at("sound.wav"));
    for decoder in decoders() {
        for name in ["empty.mkv", "empty.mov", "sound.wav"] {
            let message = error(name, decoder);
            println!("{message}");
            assert!(
                message.contains(name) && !message.contains('\n'),
                "{message}"
            );
        }
    }
}

/// Command lines of running programs that name a file.
fn running(file: &Path) -> usize {
    let name = file.to_str().unwrap().as_bytes();
    let processes = fs::read_dir("/proc").unwrap().map_while(Result::ok);
    let lines = processes.filter_map(|p| fs::read(p.path().join("cmdline")).ok());
    lines
        .filter(|line| line.windows(name.len()).any(|w| w == name))
        .count()
}

#[test]
fn a_program_ends_with_its_reader() {
    if !installed("ffmpeg") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let video = dir.path().join("long.mov");
    let source = ["-f", "lavfi", "-i", "color=s=640x480:d=40"];
    ffmpeg(&source, &["-c:v", "png"], &video);
    for decoder in decoders() {
        let mut reader = VideoReader::open_with(&video, decoder).unwrap();
        let mut frame = VideoFrame::default();
        assert!(reader.read(&mut frame).unwrap());
        // It waits for its frames to be taken.
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(running(&video), 1, "{decoder}");
        drop(reader);
        assert_eq!(running(&video), 0, "{decoder}");
    }
}

#[test]
fn videos_are_written() {
    if !installed("ffmpeg") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let shade = |i: usize| {
        let level =
            |x: usize, y: usize| [(40 + 2 * x) as u8, (30 + 2 * y) as u8, (60 + 8 * i) as u8];
        let pixels = (0..61 * 45).flat_map(|p| level(p % 61, p / 61));
        RgbImage::new(61, 45, pixels.collect()).unwrap()
    };
    for name in ["-a b.mp4", "a.mkv", "a.webm"] {
        let path = dir.path().join(name);
        let mut writer = VideoWriter::create(&path, 61, 45, 12.5).unwrap();
        for i in 0..10 {
            writer.write(&shade(i)).unwrap();
        }
        let error = writer.write(&image(60, 45, 0)).unwrap_err().to_string();
        assert!(
            error.contains("60x45") && error.contains("61x45"),
            "{error}"
        );
        assert!(!path.exists());
        writer.finish().unwrap();
        let (frames, reader) = frames(&path, Decoder::Ffmpeg).unwrap();
        assert_eq!((frames.len(), reader.rate()), (10, Some(12.5)), "{name}");
        for (i, frame) in frames.iter().enumerate() {
            assert_eq!((frame.width, frame.height), (62, 46), "{name}");
            let expected = shade(i);
            let mut off = 0;
            for y in 0..45 {
                let row = &frame.data[3 * 62 * y..][..3 * 61];
                let pairs = row.iter().zip(expected.row(y));
                off += pairs.map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>();
            }
            let mean = off as f64 / (3 * 61 * 45) as f64;
            assert!(mean < 4.0, "{name}: frame {i} is off by {mean}");
        }
    }
    // An unfinished video leaves nothing.
    let path = dir.path().join("half.mp4");
    let mut writer = VideoWriter::create(&path, 61, 45, 10.0).unwrap();
    writer.write(&shade(0)).unwrap();
    drop(writer);
    let left = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!((path.exists(), left), (false, 3));
    for (name, word) in [
        ("a.gif", ".mp4, .mkv or .webm"),
        ("no/a.mp4", "no directory"),
    ] {
        let error = VideoWriter::create(&dir.path().join(name), 8, 8, 10.0).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(word), "{error}");
    }
}
