//! An MCAP file with messages that Foxglove and other viewers know.
//!
//! | topic | schema | what |
//! |---|---|---|
//! | `/camera/image` | `foxglove.RawImage` | the camera's picture, `rgb8` |
//! | `/loftup/slot_N/classes` | `foxglove.RawImage` | a class map, `mono8`, 255 for none |
//! | `/loftup/slot_N/regions` | `loftup.Regions` | connected areas |
//! | `/loftup/slot_N/features` | `loftup.Features` | features at points |
//! | `/loftup/health` | `foxglove.Log` | state, rates and latencies |
//!
//! Names of the classes are in the metadata record `labels`. Messages of Foxglove's are Protocol
//! Buffers, which Rerun reads too; ours are JSON.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::BufWriter,
    path::PathBuf,
};

use mcap::{
    WriteOptions, Writer,
    records::{MessageHeader, Metadata},
};
use prost::Message;
use serde_json::{Value, json};

use super::{
    Context, Report, Sink, SinkError,
    foxglove::{self, Log, RawImage, Timestamp},
    series::{Every, Series},
    wall_ns,
};
use crate::{
    answer::{Answer, Kind, Part},
    health::State,
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
                "width": count, "height": count, "centre": list(&count),
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

/// Writes an MCAP file.
pub struct McapFile {
    name: String,
    files: Series,
    every: Every,
    written: u64,
    file: Option<Open>,
}

struct Open {
    writer: Writer<BufWriter<File>>,
    channels: HashMap<String, u16>,
    labels: bool,
}

impl McapFile {
    /// Every `every`-th answer, into files of some `limit` bytes (0: one file).
    ///
    /// # Errors
    /// Where the file cannot be made.
    pub fn create(path: PathBuf, every: u64, limit: u64) -> Result<Self, SinkError> {
        let mut this = Self {
            name: format!("mcap {}", path.display()),
            files: Series::new(path, limit),
            every: Every::new(every),
            written: 0,
            file: None,
        };
        this.open()?;
        Ok(this)
    }

    fn open(&mut self) -> Result<(), SinkError> {
        let path = self.files.path();
        let file = File::create(&path).map_err(|cause| SinkError::Io { path, cause })?;
        let options = WriteOptions::new()
            .compression(None)
            .profile("")
            .library(concat!("loftup-node ", env!("CARGO_PKG_VERSION")))
            // A power cut costs the last chunk.
            .chunk_size(Some(1 << 18));
        let writer = options
            .create(BufWriter::new(file))
            .map_err(|e| self.failed(e))?;
        self.written = 0;
        self.file = Some(Open {
            writer,
            channels: HashMap::new(),
            labels: false,
        });
        Ok(())
    }

    fn failed(&self, e: mcap::McapError) -> SinkError {
        SinkError::Other(format!("{}: {e}", self.files.path().display()))
    }

    fn write(
        &mut self,
        topic: &str,
        of: &str,
        at: u64,
        sequence: u32,
        body: &[u8],
    ) -> Result<(), SinkError> {
        let Some(open) = &mut self.file else {
            return Ok(());
        };
        self.written += body.len() as u64;
        let result = open.write(topic, of, at, sequence, body);
        result.map_err(|e| self.failed(e))
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
                    "centre": [r.centre.x, r.centre.y],
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
        self.writer.write_to_known_channel(&header, body)
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

impl Sink for McapFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn answer(&mut self, answer: &Answer, context: &Context<'_>) -> Result<(), SinkError> {
        if !self.every.is_due() {
            return Ok(());
        }
        if self.files.is_full(self.written) {
            self.finish()?;
            self.files.advance();
            self.open()?;
        }
        if let Some(open) = &mut self.file
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

    fn finish(&mut self) -> Result<(), SinkError> {
        let Some(mut open) = self.file.take() else {
            return Ok(());
        };
        open.writer.finish().map_err(|e| self.failed(e))?;
        let file = open.writer.into_inner().into_inner();
        let synced = file.map_err(|e| e.into_error()).and_then(|f| f.sync_all());
        synced.map_err(|cause| SinkError::Io {
            path: self.files.path(),
            cause,
        })
    }

    fn wants_picture(&self) -> bool {
        true
    }
}
