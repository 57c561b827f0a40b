//! Decodes a byte stream into frames.

use cobs::{DecodeResult, DecoderState};

use crate::error::DecodeError;
use crate::message::{KIND_HELLO, Message};
use crate::{CRC, DELIMITER, HEADER, MAX_PACKET, TRAILER};

/// A sequence number at most this far behind is a duplicate; one further behind
/// means that the sender has restarted.
const REPEAT_WINDOW: u16 = 16;

/// A frame with a valid checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Sequence number.
    pub sequence: u16,
    /// Kind of the message.
    pub kind: u8,
    /// The encoded message.
    pub body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Decodes the message, which borrows from the decoder's buffer.
    ///
    /// # Errors
    /// See [`Message::decode`].
    pub fn message(&self) -> Result<Message<'a>, DecodeError> {
        Message::decode(self.kind, self.body)
    }
}

/// Statistics of a decoder. All counters saturate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames delivered.
    pub frames: u32,
    /// Frames with a wrong checksum.
    pub checksum: u32,
    /// Other invalid frames: byte stuffing, or too short.
    pub malformed: u32,
    /// Frames longer than the buffer.
    pub oversize: u32,
    /// Frames missing in the sequence numbers, including those rejected above.
    pub lost: u32,
    /// Duplicate frames.
    pub duplicates: u32,
    /// Restarts of the sender.
    pub restarts: u32,
}

impl Counters {
    /// Frames rejected for any reason.
    #[must_use]
    pub const fn refused(&self) -> u32 {
        self.checksum
            .saturating_add(self.malformed)
            .saturating_add(self.oversize)
            .saturating_add(self.duplicates)
    }
}

/// Finds frames in a byte stream. `N` is the size of its buffer, in bytes; longer
/// packets are rejected as [`DecodeError::Oversize`], which can happen only if `N` is
/// less than [`MAX_PACKET`].
#[derive(Debug)]
pub struct Decoder<const N: usize = MAX_PACKET> {
    buffer: [u8; N],
    length: usize,
    stuffing: DecoderState,
    /// Whether bytes are discarded up to the next delimiter.
    skipping: bool,
    /// The packet that the last byte completed.
    done: Option<Checked>,
    expected: Option<u16>,
    counters: Counters,
}

impl<const N: usize> Default for Decoder<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// A packet with a valid checksum. `end` is the end of the body in the buffer.
#[derive(Debug, Clone, Copy)]
struct Checked {
    sequence: u16,
    kind: u8,
    end: usize,
}

impl<const N: usize> Decoder<N> {
    /// A new decoder. It may start in the middle of a frame, which is rejected; the
    /// next one is found.
    #[must_use]
    pub const fn new() -> Self {
        Decoder {
            buffer: [0; N],
            length: 0,
            stuffing: DecoderState::Idle,
            skipping: false,
            done: None,
            expected: None,
            counters: Counters {
                frames: 0,
                checksum: 0,
                malformed: 0,
                oversize: 0,
                lost: 0,
                duplicates: 0,
                restarts: 0,
            },
        }
    }

    /// Statistics since the start.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Processes one byte. Returns a frame if it completes one, and an error if it
    /// shows that a frame is invalid.
    pub fn push(&mut self, byte: u8) -> Option<Result<Frame<'_>, DecodeError>> {
        self.feed(&[byte]).1
    }

    /// Processes bytes up to the first frame or error. Returns the number of bytes
    /// consumed and the frame or error; `None` if all bytes were consumed without
    /// either.
    pub fn feed(&mut self, bytes: &[u8]) -> (usize, Option<Result<Frame<'_>, DecodeError>>) {
        for (taken, &byte) in bytes.iter().enumerate() {
            let result = self.step(byte);
            if let Err(error) = result {
                return (taken + 1, Some(Err(error)));
            }
            if self.done.is_some() {
                return (taken + 1, self.frame().map(Ok));
            }
        }
        (bytes.len(), None)
    }

    /// The frame that the last byte completed, if it did: the one that
    /// [`feed`](Self::feed) returned last.
    #[must_use]
    pub fn frame(&self) -> Option<Frame<'_>> {
        let done = self.done?;
        Some(Frame {
            sequence: done.sequence,
            kind: done.kind,
            body: self.buffer.get(HEADER..done.end)?,
        })
    }

    /// Processes all of `bytes` and passes each frame and error to `each`.
    pub fn push_slice(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(Result<Frame<'_>, DecodeError>),
    ) {
        while !bytes.is_empty() {
            let (taken, found) = self.feed(bytes);
            if let Some(found) = found {
                each(found);
            }
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }

    fn step(&mut self, byte: u8) -> Result<(), DecodeError> {
        self.done = None;
        if self.skipping {
            self.skipping = byte != DELIMITER;
            return Ok(());
        }
        match self.stuffing.feed(byte) {
            Ok(DecodeResult::NoData) => {}
            Ok(DecodeResult::DataStart) => self.length = 0,
            Ok(DecodeResult::DataContinue(byte)) => match self.buffer.get_mut(self.length) {
                Some(place) => {
                    *place = byte;
                    self.length += 1;
                }
                None => {
                    self.stuffing = DecoderState::Idle;
                    self.skipping = true;
                    count(&mut self.counters.oversize, 1);
                    return Err(DecodeError::Oversize { max: N });
                }
            },
            Ok(DecodeResult::DataComplete) => self.done = Some(self.check()?),
            // The only error occurs at a delimiter, which has already reset the
            // state.
            Err(_) => {
                count(&mut self.counters.malformed, 1);
                return Err(DecodeError::Stuffing);
            }
        }
        Ok(())
    }

    fn check(&mut self) -> Result<Checked, DecodeError> {
        let packet = self.buffer.get(..self.length).unwrap_or_default();
        let parts = packet
            .split_last_chunk::<TRAILER>()
            .and_then(|(front, trailer)| Some((front, trailer, front.first_chunk::<HEADER>()?)));
        let Some((front, trailer, &[low, high, kind])) = parts else {
            count(&mut self.counters.malformed, 1);
            return Err(DecodeError::TooShort {
                len: packet.len(),
                min: HEADER + TRAILER,
            });
        };
        let stated = u32::from_le_bytes(*trailer);
        let computed = CRC.checksum(front);
        if stated != computed {
            count(&mut self.counters.checksum, 1);
            return Err(DecodeError::Checksum { computed, stated });
        }
        let end = front.len();
        let sequence = u16::from_le_bytes([low, high]);
        self.follow(sequence, kind)?;
        count(&mut self.counters.frames, 1);
        Ok(Checked {
            sequence,
            kind,
            end,
        })
    }

    /// Compares the sequence number with the expected one.
    fn follow(&mut self, sequence: u16, kind: u8) -> Result<(), DecodeError> {
        let fresh_start = kind == KIND_HELLO && sequence == 0;
        if let Some(expected) = self.expected {
            let ahead = sequence.wrapping_sub(expected);
            let behind = expected.wrapping_sub(sequence);
            if ahead != 0 && fresh_start {
                count(&mut self.counters.restarts, 1);
            } else if ahead < 0x8000 {
                count(&mut self.counters.lost, u32::from(ahead));
            } else if behind <= REPEAT_WINDOW {
                count(&mut self.counters.duplicates, 1);
                return Err(DecodeError::Duplicate { sequence });
            } else {
                count(&mut self.counters.restarts, 1);
            }
        }
        self.expected = Some(sequence.wrapping_add(1));
        Ok(())
    }
}

fn count(counter: &mut u32, by: u32) {
    *counter = counter.saturating_add(by);
}
