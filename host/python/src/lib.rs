//! The Python package `loftup`: runs bundles from Python, with images and features as NumPy arrays.
//!
//! A thin layer over `loftup-runtime`, `loftup-convert` and `loftup-eval`. All work runs without the
//! interpreter lock. Outputs are arrays over the memory that Rust has filled; nothing is copied.

#![forbid(unsafe_code)]

mod args;
mod click;
mod error;
mod frame;
mod head;
mod image;
mod model;
mod offline;
mod output;
mod perceptor;
mod progress;
mod track;
mod train;

/// Native part of the package `loftup`.
#[pyo3::pymodule]
mod _loftup {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::{
        click::ClickSegmenter,
        error::LoftupError,
        frame::Frame,
        head::Head,
        offline::{convert, quantize, verify},
        perceptor::Perceptor,
        track::{TrackedMask, TrackedObject, Tracker},
        train::{head_classes, head_depth, head_pca},
    };

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("NO_CLASS", loftup_runtime::heads::NO_CLASS)
    }
}
