//! Compiled graphs and their idle sessions, kept for the shapes in use.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex},
};

use loftup_bundle::{Bundle, Precision};

use crate::{
    RuntimeError,
    backend::{Backend, BackendError, GraphSource, Plan, Session, ShapeProfile},
    threads::lock,
};

/// Shapes of one graph that are kept compiled.
const KEPT: usize = 8;

/// One graph of a bundle, compiled for the shapes it is asked for.
pub(crate) struct Plans {
    bundle: Arc<Bundle>,
    backend: Arc<dyn Backend>,
    file: String,
    precision: Precision,
    outputs: Vec<String>,
    /// Most recently used last.
    compiled: Mutex<Vec<(Shapes, Arc<Pool>)>>,
}

/// Inputs of a graph, in order.
pub(crate) type Shapes = Vec<(String, Vec<usize>)>;

impl Plans {
    pub fn new(
        bundle: &Arc<Bundle>,
        backend: &Arc<dyn Backend>,
        file: &str,
        precision: Precision,
        outputs: Vec<String>,
    ) -> Self {
        Self {
            bundle: bundle.clone(),
            backend: backend.clone(),
            file: file.into(),
            precision,
            outputs,
            compiled: Mutex::new(Vec::new()),
        }
    }

    /// Lets go of what is compiled.
    pub fn clear(&self) {
        lock(&self.compiled).clear();
    }

    /// The plan for these input shapes; compiles it the first time. `profiles` are all shapes that
    /// this graph will be asked for, where they are known.
    pub fn get(
        &self,
        shapes: &Shapes,
        profiles: &[ShapeProfile],
    ) -> Result<Arc<Pool>, RuntimeError> {
        // Held while compiling, so that no shape is compiled twice.
        let mut compiled = lock(&self.compiled);
        if let Some(i) = compiled.iter().position(|(s, _)| s == shapes) {
            let entry = compiled.remove(i);
            let pool = entry.1.clone();
            compiled.push(entry);
            return Ok(pool);
        }
        log::debug!(
            "{}: compiling {} for {shapes:?}",
            self.backend.name(),
            self.file
        );
        let onnx = self.bundle.read(&self.file)?;
        let inputs: Vec<_> = shapes
            .iter()
            .map(|(n, s)| (n.as_str(), s.as_slice()))
            .collect();
        let outputs: Vec<_> = self.outputs.iter().map(String::as_str).collect();
        let name = self.bundle.path().join(&self.file).display().to_string();
        let plan = self.backend.compile(&GraphSource {
            name: &name,
            onnx: &onnx,
            precision: self.precision,
            inputs: &inputs,
            outputs: &outputs,
            profiles,
        })?;
        let pool = Arc::new(Pool {
            plan,
            idle: Mutex::new(Vec::new()),
        });
        if compiled.len() == KEPT {
            compiled.remove(0);
        }
        compiled.push((shapes.clone(), pool.clone()));
        Ok(pool)
    }
}

/// A compiled graph and the sessions that wait for their next use.
pub(crate) struct Pool {
    plan: Box<dyn Plan>,
    idle: Mutex<Vec<Box<dyn Session>>>,
}

impl Pool {
    pub fn output_shape(&self, index: usize) -> &[usize] {
        self.plan.output_shape(index)
    }

    /// A session, back in the pool when dropped. Its inputs are as its last user left them.
    pub fn session(&self) -> Result<Lease<'_>, BackendError> {
        let idle = lock(&self.idle).pop();
        let session = match idle {
            Some(session) => session,
            None => self.plan.session()?,
        };
        Ok(Lease {
            pool: self,
            session: Some(session),
        })
    }
}

/// A session in use.
pub(crate) struct Lease<'a> {
    pool: &'a Pool,
    session: Option<Box<dyn Session>>,
}

impl Lease<'_> {
    /// Drops the session instead of returning it: after a failure its state is unknown.
    pub fn discard(mut self) {
        self.session = None;
    }
}

impl Deref for Lease<'_> {
    type Target = dyn Session;

    fn deref(&self) -> &Self::Target {
        self.session.as_deref().expect("present until dropped")
    }
}

impl DerefMut for Lease<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.session.as_deref_mut().expect("present until dropped")
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            lock(&self.pool.idle).push(session);
        }
    }
}
