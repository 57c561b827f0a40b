//! One engine in the place of another that fails.

mod session;

use std::sync::{Arc, Mutex, PoisonError};

use loftup_bundle::Precision;

use self::session::FallbackSession;
use super::{
    Arithmetic, Backend, BackendError, FallbackOptions, Graph, Health, Model, Plan, Session,
    ShapeProfile, TilingHint, graph::Signature, supervisor::Supervisor,
};
use crate::threads::lock;

/// Runs the preferred engine under watch, and moves to the fallback one when it fails.
///
/// A failure is an error, NaN or an infinity out of finite inputs, or no answer in time; in
/// loading a graph as in running it. The run in which it happens is repeated with the same inputs
/// on the fallback engine, so that whoever asked sees nothing but a delay. From then on every session
/// uses the fallback one, until the preferred one is tried again ([`FallbackOptions::retry_after`]):
/// beside the runs, which do not wait for it. What the fallback engine cannot do either is an error
/// of the graph or the question, and moves nothing.
///
/// Without a fallback engine ([`Fallback::alone`]) the same failures are errors.
///
/// A hung call cannot be ended: its thread and memory are given up and counted
/// ([`super::Counters::stuck`]).
pub struct Fallback {
    shared: Arc<Shared>,
}

struct Shared {
    preferred: Option<Arc<dyn Backend>>,
    fallback: Option<Arc<dyn Backend>>,
    supervisor: Supervisor,
}

impl Fallback {
    /// Prefers `preferred`. Where that could not be opened, everything goes to `fallback` from the
    /// start, with a warning that says why.
    pub fn new(
        preferred: Result<Arc<dyn Backend>, BackendError>,
        fallback: Arc<dyn Backend>,
        options: FallbackOptions,
    ) -> Self {
        let name = preferred.as_ref().map_or("tensorrt", |b| b.name());
        let supervisor = Supervisor::new(name, Some(fallback.name()), options);
        let preferred = match preferred {
            Ok(backend) => Some(backend),
            Err(e) => {
                supervisor.count(&e);
                supervisor.degrade(&e, true);
                None
            }
        };
        let shared = Shared {
            preferred,
            fallback: Some(fallback),
            supervisor,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Only `preferred`: what would be a reason to fall back is an error.
    pub fn alone(preferred: Arc<dyn Backend>, options: FallbackOptions) -> Self {
        let supervisor = Supervisor::new(preferred.name(), None, options);
        let shared = Shared {
            preferred: Some(preferred),
            fallback: None,
            supervisor,
        };
        Self {
            shared: Arc::new(shared),
        }
    }
}

impl Shared {
    /// The engine that answers now.
    fn current(&self) -> &Arc<dyn Backend> {
        let (preferred, fallback) = match self.supervisor.is_healthy() {
            true => (&self.preferred, &self.fallback),
            false => (&self.fallback, &self.preferred),
        };
        preferred
            .as_ref()
            .or(fallback.as_ref())
            .expect("both constructors give at least one")
    }
}

impl Backend for Fallback {
    fn name(&self) -> &'static str {
        match (&self.shared.preferred, &self.shared.fallback) {
            (Some(preferred), None) => preferred.name(),
            _ => "auto",
        }
    }

    fn load(&self, graph: &Graph) -> Result<Arc<dyn Model>, BackendError> {
        let shared = &self.shared;
        let lazy = |backend: &Option<Arc<dyn Backend>>| {
            let backend = backend.as_ref();
            backend.map(|backend| LazyModel::new(backend.clone(), graph.clone()))
        };
        Ok(Arc::new(FallbackModel(Arc::new(Models {
            signature: graph.signature(),
            preferred: lazy(&shared.preferred),
            fallback: lazy(&shared.fallback),
            shared: shared.clone(),
        }))))
    }

    fn tiling_hint(&self) -> TilingHint {
        self.shared.current().tiling_hint()
    }

    fn precisions(&self) -> [Precision; 4] {
        self.shared.current().precisions()
    }

    fn health(&self) -> Health {
        Health {
            answering: self.shared.current().name(),
            state: self.shared.supervisor.state(),
            counters: self.shared.supervisor.counters(),
        }
    }

    fn arithmetic(&self) -> Option<Arithmetic> {
        self.shared.preferred.as_ref()?.arithmetic()
    }

    fn distrust(&self, error: BackendError) -> Result<(), BackendError> {
        let shared = &self.shared;
        shared.supervisor.count(&error);
        if shared.fallback.is_none() {
            return Err(error);
        }
        shared.supervisor.degrade(&error, true);
        Ok(())
    }

    fn describe(&self) -> String {
        self.shared.current().describe()
    }
}

/// A graph that an engine loads when it first needs it.
struct LazyModel {
    backend: Arc<dyn Backend>,
    model: Mutex<Loadable>,
}

enum Loadable {
    Graph(Graph),
    /// The graph's file is no longer held here.
    Model(Arc<dyn Model>),
}

impl LazyModel {
    fn new(backend: Arc<dyn Backend>, graph: Graph) -> Self {
        Self {
            backend,
            model: Mutex::new(Loadable::Graph(graph)),
        }
    }

