//! Builds a serialized engine from an ONNX graph.

use std::{
    borrow::Cow,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use loftup_bundle::{Precision, sha256_hex};
use loftup_onnx::rewrite;
use loftup_tensorrt::{
    Builder, Error, Layout, Library, OnnxParser, Progress, ShapeRange, cuda::Device,
};
use parking_lot::Mutex;

use super::{NAME, Options};
use crate::backend::{
    BackendError, Graph, ShapeProfile,
    engine_cache::{BuildEvent, BuildWatch, EngineKey},
};

/// Interval of progress reports during a build.
const TICK: Duration = Duration::from_millis(500);

/// A graph and the SHA-256 of its file, which is part of the key of every engine built from it.
pub(super) struct Hashed {
    pub graph: Graph,
    sha256: String,
}

impl Hashed {
    pub fn new(graph: &Graph) -> Self {
        Self {
            sha256: sha256_hex(&graph.onnx),
            graph: graph.clone(),
        }
    }
}

/// A graph, shapes, and everything else that their engine depends on.
pub(super) struct Recipe<'a> {
    pub graph: &'a Graph,
    pub shapes: &'a [Vec<usize>],
    pub profiles: Cow<'a, [ShapeProfile]>,
    options: &'a Options,
    /// Compute capability to build for without a GPU.
    target: Option<(u32, u32)>,
    pub key: EngineKey,
}

impl<'a> Recipe<'a> {
    /// Uses the profile in `profiles` that contains the shapes, or else exactly these shapes.
    pub fn new(
        hashed: &'a Hashed,
        (shapes, profiles): (&'a [Vec<usize>], &'a [ShapeProfile]),
        library: &Library,
        capability: &str,
        options: &'a Options,
    ) -> Result<Self, BackendError> {
        let graph = &hashed.graph;
        graph.signature().ports(NAME, shapes)?;
        let profiles = match profiles.iter().any(|p| p.contains(shapes)) {
            true => Cow::Borrowed(profiles),
            false => Cow::Owned(vec![ShapeProfile::fixed(shapes)]),
        };
        let key = EngineKey {
            graph: graph.file().into(),
            sha256: hashed.sha256.clone(),
            library: library.version().to_string(),
            capability: capability.into(),
            precision: graph.precision.to_string(),
            profiles: describe(graph, &profiles),
            settings: settings(options),
        };
        Ok(Self {
            graph,
            shapes,
            profiles,
            options,
            target: None,
            key,
        })
    }

    /// Builds without a GPU, for this compute capability.
    pub fn for_target(mut self, target: (u32, u32)) -> Self {
        self.target = Some(target);
        self
    }

    pub fn failed(&self, e: &Error) -> BackendError {
        match e {
            Error::Cancelled => BackendError::Cancelled {
                graph: self.graph.name.to_string(),
            },
            e => self.graph.rejected(NAME, e.to_string()),
        }
    }

    /// Builds the engine, and reports progress every half second.
    pub fn build(
        &self,
        library: &Library,
        device: Option<&Arc<Device>>,
    ) -> Result<Vec<u8>, BackendError> {
        let report = Arc::new(Report {
            watch: self.options.watch.clone(),
            phases: Mutex::default(),
        });
        let start = Instant::now();
        let (done, is_done) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let ticker = || {
                let is_done = is_done;
                let tick = || report.tick(&self.key.graph, start.elapsed());
                tick();
                while is_done.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
                    tick();
                }
            };
            // If no thread can be started, no progress is reported.
            let _ = thread::Builder::new().spawn_scoped(scope, ticker);
            let built = self.run(library, device, &report);
            drop(done);
            built.map_err(|e| self.failed(&e))
        })
    }

    fn run(
        &self,
        library: &Library,
        device: Option<&Arc<Device>>,
        report: &Arc<Report>,
    ) -> Result<Vec<u8>, Error> {
        let builder = Builder::new(library, device)?;
        let mut parser = OnnxParser::new(builder.network()?)?;
        let (onnx, int8) = as_read(self.graph, library.layout())?;
        parser.parse(&onnx, None)?;
        let network = parser.network();
        let mut config = builder.config()?;
        config.set_workspace(self.options.workspace)?;
        config.allow_tf32(self.options.tf32)?;
        config.allow_lower_precision(false, int8)?;
        if let Some(core) = self.options.dla_core {
            config.use_dla(core)?;
        }
        if let Some(target) = self.target {
            config.set_targets(&[target])?;
        }
        let inputs = network.inputs()?;
        for profile in &*self.profiles {
            let mut ranges = builder.profile()?;
            let mut needed = false;
            for (name, bounds) in self.graph.inputs.iter().zip(&profile.inputs) {
                let info = inputs.iter().find(|info| info.name == *name);
                if info.is_some_and(|info| info.is_dynamic()) {
                    ranges.set(ShapeRange {
                        input: name.clone(),
                        min: extents(&bounds.min),
                        opt: extents(&bounds.opt),
                        max: extents(&bounds.max),
                    })?;
                    needed = true;
                }
            }
            if needed {
                config.add_profile(&ranges)?;
            }
        }
        if let Err(e) = config.set_progress(report.clone()) {
            log::debug!("this build cannot be cancelled: {e}");
        }
        Ok(builder.build(network, &config)?.as_slice().to_vec())
    }
}

