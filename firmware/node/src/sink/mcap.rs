//! MCAP files for Foxglove, Rerun and other viewers.
//!
//! | topic | schema | content |
//! |---|---|---|
//! | `/camera/image` | `foxglove.RawImage` | the camera image, `rgb8` |
//! | `/loftup/slot_N/classes` | `foxglove.RawImage` | a class map, `mono8`, 255 for no class |
//! | `/loftup/slot_N/depth` | `foxglove.RawImage` | a depth map, `16UC1`: millimeters, 0 for no depth |
//! | `/loftup/slot_N/tracks` | `vision_msgs/msg/Detection2DArray` | tracked objects |
//! | `/loftup/slot_N/mask` | `foxglove.RawImage` | their masks, `mono8`: the numbers of the objects |
//! | `/loftup/slot_N/regions` | `loftup.Regions` | connected regions |
//! | `/loftup/slot_N/features` | `sensor_msgs/msg/PointCloud2` | features at points |
//! | `/loftup/health` | `foxglove.Log` | state, rates and latencies |
//!
//! The class names are in the metadata record `labels`, and the words in `words_N`, where N is the number of
//! their label set. Foxglove's messages are encoded as Protocol Buffers, which Rerun also reads; the
//! `loftup` messages are JSON, and the ROS 2 messages CDR.
//!
//! A chunk is built in memory and written at once when it is full or a second old. So a file that was
//! never finished ends after a complete chunk, unless the last write was interrupted.

mod file;
mod schema;

use std::{path::PathBuf, time::Duration};

use prost::Message;
use serde_json::{Value, json};

pub use schema::schema;

use super::{
    Context, HealthReport, Sink, SinkError, SinkStatus,
    files::LocalFiles,
    foxglove::{Log, RawImage, Timestamp},
    header_of,
    series::{EveryNth, FileSeries, Retry, Written},
    wall_ns,
};
use crate::{
    health::State,
    output::{FrameOutput, OutputKind, QueryOutput},
    ros,
};
use file::{McapFile, Record};

/// Size at which a chunk is finished. A power cut loses at most one chunk.
const CHUNK_BYTES: u64 = 1 << 18;
/// Age at which a smaller chunk is finished.
const CHUNK_AGE: Duration = Duration::from_secs(1);

/// Ends a file whose last chunk did not fit: the end of its data, and a footer without summary.
const TRAILER: &[u8] = b"\x0f\x04\0\0\0\0\0\0\0\0\0\0\0\
    \x02\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
    \x89MCAP0\r\n";

/// Writes MCAP files.
pub struct McapSink {
    name: String,
    files: FileSeries,
    every: EveryNth,
    /// Messages that were not written.
    not_written: u64,
    open: Option<McapFile>,
}

impl McapSink {
    /// Writes every `every`-th output to `path` and the numbered files after it. A new file begins
    /// after about `limit` bytes; 0 is no limit.
    pub fn new(path: PathBuf, every: u64, limit: u64) -> Self {
        let name = format!("mcap {}", path.display());
        let files = FileSeries::new(Box::new(LocalFiles), path, limit, TRAILER, Retry::new());
        Self::with_files(name, every, files)
    }

    fn with_files(name: String, every: u64, files: FileSeries) -> Self {
        Self {
            name,
            files,
            every: EveryNth::new(every),
            not_written: 0,
            open: None,
        }
    }

    fn error(&self, e: mcap::McapError) -> SinkError {
        SinkError::Other(format!("{}: {e}", self.name))
    }

    /// Returns the current file, or opens a new one. `None` after a failure, until the next attempt is due.
    fn open(&mut self) -> Result<Option<&mut McapFile>, SinkError> {
        if self.open.is_none() && self.files.is_due() {
            let open = McapFile::new().map_err(|e| self.error(e))?;
            self.open = Some(open);
        }
        Ok(self.open.as_mut())
    }

