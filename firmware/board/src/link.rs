//! Exchanges [`loftup_wire`] messages over a byte stream.

use core::fmt::Debug;

use embedded_io::{Read, ReadReady, Write, WriteReady};
use loftup_wire::{
    Counters, DELIMITER, DecodeError, Decoder, EncodeError, Encoder, MAX_FRAME, MAX_PACKET, Message,
};

/// Size of one read from the stream, in bytes.
const CHUNK: usize = 64;

/// Maximum number of bytes that one [`Link::poll`] processes: enough for any frame,
/// and few enough that a flood does not block the caller's loop.
const POLL_BYTES: usize = 2 * MAX_FRAME;

/// Errors of a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError<E: Debug> {
    /// The stream failed.
    #[error("the link failed: {0:?}")]
    Io(E),
    /// The other side has closed the stream.
    #[error("the other side has closed the link")]
    Closed,
    /// The previous message has not been sent completely.
    #[error("the last message is still being sent: flush first")]
    Busy,
    /// The message cannot be encoded.
    #[error("cannot send: {0}")]
    Encode(EncodeError),
    /// Invalid data was received. The link stays usable.
    #[error("cannot read: {0}")]
    Decode(DecodeError),
}

/// Messages over a byte stream. `N` is the maximum packet size in bytes; see
/// [`Decoder`].
///
/// [`queue`](Self::queue), [`poll_flush`](Self::poll_flush) and [`poll`](Self::poll)
/// never block. [`send`](Self::send) and [`receive`](Self::receive) block, for use in
/// a dedicated thread.
#[derive(Debug)]
pub struct Link<IO, const N: usize = MAX_PACKET> {
    io: IO,
    encoder: Encoder,
    decoder: Decoder<N>,
    out: Queue<{ MAX_FRAME + 1 }>,
    input: Queue<CHUNK>,
}

/// The bytes `at..end` of a buffer.
#[derive(Debug)]
struct Queue<const N: usize> {
    bytes: [u8; N],
    at: usize,
    end: usize,
}

impl<const N: usize> Queue<N> {
    const EMPTY: Self = Queue {
        bytes: [0; N],
        at: 0,
        end: 0,
    };

    fn waiting(&self) -> &[u8] {
        self.bytes.get(self.at..self.end).unwrap_or_default()
    }

    const fn is_empty(&self) -> bool {
        self.at >= self.end
    }
}

impl<IO, const N: usize> Link<IO, N> {
    /// A link over the new connection `io`.
    #[must_use]
    pub const fn new(io: IO) -> Self {
        Link {
            io,
            encoder: Encoder::new(),
            decoder: Decoder::new(),
            out: Queue::EMPTY,
            input: Queue::EMPTY,
        }
    }

    /// Statistics of the received frames.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        self.decoder.counters()
    }

    /// The stream.
    pub const fn io(&mut self) -> &mut IO {
        &mut self.io
    }

    /// Returns the stream.
    pub fn release(self) -> IO {
        self.io
    }
}

impl<IO: Write, const N: usize> Link<IO, N>
where
    IO::Error: Debug,
{
    /// Queues `message` for sending. The queue holds one message.
    ///
    /// # Errors
    /// [`LinkError::Busy`] if the previous message has not been sent completely;
    /// [`LinkError::Encode`].
    pub fn queue(&mut self, message: &Message<'_>) -> Result<(), LinkError<IO::Error>> {
        if !self.out.is_empty() {
            return Err(LinkError::Busy);
        }
        // The first frame starts with a delimiter, which ends any garbage that was on
        // the line before.
        let lead = usize::from(self.encoder.sequence() == 0);
        let (delimiter, room) = self.out.bytes.split_at_mut(lead);
        delimiter.fill(DELIMITER);
        let frame = self.encoder.encode(message, room);
        let length = frame.map_err(LinkError::Encode)?.len();
        self.out.at = 0;
        self.out.end = lead + length;
        Ok(())
    }

    /// Sends the queued message, if any, and `message`; blocks until both are sent.
    ///
    /// # Errors
    /// [`LinkError::Io`], [`LinkError::Closed`], [`LinkError::Encode`].
    pub fn send(&mut self, message: &Message<'_>) -> Result<(), LinkError<IO::Error>> {
        self.flush()?;
        self.queue(message)?;
        self.flush()
    }

    /// Blocks until the queued message is sent.
    ///
    /// # Errors
    /// [`LinkError::Io`], [`LinkError::Closed`].
    pub fn flush(&mut self) -> Result<(), LinkError<IO::Error>> {
        while !self.out.is_empty() {
            self.write_some()?;
        }
        self.io.flush().map_err(LinkError::Io)
    }

    /// Sends as much of the queued message as possible without blocking; returns
    /// whether it is sent completely.
    ///
    /// # Errors
    /// [`LinkError::Io`], [`LinkError::Closed`].
    pub fn poll_flush(&mut self) -> Result<bool, LinkError<IO::Error>>
    where
        IO: WriteReady,
    {
        while !self.out.is_empty() {
            if !self.io.write_ready().map_err(LinkError::Io)? {
                return Ok(false);
            }
            self.write_some()?;
        }
        Ok(true)
    }

    fn write_some(&mut self) -> Result<(), LinkError<IO::Error>> {
        let written = self.io.write(self.out.waiting()).map_err(LinkError::Io)?;
        if written == 0 {
            return Err(LinkError::Closed);
        }
        self.out.at += written;
        Ok(())
    }
}

impl<IO: Read, const N: usize> Link<IO, N>
where
    IO::Error: Debug,
{
    /// Blocks until the next message.
    ///
    /// # Errors
    /// [`LinkError::Decode`] for each invalid frame; [`LinkError::Io`],
    /// [`LinkError::Closed`].
    pub fn receive(&mut self) -> Result<Message<'_>, LinkError<IO::Error>> {
        loop {
            if self.digest()? {
                break;
            }
            self.fill()?;
        }
        self.message()
    }

    /// Processes the received bytes up to the end of the next message, without
    /// blocking. `None` if there is no complete message; call it until then.
    ///
    /// # Errors
    /// Same as for [`receive`](Self::receive).
    pub fn poll(&mut self) -> Result<Option<Message<'_>>, LinkError<IO::Error>>
    where
        IO: ReadReady,
    {
        let mut taken = 0;
        while !self.digest()? {
            if taken >= POLL_BYTES || !self.io.read_ready().map_err(LinkError::Io)? {
                return Ok(None);
            }
            taken += self.fill()?;
        }
        self.message().map(Some)
    }

    /// Passes the bytes read to the decoder; returns whether that completed a frame.
    fn digest(&mut self) -> Result<bool, LinkError<IO::Error>> {
        let (taken, found) = self.decoder.feed(self.input.waiting());
        self.input.at += taken;
        match found {
            None => Ok(false),
            Some(Ok(_)) => Ok(true),
            Some(Err(error)) => Err(LinkError::Decode(error)),
        }
    }

    /// Reads more bytes if all have been processed.
    fn fill(&mut self) -> Result<usize, LinkError<IO::Error>> {
        let length = self.io.read(&mut self.input.bytes).map_err(LinkError::Io)?;
        if length == 0 {
            return Err(LinkError::Closed);
        }
        self.input.at = 0;
        self.input.end = length.min(CHUNK);
        Ok(length)
    }

    fn message(&self) -> Result<Message<'_>, LinkError<IO::Error>> {
        // A frame has just been found.
        let missing = DecodeError::TooShort { len: 0, min: 0 };
        let frame = self.decoder.frame().ok_or(LinkError::Decode(missing))?;
        frame.message().map_err(LinkError::Decode)
    }
}
