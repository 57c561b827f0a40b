//! A session that can switch to the fallback in the middle of a frame.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Compiled, LazyModel, Models};
use crate::backend::{
    BackendError, Session,
    finite::first_not_finite,
    supervisor::Admission,
    watchdog::{About, WatchedSession},
};
use crate::heads::NO_CLASS;

/// An input, kept so that a run can be repeated on the fallback.
struct Input {
    values: Values,
    set: bool,
    in_preferred: bool,
    in_fallback: bool,
}

/// The values of an input. The memory is kept.
#[derive(Clone)]
enum Values {
    Floats(Vec<f32>),
    Bytes(Vec<u8>),
}

impl Values {
    fn set_in(&self, session: &mut dyn Session, input: usize) -> Result<(), BackendError> {
        match self {
            Self::Floats(values) => session.set(input, values),
            Self::Bytes(values) => session.set_bytes(input, values),
        }
    }

    fn is_finite(&self) -> bool {
        match self {
            Self::Floats(values) => first_not_finite(values).is_none(),
            Self::Bytes(_) => true,
        }
    }
}

/// Which backend has the outputs of the last run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    None,
    Preferred,
    Fallback,
}

pub(super) struct FallbackSession {
    compiled: Arc<Compiled>,
    inputs: Vec<Input>,
    preferred: Option<WatchedSession>,
    /// Whether the preferred backend has completed a run in this session.
    warmed_up: bool,
    /// When the current retry of the preferred backend started.
    retrying: Option<Instant>,
    fallback: Option<Box<dyn Session>>,
    last: Last,
}

impl Session for FallbackSession {
    fn set(&mut self, input: usize, values: &[f32]) -> Result<(), BackendError> {
        let kept = self.replaced(input, values.len())?;
        if let Values::Floats(kept) = kept {
            kept.clear();
            kept.extend_from_slice(values);
        } else {
            *kept = Values::Floats(values.to_vec());
        }
        Ok(())
    }

    fn set_bytes(&mut self, input: usize, values: &[u8]) -> Result<(), BackendError> {
        let kept = self.replaced(input, values.len())?;
        if let Values::Bytes(kept) = kept {
            kept.clear();
            kept.extend_from_slice(values);
        } else {
            *kept = Values::Bytes(values.to_vec());
        }
        Ok(())
    }

    fn run(&mut self) -> Result<(), BackendError> {
        self.last = Last::None;
        let models = self.compiled.models.clone();
        let Models {
            shared, signature, ..
        } = &*models;
        if let Some(missing) = self.inputs.iter().position(|input| !input.set) {
            return Err(signature.not_set(shared.current().name(), missing));
        }
        let failure = match self.try_preferred() {
            Attempt::Answered => {
                shared.supervisor.succeeded();
                self.last = Last::Preferred;
                return Ok(());
            }
            // Not a failure of the backend: it was requested.
            Attempt::Failed(e @ BackendError::Cancelled { .. }) => return Err(e),
            Attempt::Failed(e) => Some(e),
            Attempt::Skipped => None,
        };
        if let Some(e) = &failure {
            shared.supervisor.count(e);
        }
        let Some(fallback) = &models.fallback else {
            return Err(failure.unwrap_or_else(|| {
                let what = "too many of its calls are already hung; restart the process";
                signature.failed(shared.current().name(), what)
            }));
        };
        match failure {
            // Cannot be caused by the inputs, so the switch need not wait for the fallback's
            // result.
            Some(e @ (BackendError::Timeout { .. } | BackendError::NotFinite { .. })) => {
                shared.supervisor.degrade(&e, false);
                self.run_fallback(fallback)?;
            }
            Some(e) => {
                self.run_fallback(fallback)?;
                shared.supervisor.degrade(&e, false);
            }
            None => self.run_fallback(fallback)?,
        }
        shared.supervisor.fallback_ran();
        self.last = Last::Fallback;
        Ok(())
    }

    fn output(&self, index: usize) -> &[f32] {
        match (self.last, &self.preferred, &self.fallback) {
            (Last::Preferred, Some(session), _) => session.output(index),
            (Last::Fallback, _, Some(session)) => session.output(index),
            _ => &[],
        }
    }

    fn output_bytes(&self, index: usize) -> &[u8] {
        match (self.last, &self.preferred, &self.fallback) {
            (Last::Preferred, Some(session), _) => session.output_bytes(index),
            (Last::Fallback, _, Some(session)) => session.output_bytes(index),
            _ => &[],
        }
    }
}

/// The result of a run on the preferred backend.
enum Attempt {
    Answered,
    Failed(BackendError),
    /// The backend must not be used, or is not ready yet.
    Skipped,
}

impl FallbackSession {
    pub fn new(compiled: &Arc<Compiled>) -> Self {
        let input = |_: &_| Input {
            values: Values::Floats(Vec::new()),
            set: false,
            in_preferred: false,
            in_fallback: false,
        };
        Self {
            inputs: compiled.inputs.iter().map(input).collect(),
            compiled: compiled.clone(),
            preferred: None,
            warmed_up: false,
            retrying: None,
            fallback: None,
            last: Last::None,
        }
    }

