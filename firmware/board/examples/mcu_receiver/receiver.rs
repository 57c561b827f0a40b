//! The controller's side: watches a rectangle of the picture and brakes when
//! too much of it is obstacle, or when it does not know.

use core::fmt::Debug;

use embedded_hal::digital::OutputPin;
use embedded_io::{Read, ReadReady, Write, WriteReady};
use loftup_board::{Lamp, Link, LinkError, StatusLight};
use loftup_wire::assemble::Coverage;
use loftup_wire::command::{Action, Area, Command, Outcome, Want};
use loftup_wire::features::Features;
use loftup_wire::message::{MapChunk, Point, Rect, Role};
use loftup_wire::request::{Requester, Step};
use loftup_wire::{Handshake, Message, Text};

/// Query slot of the class map.
pub const MAP_SLOT: u8 = 0;
/// Query slot of the feature points.
pub const POINT_SLOT: u8 = 1;
/// Points whose features are asked.
pub const POINTS: [Point; 3] = [
    Point { x: 8, y: 8 },
    Point { x: 40, y: 8 },
    Point { x: 24, y: 24 },
];
/// Most channels that are kept of a feature vector.
pub const CHANNELS: usize = 4;

const GREETING_MS: u64 = 200;
const COMMAND_MS: u32 = 60;
const COMMAND_ATTEMPTS: u8 = 30;

/// What to watch for.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    /// Which pixels of the class map.
    pub area: Rect,
    /// Name of the class to brake for.
    pub class: &'static str,
    /// So many pixels of it, and the brake comes on.
    pub limit: u32,
    /// Time without a whole view of the area after which it comes on too.
    pub patience_ms: u32,
}

/// What the watched area showed in one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Number of the camera frame.
    pub frame: u32,
    /// Pixels of each class.
    pub counts: [u32; 256],
}

/// What a step brought about, for the caller's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A whole view of the area.
    Viewed,
    /// The node has carried a command out, or refused it.
    Answered(Outcome),
    /// The node does not answer; the plan begins anew.
    GaveUp,
}

/// The controller. Its memory is a few kilobytes: no map is ever held.
pub struct Receiver<IO, P, L> {
    link: Link<IO>,
    brake: P,
    light: StatusLight<L>,
    watch: Watch,
    handshake: Handshake<'static>,
    greet_at_ms: u64,
    requester: Requester,
    /// Commands of the plan that are done.
    planned: u8,
    target: Option<u8>,
    view: View,
    seen: Coverage,
    complete: Option<View>,
    viewed_ms: u64,
    /// Features of [`POINTS`] as far as they have come.
    pub features: [[f32; CHANNELS]; POINTS.len()],
    braking: Option<bool>,
}

