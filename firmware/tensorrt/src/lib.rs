//! TensorRT bindings that need no NVIDIA files at build time.
//!
//! The library is loaded at run time, and its C++ objects are called through their
//! virtual function tables, whose layout is known for TensorRT 8.5, 8.6, 10.x and
//! 11.x and for TensorRT-RTX 1.3 to 1.7. One binary supports JetPack 5, 6 and 7.
//! `docs/tensorrt.md` lists what is bound, and the evidence for it.
//!
//! ```no_run
//! use std::time::Duration;
//! use loftup_tensorrt::cuda::{Cuda, Device, Stream};
//! use loftup_tensorrt::{Builder, Executor, Library, OnnxParser, Runtime};
//!
//! # fn main() -> loftup_tensorrt::Result<()> {
//! # let onnx: Vec<u8> = Vec::new();
//! let library = Library::find()?;
//! let device = Device::new(&Cuda::find()?, 0)?;
//!
//! let builder = Builder::new(&library, Some(&device))?;
//! let mut parser = OnnxParser::new(builder.network()?)?;
//! parser.parse(&onnx, None)?;
//! let mut config = builder.config()?;
//! config.set_workspace(1 << 30)?;
//! let engine = builder.build(parser.network(), &config)?;
//!
//! let engine = Runtime::new(&library, &device)?.deserialize(engine.as_slice())?;
//! let mut executor = Executor::new(&engine, &Stream::new(&device)?)?;
//! executor.input_mut("image")?.fill(0);
//! executor.run(Duration::from_millis(100))?;
//! let features: &[u8] = executor.output("features")?;
//! # let _ = features;
//! # Ok(())
//! # }
//! ```
//!
//! Guarantees: no TensorRT function is called before CUDA is known to work (except the builder of
//! TensorRT-RTX, which needs no GPU); values returned by TensorRT are checked before use; every
//! object outlives its dependents; waiting for the GPU has a timeout. Not guaranteed: TensorRT runs
//! in this process, so a fault inside it, or a malicious engine file, can crash the process or
//! execute arbitrary code.

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("TensorRT's function tables are known only for 64-bit Linux");

mod abi;
mod builder;
mod config;
mod context;
pub mod cuda;
mod diagnosis;
mod error;
mod executor;
mod host_memory;
mod library;
mod logger;
mod network;
mod object;
mod profile;
mod progress;
mod runtime;
mod slots;
mod tensor;
#[cfg(feature = "testing")]
pub mod testing;
mod version;

pub use builder::Builder;
pub use config::BuilderConfig;
pub use context::Context;
pub use error::{Attempt, Error, Result};
pub use executor::{Copied, Executor};
pub use host_memory::HostMemory;
pub use library::{Library, VARIABLE};
pub use logger::{Entry, Logger};
pub use network::{Network, OnnxParser};
pub use profile::{OptimizationProfile, ShapeRange};
pub use progress::Progress;
pub use runtime::{Engine, Runtime};
pub use tensor::{DataType, Direction, TensorInfo};
pub use version::{Layout, Product, Version};
