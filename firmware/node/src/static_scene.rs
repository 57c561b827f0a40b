//! The state that a model keeps between frames of a static camera: the denoised image, the features,
//! which are reused for some frames, and the class maps, of which only changed tiles are recomputed.

use loftup_bundle::Size;
use loftup_runtime::{
    EncodedFrame, Features, IncrementalUpsampler, Rect, TileFeatures, UpdateStats, heads::NO_CLASS,
    image::RgbImage,
};
use parking_lot::{Mutex, MutexGuard};

use crate::{error::ModelError, output::SLOTS};

/// Settings for a static camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaticScene {
    /// The backbone runs on every n-th frame. Frames in between reuse its features.
    pub backbone_interval: u32,
    /// A pixel keeps its previous color until it changes by more than this many levels.
    pub noise_threshold: u8,
}

impl Default for StaticScene {
    /// Disabled.
    fn default() -> Self {
        Self {
            backbone_interval: 1,
            noise_threshold: 0,
        }
    }
}

/// State kept between frames.
#[derive(Default)]
pub(crate) struct FrameCache {
    image: Mutex<Option<RgbImage>>,
    features: Mutex<Option<CachedFeatures>>,
    maps: Mutex<MapCache>,
}

/// Features, the size of their image, and the number of frames that have used them.
struct CachedFeatures {
    features: Features,
    size: Size,
    frames: u32,
}

impl FrameCache {
    /// Calls `then` with the denoised `image`.
    pub fn denoised<T>(
        &self,
        settings: StaticScene,
        image: &RgbImage,
        then: impl FnOnce(&RgbImage) -> Result<T, ModelError>,
    ) -> Result<T, ModelError> {
        if settings.noise_threshold == 0 {
            return then(image);
        }
        let mut last = self.image.lock();
        let mut denoised = image.clone();
        if let Some(last) = &*last {
            denoised.suppress_noise(last, settings.noise_threshold);
        }
        then(last.insert(denoised))
    }

    /// Returns the features of an image of size `size`. Calls `compute` unless the cached ones may be
    /// reused.
    pub fn features(
        &self,
        settings: StaticScene,
        size: Size,
        compute: impl FnOnce() -> Result<Features, ModelError>,
    ) -> Result<Features, ModelError> {
        if settings.backbone_interval <= 1 {
            return compute();
        }
        let mut cache = self.features.lock();
        let usable = |c: &CachedFeatures| c.size == size && c.frames < settings.backbone_interval;
        let mut cached = match cache.take().filter(usable) {
            Some(cached) => cached,
            None => CachedFeatures {
                features: compute()?,
                size,
                frames: 0,
            },
        };
        cached.frames += 1;
        let features = cached.features.clone();
        *cache = Some(cached);
        Ok(features)
    }

    /// The class maps, if features are reused. Otherwise every tile changes.
    pub fn maps(&self, settings: StaticScene) -> Option<MutexGuard<'_, MapCache>> {
        (settings.backbone_interval > 1).then(|| self.maps.lock())
    }
}

/// The last class map of each slot.
#[derive(Default)]
pub(crate) struct MapCache([CachedMap; SLOTS]);

#[derive(Default)]
struct CachedMap {
    video: IncrementalUpsampler,
    classes: Vec<u8>,
}

impl MapCache {
    /// Updates the map of a slot and copies it to `out`, which has as many pixels as `rect`.
    /// `write` writes a tile to the map and returns whether it is valid. After an invalid tile, the
    /// next frame is computed completely.
    pub fn update(
        &mut self,
        slot: u8,
        view: &EncodedFrame<'_>,
        rect: Rect,
        write: &mut (dyn FnMut(&TileFeatures<'_>, &mut [u8]) -> bool + Send),
        out: &mut [u8],
    ) -> Result<UpdateStats, ModelError> {
        let CachedMap { video, classes } = &mut self.0[usize::from(slot) % SLOTS];
        if classes.len() != rect.area() {
            video.reset();
            classes.clear();
            classes.resize(rect.area(), NO_CLASS);
        }
        let mut valid = true;
        let update = video.region(view, rect, &mut |tile| {
            valid &= write(tile, classes);
            Ok(())
        })?;
        if !valid {
            video.reset();
        }
        out.copy_from_slice(classes);
        Ok(update)
    }
}
