//! Builds a node from its configuration.

use std::sync::{Arc, atomic::AtomicU64};

use loftup_bundle::Bundle;
use loftup_runtime::{
    ColorRange, ExecutionOptions, FrameEngine, FrameEngineQuery, Perceptor, RuntimeError,
    backend::{
        self, Backend, Choice, Settings, TensorRt,
        fault::{Faults, Faulty},
    },
    image::Orientation,
    tuning::{Tuning, TuningCache},
};

use crate::{
    config::{self, Config},
    inject::{FaultySource, Injected, Plan},
    model::{BundleModel, Model, ModelError, ModelFactory},
    pipeline::Parts,
    sink::{self, SinkError},
    source::{
        self, Images, Pace, Piped, Recording, Scenes, Source, SourceError, SourceFactory, Video,
    },
    static_scene::StaticScene,
};

/// Handles to the injected faults of a running node.
#[derive(Debug, Clone, Default)]
pub struct Injection {
    /// Injected faults of the source.
    pub source: Arc<Injected>,
    /// Injected faults of the engine.
    pub backend: Arc<Faults>,
    /// Bytes that were flipped or dropped on serial and UDP links.
    pub link: Arc<AtomicU64>,
}

/// Returns a factory that opens the bundle in the configured engine, with `faults` injected.
pub fn model_factory(config: &Config, faults: Option<Arc<Faults>>) -> ModelFactory {
    let (config, levels) = (config.clone(), config.levels());
    let settings = config.tensorrt.settings(config.model.cpu_precision);
    Arc::new(move || {
        let model = &config.model;
        let choice = Choice::from(model.backend);
        let engine = backend::open(choice, &settings)
            .map_err(|e| ModelError::Other(format!("model.backend {choice}: {e}")))?;
        let engine: Arc<dyn Backend> = match &faults {
            Some(faults) => Arc::new(Faulty::new(engine, faults.clone())),
            None => engine,
        };
        let bundle = Bundle::open(&model.bundle).map_err(|e| ModelError::Other(e.to_string()))?;
        let mut options = ExecutionOptions::default();
        if model.threads > 0 {
            options.threads = model.threads;
        }
        let mut perceptor = Perceptor::with_backend(bundle, engine, options)?;
        if model.tune
            && let Some(Tuning { tile, threads }) = perceptor.tuning(&TuningCache::of_user())?
        {
            if model.threads == 0 {
                options.threads = threads;
            }
            options.tile = Some(tile);
            perceptor.set_execution_options(options);
        }
        let range = match model.color_range {
            None => ColorRange::PerImage,
            Some(range) => ColorRange::Fixed {
                min: range.map(|[min, _]| min),
                max: range.map(|[_, max]| max),
            },
        };
        let mut sizes: Vec<_> = levels.iter().map(|l| l.size).collect();
        sizes.dedup();
        let static_scene = StaticScene {
            backbone_interval: model.backbone_interval,
            noise_threshold: model.noise_threshold,
        };
        let perceptor = Arc::new(perceptor);
        let mut model = BundleModel::new(perceptor.clone(), &config, range, &sizes)?
            .with_static_scene(static_scene);
        if config.tensorrt.frame_graph {
            let engine = frame_engine(perceptor, &config, &settings, range, faults.as_ref())?;
            model = model.with_frame_engine(engine);
        }
        Ok(Arc::new(model) as Arc<dyn Model>)
    })
}

/// Opens the engine for class maps of whole frames.
fn frame_engine(
    perceptor: Arc<Perceptor>,
    config: &Config,
    settings: &Settings,
    range: ColorRange,
    faults: Option<&Arc<Faults>>,
) -> Result<FrameEngine, ModelError> {
    let Some(camera) = config.source.size else {
        return Err(ModelError::Other("source.size is missing".into()));
    };
    let opened = TensorRt::open(settings.tensorrt.clone());
    let engine = opened.map(|engine| match faults {
        Some(faults) => Arc::new(Faulty::new(engine, faults.clone())) as Arc<dyn Backend>,
        None => Arc::new(engine),
    });
    let query = FrameEngineQuery {
        camera: config::size(camera),
        size: config::size(config.model.size),
        head: perceptor.head(&config.model.head)?,
        range,
    };
    Ok(FrameEngine::new(
        perceptor,
        engine,
        settings.fallback,
        query,
    )?)
}

/// Checks that the bundle is complete and has the configured heads, without compiling it.
///
/// # Errors
/// Names the bundle, and the invalid file or head.
pub fn check_model(config: &Config) -> Result<(), ModelError> {
    let model = &config.model;
    let open = || {
        let bundle = Bundle::open(&model.bundle)?;
        for name in [&model.descriptors, &model.depth].into_iter().flatten() {
            bundle.head(name)?;
        }
        bundle.head(&model.head)
    };
    let (head, _) = open().map_err(RuntimeError::from)?;
    match head.kind.class_names() {
        Some(_) => Ok(()),
        None => Err(ModelError::no_classes(&model.head)),
    }
}

