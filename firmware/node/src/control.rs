//! Settings that commands change while the node runs.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering::SeqCst},
};

use loftup_bundle::Size;
use loftup_wire::command::{Action, Outcome, Refusal, Want};
use parking_lot::{Mutex, MutexGuard};

use crate::{
    config::Config,
    model::{Model, Words},
    objects::{ObjectQueue, seed_of},
    output::{CLASS_LABELS, Queries, Query},
};

/// Queries, frame rate, and whether the node is paused.
#[derive(Debug)]
pub struct Control {
    queries: Mutex<Arc<Queries>>,
    running: AtomicBool,
    /// Frame rate limit in mHz, 0 for none.
    rate_mhz: AtomicU32,
    /// Width in the upper half, height in the lower; 0 until the first frame.
    camera: AtomicU64,
    head: String,
    /// Whether there is a depth head.
    depth: bool,
    /// Whether the node can find words.
    finds_words: bool,
    tracks: bool,
    objects: Mutex<ObjectQueue>,
    words: Mutex<Option<Arc<Words>>>,
    /// The label set of the previous words.
    word_labels: AtomicU16,
}

/// Maximum frame rate that a command can set, in mHz.
const MAX_RATE_MHZ: u32 = 1_000_000;

impl Control {
    /// Starts with `queries`. `head` is the class head of the model.
    pub fn new(queries: Queries, head: &str) -> Self {
        Self {
            queries: Mutex::new(Arc::new(queries)),
            running: AtomicBool::new(true),
            rate_mhz: AtomicU32::new(0),
            camera: AtomicU64::new(0),
            head: head.into(),
            depth: false,
            finds_words: false,
            tracks: false,
            objects: Mutex::new(ObjectQueue::new(0)),
            words: Mutex::new(None),
            word_labels: AtomicU16::new(CLASS_LABELS),
        }
    }

    /// Starts with the queries and objects of the configuration.
    pub fn of(config: &Config) -> Self {
        let mut control = Self::new(config.queries(), &config.model.head);
        control.depth = config.model.depth.is_some();
        control.finds_words = config.words.is_some();
        if let Some(track) = &config.track {
            let mut objects = ObjectQueue::new(track.max_objects);
            for entry in &track.object {
                if let Some(seed) = seed_of(entry.region, entry.point) {
                    // The configuration has been checked; objects outside the image are reported later.
                    let _ = objects.start(entry.object, &entry.name, &seed, None);
                }
            }
            (control.tracks, control.objects) = (true, Mutex::new(objects));
        }
        control
    }

