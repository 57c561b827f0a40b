//! Runs an engine.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use half::f16;
use loftup_tensorrt::{Copied, DataType, Engine, Error, Executor, cuda::Stream};
use parking_lot::Mutex;

use super::{
    NAME, Options,
    build::{Recipe, extents},
};
use crate::backend::{BackendError, Plan, Session};

/// Why an engine does not match a graph.
pub(super) enum Mismatch {
    /// An error of TensorRT.
    Error(Error),
    /// A mismatch found here.
    Graph(String),
}

impl From<Error> for Mismatch {
    fn from(e: Error) -> Self {
        Self::Error(e)
    }
}

/// The parts of a session.
pub(super) struct PlanParts {
    graph: Arc<str>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// Outputs that are not requested stay on the GPU.
    unwanted: Vec<String>,
    /// The profile for these shapes; `None` if there is nothing to select.
    profile: Option<u32>,
    options: Options,
    copies: Arc<Copies>,
}

/// Bytes copied by all runs.
#[derive(Default)]
pub(super) struct Copies {
    to_device: AtomicU64,
    to_host: AtomicU64,
}

impl Copies {
    fn add(&self, run: Copied) {
        self.to_device.fetch_add(run.to_device, Relaxed);
        self.to_host.fetch_add(run.to_host, Relaxed);
    }

    pub fn total(&self) -> Copied {
        Copied {
            to_device: self.to_device.load(Relaxed),
            to_host: self.to_host.load(Relaxed),
        }
    }
}

/// An input or output.
#[derive(Clone)]
struct Port {
    name: String,
    shape: Vec<usize>,
    element: Element,
    /// Whether its shape must be set.
    dynamic: bool,
}

/// Element types that are supported for inputs and outputs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Element {
    F32,
    F16,
    U8,
}

impl Port {
    fn values(&self) -> usize {
        self.shape.iter().product()
    }
}

impl PlanParts {
    pub fn new(
        recipe: &Recipe<'_>,
        engine: &Engine,
        options: &Options,
        copies: &Arc<Copies>,
    ) -> Result<Self, Mismatch> {
        let element = |info: &loftup_tensorrt::TensorInfo| match info.data_type {
            DataType::F32 => Ok(Element::F32),
            DataType::F16 => Ok(Element::F16),
            DataType::U8 => Ok(Element::U8),
            other => Err(Mismatch::Graph(format!(
                "{} is {other:?}, expected F32, F16 or U8",
                info.name
            ))),
        };
        let mut inputs = Vec::new();
        for (name, shape) in recipe.graph.inputs.iter().zip(recipe.shapes) {
            let info = engine.input(name)?;
            let fits = info.shape.len() == shape.len()
                && info
                    .shape
                    .iter()
                    .zip(extents(shape))
                    .all(|(there, wanted)| *there < 0 || *there == wanted);
            if !fits {
                let what = format!("{name} has shape {:?}, expected {shape:?}", info.shape);
                return Err(Mismatch::Graph(what));
            }
            inputs.push(Port {
                name: name.clone(),
                shape: shape.clone(),
                element: element(info)?,
                dynamic: info.is_dynamic(),
            });
        }
        let mut outputs = Vec::new();
        for name in recipe.graph.outputs.iter() {
            let info = engine.output(name)?;
            outputs.push(Port {
                name: name.clone(),
                shape: Vec::new(),
                element: element(info)?,
                dynamic: info.is_dynamic(),
            });
        }
        let mut unwanted = Vec::new();
        for info in engine.tensors() {
            let known = |ports: &[Port]| ports.iter().any(|port| port.name == info.name);
            match info.direction {
                loftup_tensorrt::Direction::Input if !known(&inputs) => {
                    let what = format!("its input {} is unknown", info.name);
                    return Err(Mismatch::Graph(what));
                }
                loftup_tensorrt::Direction::Output if !known(&outputs) => {
                    unwanted.push(info.name.clone());
                }
                _ => {}
            }
        }
        let dynamic = inputs.iter().any(|port| port.dynamic);
        let mut profiles = recipe.profiles.iter();
        let position = profiles
            .position(|profile| profile.contains(recipe.shapes))
            .and_then(|i| u32::try_from(i).ok());
        Ok(Self {
            graph: recipe.graph.name.clone(),
            inputs,
            outputs,
            unwanted,
            // Profile 0 is selected by default.
            profile: position.filter(|i| dynamic && *i > 0),
            options: options.clone(),
            copies: copies.clone(),
        })
    }