/// Returns the topic of a source of kind `ros2`.
#[cfg(feature = "zenoh")]
fn topic(config: &config::Source) -> source::Topic {
    source::Topic {
        endpoint: config
            .endpoint
            .clone()
            .unwrap_or_else(|| crate::ros::ROUTER.into()),
        domain: config.domain.unwrap_or(0),
        distro: config.distro.unwrap_or_default(),
        name: config.topic.clone().unwrap_or_default(),
        compressed: config.is_compressed(),
        queue: config.queue.unwrap_or(1),
        orientation: Orientation::exif(config.exif_orientation),
    }
}

/// Returns a function that opens and reopens the configured source. A subscription to a topic is kept.
fn source_opener(
    config: config::Source,
) -> impl Fn() -> Result<Box<dyn Source>, SourceError> + Send + Sync {
    #[cfg(feature = "zenoh")]
    let listener = parking_lot::Mutex::new(None::<Arc<source::Listener>>);
    move || {
        let pace = Pace::new(config.rate());
        let path = config.path.clone().unwrap_or_default();
        Ok(match config.kind {
            config::SourceKind::Images => Box::new(Images::open(
                &path,
                pace,
                config.repeat,
                Orientation::exif(config.exif_orientation),
            )?),
            config::SourceKind::Scenes => {
                let [width, height] = config.size.unwrap_or([320, 240]);
                Box::new(Scenes::new(config.seed, width, height, pace))
            }
            config::SourceKind::Recording => {
                Box::new(Recording::open(&path)?.paced(pace, config.repeat))
            }
            config::SourceKind::Gstreamer => {
                let [width, height] = config.size.unwrap_or([320, 240]);
                let pipeline = config.pipeline.as_deref().unwrap_or_default();
                Box::new(Piped::gstreamer(pipeline, width, height).repeated(config.repeat))
            }
            config::SourceKind::Video => {
                Box::new(Video::open(&path, config.rate_hz, config.repeat)?)
            }
            #[cfg(feature = "zenoh")]
            config::SourceKind::Ros2 => {
                let mut listener = listener.lock();
                let listener = match &*listener {
                    Some(listener) => listener.clone(),
                    None => {
                        let started = Arc::new(source::Listener::start(topic(&config))?);
                        listener.insert(started).clone()
                    }
                };
                Box::new(source::Ros2::new(listener))
            }
            #[cfg(not(feature = "zenoh"))]
            config::SourceKind::Ros2 => {
                return Err(SourceError::Other(source::NO_ZENOH.into()));
            }
            #[cfg(feature = "v4l")]
            config::SourceKind::V4l => {
                let [width, height] = config.size.unwrap_or([320, 240]);
                Box::new(source::Camera::open(&path, width, height)?)
            }
            #[cfg(not(feature = "v4l"))]
            config::SourceKind::V4l => {
                return Err(SourceError::Other(format!(
                    "{}: {}",
                    path.display(),
                    source::NO_V4L
                )));
            }
        })
    }
}

/// Returns a factory that opens the configured source, with the faults of `plan`.
pub fn source_factory(config: &Config, plan: &Plan, injected: &Arc<Injected>) -> SourceFactory {
    let (plan, injected) = (plan.clone(), injected.clone());
    let open = source_opener(config.source.clone());
    let opened = std::sync::atomic::AtomicU64::new(0);
    Arc::new(move || {
        let source = open()?;
        if plan.source.ppm.iter().all(|ppm| *ppm == 0) {
            return Ok(source);
        }
        // A new seed each time, or every reopened source would repeat the same faults.
        let n = opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let seed = plan.seed.wrapping_add(n.wrapping_mul(0x9E37_79B9));
        Ok(Box::new(FaultySource::new(
            source,
            plan.source,
            seed,
            injected.clone(),
        )))
    })
}

/// Creates all parts of a node, with the faults of `plan`.
///
/// # Errors
/// If a sink cannot be opened.
pub fn parts(config: Config, plan: &Plan) -> Result<(Parts, Injection), SinkError> {
    let injection = Injection {
        source: Arc::default(),
        backend: Faults::none(),
        link: Arc::default(),
    };
    let (probability, mix) = plan.backend_mix();
    let faults = (probability > 0.0).then(|| {
        injection.backend.at_random(plan.seed, probability, &mix);
        injection.backend.clone()
    });
    let parts = Parts {
        model: model_factory(&config, faults),
        source: source_factory(&config, plan, &injection.source),
        sinks: sink::open(&config.sink, plan.link, plan.seed, &injection.link)?,
        config,
    };
    Ok((parts, injection))
}
