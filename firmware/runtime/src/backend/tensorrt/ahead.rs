//! Builds engines without running them.

use std::sync::Arc;

use loftup_bundle::Precision;
use loftup_tensorrt::{Library, cuda::Device};

use super::{
    NAME, Options, PRECISIONS,
    build::{Hashed, Recipe},
    cuda, library, unavailable,
};
use crate::backend::{
    Arithmetic, Backend, BackendError, Graph, Model, Plan, Session, ShapeProfile, TensorRt,
    TilingHint,
};

/// Builds engines for a GPU that this machine does not have, and stores them in the cache. Requires
/// TensorRT-RTX.
pub struct AheadOfTime(Arc<Target>);

struct Target {
    library: Library,
    capability: (u32, u32),
    options: Options,
}

impl AheadOfTime {
    /// Opens TensorRT-RTX to build for GPUs of this compute capability, such as (8, 6).
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] if TensorRT-RTX is not available.
    pub fn open(target: (u32, u32), options: Options) -> Result<Self, BackendError> {
        let library = library(&options).map_err(|e| unavailable(&e, &options))?;
        if !library.layout().is_rtx() {
            return Err(BackendError::Unavailable {
                backend: NAME,
                what: format!(
                    "{} builds engines only on the GPU that will run them; build there, or set LOFTUP_TENSORRT to a TensorRT-RTX library",
                    library.version()
                ),
                absent: false,
            });
        }
        Ok(Self(Arc::new(Target {
            library,
            capability: target,
            options,
        })))
    }
}

impl Backend for AheadOfTime {
    fn name(&self) -> &'static str {
        NAME
    }

    fn load(&self, graph: &Graph) -> Result<Arc<dyn Model>, BackendError> {
        Ok(Arc::new(AheadModel {
            target: self.0.clone(),
            hashed: Hashed::new(graph),
        }))
    }

    fn tiling_hint(&self) -> TilingHint {
        TilingHint::GPU
    }

    fn fuses_heads(&self) -> bool {
        true
    }

    fn precisions(&self) -> [Precision; 4] {
        PRECISIONS
    }

    /// The comparison is done on the machine that runs the engine.
    fn arithmetic(&self, _: Precision) -> Option<Arithmetic> {
        None
    }

    fn describe(&self) -> String {
        let (major, minor) = self.0.capability;
        format!("{} for GPUs {major}.{minor}", self.0.library.version())
    }
}

/// A graph from which engines for another machine are built.
struct AheadModel {
    target: Arc<Target>,
    hashed: Hashed,
}

impl Model for AheadModel {
    fn compile(
        &self,
        shapes: &[Vec<usize>],
        profiles: &[ShapeProfile],
    ) -> Result<Box<dyn Plan>, BackendError> {
        let Target {
            library,
            capability,
            options,
        } = &*self.target;
        let (major, minor) = capability;
        let name = format!("{major}.{minor}");
        let recipe = Recipe::new(&self.hashed, (shapes, profiles), library, &name, options)?;
        let recipe = recipe.for_target(*capability);
        let build = || recipe.build(library, None);
        options
            .cache
            .get_or_build(&recipe.key, &*options.watch, build)?;
        Ok(Box::new(Unrunnable {
            graph: recipe.graph.name.clone(),
        }))
    }
}

/// An engine for another machine.
struct Unrunnable {
    graph: Arc<str>,
}

impl Plan for Unrunnable {
    fn output_shape(&self, _: usize) -> &[usize] {
        &[]
    }

    fn session(&self) -> Result<Box<dyn Session>, BackendError> {
        Err(BackendError::Run {
            backend: NAME,
            graph: self.graph.to_string(),
            what: "this engine was built ahead of time for another machine".into(),
        })
    }
}

impl TensorRt {
    /// The version of the library selected by `options`, and whether it can build engines.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`].
    pub fn probe(options: &Options) -> Result<(String, bool), BackendError> {
        let library = library(options).map_err(|e| unavailable(&e, options))?;
        Ok((library.version().to_string(), library.can_build()))
    }

    /// Why there is no GPU; `None` if there is one.
    pub fn no_gpu(options: &Options) -> Option<String> {
        let device = cuda(options).and_then(|cuda| Device::new(&cuda, options.device));
        device.err().map(|e| e.to_string())
    }
}
