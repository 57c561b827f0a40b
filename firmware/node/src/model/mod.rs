//! The model that the stages run: a bundle with its heads.

mod maps;

use std::{path::PathBuf, sync::Arc, time::Duration};

use loftup_bundle::{HeadKind, Size};
use loftup_runtime::{
    ColorRange, EncodedFrame, Features, FrameEngine, FrameInputs, ImageTensor, NafStatistics,
    Perceptor, Rect, RuntimeError, depth::Depth, heads::Head, image::RgbImage, jbu::JbuOptions,
};
use loftup_wire::command::{Area, Want};
use parking_lot::Mutex;

pub use crate::error::ModelError;
use crate::{
    config::{self, Upsampler},
    output::{CLASS_LABELS, FrameOutput, OutputKind, Precision, Queries, Query},
    regions::RegionFinder,
    static_scene::{FrameCache, StaticScene},
};
use maps::ClassHead;

/// The outputs to compute for a frame.
#[derive(Debug, Clone)]
pub struct FrameRequest<'a> {
    /// The queries.
    pub queries: &'a Queries,
    /// Skips maps of the whole frame.
    pub regions_only: bool,
    /// How features are upsampled to the resolution of the output.
    pub upsampler: Upsampler,
    /// The words to find.
    pub words: Option<&'a Words>,
    /// Minimum area of a region, in output pixels.
    pub min_area_px: u32,
    /// Maximum number of regions per query.
    pub max_regions: usize,
    /// Size of the camera image.
    pub camera: Size,
}

/// Words to find, created by [`Model::words`].
#[derive(Debug)]
pub struct Words {
    /// The label set, once they are in use.
    pub labels: u16,
    /// The words.
    pub names: Vec<String>,
    head: Head,
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

    /// Computes the outputs of all queries except for objects. Returns the time spent in the head, in
    /// microseconds.
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

    /// Whether [`Model::whole_frame`] computes all outputs of `request`, for outputs of `size`.
    fn takes_whole_frame(&self, _request: &FrameRequest<'_>, _size: Size) -> bool {
        false
    }

    /// Computes the outputs of all queries from the camera's image in one step.
    ///
    /// # Errors
    /// Errors of the runtime, and [`ModelError::NotFinite`].
    fn whole_frame(
        &self,
        _image: &RgbImage,
        _request: &FrameRequest<'_>,
        _scratch: &mut RegionFinder,
        _out: &mut FrameOutput,
    ) -> Result<(), ModelError> {
        Err(ModelError::Other(
            "this model has no engine for whole frames".into(),
        ))
    }

    /// Writes the features for tracking objects to `out`, `[cells, channels]`.
    ///
    /// # Errors
    /// Errors of the runtime, and [`ModelError::NotFinite`].
    fn track_features(
        &self,
        _image: &RgbImage,
        _features: &Features,
        _out: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        Err(ModelError::Other("this model tracks no objects".into()))
    }

    /// Reads the words with this name: a file, or a head of the bundle.
    ///
    /// # Errors
    /// The words do not exist or cannot be read.
    fn words(&self, name: &str) -> Result<Words, ModelError> {
        Err(ModelError::Other(format!("there are no words {name:?}")))
    }

    /// Why the fallback engine is in use, if it is.
    fn fallback(&self) -> Option<String> {
        None
    }

    /// Class names.
    fn labels(&self) -> &[String];
}

/// Opens the model, at start and after a hang.
pub type ModelFactory = Arc<dyn Fn() -> Result<Arc<dyn Model>, ModelError> + Send + Sync>;

/// The heads for the features of one upsampler.
struct Heads {
    classes: Option<Head>,
    descriptors: Option<Head>,
    depth: Option<(Head, Depth)>,
    /// Whether features at points are the upsampler's features if there is no head for them.
    plain_features: bool,
}

impl Heads {
    fn open(perceptor: &Perceptor, names: &config::HeadNames<'_>) -> Result<Self, ModelError> {
        let classes = match names.classes {
            None => None,
            Some(name) => {
                let head = perceptor.head(name)?;
                if head.kind().class_names().is_none() {
                    return Err(ModelError::no_classes(name));
                }
                Some(head)
            }
        };
        let depth = match names.depth {
            None => None,
            Some(name) => {
                let head = perceptor.head(name)?;
                let depth = Depth::of(&head);
                let depth = depth.ok_or_else(|| {
                    ModelError::Other(format!("head {name:?} does not output depth"))
                })?;
                Some((head, depth))
            }
        };
        let descriptors = names.descriptors.map(|name| perceptor.head(name));
        Ok(Self {
            classes,
            descriptors: descriptors.transpose()?,
            depth,
            plain_features: names.plain_features,
        })
    }
}

/// How a [`BundleModel`] computes the features for tracking objects.
#[derive(Debug, Clone, Copy)]
struct TrackGrid {
    size: Size,
    upsampler: Upsampler,
}