    /// The model, loaded the first time; held while loading, so that it happens once. After an
    /// error it is loaded again the next time.
    fn get(&self) -> Result<Arc<dyn Model>, BackendError> {
        let mut model = lock(&self.model);
        match &*model {
            Loadable::Model(loaded) => Ok(loaded.clone()),
            Loadable::Graph(graph) => {
                let loaded = self.backend.load(graph)?;
                *model = Loadable::Model(loaded.clone());
                Ok(loaded)
            }
        }
    }

    fn compile(
        &self,
        shapes: &[Vec<usize>],
        profiles: &[ShapeProfile],
    ) -> Result<Arc<dyn Plan>, BackendError> {
        self.get()?.compile(shapes, profiles).map(Arc::from)
    }
}

/// One graph in both engines.
struct Models {
    shared: Arc<Shared>,
    signature: Signature,
    preferred: Option<LazyModel>,
    fallback: Option<LazyModel>,
}

struct FallbackModel(Arc<Models>);

impl Model for FallbackModel {
    fn compile(
        &self,
        shapes: &[Vec<usize>],
        profiles: &[ShapeProfile],
    ) -> Result<Box<dyn Plan>, BackendError> {
        let Models {
            shared,
            signature,
            preferred: preferred_model,
            fallback: fallback_model,
        } = &*self.0;
        let name = shared.current().name();
        let inputs = signature.ports(name, shapes)?;
        let (mut preferred, mut fallback, mut failure) = (None, None, None);
        if shared.supervisor.is_healthy()
            && let Some(model) = preferred_model
        {
            match model.compile(shapes, profiles) {
                Ok(plan) => preferred = Some(plan),
                // Not a failure of the engine, but what was asked for.
                Err(e @ BackendError::Cancelled { .. }) => return Err(e),
                Err(e) => failure = Some(e),
            }
        }
        if let Some(e) = &failure {
            shared.supervisor.count(e);
        }
        match fallback_model {
            Some(model) if preferred.is_none() || shared.supervisor.options.warm => {
                // Where this fails too it is the graph, and the fallback engine says it better.
                fallback = Some(model.compile(shapes, profiles)?);
                if let Some(e) = &failure {
                    shared.supervisor.degrade(e, false);
                }
            }
            Some(_) => {}
            None => {
                if let Some(e) = failure {
                    return Err(e);
                }
            }
        }
        let outputs = match (&preferred, &fallback) {
            (Some(plan), _) | (None, Some(plan)) => (0..signature.outputs.len())
                .map(|i| plan.output_shape(i).to_vec())
                .collect(),
            (None, None) => return Err(signature.failed(name, "no engine took it")),
        };
        Ok(Box::new(FallbackPlan(Arc::new(Compiled {
            models: self.0.clone(),
            inputs,
            profiles: profiles.to_vec(),
            outputs,
            preferred: Mutex::new(preferred),
            fallback: Mutex::new(fallback),
        }))))
    }
}

struct Compiled {
    models: Arc<Models>,
    /// Name and shape of every input.
    inputs: Vec<(String, Vec<usize>)>,
    profiles: Vec<ShapeProfile>,
    outputs: Vec<Vec<usize>>,
    preferred: Mutex<Option<Arc<dyn Plan>>>,
    fallback: Mutex<Option<Arc<dyn Plan>>>,
}

impl Compiled {
    /// The plan of one engine, compiled the first time; held while compiling, so that it happens
    /// once.
    fn plan(
        &self,
        place: &Mutex<Option<Arc<dyn Plan>>>,
        model: &LazyModel,
    ) -> Result<Arc<dyn Plan>, BackendError> {
        let mut place = lock(place);
        if let Some(plan) = &*place {
            return Ok(plan.clone());
        }
        let shapes: Vec<_> = self.inputs.iter().map(|(_, shape)| shape.clone()).collect();
        let plan = model.compile(&shapes, &self.profiles)?;
        let signature = &self.models.signature;
        for (i, expected) in self.outputs.iter().enumerate() {
            if plan.output_shape(i) != expected {
                let what = format!(
                    "output {} has shape {:?}, in the other engine {expected:?}",
                    signature.outputs[i],
                    plan.output_shape(i)
                );
                return Err(signature.failed(model.backend.name(), what));
            }
        }
        Ok(place.insert(plan).clone())
    }
}

// What belongs to a driver that hangs is not freed: that would hang too.
impl Drop for Compiled {
    fn drop(&mut self) {
        if self.models.shared.supervisor.hangs() {
            let plan = self.preferred.get_mut();
            std::mem::forget(plan.unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

impl Drop for Models {
    fn drop(&mut self) {
        if self.shared.supervisor.hangs() {
            std::mem::forget(self.preferred.take());
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.supervisor.hangs() {
            std::mem::forget(self.preferred.take());
        }
    }
}

struct FallbackPlan(Arc<Compiled>);

impl Plan for FallbackPlan {
    fn output_shape(&self, index: usize) -> &[usize] {
        &self.0.outputs[index]
    }

    fn session(&self) -> Result<Box<dyn Session>, BackendError> {
        Ok(Box::new(FallbackSession::new(&self.0)))
    }
}
