//! The model that the stages run: a bundle with its heads.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use loftup_bundle::Size;
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
    output::{
        FrameOutput, OutputKind, Precision, Queries, Query, QueryOutput, output_point, output_rect,
    },
    regions::{Placement, RegionFinder},
    static_scene::{FrameCache, MapCache, StaticScene},
};

/// What to compute for a frame.
#[derive(Debug, Clone)]
pub struct FrameRequest<'a> {
    /// The queries.
    pub queries: &'a Queries,
    /// Skips class maps of the whole frame.
    pub regions_only: bool,
    /// Minimum area of a region, in output pixels.
    pub min_area_px: u32,
    /// Maximum number of regions per query.
    pub max_regions: usize,
    /// Size of the camera image.
    pub camera: Size,
}

/// The model interface of the stages. Implemented by [`BundleModel`], and by tests.
pub trait Model: Send + Sync {
    /// Preprocesses `image` for an output of `size`.
    ///
    /// # Errors
    /// Errors of the runtime.
    fn preprocess(&self, image: &RgbImage, size: Size) -> Result<FrameInputs, ModelError>;

    /// Runs the backbone.
    ///
    /// # Errors
    /// Errors of the runtime.
    fn features(&self, inputs: &FrameInputs) -> Result<Features, ModelError>;

    /// Computes the outputs of all queries. Returns the time spent in the head, in microseconds.
    ///
    /// # Errors
    /// Errors of the runtime, and [`ModelError::NotFinite`].
    fn upsample(
        &self,
        inputs: &FrameInputs,
        features: &Features,
        request: &FrameRequest<'_>,
        scratch: &mut RegionFinder,
        out: &mut FrameOutput,
    ) -> Result<u64, ModelError>;

    /// Why the fallback engine is in use, if it is.
    fn fallback(&self) -> Option<String> {
        None
    }

    /// Class names.
    fn labels(&self) -> &[String];
}

/// Opens the model, at start and after a hang.
pub type ModelFactory = Arc<dyn Fn() -> Result<Arc<dyn Model>, ModelError> + Send + Sync>;

/// A bundle with its heads.
pub struct BundleModel {
    perceptor: Perceptor,
    classes: Head,
    descriptors: Option<Head>,
    names: Vec<String>,
    color_range: ColorRange,
    static_scene: StaticScene,
    frame_cache: FrameCache,
}

impl BundleModel {
    /// Uses the head `classes` for class maps and regions. Features at points pass through the head
    /// `descriptors`; without one, they are those of the upsampler. Compiles the graphs for outputs
    /// of `sizes`.
    ///
    /// # Errors
    /// If the bundle lacks a part, a head has the wrong kind, or a graph cannot be compiled.
    pub fn new(
        perceptor: Perceptor,
        classes: &str,
        descriptors: Option<&str>,
        color_range: ColorRange,
        sizes: &[Size],
    ) -> Result<Self, ModelError> {
        let head = perceptor.head(classes)?;
        let Some(names) = head.kind().class_names() else {
            return Err(ModelError::no_classes(classes));
        };
        let names = names.to_vec();
        let descriptors = descriptors.map(|name| perceptor.head(name)).transpose()?;
        for size in sizes {
            perceptor.compile(*size, (0, 0))?;
        }
        Ok(Self {
            perceptor,
            classes: head,
            descriptors,
            names,
            color_range,
            static_scene: StaticScene::default(),
            frame_cache: FrameCache::default(),
        })
    }

    /// Enables reuse between the frames of a static camera.
    #[must_use]
    pub fn with_static_scene(mut self, static_scene: StaticScene) -> Self {
        self.static_scene = static_scene;
        self
    }

