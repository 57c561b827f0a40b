//! Recomputes every output without faults.

use std::sync::{Arc, mpsc};

use loftup_bundle::Size;
use loftup_runtime::{Features, FrameInputs, image::RgbImage};
use parking_lot::Mutex;

use crate::{
    config::{self, Config},
    frame::RawFrame,
    model::{FrameRequest, Model, Words},
    output::{CLASS_LABELS, FrameOutput, OutputKind},
    regions::RegionFinder,
    sink::{Context, Sink, SinkError},
    source::{Pace, Scenes},
    tracking::{Fed, ObjectTracker, TrackFrame},
};

/// Receives the frames that the node's tracker processes, once the node runs.
pub(super) type FedFrames = Arc<Mutex<Option<mpsc::Receiver<Fed>>>>;

/// A sink that recomputes every output without faults.
pub(super) struct Comparison {
    model: Arc<dyn Model>,
    words: Option<Words>,
    scenes: Scenes,
    config: Config,
    totals: Arc<Mutex<Totals>>,
    last: Option<u64>,
    raw: RawFrame,
    expected: FrameOutput,
    finder: RegionFinder,
    /// Tracks the objects through the frames that the node's tracker processed, published or not.
    objects: Option<ObjectTracker>,
    fed: FedFrames,
    /// Received from `fed`, but for a later frame.
    next: Option<Fed>,
    features: Vec<f32>,
    leak: usize,
    leaked: Vec<Vec<u8>>,
}

/// Totals of the comparison.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub compared: u64,
    pub differing: u64,
    pub misordered: u64,
    /// Maximum latency of an output, in microseconds.
    pub oldest_us: u64,
    /// Frames that the tracker processed.
    pub tracked: u64,
    /// Outputs with a visible object.
    pub with_objects: u64,
    /// Label sets of words that were seen.
    pub word_sets: u64,
    last_words: u16,
}

impl Comparison {
    /// Compares with the outputs of `model` for the scene of `config`, rendered at this size. Leaks
    /// `leak` bytes with each output.
    pub(super) fn new(
        model: Arc<dyn Model>,
        config: &Config,
        sides: [usize; 2],
        (totals, fed): (&Arc<Mutex<Totals>>, &FedFrames),
        leak: usize,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let pace = Pace::new(config.source.rate());
        let words = config.words.as_ref().and_then(|w| w.head.as_ref());
        Ok(Self {
            words: words.map(|name| model.words(name)).transpose()?,
            model,
            scenes: Scenes::new(config.source.seed, sides[0], sides[1], pace),
            config: config.clone(),
            totals: totals.clone(),
            last: None,
            raw: RawFrame::default(),
            expected: FrameOutput::default(),
            finder: RegionFinder::default(),
            objects: config.track.as_ref().map(ObjectTracker::new),
            fed: fed.clone(),
            next: None,
            features: Vec::new(),
            leak,
            leaked: Vec::new(),
        })
    }

    fn encode(
        &mut self,
        number: u64,
        size: Size,
    ) -> Result<(RgbImage, FrameInputs, Features), Box<dyn std::error::Error>> {
        self.scenes.draw(number, &mut self.raw);
        let image = RgbImage::new(self.raw.width, self.raw.height, self.raw.bytes.clone())?;
        let inputs = self.model.preprocess(&image, size)?;
        let features = self.model.features(&inputs)?;
        Ok((image, inputs, features))
    }

    fn compute(&mut self, frame: &FrameOutput) -> Result<(), Box<dyn std::error::Error>> {
        let level = self.config.levels()[frame.level];
        let (_, inputs, features) = self.encode(frame.number, level.size)?;
        let camera = config::size([self.raw.width, self.raw.height]);
        // The words are the same in every set.
        let outputs = frame.outputs().iter();
        let mut maps = outputs.filter(|o| o.kind == OutputKind::Classes);
        let set = maps.find(|o| o.labels != CLASS_LABELS).map(|o| o.labels);
        if let (Some(words), Some(set)) = (&mut self.words, set) {
            words.labels = set;
        }
        let queries = self.config.queries();
        let request = FrameRequest {
            queries: &queries,
            regions_only: level.regions_only,
            upsampler: level.upsampler,
            words: self.words.as_ref(),
            min_area_px: self.config.regions.min_area_px,
            max_regions: self.config.regions.max_regions,
            camera,
        };
        self.model.upsample(
            &inputs,
            &features,
            &request,
            &mut self.finder,
            &mut self.expected,
        )?;
        let Some(mut objects) = self.objects.take() else {
            return Ok(());
        };
        let at = TrackFrame {
            sequence: frame.sequence,
            number: frame.number,
            level: frame.level,
            camera,
            size: level.size,
            queries: &queries,
        };
        let followed = self.follow(&mut objects, &at);
        let written = followed.and_then(|()| Ok(objects.outputs(&at, &mut self.expected)?));
        self.objects = Some(objects);
        written
    }

    /// Tracks the objects up to `frame`.
    fn follow(
        &mut self,
        objects: &mut ObjectTracker,
        frame: &TrackFrame<'_>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        loop {
            let received = || self.fed.lock().as_ref()?.try_recv().ok();
            let Some(fed) = self.next.take().or_else(received) else {
                return Ok(());
            };
            if fed.sequence > frame.sequence {
                self.next = Some(fed);
                return Ok(());
            }
            let size = self.config.levels()[fed.level].size;
            let (image, _, features) = self.encode(fed.number, size)?;
            let mut values = std::mem::take(&mut self.features);
            self.model.track_features(&image, &features, &mut values)?;
            let at = TrackFrame {
                sequence: fed.sequence,
                number: fed.number,
                level: fed.level,
                size,
                ..*frame
            };
            objects.update(&values, &at)?;
            objects.execute(&fed.commands, &at, &mut |_, _| {});
            self.features = values;
            self.totals.lock().tracked += 1;
        }
    }
}

impl Sink for Comparison {
    fn name(&self) -> &str {
        "comparison"
    }

    fn push(&mut self, frame: &FrameOutput, _: &Context<'_>) -> Result<(), SinkError> {
        let computed = self.compute(frame);
        let mut totals = self.totals.lock();
        totals.misordered += u64::from(self.last.is_some_and(|last| last >= frame.sequence));
        self.last = Some(frame.sequence);
        totals.oldest_us = totals
            .oldest_us
            .max(frame.published_us.saturating_sub(frame.captured_us));
        computed.map_err(|e| SinkError::Other(format!("the comparison failed: {e}")))?;
        totals.compared += 1;
        // Equal floats have equal bits here: there is no NaN.
        totals.differing += u64::from(self.expected.outputs() != frame.outputs());
        let visible = |o: &crate::output::QueryOutput| o.objects.iter().any(|o| o.pixels > 0);
        totals.with_objects += u64::from(frame.outputs().iter().any(visible));
        if let Some(words) = self
            .words
            .as_ref()
            .filter(|w| w.labels != totals.last_words)
        {
            totals.last_words = words.labels;
            totals.word_sets += 1;
        }
        if self.leak > 0 {
            self.leaked.push(vec![1; self.leak]);
        }
        Ok(())
    }
}
