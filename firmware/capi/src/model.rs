//! Bundles.

use std::{
    ffi::{CString, c_char},
    sync::Arc,
};

use loftup_bundle::{Bundle, HeadKind, Precision, Size, UpsamplerKind};
use loftup_runtime::{
    ExecutionOptions, Perceptor,
    backend::{self, Choice, CpuPrecision, Products, Settings, engine_cache::EngineCache},
};

use crate::{
    border::{self, Growing},
    head_info::{loftup_head_info, name_of},
    status::{Error, Result, guard, loftup_status},
};

/// An inference engine, for loftup_options.engine.
#[repr(i32)]
#[derive(Debug, Clone, Copy)]
pub enum loftup_engine {
    /// TensorRT where it is installed and works, the CPU otherwise, also later when TensorRT fails.
    Auto = 0,
    /// TensorRT only.
    Tensorrt = 1,
    /// The CPU only: two runs on one machine give the same bits.
    Cpu = 2,
}

/// A precision of the graphs of a bundle, for loftup_options.precision.
#[repr(i32)]
#[derive(Debug, Clone, Copy)]
pub enum loftup_precision {
    /// The engine's preferred one among those of the bundle.
    Auto = 0,
    /// 32-bit floats.
    Fp32 = 1,
    /// 16-bit floats, with 32-bit floats where required.
    Fp16 = 2,
    /// 8-bit products, 32-bit floats elsewhere.
    Int8 = 3,
    /// Weights of 16 bits, arithmetic in 32 bits.
    Fp16Weights = 4,
}

/// The matrix products of LoftUp on a CPU, for loftup_options.cpu_precision. Where TensorRT is used they
/// have 32 bits, also when the CPU takes over.
#[repr(i32)]
#[derive(Debug, Clone, Copy)]
pub enum loftup_cpu_precision {
    /// 32-bit floats, whatever the precision of the graphs.
    Fp32 = 0,
    /// That of the graphs, within the error that the bundle allows.
    Auto = 1,
    /// 16-bit integers.
    Int16 = 2,
    /// 16-bit floats; ARM only.
    Fp16 = 3,
    /// bfloat16.
    Bf16 = 4,
    /// 8-bit integers.
    Int8 = 5,
}

/// The upsampler of a bundle.
#[repr(i32)]
#[derive(Debug, Clone, Copy)]
pub enum loftup_upsampler {
    /// None: frames can only be encoded with LOFTUP_METHOD_JBU.
    None = 0,
    /// LoftUp.
    Loftup = 1,
    /// NAF.
    Naf = 2,
}

/// How a bundle is opened. Zeros are the defaults.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct loftup_options {
    /// sizeof(loftup_options).
    pub size: usize,
    /// A loftup_engine.
    pub engine: i32,
    /// A loftup_precision.
    pub precision: i32,
    /// Where TensorRT's engines are cached; NULL for the user's cache directory.
    pub cache_directory: *const c_char,
    /// Threads that compute tiles; 0 for one per core.
    pub threads: usize,
    /// Longest side of a tile in pixels; 0 for the engine's preferred one. Another tile size changes
    /// the rounding of outputs.
    pub tile: usize,
    /// A loftup_cpu_precision.
    pub cpu_precision: i32,
    /// Always 0.
    pub reserved: i32,
}

// SAFETY: `repr(C)`, the size is first, and zeros are numbers and a NULL.
unsafe impl Growing for loftup_options {
    const NAME: &'static str = "loftup_options";
}

/// What a bundle has.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct loftup_model_info {
    /// sizeof(loftup_model_info), set by the caller.
    pub size: usize,
    /// Channels of the upsampled features; those of the backbone if there is no upsampler.
    pub dim: usize,
    /// Channels of the backbone's features, and of what LOFTUP_METHOD_JBU gives; 0 without a backbone.
    pub backbone_dim: usize,
    /// Side of the backbone's patch, in pixels of its input.
    pub patch: usize,
    /// Columns of the backbone's input; the default if it takes any size.
    pub image_width: usize,
    /// Rows of the backbone's input.
    pub image_height: usize,
    /// Columns of the backbone's grid of features for an input of that size.
    pub grid_width: usize,
    /// Rows of that grid.
    pub grid_height: usize,
    /// Number of heads.
    pub heads: usize,
    /// 1 if the backbone takes any size that is a multiple of its patch, 0 if only the one above.
    pub any_size: i32,
    /// A loftup_upsampler.
    pub upsampler: i32,
    /// The loftup_precision that was loaded.
    pub precision: i32,
    /// Always 0.
    pub reserved: i32,
}

