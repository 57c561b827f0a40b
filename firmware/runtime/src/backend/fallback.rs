//! One engine in the place of another that fails.

mod session;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use loftup_bundle::Precision;

use self::session::FallbackSession;
use super::{
    Arithmetic, Backend, BackendError, FallbackOptions, Granularity, GraphSource, Health, Plan,
    Session, ShapeProfile, supervisor::Supervisor,
};

/// Runs the preferred engine under watch, and moves to the spare one when it fails.
///
/// A failure is an error, NaN or an infinity out of finite inputs, or no answer in time; in
/// loading a graph as in running it. The run in which it happens is repeated with the same inputs
/// on the spare engine, so that whoever asked sees nothing but a delay. From then on every session
/// uses the spare one, until the preferred one is tried again ([`FallbackOptions::retry_after`]):
/// beside the runs, which do not wait for it. What the spare engine cannot do either is an error
/// of the graph or the question, and moves nothing.
///
/// Without a spare engine ([`Fallback::alone`]) the same failures are errors.
///
/// A hung call cannot be ended: its thread and memory are given up and counted
/// ([`super::Counters::stuck`]).
pub struct Fallback {
    shared: Arc<Shared>,
}

struct Shared {
    preferred: Option<Arc<dyn Backend>>,
    spare: Option<Arc<dyn Backend>>,
    supervisor: Supervisor,
    /// ONNX files in use: plans for other shapes of the same graph share them.
    files: Mutex<Vec<Weak<Vec<u8>>>>,
}

impl Fallback {
    /// Prefers `preferred`. Where that could not be opened, everything goes to `spare` from the
    /// start, with a warning that says why.
    pub fn new(
        preferred: Result<Arc<dyn Backend>, BackendError>,
        spare: Arc<dyn Backend>,
        options: FallbackOptions,
    ) -> Self {
        let name = preferred.as_ref().map_or("tensorrt", |b| b.name());
        let supervisor = Supervisor::new(name, Some(spare.name()), options);
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
            spare: Some(spare),
            supervisor,
            files: Mutex::default(),
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
            spare: None,
            supervisor,
            files: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }
}

impl Shared {
    /// The engine that answers now.
    fn current(&self) -> &Arc<dyn Backend> {
        let (preferred, spare) = match self.supervisor.is_sound() {
            true => (&self.preferred, &self.spare),
            false => (&self.spare, &self.preferred),
        };
        preferred
            .as_ref()
            .or(spare.as_ref())
            .expect("both constructors give at least one")
    }

    /// The file, kept once.
    fn keep(&self, onnx: &[u8]) -> Arc<Vec<u8>> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|file| file.strong_count() > 0);
        let mut known = files.iter().filter_map(Weak::upgrade);
        if let Some(file) = known.find(|file| ***file == *onnx) {
            return file;
        }
        let file = Arc::new(onnx.to_vec());
        files.push(Arc::downgrade(&file));
        file
    }
}

