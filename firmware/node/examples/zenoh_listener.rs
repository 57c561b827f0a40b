//! Receives what `loftup-node` publishes for ROS 2. Independent of the node: it uses only zenoh and
//! parses the message bodies itself.
//!
//! ```text
//! zenoh_listener tcp/127.0.0.1:7447 DOMAIN MESSAGES
//! ```
//!
//! Acts as the router, waits for MESSAGES messages, and prints a line for each: `token`, `image`
//! (number, stamp, size, bytes in hexadecimal), `labels`, `tracks`, `points` or `status`.

use std::{env, process::ExitCode, sync::mpsc, time::Duration};

use zenoh::Wait;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Reads little-endian CDR.
struct Reader<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        match bytes.split_at_checked(4) {
            Some(([0, 1, 0, 0], body)) => Ok(Self { body, at: 0 }),
            _ => Err("not little-endian CDR".into()),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let rest = self.body.get(self.at..).unwrap_or_default();
        let bytes = rest.get(..count).ok_or("the body is too short")?;
        self.at += count;
        Ok(bytes)
    }

    fn number(&mut self, size: usize) -> Result<u32, Error> {
        self.at = self.at.next_multiple_of(size);
        let bytes = self.take(size)?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |n, byte| n << 8 | u32::from(*byte)))
    }

    fn float(&mut self) -> Result<f64, Error> {
        self.at = self.at.next_multiple_of(8);
        let bytes = self.take(8)?.first_chunk().ok_or("no eight bytes")?;
        Ok(f64::from_le_bytes(*bytes))
    }

    fn floats<const N: usize>(&mut self) -> Result<[f64; N], Error> {
        let mut values = [0.0; N];
        for value in &mut values {
            *value = self.float()?;
        }
        Ok(values)
    }

    fn text(&mut self) -> Result<&'a str, Error> {
        let length = self.number(4)? as usize;
        match self.take(length)?.split_last() {
            Some((0, text)) => Ok(std::str::from_utf8(text)?),
            _ => Err("a string is not zero-terminated".into()),
        }
    }

    /// Stamp and frame of reference.
    fn header(&mut self) -> Result<String, Error> {
        let (seconds, nanoseconds) = (self.number(4)?, self.number(4)?);
        Ok(format!("{seconds}.{nanoseconds:09} {}", self.text()?))
    }

    fn end(&self) -> Result<(), Error> {
        match self.body.len() - self.at {
            0 => Ok(()),
            n => Err(format!("{n} bytes after the end of the message").into()),
        }
    }
}

fn image(body: &[u8]) -> Result<String, Error> {
    let mut r = Reader::new(body)?;
    let header = r.header()?;
    let (height, width, encoding) = (r.number(4)?, r.number(4)?, r.text()?);
    let (big, step) = (r.number(1)?, r.number(4)?);
    let length = r.number(4)? as usize;
    let data: String = r.take(length)?.iter().map(|b| format!("{b:02x}")).collect();
    r.end()?;
    Ok(format!(
        "{header} {width}x{height} {encoding} {big} {step} {data}"
    ))
}

fn labels(body: &[u8]) -> Result<String, Error> {
    let mut r = Reader::new(body)?;
    let mut line = r.header()?;
    for _ in 0..r.number(4)? {
        let class = r.number(2)?;
        line += &format!(" {class}={}", r.text()?);
    }
    let threshold = f32::from_bits(r.number(4)?);
    r.end()?;
    Ok(format!("{line} {threshold}"))
}

/// For each detection: its ID, its class, its score, and the center and size of its box.
fn tracks(body: &[u8]) -> Result<String, Error> {
    let mut r = Reader::new(body)?;
    let mut line = r.header()?;
    for _ in 0..r.number(4)? {
        let header = r.header()?;
        if !line.starts_with(&header) || r.number(4)? != 1 {
            return Err("another header, or not one result".into());
        }
        let (class, score) = (r.text()?, r.float()?);
        // Position, orientation and covariance.
        let _pose: [f64; 3 + 4 + 36] = r.floats()?;
        let [x, y, _, width, height] = r.floats()?;
        line += &format!(" {}={class}:{score}:{x},{y},{width},{height}", r.text()?);
    }
    r.end()?;
    Ok(line)
}

