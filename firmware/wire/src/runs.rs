//! Run-length coding of class maps, similar to PackBits.
//!
//! A map is a sequence of class numbers in row-major order. Its code is a sequence
//! of packets; a packet begins with a varint `c` and holds `n = c / 2 + 1` pixels:
//!
//! * `c` even, a **run**: one byte follows, the class of all `n` pixels;
//! * `c` odd, a **literal run**: `n` bytes follow, the classes of `n` pixels.
//!
//! Literal runs bound the size of a noisy map: the code takes at most one byte per
//! 64 pixels more than the map has pixels, plus three per chunk. A [`MapChunk`] is
//! a range of pixels whose code fits in a frame. Neither the sender nor a receiver
//! that processes chunks one by one has to hold a complete map, and a lost frame
//! costs only its own pixels.

use crate::bounded::Bytes;
use crate::chunk;
use crate::error::ContentError;
use crate::message::{MAX_DATA, MapChunk, payload_within};
use crate::schema::Schema;
use crate::varint;

/// Consecutive pixels of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// First pixel, `row * width + column`.
    pub first: u32,
    /// Number of pixels.
    pub length: u32,
    /// Their class.
    pub class: u8,
}

/// Consecutive pixels of one class within one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Row.
    pub row: u16,
    /// First column.
    pub column: u16,
    /// Number of pixels; all are within the row.
    pub length: u16,
    /// Their class.
    pub class: u8,
}

impl MapChunk<'_> {
    /// Checks that the pixels are within the map and that the code holds as many
    /// as stated.
    ///
    /// # Errors
    /// [`ContentError::Range`], [`ContentError::Code`],
    /// [`ContentError::PixelCount`].
    pub fn check(&self) -> Result<(), ContentError> {
        let size = (self.width, self.height);
        let coded = self.raw_runs().map(|run| run.map(|run| run.length));
        chunk::check(size, self.first, self.count, coded)
    }

    fn raw_runs(&self) -> Runs<'_> {
        Runs {
            code: &self.runs,
            at: 0,
            literals: 0,
            pixel: self.first,
        }
    }

    /// The runs of the chunk, which cover exactly its pixels. A literal run gives
    /// runs of length 1.
    ///
    /// # Errors
    /// Same as for [`check`](Self::check), which is called first: an invalid chunk
    /// yields no runs at all.
    pub fn runs(&self) -> Result<impl Iterator<Item = Run> + '_, ContentError> {
        self.check()?;
        Ok(self.raw_runs().map_while(Result::ok))
    }

    /// The runs of the chunk, split at the ends of rows.
    ///
    /// # Errors
    /// Same as for [`runs`](Self::runs).
    pub fn segments(&self) -> Result<Segments<'_>, ContentError> {
        self.check()?;
        Ok(Segments {
            runs: self.raw_runs(),
            width: u32::from(self.width),
            open: None,
        })
    }
}

#[derive(Debug, Clone)]
struct Runs<'a> {
    code: &'a [u8],
    at: usize,
    /// Pixels left of the current literal run.
    literals: u32,
    pixel: u32,
}

impl Runs<'_> {
    fn byte(&mut self) -> Result<u8, ContentError> {
        let byte = self.code.get(self.at).copied();
        let byte = byte.ok_or(ContentError::Code { at: self.at })?;
        self.at += 1;
        Ok(byte)
    }

    fn run(&mut self) -> Result<Run, ContentError> {
        let at = self.at;
        let mut length = 1;
        if self.literals > 0 {
            self.literals -= 1;
        } else {
            let control = varint::read(self.code, &mut self.at)?;
            if control % 2 == 1 {
                self.literals = control / 2;
            } else {
                length = control / 2 + 1;
            }
        }
        let class = self.byte()?;
        let first = self.pixel;
        self.pixel = first.checked_add(length).ok_or(ContentError::Code { at })?;
        Ok(Run {
            first,
            length,
            class,
        })
    }
}

impl Iterator for Runs<'_> {
    type Item = Result<Run, ContentError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.literals == 0 && self.at >= self.code.len() {
            return None;
        }
        let run = self.run();
        if run.is_err() {
            self.literals = 0;
            self.at = self.code.len();
        }
        Some(run)
    }
}

/// See [`MapChunk::segments`].
#[derive(Debug, Clone)]
pub struct Segments<'a> {
    runs: Runs<'a>,
    width: u32,
    open: Option<Run>,
}

impl Iterator for Segments<'_> {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        let run = match self.open.take() {
            Some(run) => run,
            None => self.runs.next()?.ok()?,
        };
        let column = run.first.checked_rem(self.width)?;
        let row = run.first / self.width;
        let length = run.length.min(self.width - column);
        if run.length > length {
            self.open = Some(Run {
                first: run.first + length,
                length: run.length - length,
                class: run.class,
            });
        }
        Some(Segment {
            row: u16::try_from(row).ok()?,
            column: u16::try_from(column).ok()?,
            length: u16::try_from(length).ok()?,
            class: run.class,
        })
    }
}

