//! What runs a graph: one trait, one implementation per engine.
//!
//! A [`Backend`] loads a [`Graph`] once into a [`Model`], which is then compiled for fixed input
//! shapes into a [`Plan`]. A plan is shared by all threads; each thread that runs it does so
//! through a [`Session`] of its own, which keeps its inputs between runs: what does not change
//! from tile to tile is set once per frame.
//!
//! [`CpuBackend`] runs everywhere, [`TensorRt`] where NVIDIA's libraries and a GPU are, and
//! [`Fallback`] moves from one to the other when it fails. [`open`] makes the one that is asked
//! for by name.

mod choice;
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

pub(crate) use self::native::kernel_isa;
pub use self::{
    choice::{Choice, Settings, open},
    error::BackendError,
    fallback::Fallback,
    graph::{Graph, ShapeBounds, ShapeProfile, compile_once},
    health::{Counters, Health, State},
    supervisor::FallbackOptions,
    tensorrt::TensorRt,
    tract::{CpuBackend, TractBackend},
};

/// How an engine likes its work cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TilingHint {
    /// Longest side of a tile of a frame, in pixels.
    pub frame: usize,
    /// Longest side of a tile of a region, in pixels.
    pub region: usize,
    /// Sessions of one graph that are of use at the same time.
    pub sessions: usize,
}

impl TilingHint {
    /// A CPU: the activations of a tile of a frame fit in a 1 MB cache; tiles of a region are
    /// larger, so that fewer pixels are lost to the halo; any number of threads.
    pub const CPU: Self = Self {
        frame: 32,
        region: 64,
        sessions: usize::MAX,
    };

    /// A GPU: large launches, and no more sessions than keep it busy while one fills its inputs.
    /// The side is that of the frames LoftUp was trained on; the activations take some 300 MB.
    pub const GPU: Self = Self {
        frame: 224,
        region: 224,
        sessions: 2,
    };
}

/// The arithmetic in which an engine runs a 32-bit graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// 32-bit floats.
    Fp32,
    /// Products of values that are rounded to a mantissa of 10 bits.
    Tf32,
}

/// An inference engine.
pub trait Backend: Send + Sync {
    /// Its name, as in `--backend`.
    fn name(&self) -> &'static str;

    /// Reads a graph, for [`Model::compile`] to compile it for any number of shapes.
    ///
    /// # Errors
    /// Where the engine cannot read it. An engine that reads a graph only when it builds it
    /// reports this in [`Model::compile`].
    fn load(&self, graph: &Graph) -> Result<Arc<dyn Model>, BackendError>;

    /// How it likes its work cut. May change while it is used.
    fn tiling_hint(&self) -> TilingHint {
        TilingHint::CPU
    }

    /// The precisions it can run, the one to take first where a bundle has several.
    ///
    /// A CPU computes in 32 bits whatever the graph says, and takes the one that was rounded least.
    fn precisions(&self) -> [Precision; 4] {
        [
            Precision::Fp32,
            Precision::Fp16Weights,
            Precision::Fp16,
            Precision::Int8,
        ]
    }

    /// How it is.
    fn health(&self) -> Health {
        Health::healthy(self.name())
    }

    /// The arithmetic in which it runs 32-bit graphs, if it is to be compared with the reference
    /// outputs of a bundle before what it computes is used. `None` for the engine that makes
    /// reference outputs, and for those that only measure it or cannot run anything here.
    fn arithmetic(&self) -> Option<Arithmetic> {
        Some(Arithmetic::Fp32)
    }

    /// Told that what it computes is not as the reference outputs of a bundle, in the words of
    /// `error`.
    ///
    /// # Errors
    /// `error` again, unless another engine stands in from now on and for good.
    fn distrust(&self, error: BackendError) -> Result<(), BackendError> {
        Err(error)
    }

    /// Name, version and device, for people.
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

    fn precisions(&self) -> [Precision; 4] {
        (**self).precisions()
    }

    fn health(&self) -> Health {
        (**self).health()
    }

    fn arithmetic(&self) -> Option<Arithmetic> {
        (**self).arithmetic()
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
    /// `profiles` are the shapes that the graph will be compiled for sooner or later. An engine
    /// that is slow to build builds once for all of them; others look at `shapes` alone.
    ///
    /// # Errors
    /// Where the graph does not take these shapes, or the build fails or is cancelled.
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

    /// A new state in which one thread at a time can run the graph.
    ///
    /// # Errors
    /// Where the engine has no room for another one.
    fn session(&self) -> Result<Box<dyn Session>, BackendError>;
}

/// A running instance of a graph. All values are 32-bit floats, last axis fastest.
pub trait Session: Send {
    /// Sets an input; it stays set until it is set again.
    ///
    /// # Errors
    /// Where `values` is not as long as the input.
    fn set(&mut self, input: usize, values: &[f32]) -> Result<(), BackendError>;

    /// Runs the graph. Every input must have been set once.
    ///
    /// # Errors
    /// Where the engine fails, or an input has not been set.
    fn run(&mut self) -> Result<(), BackendError>;

    /// An output of the last run; empty before the first.
    fn output(&self, index: usize) -> &[f32];
}
