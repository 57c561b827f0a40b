//! Progress of long work: a function of Python is called, and Ctrl-C ends the work.

use std::{
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use pyo3::prelude::*;

use crate::error::failed;

/// A function `(stage, done, total)`, and the exception that ends the work.
pub struct Progress {
    callback: Option<Py<PyAny>>,
    raised: Option<PyErr>,
}

/// Unwinds out of work that cannot be cancelled by a return value.
struct Cancelled;

impl Progress {
    pub fn new(callback: Option<Py<PyAny>>) -> Self {
        Self {
            callback,
            raised: None,
        }
    }

    /// Calls the function. `Break` if it raised, or Ctrl-C was pressed.
    pub fn step(&mut self, stage: &str, done: usize, total: usize) -> ControlFlow<()> {
        let called = Python::attach(|py| {
            py.check_signals()?;
            if let Some(callback) = &self.callback {
                callback.call1(py, (stage, done, total))?;
            }
            Ok(())
        });
        match called {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.raised = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    /// Runs work that can be cancelled, without the interpreter lock.
    pub fn run<T: Send, E: std::fmt::Display + Send>(
        mut self,
        py: Python<'_>,
        work: impl FnOnce(&mut Self) -> Result<T, E> + Send,
    ) -> PyResult<T> {
        let result = py.detach(|| work(&mut self));
        match self.raised {
            Some(error) => Err(error),
            None => result.map_err(failed),
        }
    }

    /// As [`Progress::run`], for work whose progress cannot cancel it: it is unwound.
    pub fn run_unwinding<T: Send, E: std::fmt::Display + Send>(
        self,
        py: Python<'_>,
        work: impl FnOnce(&mut dyn FnMut(&str, usize, usize)) -> Result<T, E> + Send,
    ) -> PyResult<T> {
        let done = self.run(py, |progress| {
            let mut step = |stage: &str, done: usize, total: usize| {
                if progress.step(stage, done, total).is_break() {
                    // The panic hook is not called.
                    resume_unwind(Box::new(Cancelled));
                }
            };
            match catch_unwind(AssertUnwindSafe(|| work(&mut step))) {
                Ok(result) => result.map(Some),
                Err(panic) if panic.is::<Cancelled>() => Ok(None),
                Err(panic) => resume_unwind(panic),
            }
        })?;
        // Without a result there is an exception, which `run` has returned.
        done.ok_or_else(|| failed("interrupted"))
    }
}
