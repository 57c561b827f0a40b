//! Progress bars, shown if standard error is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
#[cfg(feature = "train")]
use loftup_train::Event;

/// A spinner with a message, for stages of unknown length.
pub fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// A bar over the pixels of an output; hidden within another bar.
pub fn pixels(total: usize, hidden: bool) -> ProgressBar {
    if hidden {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "{msg} {wide_bar} {percent:>3} %  {per_sec}  {elapsed} elapsed, {eta} left",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
    .with_key(
        "per_sec",
        |state: &indicatif::ProgressState, w: &mut dyn std::fmt::Write| {
            let _ = write!(w, "{:.0} pixels/s", state.per_sec());
        },
    );
    let bar = ProgressBar::new(total as u64)
        .with_style(style)
        .with_message("upsampling");
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A bar for work in stages: name of the stage, steps done, total steps.
pub fn stages() -> impl FnMut(&str, usize, usize) {
    let style =
        ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}  {elapsed} elapsed, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(0).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    let bar = Cleared(bar);
    move |stage, done, total| {
        let Cleared(bar) = &bar;
        if bar.message() != stage {
            bar.reset();
            bar.set_message(stage.to_owned());
        }
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    }
}

/// A bar over the steps of a training, with the loss.
#[cfg(feature = "train")]
pub struct Steps {
    bar: Cleared,
    /// The running mean of the loss, which is less noisy than single steps.
    mean: Option<f32>,
}

#[cfg(feature = "train")]
impl Steps {
    pub fn new() -> Self {
        let style =
            ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}  {per_sec}, {eta} left")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(0)
            .with_style(style)
            .with_message("preparing");
        bar.enable_steady_tick(Duration::from_millis(200));
        Self {
            bar: Cleared(bar),
            mean: None,
        }
    }

    /// Shows an event of the training.
    pub fn show(&mut self, event: &Event<'_>) {
        match event {
            Event::Started {
                step,
                steps,
                images,
                with_masks,
                weights,
            } => {
                let millions = *weights as f64 / 1e6;
                let masks = match with_masks {
                    0 => String::new(),
                    n => format!(", {n} with masks"),
                };
                let what = format!("{images} images{masks}; {millions:.2} M parameters");
                self.begin(what, *step, *steps);
            }
            Event::Stepped {
                step,
                losses,
                learning_rate,
            } => self.step(*step, losses[0].1, *learning_rate),
            Event::Saved(path) | Event::Previewed(path) => log::debug!("{}", path.display()),
        }
    }

    /// Sets the step to start from and the total; prints `what` above the bar.
    fn begin(&mut self, what: String, step: u64, steps: u64) {
        let Cleared(bar) = &self.bar;
        bar.println(what);
        bar.set_length(steps);
        bar.set_position(step);
        bar.reset_eta();
    }

    fn step(&mut self, step: u64, loss: f32, learning_rate: f64) {
        let mean = self.mean.map_or(loss, |mean| 0.98 * mean + 0.02 * loss);
        self.mean = Some(mean);
        let Cleared(bar) = &self.bar;
        bar.set_message(format!("loss {mean:.4}, learning rate {learning_rate:.1e}"));
        bar.set_position(step);
    }
}

/// A bar that is cleared when dropped.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