    /// Creates a context, sets its shapes and allocates its memory.
    pub fn open(
        &self,
        engine: &Arc<Engine>,
        stream: &Arc<Stream>,
    ) -> Result<TensorRtSession, Error> {
        let mut executor = Executor::new(engine, stream)?;
        if let Some(profile) = self.profile {
            executor.set_profile(profile)?;
        }
        for port in self.inputs.iter().filter(|port| port.dynamic) {
            executor.set_shape(&port.name, &extents(&port.shape))?;
        }
        for name in &self.unwanted {
            executor.keep_on_device(name)?;
        }
        executor.use_graph(self.options.cuda_graph)?;
        // A GPU reads an image once. It reads other inputs repeatedly, and does not cache host memory.
        let images = self.inputs.iter().all(|port| port.element == Element::U8);
        executor.use_zero_copy(self.options.zero_copy && images)?;
        executor.prepare()?;
        Ok(TensorRtSession {
            graph: self.graph.clone(),
            limit: self.options.gpu_limit,
            is_set: vec![false; self.inputs.len()],
            inputs: self.inputs.clone(),
            converted: vec![Vec::new(); self.outputs.len()],
            outputs: self.outputs.clone(),
            copies: self.copies.clone(),
            executor,
        })
    }
}

/// An engine for one set of shapes.
pub(super) struct TensorRtPlan {
    parts: PlanParts,
    engine: Arc<Engine>,
    first: Mutex<Option<TensorRtSession>>,
    outputs: Vec<Vec<usize>>,
}

impl TensorRtPlan {
    pub fn new(
        parts: PlanParts,
        engine: Arc<Engine>,
        first: TensorRtSession,
        outputs: Vec<Vec<usize>>,
    ) -> Self {
        Self {
            parts,
            engine,
            first: Mutex::new(Some(first)),
            outputs,
        }
    }
}

impl Plan for TensorRtPlan {
    fn output_shape(&self, index: usize) -> &[usize] {
        &self.outputs[index]
    }

    fn session(&self) -> Result<Box<dyn Session>, BackendError> {
        let first = self.first.lock().take();
        let session = match first {
            Some(session) => session,
            None => Stream::new(self.engine.device())
                .and_then(|stream| self.parts.open(&self.engine, &stream))
                .map_err(|e| failed(&self.parts.graph, &e))?,
        };
        Ok(Box::new(session))
    }
}

fn failed(graph: &str, e: &Error) -> BackendError {
    match e {
        Error::Timeout { after } => BackendError::Timeout {
            backend: NAME,
            graph: graph.into(),
            after: *after,
        },
        e => BackendError::Run {
            backend: NAME,
            graph: graph.into(),
            what: e.to_string(),
        },
    }
}

/// A context on its own stream, with pinned memory that is written and read in place.
pub(super) struct TensorRtSession {
    executor: Executor,
    graph: Arc<str>,
    limit: std::time::Duration,
    inputs: Vec<Port>,
    is_set: Vec<bool>,
    outputs: Vec<Port>,
    /// 16-bit outputs converted to 32 bits.
    converted: Vec<Vec<f32>>,
    copies: Arc<Copies>,
}

