//! A simulated perception node with a generated scene: the other end of the
//! link, for demonstrations and tests without a robot.

use core::fmt::Debug;

use embedded_io::{Read, ReadReady, Write, WriteReady};
use loftup_board::{Link, LinkError};
use loftup_wire::command::{Action, Area, Outcome, Refusal, Reply};
use loftup_wire::features::{Coding, FeatureWriter};
use loftup_wire::health::{Health, State};
use loftup_wire::message::{Answer, Content, Label, MAX_DATA, Rect, Role};
use loftup_wire::runs::MapWriter;
use loftup_wire::{Handshake, Message, Text};

use crate::receiver::{CHANNELS, MAP_SLOT, POINT_SLOT, POINTS};

/// Width of its class maps.
pub const WIDTH: u16 = 48;
/// Height of its class maps.
pub const HEIGHT: u16 = 32;
/// Pixels of its class maps.
pub const PIXELS: usize = WIDTH as usize * HEIGHT as usize;
/// Names of its classes.
pub const LABELS: [&str; 3] = ["road", "obstacle", "sky"];

/// The class map of a frame: sky above, road below, and an obstacle that grows
/// and shrinks.
pub fn scene(frame: u32) -> [u8; PIXELS] {
    let mut map = [0; PIXELS];
    let half = (frame % 20).min(20 - frame % 20) as usize;
    for (i, class) in map.iter_mut().enumerate() {
        let (x, y) = (i % usize::from(WIDTH), i / usize::from(WIDTH));
        *class = if y < 10 {
            2
        } else if x.abs_diff(24) < half && y.abs_diff(20) < half {
            1
        } else {
            0
        };
    }
    map
}

/// The feature vector at a point.
pub fn feature(frame: u32, point: usize, channel: usize) -> f32 {
    (frame % 8) as f32 + point as f32 * 0.5 - channel as f32 * 0.25
}

/// The node.
pub struct Node<IO> {
    link: Link<IO>,
    handshake: Handshake<'static>,
    labels_due: bool,
    greeting_due: bool,
    /// Queries set, by slot.
    pub queries: [bool; 2],
    /// The requested frame rate.
    pub rate_mhz: u32,
    /// Whether it processes queries.
    pub running: bool,
    /// Number of the last frame sent.
    pub frame: u32,
    next_ms: u64,
}

impl<IO> Node<IO>
where
    IO: Read + Write + ReadReady + WriteReady,
    IO::Error: Debug,
{
    /// A node that waits for commands.
    pub fn new(io: IO, name: Text<'static, 32>) -> Self {
        Node {
            link: Link::new(io),
            handshake: Handshake::new(Role::Node, name),
            labels_due: false,
            greeting_due: false,
            queries: [false; 2],
            rate_mhz: 1_000,
            running: false,
            frame: 0,
            next_ms: 0,
        }
    }

    /// The node after a restart: it has no queries and sends a hello.
    pub fn restarted(self) -> Self {
        let mut node = Node::new(self.link.release(), self.handshake.hello().name);
        node.greeting_due = true;
        node
    }

    /// Processes messages, and sends a frame if one is due.
    ///
    /// # Errors
    /// Errors of the link, except invalid frames.
    pub fn step(&mut self, now_ms: u64) -> Result<(), LinkError<IO::Error>> {
        if self.greeting_due {
            self.greeting_due = false;
            self.link.send(&self.handshake.hello().into())?;
        }
        loop {
            let answer: Message<'static> = match self.link.poll() {
                Ok(Some(Message::Hello(hello))) => {
                    // The sender of a hello has no class names, so send them
                    // again.
                    self.labels_due |= hello.answer;
                    match self.handshake.receive(&hello) {
                        Some(answer) => answer.into(),
                        None => continue,
                    }
                }
                Ok(Some(Message::Command(command))) => {
                    let (id, action) = (command.id, command.action);
                    let outcome = match action {
                        Action::Ping => Outcome::Done,
                        Action::Start => {
                            self.running = true;
                            Outcome::Done
                        }
                        Action::SetRate { mhz } if mhz > 0 => {
                            self.rate_mhz = mhz;
                            Outcome::Done
                        }
                        Action::SetQuery { slot, area, .. } => {
                            match self.queries.get_mut(usize::from(slot)) {
                                Some(_) if matches!(area, Area::Region(_)) => {
                                    Outcome::Refused(Refusal::Unsupported)
                                }
                                Some(set) => {
                                    *set = true;
                                    Outcome::Done
                                }
                                None => Outcome::Refused(Refusal::NoSuchSlot),
                            }
                        }
                        _ => Outcome::Refused(Refusal::Unsupported),
                    };
                    Reply { id, outcome }.into()
                }
                Ok(Some(_)) | Err(LinkError::Decode(_)) => continue,
                Ok(None) => break,
                Err(error) => return Err(error),
            };
            self.link.send(&answer)?;
        }
        if self.running && now_ms >= self.next_ms {
            self.next_ms = now_ms + u64::from(1_000_000 / self.rate_mhz);
            self.send_frame(now_ms)?;
        }
        Ok(())
    }

    fn send_frame(&mut self, now_ms: u64) -> Result<(), LinkError<IO::Error>> {
        self.frame += 1;
        let frame = self.frame;
        // Repeat the class names occasionally, because a message may be lost.
        if self.labels_due || frame.is_multiple_of(8) {
            self.labels_due = false;
            for (class, name) in (0u8..).zip(LABELS) {
                let label = Label {
                    set: 1,
                    classes: LABELS.len() as u16,
                    class,
                    name: Text::new(name).unwrap_or_default(),
                };
                self.link.send(&label.into())?;
            }
        }
        let health = Health {
            state: State::Running,
            uptime_ms: now_ms,
            rate_mhz: self.rate_mhz,
            latency_p50_us: 61_000,
            latency_p99_us: 80_000,
            temperature_cc: Some(5_150),
            answered: frame,
            dropped: 0,
            link_errors: self.link.counters().refused(),
        };
        self.link.send(&health.into())?;
        let mut scratch = [0; MAX_DATA];
        if self.queries[usize::from(MAP_SLOT)] {
            let answer = Answer {
                frame,
                slot: MAP_SLOT,
                stamp_us: now_ms * 1_000,
                source: Rect {
                    x: 0,
                    y: 0,
                    width: WIDTH,
                    height: HEIGHT,
                },
                content: Content::Classes {
                    width: WIDTH,
                    height: HEIGHT,
                    labels: 1,
                },
            };
            self.link.send(&answer.into())?;
            let map = scene(frame);
            if let Ok(writer) = MapWriter::new(frame, MAP_SLOT, WIDTH, HEIGHT, &map) {
                let mut writer = writer.with_max_rows(8);
                while let Some(chunk) = writer.next_chunk(&mut scratch) {
                    self.link.send(&chunk.into())?;
                }
            }
        }
        if self.queries[usize::from(POINT_SLOT)] {
            let mut values = [0.0; CHANNELS * POINTS.len()];
            for (i, value) in values.iter_mut().enumerate() {
                *value = feature(frame, i / CHANNELS, i % CHANNELS);
            }
            let channels = CHANNELS as u16;
            let writer = FeatureWriter::new(frame, POINT_SLOT, channels, &values, Coding::U8);
            if let Ok(mut writer) = writer {
                while let Some(block) = writer.next_chunk(&mut scratch) {
                    self.link.send(&block.into())?;
                }
            }
        }
        Ok(())
    }
}
