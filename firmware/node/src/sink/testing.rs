//! Outputs for tests of the file sinks.

use loftup_runtime::image::RgbImage;

use super::{Context, Sink};
use crate::{
    control::Control,
    metrics::Metrics,
    output::{FrameOutput, OutputKind, Queries},
    source::Clock,
};

pub const SIDE: usize = 32;

/// Output `number`: an image and a class map in which every value is `number`.
pub fn output(number: u64) -> FrameOutput {
    let mut frame = FrameOutput::default();
    (frame.sequence, frame.number) = (number, number);
    let rgb = vec![number as u8; 3 * SIDE * SIDE];
    frame.image = Some(RgbImage::new(SIDE, SIDE, rgb).unwrap());
    let output = frame.add();
    output.kind = OutputKind::Classes;
    (output.width, output.height) = (SIDE, SIDE);
    output.classes = vec![number as u8; SIDE * SIDE];
    frame
}

/// Calls `test` with a context.
pub fn with_context<T>(test: impl FnOnce(&Context<'_>) -> T) -> T {
    let (control, metrics) = (Control::new(Queries::default(), "head"), Metrics::default());
    test(&Context {
        labels: &["road".to_owned(), "sky".to_owned()],
        model: None,
        control: &control,
        clock: Clock::start(),
        metrics: &metrics,
    })
}

/// Pushes outputs to a sink and collects the errors.
pub fn feed(sink: &mut dyn Sink, numbers: std::ops::Range<u64>) -> Vec<String> {
    with_context(|context| {
        let errors = numbers.filter_map(|n| sink.push(&output(n), context).err());
        errors.map(|e| e.to_string()).collect()
    })
}
