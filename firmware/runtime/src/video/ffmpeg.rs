//! Decoding with ffmpeg. Pixels are read as PPM images, and timestamps from the output of the `showinfo` filter.

use std::{
    ffi::OsString,
    io::{self, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, OnceLock},
    time::Duration,
};

use super::{
    FrameCount, is_url,
    process::Program,
    pump::{Announced, Pixels, Shared},
    ratio,
};

/// Size of the pipe's buffer for headers, in bytes. Pixels bypass it.
const BUFFER: usize = 1 << 12;

/// The first version whose libraries have `-fps_mode`, 5.1.
const FPS_MODE: (u32, u32) = (57, 28);

pub(super) fn start(video: &Path, shared: &Arc<Shared>) -> io::Result<(Program, Pixels)> {
    let has_fps_mode = version()? >= FPS_MODE;
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-hide_banner", "-nostats"]);
    command.args(["-loglevel", "level+info"]);
    if is_url(video) {
        // By default, ffmpeg analyzes a stream for 5 seconds before decoding.
        command.args(["-analyzeduration", "500000"]);
    }
    if video.to_string_lossy().starts_with("rtsp") {
        command.args(["-rtsp_transport", "tcp"]);
    }
    command.arg("-i").arg(input(video));
    // The first video stream that is not an attached image. Every frame once, whatever its timestamp.
    command.args(["-map", "0:V:0"]);
    match has_fps_mode {
        true => command.args(["-vf", "showinfo=checksum=0", "-fps_mode", "passthrough"]),
        false => command.args(["-vf", "showinfo", "-vsync", "passthrough"]),
    };
    command.args([
        "-pix_fmt",
        "rgb24",
        "-c:v",
        "ppm",
        "-f",
        "image2pipe",
        "pipe:1",
    ]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut text = Text::default();
    let ending = Ending(shared.clone());
    let keep = move |line: &str, kept: &mut String| text.parse_line(line, &ending.0, kept);
    let mut program = Program::start(&mut command, keep)?;
    let out = program.child().stdout.take();
    let out = out.ok_or_else(|| io::Error::other("it has no standard output"))?;
    Ok((program, Pixels::Ppm(BufReader::with_capacity(BUFFER, out))))
}

/// Marks the announcements as ended when the thread that reads them exits.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end_text();
    }
}

/// Returns the input as an argument for ffmpeg. With `file:`, no name is taken for an option or a protocol.
fn input(video: &Path) -> OsString {
    let mut name = OsString::new();
    if !is_url(video) {
        name.push("file:");
    }
    name.push(video);
    name
}

/// Returns the version of libavutil, which all builds report in the same way. Queried once per process,
/// because it takes tens of milliseconds.
fn version() -> io::Result<(u32, u32)> {
    static VERSION: OnceLock<(u32, u32)> = OnceLock::new();
    if let Some(version) = VERSION.get() {
        return Ok(*version);
    }
    let output = Command::new("ffmpeg")
        .arg("-version")
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.lines().find_map(|line| {
        let numbers = line.strip_prefix("libavutil")?;
        let mut numbers = numbers.split(['.', '/']).map(|n| n.trim().parse().ok());
        Some((numbers.next()??, numbers.next()??))
    });
    Ok(*VERSION.get_or_init(|| version.unwrap_or(FPS_MODE)))
}

/// State of the parser of ffmpeg's log.
#[derive(Debug, Default)]
struct Text {
    /// Time base of the timestamps, in seconds.
    unit: Option<f64>,
}

impl Text {
    /// Parses a line: `[name @ address] [level] text`, or without the first part.
    fn parse_line(&mut self, line: &str, shared: &Shared, kept: &mut String) {
        let (from, line) = match line.strip_prefix('[').and_then(|l| l.split_once("] [")) {
            Some((from, rest)) => (from, rest),
            None => ("", line.trim_start_matches('[')),
        };
        let Some((level, text)) = line.split_once(']') else {
            return;
        };
        let text = text.trim();
        if matches!(level, "error" | "fatal" | "panic") {
            // Of several lines about one error, the first is the most specific; the last names the file.
            if kept.is_empty() {
                kept.push_str(text);
            }
        } else if from.starts_with("Parsed_showinfo") {
            self.show_info(text, shared);
        } else if from.is_empty()
            && text.starts_with("Duration: ")
            && !text.contains("Duration: N/A")
        {
            shared.set_recorded();
        }
    }

