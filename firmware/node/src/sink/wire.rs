//! The node's side of the wire format (`docs/wire-format.md`), over a serial line or socket.

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
    depth::DepthWriter,
    features::{Coding, FeatureWriter},
    health,
    message::{self, Content, Label, MAX_DATA, MAX_REGIONS, Role},
    runs::MapWriter,
};

use super::{Context, HealthReport, Sink, SinkError, SinkStatus};
use crate::{
    inject::FaultyLine,
    metrics::Event,
    objects::named,
    output::{CLASS_LABELS, FrameOutput, OutputKind, Precision, QueryOutput, Region},
};

/// A non-blocking, bidirectional byte stream.
pub trait Line: Read + Write + ReadReady + WriteReady + Send {
    /// Sends buffered bytes as far as possible without blocking.
    ///
    /// # Errors
    /// Errors of the line.
    fn try_flush(&mut self) -> Result<(), Self::Error>;
}

impl<T: io::Read + io::Write + Send> Line for NonBlocking<T> {
    fn try_flush(&mut self) -> io::Result<()> {
        // `flush` would block until the peer reads.
        self.write_ready().map(drop)
    }
}

impl<IO: Line> Line for FaultyLine<IO> {
    fn try_flush(&mut self) -> Result<(), IO::Error> {
        self.inner().try_flush()
    }
}

/// Opens the line, at start and after it was lost.
pub type Opener<IO> = Box<dyn Fn() -> Result<IO, String> + Send>;

/// A line that does not accept a message within this time is reopened.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// Interval between two attempts to open a line, and between two `Hello` messages.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Interval at which labels are repeated, because frames can get lost.
const LABEL_INTERVAL: Duration = Duration::from_secs(10);
/// Maximum number of messages handled per poll, so that a flood does not delay outputs.
const MAX_MESSAGES: usize = 64;

/// Sends outputs, labels and health reports over a line, and executes commands.
pub struct WireSink<IO> {
    name: String,
    open: Opener<IO>,
    link: Option<Link<IO>>,
    handshake: Handshake<'static>,
    retry_at: Instant,
    hello_at: Instant,
    labels_at: Instant,
    /// The label set of the words that the peer knows.
    words_sent: u16,
    /// Link errors of earlier connections.
    past_errors: u64,
}

