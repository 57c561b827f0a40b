//! The stages of a demo: progress while one runs, a line when it is done.

use std::{ops::ControlFlow, time::Instant};

use anyhow::Result;

use crate::{interrupt, output, progress};

/// Progress within a stage: what is being done, steps done, total steps.
pub type Watch<'a> = &'a mut dyn FnMut(&str, usize, usize);

/// The stages so far.
#[derive(Default)]
pub struct Stages {
    /// Name and seconds.
    pub done: Vec<(&'static str, f64)>,
}

impl Stages {
    /// Runs `work` and prints its duration. Interrupts are checked whenever it reports progress.
    pub fn run<T>(
        &mut self,
        name: &'static str,
        work: impl FnOnce(Watch<'_>) -> Result<T>,
    ) -> Result<T> {
        interrupt::check()?;
        let start = Instant::now();
        let mut bar = progress::stages();
        bar(name, 0, 1);
        let result = work(&mut |what, done, of| {
            interrupt::unwind_if_pending();
            bar(&format!("{name}: {what}"), done, of);
        })?;
        drop(bar);
        interrupt::check()?;
        let seconds = start.elapsed().as_secs_f64();
        output::line(format!("{name:15} {seconds:6.1} s"))?;
        self.done.push((name, seconds));
        Ok(result)
    }

    /// Seconds of all stages.
    pub fn seconds(&self) -> f64 {
        self.done.iter().map(|(_, seconds)| seconds).sum()
    }
}

/// Reports the stages of a conversion to `watch`.
pub fn converting(watch: Watch<'_>) -> impl FnMut(&str) -> ControlFlow<()> {
    move |stage| {
        if interrupt::pending() {
            return ControlFlow::Break(());
        }
        watch(stage, 0, 1);
        ControlFlow::Continue(())
    }
}
