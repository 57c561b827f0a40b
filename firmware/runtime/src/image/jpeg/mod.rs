//! Checks that a JPEG is complete.
//!
//! Decoders silently fill in missing data. This module follows the markers, and the entropy-coded
//! data block by block, without computing pixels: every scan must hold exactly the blocks of its
//! frame, with restart markers in order, and the scans together must hold the complete frame. ITU-T
//! T.81; baseline, extended and progressive with Huffman coding and 8 bits, as the decoder
//! supports.
//!
//! Memory: one bit for each coefficient of a progressive JPEG, otherwise none.

mod bits;
mod frame;
mod scan;
mod standard;

use bits::Table;
use frame::Frame;
use scan::Scan;

/// Maximum number of scans of an image, as in the decoder; progressive images have about ten.
const MAX_SCANS: usize = 100;

/// Tables and other state set by segments.
#[derive(Default)]
struct Tables {
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    /// MCUs between restart markers, or 0.
    restart_interval: usize,
}

impl Tables {
    /// Parses a DHT segment with any number of tables.
    fn define(&mut self, mut segment: &[u8]) -> Result<(), String> {
        while let Some((&class, rest)) = segment.split_first() {
            let damaged = || "a Huffman table is damaged".to_owned();
            let (counts, rest) = rest.split_first_chunk::<16>().ok_or_else(damaged)?;
            let total = counts.iter().map(|n| usize::from(*n)).sum();
            let (symbols, rest) = rest.split_at_checked(total).ok_or_else(damaged)?;
            let tables = match class >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return Err(damaged()),
            };
            let slot = tables
                .get_mut(usize::from(class & 15))
                .ok_or_else(damaged)?;
            *slot = Some(Table::new(counts, symbols).ok_or_else(damaged)?);
            segment = rest;
        }
        Ok(())
    }
}

/// Checks that nothing is missing from the first image in a JPEG file. Anything after its
/// end-of-image marker is ignored: cameras store previews and other data there.
///
/// Images with 12 bits or excessive sizes pass, because the decoder rejects them with a better
/// message. Arithmetic and lossless coding are rejected here, because the decoder skips some of
/// their frame headers and would continue with another one.
///
/// # Errors
/// A description of the error.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    let mut tables = Tables::default();
    let mut frame: Option<Frame> = None;
    let (mut at, mut scans) = (2, 0);
    while let Some((marker, next)) = next_marker(bytes, at) {
        at = next;
        match marker {
            // Temporary markers, and restart markers after the last interval.
            0x01 | 0xd0..=0xd7 => continue,
            0xd8 => return Err("another image starts before the end of this one".to_owned()),
            0xd9 => {
                let frame = frame.ok_or("it has no image data")?;
                return frame.complete();
            }
            _ => {}
        }
        let length = bytes
            .get(at..at + 2)
            .map(|b| usize::from(b[0]) << 8 | usize::from(b[1]));
        let Some(segment) = length.and_then(|length| bytes.get(at + 2..at + length)) else {
            break;
        };
        at += 2 + segment.len();
        match marker {
            0xc4 => tables.define(segment)?,
            0xdd => {
                let interval = segment
                    .first_chunk::<2>()
                    .ok_or("its restart interval is truncated")?;
                tables.restart_interval = u16::from_be_bytes(*interval).into();
            }
            0xc0..=0xc2 => {
                if frame.is_some() {
                    return Err("a second frame starts before the end of the first".to_owned());
                }
                match Frame::parse(segment, marker == 0xc2)? {
                    Some(parsed) => frame = Some(parsed),
                    None => return Ok(()),
                }
            }
            0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                return Err(format!(
                    "its frame ({}) uses lossless, hierarchical or arithmetic coding, which is not supported: save it as baseline or progressive JPEG",
                    name(marker)
                ));
            }
            0xda => {
                let frame = frame
                    .as_mut()
                    .ok_or("a scan comes before the frame header")?;
                scans += 1;
                if scans > MAX_SCANS {
                    return Err(format!("it has more than {MAX_SCANS} scans"));
                }
                at = Scan::parse(segment, frame, &tables)?.follow(bytes, at)?;
            }
            _ => {}
        }
    }
    Err("the end-of-image marker is missing, the file is truncated".to_owned())
}

/// The next marker at or after `at`, and the start of its content. Bytes that are not markers are
/// skipped, as decoders do.
fn next_marker(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let rest = bytes.get(at..)?;
    let found = rest
        .windows(2)
        .position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff))?;
    Some((rest[found + 1], at + found + 2))
}

/// The name of a marker, for messages.
fn name(marker: u8) -> String {
    match marker {
        0xd0..=0xd7 => format!("restart marker {}", marker - 0xd0),
        0xd8 => "the start of another image".to_owned(),
        0xd9 => "the end-of-image marker".to_owned(),
        0xda => "the next scan".to_owned(),
        other => format!("marker ff{other:02x}"),
    }
}
