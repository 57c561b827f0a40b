//! What can go wrong.

use crate::handshake::Incompatible;

/// A message could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The caller's buffer is too short.
    #[error("the frame does not fit into {room} bytes: give MAX_FRAME")]
    BufferTooSmall {
        /// Its length.
        room: usize,
    },
    /// The serialiser refused, which no message of this crate makes it do.
    #[error("the message cannot be serialised")]
    Serialise,
}

impl EncodeError {
    pub(crate) fn from_postcard(cause: postcard::Error, room: usize) -> Self {
        match cause {
            postcard::Error::SerializeBufferFull => EncodeError::BufferTooSmall { room },
            _ => EncodeError::Serialise,
        }
    }
}

/// Bytes that are no frame, or a frame that is no message. None of them ends a
/// connection: the next delimiter starts afresh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The byte stuffing does not come out even: bytes were lost or changed.
    #[error("frame broken: a delimiter inside a COBS block")]
    Stuffing,
    /// More bytes than a frame can have; the rest up to the delimiter is
    /// skipped.
    #[error("frame longer than {max} bytes")]
    Oversize {
        /// Length of the decoder's buffer.
        max: usize,
    },
    /// Fewer bytes than header and checksum take.
    #[error("frame of {len} bytes: header and checksum alone take {min}")]
    TooShort {
        /// Its length.
        len: usize,
        /// The least length.
        min: usize,
    },
    /// The checksum differs.
    #[error("checksum {computed:#010x}, but the frame says {stated:#010x}")]
    Checksum {
        /// Over the bytes that came.
        computed: u32,
        /// In the frame.
        stated: u32,
    },
    /// A frame that has been delivered already.
    #[error("frame number {sequence} came again")]
    Duplicate {
        /// Its number.
        sequence: u16,
    },
    /// A message of a later protocol, perhaps.
    #[error("unknown kind of message {0:#04x}: the other side speaks another version")]
    UnknownKind(u8),
    /// A hello of another version, which is all that can be read of it.
    #[error(transparent)]
    Incompatible(Incompatible),
    /// The body is not what its kind says.
    #[error("message of kind {kind:#04x} cannot be read: {cause}")]
    Body {
        /// Its kind.
        kind: u8,
        /// What the deserialiser says.
        cause: postcard::Error,
    },
    /// The body goes on after its message ends.
    #[error("message of kind {kind:#04x} has {extra} bytes too many")]
    Trailing {
        /// Its kind.
        kind: u8,
        /// How many.
        extra: usize,
    },
}

/// A message that contradicts itself or what came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// Pixels or values beyond the end of the whole.
    #[error("{first} + {count} of only {total} pixels or values")]
    Range {
        /// First one.
        first: u32,
        /// How many.
        count: u32,
        /// How many there are.
        total: u64,
    },
    /// The run code ends within a run, or a length does not fit.
    #[error("run code broken at byte {at}")]
    Runs {
        /// Where.
        at: usize,
    },
    /// The run code holds another number of pixels than the band says.
    #[error("run code of {coded} pixels in a band of {stated}")]
    RunCount {
        /// In the code.
        coded: u32,
        /// In the band.
        stated: u32,
    },
    /// Half a binary16 value.
    #[error("{0} bytes are no whole number of two-byte values")]
    HalfValue(usize),
    /// A scale or offset that is not finite.
    #[error("scale or offset is not a finite number")]
    NotFinite,
    /// The whole is larger than the assembler.
    #[error("{needed} pixels or values, but the assembler holds {capacity}")]
    TooLarge {
        /// What is asked.
        needed: u64,
        /// What it holds.
        capacity: usize,
    },
    /// A piece that belongs to the same answer has another size or shape.
    #[error("pieces of one answer disagree about its shape")]
    ShapeChanged,
    /// A piece of an answer older than the one being assembled.
    #[error("frame {frame} after frame {current}")]
    Stale {
        /// Of the piece.
        frame: u32,
        /// Being assembled.
        current: u32,
    },
    /// More gaps than the assembler can note.
    #[error("more than {0} gaps in one answer")]
    TooManyGaps(usize),
}