impl Backend for Fallback {
    fn name(&self) -> &'static str {
        match (&self.shared.preferred, &self.shared.spare) {
            (Some(preferred), None) => preferred.name(),
            _ => "auto",
        }
    }

    fn compile(&self, graph: &GraphSource<'_>) -> Result<Box<dyn Plan>, BackendError> {
        let shared = &self.shared;
        let graph = Graph::copy(graph, shared.keep(graph.onnx));
        let (mut preferred, mut spare, mut failure) = (None, None, None);
        if shared.supervisor.is_sound()
            && let Some(backend) = &shared.preferred
        {
            match graph.compile(&**backend) {
                Ok(plan) => preferred = Some(plan),
                // Not a failure of the engine, but what was asked for.
                Err(e @ BackendError::Cancelled { .. }) => return Err(e),
                Err(e) => failure = Some(e),
            }
        }
        if let Some(e) = &failure {
            shared.supervisor.count(e);
        }
        match &shared.spare {
            Some(backend) if preferred.is_none() || shared.supervisor.options.warm => {
                // Where this fails too it is the graph, and the spare engine says it better.
                spare = Some(graph.compile(&**backend)?);
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
        let outputs = match (&preferred, &spare) {
            (Some(plan), _) | (None, Some(plan)) => (0..graph.outputs.len())
                .map(|i| plan.output_shape(i).to_vec())
                .collect(),
            (None, None) => return Err(graph.failed(self.name(), "no engine took it")),
        };
        Ok(Box::new(FallbackPlan(Arc::new(Compiled {
            shared: shared.clone(),
            graph,
            outputs,
            preferred: Mutex::new(preferred),
            spare: Mutex::new(spare),
        }))))
    }

    fn granularity(&self) -> Granularity {
        self.shared.current().granularity()
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
        if shared.spare.is_none() {
            return Err(error);
        }
        shared.supervisor.degrade(&error, true);
        Ok(())
    }

    fn describe(&self) -> String {
        self.shared.current().describe()
    }
}

/// A [`GraphSource`] that is kept, to be compiled again for the other engine.
struct Graph {
    name: Arc<str>,
    onnx: Arc<Vec<u8>>,
    precision: Precision,
    inputs: Vec<(String, Vec<usize>)>,
    outputs: Vec<String>,
    profiles: Vec<ShapeProfile>,
}

impl Graph {
    fn copy(source: &GraphSource<'_>, onnx: Arc<Vec<u8>>) -> Self {
        let inputs = source.inputs.iter();
        Self {
            name: source.name.into(),
            onnx,
            precision: source.precision,
            inputs: inputs.map(|(n, s)| ((*n).into(), s.to_vec())).collect(),
            outputs: source.outputs.iter().map(|n| (*n).into()).collect(),
            profiles: source.profiles.to_vec(),
        }
    }

    fn compile(&self, backend: &dyn Backend) -> Result<Arc<dyn Plan>, BackendError> {
        let inputs: Vec<(&str, &[usize])> = self
            .inputs
            .iter()
            .map(|(n, s)| (n.as_str(), s.as_slice()))
            .collect();
        let outputs: Vec<&str> = self.outputs.iter().map(String::as_str).collect();
        let source = GraphSource {
            name: &self.name,
            onnx: &self.onnx,
            precision: self.precision,
            inputs: &inputs,
            outputs: &outputs,
            profiles: &self.profiles,
        };
        backend.compile(&source).map(Arc::from)
    }

    fn failed(&self, backend: &'static str, what: impl Into<String>) -> BackendError {
        BackendError::Run {
            backend,
            graph: self.name.to_string(),
            what: what.into(),
        }
    }
}

struct Compiled {
    shared: Arc<Shared>,
    graph: Graph,
    outputs: Vec<Vec<usize>>,
    preferred: Mutex<Option<Arc<dyn Plan>>>,
    spare: Mutex<Option<Arc<dyn Plan>>>,
}

impl Compiled {
    /// The plan of one engine, compiled the first time; held while compiling, so that it happens
    /// once.
    fn plan(
        &self,
        place: &Mutex<Option<Arc<dyn Plan>>>,
        backend: &Arc<dyn Backend>,
    ) -> Result<Arc<dyn Plan>, BackendError> {
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = &*place {
            return Ok(plan.clone());
        }
        let plan = self.graph.compile(&**backend)?;
        for (i, expected) in self.outputs.iter().enumerate() {
            if plan.output_shape(i) != expected {
                let what = format!(
                    "output {} has shape {:?}, in the other engine {expected:?}",
                    self.graph.outputs[i],
                    plan.output_shape(i)
                );
                return Err(self.graph.failed(backend.name(), what));
            }
        }
        Ok(place.insert(plan).clone())
    }
}

// What belongs to a driver that hangs is not freed: that would hang too.
impl Drop for Compiled {
    fn drop(&mut self) {
        if self.shared.supervisor.hangs() {
            let plan = self.preferred.get_mut();
            std::mem::forget(plan.unwrap_or_else(PoisonError::into_inner).take());
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
