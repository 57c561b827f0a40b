//! An MCAP file with messages that Foxglove and other viewers know.
//!
//! | topic | schema | what |
//! |---|---|---|
//! | `/camera/image` | `foxglove.RawImage` | the camera's image, `rgb8` |
//! | `/loftup/slot_N/classes` | `foxglove.RawImage` | a class map, `mono8`, 255 for none |
//! | `/loftup/slot_N/regions` | `loftup.Regions` | connected areas |
//! | `/loftup/slot_N/features` | `loftup.Features` | features at points |
//! | `/loftup/health` | `foxglove.Log` | state, rates and latencies |
//!
//! Names of the classes are in the metadata record `labels`. Messages of Foxglove's are Protocol
//! Buffers, which Rerun reads too; ours are JSON.
//!
//! A chunk is made in memory and written as a whole, when it is full or a second old. So a file
//! that was never finished ends after a whole chunk, unless the last write itself was interrupted.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Seek, SeekFrom, Write},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use mcap::{
    WriteOptions, Writer,
    records::{MessageHeader, Metadata},
};
use prost::Message;
use serde_json::{Value, json};

use super::{
    Context, Report, Sink, SinkError,
    disk::Local,
    foxglove::{self, Log, RawImage, Timestamp},
    series::{Every, Retry, Series, Written},
    wall_ns,
};
use crate::{
    answer::{Answer, Kind, Part},
    health::{Reason, State},
    sync::lock,
};

/// Schemas of our own messages, by name.
pub fn schema(name: &str) -> Option<Value> {
    let time = json!({
        "type": "object", "title": "time",
        "properties": {
            "sec": {"type": "integer", "minimum": 0},
            "nsec": {"type": "integer", "minimum": 0, "maximum": 999_999_999}
        }
    });
    let count = json!({"type": "integer", "minimum": 0});
    let list = |of: &Value| json!({"type": "array", "items": of});
    let properties = match name {
        "loftup.Regions" => {
            let region = object(json!({
                "class": count, "pixels": count, "x": count, "y": count,
                "width": count, "height": count, "center": list(&count),
            }));
            json!({"timestamp": time, "frame": count, "regions": list(&region)})
        }
        "loftup.Features" => json!({
            "timestamp": time, "frame": count, "channels": count, "values": list(&json!({"type": "number"})),
        }),
        _ => return None,
    };
    let mut schema = object(properties);
    schema["title"] = name.into();
    Some(schema)
}

/// An object that has all of these.
fn object(properties: Value) -> Value {
    let required: Vec<_> = properties
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key)
        .collect();
    json!({"type": "object", "required": required, "properties": properties})
}

/// Bytes after which a chunk is complete: what a power cut costs.
const CHUNK: u64 = 1 << 18;
/// Age at which it is complete however small it is.
const CHUNK_AGE: Duration = Duration::from_secs(1);

/// Closes a file whose last chunk did not fit: the end of its data, and a footer that says that
/// there is no summary.
const END: &[u8] = b"\x0f\x04\0\0\0\0\0\0\0\0\0\0\0\
    \x02\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
    \x89MCAP0\r\n";

/// Writes MCAP files.
pub struct McapSink {
    name: String,
    files: Series,
    every: Every,
    /// Messages that were not written.
    missed: u64,
    open: Option<Open>,
}

struct Open {
    writer: Writer<Pending>,
    pending: Pending,
    channels: HashMap<String, u16>,
    labels: bool,
    /// Messages in the chunk that is being made, and since when.
    waiting: u64,
    since: Instant,
    /// Messages in chunks that are complete and not on the disk yet.
    complete: u64,
}

/// What the library has written and the file has not got yet: whole records.
#[derive(Clone, Default)]
struct Pending(Arc<Mutex<Bytes>>);

#[derive(Default)]
struct Bytes {
    /// Bytes before these.
    offset: u64,
    bytes: Vec<u8>,
}

