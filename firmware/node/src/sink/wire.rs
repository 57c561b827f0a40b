//! The wire format over a line or socket: the node's side of `docs/wire-format.md`.

use std::{
    fmt::Debug,
    io,
    time::{Duration, Instant},
};

use embedded_io::{Read, ReadReady, Write, WriteReady};
use loftup_board::{Link, LinkError, stdio::NonBlocking};
use loftup_wire::{
    Handshake, Message, Text,
    command::{Outcome, Reply},
    features::{Coding, FeatureWriter},
    health,
    message::{self, Content, Label, MAX_DATA, MAX_REGIONS, Role},
    runs::MapWriter,
};

use super::{Context, Report, Sink, SinkError};
use crate::{
    answer::{Answer, Kind, Part, Precision, Region},
    inject::FaultyLine,
    metrics::Event,
};

/// A stream of bytes in both directions that never waits.
pub trait Line: Read + Write + ReadReady + WriteReady + Send {
    /// Sends what is held back, as far as that goes without waiting.
    ///
    /// # Errors
    /// Those of the line.
    fn push(&mut self) -> Result<(), Self::Error>;
}

impl<T: io::Read + io::Write + Send> Line for NonBlocking<T> {
    fn push(&mut self) -> io::Result<()> {
        // Flushing would wait for a reader.
        self.write_ready().map(drop)
    }
}

impl<IO: Line> Line for FaultyLine<IO> {
    fn push(&mut self) -> Result<(), IO::Error> {
        self.inner().push()
    }
}

/// Opens a line, as often as it is lost.
pub type Opener<IO> = Box<dyn Fn() -> Result<IO, String> + Send>;

/// The longest that a message is waited for to go out; then the line counts as cut.
const STALL: Duration = Duration::from_secs(1);
/// Between two attempts to open a line, and between two greetings.
const AGAIN: Duration = Duration::from_secs(1);
/// Labels are said again so often: frames get lost.
const LABELS: Duration = Duration::from_secs(10);
/// Most messages that are heard at once, so that a flood does not hold up outputs.
const HEARD: usize = 64;

/// Says outputs, labels and health over a line, and takes commands.
pub struct WireSink<IO> {
    name: String,
    open: Opener<IO>,
    link: Option<Link<IO>>,
    handshake: Handshake<'static>,
    retry_at: Instant,
    greet_at: Instant,
    labels_at: Instant,
    /// Link errors of lines that were lost.
    past_errors: u64,
}

impl<IO: Line> WireSink<IO>
where
    IO::Error: Debug,
{
    /// A sink called `name`; the line is opened at the first use.
    pub fn new(name: String, open: Opener<IO>) -> Self {
        let now = Instant::now();
        // A constant of far fewer than 32 bytes.
        let program =
            Text::new(concat!("loftup-node ", env!("CARGO_PKG_VERSION"))).unwrap_or_default();
        Self {
            name,
            open,
            link: None,
            handshake: Handshake::new(Role::Node, program),
            retry_at: now,
            greet_at: now,
            labels_at: now,
            past_errors: 0,
        }
    }

    /// Makes sure that there is a line. `false` while it is not time to try again.
    fn connect(&mut self) -> Result<bool, SinkError> {
        if self.link.is_some() {
            return Ok(true);
        }
        let now = Instant::now();
        if now < self.retry_at {
            return Ok(false);
        }
        self.retry_at = now + AGAIN;
        let io = (self.open)().map_err(SinkError::Other)?;
        self.link = Some(Link::new(io));
        self.handshake.reset();
        self.greet_at = now;
        Ok(true)
    }

    fn send(&mut self, message: &Message<'_>) -> Result<(), SinkError> {
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        let end = Instant::now() + STALL;
        let mut sent = link.queue(message);
        while sent.is_ok() {
            match link.poll_flush() {
                Ok(true) => return Ok(()),
                Ok(false) if Instant::now() < end => std::thread::sleep(Duration::from_micros(200)),
                Ok(false) => {
                    self.cut();
                    return Err(SinkError::Other(
                        "the line takes nothing any more: opening it again".into(),
                    ));
                }
                Err(e) => sent = Err(e),
            }
        }
        sent.map_err(|e| self.lost(&e))
    }

    fn lost(&mut self, e: &LinkError<IO::Error>) -> SinkError {
        self.cut();
        SinkError::Other(format!("{e}: opening it again"))
    }

    fn cut(&mut self) {
        self.past_errors = self.link_errors();
        self.link = None;
        self.retry_at = Instant::now() + AGAIN;
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        let flushed = link.io().push();
        flushed.map_err(|e| self.lost(&LinkError::Io(e)))
    }

    fn listen(&mut self, context: &Context<'_>) -> Result<(), SinkError> {
        for _ in 0..HEARD {
            let Some(link) = &mut self.link else { break };
            let received_us = context.clock.now_us();
            let answer: Message<'static> = match link.poll() {
                Ok(None) => break,
                Ok(Some(Message::Hello(hello))) => {
                    if hello.answer {
                        // Who greets knows no labels.
                        self.labels_at = Instant::now();
                    }
                    if let Err(e) = self.handshake.other() {
                        log::warn!("{}: {e}", self.name);
                    }
                    match self.handshake.receive(&hello) {
                        Some(answer) => answer.into(),
                        None => continue,
                    }
                }
                Ok(Some(_)) if !self.handshake.is_open() => continue,
                Ok(Some(Message::TimeRequest(request))) => {
                    request.reply(received_us, context.clock.now_us()).into()
                }
                Ok(Some(Message::Command(command))) => {
                    let outcome = context.control.carry_out(&command.action);
                    let event = match outcome {
                        Outcome::Done => Event::Command,
                        Outcome::Refused(_) => Event::CommandRefused,
                    };
                    context.metrics.count(event, 1);
                    Reply {
                        id: command.id,
                        outcome,
                    }
                    .into()
                }
                Ok(Some(_)) | Err(LinkError::Decode(_)) => continue,
                Err(e) => return Err(self.lost(&e)),
            };
            self.send(&answer)?;
        }
        Ok(())
    }

    fn say_labels(&mut self, labels: &[String]) -> Result<(), SinkError> {
        for (class, name) in (0u8..).zip(labels) {
            let label = Label {
                set: LABEL_SET,
                classes: u16::try_from(labels.len()).unwrap_or(u16::MAX),
                class,
                name: short(name),
            };
            self.send(&label.into())?;
        }
        Ok(())
    }

    fn say(&mut self, answer: &Answer, part: &Part) -> Result<(), SinkError> {
        // Frame numbers on the wire wrap around.
        let frame = answer.sequence as u32;
        let side = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        let (width, height) = (side(part.width), side(part.height));
        let content = match part.kind {
            Kind::Classes => Content::Classes {
                width,
                height,
                labels: LABEL_SET,
            },
            Kind::Features(_) => Content::Features {
                width,
                height,
                channels: side(part.channels),
            },
            Kind::Regions => Content::Regions {
                total: side(part.regions.len()),
                labels: LABEL_SET,
            },
        };
        let head = message::Answer {
            frame,
            slot: part.slot,
            stamp_us: answer.captured_us,
            source: part.source,
            content,
        };
        self.send(&head.into())?;
        let (max_body, bad) = (self.handshake.max_body(), |e| {
            SinkError::Other(format!("{e}"))
        });
        let mut scratch = [0; MAX_DATA];
        match part.kind {
            Kind::Classes => {
                let writer = MapWriter::new(frame, part.slot, width, height, &part.classes);
                let mut writer = writer.map_err(bad)?.with_max_body(max_body);
                while let Some(chunk) = writer.next_chunk(&mut scratch) {
                    self.send(&chunk.into())?;
                }
            }
            Kind::Features(precision) => {
                let coding = match precision {
                    Precision::F16 => Coding::F16,
                    Precision::U8 => Coding::U8,
                };
                let writer =
                    FeatureWriter::new(frame, part.slot, side(part.channels), &part.values, coding);
                let mut writer = writer.map_err(bad)?.with_max_body(max_body);
                while let Some(block) = writer.next_chunk(&mut scratch) {
                    self.send(&block.into())?;
                }
            }
            Kind::Regions => {
                // A region takes 25 bytes at most, and what is around them 13.
                let most = (max_body.saturating_sub(13) / 25).clamp(1, MAX_REGIONS);
                for (i, chunk) in part.regions.chunks(most).enumerate() {
                    let message = message::Regions {
                        frame,
                        slot: part.slot,
                        total: side(part.regions.len()),
                        first: side(i * most),
                        items: chunk.iter().map(region).collect(),
                    };
                    self.send(&message.into())?;
                }
            }
        }
        Ok(())
    }
}

