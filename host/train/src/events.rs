//! TensorBoard event files: losses as scalars, features as images.
//!
//! An event file is a TFRecord file of `tensorflow.Event` messages. Each record is the length of the
//! message, the masked CRC-32C of the length, the message, and the masked CRC-32C of the message.
//! Only fields that are written are declared here.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crc::{CRC_32_ISCSI, Crc, Table};
use prost::Message;

/// CRC-32C (Castagnoli).
const CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// TFRecord stores checksums in this form, because a CRC over data that contains its own CRC is weak.
fn masked_crc(bytes: &[u8]) -> u32 {
    CRC32C
        .checksum(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

/// `SessionLog.START`.
const START: i32 = 1;

/// `tensorflow.Event`.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<SummaryValue>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(oneof = "Value", tags = "2, 4")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Value {
    #[prost(float, tag = "2")]
    SimpleValue(f32),
    #[prost(message, tag = "4")]
    Image(Image),
}

#[derive(Clone, PartialEq, Message)]
struct Image {
    #[prost(int32, tag = "1")]
    height: i32,
    #[prost(int32, tag = "2")]
    width: i32,
    /// Number of channels.
    #[prost(int32, tag = "3")]
    colorspace: i32,
    #[prost(bytes = "vec", tag = "4")]
    encoded_image_string: Vec<u8>,
}

/// An event file open for writing.
#[derive(Debug)]
pub struct EventFile {
    out: BufWriter<File>,
    path: PathBuf,
}

impl EventFile {
    /// Creates a file in `folder` for a training that continues from `step`. TensorBoard then ignores
    /// events of later steps in the other files of the folder.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub fn create(folder: &Path, step: u64) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let name = format!(
            "events.out.tfevents.{:010}.loftup.{}",
            now().as_secs(),
            std::process::id()
        );
        let path = folder.join(name);
        let mut file = Self {
            out: BufWriter::new(File::create(&path)?),
            path,
        };
        file.write(step, What::FileVersion("brain.Event:2".into()))?;
        file.write(step, What::SessionLog(SessionLog { status: START }))?;
        file.flush()?;
        Ok(file)
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn write(&mut self, step: u64, what: What) -> std::io::Result<()> {
        let event = Event {
            wall_time: now().as_secs_f64(),
            step: i64::try_from(step).map_err(std::io::Error::other)?,
            what: Some(what),
        }
        .encode_to_vec();
        let len = (event.len() as u64).to_le_bytes();
        self.out.write_all(&len)?;
        self.out.write_all(&masked_crc(&len).to_le_bytes())?;
        self.out.write_all(&event)?;
        self.out.write_all(&masked_crc(&event).to_le_bytes())
    }

    fn summary(&mut self, step: u64, tag: &str, value: Value) -> std::io::Result<()> {
        let value = vec![SummaryValue {
            tag: tag.into(),
            value: Some(value),
        }];
        self.write(step, What::Summary(Summary { value }))
    }

    /// Writes a scalar.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn scalar(&mut self, step: u64, tag: &str, value: f32) -> std::io::Result<()> {
        self.summary(step, tag, Value::SimpleValue(value))
    }

    /// Writes an RGB image, encoded as PNG.
    ///
    /// # Errors
    /// If the image is too large or the file cannot be written.
    pub fn image(
        &mut self,
        step: u64,
        tag: &str,
        (width, height): (usize, usize),
        png: &[u8],
    ) -> std::io::Result<()> {
        let side = |n: usize| i32::try_from(n).map_err(std::io::Error::other);
        let image = Image {
            height: side(height)?,
            width: side(width)?,
            colorspace: 3,
            encoded_image_string: png.to_vec(),
        };
        self.summary(step, tag, Value::Image(image))
    }

    /// Passes everything written so far to the operating system.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc_32c() {
        // RFC 3720, B.4, and the usual check value.
        assert_eq!(CRC32C.checksum(&[0; 32]), 0x8a91_36aa);
        assert_eq!(CRC32C.checksum(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(CRC32C.checksum(b"123456789"), 0xe306_9283);
    }

    /// Field numbers and types, which a round trip through the same declarations cannot check.
    #[test]
    fn messages_are_encoded_as_tensorflow_declares_them() {
        let event = |what| {
            Event {
                wall_time: 0.0,
                step: 301,
                what: Some(what),
            }
            .encode_to_vec()
        };
        let summary = |value| {
            let tag = "x".into();
            let value = vec![SummaryValue {
                tag,
                value: Some(value),
            }];
            event(What::Summary(Summary { value }))
        };
        let image = Image {
            height: 2,
            width: 4,
            colorspace: 3,
            encoded_image_string: b"png".to_vec(),
        };
        for (bytes, expected) in [
            (
                event(What::FileVersion("v".into())),
                b"\x10\xad\x02\x1a\x01v".as_slice(),
            ),
            (
                event(What::SessionLog(SessionLog { status: START })),
                b"\x10\xad\x02\x3a\x02\x08\x01",
            ),
            (
                summary(Value::SimpleValue(0.0)),
                b"\x10\xad\x02\x2a\x0a\x0a\x08\x0a\x01x\x15\0\0\0\0",
            ),
            (
                summary(Value::Image(image)),
                b"\x10\xad\x02\x2a\x12\x0a\x10\x0a\x01x\x22\x0b\x08\x02\x10\x04\x18\x03\x22\x03png",
            ),
        ] {
            assert_eq!(bytes, expected);
        }
    }

    #[test]
    fn a_file_consists_of_records_with_valid_checksums() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(folder.path(), 300).unwrap();
        file.scalar(301, "loss/total", 0.5).unwrap();
        file.image(301, "features", (4, 2), b"png").unwrap();
        file.flush().unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        let (mut rest, mut events) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let len = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked_crc(&rest[..8]).to_le_bytes());
            let message = &rest[12..][..len];
            assert_eq!(rest[12 + len..][..4], masked_crc(message).to_le_bytes());
            events.push(Event::decode(message).unwrap());
            rest = &rest[16 + len..];
        }
        assert!(events.iter().all(|e| e.wall_time > 1.7e9));
        let steps: Vec<i64> = events.iter().map(|e| e.step).collect();
        assert_eq!(steps, [300, 300, 301, 301]);
        assert_eq!(
            events[0].what,
            Some(What::FileVersion("brain.Event:2".into()))
        );
        assert_eq!(
            events[1].what,
            Some(What::SessionLog(SessionLog { status: START }))
        );
        let Some(What::Summary(summary)) = &events[2].what else {
            panic!("{:?}", events[2])
        };
        assert_eq!(summary.value[0].tag, "loss/total");
        assert_eq!(summary.value[0].value, Some(Value::SimpleValue(0.5)));
        let Some(What::Summary(summary)) = &events[3].what else {
            panic!("{:?}", events[3])
        };
        let image = Image {
            height: 2,
            width: 4,
            colorspace: 3,
            encoded_image_string: b"png".to_vec(),
        };
        assert_eq!(summary.value[0].value, Some(Value::Image(image)));
    }
}