// SAFETY: `repr(C)`, the size is first, and zeros are numbers.
unsafe impl Growing for loftup_model_info {
    const NAME: &'static str = "loftup_model_info";
}

/// A bundle that is loaded into an engine.
pub struct loftup_model {
    pub(crate) perceptor: Arc<Perceptor>,
    heads: Vec<(CString, HeadKind)>,
}

const PRECISIONS: [(i32, Option<Precision>); 5] = [
    (loftup_precision::Auto as i32, None),
    (loftup_precision::Fp32 as i32, Some(Precision::Fp32)),
    (loftup_precision::Fp16 as i32, Some(Precision::Fp16)),
    (loftup_precision::Int8 as i32, Some(Precision::Int8)),
    (
        loftup_precision::Fp16Weights as i32,
        Some(Precision::Fp16Weights),
    ),
];

const CPU_PRECISIONS: [(i32, CpuPrecision); 6] = [
    (loftup_cpu_precision::Fp32 as i32, CpuPrecision::FP32),
    (loftup_cpu_precision::Auto as i32, CpuPrecision::Auto),
    (
        loftup_cpu_precision::Int16 as i32,
        CpuPrecision::Products(Products::Int16),
    ),
    (
        loftup_cpu_precision::Fp16 as i32,
        CpuPrecision::Products(Products::Fp16),
    ),
    (
        loftup_cpu_precision::Bf16 as i32,
        CpuPrecision::Products(Products::Bf16),
    ),
    (
        loftup_cpu_precision::Int8 as i32,
        CpuPrecision::Products(Products::Int8),
    ),
];

/// Opens a bundle, a directory made by `loftup convert`. Every file of it is checked. Graphs are
/// loaded when they are first used.
///
/// @param path     Path of the bundle.
/// @param options  NULL for the defaults.
/// @param model    Gets the bundle, to be freed with loftup_model_free; NULL on errors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_open(
    path: *const c_char,
    options: *const loftup_options,
    model: *mut *mut loftup_model,
) -> loftup_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        border::make(model, "model", || {
            let path = border::path(path, "path")?;
            let options = border::options(options)?;
            let mut settings = Settings {
                cpu_precision: border::choice(
                    options.cpu_precision,
                    &CPU_PRECISIONS,
                    "cpu_precision",
                )?,
                ..Settings::default()
            };
            if !options.cache_directory.is_null() {
                let cache = border::path(options.cache_directory, "cache_directory")?;
                settings.tensorrt.cache = EngineCache::at(cache);
            }
            let engines = [
                (loftup_engine::Auto as i32, Choice::Auto),
                (loftup_engine::Tensorrt as i32, Choice::TensorRt),
                (loftup_engine::Cpu as i32, Choice::Tract),
            ];
            let choice = border::choice(options.engine, &engines, "engine")?;
            let precision = border::choice(options.precision, &PRECISIONS, "precision")?;
            let mut execution = ExecutionOptions::default();
            if options.threads > 0 {
                execution.threads = options.threads;
            }
            execution.tile = (options.tile > 0).then_some(options.tile);
            let bundle = Bundle::open(path)?;
            if let Some(p) = precision
                && !bundle.manifest().precisions().contains(&p)
            {
                let remedy = "make it with `loftup quantize`";
                let what = format!("{}: no graphs in {p}; {remedy}", bundle.path().display());
                return Err(Error::new(loftup_status::NotFound, what));
            }
            let backend =
                backend::open(choice, &settings).map_err(loftup_runtime::RuntimeError::from)?;
            let perceptor = match precision {
                Some(p) => Perceptor::with_precision(bundle, backend, execution, p)?,
                None => Perceptor::with_backend(bundle, backend, execution)?,
            };
            let heads = perceptor.manifest().heads.iter();
            let heads = heads.map(|(name, head)| (name_of(name), head.kind.clone()));
            Ok(loftup_model {
                heads: heads.collect(),
                perceptor: Arc::new(perceptor),
            })
        })
    })
}