    /// Computes the features at points.
    fn features(
        &self,
        view: &EncodedFrame<'_>,
        request: &FrameRequest<'_>,
        out: &mut FrameOutput,
    ) -> Result<(), ModelError> {
        for (slot, query, precision) in feature_queries(request.queries) {
            let Area::Points(points) = &query.area else {
                continue;
            };
            let points: Vec<_> = points
                .iter()
                .map(|p| output_point(*p, request.camera, view.size()))
                .collect();
            let features = view.points(&points)?;
            let output = out.add();
            output.slot = slot;
            output.kind = OutputKind::Features(precision);
            output.source = full_frame(request.camera);
            (output.width, output.height) = (points.len(), 1);
            match &self.descriptors {
                Some(head) => {
                    head.apply(&features, &mut output.values);
                    output.channels = head.outputs();
                }
                None => {
                    output.values.extend_from_slice(&features);
                    output.channels = view.dim();
                }
            }
            ensure_finite(output.values.iter().filter(|x| !x.is_finite()).count())?;
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

fn ensure_finite(count: usize) -> Result<(), ModelError> {
    match count {
        0 => Ok(()),
        count => Err(ModelError::NotFinite { count }),
    }
}

/// The whole camera image.
fn full_frame(camera: Size) -> message::Rect {
    let side = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
    message::Rect {
        x: 0,
        y: 0,
        width: side(camera.width),
        height: side(camera.height),
    }
}

/// Computes class maps and regions from the scores of a class head. With `maps` of the last frame,
/// only changed tiles are computed.
fn classes(
    view: &EncodedFrame<'_>,
    request: &FrameRequest<'_>,
    mut maps: Option<&mut MapCache>,
    finder: &mut RegionFinder,
    out: &mut FrameOutput,
) -> Result<u64, ModelError> {
    let mut head_time = Duration::ZERO;
    for (slot, query) in (0u8..).zip(request.queries) {
        let Some(query) = query else { continue };
        let kind = match query.want {
            Want::Classes => OutputKind::Classes,
            Want::Regions => OutputKind::Regions,
            Want::FeaturesF16 | Want::FeaturesU8 => continue,
        };
        if request.regions_only && kind == OutputKind::Classes && query.area == Area::Frame {
            continue;
        }
        let size = view.size();
        let source = match &query.area {
            Area::Region(rect) => *rect,
            Area::Frame | Area::Points(_) => full_frame(request.camera),
        };
        let output = out.add();
        (output.slot, output.kind, output.source) = (slot, kind, source);
        if let Area::Points(points) = &query.area {
            let points: Vec<_> = points
                .iter()
                .map(|p| output_point(*p, request.camera, size))
                .collect();
            let scores = view.points(&points)?;
            ensure_finite(scores.iter().filter(|x| !x.is_finite()).count())?;
            output
                .classes
                .extend(scores.chunks_exact(view.dim()).map(heads::argmax));
            (output.width, output.height) = (points.len(), 1);
            continue;
        }
        let rect = output_rect(source, request.camera, size);
        (output.width, output.height) = (rect.width, rect.height);
        let (mut computed, mut kept) = out.tiles;
        let Some((output, before)) = out.split_last_mut() else {
            continue;
        };
        let known = before
            .iter()
            .find(|p| p.source == source && p.classes.len() == rect.area());
        match known {
            Some(known) => output.classes.extend_from_slice(&known.classes),
            None => {
                let mut not_finite = 0;
                output.classes.resize(rect.area(), heads::NO_CLASS);
                let mut write = |tile: &TileFeatures<'_>, map: &mut [u8]| {
                    let start = Instant::now();
                    let n = write_classes(tile, rect, map);
                    head_time += start.elapsed();
                    not_finite += n;
                    n == 0
                };
                if let Some(maps) = &mut maps {
                    let update = maps.update(slot, view, rect, &mut write, &mut output.classes)?;
                    computed += update.computed;
                    kept += update.tiles - update.computed;
                } else {
                    view.region(rect, &mut |tile| {
                        write(tile, &mut output.classes);
                        Ok(())
                    })?;
                }
                ensure_finite(not_finite)?;
            }
        }
        if kind == OutputKind::Regions {
            let start = Instant::now();
            regions(output, rect, size, request, finder);
            head_time += start.elapsed();
        }
        out.tiles = (computed, kept);
    }
    Ok(u64::try_from(head_time.as_micros()).unwrap_or(u64::MAX))
}

fn regions(
    output: &mut QueryOutput,
    rect: Rect,
    output_size: Size,
    request: &FrameRequest<'_>,
    finder: &mut RegionFinder,
) {
    let place = Placement {
        rect,
        output: output_size,
        camera: request.camera,
    };
    let (min_area, max_regions) = (request.min_area_px, request.max_regions);
    finder.find(
        &output.classes,
        &place,
        min_area,
        max_regions,
        &mut output.regions,
    );
}

/// Writes the argmax of each pixel to the map. Returns the number of scores that are not finite.
fn write_classes(tile: &TileFeatures<'_>, rect: Rect, map: &mut [u8]) -> usize {
    let mut not_finite = 0;
    let x = tile.rect.x - rect.x;
    for row in 0..tile.rect.height {
        let y = tile.rect.y - rect.y + row;
        let line = &mut map[y * rect.width + x..][..tile.rect.width];
        let scores = tile.row(row);
        not_finite += scores.iter().filter(|x| !x.is_finite()).count();
        heads::argmax_pixels(scores, tile.dim(), line);
    }
    not_finite
}

impl Model for BundleModel {
    fn preprocess(&self, image: &RgbImage, size: Size) -> Result<FrameInputs, ModelError> {
        self.frame_cache
            .denoised(self.static_scene, image, |image| {
                Ok(self.perceptor.preprocess(image, size)?)
            })
    }

    fn features(&self, inputs: &FrameInputs) -> Result<Features, ModelError> {
        let image = inputs.backbone();
        self.frame_cache
            .features(self.static_scene, image.size, || {
                let features = self.perceptor.features(image)?;
                ensure_finite(features.tokens.iter().filter(|x| !x.is_finite()).count())?;
                Ok(features)
            })
    }

    fn upsample(
        &self,
        inputs: &FrameInputs,
        features: &Features,
        request: &FrameRequest<'_>,
        scratch: &mut RegionFinder,
        out: &mut FrameOutput,
    ) -> Result<u64, ModelError> {
        let view = self
            .perceptor
            .encode_features(features, &inputs.guidance, self.color_range)?;
        out.clear();
        self.features(&view, request, out)?;
        let view = view.with_head(&self.classes)?;
        let mut maps = self.frame_cache.maps(self.static_scene);
        classes(&view, request, maps.as_deref_mut(), scratch, out)
    }

    fn fallback(&self) -> Option<String> {
        self.perceptor.health().reason().map(str::to_owned)
    }

    fn labels(&self) -> &[String] {
        &self.names
    }
}
