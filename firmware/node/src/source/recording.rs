//! Recordings of camera images.
//!
//! A file begins with `LOFTREC1`. Each image is stored as number (8 bytes), time stamp in
//! microseconds (8), columns (4), rows (4), CRC-32 of the other fields and the pixels (4), and
//! `rows * columns * 3` bytes of RGB. All numbers are little-endian. An incomplete image at the end of
//! a file, as after a power cut, is ignored.

use std::{
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use super::{Clock, Pace, Poll, Source, SourceError};
use crate::frame::RawFrame;

pub(crate) const MAGIC: &[u8; 8] = b"LOFTREC1";
pub(crate) const HEAD: usize = 28;
/// Maximum width and height of an image.
const MAX_SIDE: usize = 16384;
static CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

/// Returns the header of an image `[height, width, 3]`. `None` if the byte count does not match the size,
/// or the image is too large.
pub(crate) fn head(
    number: u64,
    stamp_us: u64,
    width: usize,
    height: usize,
    rgb: &[u8],
) -> Option<[u8; HEAD]> {
    let side = 1..=MAX_SIDE;
    if !side.contains(&width) || !side.contains(&height) || rgb.len() != 3 * width * height {
        return None;
    }
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(&number.to_le_bytes());
    head[8..16].copy_from_slice(&stamp_us.to_le_bytes());
    head[16..20].copy_from_slice(&(width as u32).to_le_bytes());
    head[20..24].copy_from_slice(&(height as u32).to_le_bytes());
    let checksum = checksum(&head, rgb);
    head[24..].copy_from_slice(&checksum.to_le_bytes());
    Some(head)
}

fn checksum(head: &[u8; HEAD], rgb: &[u8]) -> u32 {
    let mut digest = CRC.digest();
    digest.update(&head[..24]);
    digest.update(rgb);
    digest.finalize()
}

/// Plays a recording at a constant rate, with the recorded frame numbers.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    file: BufReader<File>,
    pace: Pace,
    repeat: bool,
    /// Added to the numbers so that they increase when the recording repeats.
    offset: u64,
    last: u64,
    any: bool,
}

impl Recording {
    /// Opens a recording.
    ///
    /// # Errors
    /// If the file cannot be read or is not a recording.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let io = |cause| SourceError::Io {
            path: path.into(),
            cause,
        };
        let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(io)?);
        let mut magic = [0; 8];
        if file.read_exact(&mut magic).is_err() || magic != *MAGIC {
            return Err(SourceError::Recording {
                path: path.into(),
                what: "not a recording: it does not begin with LOFTREC1".into(),
            });
        }
        Ok(Self {
            path: path.into(),
            file,
            pace: Pace::new(10.0),
            repeat: false,
            offset: 0,
            last: 0,
            any: false,
        })
    }

    /// Sets the rate, and whether to start over at the end.
    #[must_use]
    pub fn paced(mut self, pace: Pace, repeat: bool) -> Self {
        (self.pace, self.repeat) = (pace, repeat);
        self
    }

    /// Reads the next image. `false` at the end.
    ///
    /// # Errors
    /// If the image is damaged.
    pub fn read(&mut self, into: &mut RawFrame) -> Result<bool, SourceError> {
        let bad = |what: String| SourceError::Recording {
            path: self.path.clone(),
            what,
        };
        let mut head = [0; HEAD];
        if self.file.read_exact(&mut head).is_err() {
            return Ok(false);
        }
        let (parts, _) = head.as_chunks::<4>();
        let word = |i: usize| u32::from_le_bytes(parts[i]);
        let long = |i: usize| u64::from(word(i)) | u64::from(word(i + 1)) << 32;
        let (width, height) = (word(4) as usize, word(5) as usize);
        let side = 1..=MAX_SIDE;
        if !side.contains(&width) || !side.contains(&height) {
            return Err(bad(format!(
                "image {} has an invalid size of {width} x {height}: the file is damaged from here on",
                long(0)
            )));
        }
        into.bytes.clear();
        // Grows with the data, so that a wrong size does not allocate more than the file has.
        let wanted = 3 * width * height;
        let got = (&mut self.file)
            .take(wanted as u64)
            .read_to_end(&mut into.bytes);
        if got.is_err() || into.bytes.len() != wanted {
            return Ok(false);
        }
        if checksum(&head, &into.bytes) != word(6) {
            return Err(bad(format!(
                "image {} has a wrong checksum: the file is damaged",
                long(0)
            )));
        }
        (into.number, into.stamp_us) = (long(0), long(2));
        (into.width, into.height) = (width, height);
        Ok(true)
    }
}

impl Source for Recording {
    fn next(&mut self, clock: &Clock, into: &mut RawFrame) -> Result<Poll, SourceError> {
        let Some((_, stamp_us)) = self.pace.wait(clock) else {
            return Ok(Poll::Nothing);
        };
        if !self.read(into)? {
            if !self.repeat || !self.any {
                return Ok(Poll::End);
            }
            let io = |cause| SourceError::Io {
                path: self.path.clone(),
                cause,
            };
            self.file.seek(SeekFrom::Start(8)).map_err(io)?;
            self.offset = self.last + 1;
            self.any = false;
            return Ok(Poll::Nothing);
        }
        self.any = true;
        into.number = into.number.saturating_add(self.offset);
        self.last = into.number;
        into.stamp_us = stamp_us;
        Ok(Poll::Frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_three(path: &Path) {
        let mut bytes = MAGIC.to_vec();
        for n in 0..3u8 {
            bytes.extend(head(u64::from(n) * 2, 100, 4, 2, &[n; 24]).unwrap());
            bytes.extend([n; 24]);
        }
        assert_eq!(head(9, 0, 4, 2, &[0; 23]), None);
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn recordings_are_played_and_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.rec");
        write_three(&path);
        let mut recording = Recording::open(&path)
            .unwrap()
            .paced(Pace::new(10_000.0), true);
        let (clock, mut frame) = (Clock::start(), RawFrame::default());
        let mut numbers = Vec::new();
        while numbers.len() < 6 {
            if recording.next(&clock, &mut frame).unwrap() == Poll::Frame {
                assert_eq!(frame.bytes, [frame.bytes[0]; 24]);
                numbers.push((frame.number, frame.bytes[0]));
            }
        }
        assert_eq!(numbers, [(0, 0), (2, 1), (4, 2), (5, 0), (7, 1), (9, 2)]);
    }

    #[test]
    fn a_truncated_file_ends_early_and_a_damaged_one_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.rec");
        write_three(&path);
        let whole = std::fs::read(&path).unwrap();
        for cut in 8..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut recording = Recording::open(&path).unwrap();
            let mut frames = 0;
            while recording.read(&mut RawFrame::default()).unwrap() {
                frames += 1;
            }
            assert_eq!(frames, (cut - 8) / 52, "cut at {cut}");
        }
        for (at, byte) in [(40, 1), (24, 255), (26, 255)] {
            let mut bytes = whole.clone();
            bytes[at] ^= byte;
            std::fs::write(&path, &bytes).unwrap();
            let mut recording = Recording::open(&path).unwrap();
            let read = recording.read(&mut RawFrame::default());
            // With a larger size, reading reaches the end of the file instead.
            assert!(
                read.is_err() || matches!(read, Ok(false)),
                "byte {at}: {read:?}"
            );
        }
        std::fs::write(&path, b"LOFTREC").unwrap();
        assert!(
            Recording::open(&path)
                .unwrap_err()
                .to_string()
                .contains("not a recording")
        );
    }
}
