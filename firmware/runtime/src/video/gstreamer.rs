//! Decoding with GStreamer. Its log, which announces each frame, is on standard output. The pixels come
//! through a pipe in place of its standard input (descriptor 0), which it does not read.

use std::{
    io,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use super::{
    is_url,
    process::{Program, lines},
    pump::{Announced, Pixels, Shared},
    ratio,
};

/// Elements that write upright RGB to descriptor 0 and log every buffer before it is written.
const ELEMENTS: &str = "! videoflip video-direction=auto ! videoconvert ! video/x-raw,format=RGB \
     ! identity name=frames silent=false ! fdsink fd=0 sync=false";

pub(super) fn start(video: &Path, shared: &Arc<Shared>) -> io::Result<(Program, Pixels)> {
    let (pixels, sink) = io::pipe()?;
    let mut command = Command::new("gst-launch-1.0");
    command.args(["-v", "uridecodebin"]);
    command.arg(format!("uri=\"{}\"", uri(video)?));
    command.args(ELEMENTS.split_whitespace());
    command
        .stdin(sink)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut program = Program::start(&mut command, keep)?;
    // Closes the command's copy of the pipe's write end, which would keep the pipe open.
    drop(command);
    let text = program.child().stdout.take();
    let text = text.ok_or_else(|| io::Error::other("it has no standard output"))?;
    let shared = shared.clone();
    thread::Builder::new().name("text".into()).spawn(move || {
        let mut size = None;
        lines(text, |line| parse_line(line, &mut size, &shared));
        shared.end_text();
    })?;
    Ok((program, Pixels::Padded(pixels)))
}

/// Returns the input as a URI without characters that are special to GStreamer's parser.
fn uri(video: &Path) -> io::Result<String> {
    let text = match is_url(video) {
        true => video.to_string_lossy().into_owned().into_bytes(),
        false => [
            b"file://",
            std::path::absolute(video)?.as_os_str().as_encoded_bytes(),
        ]
        .concat(),
    };
    // A URL is already encoded; in a file name these characters have no special meaning.
    let kept: &[u8] = match is_url(video) {
        true => b"-._~/:@?&=+,$#%[]",
        false => b"-._~/:",
    };
    let mut uri = String::new();
    for byte in text {
        if byte.is_ascii_alphanumeric() || kept.contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    Ok(uri)
}

/// Keeps the first error, but prefers one that names a missing decoder.
fn keep(line: &str, kept: &mut String) {
    let missing = line.starts_with("Missing decoder: ");
    if let Some(text) = line.strip_prefix("ERROR: ")
        && kept.is_empty()
    {
        // Without the path of the element.
        let text = text.strip_prefix("from element ").map_or(text, |text| {
            text.split_once(": ").map_or(text, |(_, text)| text)
        });
        kept.push_str(text);
    } else if missing || (kept.is_empty() && line.starts_with("WARNING: erroneous pipeline: ")) {
        kept.replace_range(.., line);
    }
}

/// Parses a line of its log: the caps of a pad, or a buffer.
fn parse_line(line: &str, size: &mut Option<(usize, usize)>, shared: &Shared) {
    let Some((_, line)) = line.split_once("/GstIdentity:frames") else {
        return;
    };
    if let Some(caps) = line.strip_prefix(".GstPad:sink: caps = video/x-raw, ") {
        let number = |name: &str| field(caps, name)?.parse().ok();
        *size = number("width=(int)").zip(number("height=(int)"));
        if let Some(rate) = ratio(field(caps, "framerate=(fraction)")) {
            shared.set_rate(rate);
        }
    } else if line.starts_with(": last-message = chain ")
        && let Some((width, height)) = *size
    {
        shared.announce(Announced {
            width,
            height,
            time: field(line, " pts: ").and_then(clock),
        });
    }
}

/// Returns the text after `name`, up to a comma.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split_once(name)?.1.split(',').next()
}

/// Parses `H:MM:SS.nnnnnnnnn`.
fn clock(text: &str) -> Option<Duration> {
    let (time, nanos) = text.split_once('.')?;
    let mut parts = time.split(':').map(|n| n.parse::<u64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    let seconds = hours
        .checked_mul(3600)?
        .checked_add(60 * minutes + seconds)?;
    Some(Duration::new(
        seconds,
        nanos.parse().ok().filter(|n| *n < 1_000_000_000)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_have_no_character_of_the_parser() {
        for (name, expected) in [
            (
                "/a b/-\"!'\\;(1)%.mp4",
                "file:///a%20b/-%22%21%27%5C%3B%281%29%25.mp4",
            ),
            (
                "rtsp://u:p@[::1]:8554/a?b=1&c=%20",
                "rtsp://u:p@[::1]:8554/a?b=1&c=%20",
            ),
            ("http://h/a b\"!", "http://h/a%20b%22%21"),
        ] {
            assert_eq!(uri(Path::new(name)).unwrap(), expected);
        }
        assert!(uri(Path::new("-a.mp4")).unwrap().ends_with("/-a.mp4"));
    }

    #[test]
    fn frames_are_announced_with_size_and_time() {
        let shared = Shared::new(true);
        let mut size = None;
        let frames = "/GstPipeline:pipeline0/GstIdentity:frames";
        let caps = |width: usize, height: usize, rate: &str| {
            format!(
                "{frames}.GstPad:sink: caps = video/x-raw, format=(string)RGB, width=(int){width}, height=(int){height}, framerate=(fraction){rate}"
            )
        };
        let chain = |pts: &str| {
            format!(
                "{frames}: last-message = chain   ******* (frames:sink) (9024 bytes, dts: none, pts: {pts}, duration: none) 0x7"
            )
        };
        for line in [
            chain("0:00:00.000000000"),
            caps(63, 47, "25/1"),
            caps(47, 63, "0/1"),
            chain("1:02:03.040000000"),
            chain("none"),
            format!("{frames}: last-message = event   ******* (frames:sink) E (type: caps)"),
        ] {
            parse_line(&line, &mut size, &shared);
        }
        let time = Duration::from_millis(3_723_040);
        assert_eq!(shared.announced_times(), [Some(time), None]);
        assert_eq!((size, shared.rate()), (Some((47, 63)), Some(25.0)));
    }

    #[test]
    fn the_message_is_the_first_error_or_the_missing_decoder() {
        let mut kept = String::new();
        keep(
            "ERROR: from element /GstPipeline:p/GstX:x: Could not determine type.",
            &mut kept,
        );
        keep("ERROR: pipeline doesn't want to preroll.", &mut kept);
        assert_eq!(kept, "Could not determine type.");
        keep("Missing decoder: H.264 (video/x-h264)", &mut kept);
        assert_eq!(kept, "Missing decoder: H.264 (video/x-h264)");
    }
}
