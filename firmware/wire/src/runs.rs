//! The run code of class maps.
//!
//! A map is a row of pixels, row after row, one class number each. Its code is
//! a row of pieces; a piece begins with a varint `c` and stands for
//! `n = c / 2 + 1` pixels:
//!
//! * `c` even, a **run**: one byte follows, the class of all `n` pixels;
//! * `c` odd, a **stretch**: `n` bytes follow, the classes of `n` pixels.
//!
//! Stretches keep a noisy map from growing: the code takes at most one byte in
//! 64 more than the map has pixels, plus three for each band. A [`Band`] is a
//! cut anywhere in that row that fits into a frame, so that neither the sender
//! nor a receiver that only wants to count or look up ever holds a whole map,
//! and a lost frame costs only its own pixels.

use crate::bounded::Bytes;
use crate::error::ContentError;
use crate::message::{Band, MAX_DATA, data_within};
use crate::shape::Wire;

/// Neighbouring pixels of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// First pixel, `row * width + column`.
    pub first: u32,
    /// Number of pixels.
    pub length: u32,
    /// Their class.
    pub class: u8,
}

/// Neighbouring pixels of one class within one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Row.
    pub row: u16,
    /// First column.
    pub column: u16,
    /// Number of pixels; the row does not end before they do.
    pub length: u16,
    /// Their class.
    pub class: u8,
}

impl Band<'_> {
    /// Compares the band with itself: the pixels lie in the map, and the code
    /// holds as many as stated.
    ///
    /// # Errors
    /// [`ContentError::Range`], [`ContentError::Runs`],
    /// [`ContentError::RunCount`].
    pub fn check(&self) -> Result<(), ContentError> {
        let total = u64::from(self.width) * u64::from(self.height);
        if u64::from(self.first) + u64::from(self.count) > total {
            return Err(ContentError::Range {
                first: self.first,
                count: self.count,
                total,
            });
        }
        let mut coded: u32 = 0;
        for run in self.raw_runs() {
            coded = coded.saturating_add(run?.length);
        }
        if coded != self.count {
            return Err(ContentError::RunCount {
                coded,
                stated: self.count,
            });
        }
        Ok(())
    }

    fn raw_runs(&self) -> Runs<'_> {
        Runs {
            code: &self.runs,
            at: 0,
            stretch: 0,
            pixel: self.first,
        }
    }

    /// The runs of the band. Together they are exactly its pixels.
    ///
    /// # Errors
    /// Those of [`check`](Self::check), which runs first: nothing is handed
    /// over of a band that is wrong further on.
    pub fn runs(&self) -> Result<impl Iterator<Item = Run> + '_, ContentError> {
        self.check()?;
        Ok(self.raw_runs().map_while(Result::ok))
    }

    /// The runs of the band, cut at the ends of rows.
    ///
    /// # Errors
    /// As for [`runs`](Self::runs).
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
    /// Pixels left of the stretch begun.
    stretch: u32,
    pixel: u32,
}

impl Runs<'_> {
    fn byte(&mut self) -> Result<u8, ContentError> {
        let byte = self.code.get(self.at).copied();
        let byte = byte.ok_or(ContentError::Runs { at: self.at })?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u32, ContentError> {
        let at = self.at;
        let mut value: u64 = 0;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return u32::try_from(value).map_err(|_| ContentError::Runs { at });
            }
        }
        Err(ContentError::Runs { at })
    }

    fn run(&mut self) -> Result<Run, ContentError> {
        let at = self.at;
        let mut length = 1;
        if self.stretch > 0 {
            self.stretch -= 1;
        } else {
            let piece = self.varint()?;
            if piece % 2 == 1 {
                self.stretch = piece / 2;
            } else {
                length = piece / 2 + 1;
            }
        }
        let class = self.byte()?;
        let first = self.pixel;
        self.pixel = first.checked_add(length).ok_or(ContentError::Runs { at })?;
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
        if self.stretch == 0 && self.at >= self.code.len() {
            return None;
        }
        let run = self.run();
        if run.is_err() {
            self.stretch = 0;
            self.at = self.code.len();
        }
        Some(run)
    }
}

/// See [`Band::segments`].
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

/// Cuts a class map into bands.
#[derive(Debug, Clone)]
pub struct BandWriter<'m> {
    classes: &'m [u8],
    frame: u32,
    slot: u8,
    width: u16,
    height: u16,
    next: usize,
    most: usize,
    /// Bytes of code in a band.
    room: usize,
}

impl<'m> BandWriter<'m> {
    /// A writer for `classes`, `width * height` class numbers row after row.
    ///
    /// # Errors
    /// [`ContentError::Range`] where their number is another.
    pub fn new(
        frame: u32,
        slot: u8,
        width: u16,
        height: u16,
        classes: &'m [u8],
    ) -> Result<Self, ContentError> {
        let total = u64::from(width) * u64::from(height);
        if classes.len() as u64 != total {
            return Err(ContentError::Range {
                first: 0,
                count: u32::try_from(classes.len()).unwrap_or(u32::MAX),
                total,
            });
        }
        Ok(BandWriter {
            classes,
            frame,
            slot,
            width,
            height,
            next: 0,
            most: usize::MAX,
            room: MAX_DATA,
        })
    }

