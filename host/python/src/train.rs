//! Heads made from data.

use std::path::{Path, PathBuf};

use loftup_bundle::{Bundle, HeadKind};
use loftup_eval::{
    EvalError, Method, depth,
    heads::{self, NewHead},
    probe,
};
use loftup_runtime::{
    ExecutionOptions, Perceptor,
    backend::{self, Settings},
    depth::Camera,
    image::Orientation,
};
use pyo3::{prelude::*, types::PyDict};

use crate::{
    args::{self, RangeArg, SizeArg},
    error::{failed, of_runtime, wrong},
    progress::Progress,
};

/// What all heads are made with.
struct Job {
    bundle: PathBuf,
    data: PathBuf,
    out: PathBuf,
    name: String,
    size: Option<SizeArg>,
    range: RangeArg,
    samples: usize,
    limit: Option<usize>,
    seed: u64,
    engine: String,
    force: bool,
    progress: Option<Py<PyAny>>,
}

impl Job {
    /// Makes the head and writes the new bundle.
    fn run<'py>(
        self,
        py: Python<'py>,
        make: impl FnOnce(
            &Perceptor,
            heads::Request,
            &Path,
            &mut dyn FnMut(&str, usize, usize),
        ) -> Result<NewHead, EvalError>
        + Send,
    ) -> PyResult<Bound<'py, PyDict>> {
        let choice = args::engine(&self.engine)?;
        let size = args::size(self.size)?;
        if self.samples == 0 || self.limit == Some(0) {
            return Err(wrong("samples and limit: give at least 1"));
        }
        // Before the work starts.
        if self.out.symlink_metadata().is_ok() && !self.force {
            return Err(failed(format!(
                "{}: already exists; choose another out, or replace the bundle with force=True",
                self.out.display()
            )));
        }
        let perceptor = py.detach(|| {
            let bundle = Bundle::open(&self.bundle).map_err(failed)?;
            let backend = backend::open(choice, &Settings::default()).map_err(failed)?;
            Perceptor::with_backend(bundle, backend, ExecutionOptions::default())
                .map_err(of_runtime)
        })?;
        let request = heads::Request {
            size,
            range: self.range.color_range(perceptor.manifest())?,
            orientation: Orientation::Upright,
            samples: self.samples,
            most: self.limit,
            probe: probe::Options {
                seed: self.seed,
                ..probe::Options::default()
            },
        };
        let Self {
            bundle,
            data,
            out,
            name,
            force,
            progress,
            ..
        } = self;
        let head = Progress::new(progress).run_unwinding(py, |step| {
            let head = make(&perceptor, request, &data, step)?;
            heads::add(&bundle, &name, &head, &data, &out, force)?;
            Ok::<_, EvalError>(head)
        })?;
        let result = PyDict::new(py);
        result.set_item("head", name)?;
        result.set_item("outputs", head.kind.outputs())?;
        result.set_item("names", head.kind.class_names())?;
        if let HeadKind::Depth {
            min_meters,
            max_meters,
            ..
        } = head.kind
        {
            result.set_item("range", (min_meters, max_meters))?;
        }
        result.set_item("images", head.images)?;
        result.set_item("pixels", head.pixels)?;
        result.set_item("fit", head.fit)?;
        result.set_item("skipped", head.skipped)?;
        Ok(result)
    }
}

/// Trains a linear classifier on upsampled features and writes the bundle with it to ``out``, as
/// ``loftup head classes`` does.
///
/// ``data`` has images/ and labels/ (PNG masks of class indices; 255 is unlabeled), or those in train/,
/// and classes.txt with the names. ``samples`` are pixels of each image. ``progress`` is called with
/// (stage, done, total). Returns the size of the training set and the accuracy on it (``fit``).
#[pyfunction]
#[pyo3(signature = (bundle, data, out, *, name="classes".to_owned(), epochs=None, size=None,
    range=RangeArg::per_image(), samples=512, limit=None, seed=0, engine="auto".to_owned(), force=false,
    progress=None))]
#[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
pub fn head_classes<'py>(
    py: Python<'py>,
    bundle: PathBuf,
    data: PathBuf,
    out: PathBuf,
    name: String,
    epochs: Option<usize>,
    size: Option<SizeArg>,
    range: RangeArg,
    samples: usize,
    limit: Option<usize>,
    seed: u64,
    engine: String,
    force: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    if epochs == Some(0) {
        return Err(wrong("epochs: give at least 1"));
    }
    let job = Job {
        bundle,
        data,
        out,
        name,
        size,
        range,
        samples,
        limit,
        seed,
        engine,
        force,
        progress,
    };
    job.run(py, |perceptor, mut request, data, progress| {
        request.probe.epochs = epochs.unwrap_or(request.probe.epochs);
        heads::classes(perceptor, data, &request, progress)
    })
}

/// Fits a projection of the features to their first ``channels`` principal components on a directory of
/// images and writes the bundle with it to ``out``, as ``loftup head pca`` does. ``fit`` is the share of
/// the variance that is explained.
#[pyfunction]
#[pyo3(signature = (bundle, images, out, *, channels=8, name="pca".to_owned(), size=None,
    range=RangeArg::per_image(), samples=512, limit=None, seed=0, engine="auto".to_owned(), force=false,
    progress=None))]
#[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
pub fn head_pca<'py>(
    py: Python<'py>,
    bundle: PathBuf,
    images: PathBuf,
    out: PathBuf,
    channels: usize,
    name: String,
    size: Option<SizeArg>,
    range: RangeArg,
    samples: usize,
    limit: Option<usize>,
    seed: u64,
    engine: String,
    force: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let job = Job {
        bundle,
        data: images,
        out,
        name,
        size,
        range,
        samples,
        limit,
        seed,
        engine,
        force,
        progress,
    };
    job.run(py, |perceptor, request, images, progress| {
        heads::pca(perceptor, images, channels, &request, progress)
    })
}

/// Fits a linear head for depth in meters and writes the bundle with it to ``out``, as ``loftup head
/// depth`` does: ridge regression of the logarithm of the depth, or a head of ``bins``.
///
/// ``data`` is a directory or an index as for the command (docs/depth.md); ``set`` selects rows of the
/// index. Depths beyond ``max_depth`` meters are ignored. ``fit`` is the explained variance.
#[pyfunction]
#[pyo3(signature = (bundle, data, out, *, name="depth".to_owned(), set=None, max_depth=None, bins=None,
    ridge=depth::RIDGE, size=None, range=RangeArg::per_image(), samples=512, limit=None, seed=0,
    engine="auto".to_owned(), force=false, progress=None))]
#[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
pub fn head_depth<'py>(
    py: Python<'py>,
    bundle: PathBuf,
    data: PathBuf,
    out: PathBuf,
    name: String,
    set: Option<String>,
    max_depth: Option<f32>,
    bins: Option<usize>,
    ridge: f64,
    size: Option<SizeArg>,
    range: RangeArg,
    samples: usize,
    limit: Option<usize>,
    seed: u64,
    engine: String,
    force: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let job = Job {
        bundle,
        data,
        out,
        name,
        size,
        range,
        samples,
        limit,
        seed,
        engine,
        force,
        progress,
    };
    job.run(py, |perceptor, request, data, progress| {
        let request = depth::Request {
            data,
            set: set.as_deref(),
            size: request.size,
            range: request.range,
            orientation: request.orientation,
            methods: vec![Method::LoftUp],
            samples: request.samples,
            most: request.most,
            max_depth,
            bins,
            camera: Camera::default(),
            ridge,
            seed: request.probe.seed,
        };
        depth::head(perceptor, &request, progress)
    })
}
