//! A bundle loaded into an engine.

use std::{path::PathBuf, sync::Arc};

use loftup_bundle::{Bundle, HeadKind, Linear, Size};
use loftup_eval::Method;
use loftup_runtime::{Features, Perceptor as Runtime, backend};
use numpy::{PyArray3, PyReadonlyArray1, PyReadonlyArray2, PyReadonlyArray3};
use pyo3::{prelude::*, types::PyDict};

use crate::{
    args::{self, RangeArg, SizeArg, Upsampler, rows_and_columns},
    error::{failed, of_runtime, wrong},
    frame::{Frame, Region},
    head::{Head, HeadArg},
    image,
    model::{Encoding, Model, image_size},
    output::{array, json},
};

/// A bundle loaded into an engine. It can be used from several threads.
///
///     perceptor = loftup.Perceptor.open("robot.loftup")
///     frame = perceptor.encode(image)                  # uint8 [height, width, 3], a Pillow image or a path
///     features = frame.features()                      # float32 [height, width, channels]
///     classes = frame.classes("classes")               # uint8 [height, width]
#[pyclass(frozen, module = "loftup")]
pub struct Perceptor {
    model: Arc<Model>,
}

#[pymethods]
impl Perceptor {
    /// Opens the bundle at ``path``.
    ///
    /// ``engine``: ``"auto"`` (TensorRT where it works, the CPU otherwise), ``"cpu"`` or
    /// ``"tensorrt"``. ``precision``: ``"fp32"``, ``"fp16"``, ``"int8"`` or ``"fp16-weights"``; by
    /// default the engine's choice. ``cpu_precision``: matrix products of LoftUp on a CPU: ``"fp32"``,
    /// ``"auto"`` (that of the bundle's graphs), ``"int16"``, ``"fp16"``, ``"bf16"`` or ``"int8"``.
    /// ``threads``: threads that compute tiles; by default one per core.
    /// ``tile``: longest side of a tile in pixels; it changes the rounding of results.
    #[staticmethod]
    #[pyo3(signature = (path, *, engine="auto", precision=None, cpu_precision="fp32", threads=None, tile=None))]
    fn open(
        py: Python<'_>,
        path: PathBuf,
        engine: &str,
        precision: Option<&str>,
        cpu_precision: &str,
        threads: Option<usize>,
        tile: Option<usize>,
    ) -> PyResult<Self> {
        let choice = args::engine(engine)?;
        let precision = precision.map(args::precision).transpose()?;
        let settings = backend::Settings {
            cpu_precision: args::cpu_precision(cpu_precision)?,
            ..backend::Settings::default()
        };
        let options = args::execution(threads, tile)?;
        let perceptor = py.detach(|| {
            let bundle = Bundle::open(&path).map_err(failed)?;
            let there = bundle.manifest().precisions();
            if let Some(precision) = precision.filter(|p| !there.contains(p)) {
                let there: Vec<&str> = there.iter().map(|p| p.name()).collect();
                return Err(wrong(format!(
                    "{}: has no graphs in {precision}, only in {}",
                    path.display(),
                    there.join(" and ")
                )));
            }
            let backend = backend::open(choice, &settings).map_err(failed)?;
            let opened = match precision {
                Some(precision) => Runtime::with_precision(bundle, backend, options, precision),
                None => Runtime::with_backend(bundle, backend, options),
            };
            opened.map_err(of_runtime)
        })?;
        Ok(Self {
            model: Arc::new(Model::new(&path, perceptor)),
        })
    }

    /// Where the bundle is.
    #[getter]
    fn path(&self) -> PathBuf {
        self.model.path.clone()
    }

