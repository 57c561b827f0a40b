//! Tracked objects: the runtime's tracker, fed with the features of every processed frame.

use std::sync::{OnceLock, mpsc};

use loftup_bundle::Size;
use loftup_runtime::{
    Features, Point, Rect,
    image::RgbImage,
    track::{Seed, TrackError, TrackOptions, TrackedMask, Tracker},
};
use loftup_wire::{command::Want, mask};
use parking_lot::Mutex;

use crate::{
    config,
    control::Control,
    error::ModelError,
    model::Model,
    objects::{ObjectCommand, ObjectSeed},
    output::{FrameOutput, Name, OutputKind, Queries, TrackedObject, camera_rect, full_frame},
};

/// A frame for the tracker.
#[derive(Debug, Clone, Copy)]
pub struct TrackFrame<'a> {
    /// Sequence number of the node.
    pub sequence: u64,
    /// Frame number of the source.
    pub number: u64,
    /// Degradation step.
    pub level: usize,
    /// Size of the camera image.
    pub camera: Size,
    /// Size of the masks.
    pub size: Size,
    /// The queries.
    pub queries: &'a Queries,
}

/// A frame that the tracker processed, for tests.
#[derive(Debug, Clone)]
pub struct Fed {
    /// Sequence number of the node.
    pub sequence: u64,
    /// Frame number of the source.
    pub number: u64,
    /// Degradation step.
    pub level: usize,
    /// The commands that were executed in it.
    pub commands: Vec<ObjectCommand>,
}

/// The tracker of a node. It outlives restarts of the model: objects continue from their last position.
#[derive(Debug)]
pub struct Tracking {
    objects: Mutex<ObjectTracker>,
    /// Buffer for the features of a frame. Empty while an engine runs, which may hang.
    features: Mutex<Vec<f32>>,
    recorder: OnceLock<mpsc::Sender<Fed>>,
}

impl Tracking {
    /// Creates a tracker with these settings.
    pub fn new(settings: &config::Track) -> Self {
        Self {
            objects: Mutex::new(ObjectTracker::new(settings)),
            features: Mutex::default(),
            recorder: OnceLock::new(),
        }
    }

    /// Starts reporting every frame that the tracker processes. `None` if they are already being reported.
    pub fn record(&self) -> Option<mpsc::Receiver<Fed>> {
        let (sender, receiver) = mpsc::channel();
        self.recorder.set(sender).ok().map(|()| receiver)
    }

    /// Tracks the objects to a frame, executes the waiting commands in it, and adds the outputs of the
    /// queries. `report` is called for objects that could not be started.
    ///
    /// # Errors
    /// Errors of the model. The tracker then ignores the frame.
    pub fn run(
        &self,
        model: &dyn Model,
        (control, report): (&Control, &dyn Fn(String)),
        (image, features): (&RgbImage, &Features),
        frame: &TrackFrame<'_>,
        out: &mut FrameOutput,
    ) -> Result<(), ModelError> {
        if control.objects().needs_frame() {
            // No lock is held here: if the engine hangs, this thread is abandoned.
            let mut values = std::mem::take(&mut *self.features.lock());
            let result = model.track_features(image, features, &mut values);
            let result = result.and_then(|()| self.update(&values, control, report, frame));
            *self.features.lock() = values;
            result?;
        }
        self.objects.lock().outputs(frame, out)
    }

    fn update(
        &self,
        features: &[f32],
        control: &Control,
        report: &dyn Fn(String),
        frame: &TrackFrame<'_>,
    ) -> Result<(), ModelError> {
        let mut objects = self.objects.lock();
        if !objects.update(features, frame)? {
            return Ok(());
        }
        let mut commands = std::mem::take(&mut objects.commands);
        control.objects().take(&mut commands);
        objects.execute(&commands, frame, &mut |object, e| {
            control.objects().forget(object);
            report(format!("object {object} was not started: {e}"));
        });
        if let Some(recorder) = self.recorder.get() {
            // The receiver is gone at the end of a test.
            let _ = recorder.send(Fed {
                sequence: frame.sequence,
                number: frame.number,
                level: frame.level,
                commands: commands.clone(),
            });
        }
        objects.commands = commands;
        Ok(())
    }
}

/// The objects, their names and their positions.
#[derive(Debug)]
pub struct ObjectTracker {
    grid: Size,
    options: TrackOptions,
    /// Created with the first features, since it needs their number of channels.
    tracker: Option<Tracker>,
    /// By number.
    names: Vec<Name>,
    mask: TrackedMask,
    /// Pixels of the mask of a command.
    seed: Vec<u8>,
    commands: Vec<ObjectCommand>,
    /// Sequence number of the last frame.
    last: Option<u64>,
}

impl ObjectTracker {
    /// Creates a tracker with these settings.
    pub fn new(settings: &config::Track) -> Self {
        Self {
            grid: config::size(settings.grid),
            options: settings.options(),
            tracker: None,
            names: vec![Name::new(); 1 + usize::from(settings.max_objects)],
            mask: TrackedMask::default(),
            seed: Vec::new(),
            commands: Vec::new(),
            last: None,
        }
    }

