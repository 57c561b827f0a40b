//! Backends, which run graphs: one trait, with one implementation per inference library.
//!
//! A [`Backend`] loads a [`Graph`] once into a [`Model`], which is then compiled for fixed input
//! shapes into a [`Plan`]. A plan is shared by all threads; each thread runs it through its own
//! [`Session`], which keeps its inputs between runs, so that inputs that do not change from tile to
//! tile are set once per frame.
//!
//! [`CpuBackend`] runs on any machine, [`TensorRt`] needs NVIDIA's libraries and a GPU, and
//! [`Fallback`] switches from one to the other on failure. [`open`] selects a backend by name.

mod choice;
mod cpu_precision;
pub mod engine_cache;
mod error;
mod fallback;
pub mod fault;
mod finite;
mod graph;
mod health;
mod native;
mod shared;
mod supervisor;
pub mod tensorrt;
mod tract;
mod watchdog;

use std::sync::Arc;

use loftup_bundle::Precision;

pub(crate) use self::native::{kernel_isa, kernels};
pub use self::{
    choice::{Choice, Settings, open},
    cpu_precision::CpuPrecision,
    error::BackendError,
    fallback::Fallback,
    graph::{Graph, ShapeBounds, ShapeProfile, compile_once},
    health::{Counters, Health, State},
    supervisor::FallbackOptions,
    tensorrt::TensorRt,
    tract::{CpuBackend, NarrowCpuBackend, TractBackend},
};
/// The arithmetic of the matrix products in the upsampler's queries graph on a CPU.
pub use loftup_kernels::Arithmetic as Products;

/// Preferred tile sizes and concurrency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TilingHint {
    /// Maximum tile side for a whole image, in pixels.
    pub frame: usize,
    /// Maximum tile side for a region, in pixels.
    pub region: usize,
    /// Number of concurrent sessions per graph beyond which throughput does not improve.
    pub sessions: usize,
}

impl TilingHint {
    /// For a CPU: the activations of a whole-image tile fit in 1 MB of cache; region tiles are larger,
    /// so that the halo costs less; any number of threads.
    pub const CPU: Self = Self {
        frame: 32,
        region: 64,
        sessions: usize::MAX,
    };

    /// For a GPU: large launches, and just enough sessions to keep it busy while another session fills
    /// its inputs. The tile side is the image size on which LoftUp was trained; the activations of
    /// one tile take about 300 MB.
    pub const GPU: Self = Self {
        frame: 224,
        region: 224,
        sessions: 2,
    };
}

/// The arithmetic that a backend uses for 32-bit graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// 32-bit floating point.
    Fp32,
    /// TF32: products of values rounded to a 10-bit mantissa.
    Tf32,
    /// This arithmetic for the matrix products of the upsampler's queries graph, 32 bits for the rest.
    Products(Products),
}

/// An inference backend.
pub trait Backend: Send + Sync {
    /// The name, as in `--backend`.
    fn name(&self) -> &'static str;

    /// Loads a graph. [`Model::compile`] then compiles it for any number of shapes.
    ///
    /// # Errors
    /// The backend cannot load it. Backends that read the graph only when they build it report this
    /// in [`Model::compile`].
    fn load(&self, graph: &Graph) -> Result<Arc<dyn Model>, BackendError>;

    /// Preferred tile sizes and concurrency. May change over time.
    fn tiling_hint(&self) -> TilingHint {
        TilingHint::CPU
    }

    /// Whether heads run inside the queries graph, which then returns the outputs of the head instead
    /// of features. This is faster if outputs are copied from a device.
    fn fuses_heads(&self) -> bool {
        false
    }

    /// The precisions that the backend can run, in order of preference, for bundles with several.
    ///
    /// A CPU always computes in 32 bits and prefers the most precise graph.
    fn precisions(&self) -> [Precision; 4] {
        [
            Precision::Fp32,
            Precision::Fp16Weights,
            Precision::Fp16,
            Precision::Int8,
        ]
    }

