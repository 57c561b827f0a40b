//! Conversion, quantization and verification of bundles.

use std::{path::PathBuf, str::FromStr, sync::Arc};

use loftup_bundle::{Bundle, Normalization, Provenance};
use loftup_convert::{
    BackboneSource, Builtin, BuiltinUpsampler, Layout, OnnxBackbone, Request,
    quantize::{self as quantization, default_max_error},
};
use loftup_eval::data;
use loftup_import::vit::VitOptions;
use loftup_runtime::{backend, image::Orientation};
use pyo3::{prelude::*, types::PyDict};

use crate::{
    args::{self, SizeArg},
    error::{failed, wrong},
    output::json,
    progress::Progress,
};

/// A name, as the command line takes it.
fn named<T: FromStr<Err = String>>(what: &str, given: Option<&str>) -> PyResult<Option<T>> {
    let parsed = given.map(|name| {
        name.parse()
            .map_err(|expected| wrong(format!("{what} {name:?}: {expected}")))
    });
    parsed.transpose()
}

fn built_in(name: &str) -> PyResult<Builtin> {
    match name {
        "photos" => Ok(Builtin::Photos),
        "scenes" => Ok(Builtin::Scenes),
        _ => Err(wrong(format!(
            "builtin {name:?}: expected \"photos\" or \"scenes\""
        ))),
    }
}

/// Makes a bundle from checkpoints: a backbone, an upsampler, or both. It is verified before it is
/// moved to ``out``.
///
/// The arguments are those of ``loftup convert``: ``backbone`` with ``backbone_weights``, or
/// ``backbone_onnx`` with ``patch``, and ``upsampler_weights`` or ``builtin_upsampler``; or ``builtin``,
/// ``"photos"`` or ``"scenes"``, a model that comes with the package. ``progress`` is called with (stage, done, total).
/// Returns the manifest and the checks that the bundle passed.
#[pyfunction]
#[pyo3(signature = (out, *, backbone=None, backbone_weights=None, upsampler_weights=None,
    builtin_upsampler=false, builtin=None, prefix=None, heads=None, activation=None, positions=None, text_space=false, backbone_onnx=None, patch=None,
    backbone_output=None, layout=None, extra_tokens=None, mean=None, std=None, size=None, license=None,
    force=false, progress=None))]
#[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
pub fn convert<'py>(
    py: Python<'py>,
    out: PathBuf,
    backbone: Option<String>,
    backbone_weights: Option<PathBuf>,
    upsampler_weights: Option<PathBuf>,
    builtin_upsampler: bool,
    builtin: Option<&str>,
    prefix: Option<String>,
    heads: Option<usize>,
    activation: Option<&str>,
    positions: Option<&str>,
    text_space: bool,
    backbone_onnx: Option<PathBuf>,
    patch: Option<usize>,
    backbone_output: Option<String>,
    layout: Option<&str>,
    extra_tokens: Option<usize>,
    mean: Option<[f32; 3]>,
    std: Option<[f32; 3]>,
    size: Option<SizeArg>,
    license: Option<String>,
    force: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let options = VitOptions {
        heads,
        activation: named("activation", activation)?,
        positions: named("positions", positions)?,
        text_space,
        mean,
        std,
    };
    if let Some(license) = &license {
        Provenance::usable_license(license).map_err(wrong)?;
    }
    let layout: Option<Layout> = named("layout", layout)?;
    let size = args::size(size)?;
    let builtin = builtin.map(built_in).transpose()?;
    if std.is_some_and(|std| std.iter().any(|x| *x <= 0.0)) {
        return Err(wrong("standard deviations must be greater than 0"));
    }
    let of_vit = heads.is_some() || activation.is_some() || positions.is_some() || text_space;
    let of_onnx =
        patch.is_some() || backbone_output.is_some() || layout.is_some() || extra_tokens.is_some();
    let given = mean.is_some() || std.is_some();
    let source = match (backbone, backbone_weights, backbone_onnx, patch) {
        (Some(preset), Some(weights), None, _) if !of_onnx => Some(BackboneSource::Checkpoint {
            preset,
            weights,
            options,
        }),
        (None, None, Some(path), Some(patch)) if patch > 0 && !of_vit && prefix.is_none() => {
            Some(BackboneSource::Onnx(OnnxBackbone {
                path,
                patch,
                normalization: given.then(|| Normalization::IMAGENET.with(mean, std)),
                output: backbone_output,
                layout,
                extra_tokens,
            }))
        }
        (None, None, None, None) if !of_vit && !of_onnx && !given => None,
        _ => {
            return Err(wrong(
                "give backbone with backbone_weights (and heads, activation, positions), or \
                 backbone_onnx with patch (and backbone_output, layout, extra_tokens); mean and std \
                 go with both",
            ));
        }
    };
    if builtin_upsampler && (source.is_none() || upsampler_weights.is_some()) {
        return Err(wrong(
            "builtin_upsampler takes a backbone and no upsampler_weights",
        ));
    }
    let naf = builtin_upsampler.then(BuiltinUpsampler::create);
    let naf = naf.transpose().map_err(failed)?;
    let request = Request {
        backbone: source,
        upsampler: (naf.as_ref().map(|naf| naf.path().to_path_buf())).or(upsampler_weights),
        prefix,
        license,
        size,
        out,
        replace: force,
    };
    let others = request.backbone.is_some()
        || request.upsampler.is_some()
        || request.size.is_some()
        || request.prefix.is_some()
        || request.license.is_some();
    if builtin.is_some() && others {
        return Err(wrong(
            "builtin is a whole model: give nothing but out and force with it",
        ));
    }
    let converted = Progress::new(progress).run(py, |progress| {
        let stage = |stage: &str| progress.step(stage, 0, 1);
        match builtin {
            Some(model) => model.write(&request.out, request.replace, stage),
            None => loftup_convert::convert(&request, stage),
        }
    })?;
    let result = PyDict::new(py);
    result.set_item("manifest", json(py, &converted.manifest)?)?;
    result.set_item("checks", json(py, &converted.checks)?)?;
    Ok(result)
}