    /// The objects that are tracked.
    pub fn objects(&self) -> MutexGuard<'_, ObjectQueue> {
        self.objects.lock()
    }

    /// The words to find.
    pub fn words(&self) -> Option<Arc<Words>> {
        self.words.lock().clone()
    }

    /// Replaces the words to find. They get a new label set.
    pub fn set_words(&self, mut words: Words) {
        let mut current = self.words.lock();
        let last = self.word_labels.load(SeqCst);
        words.labels = last.checked_add(1).unwrap_or(CLASS_LABELS + 1);
        self.word_labels.store(words.labels, SeqCst);
        *current = Some(Arc::new(words));
    }

    /// The current queries.
    pub fn queries(&self) -> Arc<Queries> {
        self.queries.lock().clone()
    }

    /// Whether frames are processed; `false` after the stop command.
    pub fn is_running(&self) -> bool {
        self.running.load(SeqCst)
    }

    /// Frame rate limit set by a command, 0 for none.
    pub fn rate_hz(&self) -> f64 {
        f64::from(self.rate_mhz.load(SeqCst)) / 1000.0
    }

    /// Sets the size of the camera's images.
    pub fn set_camera(&self, size: Size) {
        self.camera
            .store((size.width as u64) << 32 | size.height as u64, SeqCst);
    }

    fn camera(&self) -> Option<Size> {
        let both = self.camera.load(SeqCst);
        (both != 0).then_some(Size {
            width: (both >> 32) as usize,
            height: (both & 0xFFFF_FFFF) as usize,
        })
    }

    /// Executes a command. Commands are idempotent. Words are read by `model`.
    pub fn execute(&self, action: &Action<'_>, model: Option<&dyn Model>) -> Outcome {
        match self.try_execute(action, model) {
            Ok(()) => Outcome::Done,
            Err(why) => Outcome::Refused(why),
        }
    }

    fn try_execute(&self, action: &Action<'_>, model: Option<&dyn Model>) -> Result<(), Refusal> {
        match action {
            Action::Ping => {}
            Action::Start => self.running.store(true, SeqCst),
            Action::Stop => self.running.store(false, SeqCst),
            Action::SetRate { mhz } if *mhz > MAX_RATE_MHZ => return Err(Refusal::Rate),
            Action::SetRate { mhz } => self.rate_mhz.store(*mhz, SeqCst),
            // The head is fixed at start, since another one has other labels.
            Action::SetHead(name) if name.get() == self.head => {}
            Action::SetHead(_) => return Err(Refusal::NoSuchHead),
            Action::SetQuery { slot, area, want } => {
                let query = Query {
                    area: area.clone(),
                    want: *want,
                };
                query.check(self.camera())?;
                let available = match want {
                    Want::Depth => self.depth,
                    Want::Words => self.finds_words,
                    Want::Objects => self.tracks,
                    _ => true,
                };
                if !available {
                    return Err(Refusal::Unsupported);
                }
                self.set(*slot, Some(query))?;
            }
            Action::ClearQuery { slot } => self.set(*slot, None)?,
            Action::StartObject { .. }
            | Action::StopObject { .. }
            | Action::RenameObject { .. }
                if !self.tracks =>
            {
                return Err(Refusal::Unsupported);
            }
            Action::StartObject { object, name, seed } => {
                self.objects()
                    .start(*object, name.get(), seed, self.camera())?;
            }
            Action::StopObject { object } => self.objects().stop(*object)?,
            Action::RenameObject { object, name } => self.objects().rename(*object, name.get())?,
            Action::SetWords(_) if !self.finds_words => return Err(Refusal::Unsupported),
            Action::SetWords(name) => {
                let model = model.ok_or(Refusal::Busy)?;
                let words = model.words(name.get()).map_err(|e| {
                    log::warn!("the words were not replaced: {e}");
                    Refusal::NoSuchHead
                })?;
                self.set_words(words);
            }
        }
        Ok(())
    }

    fn set(&self, slot: u8, query: Option<Query>) -> Result<(), Refusal> {
        let mut queries = self.queries.lock();
        let mut changed = Queries::clone(&queries);
        *changed
            .get_mut(usize::from(slot))
            .ok_or(Refusal::NoSuchSlot)? = query;
        *queries = Arc::new(changed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loftup_wire::{
        Text,
        command::{Area, Want},
        message,
    };

    #[test]
    fn commands_change_the_settings_or_are_refused() {
        let control = Control::new(Queries::default(), "camvid");
        control.set_camera(Size {
            width: 64,
            height: 48,
        });
        let execute = |action| control.execute(&action, None);
        let region = |x| Action::SetQuery {
            slot: 3,
            area: Area::Region(message::Rect {
                x,
                y: 0,
                width: 8,
                height: 8,
            }),
            want: Want::Classes,
        };
        assert_eq!(execute(region(0)), Outcome::Done);
        assert!(control.queries()[3].is_some());
        assert_eq!(execute(region(60)), Outcome::Refused(Refusal::OutOfPicture));
        assert_eq!(
            execute(Action::ClearQuery { slot: 8 }),
            Outcome::Refused(Refusal::NoSuchSlot)
        );
        assert_eq!(execute(Action::ClearQuery { slot: 3 }), Outcome::Done);
        assert!(control.queries()[3].is_none());
        assert_eq!(execute(Action::SetRate { mhz: 2500 }), Outcome::Done);
        assert_eq!(control.rate_hz(), 2.5);
        assert_eq!(
            execute(Action::SetRate { mhz: u32::MAX }),
            Outcome::Refused(Refusal::Rate)
        );
        assert_eq!(
            execute(Action::SetHead(Text::new("x").unwrap())),
            Outcome::Refused(Refusal::NoSuchHead)
        );
        assert_eq!(
            execute(Action::SetHead(Text::new("camvid").unwrap())),
            Outcome::Done
        );
        // This node has no depth head, no words and no tracker.
        for want in [Want::Depth, Want::Words, Want::Objects] {
            let area = Area::Frame;
            assert_eq!(
                execute(Action::SetQuery {
                    slot: 1,
                    area,
                    want
                }),
                Outcome::Refused(Refusal::Unsupported)
            );
        }
        for action in [
            Action::StopObject { object: 1 },
            Action::SetWords(Text::new("x").unwrap()),
        ] {
            assert_eq!(execute(action), Outcome::Refused(Refusal::Unsupported));
        }
        assert_eq!(execute(Action::Stop), Outcome::Done);
        assert!(!control.is_running());
    }
}
