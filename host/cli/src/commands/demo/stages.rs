//! The stages of a demo: progress while one runs, a line when it is done.

use std::{ops::ControlFlow, time::Instant};

use anyhow::Result;

use crate::{interrupt, output, progress};

/// What a stage tells while it runs: what it is at, steps done, steps in all.
pub type Watch<'a> = &'a mut dyn FnMut(&str, usize, usize);

/// What has been done.
#[derive(Default)]
pub struct Stages {
    /// Name and seconds.
    pub done: Vec<(&'static str, f64)>,
}

impl Stages {
    /// Does `work`, and says how long it took. Whoever asks to stop is heard each time that the
    /// stage tells where it is.
    pub fn run<T>(
        &mut self,
        name: &'static str,
        work: impl FnOnce(Watch<'_>) -> Result<T>,
    ) -> Result<T> {
        interrupt::check()?;
        let start = Instant::now();
        let mut bar = progress::stages();
        bar(name, 0, 1);
        let made = work(&mut |what, done, of| {
            interrupt::unwind_if_pending();
            bar(&format!("{name}: {what}"), done, of);
        })?;
        drop(bar);
        interrupt::check()?;
        let seconds = start.elapsed().as_secs_f64();
        output::line(format!("{name:15} {seconds:6.1} s"))?;
        self.done.push((name, seconds));
        Ok(made)
    }

    /// Seconds of all stages.
    pub fn seconds(&self) -> f64 {
        self.done.iter().map(|(_, seconds)| seconds).sum()
    }
}

/// Tells `watch` of the stages of a conversion.
pub fn converting(watch: Watch<'_>) -> impl FnMut(&str) -> ControlFlow<()> {
    move |stage| {
        if interrupt::pending() {
            return ControlFlow::Break(());
        }
        watch(stage, 0, 1);
        ControlFlow::Continue(())
    }
}