/// Calibration images: a directory, or paths.
pub enum Images {
    Directory(PathBuf),
    Files(Vec<PathBuf>),
}

impl FromPyObject<'_, '_> for Images {
    type Error = PyErr;

    fn extract(given: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        if let Ok(directory) = given.extract() {
            return Ok(Self::Directory(directory));
        }
        let files = given.extract().map(Self::Files);
        files.map_err(|_| args::unexpected(&given, "a directory or a list of files"))
    }
}

/// Quantizes a bundle to ``precision``, ``"fp16"``, ``"int8"`` or ``"fp16-weights"``, and measures the
/// error on images like those the robot will see: a directory, of which at most ``limit`` are used,
/// evenly spread, or a list of files.
///
/// The most sensitive layers stay in fp32 until the relative error of the features is at most
/// ``max_error`` (by default 0.0075 for fp16, 0.05 for int8). ``progress`` is called with (stage, done,
/// total). Returns all measurements, as ``loftup quantize --json`` writes them.
#[pyfunction]
#[pyo3(signature = (bundle, out, *, precision, images, max_error=None, limit=16, tiles=4, size=None,
    keep=false, force=false, progress=None))]
#[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
pub fn quantize<'py>(
    py: Python<'py>,
    bundle: PathBuf,
    out: PathBuf,
    precision: &str,
    images: Images,
    max_error: Option<f64>,
    limit: usize,
    tiles: usize,
    size: Option<SizeArg>,
    keep: bool,
    force: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let precision = args::precision(precision)?;
    if max_error.is_some_and(|limit| !(limit.is_finite() && limit > 0.0)) {
        return Err(wrong("max_error: give a fraction above 0, as in 0.05"));
    }
    if limit == 0 || tiles == 0 {
        return Err(wrong("limit and tiles: give at least 1"));
    }
    let images = match images {
        Images::Directory(directory) => {
            let all = data::image_files(&directory).map_err(failed)?;
            quantization::spread(all, limit)
        }
        Images::Files(files) => files,
    };
    if images.is_empty() {
        return Err(wrong("images: there are none"));
    }
    let request = quantization::Request {
        bundle,
        precision,
        images,
        size: args::size(size)?,
        orientation: Orientation::Upright,
        tiles,
        max_error: max_error.or(default_max_error(precision)),
        keep,
        out,
        replace: force,
    };
    let report = Progress::new(progress).run(py, |progress| {
        quantization::quantize(&request, None, &mut |stage, done, total| {
            progress.step(stage, done, total)
        })
    })?;
    json(py, &report)
}

/// Verifies a bundle: checksums, that every graph runs, and that tiles, regions and points match the
/// output of the whole graph. Returns the checks; raises ``LoftupError`` if one fails.
#[pyfunction]
#[pyo3(signature = (bundle, *, engine="auto"))]
pub fn verify<'py>(py: Python<'py>, bundle: PathBuf, engine: &str) -> PyResult<Bound<'py, PyAny>> {
    let choice = args::engine(engine)?;
    let checks = py.detach(|| {
        let opened = Bundle::open(&bundle).map_err(failed)?;
        let backend = backend::open(choice, &backend::Settings::default()).map_err(failed)?;
        loftup_convert::verify_with(opened, Arc::clone(&backend)).map_err(failed)
    })?;
    match checks.iter().find(|check| !check.passed) {
        Some(check) => Err(failed(format!("{}: failed: {check}", bundle.display()))),
        None => json(py, &checks),
    }
}
