//! Heads and evaluation on a tiny bundle.

mod clicks;
mod depth;
mod evaluation;
mod heads;
mod support;
#[path = "../../../../tests/src/synthetic.rs"]
#[allow(dead_code)]
mod synthetic;
mod vos;

/// No progress.
fn quiet() -> impl FnMut(&str, usize, usize) {
    |_: &str, _: usize, _: usize| {}
}
