//! Progress on standard error, where somebody looks.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A spinner with a message, for stages of unknown length.
pub fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// A bar over the pixels of an answer.
pub fn pixels(total: usize) -> ProgressBar {
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
