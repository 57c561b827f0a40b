//! Outputs for tests of the sinks that write files.

use loftup_runtime::image::RgbImage;

use super::{Context, Sink};
use crate::{
    answer::{Answer, Kind, Queries},
    control::Control,
    metrics::Metrics,
    source::Clock,
};

pub const SIDE: usize = 32;

/// Answer `number`: an image of one color, and a class map of one class, both known by it.
pub fn answer(number: u64) -> Answer {
    let mut answer = Answer::default();
    (answer.sequence, answer.number) = (number, number);
    let rgb = vec![number as u8; 3 * SIDE * SIDE];
    answer.picture = Some(RgbImage::new(SIDE, SIDE, rgb).unwrap());
    let part = answer.add();
    part.kind = Kind::Classes;
    (part.width, part.height) = (SIDE, SIDE);
    part.classes = vec![number as u8; SIDE * SIDE];
    answer
}

/// Runs `test` with what a sink may use.
pub fn with_context<T>(test: impl FnOnce(&Context<'_>) -> T) -> T {
    let (control, metrics) = (Control::new(Queries::default(), "head"), Metrics::default());
    test(&Context {
        labels: &["road".to_owned(), "sky".to_owned()],
        control: &control,
        clock: Clock::start(),
        metrics: &metrics,
    })
}

/// Gives outputs to a sink and collects the errors.
pub fn feed(sink: &mut dyn Sink, numbers: std::ops::Range<u64>) -> Vec<String> {
    with_context(|context| {
        let errors = numbers.filter_map(|n| sink.answer(&answer(n), context).err());
        errors.map(|e| e.to_string()).collect()
    })
}
