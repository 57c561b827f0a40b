//! Every output once more, without faults.

use std::sync::{Arc, Mutex, PoisonError};

use loftup_runtime::image::RgbImage;

use crate::{
    answer::Answer,
    config::{self, Config},
    frame::RawFrame,
    model::{Model, Question},
    regions::Finder,
    sink::{Context, Sink, SinkError},
    source::{Pace, Scenes},
};

/// Computes every output again, without faults.
pub(super) struct Comparison {
    model: Arc<dyn Model>,
    scenes: Scenes,
    config: Config,
    tally: Arc<Mutex<Tally>>,
    last: Option<u64>,
    raw: RawFrame,
    expected: Answer,
    finder: Finder,
    leak: usize,
    leaked: Vec<Vec<u8>>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub compared: u64,
    pub differing: u64,
    pub misordered: u64,
    /// The greatest age of an output when it was published, microseconds.
    pub oldest_us: u64,
}

impl Comparison {
    /// Compares with what `model` makes of the scene of `config`, drawn with these sides. `leak`
    /// bytes are kept for ever with each output.
    pub(super) fn new(
        model: Arc<dyn Model>,
        config: &Config,
        sides: [usize; 2],
        tally: Arc<Mutex<Tally>>,
        leak: usize,
    ) -> Self {
        let pace = Pace::new(config.source.rate_hz);
        Self {
            model,
            scenes: Scenes::new(config.source.seed, sides[0], sides[1], pace),
            config: config.clone(),
            tally,
            last: None,
            raw: RawFrame::default(),
            expected: Answer::default(),
            finder: Finder::default(),
            leak,
            leaked: Vec::new(),
        }
    }

    fn compute(&mut self, answer: &Answer) -> Result<(), Box<dyn std::error::Error>> {
        self.scenes.draw(answer.number, &mut self.raw);
        let picture = RgbImage::new(self.raw.width, self.raw.height, self.raw.bytes.clone())?;
        let level = self.config.levels()[answer.level];
        let inputs = self.model.preprocess(&picture, level.size)?;
        let features = self.model.features(&inputs)?;
        let question = Question {
            queries: &self.config.queries(),
            regions_only: level.regions_only,
            min_area_px: self.config.regions.min_area_px,
            max_regions: self.config.regions.max_regions,
            camera: config::size([self.raw.width, self.raw.height]),
        };
        self.model.upsample(
            &inputs,
            &features,
            &question,
            &mut self.finder,
            &mut self.expected,
        )?;
        Ok(())
    }
}

impl Sink for Comparison {
    fn name(&self) -> &str {
        "comparison"
    }

    fn answer(&mut self, answer: &Answer, _: &Context<'_>) -> Result<(), SinkError> {
        let computed = self.compute(answer);
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.misordered += u64::from(self.last.is_some_and(|last| last >= answer.sequence));
        self.last = Some(answer.sequence);
        tally.oldest_us = tally
            .oldest_us
            .max(answer.published_us.saturating_sub(answer.captured_us));
        computed.map_err(|e| SinkError::Other(format!("the comparison failed: {e}")))?;
        tally.compared += 1;
        // Bit by bit: features are compared as they are, and none is NaN.
        tally.differing += u64::from(self.expected.parts() != answer.parts());
        if self.leak > 0 {
            self.leaked.push(vec![1; self.leak]);
        }
        Ok(())
    }
}
