//! The peer of the link.

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    time::Duration,
};

use loftup_wire::{Decoder, Encoder, Handshake, MAX_FRAME, Message, Text, message::Role};

/// Counters of the peer.
#[derive(Debug, Default)]
pub(super) struct PeerCounters {
    /// Valid frames.
    pub frames: AtomicU64,
    /// Corrupted frames.
    pub corrupted: AtomicU64,
    /// Frames missing in the sequence.
    pub missed: AtomicU64,
}

/// Completes the handshake and counts frames.
pub(super) fn receive(
    socket: &UdpSocket,
    stop: &AtomicBool,
    counters: &PeerCounters,
) -> std::io::Result<()> {
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
        let found = decoder.counters();
        counters.frames.store(found.frames.into(), SeqCst);
        counters.corrupted.store(found.refused().into(), SeqCst);
        counters.missed.store(found.lost.into(), SeqCst);
        for reply in replies {
            if let Ok(bytes) = encoder.encode(&reply.into(), &mut frame) {
                socket.send_to(bytes, from)?;
            }
        }
    }
    Ok(())
}