/// A bundle with its heads.
pub struct BundleModel {
    perceptor: Arc<Perceptor>,
    frame_engine: Option<FrameEngine>,
    heads: Heads,
    upsampler: Upsampler,
    /// Heads for degradation steps with JBU.
    jbu: Option<Heads>,
    names: Vec<String>,
    color_range: ColorRange,
    /// Of outputs, and of features for tracking.
    naf_statistics: [Mutex<NafStatistics>; 2],
    static_scene: StaticScene,
    frame_cache: FrameCache,
    words_directory: Option<PathBuf>,
    track: Option<TrackGrid>,
}

impl BundleModel {
    /// Creates a model with the heads and the settings of words and objects in `config`. Compiles the
    /// graphs for outputs of `sizes`.
    ///
    /// # Errors
    /// If the bundle lacks a part, a head has the wrong kind, or a graph cannot be compiled.
    pub fn new(
        perceptor: impl Into<Arc<Perceptor>>,
        config: &config::Config,
        color_range: ColorRange,
        sizes: &[Size],
    ) -> Result<Self, ModelError> {
        let perceptor = perceptor.into();
        let heads = Heads::open(&perceptor, &config.model.heads())?;
        let jbu = config.model.jbu_heads();
        let jbu = jbu
            .map(|names| Heads::open(&perceptor, &names))
            .transpose()?;
        let names = heads.classes.as_ref().and_then(|h| h.kind().class_names());
        let names = names.unwrap_or_default();
        let track = config.track.as_ref().map(|track| TrackGrid {
            size: config::size(track.grid),
            upsampler: track.upsampler,
        });
        let grid = track.filter(|t| t.upsampler == Upsampler::Loftup);
        for size in sizes.iter().chain(grid.as_ref().map(|t| &t.size)) {
            perceptor.compile(*size, (0, 0))?;
        }
        Ok(Self {
            names: names.to_vec(),
            upsampler: config.model.upsampler,
            jbu,
            heads,
            perceptor,
            frame_engine: None,
            color_range,
            naf_statistics: [(); 2]
                .map(|()| NafStatistics::every(config.model.naf_statistics_interval))
                .map(Mutex::new),
            static_scene: StaticScene::default(),
            frame_cache: FrameCache::default(),
            words_directory: config.words.as_ref().and_then(|w| w.directory.clone()),
            track,
        })
    }

    /// Enables reuse between the frames of a static camera.
    #[must_use]
    pub fn with_static_scene(mut self, static_scene: StaticScene) -> Self {
        self.static_scene = static_scene;
        self
    }

    /// Computes class maps of whole frames with an engine of their own where it suits the queries.
    #[must_use]
    pub fn with_frame_engine(mut self, engine: FrameEngine) -> Self {
        self.frame_engine = Some(engine);
        self
    }

    fn encode(
        &self,
        features: &Features,
        guidance: &ImageTensor,
        upsampler: Upsampler,
        naf_statistics: &Mutex<NafStatistics>,
    ) -> Result<EncodedFrame<'_>, RuntimeError> {
        match upsampler {
            Upsampler::Loftup => {
                let (range, statistics) = (self.color_range, &mut naf_statistics.lock());
                self.perceptor
                    .encode_video(features, guidance, range, statistics)
            }
            Upsampler::Jbu => {
                let options = JbuOptions::default();
                Ok(self
                    .perceptor
                    .encode_jbu(features.clone(), guidance, options))
            }
        }
    }

    /// Computes the features at points.
    fn point_features(
        &self,
        view: &EncodedFrame<'_>,
        heads: &Heads,
        request: &FrameRequest<'_>,
        out: &mut FrameOutput,
    ) -> Result<(), ModelError> {
        for (slot, query, precision) in feature_queries(request.queries) {
            let Area::Points(points) = &query.area else {
                continue;
            };
            let features = maps::at_points(view, points, request)?;
            let kind = OutputKind::Features(precision);
            let (output, _) = maps::add(out, (slot, query), kind, request, view.size());
            match &heads.descriptors {
                Some(head) => {
                    head.apply(&features, &mut output.values);
                    output.channels = head.outputs();
                }
                // `upsample` calls this only if there is one of the two.
                None => {
                    output.values.extend_from_slice(&features);
                    output.channels = view.dim();
                }
            }
            ensure_finite(not_finite(&output.values))?;
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
            _ => None,
        }
    })
}

/// Number of values that are not finite.
fn not_finite(values: &[f32]) -> usize {
    values.iter().filter(|x| !x.is_finite()).count()
}

fn ensure_finite(count: usize) -> Result<(), ModelError> {
    match count {
        0 => Ok(()),
        count => Err(ModelError::NotFinite { count }),
    }
}

