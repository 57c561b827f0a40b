//! `[tensorrt]`: settings of the TensorRT engine and its fallback.

use std::{path::PathBuf, time::Duration};

use loftup_runtime::backend::{
    CpuPrecision, FallbackOptions, Settings, engine_cache::EngineCache, tensorrt::Options,
};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::error::{Invalid, check_range, invalid};

/// `[tensorrt]`. Missing keys have the values of [`Settings::default`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TensorRt {
    /// The library, or its directory.
    pub library: Option<PathBuf>,
    /// GPU index.
    pub device: u32,
    /// Maximum workspace of a layer on the GPU, in MiB.
    pub workspace_mib: Option<u64>,
    /// DLA core for the layers that it supports; the others run on the GPU.
    pub dla_core: Option<u32>,
    /// Whether to launch each run as a CUDA graph.
    pub cuda_graph: bool,
    /// Whether image and class map of `frame_graph` are not copied on a GPU that shares the memory of the CPU;
    /// true if missing.
    pub zero_copy: Option<bool>,
    /// Whether one engine computes class maps of whole frames from the camera's image.
    pub frame_graph: bool,
    /// Directory of the engine cache.
    pub engine_cache: Option<PathBuf>,
    /// Timeout of a run in milliseconds. After it, tract takes over, including the current frame.
    pub run_ms: Option<u64>,
    /// Seconds after which TensorRT is retried; never if missing.
    pub retry_s: Option<u64>,
    /// Whether to prepare tract at start, so that it takes over without a delay.
    pub warm: bool,
}

impl TensorRt {
    /// Iterates over the paths in the settings.
    pub(super) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.library.iter_mut().chain(self.engine_cache.as_mut())
    }

    /// Converts the settings to the runtime's types. `cpu_precision` is from `[model]`.
    pub fn settings(&self, cpu_precision: CpuPrecision) -> Settings {
        let (tensorrt, fallback) = (Options::default(), FallbackOptions::default());
        Settings {
            cpu_precision,
            tensorrt: Options {
                library: self.library.clone().or(tensorrt.library),
                device: self.device,
                workspace: self.workspace_mib.map_or(tensorrt.workspace, |m| m << 20),
                dla_core: self.dla_core,
                cuda_graph: self.cuda_graph,
                zero_copy: self.zero_copy.unwrap_or(tensorrt.zero_copy),
                cache: match &self.engine_cache {
                    Some(directory) => EngineCache::at(directory),
                    None => tensorrt.cache,
                },
                ..tensorrt
            },
            fallback: FallbackOptions {
                run_limit: self
                    .run_ms
                    .map_or(fallback.run_limit, Duration::from_millis),
                retry_after: self.retry_s.map(Duration::from_secs),
                warm: self.warm,
                ..fallback
            },
        }
    }

    /// Checks the settings. `hang_ms` is the limit of the watchdog.
    pub(super) fn check(&self, hang_ms: u64) -> Result<(), Invalid> {
        if let Some(library) = self.library.as_ref().filter(|l| !l.exists()) {
            return invalid(
                "tensorrt.library",
                format!("{} does not exist", library.display()),
                "use libnvinfer.so or its directory, or remove the key",
            );
        }
        check_range("tensorrt.device", self.device, 0, 255)?;
        check_range("tensorrt.dla_core", self.dla_core.unwrap_or(0), 0, 15)?;
        for (key, value, max) in [
            ("tensorrt.workspace_mib", self.workspace_mib, 1 << 20),
            ("tensorrt.run_ms", self.run_ms, 600_000),
            ("tensorrt.retry_s", self.retry_s, 86_400),
        ] {
            if let Some(value) = value {
                check_range(key, value, 1, max)?;
            }
        }
        match self.run_ms {
            Some(run) if run >= hang_ms => invalid(
                "tensorrt.run_ms",
                format!("the watchdog restarts a stage after {hang_ms} ms"),
                "must be less than watchdog.hang_ms, so that tract can take over",
            ),
            _ => Ok(()),
        }
    }
}

/// Reads `model.cpu_precision`.
pub(super) fn cpu_precision<'de, D: Deserializer<'de>>(input: D) -> Result<CpuPrecision, D::Error> {
    String::deserialize(input)?
        .parse()
        .map_err(D::Error::custom)
}
