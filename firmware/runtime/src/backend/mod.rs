//! What runs a graph: one trait, one implementation per engine.
//!
//! A [`Backend`] compiles a graph for fixed input shapes into a [`Plan`]. A plan is shared by all
//! threads; each thread that runs it does so through a [`Session`] of its own, which keeps its
//! inputs between runs: what does not change from tile to tile is set once per frame.

mod tract;

pub use self::tract::Tract;

/// A failure of an engine. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The graph cannot be loaded.
    #[error("{backend} cannot load {graph}: {what}")]
    Load {
        /// The engine.
        backend: &'static str,
        /// The graph.
        graph: String,
        /// What it said.
        what: String,
    },
    /// The graph failed while it ran.
    #[error("{backend} failed in {graph}: {what}")]
    Run {
        /// The engine.
        backend: &'static str,
        /// The graph.
        graph: String,
        /// What it said.
        what: String,
    },
    /// A buffer does not fit the input or output it is for.
    #[error("{graph}: {tensor} holds {expected} values, got {found}")]
    Size {
        /// The graph.
        graph: String,
        /// The input or output.
        tensor: String,
        /// Values it holds.
        expected: usize,
        /// Values that were given.
        found: usize,
    },
}

/// A graph to compile: serialised ONNX, and what its inputs are.
#[derive(Debug, Clone, Copy)]
pub struct GraphSource<'a> {
    /// What messages call it.
    pub name: &'a str,
    /// The ONNX file.
    pub onnx: &'a [u8],
    /// Inputs in the order in which sessions will number them, with their shapes.
    pub inputs: &'a [(&'a str, &'a [usize])],
    /// Outputs in the order in which sessions will number them.
    pub outputs: &'a [&'a str],
}

/// An inference engine.
pub trait Backend: Send + Sync {
    /// Its name, as in `--backend`.
    fn name(&self) -> &'static str;

    /// Compiles a graph for the given shapes.
    fn compile(&self, graph: &GraphSource<'_>) -> Result<Box<dyn Plan>, BackendError>;
}

/// A compiled graph, shared between threads.
pub trait Plan: Send + Sync {
    /// Shape of an output.
    fn output_shape(&self, index: usize) -> &[usize];

    /// A new state in which one thread at a time can run the graph.
    fn session(&self) -> Result<Box<dyn Session>, BackendError>;
}

/// A running instance of a graph. All values are 32-bit floats, last axis fastest.
pub trait Session: Send {
    /// Sets an input; it stays set until it is set again.
    fn set(&mut self, input: usize, values: &[f32]) -> Result<(), BackendError>;

    /// Runs the graph. Every input must have been set once.
    fn run(&mut self) -> Result<(), BackendError>;

    /// An output of the last run; empty before the first.
    fn output(&self, index: usize) -> &[f32];
}
