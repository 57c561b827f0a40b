//! Objects followed from frame to frame.

use loftup_bundle::Size;
use loftup_runtime::{
    Point, Rect,
    track::{self, Seed, TrackOptions},
};
use numpy::{PyArray2, PyArray3, PyReadonlyArray2, PyReadonlyArray3};
use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::{
    args::{SizeArg, rect},
    error::{of_tracker, wrong},
    frame::Region,
    output::array,
};

/// Follows objects through a video by the similarity of features, without training.
///
///     tracker = loftup.Tracker(grid=(28, 28), dim=384)
///     tracker.update(features)                           # float32 [28, 28, 384] of the first frame
///     tracker.start(1, box=(80, 60, 200, 120), size=(480, 640))
///     tracker.update(next_features)
///     mask = tracker.mask((480, 640))                    # mask.labels, mask.objects
///
/// The options and their defaults are those of DINO's protocol for DAVIS (docs/tracking.md).
#[pyclass(frozen, module = "loftup")]
pub struct Tracker {
    inner: Mutex<track::Tracker>,
    /// Rows and columns.
    #[pyo3(get)]
    grid: (usize, usize),
    /// Channels of the features.
    #[pyo3(get)]
    dim: usize,
    max_objects: usize,
}

#[pymethods]
impl Tracker {
    #[new]
    #[pyo3(signature = (grid, dim, *, last_frames=None, radius=None, top_k=None, temperature=None,
        output_scale=None, min_label=None, max_objects=None, threads=None))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn new(
        py: Python<'_>,
        grid: (usize, usize),
        dim: usize,
        last_frames: Option<usize>,
        radius: Option<usize>,
        top_k: Option<usize>,
        temperature: Option<f32>,
        output_scale: Option<usize>,
        min_label: Option<f32>,
        max_objects: Option<usize>,
        threads: Option<usize>,
    ) -> PyResult<Self> {
        let default = TrackOptions::default();
        let options = TrackOptions {
            last_frames: last_frames.unwrap_or(default.last_frames),
            radius: radius.unwrap_or(default.radius),
            top_k: top_k.unwrap_or(default.top_k),
            temperature: temperature.unwrap_or(default.temperature),
            output_scale: output_scale.unwrap_or(default.output_scale),
            min_label: min_label.unwrap_or(default.min_label),
            max_objects: max_objects.unwrap_or(default.max_objects),
            threads: threads.unwrap_or(default.threads).max(1),
        };
        let (height, width) = grid;
        let made = py.detach(|| track::Tracker::new((width, height), dim, options));
        Ok(Self {
            inner: Mutex::new(made.map_err(of_tracker)?),
            grid,
            dim,
            max_objects: options.max_objects,
        })
    }

    /// Takes the features of the next frame, float32 [height, width, channels], and moves the labels
    /// to it.
    fn update(&self, py: Python<'_>, features: PyReadonlyArray3<'_, f32>) -> PyResult<()> {
        let view = features.as_array();
        let (height, width, dim) = view.dim();
        if ((height, width), dim) != (self.grid, self.dim) {
            return Err(wrong(format!(
                "features of shape [{height}, {width}, {dim}]: the tracker takes [{}, {}, {}]",
                self.grid.0, self.grid.1, self.dim
            )));
        }
        let values: Vec<f32> = view.iter().copied().collect();
        py.detach(|| self.inner.lock().update(&values))
            .map_err(of_tracker)
    }

    /// Starts an object in the current frame, or again where it is now. ``label`` is its value in
    /// masks, from 1. Give one of ``box`` (x, y, width, height) and ``click`` (x, y), in an image of
    /// ``size`` (height, width), or ``mask``, bool [height, width].
    #[pyo3(signature = (label, *, r#box=None, click=None, mask=None, size=None))]
    fn start(
        &self,
        py: Python<'_>,
        label: u8,
        r#box: Option<Region>,
        click: Option<(usize, usize)>,
        mask: Option<PyReadonlyArray2<'_, bool>>,
        size: Option<SizeArg>,
    ) -> PyResult<()> {
        let inside: Vec<u8>;
        let (seed, size) = match (r#box, click, mask, size) {
            (Some(region), None, None, Some(size)) => (Seed::Box(rect(region)), size.size()?),
            (None, Some((x, y)), None, Some(size)) => (Seed::Click(Point { x, y }), size.size()?),
            (None, None, Some(mask), None) => {
                let view = mask.as_array();
                inside = view.iter().map(|inside| u8::from(*inside)).collect();
                let (height, width) = view.dim();
                let seed = Seed::Mask {
                    values: &inside,
                    value: 1,
                };
                (seed, Size { width, height })
            }
            _ => {
                return Err(wrong(
                    "give one of box or click with size, or mask without it",
                ));
            }
        };
        py.detach(|| self.inner.lock().start(&[(label, seed)], size))
            .map_err(of_tracker)
    }

    /// Starts an object for each value in a mask of uint8 [height, width]. 0 and 255 are background.
    fn start_mask(&self, py: Python<'_>, mask: PyReadonlyArray2<'_, u8>) -> PyResult<()> {
        let view = mask.as_array();
        let values: Vec<u8> = view.iter().copied().collect();
        let (height, width) = view.dim();
        let size = Size { width, height };
        py.detach(|| self.inner.lock().start_mask(&values, size))
            .map_err(of_tracker)
    }

    /// Removes an object; whether there was one.
    fn remove(&self, py: Python<'_>, label: u8) -> bool {
        py.detach(|| self.inner.lock().remove(label))
    }

    /// Labels of the objects.
    #[getter]
    fn objects(&self, py: Python<'_>) -> Vec<usize> {
        py.detach(|| self.inner.lock().objects().map(usize::from).collect())
    }

    /// The smallest label that no object has; None if there are as many as there can be.
    #[getter]
    fn free_label(&self, py: Python<'_>) -> Option<u8> {
        py.detach(|| self.inner.lock().free_label())
    }

    /// Bytes of the frames that are kept.
    #[getter]
    fn memory(&self, py: Python<'_>) -> usize {
        py.detach(|| self.inner.lock().memory())
    }

    /// The mask of the current frame at ``size`` (height, width).
    fn mask(&self, py: Python<'_>, size: SizeArg) -> PyResult<TrackedMask> {
        let size = size.size()?;
        let mask = py.detach(|| {
            let mut mask = track::TrackedMask::default();
            self.inner.lock().mask(size, &mut mask).map(|()| mask)
        });
        let mask = mask.map_err(of_tracker)?;
        let labels = array(py, [mask.height, mask.width], mask.labels)?;
        Ok(TrackedMask {
            labels: labels.unbind(),
            objects: mask.objects.into_iter().map(TrackedObject::from).collect(),
        })
    }

    /// The soft labels of the current frame, background first: float32 [height, width, 1 +
    /// max_objects].
    fn soft_labels<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray3<f32>>> {
        let values = py.detach(|| self.inner.lock().soft_labels().to_vec());
        array(py, [self.grid.0, self.grid.1, 1 + self.max_objects], values)
    }
}

