//! Errors.

/// A message could not be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The caller's buffer is too short.
    #[error("the frame does not fit in {capacity} bytes: pass a buffer of MAX_FRAME bytes")]
    BufferTooSmall {
        /// Length of the buffer, in bytes.
        capacity: usize,
    },
    /// The serializer failed; no message of this crate causes this.
    #[error("the message cannot be serialized")]
    Serialize,
}

impl EncodeError {
    pub(crate) fn from_postcard(cause: postcard::Error, capacity: usize) -> Self {
        match cause {
            postcard::Error::SerializeBufferFull => EncodeError::BufferTooSmall { capacity },
            _ => EncodeError::Serialize,
        }
    }
}

/// Bytes are not a frame, or a frame is not a message. These errors do not end a
/// connection: decoding resumes after the next delimiter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Invalid byte stuffing: bytes were lost or corrupted.
    #[error("invalid frame: a delimiter inside a COBS block")]
    Stuffing,
    /// The frame exceeds the buffer; the rest up to the delimiter is skipped.
    #[error("frame longer than {max} bytes")]
    Oversize {
        /// Length of the decoder's buffer, in bytes.
        max: usize,
    },
    /// The frame is shorter than header and checksum.
    #[error("frame of {len} bytes is too short: header and checksum take {min}")]
    TooShort {
        /// Length of the frame, in bytes.
        len: usize,
        /// Minimum length, in bytes.
        min: usize,
    },
    /// The checksum does not match.
    #[error("checksum mismatch: computed {computed:#010x}, the frame has {stated:#010x}")]
    Checksum {
        /// Checksum of the received bytes.
        computed: u32,
        /// Checksum in the frame.
        stated: u32,
    },
    /// A frame that has been delivered before.
    #[error("duplicate frame number {sequence}")]
    Duplicate {
        /// Sequence number.
        sequence: u16,
    },
    /// An unknown kind, probably of another version.
    #[error("unknown message kind {0:#04x}: the other side uses another version")]
    UnknownKind(u8),
    /// A hello of another version, of which only the version can be read.
    #[error(transparent)]
    Incompatible(Incompatible),
    /// The body is not a valid message of its kind.
    #[error("message of kind {kind:#04x} cannot be decoded: {cause}")]
    Body {
        /// Kind of the message.
        kind: u8,
        /// Error of the deserializer.
        cause: postcard::Error,
    },
    /// The body is longer than its message.
    #[error("message of kind {kind:#04x} has {extra} trailing bytes")]
    Trailing {
        /// Kind of the message.
        kind: u8,
        /// Number of trailing bytes.
        extra: usize,
    },
}

/// The other side's version is not compatible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Incompatible {
    /// Another protocol version.
    #[error("the other side uses protocol {theirs}, this side {ours}: update the older one")]
    Protocol {
        /// This side's version.
        ours: u16,
        /// The other side's version.
        theirs: u16,
    },
    /// A different set of messages.
    #[error(
        "the other side's message schema is {theirs:#018x}, this side's {ours:#018x}: build both from the same version"
    )]
    Schema {
        /// This side's schema hash.
        ours: u64,
        /// The other side's schema hash.
        theirs: u64,
    },
}

/// A message that is inconsistent in itself or with earlier messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// Pixels or values past the end of the complete result.
    #[error("range {first} + {count} exceeds the {total} pixels or values of the result")]
    Range {
        /// Index of the first.
        first: u32,
        /// Number of pixels or values.
        count: u32,
        /// Number in the complete result.
        total: u64,
    },
    /// The code ends within a run or a pixel, or a number in it is too large.
    #[error("invalid code at byte {at}")]
    Code {
        /// Byte offset.
        at: usize,
    },
    /// The number of pixels in the code does not match the chunk or mask.
    #[error("the code has {coded} pixels, expected {stated}")]
    PixelCount {
        /// Pixels in the code.
        coded: u32,
        /// Pixels of the chunk or mask.
        stated: u32,
    },
    /// An incomplete binary16 value.
    #[error("{0} bytes are not a whole number of two-byte values")]
    HalfValue(usize),
    /// A scale or offset that is not finite.
    #[error("scale or offset is not a finite number")]
    NotFinite,
    /// The complete result exceeds the capacity of the assembler.
    #[error("the result has {needed} pixels or values, but the assembler holds {capacity}")]
    TooLarge {
        /// Pixels or values of the result.
        needed: u64,
        /// Capacity of the assembler.
        capacity: usize,
    },
    /// A chunk of the same result has another size or shape.
    #[error("chunks of one result differ in shape")]
    ShapeChanged,
    /// A chunk of an older result than the one being assembled.
    #[error("stale chunk: frame {frame} after frame {current}")]
    Stale {
        /// Frame of the chunk.
        frame: u32,
        /// Frame being assembled.
        current: u32,
    },
    /// More gaps than the assembler can track.
    #[error("more than {0} gaps in one result")]
    TooManyGaps(usize),
}
