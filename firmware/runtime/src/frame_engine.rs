//! Class maps of whole frames by one engine.
//!
//! The frame graph of a bundle ([`Perceptor::frame_graph`]) runs as one engine, so that a frame is one
//! call, or one launch of a CUDA graph. The perceptor, whose engines were compared with the bundle's
//! reference outputs, is its fallback, and computes the outputs that it is compared with.

mod check;
mod steps;

use std::sync::Arc;

use loftup_bundle::{Size, sha256_hex};
use loftup_spec::io::frame::{CLASSES, IMAGE, SCORES};
use parking_lot::Mutex;

use self::steps::Steps;
use crate::{
    ColorRange, FrameGraphOutput, FrameGraphQuery, Perceptor, RuntimeError,
    backend::{Backend, BackendError, Fallback, FallbackOptions, Graph, Health, Plan, Session},
    heads::Head,
    image::RgbImage,
};

/// What a [`FrameEngine`] computes.
#[derive(Debug, Clone)]
pub struct FrameEngineQuery {
    /// Size of the camera image.
    pub camera: Size,
    /// Size of the class map.
    pub size: Size,
    /// The head of classes.
    pub head: Head,
    /// How the guidance is scaled.
    pub range: ColorRange,
}

/// An engine for class maps of whole frames, with a perceptor as the fallback.
pub struct FrameEngine {
    query: FrameEngineQuery,
    backend: Fallback,
    plan: Box<dyn Plan>,
    session: Mutex<Option<Box<dyn Session>>>,
}

impl FrameEngine {
    /// Builds the engine and compares its output for a test image with that of `perceptor`. If it cannot be
    /// built, or its output is wrong, the perceptor computes every frame, and
    /// [`health`](Self::health) says why. `engine` is usually a [`TensorRt`](crate::backend::TensorRt); an error
    /// says why there is none.
    ///
    /// # Errors
    /// The bundle has no frame graph for this query ([`Perceptor::frame_graph`]), the build is cancelled, or
    /// the perceptor fails as well.
    pub fn new(
        perceptor: Arc<Perceptor>,
        engine: Result<Arc<dyn Backend>, BackendError>,
        options: FallbackOptions,
        query: FrameEngineQuery,
    ) -> Result<Self, RuntimeError> {
        let onnx: Arc<[u8]> = perceptor
            .frame_graph(
                &FrameGraphQuery {
                    camera: query.camera,
                    size: query.size,
                    range: query.range,
                    tile: None,
                    output: FrameGraphOutput::ClassesAndScores(&query.head),
                },
                Vec::new(),
            )?
            .into();
        let name = format!("{}/frame.onnx", perceptor.bundle.path().display());
        let sha256: Arc<str> = sha256_hex(&onnx).into();
        let graph = |outputs: &[&str]| Graph {
            sha256: Some(sha256.clone()),
            precision: perceptor.precision(),
            ..Graph::new(&name, onnx.clone(), &[IMAGE], outputs)
        };
        let steps = Steps::new(perceptor.clone(), query.clone());
        let backend = Fallback::new(engine, Arc::new(steps), options);
        let Size { width, height } = query.camera;
        let shapes = [vec![1, height, width, 3]];
        let plan = backend.load(&graph(&[CLASSES]))?.compile(&shapes, &[])?;
        check::check(&perceptor, &backend, &graph(&[CLASSES, SCORES]), &query)?;
        Ok(Self {
            query,
            backend,
            plan,
            session: Mutex::new(None),
        })
    }

    /// The query.
    pub fn query(&self) -> &FrameEngineQuery {
        &self.query
    }

    /// Whether the engine or the perceptor computes the frames, and why.
    pub fn health(&self) -> Health {
        self.backend.health()
    }

    /// Computes the class of each pixel, `[height, width]`, and passes them to `receive`; 255 where the scores
    /// are not finite. Frames are computed one at a time.
    ///
    /// # Errors
    /// `image` has another size than the camera of the query, or the perceptor fails as well.
    pub fn run<T>(
        &self,
        image: &RgbImage,
        receive: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, RuntimeError> {
        let found = Size {
            width: image.width(),
            height: image.height(),
        };
        if found != self.query.camera {
            let expected = self.query.camera;
            return Err(RuntimeError::CameraSize { found, expected });
        }
        let mut place = self.session.lock();
        let session = match &mut *place {
            Some(session) => session,
            None => place.insert(self.plan.session()?),
        };
        session.set_bytes(0, image.data())?;
        match session.run() {
            Ok(()) => Ok(receive(session.output_bytes(0))),
            Err(e) => {
                // Its state is unknown.
                *place = None;
                Err(e.into())
            }
        }
    }
}
