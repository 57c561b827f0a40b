//! Selects a backend by name.

use std::{fmt, sync::Arc};

use super::{Backend, BackendError, CpuBackend, Fallback, FallbackOptions, TensorRt, tensorrt};

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

/// Opens the backend selected by `choice`.
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
    Ok(match choice {
        Choice::Tract => Arc::new(CpuBackend),
        Choice::TensorRt => Arc::new(Fallback::alone(tensorrt()?, settings.fallback)),
        Choice::Auto => Arc::new(Fallback::new(
            tensorrt(),
            Arc::new(CpuBackend),
            settings.fallback,
        )),
    })
}
