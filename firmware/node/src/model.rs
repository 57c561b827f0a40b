//! The bundle, as the stages use it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use loftup_bundle::{HeadKind, Size};
use loftup_runtime::{
    ColorRange, EncodedFrame, Features, FrameInputs, Perceptor, Rect, TileFeatures,
    heads::{self, Head},
    image::RgbImage,
};
use loftup_wire::{
    command::{Area, Want},
    message,
};

pub use crate::error::ModelError;
use crate::{
    answer::{Answer, Kind, Part, Precision, Queries, Query, scaled, scaled_point},
    regions::{Finder, Placement},
    static_scene::{FrameCache, Maps, StaticScene},
};

/// What is asked of one frame.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// The queries.
    pub queries: &'a Queries,
    /// Whether queries for class maps of whole frames are passed over.
    pub regions_only: bool,
    /// Smallest region worth telling, in pixels of the output.
    pub min_area_px: u32,
    /// Most regions told.
    pub max_regions: usize,
    /// Size of the camera's image.
    pub camera: Size,
}

/// What the stages need of a model. Implemented by [`BundleModel`], and by tests.
pub trait Model: Send + Sync {
    /// Preprocesses `image` for an output of `size`.
    ///
    /// # Errors
    /// As the runtime's.
    fn preprocess(&self, image: &RgbImage, size: Size) -> Result<FrameInputs, ModelError>;

    /// Runs the backbone.
    ///
    /// # Errors
    /// As the runtime's.
    fn features(&self, inputs: &FrameInputs) -> Result<Features, ModelError>;

    /// Answers the queries. Gives the time that the head took of it, in microseconds.
    ///
    /// # Errors
    /// As the runtime's, and [`ModelError::NotFinite`].
    fn upsample(
        &self,
        inputs: &FrameInputs,
        features: &Features,
        question: &Question<'_>,
        scratch: &mut Finder,
        out: &mut Answer,
    ) -> Result<u64, ModelError>;

    /// Why another engine stands in for the preferred one, where it does.
    fn fallback(&self) -> Option<String> {
        None
    }

    /// Names of the classes.
    fn labels(&self) -> &[String];
}

/// Makes a model: at the start, and again when the last one hangs.
pub type ModelFactory = Arc<dyn Fn() -> Result<Arc<dyn Model>, ModelError> + Send + Sync>;

/// A bundle with its heads.
pub struct BundleModel {
    perceptor: Perceptor,
    classes: Head,
    descriptors: Option<Head>,
    names: Vec<String>,
    range: ColorRange,
    static_scene: StaticScene,
    frame_cache: FrameCache,
}

impl BundleModel {
    /// A bundle in an engine. Class maps come from the head `classes`; features at points are
    /// what `descriptors` makes of them, or those of the upsampler where there is none. Everything
    /// is compiled for outputs of the given sizes.
    ///
    /// # Errors
    /// Where the bundle lacks a part, a head is of another kind, or nothing can be compiled.
    pub fn new(
        perceptor: Perceptor,
        classes: &str,
        descriptors: Option<&str>,
        range: ColorRange,
        sizes: &[Size],
    ) -> Result<Self, ModelError> {
        let head = perceptor.head(classes)?;
        let HeadKind::Classes { names } = head.kind() else {
            return Err(ModelError::no_classes(classes));
        };
        let names = names.clone();
        let descriptors = descriptors.map(|name| perceptor.head(name)).transpose()?;
        for size in sizes {
            perceptor.compile(*size, (0, 0))?;
        }
        Ok(Self {
            perceptor,
            classes: head,
            descriptors,
            names,
            range,
            static_scene: StaticScene::default(),
            frame_cache: FrameCache::default(),
        })
    }

    /// Uses what stays the same from frame to frame.
    #[must_use]
    pub fn with_static_scene(mut self, static_scene: StaticScene) -> Self {
        self.static_scene = static_scene;
        self
    }

    /// Features at the points that are asked for.
    fn features(
        &self,
        view: &EncodedFrame<'_>,
        question: &Question<'_>,
        out: &mut Answer,
    ) -> Result<(), ModelError> {
        for (slot, query, precision) in feature_queries(question.queries) {
            let Area::Points(points) = &query.area else {
                continue;
            };
            let places: Vec<_> = points
                .iter()
                .map(|p| scaled_point(*p, question.camera, view.size()))
                .collect();
            let features = view.points(&places)?;
            let part = out.add();
            part.slot = slot;
            part.kind = Kind::Features(precision);
            part.source = whole(question.camera);
            (part.width, part.height) = (points.len(), 1);
            match &self.descriptors {
                Some(head) => {
                    head.apply(&features, &mut part.values);
                    part.channels = head.outputs();
                }
                None => {
                    part.values.extend_from_slice(&features);
                    part.channels = view.dim();
                }
            }
            refuse(part.values.iter().filter(|x| !x.is_finite()).count())?;
        }
        Ok(())
    }
}

fn feature_queries(queries: &Queries) -> impl Iterator<Item = (u8, &Query, Precision)> {
    queries.iter().zip(0u8..).filter_map(|(query, slot)| {
        let query = query.as_ref()?;
        match query.want {
            Want::FeaturesF16 => Some((slot, query, Precision::F16)),
            Want::FeaturesU8 => Some((slot, query, Precision::U8)),
            Want::Classes | Want::Regions => None,
        }
    })
}

fn refuse(count: usize) -> Result<(), ModelError> {
    match count {
        0 => Ok(()),
        count => Err(ModelError::NotFinite { count }),
    }
}