/// The objects in one frame.
#[pyclass(frozen, module = "loftup")]
pub struct TrackedMask {
    /// The label of each pixel, 0 for the background: uint8 [height, width].
    #[pyo3(get)]
    labels: Py<PyArray2<u8>>,
    /// By label.
    #[pyo3(get)]
    objects: Vec<TrackedObject>,
}

/// An object in one frame.
#[pyclass(frozen, module = "loftup")]
#[derive(Clone)]
pub struct TrackedObject {
    /// Its label, the same until it is removed.
    #[pyo3(get)]
    label: u8,
    /// Pixels in the mask; 0 while it is not visible.
    #[pyo3(get)]
    area: usize,
    /// The smallest box around its pixels: (x, y, width, height), or None.
    #[pyo3(get)]
    bounds: Option<Region>,
    /// Mean of its soft label over its pixels, 0 to 1.
    #[pyo3(get)]
    confidence: f32,
}

impl From<track::TrackedObject> for TrackedObject {
    fn from(object: track::TrackedObject) -> Self {
        let bounds = object.bounds.map(|b: Rect| (b.x, b.y, b.width, b.height));
        Self {
            label: object.label,
            area: object.area,
            bounds,
            confidence: object.confidence,
        }
    }
}

#[pymethods]
impl TrackedObject {
    fn __repr__(&self) -> String {
        format!(
            "TrackedObject(label={}, area={}, confidence={:.3})",
            self.label, self.area, self.confidence
        )
    }
}
