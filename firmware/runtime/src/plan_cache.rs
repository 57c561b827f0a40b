//! A cache of compiled plans, with their idle sessions.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use loftup_bundle::{Bundle, Precision, sha256_hex};
use loftup_onnx::loftup::with_head;
use parking_lot::Mutex;

use crate::{
    RuntimeError,
    backend::{Backend, BackendError, Graph, Model, Plan, Session, ShapeProfile},
};

/// Maximum number of compiled plans per graph.
const CAPACITY: usize = 8;

/// One graph of a bundle, loaded on first use and compiled for each shape in use.
pub(crate) struct PlanCache {
    bundle: Arc<Bundle>,
    backend: Arc<dyn Backend>,
    source: Source,
    state: Mutex<Compiled>,
}

/// A graph of a bundle.
#[derive(Clone)]
pub(crate) struct Source {
    /// File in the bundle.
    pub file: String,
    /// Whether a head is appended ([`with_head`]).
    pub head: bool,
    pub precision: Precision,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
}

#[derive(Default)]
struct Compiled {
    model: Option<Arc<dyn Model>>,
    /// Most recently used last.
    plans: Vec<(Shapes, Arc<SessionPool>)>,
}

/// Shapes of the inputs of a graph, in order.
pub(crate) type Shapes = Vec<Vec<usize>>;

impl PlanCache {
    pub fn new(bundle: &Arc<Bundle>, backend: &Arc<dyn Backend>, source: Source) -> Self {
        Self {
            bundle: bundle.clone(),
            backend: backend.clone(),
            source,
            state: Mutex::default(),
        }
    }

    /// Drops the plans; the graph stays loaded.
    pub fn clear(&self) {
        self.state.lock().plans.clear();
    }

    /// Drops sessions that are not in use.
    pub fn drop_idle_sessions(&self) {
        for (_, pool) in &self.state.lock().plans {
            pool.idle.lock().clear();
        }
    }

    /// Returns the plan for these input shapes, compiled on first use. `profiles` are the optimization
    /// profiles of the graph, if known.
    pub fn get(
        &self,
        shapes: &Shapes,
        profiles: &[ShapeProfile],
    ) -> Result<Arc<SessionPool>, RuntimeError> {
        // Held while loading and compiling, so that neither is done twice.
        let mut state = self.state.lock();
        if let Some(i) = state.plans.iter().position(|(s, _)| s == shapes) {
            let entry = state.plans.remove(i);
            let pool = entry.1.clone();
            state.plans.push(entry);
            return Ok(pool);
        }
        let (engine, Source { file, inputs, .. }) = (self.backend.name(), &self.source);
        let model = match &state.model {
            Some(model) => model.clone(),
            None => state.model.insert(self.load()?).clone(),
        };
        log::debug!("{engine}: compiling {file} for {inputs:?} of {shapes:?}");
        let plan = model.compile(shapes, profiles)?;
        let pool = Arc::new(SessionPool {
            plan,
            idle: Mutex::new(Vec::new()),
        });
        if state.plans.len() == CAPACITY {
            state.plans.remove(0);
        }
        state.plans.push((shapes.clone(), pool.clone()));
        Ok(pool)
    }

    fn load(&self) -> Result<Arc<dyn Model>, RuntimeError> {
        let source = &self.source;
        let path = self.bundle.path().join(&source.file);
        let name = path.display().to_string();
        let mut onnx = self.bundle.read(&source.file)?;
        // `Bundle::read` has checked the hash.
        let files = &self.bundle.manifest().files;
        let mut sha256 = files.get(&source.file).map(|f| f.sha256.as_str().into());
        if source.head {
            let fused = with_head(&onnx).map_err(|e| BackendError::Load {
                backend: self.backend.name(),
                graph: name.clone(),
                what: e.to_string(),
            });
            onnx = fused?;
            sha256 = Some(sha256_hex(&onnx).into());
        }
        let graph = Graph::new(&name, onnx, &source.inputs, &source.outputs);
        Ok(self.backend.load(&Graph {
            sha256,
            precision: source.precision,
            ..graph
        })?)
    }
}

/// A plan and its idle sessions.
pub(crate) struct SessionPool {
    plan: Box<dyn Plan>,
    idle: Mutex<Vec<Box<dyn Session>>>,
}

impl SessionPool {
    pub fn output_shape(&self, index: usize) -> &[usize] {
        self.plan.output_shape(index)
    }

    /// Runs the graph with these inputs and returns the session with the outputs. If the run fails, the session is
    /// discarded, since its state is unknown.
    pub fn run(&self, inputs: &[&[f32]]) -> Result<PooledSession<'_>, BackendError> {
        let mut session = self.session()?;
        for (i, values) in inputs.iter().enumerate() {
            session.set(i, values)?;
        }
        match session.run() {
            Ok(()) => Ok(session),
            Err(e) => {
                session.discard();
                Err(e)
            }
        }
    }

    /// Takes a session, which returns to the pool when dropped. Its inputs are still those of the previous use.
    pub fn session(&self) -> Result<PooledSession<'_>, BackendError> {
        let idle = self.idle.lock().pop();
        let session = match idle {
            Some(session) => session,
            None => self.plan.session()?,
        };
        Ok(PooledSession {
            pool: self,
            session: Some(session),
        })
    }
}

/// A session in use.
pub(crate) struct PooledSession<'a> {
    pool: &'a SessionPool,
    session: Option<Box<dyn Session>>,
}

impl PooledSession<'_> {
    /// Drops the session instead of returning it: its state after a failure is unknown.
    pub fn discard(mut self) {
        self.session = None;
    }
}

impl Deref for PooledSession<'_> {
    type Target = dyn Session;

    fn deref(&self) -> &Self::Target {
        self.session.as_deref().expect("present until dropped")
    }
}

impl DerefMut for PooledSession<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.session.as_deref_mut().expect("present until dropped")
    }
}

impl Drop for PooledSession<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.pool.idle.lock().push(session);
        }
    }
}
