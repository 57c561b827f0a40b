//! Engines by name.

use std::{fmt, sync::Arc};

use super::{Backend, BackendError, CpuBackend, Fallback, FallbackOptions, TensorRt, tensorrt};

/// Which engine is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// TensorRT, and tract where that is missing or fails.
    #[default]
    Auto,
    /// TensorRT or an error.
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

/// How engines are opened and watched.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Of TensorRT.
    pub tensorrt: tensorrt::Options,
    /// Of the fall back from it.
    pub fallback: FallbackOptions,
}

/// Opens the engine that is wanted.
///
/// # Errors
/// [`BackendError::Unavailable`] where TensorRT is asked for and cannot be used. With
/// [`Choice::Auto`] that is a warning, or, where nothing of NVIDIA's is on the machine, a line of
/// information.
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
