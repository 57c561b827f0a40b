//! A frame in the pipeline, and the pool of reusable frames.

use std::{collections::VecDeque, sync::Arc};

use loftup_bundle::Size;
use loftup_runtime::{Features, FrameInputs, image::RgbImage};
use parking_lot::Mutex;

use crate::{
    frame::Header,
    output::{FrameOutput, Queries},
    regions::RegionFinder,
};

/// A frame in the pipeline, with the intermediate results of each stage.
#[derive(Debug, Default)]
pub struct Job {
    pub(super) sequence: u64,
    pub(super) number: u64,
    pub(super) captured_us: u64,
    pub(super) header: Option<Header>,
    pub(super) level: usize,
    pub(super) image: Option<RgbImage>,
    pub(super) queries: Arc<Queries>,
    /// Whether the last stage computes everything from the image.
    pub(super) whole: bool,
    pub(super) inputs: Option<FrameInputs>,
    pub(super) features: Option<Features>,
    pub(super) finder: RegionFinder,
    pub(super) output: FrameOutput,
}

impl Job {
    /// Size of the camera image.
    pub(super) fn camera(&self) -> Size {
        let image = self.image.as_ref();
        Size {
            width: image.map_or(0, RgbImage::width),
            height: image.map_or(0, RgbImage::height),
        }
    }
}

/// Idle jobs. They are reused in turn, so that all buffers reach their final size early.
#[derive(Debug)]
pub struct JobPool(Mutex<VecDeque<Box<Job>>>);

impl JobPool {
    /// Creates a pool of `count` jobs, which is enough unless stages hang.
    pub fn new(count: usize) -> Self {
        let mut jobs = VecDeque::with_capacity(2 * count);
        jobs.resize_with(count, Box::default);
        Self(Mutex::new(jobs))
    }

    pub fn acquire(&self) -> Box<Job> {
        self.0.lock().pop_front().unwrap_or_default()
    }

    /// Returns a job to the pool. A surplus job, from a stage that hung and returned, is freed.
    pub fn release(&self, job: Box<Job>) {
        let mut jobs = self.0.lock();
        if jobs.len() < jobs.capacity() {
            jobs.push_back(job);
        }
    }
}
