//! A generated scene with a moving camera.

use loftup_scenes::Scene;

use super::{Clock, Pace, Poll, Source, SourceError};
use crate::frame::RawFrame;

/// Images of a generated scene.
#[derive(Debug)]
pub struct Scenes {
    scene: Scene,
    width: usize,
    height: usize,
    pace: Pace,
}

impl Scenes {
    /// Creates the scene of `seed`.
    pub fn new(seed: u64, width: usize, height: usize, pace: Pace) -> Self {
        Self {
            scene: Scene::new(seed),
            width,
            height,
            pace,
        }
    }

    /// Renders frame `number`. The result is deterministic.
    pub fn draw(&self, number: u64, into: &mut RawFrame) {
        let frame = self
            .scene
            .frame(self.pace.seconds(number), self.width, self.height);
        (into.width, into.height) = (frame.width, frame.height);
        into.bytes.clear();
        into.bytes.extend_from_slice(&frame.rgb);
    }
}

impl Source for Scenes {
    fn next(&mut self, clock: &Clock, into: &mut RawFrame) -> Result<Poll, SourceError> {
        let Some((number, stamp_us)) = self.pace.wait(clock) else {
            return Ok(Poll::Nothing);
        };
        (into.number, into.stamp_us) = (number, stamp_us);
        self.draw(number, into);
        Ok(Poll::Frame)
    }
}