impl<IO: Line> WireSink<IO>
where
    IO::Error: Debug,
{
    /// `name` is for messages. The line is opened on first use.
    pub fn new(name: String, open: Opener<IO>) -> Self {
        let now = Instant::now();
        let program =
            Text::new(concat!("loftup-node ", env!("CARGO_PKG_VERSION"))).unwrap_or_default();
        Self {
            name,
            open,
            link: None,
            handshake: Handshake::new(Role::Node, program),
            retry_at: now,
            hello_at: now,
            labels_at: now,
            words_sent: 0,
            past_errors: 0,
        }
    }

    /// Opens the line if necessary. `false` until the next attempt is due.
    fn connect(&mut self) -> Result<bool, SinkError> {
        if self.link.is_some() {
            return Ok(true);
        }
        let now = Instant::now();
        if now < self.retry_at {
            return Ok(false);
        }
        self.retry_at = now + RETRY_INTERVAL;
        let io = (self.open)().map_err(SinkError::Other)?;
        self.link = Some(Link::new(io));
        self.handshake.reset();
        self.hello_at = now;
        Ok(true)
    }

    fn send(&mut self, message: &Message<'_>) -> Result<(), SinkError> {
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        let end = Instant::now() + SEND_TIMEOUT;
        let mut sent = link.queue(message);
        while sent.is_ok() {
            match link.poll_flush() {
                Ok(true) => return Ok(()),
                Ok(false) if Instant::now() < end => std::thread::sleep(Duration::from_micros(200)),
                Ok(false) => {
                    self.disconnect();
                    return Err(SinkError::Other(
                        "the line accepts no data: reopening it".into(),
                    ));
                }
                Err(e) => sent = Err(e),
            }
        }
        sent.map_err(|e| self.connection_error(&e))
    }

    fn connection_error(&mut self, e: &LinkError<IO::Error>) -> SinkError {
        self.disconnect();
        SinkError::Other(format!("{e}: reopening it"))
    }

    fn disconnect(&mut self) {
        self.past_errors = self.link_errors();
        self.link = None;
        self.retry_at = Instant::now() + RETRY_INTERVAL;
    }

    /// Errors of all connections so far.
    fn link_errors(&self) -> u64 {
        let current = self.link.as_ref().map_or(0, |link| {
            let counters = link.counters();
            u64::from(counters.refused()) + u64::from(counters.lost)
        });
        self.past_errors + current
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        let flushed = link.io().try_flush();
        flushed.map_err(|e| self.connection_error(&LinkError::Io(e)))
    }

    fn receive(&mut self, context: &Context<'_>) -> Result<(), SinkError> {
        for _ in 0..MAX_MESSAGES {
            let Some(link) = &mut self.link else { break };
            let received_us = context.clock.now_us();
            let reply: Message<'static> = match link.poll() {
                Ok(None) => break,
                Ok(Some(Message::Hello(hello))) => {
                    if hello.answer {
                        // A new peer does not know the labels.
                        self.labels_at = Instant::now();
                    }
                    if let Err(e) = self.handshake.other() {
                        log::warn!("{}: {e}", self.name);
                    }
                    match self.handshake.receive(&hello) {
                        Some(reply) => reply.into(),
                        None => continue,
                    }
                }
                Ok(Some(_)) if !self.handshake.is_open() => continue,
                Ok(Some(Message::TimeRequest(request))) => {
                    request.reply(received_us, context.clock.now_us()).into()
                }
                Ok(Some(Message::Command(command))) => {
                    let outcome = context.control.execute(&command.action, context.model);
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
                Err(e) => return Err(self.connection_error(&e)),
            };
            self.send(&reply)?;
        }
        Ok(())
    }

    /// Sends the names of the classes, and those of the words.
    fn send_all_labels(&mut self, context: &Context<'_>) -> Result<(), SinkError> {
        self.send_labels(CLASS_LABELS, context.labels)?;
        self.words_sent = 0;
        self.send_words(context)
    }

    /// Sends the names of the words if the peer does not know them.
    fn send_words(&mut self, context: &Context<'_>) -> Result<(), SinkError> {
        match context.control.words() {
            Some(words) if words.labels != self.words_sent => {
                self.words_sent = words.labels;
                self.send_labels(words.labels, &words.names)
            }
            _ => Ok(()),
        }
    }

    fn send_labels(&mut self, set: u16, labels: &[String]) -> Result<(), SinkError> {
        for (class, name) in (0u8..).zip(labels) {
            let name = named(name);
            let label = Label {
                set,
                classes: u16::try_from(labels.len()).unwrap_or(u16::MAX),
                class,
                name: Text::new(&name).unwrap_or_default(),
            };
            self.send(&label.into())?;
        }
        Ok(())
    }

    fn send_output(&mut self, frame: &FrameOutput, output: &QueryOutput) -> Result<(), SinkError> {
        // Frame numbers on the wire wrap around.
        let number = frame.sequence as u32;
        let side = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        let (width, height) = (side(output.width), side(output.height));
        let content = match output.kind {
            OutputKind::Classes => Content::Classes {
                width,
                height,
                labels: output.labels,
            },
            OutputKind::Depth => Content::Depth { width, height },
            OutputKind::Objects => Content::Objects {
                total: byte(output.objects.len()),
                width,
                height,
            },
            OutputKind::Features(_) => Content::Features {
                width,
                height,
                channels: side(output.channels),
            },
            OutputKind::Regions => Content::Regions {
                total: side(output.regions.len()),
                labels: output.labels,
            },
        };
        let head = message::Answer {
            frame: number,
            slot: output.slot,
            stamp_us: frame.captured_us,
            source: output.source,
            content,
        };
        self.send(&head.into())?;
        let max_body = self.handshake.max_body();
        let error = |e| SinkError::Other(format!("{e}"));
        let mut scratch = [0; MAX_DATA];
        match output.kind {
            OutputKind::Depth => {
                let writer = DepthWriter::new(number, output.slot, width, height, &output.depth);
                let mut writer = writer.map_err(error)?.with_max_body(max_body);
                while let Some(chunk) = writer.next_chunk(&mut scratch) {
                    self.send(&chunk.into())?;
                }
            }
            OutputKind::Classes | OutputKind::Objects => {
                for (index, o) in output.objects.iter().enumerate() {
                    let object = message::Object {
                        frame: number,
                        slot: output.slot,
                        total: byte(output.objects.len()),
                        index: byte(index),
                        object: o.object,
                        name: Text::new(&o.name).unwrap_or_default(),
                        bounds: o.bounds,
                        pixels: o.pixels,
                        confidence: o.confidence,
                    };
                    self.send(&object.into())?;
                }
                let writer = MapWriter::new(number, output.slot, width, height, &output.classes);
                let mut writer = writer.map_err(error)?.with_max_body(max_body);
                while let Some(chunk) = writer.next_chunk(&mut scratch) {
                    self.send(&chunk.into())?;
                }
            }
            OutputKind::Features(precision) => {
                let coding = match precision {
                    Precision::F16 => Coding::F16,
                    Precision::U8 => Coding::U8,
                };
                let writer = FeatureWriter::new(
                    number,
                    output.slot,
                    side(output.channels),
                    &output.values,
                    coding,
                );
                let mut writer = writer.map_err(error)?.with_max_body(max_body);
                while let Some(block) = writer.next_chunk(&mut scratch) {
                    self.send(&block.into())?;
                }
            }
            OutputKind::Regions => {
                // A region takes at most 25 bytes, and the rest of the message 13.
                let max_items = (max_body.saturating_sub(13) / 25).clamp(1, MAX_REGIONS);
                for (i, chunk) in output.regions.chunks(max_items).enumerate() {
                    let message = message::Regions {
                        frame: number,
                        slot: output.slot,
                        total: side(output.regions.len()),
                        first: side(i * max_items),
                        items: chunk.iter().map(region).collect(),
                    };
                    self.send(&message.into())?;
                }
            }
        }
        Ok(())
    }
}

