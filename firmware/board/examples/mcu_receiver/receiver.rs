//! The controller: watches a rectangle of the image and brakes if it contains
//! too many obstacle pixels, or if there is no recent result.

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
/// Points whose features are queried.
pub const POINTS: [Point; 3] = [
    Point { x: 8, y: 8 },
    Point { x: 40, y: 8 },
    Point { x: 24, y: 24 },
];
/// Maximum number of channels kept of a feature vector.
pub const CHANNELS: usize = 4;

const GREETING_MS: u64 = 200;
const COMMAND_MS: u32 = 60;
const COMMAND_ATTEMPTS: u8 = 30;

/// What to watch for.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    /// The watched rectangle of the class map.
    pub area: Rect,
    /// Name of the class to brake for.
    pub class: &'static str,
    /// Number of its pixels from which the brake is applied.
    pub limit: u32,
    /// Time without a complete view of the area after which the brake is
    /// applied as well, in milliseconds.
    pub patience_ms: u32,
}

/// The content of the watched area in one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Number of the camera frame.
    pub frame: u32,
    /// Number of pixels of each class.
    pub counts: [u32; 256],
}

/// The result of a step, for the caller's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A complete view of the area.
    Viewed,
    /// The node has executed or rejected a command.
    Answered(Outcome),
    /// The node does not reply; the setup starts over.
    GaveUp,
}

/// The controller. It needs a few kilobytes of memory: it never holds a
/// complete map.
pub struct Receiver<IO, P, L> {
    link: Link<IO>,
    brake: P,
    light: StatusLight<L>,
    watch: Watch,
    handshake: Handshake<'static>,
    greet_at_ms: u64,
    requester: Requester,
    /// Number of setup commands completed.
    planned: u8,
    target: Option<u8>,
    view: View,
    seen: Coverage,
    complete: Option<View>,
    viewed_ms: u64,
    /// Features of [`POINTS`], as far as they have been received.
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
    /// A controller that brakes until the first complete view.
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

    /// One iteration of the main loop; never blocks.
    ///
    /// # Errors
    /// [`LinkError::Io`] and [`LinkError::Closed`]. Invalid frames are not
    /// errors; see [`Link::counters`].
    pub fn step(&mut self, now_ms: u64) -> Result<Option<Event>, LinkError<IO::Error>> {
        let mut event = self.listen(now_ms)?;
        if self.link.poll_flush()? {
            event = self.talk(now_ms)?.or(event);
        }
        // A broken lamp must not disable the brake.
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
        // A bounded number of messages per iteration.
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
                        // If the link is busy, the node sends its hello again.
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

    /// The last complete view of the watched area.
    pub fn view(&self) -> Option<&View> {
        self.complete.as_ref()
    }

    /// Whether the brake is on.
    pub fn is_braking(&self) -> bool {
        self.braking != Some(false)
    }

    /// Whether all setup commands have been executed.
    pub fn is_set_up(&self) -> bool {
        plan(self.planned).is_none()
    }

    /// The link.
    pub fn link(&mut self) -> &mut Link<IO> {
        &mut self.link
    }
}

/// The setup commands, sent one by one after the handshake.
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

/// Counts the classes of a chunk within the watched area. Returns whether this
/// completes the frame. Pixels are tracked by their position in the area, so
/// that a duplicate chunk is not counted twice.
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
        // With too many gaps the frame cannot be completed and is not used.
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