impl Write for Pending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Pending {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match to {
            SeekFrom::Current(0) => {
                let pending = lock(&self.0);
                Ok(pending.offset + pending.bytes.len() as u64)
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

impl McapSink {
    /// Every `every`-th output, into files of some `limit` bytes (0: one file), the first of them
    /// `path` or, where that exists, the next in its row.
    pub fn new(path: PathBuf, every: u64, limit: u64) -> Self {
        let name = format!("mcap {}", path.display());
        let files = Series::new(Box::new(Local), path, limit, END, Retry::new());
        Self::into_files(name, every, files)
    }

    fn into_files(name: String, every: u64, files: Series) -> Self {
        Self {
            name,
            files,
            every: Every::new(every),
            missed: 0,
            open: None,
        }
    }

    fn failed(&self, e: mcap::McapError) -> SinkError {
        SinkError::Other(format!("{}: {e}", self.name))
    }

    /// The present file, or a new one. `None` while it is not time to try again.
    fn open(&mut self) -> Result<Option<&mut Open>, SinkError> {
        if self.open.is_none() && self.files.is_due() {
            let open = Open::new().map_err(|e| self.failed(e))?;
            self.open = Some(open);
        }
        Ok(self.open.as_mut())
    }

    /// Writes to the disk what is complete.
    fn commit(&mut self) -> Result<(), SinkError> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        let mut pending = lock(&open.pending.0);
        if pending.bytes.is_empty() {
            return Ok(());
        }
        let written = self.files.append(&[&pending.bytes]);
        if let Ok(Written::Yes) = written {
            pending.offset += pending.bytes.len() as u64;
            pending.bytes.clear();
            open.complete = 0;
            return Ok(());
        }
        drop(pending);
        self.missed += open.complete + open.waiting;
        self.open = None;
        written.map(drop)
    }

    /// Completes the chunk and writes it to the disk.
    fn flush(&mut self) -> Result<(), SinkError> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        let flushed = open.writer.flush();
        open.chunk_ends();
        flushed.map_err(|e| self.failed(e))?;
        self.commit()
    }

    fn write(
        &mut self,
        topic: &str,
        of: &str,
        at: u64,
        sequence: u32,
        body: &[u8],
    ) -> Result<(), SinkError> {
        let Some(open) = self.open()? else {
            self.missed += 1;
            return Ok(());
        };
        let result = open.write(topic, of, at, sequence, body);
        result.map_err(|e| self.failed(e))?;
        if self.files.is_failing() {
            // An attempt: that there is room again is to be known soon.
            return self.flush();
        }
        self.commit()
    }

    fn part(&mut self, answer: &Answer, part: &Part, at: u64) -> Result<(), SinkError> {
        let topic = |what: &str| format!("/loftup/slot_{}/{what}", part.slot);
        let sequence = answer.sequence as u32;
        let (time, frame) = (stamp(at), answer.sequence);
        match part.kind {
            Kind::Classes if part.height > 0 => {
                let value = image(at, part.width, part.height, "mono8", &part.classes);
                self.write(&topic("classes"), "foxglove.RawImage", at, sequence, &value)
            }
            Kind::Classes => Ok(()),
            Kind::Regions => {
                let regions: Vec<_> = part.regions.iter().map(|r| json!({
                    "class": r.class, "pixels": r.pixels,
                    "x": r.bounds.x, "y": r.bounds.y, "width": r.bounds.width, "height": r.bounds.height,
                    "center": [r.center.x, r.center.y],
                })).collect();
                let value = json!({"timestamp": time, "frame": frame, "regions": regions});
                let value = value.to_string();
                self.write(
                    &topic("regions"),
                    "loftup.Regions",
                    at,
                    sequence,
                    value.as_bytes(),
                )
            }
            Kind::Features(_) => {
                let value = json!({"timestamp": time, "frame": frame, "channels": part.channels, "values": part.values});
                let value = value.to_string();
                self.write(
                    &topic("features"),
                    "loftup.Features",
                    at,
                    sequence,
                    value.as_bytes(),
                )
            }
        }
    }
}

impl Open {
    fn new() -> mcap::McapResult<Self> {
        let pending = Pending::default();
        let options = WriteOptions::new()
            .compression(None)
            .profile("")
            .library(concat!("loftup-node ", env!("CARGO_PKG_VERSION")))
            // Chunks are made in memory.
            .disable_seeking(true)
            .chunk_size(Some(CHUNK));
        Ok(Self {
            writer: options.create(pending.clone())?,
            pending,
            channels: HashMap::new(),
            labels: false,
            waiting: 0,
            since: Instant::now(),
            complete: 0,
        })
    }