    /// Writes the finished chunks to the disk.
    fn commit(&mut self) -> Result<(), SinkError> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        let files = &mut self.files;
        let written = open
            .buffer
            .drain(|bytes| Ok(files.append(&[bytes])? == Written::Yes));
        if let Ok(true) = written {
            open.finished = 0;
            return Ok(());
        }
        self.not_written += open.finished + open.pending;
        self.open = None;
        written.map(drop)
    }

    /// Finishes the current chunk and writes it to the disk.
    fn flush(&mut self) -> Result<(), SinkError> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        let flushed = open.flush();
        flushed.map_err(|e| self.error(e))?;
        self.commit()
    }

    fn write(&mut self, record: &Record<'_>) -> Result<(), SinkError> {
        let Some(open) = self.open()? else {
            self.not_written += 1;
            return Ok(());
        };
        let result = open.write(record);
        result.map_err(|e| self.error(e))?;
        if self.files.is_failing() {
            // A retry: flush at once to find out whether the disk accepts data again.
            return self.flush();
        }
        self.commit()
    }

    fn write_output(
        &mut self,
        frame: &FrameOutput,
        output: &QueryOutput,
        time_ns: u64,
        header: ros::Header<'_>,
    ) -> Result<(), SinkError> {
        let (topic, schema, body) = match output.kind {
            OutputKind::Classes if output.height == 0 => return Ok(()),
            OutputKind::Classes => {
                let (width, height) = (output.width, output.height);
                let image = raw_image(header, width, height, "mono8", &output.classes);
                ("classes", "foxglove.RawImage", image)
            }
            OutputKind::Depth if output.height == 0 => return Ok(()),
            OutputKind::Depth => {
                let bytes: Vec<u8> = output.depth.iter().flat_map(|d| d.to_le_bytes()).collect();
                let (width, height) = (output.width, output.height);
                let image = raw_image(header, width, height, "16UC1", &bytes);
                ("depth", "foxglove.RawImage", image)
            }
            OutputKind::Objects => {
                let mut body = Vec::new();
                ros::detections(header, &output.objects, &mut body);
                self.write(&Record {
                    topic: &format!("/loftup/slot_{}/tracks", output.slot),
                    schema: ros::DETECTIONS_NAME,
                    time_ns,
                    sequence: frame.sequence as u32,
                    body: &body,
                })?;
                let (width, height) = (output.width, output.height);
                let image = raw_image(header, width, height, "mono8", &output.classes);
                ("mask", "foxglove.RawImage", image)
            }
            OutputKind::Regions => {
                let regions: Vec<_> = output.regions.iter().map(|r| json!({
                    "class": r.class, "pixels": r.pixels,
                    "x": r.bounds.x, "y": r.bounds.y, "width": r.bounds.width, "height": r.bounds.height,
                    "center": [r.center.x, r.center.y],
                })).collect();
                let time = json_time(header.stamp_ns);
                let value = json!({"timestamp": time, "frame": frame.sequence, "regions": regions});
                ("regions", "loftup.Regions", value.to_string().into_bytes())
            }
            OutputKind::Features(_) => {
                let mut body = Vec::new();
                let features = (&output.values[..], output.channels);
                ros::points(header, &output.points, features, &mut body);
                ("features", ros::POINTS_NAME, body)
            }
        };
        self.write(&Record {
            topic: &format!("/loftup/slot_{}/{topic}", output.slot),
            schema,
            time_ns,
            sequence: frame.sequence as u32,
            body: &body,
        })
    }
}

fn json_time(ns: u64) -> Value {
    json!({"sec": ns / 1_000_000_000, "nsec": ns % 1_000_000_000})
}

fn raw_image(
    header: ros::Header<'_>,
    width: usize,
    height: usize,
    encoding: &str,
    data: &[u8],
) -> Vec<u8> {
    let image = RawImage {
        timestamp: Some(Timestamp::new(header.stamp_ns)),
        width: width as u32,
        height: height as u32,
        encoding: encoding.into(),
        step: (data.len() / height.max(1)) as u32,
        data: data.to_vec(),
        frame_id: header.frame_id.into(),
    };
    image.encode_to_vec()
}

impl Sink for McapSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn push(&mut self, frame: &FrameOutput, context: &Context<'_>) -> Result<(), SinkError> {
        if !self.every.is_due() {
            return Ok(());
        }
        if self.files.is_full() {
            self.finish()?;
        }
        let words = context.control.words();
        if let Some(open) = self.open()? {
            let mut result = Ok(());
            if !open.has_labels && !context.labels.is_empty() {
                open.has_labels = true;
                result = open.write_labels("labels", context.labels);
            }
            if let Some(words) = words.filter(|words| words.labels != open.words) {
                open.words = words.labels;
                let name = format!("words_{}", words.labels);
                result = result.and_then(|()| open.write_labels(&name, &words.names));
            }
            result.map_err(|e| self.error(e))?;
        }
        let time_ns = wall_ns(frame.captured_us, context.clock.now_us());
        let header = header_of(frame, time_ns);
        if let Some(image) = &frame.image {
            let (width, height) = (image.width(), image.height());
            self.write(&Record {
                topic: "/camera/image",
                schema: "foxglove.RawImage",
                time_ns,
                sequence: frame.sequence as u32,
                body: &raw_image(header, width, height, "rgb8", image.data()),
            })?;
        }
        frame
            .outputs()
            .iter()
            .try_for_each(|output| self.write_output(frame, output, time_ns, header))
    }

    fn push_health(
        &mut self,
        report: &HealthReport,
        context: &Context<'_>,
    ) -> Result<(), SinkError> {
        let time_ns = wall_ns(report.uptime_us, context.clock.now_us());
        let level = match report.state {
            State::Starting | State::Running => 2,
            State::Degraded(_) | State::Recovering => 3,
            State::Failed(_) => 5,
        };
        let message = format!(
            "{}; {:.1} outputs/s, p50 {} us, p99 {} us, {} published, {} dropped",
            report.state,
            report.rate_hz,
            report.latency_p50_us,
            report.latency_p99_us,
            report.published,
            report.dropped
        );
        let log = Log {
            timestamp: Some(Timestamp::new(time_ns)),
            level,
            message,
            name: "loftup-node".into(),
            ..Log::default()
        };
        self.write(&Record {
            topic: "/loftup/health",
            schema: "foxglove.Log",
            time_ns,
            sequence: 0,
            body: &log.encode_to_vec(),
        })
    }

    fn poll(&mut self, _: &Context<'_>) -> Result<(), SinkError> {
        let old = |f: &McapFile| f.pending > 0 && f.pending_since.elapsed() >= CHUNK_AGE;
        match self.open.as_ref().is_some_and(old) {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.flush()?;
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let summary = open.finish().map_err(|e| self.error(e))?;
        self.files.close(&summary).map(drop)
    }

    fn status(&self) -> SinkStatus {
        self.files.status(self.not_written)
    }

    fn needs_image(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
