//! Falls back to another backend if the preferred one fails.

mod session;

use std::sync::Arc;

use loftup_bundle::Precision;
use parking_lot::Mutex;

use self::session::FallbackSession;
use super::{
    Arithmetic, Backend, BackendError, FallbackOptions, Graph, Health, Model, Plan, Session,
    ShapeProfile, TilingHint, graph::Signature, supervisor::Supervisor,
};

/// Runs the preferred backend with a watchdog, and switches to the fallback backend if it fails.
///
/// A failure is an error, NaN or infinity for finite inputs, or a timeout, while loading a graph or
/// while running it. The failed run is repeated with the same inputs on the fallback, so that the
/// caller only notices a delay. From then on every session uses the fallback, until the preferred
/// backend is retried ([`FallbackOptions::retry_after`]), concurrently with runs on the fallback.
/// If the fallback fails as well, the graph or the inputs are at fault: the error is returned, and
/// nothing is switched.
///
/// Without a fallback ([`Fallback::alone`]), the same failures are returned as errors.
///
/// A hung call cannot be stopped: its thread and memory are abandoned and counted
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
    /// Creates a backend that prefers `preferred`. If that could not be opened, everything runs on
    /// `fallback` from the start, and the reason is logged as a warning.
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

    /// Creates a backend without a fallback: failures are returned as errors.
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
    /// The backend in use.
    fn current(&self) -> &Arc<dyn Backend> {
        let (preferred, fallback) = match self.supervisor.is_healthy() {
            true => (&self.preferred, &self.fallback),
            false => (&self.fallback, &self.preferred),
        };
        preferred
            .as_ref()
            .or(fallback.as_ref())
            .expect("both constructors set at least one")
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

    /// Does not change when the fallback takes over, since it continues with the same graphs.
    fn fuses_heads(&self) -> bool {
        let first = self
            .shared
            .preferred
            .as_ref()
            .or(self.shared.fallback.as_ref());
        first.is_some_and(|backend| backend.fuses_heads())
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

    fn arithmetic(&self, precision: Precision) -> Option<Arithmetic> {
        self.shared.preferred.as_ref()?.arithmetic(precision)
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

/// A graph that a backend loads on first use.
struct LazyModel {
    backend: Arc<dyn Backend>,
    model: Mutex<Loadable>,
}

enum Loadable {
    Graph(Graph),
    /// The model; the graph's file is no longer held here.
    Model(Arc<dyn Model>),
}

impl LazyModel {
    fn new(backend: Arc<dyn Backend>, graph: Graph) -> Self {
        Self {
            backend,
            model: Mutex::new(Loadable::Graph(graph)),
        }
    }

    /// The model, loaded on first use. The lock is held while loading, so that it happens once.
    /// After an error the next call retries.
    fn get(&self) -> Result<Arc<dyn Model>, BackendError> {
        let mut model = self.model.lock();
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

/// One graph in both backends.
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
                // Not a failure of the backend: it was requested.
                Err(e @ BackendError::Cancelled { .. }) => return Err(e),
                Err(e) => failure = Some(e),
            }
        }
        if let Some(e) = &failure {
            shared.supervisor.count(e);
        }
        match fallback_model {
            Some(model) if preferred.is_none() || shared.supervisor.options.warm => {
                // If this fails as well, the graph is at fault, and the fallback has the better
                // message.
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
            (None, None) => return Err(signature.failed(name, "no backend could compile it")),
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
    /// Name and shape of each input.
    inputs: Vec<(String, Vec<usize>)>,
    profiles: Vec<ShapeProfile>,
    outputs: Vec<Vec<usize>>,
    preferred: Mutex<Option<Arc<dyn Plan>>>,
    fallback: Mutex<Option<Arc<dyn Plan>>>,
}

impl Compiled {
    /// The plan of one backend, compiled on first use. The lock is held while compiling, so that it
    /// happens once.
    fn plan(
        &self,
        place: &Mutex<Option<Arc<dyn Plan>>>,
        model: &LazyModel,
    ) -> Result<Arc<dyn Plan>, BackendError> {
        let mut place = place.lock();
        if let Some(plan) = &*place {
            return Ok(plan.clone());
        }
        let shapes: Vec<_> = self.inputs.iter().map(|(_, shape)| shape.clone()).collect();
        let plan = model.compile(&shapes, &self.profiles)?;
        let signature = &self.models.signature;
        for (i, expected) in self.outputs.iter().enumerate() {
            if plan.output_shape(i) != expected {
                let what = format!(
                    "output {} has shape {:?}, but {expected:?} with the other backend",
                    signature.outputs[i],
                    plan.output_shape(i)
                );
                return Err(signature.failed(model.backend.name(), what));
            }
        }
        Ok(place.insert(plan).clone())
    }
}

// Objects of a hung driver are not freed, since that would hang as well.
impl Drop for Compiled {
    fn drop(&mut self) {
        if self.models.shared.supervisor.hangs() {
            let plan = self.preferred.get_mut();
            std::mem::forget(plan.take());
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
