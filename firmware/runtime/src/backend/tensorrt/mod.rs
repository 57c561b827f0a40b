//! The TensorRT backend, for a Jetson or a desktop with an NVIDIA GPU.
//!
//! No NVIDIA files are needed to build it; the libraries are opened at run time
//! (`loftup-tensorrt`). An engine is built from the bundle's ONNX graph on first use, which can
//! take minutes, and then cached ([`super::engine_cache`]).

mod ahead;
mod build;
mod session;

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use loftup_bundle::Precision;
use loftup_tensorrt::{
    Engine, Error, Layout, Library, Runtime,
    cuda::{Cuda, Device, Stream},
};
use parking_lot::Mutex;

pub use self::ahead::AheadOfTime;
use self::{
    build::{Hashed, Recipe},
    session::{Copies, PlanParts, TensorRtPlan},
};
use super::{
    Arithmetic, Backend, BackendError, Graph, Model, Plan, ShapeProfile, TilingHint,
    engine_cache::{BuildWatch, EngineCache, EngineKey, LogWatch},
};
pub use loftup_tensorrt::Copied;

/// FP16 before INT8: for transformers INT8 is rarely faster, and always less accurate.
const PRECISIONS: [Precision; 4] = [
    Precision::Fp16,
    Precision::Int8,
    Precision::Fp16Weights,
    Precision::Fp32,
];

/// The backend's name, as in `--backend`.
pub(super) const NAME: &str = "tensorrt";

/// How TensorRT is found, and how engines are built and run.
#[derive(Clone)]
pub struct Options {
    /// The library or its directory; `None` uses `LOFTUP_TENSORRT`, or else the loader's search
    /// path.
    pub library: Option<PathBuf>,
    /// The CUDA driver library; `None` uses `LOFTUP_LIBCUDA`, or else the loader's search path.
    pub libcuda: Option<PathBuf>,
    /// Number of the GPU, from 0.
    pub device: u32,
    /// Maximum GPU scratch memory of a layer, in bytes.
    pub workspace: u64,
    /// DLA core for supported layers; the others run on the GPU.
    pub dla_core: Option<u32>,
    /// Whether 32-bit products may be rounded to a 10-bit mantissa (TF32).
    pub tf32: bool,
    /// Whether runs are captured and launched as a CUDA graph.
    pub cuda_graph: bool,
    /// Whether the image and the result of a graph for whole frames are not copied on a GPU that shares the
    /// memory of the CPU, as on a Jetson. Inputs of other graphs are always copied: the GPU reads them
    /// repeatedly, and does not cache host memory.
    pub zero_copy: bool,
    /// Maximum time to wait for the GPU before a run fails. [`super::Fallback`] has its own limits,
    /// which should be shorter.
    pub gpu_limit: Duration,
    /// Where engines are cached.
    pub cache: EngineCache,
    /// Receives progress of builds and can cancel them.
    pub watch: Arc<dyn BuildWatch>,
}

impl Options {
    /// Default scratch memory: enough for every graph of this project without splitting.
    pub const WORKSPACE: u64 = 1 << 30;
}