/// The fields with their counts, then the values of all points.
fn points(body: &[u8]) -> Result<String, Error> {
    let mut r = Reader::new(body)?;
    let mut line = r.header()?;
    let (height, width) = (r.number(4)?, r.number(4)?);
    line += &format!(" {width}x{height}");
    let mut size = 0;
    for _ in 0..r.number(4)? {
        let name = r.text()?;
        let (offset, kind, count) = (r.number(4)?, r.number(1)?, r.number(4)?);
        // 32-bit floats.
        if (offset, kind) != (size, 7) {
            return Err("the fields have gaps, or other types".into());
        }
        line += &format!(" {name}={count}");
        size += 4 * count;
    }
    let (big, step, row, length) = (r.number(1)?, r.number(4)?, r.number(4)?, r.number(4)?);
    if (big, step, row, length) != (0, size, size * width, size * width * height) {
        return Err("the sizes do not match".into());
    }
    for bytes in r.take(length as usize)?.chunks_exact(4) {
        let bytes = bytes.first_chunk().ok_or("no four bytes")?;
        line += &format!(" {}", f32::from_le_bytes(*bytes));
    }
    if r.number(1)? != 1 {
        return Err("not dense".into());
    }
    r.end()?;
    Ok(line)
}

/// Level, then the message, then names and values, separated by `|`.
fn status(body: &[u8]) -> Result<String, Error> {
    let mut r = Reader::new(body)?;
    let mut line = r.header()?;
    if r.number(4)? != 1 {
        return Err("not one status".into());
    }
    line += &format!("|{}", r.number(1)?);
    let (name, message, _hardware) = (r.text()?, r.text()?, r.text()?);
    line += &format!("|{name}|{message}");
    for _ in 0..r.number(4)? {
        line += &format!("|{}={}", r.text()?, r.text()?);
    }
    r.end()?;
    Ok(line)
}

fn run() -> Result<(), Error> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [endpoint, domain, messages] = &arguments[..] else {
        return Err("usage: zenoh_listener ENDPOINT DOMAIN MESSAGES".into());
    };
    let mut config = zenoh::Config::default();
    config.insert_json5("mode", "\"router\"")?;
    config.insert_json5("listen/endpoints", &format!("[{endpoint:?}]"))?;
    config.insert_json5("scouting/multicast/enabled", "false")?;
    let session = zenoh::open(config).wait()?;
    let (sender, lines) = mpsc::channel();
    let tokens = sender.clone();
    let _tokens = session
        .liveliness()
        .declare_subscriber(format!("@ros2_lv/{domain}/**"))
        .history(true)
        .callback(move |sample| {
            let _ = tokens.send(Ok(format!("token {} {}", sample.kind(), sample.key_expr())));
        })
        .wait()?;
    let _topics = session
        .declare_subscriber(format!("{domain}/**"))
        .callback(move |sample| {
            let key = sample.key_expr().as_str();
            let body = sample.payload().to_bytes();
            let attachment = sample.attachment().map(|a| a.to_bytes().into_owned());
            let number = attachment
                .as_deref()
                .filter(|bytes| bytes.len() == 33 && bytes[16] == 16)
                .and_then(|bytes| bytes.first_chunk())
                .map(|bytes| i64::from_le_bytes(*bytes));
            let line = match number {
                None => Err("the attachment of rmw_zenoh is missing".into()),
                Some(n) if key.contains("Image_") => {
                    image(&body).map(|text| format!("image {key} {n} {text}"))
                }
                Some(n) if key.contains("Detection2DArray_") => {
                    tracks(&body).map(|text| format!("tracks {key} {n} {text}"))
                }
                Some(n) if key.contains("PointCloud2_") => {
                    points(&body).map(|text| format!("points {key} {n} {text}"))
                }
                Some(n) if key.contains("DiagnosticArray_") => {
                    status(&body).map(|text| format!("status {key} {n} {text}"))
                }
                Some(n) => labels(&body).map(|text| format!("labels {key} {n} {text}")),
            };
            let _ = sender.send(line);
        })
        .wait()?;
    println!("ready");
    let mut left: usize = messages.parse()?;
    while left > 0 {
        let line = lines.recv_timeout(Duration::from_secs(30))??;
        left -= usize::from(!line.starts_with("token"));
        println!("{line}");
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}
