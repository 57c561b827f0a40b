//! Errors. Each message is one line that ends with a hint.

use std::fmt;
use std::time::Duration;

/// The result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A library that was tried, and why it could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Path or bare name given to the dynamic loader.
    pub library: String,
    /// The loader's error, shortened.
    pub reason: String,
}

/// Formats a list of attempts.
struct Attempts<'a>(&'a [Attempt]);

impl fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, attempt) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { ", " };
            write!(f, "{comma}{}: {}", attempt.library, attempt.reason)?;
        }
        Ok(())
    }
}

/// An error of this crate. Its message is one line and ends with a hint.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No TensorRT library could be opened.
    #[error(
        "no TensorRT library could be opened ({}); install TensorRT 8.5, 8.6, 10 or 11, or set LOFTUP_TENSORRT to its libnvinfer (or the directory of it)",
        Attempts(.tried)
    )]
    NoLibrary {
        /// The libraries tried, in order.
        tried: Vec<Attempt>,
    },
    /// The library was found, but no matching ONNX parser.
    #[error(
        "no ONNX parser for this TensorRT could be opened ({}); install libnvonnxparser of the same version in the same directory",
        Attempts(.tried)
    )]
    NoParser {
        /// The libraries tried, in order.
        tried: Vec<Attempt>,
    },
    /// A version with unknown virtual function tables.
    #[error(
        "{version} is not supported: its function tables are not known; use TensorRT 8.5, 8.6, 10.x or 11.x, or TensorRT-RTX 1.3 to 1.7"
    )]
    Unsupported {
        /// Product and version, or the raw number if it could not be decoded.
        version: String,
    },
    /// CUDA's driver library is missing or does not work.
    #[error("CUDA is not available: {reason}")]
    NoCuda {
        /// The cause, with a hint.
        reason: String,
    },
    /// CUDA works but sees no GPU.
    #[error(
        "CUDA is installed but reports no GPU; check `nvidia-smi` (or tegrastats), the device's permissions and CUDA_VISIBLE_DEVICES"
    )]
    NoDevice,
    /// An exported function is missing from a library.
    #[error("{library} does not export {name}; {hint}")]
    Symbol {
        /// Path of the library.
        library: String,
        /// Name of the missing function.
        name: String,
        /// What to do.
        hint: &'static str,
    },
    /// TensorRT's ONNX parser rejected the model.
    #[error(
        "TensorRT's ONNX parser rejected the model{}: {message}{}",
        at_node(.node),
        others(*.more)
    )]
    Parse {
        /// Name or number of the node, if known.
        node: Option<String>,
        /// Operator of the node, if known.
        operator: Option<String>,
        /// The parser's description.
        message: String,
        /// Number of further errors.
        more: usize,
    },
    /// An input has a dynamic dimension that no optimization profile covers.
    #[error(
        "input {input} has a dynamic dimension that no optimization profile covers; add a profile with its minimum, optimum and maximum shape"
    )]
    NoProfile {
        /// Name of the input.
        input: String,
    },
    /// An invalid optimization profile.
    #[error("optimization profile for input {input}: {message}")]
    Profile {
        /// Name of the input.
        input: String,
        /// What is wrong.
        message: String,
    },
    /// The builder needs more workspace than the limit allows.
    #[error(
        "the workspace limit of {limit} bytes is too small{}; raise it, or lower the maximum shape of the profile (fewer or smaller tiles)",
        asked_for(*.needed)
    )]
    WorkspaceTooSmall {
        /// The workspace that TensorRT requested, in bytes, if known.
        needed: Option<u64>,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The build failed for another reason.
    #[error("TensorRT could not build the engine: {message}")]
    Build {
        /// TensorRT's error messages, joined.
        message: String,
    },
    /// The progress monitor cancelled the build.
    #[error("the engine build was cancelled; start it again")]
    Cancelled,
    /// The engine file cannot be used with this TensorRT or this GPU.
    #[error("the engine cannot be used here: {message}; build it again on this machine")]
    Deserialize {
        /// TensorRT's error messages, joined.
        message: String,
        /// True if TensorRT reports another version or another GPU rather than a
        /// corrupt file.
        stale: bool,
    },
    /// A shape that the graph or the profile does not allow.
    #[error("tensor {tensor}: {message}")]
    Shape {
        /// Name of the tensor.
        tensor: String,
        /// What is wrong with it.
        message: String,
    },
    /// The engine or network has no tensor of this name.
    #[error("there is no {what} named {name}; there are: {known}")]
    NoTensor {
        /// "input", "output" or "tensor".
        what: &'static str,
        /// The requested name.
        name: String,
        /// The existing names.
        known: String,
    },
    /// A TensorRT call failed without a more specific error.
    #[error("TensorRT refused {call}: {message}")]
    Refused {
        /// The call.
        call: &'static str,
        /// TensorRT's error messages, joined.
        message: String,
    },
    /// This version of TensorRT lacks a feature.
    #[error("{version} has no {what}")]
    Missing {
        /// Product and version of the library.
        version: String,
        /// The missing feature.
        what: &'static str,
    },
    /// The GPU did not finish in time.
    #[error(
        "the GPU did not finish within {} ms; it may be hung or overloaded: lower the load, or reset it",
        .after.as_millis()
    )]
    Timeout {
        /// The time limit.
        after: Duration,
    },
    /// An invalid argument: a call out of order, a buffer of the wrong size, a name with a NUL.
    #[error("{0}")]
    Argument(String),
    /// A CUDA driver call failed.
    #[error("{call} failed: {name} ({code}); {}", cuda_hint(*.code))]
    Cuda {
        /// The driver function.
        call: &'static str,
        /// CUDA's error code.
        code: u32,
        /// CUDA's name of the error.
        name: String,
    },
}

