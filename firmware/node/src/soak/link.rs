//! The peer of the link: a controller that sends commands and counts what it receives.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    time::{Duration, Instant},
};

use loftup_wire::{
    Bytes, Decoder, Encoder, Handshake, MAX_FRAME, Message, Text,
    command::{Action, Command, Outcome, Seed},
    message::{Point, Rect, Role},
    request::{Requester, Step},
};

use crate::config::Config;

/// Counters of the peer.
#[derive(Debug, Default)]
pub(super) struct PeerCounters {
    /// Valid frames.
    pub frames: AtomicU64,
    /// Corrupted frames.
    pub corrupted: AtomicU64,
    /// Frames missing in the sequence.
    pub missed: AtomicU64,
    /// Commands that were executed.
    pub done: AtomicU64,
    /// Commands that were refused.
    pub refused: AtomicU64,
    /// Commands without a reply, however often they were sent.
    pub given_up: AtomicU64,
}

/// Time after which a command is repeated.
const REPEAT_MS: u32 = 300;
/// Maximum number of times that a command is sent.
const ATTEMPTS: u8 = 8;
/// Time between two commands.
const PAUSE_MS: u64 = 250;

/// The commands, which are sent in a loop.
pub(super) struct Script {
    camera: [u16; 2],
    max_objects: u8,
    words: Option<String>,
    next: u32,
}

impl Script {
    /// Creates the commands that a node with `config` executes, for images of this size.
    pub(super) fn new(config: &Config, sides: [usize; 2]) -> Self {
        Self {
            camera: sides.map(|side| u16::try_from(side).unwrap_or(u16::MAX)),
            max_objects: config.track.as_ref().map_or(0, |track| track.max_objects),
            words: config.words.as_ref().and_then(|words| words.head.clone()),
            next: 0,
        }
    }

    /// The current command.
    fn action(&self) -> Action<'_> {
        let step = self.next;
        let [width, height] = self.camera;
        let object = 1 + (step / 6 % u32::from(self.max_objects.clamp(1, 3))) as u8;
        let name = Text::new("object").unwrap_or_default();
        let start = |seed| Action::StartObject { object, name, seed };
        match (step % 6, self.max_objects, &self.words) {
            (5, _, Some(words)) => Action::SetWords(Text::new(words).unwrap_or_default()),
            (0, 1.., _) => start(Seed::Box(Rect {
                x: width / 8 * (step % 5) as u16,
                y: height / 4,
                width: width / 3,
                height: height / 3,
            })),
            (1, 1.., _) => start(Seed::Point(Point {
                x: width / 2,
                y: height * 3 / 4,
            })),
            // A band in the middle of 4 x 4 pixels.
            (2, 1.., _) => start(Seed::Mask {
                width: 4,
                height: 4,
                runs: Bytes::new(&[4, 6]).unwrap_or_default(),
            }),
            (3, 1.., _) => Action::RenameObject { object, name },
            (4, 1.., _) => Action::StopObject { object },
            _ => Action::Ping,
        }
    }
}

/// Completes the handshake, sends the commands of `script` and counts frames.
pub(super) fn receive(
    socket: &UdpSocket,
    mut script: Script,
    stop: &AtomicBool,
    counters: &PeerCounters,
) -> std::io::Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let (mut encoder, mut decoder) = (
        Encoder::new(),
        Decoder::<{ loftup_wire::MAX_PACKET }>::new(),
    );
    let mut handshake = Handshake::new(Role::Controller, Text::default());
    let mut requester = Requester::new(REPEAT_MS, ATTEMPTS);
    let (mut buffer, mut frame) = ([0; 2048], [0; MAX_FRAME]);
    let mut node: Option<SocketAddr> = None;
    let start = Instant::now();
    let mut due_ms = 0;
    while !stop.load(SeqCst) {
        let mut replies = Vec::new();
        let now_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut ended = false;
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            node = Some(from);
            decoder.push_slice(&buffer[..length], |found| {
                let Ok(found) = found else { return };
                match found.message() {
                    Ok(Message::Hello(hello)) => replies.extend(handshake.receive(&hello)),
                    Ok(Message::Reply(reply)) => {
                        let counter = match requester.receive(&reply) {
                            None => return,
                            Some(Outcome::Done) => &counters.done,
                            Some(Outcome::Refused(_)) => &counters.refused,
                        };
                        counter.fetch_add(1, SeqCst);
                        ended = true;
                    }
                    _ => {}
                }
            });
        }
        let found = decoder.counters();
        counters.frames.store(found.frames.into(), SeqCst);
        counters.corrupted.store(found.refused().into(), SeqCst);
        counters.missed.store(found.lost.into(), SeqCst);
        let Some(node) = node else { continue };
        for reply in replies {
            if let Ok(bytes) = encoder.encode(&reply.into(), &mut frame) {
                socket.send_to(bytes, node)?;
            }
        }
        if handshake.is_open() && !requester.is_busy() && !ended && now_ms >= due_ms {
            let _ = requester.begin(now_ms);
        }
        match requester.poll(now_ms) {
            Step::Send(id) => {
                let action = script.action();
                if let Ok(bytes) = encoder.encode(&Command { id, action }.into(), &mut frame) {
                    socket.send_to(bytes, node)?;
                }
            }
            Step::GiveUp(_) => {
                counters.given_up.fetch_add(1, SeqCst);
                ended = true;
            }
            Step::Wait => {}
        }
        if ended {
            script.next = script.next.wrapping_add(1);
            due_ms = now_ms + PAUSE_MS;
        }
    }
    Ok(())
}
