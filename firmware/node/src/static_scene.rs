//! What a model keeps from frame to frame, for a static camera: the image, so that
//! noise does not change it; the features, for some frames; the class maps, of which only the tiles
//! that changed are computed again.

use std::sync::{Mutex, MutexGuard};

use loftup_bundle::Size;
use loftup_runtime::{
    Features, Rect, TileFeatures, Update, Video, View, heads::NO_CLASS, image::Rgb8,
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
    picture: Mutex<Option<Rgb8>>,
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
    /// Gives `picture` to `then`, its pixels held.
    pub fn picture(
        &self,
        still: StaticScene,
        picture: &Rgb8,
        then: impl FnOnce(&Rgb8) -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        if still.noise_threshold == 0 {
            return then(picture);
        }
        let mut last = lock(&self.picture);
        let mut held = picture.clone();
        if let Some(last) = &*last {
            held.hold(last, still.noise_threshold);
        }
        then(last.insert(held))
    }

    /// The features of an image of size `size`, into `out`: computed where none are kept that may
    /// serve once more.
    pub fn features(
        &self,
        still: StaticScene,
        size: Size,
        out: &mut Option<Features>,
        compute: impl FnOnce() -> Result<Features, ModelError>,
    ) -> Result<(), ModelError> {
        if still.backbone_interval <= 1 {
            *out = Some(compute()?);
            return Ok(());
        }
        let mut kept = lock(&self.features);
        let fit = |s: &Served| s.size == size && s.frames < still.backbone_interval;
        let mut served = match kept.take().filter(fit) {
            Some(served) => served,
            None => Served {
                features: compute()?,
                size,
                frames: 0,
            },
        };
        served.frames += 1;
        *out = Some(served.features.clone());
        *kept = Some(served);
        Ok(())
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
    video: Video,
    classes: Vec<u8>,
}

impl Maps {
    /// Brings the map of a slot up to date and copies it to `out`, of as many pixels as `rect`.
    /// `put` puts a tile into it, and says whether it is good; after one that is not, the next
    /// frame is computed whole.
    pub fn update(
        &mut self,
        slot: u8,
        view: &View<'_>,
        rect: Rect,
        put: &mut (dyn FnMut(&TileFeatures<'_>, &mut [u8]) -> bool + Send),
        out: &mut [u8],
    ) -> Result<Update, ModelError> {
        let Map { video, classes } = &mut self.0[usize::from(slot) % SLOTS];
        if classes.len() != rect.area() {
            video.forget();
            classes.clear();
            classes.resize(rect.area(), NO_CLASS);
        }
        let mut good = true;
        let update = video.region(view, rect, &mut |tile| {
            good &= put(tile, classes);
            Ok(())
        })?;
        if !good {
            video.forget();
        }
        out.copy_from_slice(classes);
        Ok(update)
    }
}