fn at_node(node: &Option<String>) -> String {
    node.as_ref()
        .map(|node| format!(" at {node}"))
        .unwrap_or_default()
}

fn others(more: usize) -> String {
    match more {
        0 => "; check or export the model again, or use a newer TensorRT".into(),
        n => format!(" (and {n} more); check or export the model again, or use a newer TensorRT"),
    }
}

fn asked_for(bytes: Option<u64>) -> String {
    bytes
        .map(|n| format!(": TensorRT asked for {n} bytes"))
        .unwrap_or_default()
}

fn cuda_hint(code: u32) -> &'static str {
    match code {
        2 => "the GPU is out of memory: close other programs or use smaller tiles",
        35 => "the driver is older than the library: update the driver",
        100 => "no GPU is visible",
        700 | 702 | 719 => {
            "the GPU faulted and this process must be restarted before it can be used again"
        }
        999 => "the driver is in a bad state: restart, or reload its kernel module",
        _ => "see the CUDA documentation of this code",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_one_line() {
        let attempt = Attempt {
            library: "libnvinfer.so.10".into(),
            reason: "not found".into(),
        };
        let all = [
            Error::NoLibrary {
                tried: vec![attempt.clone(), attempt.clone()],
            },
            Error::NoParser {
                tried: vec![attempt],
            },
            Error::Unsupported {
                version: "TensorRT 7.1.3".into(),
            },
            Error::NoDevice,
            Error::Parse {
                node: None,
                operator: None,
                message: "m".into(),
                more: 2,
            },
            Error::NoProfile { input: "x".into() },
            Error::WorkspaceTooSmall {
                needed: Some(285_614_268),
                limit: 1 << 28,
            },
            Error::Timeout {
                after: Duration::from_millis(20),
            },
            Error::Cuda {
                call: "cuMemAlloc",
                code: 2,
                name: "CUDA_ERROR_OUT_OF_MEMORY".into(),
            },
        ];
        for error in all {
            let text = error.to_string();
            assert!(!text.contains('\n') && text.len() > 20, "{text}");
        }
    }
}
