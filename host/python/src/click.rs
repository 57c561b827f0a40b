//! Segmentation from clicks.

use loftup_eval::clicks;
use loftup_runtime::{
    Point,
    click::{self, Click, DEFAULT_THRESHOLD},
};
use numpy::PyArray2;
use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::{
    args::{SizeArg, rows_and_columns},
    error::of_runtime,
    frame::Frame,
    output::array,
};

/// Segments an object from clicks on it and beside it, by cosine similarity of the features.
///
///     segmenter = loftup.ClickSegmenter(perceptor.encode(image))
///     mask = segmenter.click(100, 80)                    # on the object: bool [height, width]
///     mask = segmenter.click(30, 30, positive=False)     # not on it
///
/// Without ``threshold``, the one in the bundle for its upsampler (``loftup head clicks``), or 0.6.
/// Coordinates are pixels of the frame's output.
#[pyclass(frozen, module = "loftup")]
pub struct ClickSegmenter {
    inner: Mutex<click::ClickSegmenter>,
}

#[pymethods]
impl ClickSegmenter {
    #[new]
    #[pyo3(signature = (frame, threshold=None))]
    fn new(py: Python<'_>, frame: &Bound<'_, Frame>, threshold: Option<f32>) -> PyResult<Self> {
        let Frame {
            inner: frame,
            method,
        } = frame.get();
        let manifest = frame.model().perceptor.manifest();
        let fitted = clicks::threshold(manifest.clicks.as_ref(), *method);
        let threshold = threshold.or(fitted).unwrap_or(DEFAULT_THRESHOLD);
        let made =
            py.detach(|| frame.with(None, |frame| click::ClickSegmenter::new(frame, threshold)));
        Ok(Self {
            inner: Mutex::new(made.map_err(of_runtime)?),
        })
    }

    /// Adds a click and returns the mask of the object: bool [height, width].
    #[pyo3(signature = (x, y, *, positive=true))]
    fn click<'py>(
        &self,
        py: Python<'py>,
        x: usize,
        y: usize,
        positive: bool,
    ) -> PyResult<Bound<'py, PyArray2<bool>>> {
        let click = Click {
            point: Point { x, y },
            positive,
        };
        let mask = py.detach(|| {
            let mut inner = self.inner.lock();
            inner.click(click).map(<[bool]>::to_vec)
        });
        self.shaped(py, mask.map_err(of_runtime)?)
    }

    /// The mask for the clicks so far: bool [height, width].
    fn mask<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<bool>>> {
        let mask = py.detach(|| self.inner.lock().mask().to_vec());
        self.shaped(py, mask)
    }

    /// The mask at another size, such as that of the photograph: bool [height, width].
    fn mask_at<'py>(&self, py: Python<'py>, size: SizeArg) -> PyResult<Bound<'py, PyArray2<bool>>> {
        let size = size.size()?;
        let mask = py.detach(|| self.inner.lock().mask_at(size));
        array(py, [size.height, size.width], mask)
    }

    /// Greatest cosine similarity of each pixel to a positive click, negative infinity where there is
    /// none: float32 [height, width].
    fn similarity<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let values = py.detach(|| self.inner.lock().similarity().to_vec());
        self.shaped(py, values)
    }

    /// The clicks so far: (x, y, positive).
    #[getter]
    fn clicks(&self, py: Python<'_>) -> Vec<(usize, usize, bool)> {
        py.detach(|| {
            let inner = self.inner.lock();
            let clicks = inner.clicks().iter();
            clicks.map(|c| (c.point.x, c.point.y, c.positive)).collect()
        })
    }

    /// Rows and columns of the mask.
    #[getter]
    fn size(&self, py: Python<'_>) -> (usize, usize) {
        rows_and_columns(py.detach(|| self.inner.lock().size()))
    }

    /// Changes the threshold, -1 to 1.
    fn set_threshold(&self, py: Python<'_>, threshold: f32) -> PyResult<()> {
        py.detach(|| self.inner.lock().set_threshold(threshold))
            .map_err(of_runtime)
    }

    /// Forgets all clicks; the features are kept.
    fn clear(&self, py: Python<'_>) {
        py.detach(|| self.inner.lock().clear());
    }
}

impl ClickSegmenter {
    fn shaped<'py, T: numpy::Element>(
        &self,
        py: Python<'py>,
        values: Vec<T>,
    ) -> PyResult<Bound<'py, PyArray2<T>>> {
        let (height, width) = self.size(py);
        array(py, [height, width], values)
    }
}