/// Frees a bundle; NULL is ignored. Heads and frames that were made from it stay valid, and keep what
/// they need of it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_model_free(model: *mut loftup_model) {
    // SAFETY: as the header asks.
    unsafe { border::free(model) }
}

/// Tells what a bundle has.
///
/// @param info  Gets it; info->size must be set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_model_get_info(
    model: *const loftup_model,
    info: *mut loftup_model_info,
) -> loftup_status {
    // SAFETY: as the header asks.
    guard(|| unsafe { border::results(info, border::get(model, "model")?.info()) })
}

/// Tells what a head of a bundle is. Heads are sorted by name.
///
/// @param index  0 to loftup_model_info.heads - 1.
/// @param info   Gets it; info->size must be set. Its name is valid until the bundle is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_model_get_head_info(
    model: *const loftup_model,
    index: usize,
    info: *mut loftup_head_info,
) -> loftup_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        let heads = &border::get(model, "model")?.heads;
        let (name, kind) = heads.get(index).ok_or_else(|| {
            Error::argument(format!("head {index} of {}: there is none", heads.len()))
        })?;
        border::results(info, loftup_head_info::new(name, kind))
    })
}

/// Compiles everything for outputs of a size, so that the first frame does not wait for it: on TensorRT
/// an engine may take minutes to build, and is then cached.
///
/// @param width   Columns of the output for the whole frame.
/// @param height  Its rows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_model_compile(
    model: *const loftup_model,
    width: usize,
    height: usize,
) -> loftup_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        let model = border::get(model, "model")?;
        let grid = model.info();
        let grid = (grid.grid_height, grid.grid_width);
        Ok(model.perceptor.compile(output_size(width, height)?, grid)?)
    })
}

impl loftup_model {
    fn info(&self) -> loftup_model_info {
        let manifest = self.perceptor.manifest();
        let (backbone, upsampler) = (&manifest.backbone, &manifest.upsampler);
        let of_backbone = |f: fn(&loftup_bundle::Backbone) -> usize| backbone.as_ref().map_or(0, f);
        let backbone_dim = of_backbone(|b| b.dim);
        let kind = match upsampler.as_ref().map(|u| u.kind) {
            None => loftup_upsampler::None,
            Some(UpsamplerKind::LoftUp) => loftup_upsampler::Loftup,
            Some(UpsamplerKind::Naf) => loftup_upsampler::Naf,
        };
        let loaded = Some(self.perceptor.precision());
        let precision = PRECISIONS.iter().find(|(_, p)| *p == loaded);
        loftup_model_info {
            size: size_of::<loftup_model_info>(),
            dim: upsampler.as_ref().map_or(backbone_dim, |u| u.dim),
            backbone_dim,
            patch: of_backbone(|b| b.patch),
            image_width: of_backbone(|b| b.size.width),
            image_height: of_backbone(|b| b.size.height),
            grid_width: of_backbone(|b| b.size.width / b.patch),
            grid_height: of_backbone(|b| b.size.height / b.patch),
            heads: self.heads.len(),
            any_size: backbone.as_ref().is_some_and(|b| b.any_size).into(),
            upsampler: kind as i32,
            precision: precision.map_or(0, |(n, _)| *n),
            reserved: 0,
        }
    }
}

/// A size of an output, within what an image can be.
pub(crate) fn output_size(width: usize, height: usize) -> Result<Size> {
    let sides = 1..=Size::LONGEST_SIDE;
    if sides.contains(&width) && sides.contains(&height) {
        return Ok(Size { width, height });
    }
    Err(Error::argument(format!(
        "an output of {width} x {height}: each side must be from 1 to {}",
        Size::LONGEST_SIDE
    )))
}