/// Returns the graph to pass to this version of TensorRT, and whether INT8 must be enabled.
///
/// From 10.0 on, a network keeps the types of the graph. In TensorRT 8, enabling FP16 affects
/// every layer, even sines of large angles, so it gets the 32-bit graph with the rounded weights
/// instead. It uses INT8 only where the graph quantizes.
fn as_read(graph: &Graph, layout: Layout) -> Result<(Cow<'_, [u8]>, bool), Error> {
    let weak = layout == Layout::V8;
    let half = matches!(graph.precision, Precision::Fp16 | Precision::Fp16Weights);
    let onnx = if weak && half {
        let wide = rewrite::Model::decode(&graph.onnx).and_then(|model| rewrite::to_fp32(&model));
        Cow::Owned(wide.map_err(|e| Error::Argument(e.to_string()))?.encode())
    } else {
        Cow::Borrowed(&*graph.onnx)
    };
    Ok((onnx, graph.precision == Precision::Int8))
}

pub(super) fn extents(shape: &[usize]) -> Vec<i64> {
    shape
        .iter()
        .map(|n| i64::try_from(*n).unwrap_or(i64::MAX))
        .collect()
}

/// `guidance 1x3x5x5..1x3x68x68 (1x3x36x36), mask ...; ...`
fn describe(graph: &Graph, profiles: &[ShapeProfile]) -> String {
    let shape = |s: &[usize]| s.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
    let one = |profile: &ShapeProfile| {
        let inputs = graph.inputs.iter().zip(&profile.inputs);
        let texts = inputs.map(|(name, b)| match b.min == b.max {
            true => format!("{name} {}", shape(&b.opt)),
            false => format!(
                "{name} {}..{} ({})",
                shape(&b.min),
                shape(&b.max),
                shape(&b.opt)
            ),
        });
        texts.collect::<Vec<_>>().join(", ")
    };
    profiles.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn settings(options: &Options) -> String {
    let dla = options
        .dla_core
        .map_or("none".to_owned(), |core| core.to_string());
    format!(
        "workspace {}, tf32 {}, dla {dla}",
        options.workspace, options.tf32
    )
}

/// Forwards TensorRT's progress.
struct Report {
    watch: Arc<dyn BuildWatch>,
    /// Phases in progress, outermost first: name, completed steps, total steps.
    phases: Mutex<Vec<(String, u32, u32)>>,
}

impl Report {
    fn tick(&self, graph: &str, elapsed: Duration) {
        let innermost = self.phases.lock().last().cloned();
        self.watch.event(&BuildEvent::Building {
            graph,
            elapsed,
            phase: innermost
                .as_ref()
                .map(|(name, done, steps)| (name.as_str(), *done, *steps)),
        });
    }
}

impl Progress for Report {
    fn phase_started(&self, phase: &str, _parent: Option<&str>, steps: u32) {
        let mut phases = self.phases.lock();
        // A faulty library could start phases without limit.
        if phases.len() < 64 {
            phases.push((phase.to_owned(), 0, steps));
        }
    }

    fn step_done(&self, phase: &str, step: u32) -> bool {
        let mut phases = self.phases.lock();
        if let Some((_, done, _)) = phases.iter_mut().rfind(|(name, ..)| name == phase) {
            *done = step.saturating_add(1);
        }
        !self.watch.cancelled()
    }

    fn phase_finished(&self, phase: &str) {
        let mut phases = self.phases.lock();
        if let Some(i) = phases.iter().rposition(|(name, ..)| name == phase) {
            phases.remove(i);
        }
    }
}
