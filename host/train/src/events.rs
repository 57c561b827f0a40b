//! TensorBoard event files: losses as curves, features as images.
//!
//! A file is a row of records, each a length, the masked CRC-32C of the length, a message, and the
//! masked CRC-32C of the message. The message is a protobuf `Event`, of which four fields are
//! needed here; they are written by hand.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// CRC-32C (Castagnoli), bit by bit reflected polynomial, eight bits at a time.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &b| {
        TABLE[usize::from(crc as u8 ^ b)] ^ (crc >> 8)
    })
}

/// As TensorFlow's records have it, so that a checksum of checksums is none.
fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A protobuf message in the making.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn number(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    fn key(&mut self, field: u64, kind: u64) -> &mut Self {
        self.number(field << 3 | kind);
        self
    }

    fn varint(mut self, field: u64, value: u64) -> Self {
        self.key(field, 0).number(value);
        self
    }

    fn double(mut self, field: u64, value: f64) -> Self {
        self.key(field, 1).0.extend(value.to_le_bytes());
        self
    }

    fn float(mut self, field: u64, value: f32) -> Self {
        self.key(field, 5).0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.key(field, 2).number(value.len() as u64);
        self.0.extend(value);
        self
    }
}

/// An event file being written.
#[derive(Debug)]
pub struct EventFile {
    out: BufWriter<File>,
    path: PathBuf,
}

impl EventFile {
    /// A new file in `folder`, of a training that goes on from `step`: TensorBoard then forgets
    /// what other files in the folder have from there on.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn create(folder: &Path, step: u64) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let name = format!(
            "events.out.tfevents.{:010}.loftup.{}",
            now.as_secs(),
            std::process::id()
        );
        let path = folder.join(name);
        let mut file = Self {
            out: BufWriter::new(File::create(&path)?),
            path,
        };
        file.record(Self::event(step).bytes(3, b"brain.Event:2"))?;
        // SessionLog with status START.
        file.record(Self::event(step).bytes(7, &Message::default().varint(1, 1).0))?;
        file.flush()?;
        Ok(file)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn event(step: u64) -> Message {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Message::default()
            .double(1, now.as_secs_f64())
            .varint(2, step)
    }

    fn record(&mut self, message: Message) -> std::io::Result<()> {
        let len = (message.0.len() as u64).to_le_bytes();
        self.out.write_all(&len)?;
        self.out.write_all(&masked(&len).to_le_bytes())?;
        self.out.write_all(&message.0)?;
        self.out.write_all(&masked(&message.0).to_le_bytes())
    }

    fn summary(&mut self, step: u64, value: Message) -> std::io::Result<()> {
        let summary = Message::default().bytes(1, &value.0);
        self.record(Self::event(step).bytes(5, &summary.0))
    }

    /// A number at a step.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn scalar(&mut self, step: u64, tag: &str, value: f32) -> std::io::Result<()> {
        self.summary(
            step,
            Message::default().bytes(1, tag.as_bytes()).float(2, value),
        )
    }

    /// A PNG at a step.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn image(
        &mut self,
        step: u64,
        tag: &str,
        (width, height): (usize, usize),
        png: &[u8],
    ) -> std::io::Result<()> {
        let image = Message::default()
            .varint(1, height as u64)
            .varint(2, width as u64)
            .varint(3, 3)
            .bytes(4, png);
        self.summary(
            step,
            Message::default()
                .bytes(1, tag.as_bytes())
                .bytes(4, &image.0),
        )
    }

    /// Hands everything to the system.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc_32c() {
        // RFC 3720, B.4, and the customary check value.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    /// Fields of a message: number, and the value or the bytes.
    fn fields(mut m: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn varint(m: &mut &[u8]) -> u64 {
            let (mut n, mut shift) = (0, 0);
            loop {
                let b = m[0];
                *m = &m[1..];
                n |= u64::from(b & 0x7f) << shift;
                shift += 7;
                if b < 0x80 {
                    return n;
                }
            }
        }
        let mut found = Vec::new();
        while !m.is_empty() {
            let key = varint(&mut m);
            let len = match key & 7 {
                0 => {
                    found.push((key >> 3, varint(&mut m).to_le_bytes().to_vec()));
                    continue;
                }
                1 => 8,
                5 => 4,
                2 => varint(&mut m) as usize,
                other => panic!("wire type {other}"),
            };
            found.push((key >> 3, m[..len].to_vec()));
            m = &m[len..];
        }
        found
    }

    #[test]
    fn what_is_written_can_be_read_as_events() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(folder.path(), 300).unwrap();
        file.scalar(301, "loss/total", 0.5).unwrap();
        file.image(301, "features", (4, 2), b"png").unwrap();
        file.flush().unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        let (mut rest, mut events) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let len = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked(&rest[..8]).to_le_bytes());
            let message = &rest[12..][..len];
            assert_eq!(rest[12 + len..][..4], masked(message).to_le_bytes());
            events.push(fields(message));
            rest = &rest[16 + len..];
        }
        assert_eq!(events.len(), 4);
        assert_eq!(events[0][2], (3, b"brain.Event:2".to_vec()));
        assert_eq!(events[1][1], (2, 300u64.to_le_bytes().to_vec()));
        assert_eq!(events[1][2], (7, vec![8, 1]));
        let value = fields(&fields(&events[2][2].1)[0].1);
        assert_eq!(
            value,
            [
                (1, b"loss/total".to_vec()),
                (2, 0.5f32.to_le_bytes().to_vec())
            ]
        );
        let image = fields(&fields(&fields(&events[3][2].1)[0].1)[1].1);
        assert_eq!(image[3], (4, b"png".to_vec()));
        assert_eq!(image[1].1[0], 4);
    }
}
