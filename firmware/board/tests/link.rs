//! Messages over a byte stream.

use std::collections::VecDeque;

use embedded_io::{ErrorKind, ErrorType, Read, ReadReady, Write, WriteReady};
use loftup_board::{Link, LinkError};
use loftup_wire::message::{TimeReply, TimeRequest};
use loftup_wire::{DecodeError, Encoder, MAX_FRAME, Message};

/// A stream that reads and writes a few bytes at a time.
#[derive(Default)]
struct Stream {
    input: VecDeque<u8>,
    output: Vec<u8>,
    /// Bytes it accepts before it is full.
    room: usize,
    /// Maximum number of bytes per call.
    step: usize,
    /// Whether every call fails.
    broken: bool,
    flushed: usize,
}

impl Stream {
    fn new(input: &[u8]) -> Self {
        Stream {
            input: input.iter().copied().collect(),
            room: usize::MAX,
            step: 5,
            ..Stream::default()
        }
    }
}

impl ErrorType for Stream {
    type Error = ErrorKind;
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, ErrorKind> {
        let length = out.len().min(self.step).min(self.input.len());
        for place in &mut out[..length] {
            *place = self.input.pop_front().unwrap();
        }
        Ok(length)
    }
}

impl ReadReady for Stream {
    fn read_ready(&mut self) -> Result<bool, ErrorKind> {
        if self.broken {
            return Err(ErrorKind::BrokenPipe);
        }
        Ok(!self.input.is_empty())
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        let length = bytes.len().min(self.step).min(self.room);
        self.output.extend_from_slice(&bytes[..length]);
        self.room -= length;
        Ok(length)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        self.flushed += 1;
        Ok(())
    }
}

impl WriteReady for Stream {
    fn write_ready(&mut self) -> Result<bool, ErrorKind> {
        Ok(self.room > 0)
    }
}

fn request(sent_us: u64) -> Message<'static> {
    TimeRequest { sent_us }.into()
}

fn line(messages: &[Message<'_>]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    let mut buffer = [0; MAX_FRAME];
    messages
        .iter()
        .flat_map(|message| encoder.encode(message, &mut buffer).unwrap().to_vec())
        .collect()
}

#[test]
fn what_is_sent_is_frames_after_one_leading_delimiter() {
    let mut link: Link<_> = Link::new(Stream::new(&[]));
    link.send(&request(1)).unwrap();
    link.send(&request(2)).unwrap();
    let stream = link.release();
    assert_eq!(stream.output[0], 0);
    assert_eq!(stream.output[1..], line(&[request(1), request(2)]));
    assert!(stream.flushed >= 2);
}

#[test]
fn polling_takes_what_is_there_and_never_waits() {
    let whole = line(&[request(1), request(2)]);
    let (now, later) = whole.split_at(whole.len() - 3);
    let mut link: Link<_> = Link::new(Stream::new(now));
    assert_eq!(link.poll(), Ok(Some(request(1))));
    assert_eq!(link.poll(), Ok(None), "half a message");
    assert_eq!(link.poll(), Ok(None));
    link.io().input.extend(later);
    assert_eq!(link.poll(), Ok(Some(request(2))));
    assert_eq!(link.poll(), Ok(None));
    assert_eq!(link.counters().frames, 2);
}

#[test]
fn a_flood_of_noise_does_not_hold_up_the_loop() {
    let mut noise = Stream::new(&[1; 1_000_000]);
    noise.step = 64;
    let mut link: Link<_> = Link::new(noise);
    // The first piece exceeds the buffer: one error, then the rest up to the
    // next delimiter is skipped, a bounded part per call.
    let mut polls = 0;
    while !link.io().input.is_empty() {
        let before = link.io().input.len();
        assert!(!matches!(link.poll(), Ok(Some(_))));
        assert!(before - link.io().input.len() <= 2 * MAX_FRAME + 64);
        polls += 1;
    }
    assert!(polls > 900, "{polls}");
    assert_eq!(link.counters().oversize, 1);
}

#[test]
fn noise_is_an_error_and_the_link_goes_on() {
    let mut bytes = vec![9, 9, 9, 0];
    bytes.extend(line(&[request(7)]));
    let mut link: Link<_> = Link::new(Stream::new(&bytes));
    assert_eq!(link.poll(), Err(LinkError::Decode(DecodeError::Stuffing)));
    assert_eq!(link.poll(), Ok(Some(request(7))));
}

#[test]
fn receiving_waits_and_tells_the_end_and_failures() {
    let mut link: Link<_> = Link::new(Stream::new(&line(&[request(7)])));
    assert_eq!(link.receive(), Ok(request(7)));
    assert_eq!(link.receive(), Err(LinkError::Closed));
    link.io().broken = true;
    assert_eq!(link.poll(), Err(LinkError::Io(ErrorKind::BrokenPipe)));
}

#[test]
fn queued_bytes_leave_as_the_stream_takes_them_and_only_one_message_waits() {
    let mut stream = Stream::new(&[]);
    stream.room = 4;
    let mut link: Link<_> = Link::new(stream);
    link.queue(&request(1)).unwrap();
    assert_eq!(link.poll_flush(), Ok(false));
    assert_eq!(link.queue(&request(2)), Err(LinkError::Busy));
    link.io().room = usize::MAX;
    assert_eq!(link.poll_flush(), Ok(true));
    link.queue(&request(2)).unwrap();
    assert_eq!(link.poll_flush(), Ok(true));
    assert_eq!(link.release().output[1..], line(&[request(1), request(2)]));
}

#[test]
fn a_stream_that_takes_nothing_counts_as_closed() {
    let mut stream = Stream::new(&[]);
    stream.room = 0;
    let mut link: Link<_> = Link::new(stream);
    assert_eq!(link.send(&request(1)), Err(LinkError::Closed));
}

#[test]
fn a_small_decoder_takes_small_messages_and_refuses_large_ones() {
    let reply = TimeReply {
        sent_us: u64::MAX,
        received_us: u64::MAX,
        replied_us: u64::MAX,
    };
    let bytes = line(&[reply.into(), request(3)]);
    let mut link = Link::<_, 20>::new(Stream::new(&bytes));
    assert_eq!(
        link.poll(),
        Err(LinkError::Decode(DecodeError::Oversize { max: 20 }))
    );
    assert_eq!(link.poll(), Ok(Some(request(3))));
}