/// The one set of labels: the head is chosen at the start.
const LABEL_SET: u16 = 1;

fn region(r: &Region) -> message::Region {
    message::Region {
        class: r.class,
        bounds: r.bounds,
        centre: r.center,
        pixels: r.pixels,
        // A linear head gives no probabilities.
        score: 255,
    }
}

/// As much of a name as fits, cut between characters.
fn short(name: &str) -> Text<'_, 32> {
    let end = (0..=name.len().min(32))
        .rev()
        .find(|i| name.is_char_boundary(*i));
    Text::new(&name[..end.unwrap_or(0)]).unwrap_or_default()
}

impl<IO: Line> Sink for WireSink<IO>
where
    IO::Error: Debug,
{
    fn name(&self) -> &str {
        &self.name
    }

    fn answer(&mut self, answer: &Answer, _: &Context<'_>) -> Result<(), SinkError> {
        if !self.handshake.is_open() {
            return Ok(());
        }
        for part in answer.parts() {
            self.say(answer, part)?;
        }
        self.flush()
    }

    fn health(&mut self, report: &Report, _: &Context<'_>) -> Result<(), SinkError> {
        if !self.handshake.is_open() {
            return Ok(());
        }
        let cut = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let message = health::Health {
            state: report.state.on_the_wire(),
            uptime_ms: report.uptime_us / 1000,
            rate_mhz: (report.rate_hz * 1000.0).round() as u32,
            latency_p50_us: cut(report.latency_p50_us),
            latency_p99_us: cut(report.latency_p99_us),
            temperature_cc: report.temperature_cc,
            answered: cut(report.answered),
            dropped: cut(report.dropped),
            link_errors: cut(self.link_errors()),
        };
        self.send(&message.into())?;
        self.flush()
    }

    fn poll(&mut self, context: &Context<'_>) -> Result<(), SinkError> {
        if !self.connect()? {
            return Ok(());
        }
        self.listen(context)?;
        let now = Instant::now();
        if !self.handshake.is_open() && now >= self.greet_at {
            self.greet_at = now + AGAIN;
            self.send(&self.handshake.hello().into())?;
        }
        if self.handshake.is_open() && now >= self.labels_at && !context.labels.is_empty() {
            self.labels_at = now + LABELS;
            self.say_labels(context.labels)?;
        }
        self.flush()
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        // The last bytes may still wait before the line.
        for _ in 0..50 {
            self.flush()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn link_errors(&self) -> u64 {
        let now = self.link.as_ref().map_or(0, |link| {
            let counters = link.counters();
            u64::from(counters.refused()) + u64::from(counters.lost)
        });
        self.past_errors + now
    }

    fn is_well(&self) -> bool {
        self.link.is_some()
    }
}