    /// The place for new values of an input, of which there are `len`.
    fn replaced(&mut self, input: usize, len: usize) -> Result<&mut Values, BackendError> {
        let (_, shape) = &self.compiled.inputs[input];
        let signature = &self.compiled.models.signature;
        signature.check_size(input, shape, len)?;
        let kept = &mut self.inputs[input];
        (kept.set, kept.in_preferred, kept.in_fallback) = (true, false, false);
        Ok(&mut kept.values)
    }

    fn try_preferred(&mut self) -> Attempt {
        let models = self.compiled.models.clone();
        let supervisor = &models.shared.supervisor;
        let Some(model) = &models.preferred else {
            return Attempt::Skipped;
        };
        let patience = supervisor.options.start_limit;
        let wait = match self.retrying {
            // It may be ready now.
            Some(_) => Duration::ZERO,
            None => match self.admitted(model.backend.name(), patience) {
                Ok(Some(wait)) => wait,
                Ok(None) => return Attempt::Skipped,
                Err(e) => return Attempt::Failed(e),
            },
        };
        let Some(watched) = &mut self.preferred else {
            return Attempt::Skipped;
        };
        match watched.made(wait) {
            Some(Ok(())) => self.warmed_up |= self.retrying.take().is_some(),
            None if self
                .retrying
                .is_some_and(|since| since.elapsed() < patience) =>
            {
                return Attempt::Skipped;
            }
            None => {
                let error = watched.timeout(patience);
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

    /// Returns the time to wait for the session of the preferred backend, which is created if there is
    /// none; `None` if the backend must not be used.
    fn admitted(
        &mut self,
        backend: &'static str,
        patience: Duration,
    ) -> Result<Option<Duration>, BackendError> {
        let models = self.compiled.models.clone();
        let supervisor = &models.shared.supervisor;
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
            // Another session failed while it was in use.
            Admission::Fallback => {
                self.drop_preferred();
                Ok(None)
            }
        }
    }

    /// Starts to create a session of the preferred backend on its own thread. For a retry, it must
    /// complete a run there before it is used.
    fn start(&mut self, backend: &'static str, again: bool) -> Result<(), BackendError> {
        let compiled = self.compiled.clone();
        let about = About {
            backend,
            graph: compiled.models.signature.graph.clone(),
        };
        let trial: Vec<Values> = match again {
            true => self.inputs.iter().map(|i| i.values.clone()).collect(),
            false => Vec::new(),
        };
        let make = Box::new(move || {
            let models = &compiled.models;
            let lost = || models.signature.failed(backend, "it is not available");
            let model = models.preferred.as_ref().ok_or_else(lost)?;
            let mut session = compiled.plan(&compiled.preferred, model)?.session()?;
            for (i, values) in trial.iter().enumerate() {
                values.set_in(&mut *session, i)?;
            }
            if again {
                session.run()?;
            }
            Ok(session)
        });
        let stuck = &self.compiled.models.shared.supervisor.stuck;
        self.preferred = Some(WatchedSession::start(about, stuck, make)?);
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
        let Models {
            shared,
            signature,
            preferred,
            ..
        } = &*compiled.models;
        let options = shared.supervisor.options;
        let backend = preferred.as_ref().map_or("", |model| model.backend.name());
        let limit = match self.warmed_up {
            true => options.run_limit,
            false => options.start_limit,
        };
        let lost = || signature.failed(backend, "its session is lost");
        let watched = self.preferred.as_mut().ok_or_else(lost)?;
        let session = watched.session().ok_or_else(lost)?;
        for (i, input) in self.inputs.iter_mut().enumerate() {
            if !input.in_preferred {
                input.values.set_in(session, i)?;
                input.in_preferred = true;
            }
        }
        watched.run(limit)?;
        self.warmed_up = true;
        for output in 0..compiled.outputs.len() {
            let floats = first_not_finite(watched.output(output));
            let bytes = watched
                .output_bytes(output)
                .iter()
                .position(|class| *class == NO_CLASS);
            let Some((index, value)) = floats.or(bytes.map(|index| (index, f32::NAN))) else {
                continue;
            };
            // If an input is not finite, the outputs need not be either.
            if self.inputs.iter().all(|input| input.values.is_finite()) {
                return Err(BackendError::NotFinite {
                    backend,
                    graph: signature.graph.to_string(),
                    output,
                    index,
                    value,
                });
            }
        }
        Ok(())
    }

    fn run_fallback(&mut self, model: &LazyModel) -> Result<(), BackendError> {
        let session = match &mut self.fallback {
            Some(session) => session,
            None => {
                let plan = self.compiled.plan(&self.compiled.fallback, model)?;
                self.fallback.insert(plan.session()?)
            }
        };
        for (i, input) in self.inputs.iter_mut().enumerate() {
            if !input.in_fallback {
                input.values.set_in(&mut **session, i)?;
                input.in_fallback = true;
            }
        }
        let done = session.run();
        if done.is_err() {
            self.fallback = None;
            self.inputs.iter_mut().for_each(|i| i.in_fallback = false);
        }
        done
    }
}
