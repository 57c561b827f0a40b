//! Recomputes every output without faults.

use std::sync::Arc;

use loftup_runtime::image::RgbImage;
use parking_lot::Mutex;

use crate::{
    config::{self, Config},
    frame::RawFrame,
    model::{FrameRequest, Model},
    output::FrameOutput,
    regions::RegionFinder,
    sink::{Context, Sink, SinkError},
    source::{Pace, Scenes},
};

/// A sink that recomputes every output without faults.
pub(super) struct Comparison {
    model: Arc<dyn Model>,
    scenes: Scenes,
    config: Config,
    totals: Arc<Mutex<Totals>>,
    last: Option<u64>,
    raw: RawFrame,
    expected: FrameOutput,
    finder: RegionFinder,
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
}

impl Comparison {
    /// Compares with the outputs of `model` for the scene of `config`, rendered at this size. Leaks
    /// `leak` bytes with each output.
    pub(super) fn new(
        model: Arc<dyn Model>,
        config: &Config,
        sides: [usize; 2],
        totals: Arc<Mutex<Totals>>,
        leak: usize,
    ) -> Self {
        let pace = Pace::new(config.source.rate_hz);
        Self {
            model,
            scenes: Scenes::new(config.source.seed, sides[0], sides[1], pace),
            config: config.clone(),
            totals,
            last: None,
            raw: RawFrame::default(),
            expected: FrameOutput::default(),
            finder: RegionFinder::default(),
            leak,
            leaked: Vec::new(),
        }
    }

    fn compute(&mut self, frame: &FrameOutput) -> Result<(), Box<dyn std::error::Error>> {
        self.scenes.draw(frame.number, &mut self.raw);
        let image = RgbImage::new(self.raw.width, self.raw.height, self.raw.bytes.clone())?;
        let level = self.config.levels()[frame.level];
        let inputs = self.model.preprocess(&image, level.size)?;
        let features = self.model.features(&inputs)?;
        let request = FrameRequest {
            queries: &self.config.queries(),
            regions_only: level.regions_only,
            min_area_px: self.config.regions.min_area_px,
            max_regions: self.config.regions.max_regions,
            camera: config::size([self.raw.width, self.raw.height]),
        };
        self.model.upsample(
            &inputs,
            &features,
            &request,
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
        if self.leak > 0 {
            self.leaked.push(vec![1; self.leak]);
        }
        Ok(())
    }
}