    /// At most so many rows in one band, so that a lost frame of a plain map
    /// costs no more than those.
    #[must_use]
    pub fn with_max_rows(mut self, rows: u16) -> Self {
        self.most = usize::from(self.width) * usize::from(rows.max(1));
        self
    }

    /// Bands whose bodies take at most `bytes`, but never less than
    /// [`MIN_BODY`](crate::MIN_BODY): what the other side takes.
    #[must_use]
    pub const fn with_max_body(mut self, bytes: usize) -> Self {
        self.room = data_within(bytes, <Band<'static> as Wire>::MAX_SIZE);
        self
    }

    /// The next band, with its code in `scratch`; `None` after the last.
    pub fn next_band<'s>(&mut self, scratch: &'s mut [u8; MAX_DATA]) -> Option<Band<'s>> {
        let rest = self.classes.get(self.next..).unwrap_or_default();
        if rest.is_empty() {
            return None;
        }
        let rest = rest.get(..self.most).unwrap_or(rest);
        let (pixels, bytes) = encode(rest, scratch.get_mut(..self.room)?);
        let band = Band {
            frame: self.frame,
            slot: self.slot,
            width: self.width,
            height: self.height,
            first: u32::try_from(self.next).ok()?,
            count: u32::try_from(pixels).ok()?,
            runs: Bytes::new(scratch.get(..bytes)?).ok()?,
        };
        self.next += pixels;
        Some(band)
    }
}

/// Runs shorter than this do not end a stretch: that would save nothing.
const WORTH_A_RUN: usize = 3;

/// Longest run in one piece: twice as much is still a `u32`.
const MAX_RUN: usize = 1 << 30;

fn run_length(pixels: &[u8]) -> usize {
    let Some(class) = pixels.first() else {
        return 0;
    };
    pixels.iter().take_while(|other| *other == class).count()
}

/// Pixels before the next run that is worth one.
fn stretch_length(pixels: &[u8]) -> usize {
    pixels
        .windows(WORTH_A_RUN)
        .position(|window| window.iter().all(|class| *class == window[0]))
        .unwrap_or(pixels.len())
}

/// Codes as many pixels as fit; gives how many, and the bytes they take.
fn encode(pixels: &[u8], out: &mut [u8]) -> (usize, usize) {
    let (mut done, mut used) = (0, 0);
    while let (Some(rest), Some(room)) = (pixels.get(done..), out.get_mut(used..)) {
        if rest.is_empty() {
            break;
        }
        let run = run_length(rest).min(MAX_RUN);
        // A stretch longer than the room is of no interest.
        let near = rest.get(..room.len() + WORTH_A_RUN).unwrap_or(rest);
        let stretch = stretch_length(near);
        let (taken, written) = if run >= WORTH_A_RUN || run == stretch {
            write_run(rest, run, room)
        } else {
            // What does not fit of a stretch goes into the next band.
            write_stretch(rest, stretch, room)
        };
        if taken == 0 {
            break;
        }
        done += taken;
        used += written;
    }
    (done, used)
}

fn write_run(pixels: &[u8], length: usize, room: &mut [u8]) -> (usize, usize) {
    let class = pixels.first().copied().unwrap_or_default();
    let mut piece = [0; 6];
    let control = varint((length - 1) * 2, &mut piece);
    piece[control] = class;
    match room.get_mut(..=control) {
        Some(place) => {
            place.copy_from_slice(&piece[..=control]);
            (length, control + 1)
        }
        None => (0, 0),
    }
}

fn write_stretch(pixels: &[u8], length: usize, room: &mut [u8]) -> (usize, usize) {
    let mut piece = [0; 6];
    let mut length = length.min(room.len());
    let mut control = varint(length.saturating_sub(1) * 2 + 1, &mut piece);
    if control + length > room.len() {
        length = room.len().saturating_sub(control);
        if length == 0 {
            return (0, 0);
        }
        control = varint((length - 1) * 2 + 1, &mut piece);
    }
    let (Some(place), Some(classes)) = (room.get_mut(..control + length), pixels.get(..length))
    else {
        return (0, 0);
    };
    let (head, body) = place.split_at_mut(control);
    head.copy_from_slice(&piece[..control]);
    body.copy_from_slice(classes);
    (length, control + length)
}

/// Writes a varint below 2^32, so of at most five bytes; gives how many it took.
fn varint(mut value: usize, out: &mut [u8; 6]) -> usize {
    let mut length = 0;
    while value >= 0x80 && length < 4 {
        out[length] = (value & 0x7F) as u8 | 0x80;
        value >>= 7;
        length += 1;
    }
    out[length] = value as u8;
    length + 1
}

#[cfg(test)]
mod tests;
