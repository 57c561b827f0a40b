//! [`loftup_wire`] messages over a byte stream.

use core::fmt::Debug;

use embedded_io::{Read, ReadReady, Write, WriteReady};
use loftup_wire::{
    Counters, DELIMITER, DecodeError, Decoder, EncodeError, Encoder, MAX_FRAME, MAX_PACKET, Message,
};

/// Bytes taken from the stream at once.
const CHUNK: usize = 64;

/// Most bytes that one [`Link::poll`] takes: enough for any frame, and little
/// enough that a flood does not hold up the caller's loop.
const POLL_BYTES: usize = 2 * MAX_FRAME;

/// What can go wrong on a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError<E: Debug> {
    /// The stream failed.
    #[error("the link failed: {0:?}")]
    Io(E),
    /// The other side has closed the stream.
    #[error("the other side has closed the link")]
    Closed,
    /// The last message queued is still on its way out.
    #[error("the last message is still being sent: flush first")]
    Busy,
    /// The message cannot be sent.
    #[error("cannot send: {0}")]
    Encode(EncodeError),
    /// Something came that is no message. The link goes on.
    #[error("cannot read: {0}")]
    Decode(DecodeError),
}

/// Messages over a stream of bytes. `N` is the largest packet it can take; see
/// [`Decoder`].
///
/// For a loop that must not wait: [`queue`](Self::queue),
/// [`poll_flush`](Self::poll_flush) and [`poll`](Self::poll). For a thread of
/// its own: [`send`](Self::send) and [`receive`](Self::receive).
#[derive(Debug)]
pub struct Link<IO, const N: usize = MAX_PACKET> {
    io: IO,
    encoder: Encoder,
    decoder: Decoder<N>,
    out: Queue<{ MAX_FRAME + 1 }>,
    input: Queue<CHUNK>,
}

/// Bytes from `at` to `end` of a buffer.
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
    /// A link over `io`, which nothing has been sent on yet.
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

    /// What has come so far, and what was wrong with it.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        self.decoder.counters()
    }

    /// The stream.
    pub const fn io(&mut self) -> &mut IO {
        &mut self.io
    }

    /// Gives the stream back.
    pub fn release(self) -> IO {
        self.io
    }
}

impl<IO: Write, const N: usize> Link<IO, N>
where
    IO::Error: Debug,
{
    /// Makes `message` ready to be sent. One at a time: there is no memory for
    /// more.
    ///
    /// # Errors
    /// [`LinkError::Busy`] while the last one is not out,
    /// [`LinkError::Encode`].
    pub fn queue(&mut self, message: &Message<'_>) -> Result<(), LinkError<IO::Error>> {
        if !self.out.is_empty() {
            return Err(LinkError::Busy);
        }
        // The first frame begins with a delimiter, which ends whatever the line
        // said before.
        let lead = usize::from(self.encoder.sequence() == 0);
        let (delimiter, room) = self.out.bytes.split_at_mut(lead);
        delimiter.fill(DELIMITER);
        let frame = self.encoder.encode(message, room);
        let length = frame.map_err(LinkError::Encode)?.len();
        self.out.at = 0;
        self.out.end = lead + length;
        Ok(())
    }

    /// Sends `message`, and what was queued before; waits until it is out.
    ///
    /// # Errors
    /// [`LinkError::Io`], [`LinkError::Closed`], [`LinkError::Encode`].
    pub fn send(&mut self, message: &Message<'_>) -> Result<(), LinkError<IO::Error>> {
        self.flush()?;
        self.queue(message)?;
        self.flush()
    }

    /// Waits until all that was queued is out.
    ///
    /// # Errors
    /// [`LinkError::Io`], [`LinkError::Closed`].
    pub fn flush(&mut self) -> Result<(), LinkError<IO::Error>> {
        while !self.out.is_empty() {
            self.write_some()?;
        }
        self.io.flush().map_err(LinkError::Io)
    }

    /// Sends as much of what was queued as goes without waiting; tells whether
    /// all is out.
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
    /// Waits for the next message.
    ///
    /// # Errors
    /// [`LinkError::Decode`] for each frame that is none; [`LinkError::Io`],
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

    /// Takes what has come, without waiting, up to the end of the next message.
    /// `None`: nothing more is there, or it is no whole message yet. Call it
    /// until it says so.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
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

    /// Hands what was read to the decoder; tells whether that made a frame.
    fn digest(&mut self) -> Result<bool, LinkError<IO::Error>> {
        let (taken, found) = self.decoder.feed(self.input.waiting());
        self.input.at += taken;
        match found {
            None => Ok(false),
            Some(Ok(_)) => Ok(true),
            Some(Err(error)) => Err(LinkError::Decode(error)),
        }
    }

    /// Reads some bytes where all have been handed on.
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
        // A frame was found just now, so there is one.
        let missing = DecodeError::TooShort { len: 0, min: 0 };
        let frame = self.decoder.frame().ok_or(LinkError::Decode(missing))?;
        frame.message().map_err(LinkError::Decode)
    }
}