    /// The manifest of the bundle, as in its ``manifest.json``.
    #[getter]
    fn manifest<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        json(py, self.runtime().manifest())
    }

    /// Rows and columns of the backbone's input, which are those of the output by default; None
    /// without a backbone.
    #[getter]
    fn size(&self) -> Option<(usize, usize)> {
        let backbone = self.runtime().manifest().backbone.as_ref();
        backbone.map(|b| rows_and_columns(b.size))
    }

    /// Side of a patch of the backbone in pixels.
    #[getter]
    fn patch(&self) -> Option<usize> {
        self.runtime().manifest().backbone.as_ref().map(|b| b.patch)
    }

    /// Rows and columns of the backbone's features at its own input size.
    #[getter]
    fn grid(&self) -> Option<(usize, usize)> {
        let backbone = self.runtime().manifest().backbone.as_ref()?;
        let Size { width, height } = backbone.size;
        Some((height / backbone.patch, width / backbone.patch))
    }

    /// Channels of the features.
    #[getter]
    fn dim(&self) -> Option<usize> {
        let manifest = self.runtime().manifest();
        let upsampler = manifest.upsampler.as_ref().map(|u| u.dim);
        upsampler.or(manifest.backbone.as_ref().map(|b| b.dim))
    }

    /// Names of the heads in the bundle.
    #[getter]
    fn heads(&self) -> Vec<String> {
        self.runtime().manifest().heads.keys().cloned().collect()
    }

    /// Kind of the upsampler: ``"loftup"`` or ``"naf"``; None without one.
    #[getter]
    fn kind(&self) -> Option<&'static str> {
        let upsampler = self.runtime().manifest().upsampler.as_ref();
        upsampler.map(|u| u.kind.key())
    }

    /// Name, version and device of the engine in use.
    #[getter]
    fn engine(&self) -> String {
        self.runtime().engine()
    }

    /// Precision of the graphs in use.
    #[getter]
    fn precision(&self) -> &'static str {
        self.runtime().precision().name()
    }

    /// Threads that compute tiles.
    #[getter]
    fn threads(&self) -> usize {
        self.runtime().options().threads
    }

    /// The engine in use (``answering``), the reason if it is not the preferred one (``degraded``),
    /// and counters.
    #[getter]
    fn health<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let health = self.runtime().health();
        let counters = health.counters;
        let dict = PyDict::new(py);
        dict.set_item("answering", health.answering)?;
        dict.set_item("degraded", health.reason())?;
        for (name, count) in [
            ("preferred_runs", counters.preferred_runs),
            ("fallback_runs", counters.fallback_runs),
            ("errors", counters.errors),
            ("not_finite", counters.not_finite),
            ("wrong", counters.wrong),
            ("timeouts", counters.timeouts),
        ] {
            dict.set_item(name, count)?;
        }
        Ok(dict)
    }

    /// Compiles for outputs of ``size``, so that the first frame does not wait for it.
    #[pyo3(signature = (size=None))]
    fn compile(&self, py: Python<'_>, size: Option<SizeArg>) -> PyResult<()> {
        let own = self.runtime().manifest().backbone.as_ref().map(|b| b.size);
        let size = args::size(size)?.or(own);
        let size = size.ok_or_else(|| wrong("the bundle has no backbone: give a size"))?;
        let grid = self.grid().unwrap_or((16, 16));
        py.detach(|| self.runtime().compile(size, grid))
            .map_err(of_runtime)
    }

    /// Runs the backbone on an image and returns a ``Frame``.
    ///
    /// ``image``: a path, a Pillow image, or an array of uint8 [height, width, channels] with any
    /// strides. ``format`` of an array: ``"rgb"`` (default), ``"bgr"``, ``"rgba"``, ``"bgra"`` or
    /// ``"gray"``; alpha is dropped. ``size`` of the output: (height, width), or the side of a square; by
    /// default the backbone's. The image is resized to it. ``range``: how colors are scaled,
    /// ``"image"`` by those of each image, ``"full"`` by 0 to 255, or (low, high); a fixed range avoids
    /// flicker in video. ``upsampler``: ``"loftup"``, the one of the bundle, or ``"jbu"``, joint
    /// bilateral upsampling, which needs no training; heads for LoftUp's features do not fit its features.
    #[pyo3(signature = (image, *, format=None, size=None, range=RangeArg::per_image(), upsampler="loftup"))]
    fn encode(
        &self,
        image: &Bound<'_, PyAny>,
        format: Option<&str>,
        size: Option<SizeArg>,
        range: RangeArg,
        upsampler: &str,
    ) -> PyResult<Frame> {
        let size = args::size(size)?;
        self.frame(image, format, size, &range, upsampler, None)
    }

    /// Upsamples features that you bring: float32 [h, w, channels] of a backbone run elsewhere. The
    /// image guides it, and ``size`` is that of the image by default; otherwise as ``encode``.
    #[pyo3(signature = (features, image, *, format=None, size=None, range=RangeArg::per_image(), upsampler="loftup"))]
    fn encode_features(
        &self,
        features: PyReadonlyArray3<'_, f32>,
        image: &Bound<'_, PyAny>,
        format: Option<&str>,
        size: Option<SizeArg>,
        range: RangeArg,
        upsampler: &str,
    ) -> PyResult<Frame> {
        let size = args::size(size)?;
        let features = self.tokens(&features)?;
        self.frame(image, format, size, &range, upsampler, Some(features))
    }

    /// Features of the backbone, not upsampled: float32 [h, w, channels].
    #[pyo3(signature = (image, *, format=None, size=None))]
    fn backbone_features<'py>(
        &self,
        py: Python<'py>,
        image: &Bound<'py, PyAny>,
        format: Option<&str>,
        size: Option<SizeArg>,
    ) -> PyResult<Bound<'py, PyArray3<f32>>> {
        let image = image::extract(image, format)?;
        let size = args::size(size)?.unwrap_or(self.model.default_size(&image));
        let features = py.detach(|| {
            let runtime = self.runtime();
            let tensor = runtime.to_tensor(&image, runtime.backbone_size(size)?)?;
            runtime.features(&tensor)
        });
        let Features {
            dim,
            height,
            width,
            tokens,
        } = features.map_err(of_runtime)?;
        array(py, [height, width, dim], tokens)
    }

    /// One call from an image to an output: ``encode``, then ``Frame.features``, or ``Frame.region``
    /// if ``region`` (x, y, width, height) is given, or ``Frame.points`` if ``points`` are.
    #[pyo3(signature = (image, *, head=None, region=None, points=None, format=None, size=None,
        range=RangeArg::per_image(), upsampler="loftup"))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        image: &Bound<'py, PyAny>,
        head: Option<HeadArg<'py>>,
        region: Option<Region>,
        points: Option<Bound<'py, PyAny>>,
        format: Option<&str>,
        size: Option<SizeArg>,
        range: RangeArg,
        upsampler: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        if region.is_some() && points.is_some() {
            return Err(wrong("give region or points, not both"));
        }
        let size = args::size(size)?;
        let frame = self.frame(image, format, size, &range, upsampler, None)?;
        match points {
            Some(points) => Ok(frame.points(py, &points, head)?.into_any()),
            None => Ok(frame.pixels(py, region, head)?.into_any()),
        }
    }

    /// The head of the bundle with this name.
    fn head(&self, name: &str) -> PyResult<Head> {
        let inner = self.model.head(name)?;
        Ok(Head { inner })
    }

    /// The head in a file of its own, as ``loftup head text --out FILE.safetensors`` writes.
    fn head_from_file(&self, path: PathBuf) -> PyResult<Head> {
        let head = self.runtime().head_from_file(&path).map_err(of_runtime)?;
        Ok(Head {
            inner: Arc::new(head),
        })
    }

    /// A head from its weights: float32 [outputs, channels], and a bias [outputs]. With ``names`` its
    /// outputs are scores of classes, otherwise descriptors.
    #[pyo3(signature = (weight, bias=None, *, names=None))]
    fn custom_head(
        &self,
        weight: PyReadonlyArray2<'_, f32>,
        bias: Option<PyReadonlyArray1<'_, f32>>,
        names: Option<Vec<String>>,
    ) -> PyResult<Head> {
        let weight = weight.as_array();
        let (outputs, dim) = weight.dim();
        let bias = match bias {
            Some(bias) => bias.as_array().iter().copied().collect(),
            None => vec![0.0; outputs],
        };
        if self.dim() != Some(dim) {
            return Err(wrong(format!(
                "weight of shape [{outputs}, {dim}]: the features have {} channels",
                self.dim().unwrap_or(0)
            )));
        }
        let most = HeadKind::MOST_CLASSES;
        if names.as_ref().is_some_and(|names| names.len() > most) {
            return Err(wrong(format!("more than {most} names")));
        }
        let manifest = loftup_bundle::Head {
            kind: match names {
                Some(names) => HeadKind::Classes { names },
                None => HeadKind::Descriptors { channels: outputs },
            },
            dim,
            file: String::new(),
        };
        let linear = Linear {
            inputs: dim,
            weight: weight.iter().copied().collect(),
            bias,
        };
        let head = self.runtime().custom_head(manifest, linear);
        Ok(Head {
            inner: Arc::new(head.map_err(of_runtime)?),
        })
    }

    fn __repr__(&self) -> String {
        format!(
            "Perceptor({:?}, engine={:?}, precision={:?})",
            self.model.path,
            self.runtime().backend(),
            self.precision()
        )
    }
}

