//! What a model keeps from frame to frame, for a static camera: the image, so that
//! noise does not change it; the features, for some frames; the class maps, of which only the tiles
//! that changed are computed again.

use std::sync::{Mutex, MutexGuard};

use loftup_bundle::Size;
use loftup_runtime::{
    EncodedFrame, Features, IncrementalUpsampler, Rect, TileFeatures, UpdateStats, heads::NO_CLASS,
    image::RgbImage,
};

use crate::{answer::SLOTS, error::ModelError, sync::lock};

/// Settings for a static camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaticScene {
    /// The backbone runs on every n-th frame, and its features serve until the next time.
    pub backbone_interval: u32,
    /// A pixel keeps its old color until it differs from it by more than so many levels.
    pub noise_threshold: u8,
}

impl Default for StaticScene {
    /// Not at all.
    fn default() -> Self {
        Self {
            backbone_interval: 1,
            noise_threshold: 0,
        }
    }
}

/// What is kept.
#[derive(Default)]
pub(crate) struct FrameCache {
    image: Mutex<Option<RgbImage>>,
    features: Mutex<Option<Served>>,
    maps: Mutex<Maps>,
}

/// Features, the size of the image they are of, and the frames they have served.
struct Served {
    features: Features,
    size: Size,
    frames: u32,
}

impl FrameCache {
    /// Gives `image` to `then`, with the noise of pixels that did not change suppressed.
    pub fn image<T>(
        &self,
        settings: StaticScene,
        image: &RgbImage,
        then: impl FnOnce(&RgbImage) -> Result<T, ModelError>,
    ) -> Result<T, ModelError> {
        if settings.noise_threshold == 0 {
            return then(image);
        }
        let mut last = lock(&self.image);
        let mut denoised = image.clone();
        if let Some(last) = &*last {
            denoised.suppress_noise(last, settings.noise_threshold);
        }
        then(last.insert(denoised))
    }

    /// The features of an image of `size`: those of an earlier frame while these may be reused,
    /// otherwise computed.
    pub fn features(
        &self,
        settings: StaticScene,
        size: Size,
        compute: impl FnOnce() -> Result<Features, ModelError>,
    ) -> Result<Features, ModelError> {
        if settings.backbone_interval <= 1 {
            return compute();
        }
        let mut cached = lock(&self.features);
        let fits = |s: &Served| s.size == size && s.frames < settings.backbone_interval;
        let mut served = match cached.take().filter(fits) {
            Some(served) => served,
            None => Served {
                features: compute()?,
                size,
                frames: 0,
            },
        };
        served.frames += 1;
        let features = served.features.clone();
        *cached = Some(served);
        Ok(features)
    }

    /// The class maps, where features are kept: otherwise every tile changes.
    pub fn maps(&self, still: StaticScene) -> Option<MutexGuard<'_, Maps>> {
        (still.backbone_interval > 1).then(|| lock(&self.maps))
    }
}

/// The class map of each slot, as it was last.
#[derive(Default)]
pub(crate) struct Maps([Map; SLOTS]);

#[derive(Default)]
struct Map {
    video: IncrementalUpsampler,
    classes: Vec<u8>,
}

impl Maps {
    /// Brings the map of a slot up to date and copies it to `out`, of as many pixels as `rect`.
    /// `put` puts a tile into it, and says whether it is good; after one that is not, the next
    /// frame is computed whole.
    pub fn update(
        &mut self,
        slot: u8,
        view: &EncodedFrame<'_>,
        rect: Rect,
        put: &mut (dyn FnMut(&TileFeatures<'_>, &mut [u8]) -> bool + Send),
        out: &mut [u8],
    ) -> Result<UpdateStats, ModelError> {
        let Map { video, classes } = &mut self.0[usize::from(slot) % SLOTS];
        if classes.len() != rect.area() {
            video.reset();
            classes.clear();
            classes.resize(rect.area(), NO_CLASS);
        }
        let mut good = true;
        let update = video.region(view, rect, &mut |tile| {
            good &= put(tile, classes);
            Ok(())
        })?;
        if !good {
            video.reset();
        }
        out.copy_from_slice(classes);
        Ok(update)
    }
}