/// Splits a class map into chunks.
#[derive(Debug, Clone)]
pub struct MapWriter<'m> {
    classes: &'m [u8],
    frame: u32,
    slot: u8,
    width: u16,
    height: u16,
    next: usize,
    max_pixels: usize,
    /// Payload of a chunk, in bytes.
    payload: usize,
}

impl<'m> MapWriter<'m> {
    /// A writer for `classes`, `[height][width]`.
    ///
    /// # Errors
    /// [`ContentError::Range`] if their number is not `width * height`.
    pub fn new(
        frame: u32,
        slot: u8,
        width: u16,
        height: u16,
        classes: &'m [u8],
    ) -> Result<Self, ContentError> {
        chunk::check_whole((width, height), classes.len())?;
        Ok(MapWriter {
            classes,
            frame,
            slot,
            width,
            height,
            next: 0,
            max_pixels: usize::MAX,
            payload: MAX_DATA,
        })
    }

    /// Limits a chunk to this many rows, and with it the loss when a frame of a
    /// uniform map is lost.
    #[must_use]
    pub fn with_max_rows(mut self, rows: u16) -> Self {
        self.max_pixels = usize::from(self.width) * usize::from(rows.max(1));
        self
    }

    /// Limits the body of a chunk to `bytes`, but not below
    /// [`MIN_BODY`](crate::MIN_BODY): the limit that the other side announced.
    #[must_use]
    pub const fn with_max_body(mut self, bytes: usize) -> Self {
        self.payload = payload_within(bytes, <MapChunk<'static> as Schema>::MAX_SIZE);
        self
    }

    /// The next chunk, encoded in `scratch`; `None` after the last.
    pub fn next_chunk<'s>(&mut self, scratch: &'s mut [u8; MAX_DATA]) -> Option<MapChunk<'s>> {
        let rest = self.classes.get(self.next..).unwrap_or_default();
        if rest.is_empty() {
            return None;
        }
        let rest = rest.get(..self.max_pixels).unwrap_or(rest);
        let (pixels, bytes) = encode(rest, scratch.get_mut(..self.payload)?);
        let chunk = MapChunk {
            frame: self.frame,
            slot: self.slot,
            width: self.width,
            height: self.height,
            first: u32::try_from(self.next).ok()?,
            count: u32::try_from(pixels).ok()?,
            runs: Bytes::new(scratch.get(..bytes)?).ok()?,
        };
        self.next += pixels;
        Some(chunk)
    }
}

/// Runs shorter than this do not end a literal run, which would save nothing.
const MIN_RUN: usize = 3;

/// Maximum length of a run: twice as much still fits in a `u32`.
const MAX_RUN: usize = 1 << 30;

fn run_length(pixels: &[u8]) -> usize {
    let Some(class) = pixels.first() else {
        return 0;
    };
    pixels.iter().take_while(|other| *other == class).count()
}

/// Pixels before the next run of at least [`MIN_RUN`].
fn literal_length(pixels: &[u8]) -> usize {
    pixels
        .windows(MIN_RUN)
        .position(|window| window.iter().all(|class| *class == window[0]))
        .unwrap_or(pixels.len())
}

/// Encodes as many pixels as fit; returns their number and the bytes written.
fn encode(pixels: &[u8], out: &mut [u8]) -> (usize, usize) {
    let (mut done, mut used) = (0, 0);
    while let (Some(rest), Some(space)) = (pixels.get(done..), out.get_mut(used..)) {
        if rest.is_empty() {
            break;
        }
        let run = run_length(rest).min(MAX_RUN);
        // A literal run need not be longer than the space left.
        let near = rest.get(..space.len() + MIN_RUN).unwrap_or(rest);
        let literal = literal_length(near);
        let (taken, written) = if run >= MIN_RUN || run == literal {
            write_run(rest, run, space)
        } else {
            // The rest of a literal run goes into the next chunk.
            write_literal(rest, literal, space)
        };
        if taken == 0 {
            break;
        }
        done += taken;
        used += written;
    }
    (done, used)
}

fn write_run(pixels: &[u8], length: usize, space: &mut [u8]) -> (usize, usize) {
    let class = pixels.first().copied().unwrap_or_default();
    let mut packet = [0; 6];
    let control = varint::write((length - 1) * 2, &mut packet);
    packet[control] = class;
    match space.get_mut(..=control) {
        Some(target) => {
            target.copy_from_slice(&packet[..=control]);
            (length, control + 1)
        }
        None => (0, 0),
    }
}

fn write_literal(pixels: &[u8], length: usize, space: &mut [u8]) -> (usize, usize) {
    let mut packet = [0; 6];
    let mut length = length.min(space.len());
    let mut control = varint::write(length.saturating_sub(1) * 2 + 1, &mut packet);
    if control + length > space.len() {
        length = space.len().saturating_sub(control);
        if length == 0 {
            return (0, 0);
        }
        control = varint::write((length - 1) * 2 + 1, &mut packet);
    }
    let (Some(target), Some(classes)) = (space.get_mut(..control + length), pixels.get(..length))
    else {
        return (0, 0);
    };
    let (head, body) = target.split_at_mut(control);
    head.copy_from_slice(&packet[..control]);
    body.copy_from_slice(classes);
    (length, control + length)
}

#[cfg(test)]
mod tests;
