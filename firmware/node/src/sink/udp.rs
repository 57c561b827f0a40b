//! The wire format over UDP.

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, UdpSocket},
};

use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};

/// Maximum datagram size; fits in an Ethernet frame with all headers.
const MAX_DATAGRAM: usize = 1200;

/// A UDP socket as a byte stream. Datagrams contain complete wire frames, so that a lost datagram
/// does not damage others.
#[derive(Debug)]
pub struct UdpLink {
    socket: UdpSocket,
    out: [u8; MAX_DATAGRAM],
    /// Buffered bytes of `out`.
    buffered: usize,
    /// End of the last complete frame in `out`.
    complete: usize,
    input: [u8; 2048],
    at: usize,
    end: usize,
}

impl UdpLink {
    /// Binds to `bind` and exchanges datagrams with `peer` only.
    ///
    /// # Errors
    /// If the address is not available.
    pub fn open(bind: SocketAddr, peer: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(bind)?;
        socket.connect(peer)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            out: [0; MAX_DATAGRAM],
            buffered: 0,
            complete: 0,
            input: [0; 2048],
            at: 0,
            end: 0,
        })
    }

    /// Sends the first `length` buffered bytes. If the peer does not receive them, they are lost.
    fn send(&mut self, length: usize) -> io::Result<()> {
        let sent = self.socket.send(&self.out[..length]);
        self.out.copy_within(length..self.buffered, 0);
        self.buffered -= length;
        self.complete = 0;
        match sent {
            Err(e) if !is_transient(&e) => Err(e),
            _ => Ok(()),
        }
    }
}

fn is_transient(e: &io::Error) -> bool {
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
            if self.buffered == MAX_DATAGRAM {
                // Frames are shorter than a datagram, so there is a complete one in valid data.
                let length = if self.complete > 0 {
                    self.complete
                } else {
                    MAX_DATAGRAM
                };
                self.send(length)?;
            }
            self.out[self.buffered] = byte;
            self.buffered += 1;
            taken += 1;
            if byte == loftup_wire::DELIMITER {
                self.complete = self.buffered;
            }
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.buffered {
            0 => Ok(()),
            n => self.send(n),
        }
    }
}

impl super::Line for UdpLink {
    fn try_flush(&mut self) -> io::Result<()> {
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
            Err(e) if is_transient(&e) => {}
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
