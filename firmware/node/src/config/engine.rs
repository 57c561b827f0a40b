//! `[tensorrt]`: how engines are built, kept, watched and left.

use std::{path::PathBuf, time::Duration};

use loftup_runtime::backend::{
    FallbackOptions, Settings, engine_cache::EngineCache, tensorrt::Options,
};
use serde::Deserialize;

use super::mistake::{Mistake, within, wrong};

/// `[tensorrt]`. What is missing is as [`Settings::default`] has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TensorRt {
    /// The library, or the folder it lies in.
    pub library: Option<PathBuf>,
    /// Number of the GPU.
    pub device: u32,
    /// The most memory of the GPU that a layer may use for scratch, in MiB.
    pub workspace_mib: Option<u64>,
    /// DLA core for the layers that it can run; the rest stays on the GPU.
    pub dla_core: Option<u32>,
    /// Whether each run is launched as one CUDA graph.
    pub cuda_graph: bool,
    /// Folder that built engines are kept in.
    pub engine_cache: Option<PathBuf>,
    /// A run that takes longer counts as hanging: tract takes over, the frame included.
    pub run_ms: Option<u64>,
    /// After so many seconds in tract TensorRT is tried again; never where missing.
    pub retry_s: Option<u64>,
    /// Whether tract is made ready from the start, so that it takes over without a pause.
    pub warm: bool,
}

impl TensorRt {
    /// The paths of it.
    pub(super) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.library.iter_mut().chain(self.engine_cache.as_mut())
    }

    /// The same for the runtime.
    pub fn settings(&self) -> Settings {
        let (tensorrt, fallback) = (Options::default(), FallbackOptions::default());
        Settings {
            tensorrt: Options {
                library: self.library.clone().or(tensorrt.library),
                device: self.device,
                workspace: self.workspace_mib.map_or(tensorrt.workspace, |m| m << 20),
                dla_core: self.dla_core,
                cuda_graph: self.cuda_graph,
                cache: match &self.engine_cache {
                    Some(folder) => EngineCache::at(folder),
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

    /// `hang_ms` is the watchdog's.
    pub(super) fn check(&self, hang_ms: u64) -> Result<(), Mistake> {
        if let Some(library) = self.library.as_ref().filter(|l| !l.exists()) {
            return wrong(
                "tensorrt.library",
                format!("{} is not there", library.display()),
                "name libnvinfer.so or its folder, or remove the key",
            );
        }
        within("tensorrt.device", self.device, 0, 255)?;
        within("tensorrt.dla_core", self.dla_core.unwrap_or(0), 0, 15)?;
        for (key, value, most) in [
            ("tensorrt.workspace_mib", self.workspace_mib, 1 << 20),
            ("tensorrt.run_ms", self.run_ms, 600_000),
            ("tensorrt.retry_s", self.retry_s, 86_400),
        ] {
            if let Some(value) = value {
                within(key, value, 1, most)?;
            }
        }
        match self.run_ms {
            Some(run) if run >= hang_ms => wrong(
                "tensorrt.run_ms",
                format!("after {hang_ms} ms the watchdog ends what hangs"),
                "give less than watchdog.hang_ms, so that tract takes over before that",
            ),
            _ => Ok(()),
        }
    }
}