    /// The health of the backend.
    fn health(&self) -> Health {
        Health::healthy(self.name())
    }

    /// The arithmetic used for graphs of this precision wherever the graph does not prescribe one. Its outputs are
    /// compared with the bundle's reference outputs before they are used. `None` if no comparison is needed: for the
    /// backend that computes the reference outputs, and for backends that are only used to measure the error or cannot
    /// run anything on this machine.
    fn arithmetic(&self, _: Precision) -> Option<Arithmetic> {
        Some(Arithmetic::Fp32)
    }

    /// Reports that the outputs differ from the bundle's reference outputs, as described by `error`.
    ///
    /// # Errors
    /// Returns `error` unless a fallback takes over permanently.
    fn distrust(&self, error: BackendError) -> Result<(), BackendError> {
        Err(error)
    }

    /// Library, version and device, for messages.
    fn describe(&self) -> String {
        self.name().into()
    }
}

impl<B: Backend + ?Sized> Backend for Arc<B> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn load(&self, graph: &Graph) -> Result<Arc<dyn Model>, BackendError> {
        (**self).load(graph)
    }

    fn tiling_hint(&self) -> TilingHint {
        (**self).tiling_hint()
    }

    fn fuses_heads(&self) -> bool {
        (**self).fuses_heads()
    }

    fn precisions(&self) -> [Precision; 4] {
        (**self).precisions()
    }

    fn health(&self) -> Health {
        (**self).health()
    }

    fn arithmetic(&self, precision: Precision) -> Option<Arithmetic> {
        (**self).arithmetic(precision)
    }

    fn distrust(&self, error: BackendError) -> Result<(), BackendError> {
        (**self).distrust(error)
    }

    fn describe(&self) -> String {
        (**self).describe()
    }
}

/// A loaded graph, shared between threads.
pub trait Model: Send + Sync {
    /// Compiles the graph for these input shapes, in the order of [`Graph::inputs`].
    ///
    /// `profiles` are all shapes that the graph will be compiled for. A backend with slow builds
    /// builds once for all of them; others only use `shapes`.
    ///
    /// # Errors
    /// The graph does not support these shapes, or the build fails or is cancelled.
    fn compile(
        &self,
        shapes: &[Vec<usize>],
        profiles: &[ShapeProfile],
    ) -> Result<Box<dyn Plan>, BackendError>;
}

/// A compiled graph, shared between threads.
pub trait Plan: Send + Sync {
    /// Shape of an output.
    fn output_shape(&self, index: usize) -> &[usize];

    /// Creates a session, in which one thread at a time can run the graph.
    ///
    /// # Errors
    /// The backend cannot create another session.
    fn session(&self) -> Result<Box<dyn Session>, BackendError>;
}

/// An execution context of a graph. Values are in row-major order: 32-bit floats, or bytes where the graph
/// has 8-bit unsigned integers.
pub trait Session: Send {
    /// Sets an input, which is kept until it is set again.
    ///
    /// # Errors
    /// `values` does not have the length of the input.
    fn set(&mut self, input: usize, values: &[f32]) -> Result<(), BackendError>;

    /// Sets an input of bytes, which is kept until it is set again.
    ///
    /// # Errors
    /// `values` does not have the length of the input, or the backend does not support such inputs.
    fn set_bytes(&mut self, input: usize, values: &[u8]) -> Result<(), BackendError> {
        let _ = values;
        Err(BackendError::Run {
            backend: "this backend",
            graph: format!("input {input}"),
            what: "only inputs of 32-bit floats are supported".into(),
        })
    }

    /// Runs the graph. Every input must have been set.
    ///
    /// # Errors
    /// The backend fails, or an input has not been set.
    fn run(&mut self) -> Result<(), BackendError>;

    /// An output of the last run; empty before the first, and for an output of bytes.
    fn output(&self, index: usize) -> &[f32];

    /// An output of bytes of the last run; empty before the first, and for an output of floats. A value of 255
    /// stands for a result that is not finite.
    fn output_bytes(&self, _index: usize) -> &[u8] {
        &[]
    }
}