    fn write(
        &mut self,
        topic: &str,
        of: &str,
        at: u64,
        sequence: u32,
        body: &[u8],
    ) -> mcap::McapResult<()> {
        let channel_id = match self.channels.get(topic) {
            Some(id) => *id,
            None => {
                let (text, language, encoding) = match foxglove::describe(of) {
                    Some(set) => (set, "protobuf", "protobuf"),
                    None => {
                        let text = schema(of).unwrap_or_default().to_string();
                        (text.into_bytes(), "jsonschema", "json")
                    }
                };
                let schema = self.writer.add_schema(of, language, &text)?;
                let id = self
                    .writer
                    .add_channel(schema, topic, encoding, &BTreeMap::new())?;
                self.channels.insert(topic.into(), id);
                id
            }
        };
        let header = MessageHeader {
            channel_id,
            sequence,
            log_time: at,
            publish_time: at,
        };
        let before = lock(&self.pending.0).bytes.len();
        self.writer.write_to_known_channel(&header, body)?;
        if lock(&self.pending.0).bytes.len() > before {
            // This message did not go into that chunk, but began the next.
            self.chunk_ends();
        }
        if self.waiting == 0 {
            self.since = Instant::now();
        }
        self.waiting += 1;
        Ok(())
    }

    fn chunk_ends(&mut self) {
        self.complete += std::mem::take(&mut self.waiting);
    }
}

fn stamp(ns: u64) -> Value {
    json!({"sec": ns / 1_000_000_000, "nsec": ns % 1_000_000_000})
}

fn image(at: u64, width: usize, height: usize, encoding: &str, data: &[u8]) -> Vec<u8> {
    let image = RawImage {
        timestamp: Some(Timestamp::new(at)),
        width: width as u32,
        height: height as u32,
        encoding: encoding.into(),
        step: (data.len() / height.max(1)) as u32,
        data: data.to_vec(),
        frame_id: "camera".into(),
    };
    image.encode_to_vec()
}

impl Sink for McapSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn answer(&mut self, answer: &Answer, context: &Context<'_>) -> Result<(), SinkError> {
        if !self.every.is_due() {
            return Ok(());
        }
        if self.files.is_full() {
            self.finish()?;
        }
        if let Some(open) = self.open()?
            && !open.labels
            && !context.labels.is_empty()
        {
            open.labels = true;
            let names = context.labels.iter().enumerate();
            let metadata = Metadata {
                name: "labels".into(),
                metadata: names
                    .map(|(i, name)| (i.to_string(), name.clone()))
                    .collect(),
            };
            let result = open.writer.write_metadata(&metadata);
            open.chunk_ends();
            result.map_err(|e| self.failed(e))?;
        }
        let at = wall_ns(answer.captured_us, context.clock.now_us());
        if let Some(picture) = &answer.picture {
            let (width, height) = (picture.width(), picture.height());
            let value = image(at, width, height, "rgb8", picture.data());
            self.write(
                "/camera/image",
                "foxglove.RawImage",
                at,
                answer.sequence as u32,
                &value,
            )?;
        }
        answer
            .parts()
            .iter()
            .try_for_each(|part| self.part(answer, part, at))
    }

    fn health(&mut self, report: &Report, context: &Context<'_>) -> Result<(), SinkError> {
        let at = wall_ns(report.uptime_us, context.clock.now_us());
        let level = match report.state {
            State::Starting | State::Running => 2,
            State::Degraded(_) | State::Recovering => 3,
            State::Failed(_) => 5,
        };
        let message = format!(
            "{}; {:.1} answers/s, p50 {} us, p99 {} us, {} answered, {} dropped",
            report.state,
            report.rate_hz,
            report.latency_p50_us,
            report.latency_p99_us,
            report.answered,
            report.dropped
        );
        let log = Log {
            timestamp: Some(Timestamp::new(at)),
            level,
            message,
            name: "loftup-node".into(),
            ..Log::default()
        };
        self.write(
            "/loftup/health",
            "foxglove.Log",
            at,
            0,
            &log.encode_to_vec(),
        )
    }

    fn poll(&mut self, _: &Context<'_>) -> Result<(), SinkError> {
        let old = |open: &Open| open.waiting > 0 && open.since.elapsed() >= CHUNK_AGE;
        match self.open.as_ref().is_some_and(old) {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.flush()?;
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        open.writer.finish().map_err(|e| self.failed(e))?;
        let summary = lock(&open.pending.0);
        self.files.close(&summary.bytes).map(drop)
    }

    fn not_written(&self) -> u64 {
        self.missed
    }

    fn reason(&self) -> Reason {
        Reason::Storage
    }

    fn is_well(&self) -> bool {
        !self.files.is_failing()
    }

    fn wants_picture(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