    /// Tracks the objects to a frame with these features. If the frame is not newer than the last one,
    /// because an abandoned thread returned, nothing changes and the result is `false`.
    ///
    /// # Errors
    /// The features are not finite, or their number has changed.
    pub fn update(&mut self, features: &[f32], frame: &TrackFrame<'_>) -> Result<bool, ModelError> {
        if self.last.is_some_and(|last| frame.sequence <= last) {
            return Ok(false);
        }
        let tracker = match &mut self.tracker {
            Some(tracker) => tracker,
            None => {
                let grid = (self.grid.width, self.grid.height);
                let dim = features.len() / self.grid.area().max(1);
                self.tracker.insert(Tracker::new(grid, dim, self.options)?)
            }
        };
        tracker.update(features)?;
        self.last = Some(frame.sequence);
        Ok(true)
    }

    /// Executes commands in the current frame. `failed` is called for objects that could not be started.
    pub fn execute(
        &mut self,
        commands: &[ObjectCommand],
        frame: &TrackFrame<'_>,
        failed: &mut dyn FnMut(u8, &TrackError),
    ) {
        let Some(tracker) = &mut self.tracker else {
            return;
        };
        for command in commands {
            match command {
                ObjectCommand::Stop { object } => _ = tracker.remove(*object),
                ObjectCommand::Rename { object, name } => {
                    if let Some(place) = self.names.get_mut(usize::from(*object)) {
                        place.clone_from(name);
                    }
                }
                ObjectCommand::Start { object, name, seed } => {
                    let mut size = frame.camera;
                    let seed = match seed {
                        ObjectSeed::Box(r) => Seed::Box(Rect {
                            x: r.x.into(),
                            y: r.y.into(),
                            width: r.width.into(),
                            height: r.height.into(),
                        }),
                        ObjectSeed::Point(p) => Seed::Click(Point {
                            x: p.x.into(),
                            y: p.y.into(),
                        }),
                        ObjectSeed::Mask { size: of, runs } => {
                            size = *of;
                            draw(runs, size, &mut self.seed);
                            Seed::Mask {
                                values: &self.seed,
                                value: 1,
                            }
                        }
                    };
                    if let Err(e) = tracker.start(&[(*object, seed)], size) {
                        tracker.remove(*object);
                        failed(*object, &e);
                    } else if let Some(place) = self.names.get_mut(usize::from(*object)) {
                        place.clone_from(name);
                    }
                }
            }
        }
    }

    /// Adds the output of every query for objects.
    ///
    /// # Errors
    /// Errors of the tracker.
    pub fn outputs(
        &mut self,
        frame: &TrackFrame<'_>,
        out: &mut FrameOutput,
    ) -> Result<(), ModelError> {
        let mut written = false;
        for (slot, query) in (0u8..).zip(frame.queries) {
            if !query.as_ref().is_some_and(|q| q.want == Want::Objects) {
                continue;
            }
            if !written {
                written = true;
                self.write_mask(frame)?;
            }
            let output = out.add();
            (output.slot, output.kind) = (slot, OutputKind::Objects);
            output.source = full_frame(frame.camera);
            (output.width, output.height) = (frame.size.width, frame.size.height);
            output.classes.extend_from_slice(&self.mask.labels);
            let names = &self.names;
            output
                .objects
                .extend(self.mask.objects.iter().map(|o| TrackedObject {
                    object: o.label,
                    name: names.get(usize::from(o.label)).cloned().unwrap_or_default(),
                    bounds: o.bounds.map_or_else(Default::default, |bounds| {
                        camera_rect(bounds, frame.size, frame.camera)
                    }),
                    pixels: u32::try_from(o.area).unwrap_or(u32::MAX),
                    // The cast saturates.
                    confidence: (255.0 * o.confidence).round() as u8,
                }));
        }
        Ok(())
    }

    /// Writes the mask of the current frame; an empty one if there is no object.
    fn write_mask(&mut self, frame: &TrackFrame<'_>) -> Result<(), ModelError> {
        match &mut self.tracker {
            Some(tracker) if self.last == Some(frame.sequence) => {
                tracker.mask(frame.size, &mut self.mask)?;
            }
            _ => {
                self.mask.objects.clear();
                self.mask.labels.clear();
                self.mask.labels.resize(frame.size.area(), 0);
            }
        }
        Ok(())
    }
}

/// Draws the mask of a command, which has been checked: 1 for the object.
fn draw(runs: &[u8], size: Size, into: &mut Vec<u8>) {
    into.clear();
    into.resize(size.area(), 0);
    let side = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
    let drawn = mask::runs(
        runs,
        side(size.width),
        side(size.height),
        |first, length| {
            if let Some(run) = into.get_mut(first as usize..(first + length) as usize) {
                run.fill(1);
            }
        },
    );
    debug_assert!(drawn.is_ok());
}
