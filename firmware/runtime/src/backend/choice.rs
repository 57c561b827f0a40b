//! Selects a backend by name.

use std::{fmt, sync::Arc};

use super::{
    Backend, BackendError, CpuBackend, Fallback, FallbackOptions, NarrowCpuBackend, TensorRt,
    tensorrt,
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
    /// TensorRT settings.
    pub tensorrt: tensorrt::Options,
    /// Fallback settings.
    pub fallback: FallbackOptions,
}

/// Opens the backend selected by `choice`. The CPU computes the products of the upsampler in the arithmetic
/// that the environment variable `LOFTUP_KERNELS` selects, except as a fallback: then it has 32 bits.
///
/// # Errors
/// [`BackendError::Unavailable`] if TensorRT is required and cannot be used. With [`Choice::Auto`]
/// this is logged instead: as a warning, or at info level if no NVIDIA library or driver is
/// installed.
pub fn open(choice: Choice, settings: &Settings) -> Result<Arc<dyn Backend>, BackendError> {
    let tensorrt = || {
        let opened = TensorRt::open(settings.tensorrt.clone());
        opened.map(|backend| Arc::new(backend) as Arc<dyn Backend>)
    };
    let narrow = NarrowCpuBackend::from_environment();
    Ok(match choice {
        Choice::Tract => match narrow {
            Some(backend) => Arc::new(backend),
            None => Arc::new(CpuBackend),
        },
        Choice::TensorRt => Arc::new(Fallback::alone(tensorrt()?, settings.fallback)),
        Choice::Auto => match (tensorrt(), narrow) {
            // Compared with the reference outputs of a bundle, unlike a fallback.
            (Err(e), Some(backend)) => {
                log::info!("{e}; using {}", backend.describe());
                Arc::new(backend)
            }
            (tensorrt, _) => Arc::new(Fallback::new(
                tensorrt,
                Arc::new(CpuBackend),
                settings.fallback,
            )),
        },
    })
}