fn whole(camera: Size) -> message::Rect {
    let side = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
    message::Rect {
        x: 0,
        y: 0,
        width: side(camera.width),
        height: side(camera.height),
    }
}

/// Class maps and regions, from a view through a head of classes. Where there are `maps` of earlier
/// frames, only what changed of them is computed.
fn classes(
    view: &EncodedFrame<'_>,
    question: &Question<'_>,
    mut maps: Option<&mut Maps>,
    finder: &mut Finder,
    out: &mut Answer,
) -> Result<u64, ModelError> {
    let mut head_time = Duration::ZERO;
    for (slot, query) in (0u8..).zip(question.queries) {
        let Some(query) = query else { continue };
        let kind = match query.want {
            Want::Classes => Kind::Classes,
            Want::Regions => Kind::Regions,
            Want::FeaturesF16 | Want::FeaturesU8 => continue,
        };
        if question.regions_only && kind == Kind::Classes && query.area == Area::Frame {
            continue;
        }
        let size = view.size();
        let source = match &query.area {
            Area::Region(rect) => *rect,
            Area::Frame | Area::Points(_) => whole(question.camera),
        };
        let part = out.add();
        (part.slot, part.kind, part.source) = (slot, kind, source);
        if let Area::Points(points) = &query.area {
            let places: Vec<_> = points
                .iter()
                .map(|p| scaled_point(*p, question.camera, size))
                .collect();
            let scores = view.points(&places)?;
            refuse(scores.iter().filter(|x| !x.is_finite()).count())?;
            part.classes
                .extend(scores.chunks_exact(view.dim()).map(heads::argmax));
            (part.width, part.height) = (places.len(), 1);
            continue;
        }
        let rect = scaled(source, question.camera, size);
        (part.width, part.height) = (rect.width, rect.height);
        let (mut computed, mut kept) = out.tiles;
        let Some((part, before)) = out.last_and_rest() else {
            continue;
        };
        let known = before
            .iter()
            .find(|p| p.source == source && p.classes.len() == rect.area());
        match known {
            Some(known) => part.classes.extend_from_slice(&known.classes),
            None => {
                let mut wrong = 0;
                part.classes.resize(rect.area(), heads::NO_CLASS);
                let mut put = |tile: &TileFeatures<'_>, map: &mut [u8]| {
                    let start = Instant::now();
                    let not_finite = take(tile, rect, map);
                    head_time += start.elapsed();
                    wrong += not_finite;
                    not_finite == 0
                };
                if let Some(maps) = &mut maps {
                    let update = maps.update(slot, view, rect, &mut put, &mut part.classes)?;
                    computed += update.computed;
                    kept += update.tiles - update.computed;
                } else {
                    view.region(rect, &mut |tile| {
                        put(tile, &mut part.classes);
                        Ok(())
                    })?;
                }
                refuse(wrong)?;
            }
        }
        if kind == Kind::Regions {
            let start = Instant::now();
            regions(part, rect, size, question, finder);
            head_time += start.elapsed();
        }
        out.tiles = (computed, kept);
    }
    Ok(u64::try_from(head_time.as_micros()).unwrap_or(u64::MAX))
}

fn regions(
    part: &mut Part,
    rect: Rect,
    answer: Size,
    question: &Question<'_>,
    finder: &mut Finder,
) {
    let place = Placement {
        rect,
        answer,
        camera: question.camera,
    };
    let (least, most) = (question.min_area_px, question.max_regions);
    finder.find(&part.classes, &place, least, most, &mut part.regions);
}

/// Puts the best class of each pixel into the map; gives the scores that are not finite.
fn take(tile: &TileFeatures<'_>, rect: Rect, map: &mut [u8]) -> usize {
    let mut wrong = 0;
    let x = tile.rect.x - rect.x;
    for row in 0..tile.rect.height {
        let y = tile.rect.y - rect.y + row;
        let line = &mut map[y * rect.width + x..][..tile.rect.width];
        let scores = tile.row(row);
        wrong += scores.iter().filter(|x| !x.is_finite()).count();
        for (class, scores) in line.iter_mut().zip(scores.chunks_exact(tile.dim())) {
            *class = heads::argmax(scores);
        }
    }
    wrong
}

impl Model for BundleModel {
    fn preprocess(&self, image: &RgbImage, size: Size) -> Result<FrameInputs, ModelError> {
        self.frame_cache.image(self.static_scene, image, |image| {
            Ok(self.perceptor.preprocess(image, size)?)
        })
    }

    fn features(&self, inputs: &FrameInputs) -> Result<Features, ModelError> {
        let image = inputs.backbone();
        self.frame_cache
            .features(self.static_scene, image.size, || {
                let features = self.perceptor.features(image)?;
                refuse(features.tokens.iter().filter(|x| !x.is_finite()).count())?;
                Ok(features)
            })
    }

    fn upsample(
        &self,
        inputs: &FrameInputs,
        features: &Features,
        question: &Question<'_>,
        scratch: &mut Finder,
        out: &mut Answer,
    ) -> Result<u64, ModelError> {
        let view = self
            .perceptor
            .encode_features(features, &inputs.guidance, self.range)?;
        out.clear();
        self.features(&view, question, out)?;
        let view = view.with_head(&self.classes)?;
        let mut maps = self.frame_cache.maps(self.static_scene);
        classes(&view, question, maps.as_deref_mut(), scratch, out)
    }

    fn fallback(&self) -> Option<String> {
        self.perceptor.health().reason().map(str::to_owned)
    }

    fn labels(&self) -> &[String] {
        &self.names
    }
}
