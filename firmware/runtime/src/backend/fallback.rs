//! One engine in the place of another that fails.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use loftup_models::bundle::Precision;

use super::{
    Backend, BackendError, FallbackOptions, Granularity, GraphSource, Health, Plan, Session,
    ShapeProfile,
    finite::first_not_finite,
    supervisor::{Admission, Supervisor},
    watchdog::{About, Guarded},
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

    fn health(&self) -> Health {
        Health {
            answering: self.shared.current().name(),
            state: self.shared.supervisor.state(),
            counters: self.shared.supervisor.counters(),
        }
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

struct FallbackPlan(Arc<Compiled>);

impl Plan for FallbackPlan {
    fn output_shape(&self, index: usize) -> &[usize] {
        &self.0.outputs[index]
    }

    fn session(&self) -> Result<Box<dyn Session>, BackendError> {
        let inputs = self.0.graph.inputs.iter();
        Ok(Box::new(FallbackSession {
            inputs: inputs
                .map(|(_, shape)| Input {
                    values: Vec::with_capacity(shape.iter().product()),
                    set: false,
                    in_preferred: false,
                    in_spare: false,
                })
                .collect(),
            compiled: self.0.clone(),
            preferred: None,
            warmed_up: false,
            retrying: None,
            spare: None,
            last: Last::None,
        }))
    }
}

/// An input, kept so that a run can be repeated elsewhere.
struct Input {
    values: Vec<f32>,
    set: bool,
    in_preferred: bool,
    in_spare: bool,
}

/// Whose outputs are those of the last run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    None,
    Preferred,
    Spare,
}

struct FallbackSession {
    compiled: Arc<Compiled>,
    inputs: Vec<Input>,
    preferred: Option<Guarded>,
    /// Whether the preferred engine has run once in this session.
    warmed_up: bool,
    /// Since when it is being tried again, beside the runs.
    retrying: Option<Instant>,
    spare: Option<Box<dyn Session>>,
    last: Last,
}

impl Session for FallbackSession {
    fn set(&mut self, input: usize, values: &[f32]) -> Result<(), BackendError> {
        let graph = &self.compiled.graph;
        let (name, shape) = &graph.inputs[input];
        let expected = shape.iter().product();
        if values.len() != expected {
            return Err(BackendError::Size {
                graph: graph.name.to_string(),
                tensor: name.clone(),
                expected,
                found: values.len(),
            });
        }
        let kept = &mut self.inputs[input];
        kept.values.clear();
        kept.values.extend_from_slice(values);
        (kept.set, kept.in_preferred, kept.in_spare) = (true, false, false);
        Ok(())
    }

    fn run(&mut self) -> Result<(), BackendError> {
        self.last = Last::None;
        let shared = self.compiled.shared.clone();
        if let Some(missing) = self.inputs.iter().position(|input| !input.set) {
            let graph = &self.compiled.graph;
            let what = format!("input {} has not been set", graph.inputs[missing].0);
            return Err(graph.failed(shared.current().name(), what));
        }
        let failure = match self.try_preferred() {
            Attempt::Answered => {
                shared.supervisor.succeeded();
                self.last = Last::Preferred;
                return Ok(());
            }
            // Not a failure of the engine, but what was asked for.
            Attempt::Failed(e @ BackendError::Cancelled { .. }) => return Err(e),
            Attempt::Failed(e) => Some(e),
            Attempt::NotMade => None,
        };
        if let Some(e) = &failure {
            shared.supervisor.count(e);
        }
        let Some(spare) = &shared.spare else {
            return Err(failure.unwrap_or_else(|| {
                let what = "too many of its calls hang already; restart the process";
                self.compiled.graph.failed(shared.current().name(), what)
            }));
        };
        match failure {
            // Nothing a question can cause: known before the spare engine has answered.
            Some(e @ (BackendError::Timeout { .. } | BackendError::NotFinite { .. })) => {
                shared.supervisor.degrade(&e, false);
                self.run_spare(spare)?;
            }
            Some(e) => {
                self.run_spare(spare)?;
                shared.supervisor.degrade(&e, false);
            }
            None => self.run_spare(spare)?,
        }
        shared.supervisor.spare_ran();
        self.last = Last::Spare;
        Ok(())
    }

    fn output(&self, index: usize) -> &[f32] {
        match (self.last, &self.preferred, &self.spare) {
            (Last::Preferred, Some(session), _) => session.output(index),
            (Last::Spare, _, Some(session)) => session.output(index),
            _ => &[],
        }
    }
}

/// How it went with the preferred engine.
enum Attempt {
    Answered,
    Failed(BackendError),
    /// It was not to be used, or is not ready yet.
    NotMade,
}

impl FallbackSession {
    fn try_preferred(&mut self) -> Attempt {
        let shared = self.compiled.shared.clone();
        let supervisor = &shared.supervisor;
        let Some(backend) = &shared.preferred else {
            return Attempt::NotMade;
        };
        let patience = supervisor.options.start_limit;
        let wait = match self.retrying {
            // It may be ready now.
            Some(_) => Duration::ZERO,
            None => match self.admitted(backend, patience) {
                Ok(Some(wait)) => wait,
                Ok(None) => return Attempt::NotMade,
                Err(e) => return Attempt::Failed(e),
            },
        };
        let Some(guarded) = &mut self.preferred else {
            return Attempt::NotMade;
        };
        match guarded.made(wait) {
            Some(Ok(())) => self.warmed_up |= self.retrying.take().is_some(),
            None if self
                .retrying
                .is_some_and(|since| since.elapsed() < patience) =>
            {
                return Attempt::NotMade;
            }
            None => {
                let error = guarded.timeout(patience);
                self.drop_preferred();
                return Attempt::Failed(error);
            }
            Some(Err(e)) => {
                self.drop_preferred();
                return Attempt::Failed(e);
            }
        }
        match self.run_preferred() {
            Ok(()) => Attempt::Answered,
            Err(e) => {
                self.drop_preferred();
                Attempt::Failed(e)
            }
        }
    }

    /// How long to wait for the session of the preferred engine, which is begun where there is
    /// none; `None` where it is not to be used.
    fn admitted(
        &mut self,
        backend: &Arc<dyn Backend>,
        patience: Duration,
    ) -> Result<Option<Duration>, BackendError> {
        let supervisor = &self.compiled.shared.supervisor;
        match supervisor.admit() {
            Admission::Preferred if self.preferred.is_some() => Ok(Some(patience)),
            Admission::Preferred if !supervisor.may_hang() => Ok(None),
            Admission::Preferred => {
                self.start(backend, false)?;
                Ok(Some(patience))
            }
            Admission::Retry => {
                self.drop_preferred();
                self.start(backend, true)?;
                Ok(Some(Duration::ZERO))
            }
            // It was in use when another session failed.
            Admission::Spare => {
                self.drop_preferred();
                Ok(None)
            }
        }
    }

    /// Begins to make a session of the preferred engine, on its own thread. One that is tried
    /// again has to answer there once before it is trusted.
    fn start(&mut self, backend: &Arc<dyn Backend>, again: bool) -> Result<(), BackendError> {
        let (compiled, engine) = (self.compiled.clone(), backend.clone());
        let about = About {
            backend: backend.name(),
            graph: self.compiled.graph.name.clone(),
        };
        let trial: Vec<Vec<f32>> = match again {
            true => self.inputs.iter().map(|i| i.values.clone()).collect(),
            false => Vec::new(),
        };
        let make = Box::new(move || {
            let mut session = compiled.plan(&compiled.preferred, &engine)?.session()?;
            for (i, values) in trial.iter().enumerate() {
                session.set(i, values)?;
            }
            if again {
                session.run()?;
            }
            Ok(session)
        });
        let stuck = &self.compiled.shared.supervisor.stuck;
        self.preferred = Some(Guarded::start(about, stuck, make)?);
        (self.warmed_up, self.retrying) = (false, again.then(Instant::now));
        self.inputs.iter_mut().for_each(|i| i.in_preferred = false);
        Ok(())
    }

    fn drop_preferred(&mut self) {
        self.preferred = None;
        (self.warmed_up, self.retrying) = (false, None);
    }

    fn run_preferred(&mut self) -> Result<(), BackendError> {
        let compiled = &self.compiled;
        let options = compiled.shared.supervisor.options;
        let backend = compiled.shared.preferred.as_ref();
        let backend = backend.map_or("", |backend| backend.name());
        let limit = match self.warmed_up {
            true => options.run_limit,
            false => options.start_limit,
        };
        let lost = || compiled.graph.failed(backend, "its session is gone");
        let guarded = self.preferred.as_mut().ok_or_else(lost)?;
        let session = guarded.session().ok_or_else(lost)?;
        for (i, input) in self.inputs.iter_mut().enumerate() {
            if !input.in_preferred {
                session.set(i, &input.values)?;
                input.in_preferred = true;
            }
        }
        guarded.run(limit)?;
        self.warmed_up = true;
        for output in 0..compiled.outputs.len() {
            let Some((index, value)) = first_not_finite(guarded.output(output)) else {
                continue;
            };
            // What is not finite may go in for a reason, and then comes out as it has to.
            let blameless = |input: &Input| first_not_finite(&input.values).is_none();
            if self.inputs.iter().all(blameless) {
                return Err(BackendError::NotFinite {
                    backend,
                    graph: compiled.graph.name.to_string(),
                    output,
                    index,
                    value,
                });
            }
        }
        Ok(())
    }

    fn run_spare(&mut self, backend: &Arc<dyn Backend>) -> Result<(), BackendError> {
        let session = match &mut self.spare {
            Some(session) => session,
            None => {
                let plan = self.compiled.plan(&self.compiled.spare, backend)?;
                self.spare.insert(plan.session()?)
            }
        };
        for (i, input) in self.inputs.iter_mut().enumerate() {
            if !input.in_spare {
                session.set(i, &input.values)?;
                input.in_spare = true;
            }
        }
        let done = session.run();
        if done.is_err() {
            self.spare = None;
            self.inputs.iter_mut().for_each(|i| i.in_spare = false);
        }
        done
    }
}