    fn show_info(&mut self, text: &str, shared: &Shared) {
        if let Some(text) = text.strip_prefix("config in ") {
            self.unit = ratio(field(text, "time_base:"));
            if let Some(rate) = ratio(field(text, "frame_rate:")) {
                shared.set_rate(rate);
            }
        } else if text.starts_with("n:") {
            // In units of the time base, because the seconds are rounded to six digits.
            let stamp = field(text, "pts:").and_then(|n| n.parse::<i64>().ok());
            let seconds = stamp.zip(self.unit).map(|(n, unit)| n.max(0) as f64 * unit);
            shared.announce(Announced {
                time: seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()),
                ..Announced::default()
            });
        }
    }
}

/// Returns the word after `name` and optional spaces.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(name)?;
    let rest = rest.trim_start();
    rest.split([' ', ',']).next()
}

/// Properties of a file reported by ffprobe.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Probe {
    pub count: Option<FrameCount>,
    /// Mean number of frames per second.
    pub rate: Option<f64>,
}

/// Runs ffprobe, if it is installed.
pub(super) fn probe(video: &Path) -> Probe {
    let entries = "stream=nb_frames,avg_frame_rate,duration:format=duration";
    let output = Command::new("ffprobe")
        .args([
            "-v",
            "error",
            "-select_streams",
            "V:0",
            "-show_entries",
            entries,
        ])
        .args(["-of", "default=noprint_wrappers=1"])
        .arg(input(video))
        .stdin(Stdio::null())
        .output();
    output.map_or_else(
        |_| Probe::default(),
        |output| probed(&String::from_utf8_lossy(&output.stdout)),
    )
}

fn probed(text: &str) -> Probe {
    let values = |name: &str| {
        let name = format!("{name}=");
        let values = text.lines().filter_map(move |l| l.strip_prefix(&name));
        values.map(str::to_owned).collect::<Vec<_>>()
    };
    let rate = ratio(values("avg_frame_rate").first().map(String::as_str));
    let exact = values("nb_frames").iter().find_map(|n| n.parse().ok());
    let exact = exact.filter(|n| *n > 0).map(FrameCount::Exact);
    let about = || {
        let seconds: f64 = values("duration").iter().find_map(|s| s.parse().ok())?;
        let frames = (seconds * rate?).round();
        (frames >= 1.0).then_some(FrameCount::About(frames as u64))
    };
    Probe {
        count: exact.or_else(about),
        rate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_never_options_or_protocols() {
        for (name, expected) in [
            ("-i", "file:-i"),
            ("a:b c.mp4", "file:a:b c.mp4"),
            ("rtsp://camera/1", "rtsp://camera/1"),
            ("a/rtsp://b", "file:a/rtsp://b"),
            ("://b", "file:://b"),
        ] {
            assert_eq!(input(Path::new(name)), expected);
        }
    }

    #[test]
    fn counts_come_from_the_container_or_from_its_duration() {
        let exact = "nb_frames=25\navg_frame_rate=25/1\nduration=1.000000\nduration=1.000000\n";
        let probe = probed(exact);
        assert_eq!(
            (probe.count, probe.rate),
            (Some(FrameCount::Exact(25)), Some(25.0))
        );
        let about = "avg_frame_rate=30000/1001\nduration=N/A\nnb_frames=N/A\nduration=10.010000\n";
        assert_eq!(probed(about).count, Some(FrameCount::About(300)));
        for text in [
            "",
            "avg_frame_rate=0/0\nduration=1.0\n",
            "avg_frame_rate=25/1\n",
        ] {
            assert_eq!(probed(text).count, None, "{text}");
        }
    }

    #[test]
    fn times_are_exact_and_the_first_error_is_kept() {
        let shared = Shared::new(true);
        let (mut text, mut kept) = (Text::default(), String::new());
        for line in [
            "[info]   Duration: N/A, start: 0.000000, bitrate: N/A",
            "[Parsed_showinfo_0 @ 0x5] [info] config in time_base: 1/90000, frame_rate: 30000/1001",
            "[Parsed_showinfo_0 @ 0x5] [info] n:   0 pts: 900000001 pts_time:10000 pos:  1 fmt:rgb24",
            "[Parsed_showinfo_0 @ 0x5] [info] n:   1 pts:  NOPTS pts_time:NOPTS   pos:  1 fmt:rgb24",
            "[mpegts @ 0x5] [warning] Packet corrupt",
            "[matroska,webm @ 0x5] [error] File ended prematurely",
            "[error] file:a.mkv: End of file",
            "no level",
        ] {
            text.parse_line(line, &shared, &mut kept);
        }
        assert_eq!(kept, "File ended prematurely");
        assert!(shared.is_live());
        text.parse_line("[info]   Duration: 00:00:01.00, start", &shared, &mut kept);
        assert!(!shared.is_live());
        assert_eq!(shared.rate(), Some(30000.0 / 1001.0));
        let times = shared.announced_times();
        let first = Duration::from_secs_f64(900_000_001.0 / 90_000.0);
        assert_eq!(times, [Some(first), None]);
    }
}
