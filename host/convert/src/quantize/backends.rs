//! A backend that records the inputs of graphs, and the replay of recorded runs.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use loftup_bundle::Precision;
use loftup_onnx::rewrite::Model;
use loftup_runtime::backend::{
    Arithmetic, Backend, BackendError, CpuBackend, Graph, Model as Loaded, Plan, Session,
    ShapeProfile, TractBackend, compile_once,
};

use crate::guard::guarded;

/// The recorded runs of one graph.
#[derive(Debug, Clone, Default)]
pub(super) struct Recorded {
    /// Inputs, in order, with their shapes.
    pub inputs: Vec<(String, Vec<usize>)>,
    pub outputs: Vec<String>,
    pub runs: Vec<Run>,
}

/// One run of a graph.
#[derive(Debug, Clone)]
pub(super) struct Run {
    /// Index of the image.
    pub image: usize,
    /// Values of each input; those that do not change between runs are shared.
    pub inputs: Vec<Arc<Vec<f32>>>,
}

/// The CPU backend, recording the inputs of every run.
#[derive(Debug, Clone, Default)]
pub(super) struct Recorder {
    seen: Arc<Mutex<BTreeMap<String, Recorded>>>,
    image: Arc<AtomicUsize>,
}

impl Recorder {
    /// Following runs belong to this image.
    pub fn begin(&self, image: usize) {
        self.image.store(image, Relaxed);
    }

    /// All recorded graphs, by file name.
    pub fn take(&self) -> BTreeMap<String, Recorded> {
        std::mem::take(&mut lock(&self.seen))
    }
}

impl Backend for Recorder {
    fn name(&self) -> &'static str {
        CpuBackend.name()
    }

    fn arithmetic(&self, _: Precision) -> Option<Arithmetic> {
        None
    }

    fn load(&self, graph: &Graph) -> Result<Arc<dyn Loaded>, BackendError> {
        Ok(Arc::new(RecordingModel {
            inner: CpuBackend.load(graph)?,
            recorder: self.clone(),
            file: graph.file().into(),
            inputs: graph.inputs.clone(),
            outputs: graph.outputs.clone(),
        }))
    }
}

struct RecordingModel {
    inner: Arc<dyn Loaded>,
    recorder: Recorder,
    file: String,
    inputs: Arc<[String]>,
    outputs: Arc<[String]>,
}

impl Loaded for RecordingModel {
    fn compile(
        &self,
        shapes: &[Vec<usize>],
        profiles: &[ShapeProfile],
    ) -> Result<Box<dyn Plan>, BackendError> {
        let inner = self.inner.compile(shapes, profiles)?;
        let names = self.inputs.iter().cloned();
        lock(&self.recorder.seen).insert(
            self.file.clone(),
            Recorded {
                inputs: names.zip(shapes.iter().cloned()).collect(),
                outputs: self.outputs.to_vec(),
                runs: Vec::new(),
            },
        );
        Ok(Box::new(RecordingPlan {
            inner,
            recorder: self.recorder.clone(),
            file: self.file.clone(),
            inputs: shapes.len(),
        }))
    }
}

struct RecordingPlan {
    inner: Box<dyn Plan>,
    recorder: Recorder,
    file: String,
    inputs: usize,
}

impl Plan for RecordingPlan {
    fn output_shape(&self, index: usize) -> &[usize] {
        self.inner.output_shape(index)
    }

    fn session(&self) -> Result<Box<dyn Session>, BackendError> {
        Ok(Box::new(RecordingSession {
            inner: self.inner.session()?,
            recorder: self.recorder.clone(),
            file: self.file.clone(),
            inputs: vec![Arc::default(); self.inputs],
        }))
    }
}

struct RecordingSession {
    inner: Box<dyn Session>,
    recorder: Recorder,
    file: String,
    inputs: Vec<Arc<Vec<f32>>>,
}

impl Session for RecordingSession {
    fn set(&mut self, input: usize, values: &[f32]) -> Result<(), BackendError> {
        self.inner.set(input, values)?;
        self.inputs[input] = Arc::new(values.to_vec());
        Ok(())
    }

    fn run(&mut self) -> Result<(), BackendError> {
        self.inner.run()?;
        if let Some(recorded) = lock(&self.recorder.seen).get_mut(&self.file) {
            recorded.runs.push(Run {
                image: self.recorder.image.load(Relaxed),
                inputs: self.inputs.clone(),
            });
        }
        Ok(())
    }

    fn output(&self, index: usize) -> &[f32] {
        self.inner.output(index)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An fp32 graph compiled with intermediate values as outputs.
pub(super) struct Replay {
    session: Box<dyn Session>,
    shapes: Vec<Vec<usize>>,
}

impl Replay {
    /// Compiles `model` with `values` as outputs. `name` is for messages.
    pub fn new(
        name: &str,
        model: &Model,
        inputs: &[(String, Vec<usize>)],
        values: &[String],
    ) -> Result<Self, String> {
        let onnx = model.with_outputs(values).encode();
        let inputs: Vec<_> = inputs
            .iter()
            .map(|(n, s)| (n.as_str(), s.as_slice()))
            .collect();
        let outputs: Vec<_> = values.iter().map(String::as_str).collect();
        let plan = guarded(|| compile_once(&TractBackend, name, onnx, &inputs, &outputs))?;
        Ok(Self {
            session: plan.session().map_err(|e| e.to_string())?,
            shapes: (0..values.len())
                .map(|i| plan.output_shape(i).to_vec())
                .collect(),
        })
    }

    /// Shape of each value.
    pub fn shapes(&self) -> &[Vec<usize>] {
        &self.shapes
    }

    /// Runs the graph; [`Self::value`] reads the results.
    pub fn run<V: AsRef<[f32]>>(&mut self, inputs: &[V]) -> Result<(), String> {
        for (i, values) in inputs.iter().enumerate() {
            self.session
                .set(i, values.as_ref())
                .map_err(|e| e.to_string())?;
        }
        guarded(|| self.session.run())
    }

    /// A value of the last run.
    pub fn value(&self, index: usize) -> &[f32] {
        self.session.output(index)
    }
}