/// Whether a query is for one of these outputs.
fn wants(queries: &Queries, wanted: &[Want]) -> bool {
    queries.iter().flatten().any(|q| wanted.contains(&q.want))
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
                ensure_finite(not_finite(&features.tokens))?;
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
        out.clear();
        let queries = request.queries;
        let computed = queries.iter().flatten().any(|q| q.want != Want::Objects);
        if !computed {
            return Ok(0);
        }
        let heads = match &self.jbu {
            _ if request.upsampler == self.upsampler => &self.heads,
            Some(jbu) => jbu,
            None => return Err(ModelError::Other("[model.jbu] is missing".into())),
        };
        let view = self.encode(
            features,
            &inputs.guidance,
            request.upsampler,
            &self.naf_statistics[0],
        )?;
        if heads.plain_features || heads.descriptors.is_some() {
            self.point_features(&view, heads, request, out)?;
        }
        let mut head_time = Duration::ZERO;
        if let (true, Some((head, depth))) = (wants(queries, &[Want::Depth]), &heads.depth) {
            let view = view.clone().with_head(head)?;
            head_time += maps::depth(&view, depth, request, out)?;
        }
        let mut maps = self.frame_cache.maps(self.static_scene);
        let classes = heads.classes.as_ref().map(|head| ClassHead {
            labels: CLASS_LABELS,
            wanted: &[Want::Classes, Want::Regions],
            head,
        });
        let words = request.words.map(|words| ClassHead {
            labels: words.labels,
            wanted: &[Want::Words],
            head: &words.head,
        });
        for head in words.iter().chain(&classes) {
            if wants(queries, head.wanted) {
                let view = view.clone().with_head(head.head)?;
                let maps = maps.as_deref_mut();
                head_time += maps::classes(&view, head, request, maps, scratch, out)?;
            }
        }
        Ok(u64::try_from(head_time.as_micros()).unwrap_or(u64::MAX))
    }

    fn takes_whole_frame(&self, request: &FrameRequest<'_>, size: Size) -> bool {
        let Some(engine) = &self.frame_engine else {
            return false;
        };
        let whole_map = |query: &Query| {
            matches!(query.want, Want::Classes | Want::Regions) && query.area == Area::Frame
        };
        let query = engine.query();
        (query.camera, query.size) == (request.camera, size)
            && request.upsampler == Upsampler::Loftup
            && self.static_scene == StaticScene::default()
            && request.queries.iter().flatten().count() > 0
            && request.queries.iter().flatten().all(whole_map)
    }

    fn whole_frame(
        &self,
        image: &RgbImage,
        request: &FrameRequest<'_>,
        scratch: &mut RegionFinder,
        out: &mut FrameOutput,
    ) -> Result<(), ModelError> {
        out.clear();
        let engine = (self.frame_engine.as_ref())
            .ok_or_else(|| ModelError::Other("tensorrt.frame_graph is not set".into()))?;
        let size = engine.query().size;
        engine.run(image, |map| {
            maps::whole_frame(map, size, request, scratch, out)
        })?
    }

    fn track_features(
        &self,
        image: &RgbImage,
        features: &Features,
        out: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        let Some(TrackGrid { size, upsampler }) = self.track else {
            return Err(ModelError::Other("[track] is missing".into()));
        };
        let guidance = self.perceptor.to_tensor(image, size)?;
        let view = self.encode(features, &guidance, upsampler, &self.naf_statistics[1])?;
        let dim = view.dim();
        out.resize(size.area() * dim, 0.0);
        let values = Mutex::new(out);
        view.frame(&mut |tile| {
            let mut values = values.lock();
            for (pixel, row) in tile.rows_in(Rect::whole(size)) {
                values[pixel * dim..][..row.len()].copy_from_slice(row);
            }
            Ok(())
        })?;
        let values = values.into_inner();
        ensure_finite(not_finite(values))
    }

    fn words(&self, name: &str) -> Result<Words, ModelError> {
        // A name from a link must not lead out of the directory.
        let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0']);
        let file = self.words_directory.as_ref().filter(|_| plain);
        let file = file.map(|directory| directory.join(format!("{name}.safetensors")));
        let head = match file.filter(|file| file.is_file()) {
            Some(file) => self.perceptor.head_from_file(&file)?,
            None => self.perceptor.head(name)?,
        };
        match head.kind() {
            HeadKind::Words { names, .. } => Ok(Words {
                labels: 0,
                names: names.clone(),
                head,
            }),
            _ => Err(ModelError::Other(format!(
                "head {name:?} is not one of words"
            ))),
        }
    }

    fn fallback(&self) -> Option<String> {
        let reason = self.perceptor.health().reason().map(str::to_owned);
        let of_frames = || {
            let health = self.frame_engine.as_ref()?.health();
            health.reason().map(str::to_owned)
        };
        reason.or_else(of_frames)
    }

    fn labels(&self) -> &[String] {
        &self.names
    }
}
