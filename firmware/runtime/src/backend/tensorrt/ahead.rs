//! Building engines without running them.

use loftup_bundle::Precision;
use loftup_tensorrt::{Library, cuda::Device};

use super::{NAME, Options, PRECISIONS, build::Recipe, cuda, library, unavailable};
use crate::backend::{
    Arithmetic, Backend, BackendError, Granularity, GraphSource, Plan, Session, TensorRt,
};

/// Builds engines for a GPU that is not there, and keeps them in the cache for when it is. Only
/// TensorRT-RTX can.
pub struct AheadOfTime {
    library: Library,
    target: (u32, u32),
    options: Options,
}

impl AheadOfTime {
    /// For GPUs of this compute capability, as (8, 6).
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] where there is no TensorRT-RTX.
    pub fn open(target: (u32, u32), options: Options) -> Result<Self, BackendError> {
        let library = library(&options).map_err(|e| unavailable(&e, &options))?;
        if !library.layout().is_rtx() {
            return Err(BackendError::Unavailable {
                backend: NAME,
                what: format!(
                    "{} builds engines only on the GPU that will run them; build there, or name a TensorRT-RTX in LOFTUP_TENSORRT",
                    library.version()
                ),
                absent: false,
            });
        }
        Ok(Self {
            library,
            target,
            options,
        })
    }
}

impl Backend for AheadOfTime {
    fn name(&self) -> &'static str {
        NAME
    }

    fn compile(&self, graph: &GraphSource<'_>) -> Result<Box<dyn Plan>, BackendError> {
        let (major, minor) = self.target;
        let capability = format!("{major}.{minor}");
        let recipe = Recipe::new(graph, &self.library, &capability, &self.options);
        let recipe = recipe.for_target(self.target);
        let build = || recipe.build(&self.library, None);
        let watch = &*self.options.watch;
        self.options.cache.get_or_build(&recipe.key, watch, build)?;
        Ok(Box::new(Unrunnable {
            graph: graph.name.into(),
        }))
    }

    fn granularity(&self) -> Granularity {
        Granularity::GPU
    }

    fn precisions(&self) -> [Precision; 4] {
        PRECISIONS
    }

    /// It cannot be compared here, but is on the machine that will run it.
    fn arithmetic(&self) -> Option<Arithmetic> {
        None
    }

    fn describe(&self) -> String {
        let (major, minor) = self.target;
        format!("{} for GPUs {major}.{minor}", self.library.version())
    }
}

/// An engine for another machine.
struct Unrunnable {
    graph: String,
}

impl Plan for Unrunnable {
    fn output_shape(&self, _: usize) -> &[usize] {
        &[]
    }

    fn session(&self) -> Result<Box<dyn Session>, BackendError> {
        Err(BackendError::Run {
            backend: NAME,
            graph: self.graph.clone(),
            what: "this engine was built ahead of time for another machine".into(),
        })
    }
}

impl TensorRt {
    /// The version of the library that the options name, and whether it can build engines.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`].
    pub fn probe(options: &Options) -> Result<(String, bool), BackendError> {
        let library = library(options).map_err(|e| unavailable(&e, options))?;
        Ok((library.version().to_string(), library.can_build()))
    }

    /// Why there is no GPU; `None` where there is one.
    pub fn no_gpu(options: &Options) -> Option<String> {
        let device = cuda(options).and_then(|cuda| Device::new(&cuda, options.device));
        device.err().map(|e| e.to_string())
    }
}
