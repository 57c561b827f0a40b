//! Exceptions.

use std::fmt::Display;

use loftup_runtime::{RuntimeError, track::TrackError};
use pyo3::{
    PyErr, create_exception,
    exceptions::{PyRuntimeError, PyValueError},
};

create_exception!(
    loftup,
    LoftupError,
    PyRuntimeError,
    "A bundle, an image or an engine that cannot be used. The message is one line and says what to do."
);

/// A failure.
pub fn failed(error: impl Display) -> PyErr {
    LoftupError::new_err(error.to_string())
}

/// A wrong argument.
pub fn wrong(error: impl Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// A failure of the runtime, or an argument that it refuses.
pub fn of_runtime(error: RuntimeError) -> PyErr {
    use RuntimeError as E;
    match error {
        E::FeatureShape { .. }
        | E::HeadShape { .. }
        | E::HeadDim { .. }
        | E::NotFinite { .. }
        | E::EmptyRegion(_)
        | E::RegionOutside { .. }
        | E::PointOutside { .. }
        | E::ClickFeatures { .. }
        | E::ClickThreshold(_)
        | E::TooManyClicks(_) => wrong(error),
        _ => failed(error),
    }
}

/// As [`of_runtime`]. Only memory is not an argument.
pub fn of_tracker(error: TrackError) -> PyErr {
    match error {
        TrackError::TooLarge { .. } => failed(error),
        _ => wrong(error),
    }
}
