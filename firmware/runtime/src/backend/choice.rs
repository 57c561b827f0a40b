//! Selects a backend by name.

use std::{fmt, sync::Arc};

use super::{
    Backend, BackendError, CpuBackend, CpuPrecision, Fallback, FallbackOptions, NarrowCpuBackend,
    TensorRt, tensorrt,
};

/// Which backend to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// TensorRT if it is available, with tract as the fallback.
    #[default]
    Auto,
    /// TensorRT only; an error if it is not available.
    TensorRt,
    /// tract.
    Tract,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::TensorRt => tensorrt::NAME,
            Self::Tract => "tract",
        })
    }
}

/// Settings of the backends and the fallback.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Precision of the upsampler's matrix products on the CPU. As a fallback of TensorRT, the CPU always uses 32 bits.
    pub cpu_precision: CpuPrecision,
    /// TensorRT settings.
    pub tensorrt: tensorrt::Options,
    /// Fallback settings.
    pub fallback: FallbackOptions,
}

/// Opens the backend selected by `choice`.
///
/// # Errors
/// [`BackendError::Unavailable`] if TensorRT is required and cannot be used, or this CPU has no instructions for
/// [`Settings::cpu_precision`]. With [`Choice::Auto`] a missing TensorRT
/// is logged instead: as a warning, or at info level if no NVIDIA library or driver is
/// installed.
pub fn open(choice: Choice, settings: &Settings) -> Result<Arc<dyn Backend>, BackendError> {
    let tensorrt = || {
        let opened = TensorRt::open(settings.tensorrt.clone());
        opened.map(|backend| Arc::new(backend) as Arc<dyn Backend>)
    };
    let with_fallback = |preferred| {
        Arc::new(Fallback::new(
            preferred,
            Arc::new(CpuBackend),
            settings.fallback,
        ))
    };
    let cpu = || -> Result<Arc<dyn Backend>, BackendError> {
        let narrow = NarrowCpuBackend::new(settings.cpu_precision)?;
        Ok(match settings.cpu_precision {
            CpuPrecision::FP32 => Arc::new(CpuBackend),
            // Switches to 32 bits if the outputs do not match the reference outputs.
            CpuPrecision::Auto => with_fallback(Ok(Arc::new(narrow))),
            _ => Arc::new(narrow),
        })
    };
    Ok(match choice {
        Choice::Tract => cpu()?,
        Choice::TensorRt => Arc::new(Fallback::alone(tensorrt()?, settings.fallback)),
        Choice::Auto => match tensorrt() {
            // Unlike a fallback, it is compared with the bundle's reference outputs.
            Err(e) if settings.cpu_precision != CpuPrecision::FP32 => {
                let backend = cpu()?;
                log::info!("{e}; using {}", backend.describe());
                backend
            }
            tensorrt => with_fallback(tensorrt),
        },
    })
}