impl Perceptor {
    fn runtime(&self) -> &Runtime {
        &self.model.perceptor
    }

    fn frame(
        &self,
        source: &Bound<'_, PyAny>,
        format: Option<&str>,
        size: Option<Size>,
        range: &RangeArg,
        upsampler: &str,
        features: Option<Features>,
    ) -> PyResult<Frame> {
        let upsampler = Upsampler::parse(upsampler)?;
        let range = range.color_range(self.runtime().manifest())?;
        let image = image::extract(source, format)?;
        let own = match features {
            Some(_) => image_size(&image),
            None => self.model.default_size(&image),
        };
        let encoding = Encoding {
            image: &image,
            size: size.unwrap_or(own),
            range,
            upsampler,
            features,
        };
        let model = self.model.clone();
        let frame = source.py().detach(|| model.encode(encoding));
        let method = match upsampler {
            Upsampler::OfBundle => Method::LoftUp.for_bundle(self.runtime().manifest()),
            Upsampler::Jbu => Method::Jbu,
        };
        Ok(Frame {
            inner: frame.map_err(of_runtime)?,
            method,
        })
    }

    /// Features as the runtime takes them.
    fn tokens(&self, features: &PyReadonlyArray3<'_, f32>) -> PyResult<Features> {
        let view = features.as_array();
        let (height, width, dim) = view.dim();
        let expected = self.dim().unwrap_or(dim);
        if dim != expected || height == 0 || width == 0 {
            return Err(wrong(format!(
                "features of shape [{height}, {width}, {dim}]: expected [h, w, {expected}]"
            )));
        }
        let tokens: Vec<f32> = view.iter().copied().collect();
        if let Some(index) = tokens.iter().position(|x| !x.is_finite()) {
            let value = tokens[index];
            return Err(wrong(format!(
                "the features contain {value} at flat index {index}; remove NaN and infinity from the input"
            )));
        }
        Ok(Features {
            dim,
            height,
            width,
            tokens,
        })
    }
}
