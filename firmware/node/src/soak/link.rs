//! The other side of the link.

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    time::Duration,
};

use loftup_wire::{Decoder, Encoder, Handshake, MAX_FRAME, Message, Text, message::Role};

/// What the other side of the link counted.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Frames that arrived whole.
    pub frames: AtomicU64,
    /// Frames that arrived broken.
    pub broken: AtomicU64,
    /// Frames that are missing by the numbers of those before and behind them.
    pub missed: AtomicU64,
}

/// The other side of the link: greets and counts.
pub(super) fn listen(socket: &UdpSocket, stop: &AtomicBool, heard: &Heard) -> std::io::Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let (mut encoder, mut decoder) = (
        Encoder::new(),
        Decoder::<{ loftup_wire::MAX_PACKET }>::new(),
    );
    let mut handshake = Handshake::new(Role::Monitor, Text::default());
    let (mut buffer, mut frame) = ([0; 2048], [0; MAX_FRAME]);
    while !stop.load(SeqCst) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let mut replies = Vec::new();
        decoder.push_slice(&buffer[..length], |found| {
            let Ok(found) = found else { return };
            if let Ok(Message::Hello(hello)) = found.message() {
                replies.extend(handshake.receive(&hello));
            }
        });
        let counters = decoder.counters();
        heard.frames.store(counters.frames.into(), SeqCst);
        heard.broken.store(counters.refused().into(), SeqCst);
        heard.missed.store(counters.lost.into(), SeqCst);
        for reply in replies {
            if let Ok(bytes) = encoder.encode(&reply.into(), &mut frame) {
                socket.send_to(bytes, from)?;
            }
        }
    }
    Ok(())
}
