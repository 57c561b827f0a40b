//! Runs an engine.

use std::sync::Arc;

use half::f16;
use loftup_tensorrt::{DataType, Engine, Error, Executor, cuda::Stream};
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
}

/// An input or output.
#[derive(Clone)]
struct Port {
    name: String,
    shape: Vec<usize>,
    half: bool,
    /// Whether its shape must be set.
    dynamic: bool,
}

impl Port {
    fn values(&self) -> usize {
        self.shape.iter().product()
    }
}

impl PlanParts {
    pub fn new(recipe: &Recipe<'_>, engine: &Engine, options: &Options) -> Result<Self, Mismatch> {
        let half = |info: &loftup_tensorrt::TensorInfo| match info.data_type {
            DataType::F32 => Ok(false),
            DataType::F16 => Ok(true),
            other => Err(Mismatch::Graph(format!(
                "{} is {other:?}, expected F32 or F16",
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
                half: half(info)?,
                dynamic: info.is_dynamic(),
            });
        }
        let mut outputs = Vec::new();
        for name in recipe.graph.outputs.iter() {
            let info = engine.output(name)?;
            outputs.push(Port {
                name: name.clone(),
                shape: Vec::new(),
                half: half(info)?,
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
        executor.prepare()?;
        Ok(TensorRtSession {
            graph: self.graph.clone(),
            limit: self.options.gpu_limit,
            is_set: vec![false; self.inputs.len()],
            inputs: self.inputs.clone(),
            converted: vec![Vec::new(); self.outputs.len()],
            outputs: self.outputs.clone(),
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

impl Session for TensorRtSession {
    fn set(&mut self, input: usize, values: &[f32]) -> Result<(), BackendError> {
        let port = &self.inputs[input];
        if values.len() != port.values() {
            return Err(BackendError::Size {
                graph: self.graph.to_string(),
                tensor: port.name.clone(),
                expected: port.values(),
                found: values.len(),
            });
        }
        let bytes = self
            .executor
            .input_mut(&port.name)
            .map_err(|e| failed(&self.graph, &e))?;
        if port.half {
            for (to, from) in bytes.chunks_exact_mut(2).zip(values) {
                to.copy_from_slice(&f16::from_f32(*from).to_ne_bytes());
            }
        } else {
            bytes.copy_from_slice(bytemuck::cast_slice(values));
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
        for (port, wide) in self.outputs.iter().zip(&mut self.converted) {
            if port.half {
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
        let Some(port) = self.outputs.get(index) else {
            return &[];
        };
        // There is no output before the first run and after a failed one.
        let Ok(bytes) = self.executor.output(&port.name) else {
            return &[];
        };
        if port.half {
            return &self.converted[index];
        }
        bytemuck::try_cast_slice(bytes).unwrap_or_default()
    }
}