fn byte(n: usize) -> u8 {
    u8::try_from(n).unwrap_or(u8::MAX)
}

fn region(r: &Region) -> message::Region {
    message::Region {
        class: r.class,
        bounds: r.bounds,
        centre: r.center,
        pixels: r.pixels,
        // A linear head outputs no probabilities.
        score: 255,
    }
}

impl<IO: Line> Sink for WireSink<IO>
where
    IO::Error: Debug,
{
    fn name(&self) -> &str {
        &self.name
    }

    fn push(&mut self, frame: &FrameOutput, context: &Context<'_>) -> Result<(), SinkError> {
        if !self.handshake.is_open() {
            return Ok(());
        }
        self.send_words(context)?;
        for output in frame.outputs() {
            self.send_output(frame, output)?;
        }
        self.flush()
    }

    fn push_health(&mut self, report: &HealthReport, _: &Context<'_>) -> Result<(), SinkError> {
        if !self.handshake.is_open() {
            return Ok(());
        }
        let saturate = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let message = health::Health {
            state: report.state.to_wire(),
            uptime_ms: report.uptime_us / 1000,
            rate_mhz: (report.rate_hz * 1000.0).round() as u32,
            latency_p50_us: saturate(report.latency_p50_us),
            latency_p99_us: saturate(report.latency_p99_us),
            temperature_cc: report.temperature_cc,
            answered: saturate(report.published),
            dropped: saturate(report.dropped),
            link_errors: saturate(self.link_errors()),
        };
        self.send(&message.into())?;
        self.flush()
    }

    fn poll(&mut self, context: &Context<'_>) -> Result<(), SinkError> {
        if !self.connect()? {
            return Ok(());
        }
        self.receive(context)?;
        let now = Instant::now();
        if !self.handshake.is_open() && now >= self.hello_at {
            self.hello_at = now + RETRY_INTERVAL;
            self.send(&self.handshake.hello().into())?;
        }
        if self.handshake.is_open() && now >= self.labels_at && !context.labels.is_empty() {
            self.labels_at = now + LABEL_INTERVAL;
            self.send_all_labels(context)?;
        }
        self.flush()
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        // The last bytes may still be in the buffer of the line.
        for _ in 0..50 {
            self.flush()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn status(&self) -> SinkStatus {
        SinkStatus {
            healthy: self.link.is_some(),
            link_errors: self.link_errors(),
            ..SinkStatus::default()
        }
    }
}
