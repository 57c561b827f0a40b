//! A frame on its way.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use loftup_bundle::Size;
use loftup_runtime::{Features, FrameInputs, image::RgbImage};

use crate::{
    answer::{Answer, Queries},
    regions::Finder,
    sync::lock,
};

/// A frame on its way through the stages, with everything that is known of it.
#[derive(Debug, Default)]
pub struct Job {
    pub(super) sequence: u64,
    pub(super) number: u64,
    pub(super) captured_us: u64,
    pub(super) level: usize,
    pub(super) picture: Option<RgbImage>,
    pub(super) queries: Arc<Queries>,
    pub(super) inputs: Option<FrameInputs>,
    pub(super) features: Option<Features>,
    pub(super) finder: Finder,
    pub(super) answer: Answer,
}

impl Job {
    pub(super) fn camera(&self) -> Size {
        let picture = self.picture.as_ref();
        Size {
            width: picture.map_or(0, RgbImage::width),
            height: picture.map_or(0, RgbImage::height),
        }
    }
}

/// Jobs that wait to be used again, in turn: so the memory of all has soon grown to what it needs.
#[derive(Debug)]
pub struct Pool(Mutex<VecDeque<Box<Job>>>);

impl Pool {
    /// With so many, which is enough unless stages hang.
    pub fn new(count: usize) -> Self {
        let mut jobs = VecDeque::with_capacity(2 * count);
        jobs.resize_with(count, Box::default);
        Self(Mutex::new(jobs))
    }

    pub fn take(&self) -> Box<Job> {
        lock(&self.0).pop_front().unwrap_or_default()
    }

    /// Takes a job back; one too many, after a stage that hung came back, is let go.
    pub fn put(&self, job: Box<Job>) {
        let mut jobs = lock(&self.0);
        if jobs.len() < jobs.capacity() {
            jobs.push_back(job);
        }
    }
}
