//! An MCAP file in memory, chunk by chunk.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Seek, SeekFrom, Write},
    sync::Arc,
    time::Instant,
};

use mcap::{
    McapResult, WriteOptions, Writer,
    records::{MessageHeader, Metadata},
};
use parking_lot::Mutex;

use super::{CHUNK_BYTES, schema};
use crate::{ros, sink::foxglove};

/// Bytes that the MCAP library has written and that are not on disk yet: complete records.
#[derive(Clone, Default)]
pub(super) struct Buffer(Arc<Mutex<Bytes>>);

#[derive(Default)]
struct Bytes {
    /// Number of bytes removed from the buffer so far.
    offset: u64,
    bytes: Vec<u8>,
}

impl Buffer {
    fn len(&self) -> usize {
        self.0.lock().bytes.len()
    }

    /// Passes the bytes to `write`, and removes them if it returns `true`.
    pub(super) fn drain<E>(&self, write: impl FnOnce(&[u8]) -> Result<bool, E>) -> Result<bool, E> {
        let mut buffer = self.0.lock();
        if buffer.bytes.is_empty() {
            return Ok(true);
        }
        let written = write(&buffer.bytes)?;
        if written {
            buffer.offset += buffer.bytes.len() as u64;
            buffer.bytes.clear();
        }
        Ok(written)
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Buffer {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match to {
            SeekFrom::Current(0) => {
                let buffer = self.0.lock();
                Ok(buffer.offset + buffer.bytes.len() as u64)
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// A message and its topic.
pub(super) struct Record<'a> {
    pub(super) topic: &'a str,
    pub(super) schema: &'a str,
    /// Nanoseconds since 1970-01-01 UTC.
    pub(super) time_ns: u64,
    pub(super) sequence: u32,
    pub(super) body: &'a [u8],
}

/// A file that is being written.
pub(super) struct McapFile {
    writer: Writer<Buffer>,
    pub(super) buffer: Buffer,
    channels: HashMap<String, u16>,
    pub(super) has_labels: bool,
    /// The label set of the words whose names were written last.
    pub(super) words: u16,
    /// Messages in the current chunk, and when its first one was added.
    pub(super) pending: u64,
    pub(super) pending_since: Instant,
    /// Messages in finished chunks that are not on disk yet.
    pub(super) finished: u64,
}

impl McapFile {
    pub(super) fn new() -> McapResult<Self> {
        let buffer = Buffer::default();
        let options = WriteOptions::new()
            .compression(None)
            .profile("")
            .library(concat!("loftup-node ", env!("CARGO_PKG_VERSION")))
            // Chunks are built in memory.
            .disable_seeking(true)
            .chunk_size(Some(CHUNK_BYTES));
        Ok(Self {
            writer: options.create(buffer.clone())?,
            buffer,
            channels: HashMap::new(),
            has_labels: false,
            words: 0,
            pending: 0,
            pending_since: Instant::now(),
            finished: 0,
        })
    }

    pub(super) fn write(&mut self, record: &Record<'_>) -> McapResult<()> {
        let header = MessageHeader {
            channel_id: self.channel(record.topic, record.schema)?,
            sequence: record.sequence,
            log_time: record.time_ns,
            publish_time: record.time_ns,
        };
        let before = self.buffer.len();
        self.writer.write_to_known_channel(&header, record.body)?;
        if self.buffer.len() > before {
            // This message is the first of the next chunk.
            self.end_chunk();
        }
        if self.pending == 0 {
            self.pending_since = Instant::now();
        }
        self.pending += 1;
        Ok(())
    }

    /// Returns the channel of a topic, which is added with its schema on first use.
    fn channel(&mut self, topic: &str, name: &str) -> McapResult<u16> {
        if let Some(id) = self.channels.get(topic) {
            return Ok(*id);
        }
        let (text, language, encoding) = match foxglove::describe(name) {
            Some(set) => (set, "protobuf", "protobuf"),
            None => match ros::definition(name) {
                Some(text) => (text.into(), "ros2msg", "cdr"),
                None => {
                    let text = schema(name).unwrap_or_default().to_string();
                    (text.into_bytes(), "jsonschema", "json")
                }
            },
        };
        let schema = self.writer.add_schema(name, language, &text)?;
        let id = self
            .writer
            .add_channel(schema, topic, encoding, &BTreeMap::new())?;
        self.channels.insert(topic.into(), id);
        Ok(id)
    }

    /// Writes the names of classes or words as a metadata record.
    pub(super) fn write_labels(&mut self, name: &str, labels: &[String]) -> McapResult<()> {
        let labels = labels.iter().enumerate();
        let metadata = Metadata {
            name: name.into(),
            metadata: labels
                .map(|(i, name)| (i.to_string(), name.clone()))
                .collect(),
        };
        let result = self.writer.write_metadata(&metadata);
        self.end_chunk();
        result
    }

    /// Finishes the current chunk.
    pub(super) fn flush(&mut self) -> McapResult<()> {
        let result = self.writer.flush();
        self.end_chunk();
        result
    }

    /// Finishes the file. Returns its last bytes, which contain the summary.
    pub(super) fn finish(mut self) -> McapResult<Vec<u8>> {
        self.writer.finish()?;
        Ok(std::mem::take(&mut self.buffer.0.lock().bytes))
    }

    fn end_chunk(&mut self) {
        self.finished += std::mem::take(&mut self.pending);
    }
}