impl<IO, P, L> Receiver<IO, P, L>
where
    IO: Read + Write + ReadReady + WriteReady,
    IO::Error: Debug,
    P: OutputPin,
    L: Lamp,
{
    /// A controller that brakes until it knows better.
    pub fn new(io: IO, brake: P, lamp: L, name: Text<'static, 32>, watch: Watch) -> Self {
        Receiver {
            link: Link::new(io),
            brake,
            light: StatusLight::new(lamp, 2_000),
            watch,
            handshake: Handshake::new(Role::Controller, name),
            greet_at_ms: 0,
            requester: Requester::new(COMMAND_MS, COMMAND_ATTEMPTS),
            planned: 0,
            target: None,
            view: View {
                frame: 0,
                counts: [0; 256],
            },
            seen: Coverage::new(),
            complete: None,
            viewed_ms: 0,
            features: [[f32::NAN; CHANNELS]; POINTS.len()],
            braking: None,
        }
    }

    /// One turn of the main loop; never waits.
    ///
    /// # Errors
    /// [`LinkError::Io`] and [`LinkError::Closed`]. Noise on the line is none:
    /// see [`Link::counters`].
    pub fn step(&mut self, now_ms: u64) -> Result<Option<Event>, LinkError<IO::Error>> {
        let mut event = self.listen(now_ms)?;
        if self.link.poll_flush()? {
            event = self.talk(now_ms)?.or(event);
        }
        // A lamp that fails must not keep the brake from working.
        let _ = self.light.tick(now_ms);
        let patience = u64::from(self.watch.patience_ms);
        let blind = now_ms.saturating_sub(self.viewed_ms) > patience;
        let danger = match (&self.complete, self.target) {
            (Some(view), Some(class)) if !blind => {
                view.counts[usize::from(class)] >= self.watch.limit
            }
            _ => true,
        };
        if self.braking != Some(danger) && self.brake.set_state(danger.into()).is_ok() {
            self.braking = Some(danger);
        }
        Ok(event)
    }

    fn listen(&mut self, now_ms: u64) -> Result<Option<Event>, LinkError<IO::Error>> {
        let mut event = None;
        // A bounded number of messages each turn.
        for _ in 0..16 {
            let message = match self.link.poll() {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(LinkError::Decode(_)) => continue,
                Err(error) => return Err(error),
            };
            match message {
                Message::Hello(hello) => {
                    let restarted = hello.answer && self.handshake.is_open();
                    if restarted {
                        self.planned = 0;
                        self.requester.cancel();
                    }
                    if let Some(answer) = self.handshake.receive(&hello) {
                        // Where the line is busy the node will greet again.
                        let _ = self.link.queue(&answer.into());
                    }
                }
                _ if !self.handshake.is_open() => {}
                Message::Label(label) if label.name.get() == self.watch.class => {
                    self.target = Some(label.class);
                }
                Message::MapChunk(chunk) if chunk.slot == MAP_SLOT => {
                    let area = self.watch.area;
                    if look(&mut self.view, &mut self.seen, &area, &chunk) {
                        self.complete = Some(self.view);
                        self.viewed_ms = now_ms;
                        event = Some(Event::Viewed);
                    }
                }
                Message::Features(block) if block.slot == POINT_SLOT => {
                    keep(&mut self.features, &block);
                }
                Message::Health(health) => self.light.report(health.state, now_ms),
                Message::Reply(reply) => {
                    if let Some(outcome) = self.requester.receive(&reply) {
                        self.planned = self.planned.saturating_add(1);
                        event = Some(Event::Answered(outcome));
                    }
                }
                _ => {}
            }
        }
        Ok(event)
    }

    fn talk(&mut self, now_ms: u64) -> Result<Option<Event>, LinkError<IO::Error>> {
        if !self.handshake.is_open() {
            if now_ms >= self.greet_at_ms {
                self.greet_at_ms = now_ms + GREETING_MS;
                self.link.queue(&self.handshake.hello().into())?;
            }
            return Ok(None);
        }
        if !self.requester.is_busy() && plan(self.planned).is_some() {
            let _ = self.requester.begin(now_ms);
        }
        match self.requester.poll(now_ms) {
            Step::Wait => Ok(None),
            Step::GiveUp(_) => {
                self.planned = 0;
                self.handshake.reset();
                Ok(Some(Event::GaveUp))
            }
            Step::Send(id) => {
                if let Some(action) = plan(self.planned) {
                    self.link.queue(&Command { id, action }.into())?;
                }
                Ok(None)
            }
        }
    }

    /// The last whole view of the watched area.
    pub fn view(&self) -> Option<&View> {
        self.complete.as_ref()
    }

    /// Whether the brake is on.
    pub fn is_braking(&self) -> bool {
        self.braking != Some(false)
    }

    /// Whether all commands have been carried out.
    pub fn is_set_up(&self) -> bool {
        plan(self.planned).is_none()
    }

    /// What came over the link.
    pub fn link(&mut self) -> &mut Link<IO> {
        &mut self.link
    }
}

/// What the node is told after the greeting, one after the other.
fn plan(done: u8) -> Option<Action<'static>> {
    Some(match done {
        0 => Action::SetQuery {
            slot: MAP_SLOT,
            area: Area::Frame,
            want: Want::Classes,
        },
        1 => Action::SetQuery {
            slot: POINT_SLOT,
            area: Area::Points(POINTS.into_iter().collect()),
            want: Want::FeaturesU8,
        },
        2 => Action::SetRate { mhz: 15_000 },
        3 => Action::Start,
        _ => return None,
    })
}

/// Counts the classes of a chunk within the watched area. True when that was the
/// last piece of a frame: pixels are noted by their position in the area, so
/// that a piece that comes twice is not counted twice.
fn look(view: &mut View, seen: &mut Coverage, area: &Rect, chunk: &MapChunk<'_>) -> bool {
    let Ok(segments) = chunk.segments() else {
        return false;
    };
    if chunk.frame != view.frame || seen.covered() == 0 {
        *view = View {
            frame: chunk.frame,
            counts: [0; 256],
        };
        *seen = Coverage::new();
    }
    let total = u32::from(area.width) * u32::from(area.height);
    let before = seen.covered();
    for segment in segments {
        let Some(row) = segment.row.checked_sub(area.y).filter(|r| *r < area.height) else {
            continue;
        };
        let from = segment.column.max(area.x);
        let end = (segment.column + segment.length).min(area.x + area.width);
        if from >= end {
            continue;
        }
        let first = u32::from(row) * u32::from(area.width) + u32::from(from - area.x);
        let length = u32::from(end - from);
        let known = seen.covered();
        // Too many gaps: the frame will not become whole, and is not used.
        if seen.add(first, first + length).is_ok() && seen.covered() == known + length {
            view.counts[usize::from(segment.class)] += length;
        }
    }
    before < total && seen.covered() == total
}

fn keep(features: &mut [[f32; CHANNELS]; POINTS.len()], block: &Features<'_>) {
    for (vector, channel, value) in block.entries().into_iter().flatten() {
        let vector = features.get_mut(vector as usize);
        if let Some(place) = vector.and_then(|vector| vector.get_mut(usize::from(channel))) {
            *place = value;
        }
    }
}