impl Default for Options {
    fn default() -> Self {
        Self {
            library: None,
            libcuda: None,
            device: 0,
            workspace: Self::WORKSPACE,
            dla_core: None,
            tf32: false,
            cuda_graph: false,
            zero_copy: true,
            gpu_limit: Duration::from_secs(60),
            cache: EngineCache::of_user(),
            watch: Arc::new(LogWatch::default()),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("library", &self.library)
            .field("device", &self.device)
            .field("workspace", &self.workspace)
            .field("dla_core", &self.dla_core)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

/// Opens the library selected by the options. Calls only its version function.
fn library(options: &Options) -> Result<Library, Error> {
    match &options.library {
        Some(path) => Library::open(path),
        None => Library::find(),
    }
}

fn unavailable(e: &Error, options: &Options) -> BackendError {
    let named = |variable| std::env::var_os(variable).is_some_and(|value| !value.is_empty());
    let nobody_asked = options.library.is_none() && !named(loftup_tensorrt::VARIABLE);
    BackendError::Unavailable {
        backend: NAME,
        what: e.to_string(),
        absent: nobody_asked
            && matches!(e, Error::NoLibrary { .. })
            && matches!(cuda(options), Err(Error::NoCuda { .. })),
    }
}

/// Opens the driver.
fn cuda(options: &Options) -> Result<Cuda, Error> {
    match &options.libcuda {
        Some(path) => Cuda::open(path),
        None => Cuda::find(),
    }
}

/// TensorRT on one GPU.
pub struct TensorRt(Arc<OnGpu>);

/// The state shared by the backend and its loaded graphs.
struct OnGpu {
    library: Library,
    device: Arc<Device>,
    runtime: Mutex<Runtime>,
    options: Options,
    capability: (u32, u32),
    /// Engines in use, shared by plans for different shapes of the same graph.
    engines: Mutex<Vec<(EngineKey, Weak<Engine>)>>,
    copies: Arc<Copies>,
}

impl TensorRt {
    /// Opens TensorRT and the GPU.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] with the reason: no library, an unsupported version, no
    /// driver, or no GPU.
    pub fn open(options: Options) -> Result<Self, BackendError> {
        let opened = OnGpu::open(&options).map_err(|e| unavailable(&e, &options))?;
        Ok(Self(Arc::new(opened)))
    }

    /// Bytes that all completed runs have copied between host and GPU.
    pub fn copied(&self) -> Copied {
        self.0.copies.total()
    }
}

impl OnGpu {
    fn open(options: &Options) -> Result<Self, Error> {
        let library = library(options)?;
        let device = Device::new(&cuda(options)?, options.device)?;
        let mut runtime = Runtime::new(&library, &device)?;
        if let Some(core) = options.dla_core {
            runtime.set_dla_core(core)?;
        }
        Ok(Self {
            capability: device.compute_capability()?,
            runtime: Mutex::new(runtime),
            engines: Mutex::default(),
            copies: Arc::default(),
            library,
            device,
            options: options.clone(),
        })
    }

    /// The engine for `key`: one in use, from the cache, or newly built.
    fn engine(&self, recipe: &Recipe<'_>) -> Result<Arc<Engine>, BackendError> {
        // Held while building, so that no engine is built twice.
        let mut engines = self.engines.lock();
        engines.retain(|(_, engine)| engine.strong_count() > 0);
        let known = engines.iter().find(|(known, _)| *known == recipe.key);
        if let Some(engine) = known.and_then(|(_, engine)| engine.upgrade()) {
            return Ok(engine);
        }
        let engine = self.read(recipe)?;
        engines.push((recipe.key.clone(), Arc::downgrade(&engine)));
        Ok(engine)
    }

    /// The engine from the cache, or newly built; not shared.
    fn read(&self, recipe: &Recipe<'_>) -> Result<Arc<Engine>, BackendError> {
        let (cache, watch) = (&self.options.cache, &*self.options.watch);
        let mut again = true;
        loop {
            let build = || recipe.build(&self.library, Some(&self.device));
            let (bytes, _) = cache.get_or_build(&recipe.key, watch, build)?;
            match self.runtime.lock().deserialize(&bytes) {
                Ok(engine) => return Ok(engine),
                // For example, the driver has changed. Only once: if a new engine is rejected as
                // well, return the error.
                Err(e) if std::mem::take(&mut again) => {
                    cache.reject(&recipe.key, watch, &e.to_string());
                }
                Err(e) => return Err(recipe.failed(&e)),
            }
        }
    }
}

impl Backend for TensorRt {
    fn name(&self) -> &'static str {
        NAME
    }

    fn load(&self, graph: &Graph) -> Result<Arc<dyn Model>, BackendError> {
        Ok(Arc::new(TensorRtModel {
            gpu: self.0.clone(),
            hashed: Hashed::new(graph),
        }))
    }

    fn tiling_hint(&self) -> TilingHint {
        // See `TensorRtModel::compile`.
        let sessions = match self.0.library.layout() {
            Layout::V8 => 1,
            _ => TilingHint::GPU.sessions,
        };
        TilingHint {
            sessions,
            ..TilingHint::GPU
        }
    }

    fn fuses_heads(&self) -> bool {
        true
    }

    fn precisions(&self) -> [Precision; 4] {
        PRECISIONS
    }

    fn arithmetic(&self, _: Precision) -> Option<Arithmetic> {
        Some(match self.0.options.tf32 {
            true => Arithmetic::Tf32,
            false => Arithmetic::Fp32,
        })
    }

    fn describe(&self) -> String {
        let name = self.0.device.name().unwrap_or_else(|_| "GPU".into());
        let (major, minor) = self.0.capability;
        format!("{} on {name} ({major}.{minor})", self.0.library.version())
    }
}

/// A graph from which engines are built.
struct TensorRtModel {
    gpu: Arc<OnGpu>,
    hashed: Hashed,
}

impl Model for TensorRtModel {
    fn compile(
        &self,
        shapes: &[Vec<usize>],
        profiles: &[ShapeProfile],
    ) -> Result<Box<dyn Plan>, BackendError> {
        let gpu = &self.gpu;
        let capability = format!("{}.{}", gpu.capability.0, gpu.capability.1);
        let asked = (shapes, profiles);
        let recipe = Recipe::new(&self.hashed, asked, &gpu.library, &capability, &gpu.options)?;
        // In TensorRT 8, two contexts cannot use the same profile of an engine.
        let engine = match gpu.library.layout() {
            Layout::V8 => gpu.read(&recipe),
            _ => gpu.engine(&recipe),
        }?;
        let failed = |e: Error| recipe.failed(&e);
        let parts =
            PlanParts::new(&recipe, &engine, &gpu.options, &gpu.copies).map_err(|e| match e {
                session::Mismatch::Error(e) => recipe.failed(&e),
                session::Mismatch::Graph(what) => recipe.graph.rejected(NAME, what),
            })?;
        // Create the first session now, so that errors are found before it is used, and because it
        // determines the output shapes.
        let stream = Stream::new(&gpu.device).map_err(failed)?;
        let first = parts.open(&engine, &stream).map_err(failed)?;
        let outputs = first.output_shapes().map_err(failed)?;
        Ok(Box::new(TensorRtPlan::new(parts, engine, first, outputs)))
    }
}
