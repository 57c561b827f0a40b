//! Frames of the wire format in datagrams.

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, UdpSocket},
};

use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};

/// Most bytes in a datagram: fits in an Ethernet frame with every header.
const MOST: usize = 1200;

/// A UDP socket as a stream of bytes. Whole wire frames are gathered into datagrams, so that a
/// lost datagram costs whole frames.
#[derive(Debug)]
pub struct UdpLink {
    socket: UdpSocket,
    out: [u8; MOST],
    waiting: usize,
    /// End of the last whole frame among those waiting.
    whole: usize,
    input: [u8; 2048],
    at: usize,
    end: usize,
}

impl UdpLink {
    /// From `bind` to `peer`, and only from there.
    ///
    /// # Errors
    /// Where the address is taken.
    pub fn open(bind: SocketAddr, peer: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(bind)?;
        socket.connect(peer)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            out: [0; MOST],
            waiting: 0,
            whole: 0,
            input: [0; 2048],
            at: 0,
            end: 0,
        })
    }

    /// Sends the first `length` bytes that wait. Whoever does not listen, or too slowly, does not
    /// get them: that is what datagrams are.
    fn send(&mut self, length: usize) -> io::Result<()> {
        let sent = self.socket.send(&self.out[..length]);
        self.out.copy_within(length..self.waiting, 0);
        self.waiting -= length;
        self.whole = 0;
        match sent {
            Err(e) if !passing(&e) => Err(e),
            _ => Ok(()),
        }
    }
}

fn passing(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionRefused
    )
}

impl ErrorType for UdpLink {
    type Error = io::Error;
}

impl Write for UdpLink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        for &byte in bytes {
            if self.waiting == MOST {
                // A frame is shorter than a datagram, so a whole one waits, unless it is noise.
                let length = if self.whole > 0 { self.whole } else { MOST };
                self.send(length)?;
            }
            self.out[self.waiting] = byte;
            self.waiting += 1;
            taken += 1;
            if byte == loftup_wire::DELIMITER {
                self.whole = self.waiting;
            }
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.waiting {
            0 => Ok(()),
            n => self.send(n),
        }
    }
}

impl super::Line for UdpLink {
    fn push(&mut self) -> io::Result<()> {
        self.flush()
    }
}

impl WriteReady for UdpLink {
    fn write_ready(&mut self) -> io::Result<bool> {
        Ok(true)
    }
}

impl ReadReady for UdpLink {
    fn read_ready(&mut self) -> io::Result<bool> {
        if self.at < self.end {
            return Ok(true);
        }
        match self.socket.recv(&mut self.input) {
            Ok(length) => (self.at, self.end) = (0, length),
            Err(e) if passing(&e) => {}
            Err(e) => return Err(e),
        }
        Ok(self.at < self.end)
    }
}

impl Read for UdpLink {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while !self.read_ready()? {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let length = out.len().min(self.end - self.at);
        out[..length].copy_from_slice(&self.input[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}
