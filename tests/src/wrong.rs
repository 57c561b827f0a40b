//! An engine that computes something plausible and wrong.

use std::sync::Arc;

use loftup_runtime::backend::{
    Backend, BackendError, Graph, Model, Plan, Session, ShapeProfile, TractBackend,
};

/// tract, as if on another device, with some outputs multiplied by a factor.
pub struct Wrong {
    /// Which outputs.
    pub outputs: Outputs,
    /// The factor.
    pub by: f32,
}

/// Outputs of graphs.
#[derive(Debug, Clone, Copy)]
pub enum Outputs {
    /// None: this engine is right.
    None,
    /// That of this name.
    Named(&'static str),
    /// All of the graph in this file.
    OfGraph(&'static str),
}

impl Backend for Wrong {
    fn name(&self) -> &'static str {
        "wrong"
    }

    fn fuses_heads(&self) -> bool {
        true
    }

    fn load(&self, graph: &Graph) -> Result<Arc<dyn Model>, BackendError> {
        let is_wrong = |name: &String| match self.outputs {
            Outputs::None => false,
            Outputs::Named(wrong) => name == wrong,
            Outputs::OfGraph(file) => graph.file() == file,
        };
        let factor = |name| if is_wrong(name) { self.by } else { 1.0 };
        Ok(Arc::new(WrongModel {
            inner: TractBackend.load(graph)?,
            factors: graph.outputs.iter().map(factor).collect(),
        }))
    }
}

struct WrongModel {
    inner: Arc<dyn Model>,
    /// Of each output.
    factors: Arc<[f32]>,
}

impl Model for WrongModel {
    fn compile(
        &self,
        shapes: &[Vec<usize>],
        profiles: &[ShapeProfile],
    ) -> Result<Box<dyn Plan>, BackendError> {
        // Whatever is asked is within the profiles that an engine is built for.
        assert!(profiles.is_empty() || profiles.iter().any(|p| p.contains(shapes)));
        Ok(Box::new(WrongPlan {
            inner: self.inner.compile(shapes, profiles)?,
            factors: self.factors.clone(),
        }))
    }
}

struct WrongPlan {
    inner: Box<dyn Plan>,
    factors: Arc<[f32]>,
}

impl Plan for WrongPlan {
    fn output_shape(&self, index: usize) -> &[usize] {
        self.inner.output_shape(index)
    }

    fn session(&self) -> Result<Box<dyn Session>, BackendError> {
        Ok(Box::new(WrongSession {
            inner: self.inner.session()?,
            values: vec![Vec::new(); self.factors.len()],
            factors: self.factors.clone(),
        }))
    }
}

struct WrongSession {
    inner: Box<dyn Session>,
    values: Vec<Vec<f32>>,
    factors: Arc<[f32]>,
}

impl Session for WrongSession {
    fn set(&mut self, input: usize, values: &[f32]) -> Result<(), BackendError> {
        self.inner.set(input, values)
    }

    fn set_bytes(&mut self, input: usize, values: &[u8]) -> Result<(), BackendError> {
        self.inner.set_bytes(input, values)
    }

    fn run(&mut self) -> Result<(), BackendError> {
        self.inner.run()?;
        for (i, (values, by)) in self.values.iter_mut().zip(&*self.factors).enumerate() {
            values.clear();
            values.extend(self.inner.output(i).iter().map(|x| x * by));
        }
        Ok(())
    }

    fn output(&self, index: usize) -> &[f32] {
        &self.values[index]
    }

    fn output_bytes(&self, index: usize) -> &[u8] {
        self.inner.output_bytes(index)
    }
}
