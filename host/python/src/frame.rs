//! An encoded frame.

use loftup_eval::Method;
use loftup_runtime::{Point, depth::Depth};
use numpy::{
    PyArray2, PyArray3, PyArrayDescrMethods, PyReadonlyArrayDyn, PyUntypedArray,
    PyUntypedArrayMethods, ndarray::Ix2,
};
use pyo3::{exceptions::PyTypeError, prelude::*};

use crate::{
    args::{rect, rows_and_columns},
    error::{of_runtime, wrong},
    head::{HeadArg, resolve},
    model::OwnedFrame,
    output::array,
};

/// A frame after the backbone, from ``Perceptor.encode``. Each output costs in proportion to its area.
///
/// All outputs are NumPy arrays of their own. Coordinates are pixels of the output: x to the right, y
/// down, from 0.
#[pyclass(frozen, module = "loftup")]
pub struct Frame {
    pub inner: OwnedFrame,
    /// How its features are upsampled.
    pub method: Method,
}

#[pymethods]
impl Frame {
    /// Rows and columns of the whole output.
    #[getter]
    fn size(&self) -> (usize, usize) {
        rows_and_columns(self.inner.size())
    }

    /// Channels of the features.
    #[getter]
    fn dim(&self) -> usize {
        self.inner.dim()
    }

    /// Features of all pixels, or outputs of a head: float32 [height, width, channels].
    #[pyo3(signature = (*, head=None))]
    fn features<'py>(
        &self,
        py: Python<'py>,
        head: Option<HeadArg<'py>>,
    ) -> PyResult<Bound<'py, PyArray3<f32>>> {
        self.pixels(py, None, head)
    }

    /// Features of a region, or outputs of a head: float32 [height, width, channels].
    #[pyo3(signature = (x, y, width, height, *, head=None))]
    fn region<'py>(
        &self,
        py: Python<'py>,
        x: usize,
        y: usize,
        width: usize,
        height: usize,
        head: Option<HeadArg<'py>>,
    ) -> PyResult<Bound<'py, PyArray3<f32>>> {
        self.pixels(py, Some((x, y, width, height)), head)
    }

    /// Features at points, or outputs of a head: float32 [n, channels]. ``points`` are whole numbers
    /// [n, 2], x and y of each.
    #[pyo3(signature = (points, *, head=None))]
    pub fn points<'py>(
        &self,
        py: Python<'py>,
        points: &Bound<'py, PyAny>,
        head: Option<HeadArg<'py>>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let points = to_points(points)?;
        let head = resolve(head.as_ref(), self.inner.model())?;
        let (dim, values) = py
            .detach(|| self.inner.points(head.as_deref(), &points))
            .map_err(of_runtime)?;
        array(py, [points.len(), dim], values)
    }

    /// The class of each pixel, the one with the highest score: uint8 [height, width], ``NO_CLASS``
    /// (255) where there is none. Without ``head``, the only head of the bundle with classes.
    #[pyo3(signature = (head=None))]
    fn classes<'py>(
        &self,
        py: Python<'py>,
        head: Option<HeadArg<'py>>,
    ) -> PyResult<Bound<'py, PyArray2<u8>>> {
        let model = self.inner.model();
        let head = match resolve(head.as_ref(), model)? {
            Some(head) => head,
            None => model.only_head("classes", |kind| kind.class_names().is_some())?,
        };
        if head.kind().class_names().is_none() {
            return Err(wrong("the head has no classes: use features(head=...)"));
        }
        let classes = py
            .detach(|| self.inner.classes(&head))
            .map_err(of_runtime)?;
        let (height, width) = self.size();
        array(py, [height, width], classes)
    }

    /// The depth of each pixel in meters: float32 [height, width]. Without ``head``, the only depth
    /// head of the bundle.
    #[pyo3(signature = (head=None))]
    fn depth<'py>(
        &self,
        py: Python<'py>,
        head: Option<HeadArg<'py>>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let model = self.inner.model();
        let head = match resolve(head.as_ref(), model)? {
            Some(head) => head,
            None => model.only_head("depth", |kind| {
                matches!(kind, loftup_bundle::HeadKind::Depth { .. })
            })?,
        };
        let depth = Depth::of(&head)
            .ok_or_else(|| wrong("the head gives no depth: use features(head=...)"))?;
        let meters = py
            .detach(|| self.inner.depth(&head, depth))
            .map_err(of_runtime)?;
        let (height, width) = self.size();
        array(py, [height, width], meters)
    }

    fn __repr__(&self) -> String {
        let (height, width) = self.size();
        format!("Frame(size=({height}, {width}), dim={})", self.dim())
    }
}

/// `(x, y, width, height)`.
pub type Region = (usize, usize, usize, usize);

impl Frame {
    /// Features, or outputs of a head, of a region or of all pixels.
    pub fn pixels<'py>(
        &self,
        py: Python<'py>,
        region: Option<Region>,
        head: Option<HeadArg<'py>>,
    ) -> PyResult<Bound<'py, PyArray3<f32>>> {
        let head = resolve(head.as_ref(), self.inner.model())?;
        let region = region.map(rect);
        let found = py
            .detach(|| self.inner.pixels(head.as_deref(), region))
            .map_err(of_runtime)?;
        array(
            py,
            [found.rect.height, found.rect.width, found.dim],
            found.values,
        )
    }
}

/// Points from anything that NumPy takes for an array of whole numbers.
fn to_points(points: &Bound<'_, PyAny>) -> PyResult<Vec<Point>> {
    let numpy = points.py().import("numpy")?;
    let given = numpy.call_method1("asarray", (points,))?;
    let given = given.cast::<PyUntypedArray>()?;
    if given.len() == 0 {
        return Ok(Vec::new());
    }
    if !matches!(given.dtype().kind(), b'i' | b'u') {
        return Err(PyTypeError::new_err(format!(
            "points of dtype {}: expected whole numbers, x and y of each point; round them first",
            given.dtype().str()?
        )));
    }
    let shape = given.shape().to_vec();
    let wide = given.call_method1("astype", ("int64",))?;
    let wide: PyReadonlyArrayDyn<'_, i64> = wide.extract()?;
    let pairs = wide.as_array().into_dimensionality::<Ix2>().ok();
    let Some(pairs) = pairs.filter(|pairs| pairs.dim().1 == 2) else {
        return Err(wrong(format!(
            "points of shape {shape:?}: expected [n, 2], x and y of each point"
        )));
    };
    let coordinate = |value: i64, index: usize| {
        usize::try_from(value).map_err(|_| wrong(format!("point {index}: {value} is negative")))
    };
    let points = pairs.outer_iter().enumerate().map(|(index, pair)| {
        Ok(Point {
            x: coordinate(pair[0], index)?,
            y: coordinate(pair[1], index)?,
        })
    });
    points.collect()
}