impl TensorRtSession {
    /// The output shapes, which follow from the input shapes.
    pub fn output_shapes(&self) -> Result<Vec<Vec<usize>>, Error> {
        let shape = |port: &Port| {
            let extents = self.executor.shape(&port.name)?;
            let whole = extents.iter().map(|n| usize::try_from(*n).ok());
            whole
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| Error::Shape {
                    tensor: port.name.clone(),
                    message: format!("its shape {extents:?} is unknown before a run"),
                })
        };
        self.outputs.iter().map(shape).collect()
    }
}

impl TensorRtSession {
    /// The bytes of an input that gets `values` values.
    fn input_mut(
        &mut self,
        input: usize,
        values: usize,
    ) -> Result<(Element, &mut [u8]), BackendError> {
        let port = &self.inputs[input];
        if values != port.values() {
            return Err(BackendError::Size {
                graph: self.graph.to_string(),
                tensor: port.name.clone(),
                expected: port.values(),
                found: values,
            });
        }
        let bytes = self
            .executor
            .input_mut(&port.name)
            .map_err(|e| failed(&self.graph, &e))?;
        Ok((port.element, bytes))
    }

    fn wrong_type(&self, input: usize, given: &str) -> BackendError {
        BackendError::Run {
            backend: NAME,
            graph: self.graph.to_string(),
            what: format!("input {} does not take {given}", self.inputs[input].name),
        }
    }
}

impl Session for TensorRtSession {
    fn set(&mut self, input: usize, values: &[f32]) -> Result<(), BackendError> {
        match self.input_mut(input, values.len())? {
            (Element::F32, bytes) => bytes.copy_from_slice(bytemuck::cast_slice(values)),
            (Element::F16, bytes) => {
                for (to, from) in bytes.chunks_exact_mut(2).zip(values) {
                    to.copy_from_slice(&f16::from_f32(*from).to_ne_bytes());
                }
            }
            (Element::U8, _) => return Err(self.wrong_type(input, "floats")),
        }
        self.is_set[input] = true;
        Ok(())
    }

    fn set_bytes(&mut self, input: usize, values: &[u8]) -> Result<(), BackendError> {
        match self.input_mut(input, values.len())? {
            (Element::U8, bytes) => bytes.copy_from_slice(values),
            _ => return Err(self.wrong_type(input, "bytes")),
        }
        self.is_set[input] = true;
        Ok(())
    }

    fn run(&mut self) -> Result<(), BackendError> {
        if let Some(missing) = self.is_set.iter().position(|is_set| !is_set) {
            return Err(BackendError::Run {
                backend: NAME,
                graph: self.graph.to_string(),
                what: format!("input {} has not been set", self.inputs[missing].name),
            });
        }
        self.executor
            .run(self.limit)
            .map_err(|e| failed(&self.graph, &e))?;
        self.copies.add(self.executor.copied_per_run());
        for (port, wide) in self.outputs.iter().zip(&mut self.converted) {
            if port.element == Element::F16 {
                let bytes = self
                    .executor
                    .output(&port.name)
                    .map_err(|e| failed(&self.graph, &e))?;
                let halves = bytes
                    .chunks_exact(2)
                    .map(|b| f16::from_ne_bytes([b[0], b[1]]));
                wide.clear();
                wide.extend(halves.map(f16::to_f32));
            }
        }
        Ok(())
    }

    fn output(&self, index: usize) -> &[f32] {
        match self.bytes_of(index) {
            Some((Element::F32, bytes)) => bytemuck::try_cast_slice(bytes).unwrap_or_default(),
            Some((Element::F16, _)) => &self.converted[index],
            _ => &[],
        }
    }

    fn output_bytes(&self, index: usize) -> &[u8] {
        match self.bytes_of(index) {
            Some((Element::U8, bytes)) => bytes,
            _ => &[],
        }
    }
}

impl TensorRtSession {
    /// The bytes of an output; `None` before the first run and after a failed one.
    fn bytes_of(&self, index: usize) -> Option<(Element, &[u8])> {
        let port = self.outputs.get(index)?;
        let bytes = self.executor.output(&port.name).ok()?;
        Some((port.element, bytes))
    }
}
