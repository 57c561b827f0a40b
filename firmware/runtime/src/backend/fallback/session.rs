//! A session that can move from one engine to the other in the middle of a frame.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::Compiled;
use crate::backend::{
    Backend, BackendError, Session,
    finite::first_not_finite,
    supervisor::Admission,
    watchdog::{About, Guarded},
};

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

pub(super) struct FallbackSession {
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
    pub fn new(compiled: &Arc<Compiled>) -> Self {
        let input = |shape: &Vec<usize>| Input {
            values: Vec::with_capacity(shape.iter().product()),
            set: false,
            in_preferred: false,
            in_spare: false,
        };
        let inputs = compiled.graph.inputs.iter();
        Self {
            inputs: inputs.map(|(_, shape)| input(shape)).collect(),
            compiled: compiled.clone(),
            preferred: None,
            warmed_up: false,
            retrying: None,
            spare: None,
            last: Last::None,
        }
    }

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
