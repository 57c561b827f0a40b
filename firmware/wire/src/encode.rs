//! Encodes messages into frames.

use cobs::CobsEncoder;
use crc::{Digest, Table};
use postcard::ser_flavors::Flavor;

use crate::error::EncodeError;
use crate::message::Message;
use crate::{CRC, DELIMITER, MAX_FRAME};

/// Encodes and numbers the frames of one direction of a connection.
#[derive(Debug, Clone, Default)]
pub struct Encoder {
    next: u16,
}

impl Encoder {
    /// An encoder whose first frame has number 0.
    #[must_use]
    pub const fn new() -> Self {
        Encoder { next: 0 }
    }

    /// Sequence number of the next frame.
    #[must_use]
    pub const fn sequence(&self) -> u16 {
        self.next
    }

    /// Encodes `message` as one frame, including the delimiter, at the start of
    /// `out`. [`MAX_FRAME`] bytes are enough for any message.
    ///
    /// # Errors
    /// [`EncodeError::BufferTooSmall`]; the sequence number does not advance then.
    pub fn encode<'o>(
        &mut self,
        message: &Message<'_>,
        out: &'o mut [u8],
    ) -> Result<&'o mut [u8], EncodeError> {
        let capacity = out.len();
        let full = EncodeError::BufferTooSmall { capacity };
        // One byte is reserved for the delimiter.
        let last = capacity.checked_sub(1).ok_or(full)?;
        let (stuffed, _) = out.split_at_mut_checked(last).ok_or(full)?;
        let mut framer = Framer {
            cobs: CobsEncoder::new(stuffed),
            digest: CRC.digest(),
        };
        let length = framer
            .header(self.next, message.kind())
            .and_then(|()| message.encode(framer))
            .map_err(|cause| EncodeError::from_postcard(cause, capacity))?;
        let frame = out.get_mut(..=length).ok_or(full)?;
        if let Some(end) = frame.last_mut() {
            *end = DELIMITER;
        }
        self.next = self.next.wrapping_add(1);
        Ok(frame)
    }

    /// Same as [`encode`](Self::encode), into a new vector.
    ///
    /// # Errors
    /// [`EncodeError::BufferTooSmall`] if `N` is too small.
    pub fn encode_vec<const N: usize>(
        &mut self,
        message: &Message<'_>,
    ) -> Result<heapless::Vec<u8, N>, EncodeError> {
        let mut frame = heapless::Vec::new();
        let full = EncodeError::BufferTooSmall { capacity: N };
        let capacity = N.min(MAX_FRAME);
        frame.resize(capacity, 0).map_err(|_| full)?;
        let length = self.encode(message, &mut frame)?.len();
        frame.truncate(length);
        Ok(frame)
    }
}

/// The output of postcard: each byte goes through the checksum and the byte
/// stuffing immediately, so that no packet is buffered.
struct Framer<'a> {
    cobs: CobsEncoder<'a>,
    digest: Digest<'static, u32, Table<1>>,
}

impl Framer<'_> {
    fn header(&mut self, sequence: u16, kind: u8) -> postcard::Result<()> {
        self.try_extend(&sequence.to_le_bytes())?;
        self.try_push(kind)
    }
}

impl Flavor for Framer<'_> {
    /// Length without the delimiter.
    type Output = usize;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.digest.update(bytes);
        self.cobs
            .push(bytes)
            .map_err(|_| postcard::Error::SerializeBufferFull)
    }

    fn finalize(mut self) -> postcard::Result<usize> {
        let checksum = self.digest.finalize();
        self.cobs
            .push(&checksum.to_le_bytes())
            .map_err(|_| postcard::Error::SerializeBufferFull)?;
        Ok(self.cobs.finalize())
    }
}
