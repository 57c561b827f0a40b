//! tract: the engine that is always there.
//!
//! tract's API is not declared stable: this module is the only one of the runtime that knows it.

mod rounding;

use std::{borrow::Cow, io::Cursor, sync::Arc};

use loftup_bundle::Precision;
use loftup_onnx::rewrite;

use tract_onnx::{
    prelude::*,
    tract_core::internal::{TractErrorContext, format_err},
};

use super::{Arithmetic, Backend, BackendError, GraphSource, Plan, Session, native};

const NAME: &str = "tract";

/// The CPU engine: the upsampler's queries by kernels of our own, all else by tract.
///
/// The environment variable `LOFTUP_KERNELS` chooses the kernels' instruction set (`generic`,
/// `avx2`, `avx512`), or with `off` leaves everything to tract.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tract;

impl Backend for Tract {
    fn name(&self) -> &'static str {
        NAME
    }

    fn arithmetic(&self) -> Option<Arithmetic> {
        None
    }

    fn compile(&self, graph: &GraphSource<'_>) -> Result<Box<dyn Plan>, BackendError> {
        let onnx = widened(graph)?;
        let graph = &wide(graph, &onnx);
        match native::compile(graph, native::Kernels::from_environment(graph)?)? {
            Some(plan) => Ok(Box::new(plan)),
            None => TractOnly.compile(graph),
        }
    }
}

/// tract without our kernels, to compare with.
#[derive(Debug, Clone, Copy, Default)]
pub struct TractOnly;

impl Backend for TractOnly {
    fn name(&self) -> &'static str {
        NAME
    }

    fn arithmetic(&self) -> Option<Arithmetic> {
        None
    }

    fn compile(&self, graph: &GraphSource<'_>) -> Result<Box<dyn Plan>, BackendError> {
        let onnx = widened(graph)?;
        compile(&wide(graph, &onnx))
            .map(|plan| Box::new(plan) as Box<dyn Plan>)
            .map_err(|e| BackendError::Load {
                backend: NAME,
                graph: graph.name.into(),
                what: one_line(&e),
            })
    }
}

/// The 32-bit graph of a rounded one: here 16-bit products are slow, and 8-bit ones are not faster
/// than 32-bit ones in our kernels (`docs/quantisation.md`).
fn widened<'a>(graph: &GraphSource<'a>) -> Result<Cow<'a, [u8]>, BackendError> {
    if graph.precision == Precision::Fp32 {
        return Ok(Cow::Borrowed(graph.onnx));
    }
    let wide = rewrite::Model::decode(graph.onnx).and_then(|model| rewrite::to_fp32(&model));
    let wide = wide.map_err(|e| BackendError::Load {
        backend: NAME,
        graph: graph.name.into(),
        what: e.to_string(),
    })?;
    Ok(Cow::Owned(wide.encode()))
}

/// `graph` with what [`widened`] made of it.
fn wide<'a>(graph: &GraphSource<'a>, onnx: &'a [u8]) -> GraphSource<'a> {
    GraphSource {
        onnx,
        precision: Precision::Fp32,
        ..*graph
    }
}

fn compile(graph: &GraphSource<'_>) -> TractResult<TractPlan> {
    let mut model = tract_onnx::onnx().model_for_read(&mut Cursor::new(graph.onnx))?;
    let names: Vec<&str> = graph.inputs.iter().map(|(name, _)| *name).collect();
    model.set_input_names(&names)?;
    model.select_outputs_by_name(graph.outputs)?;
    for (i, (_, shape)) in graph.inputs.iter().enumerate() {
        model.set_input_fact(i, f32::fact(*shape).into())?;
    }
    let mut model = model.into_typed()?;
    rounding::fuse(&mut model)?;
    let plan = model.into_optimized()?.into_runnable()?;
    let outputs = (0..graph.outputs.len())
        .map(|i| {
            let fact = plan.model().output_fact(i)?;
            let shape = fact.shape.as_concrete().with_context(|| {
                format!(
                    "the shape {:?} of output {} is not fixed",
                    fact.shape, graph.outputs[i]
                )
            })?;
            if fact.datum_type != f32::datum_type() {
                let (name, dtype) = (graph.outputs[i], fact.datum_type);
                return Err(format_err!("output {name} is {dtype:?}, expected F32"));
            }
            Ok(shape.to_vec())
        })
        .collect::<TractResult<_>>()?;
    Ok(TractPlan {
        about: Arc::new(About {
            graph: graph.name.into(),
            inputs: graph
                .inputs
                .iter()
                .map(|(n, s)| ((*n).into(), s.to_vec()))
                .collect(),
        }),
        outputs,
        plan,
    })
}

/// What messages need to know of a graph.
#[derive(Debug)]
struct About {
    graph: String,
    inputs: Vec<(String, Vec<usize>)>,
}

impl About {
    fn failed(&self, e: &TractError) -> BackendError {
        BackendError::Run {
            backend: NAME,
            graph: self.graph.clone(),
            what: one_line(e),
        }
    }
}

struct TractPlan {
    about: Arc<About>,
    outputs: Vec<Vec<usize>>,
    plan: Arc<TypedRunnableModel>,
}

impl Plan for TractPlan {
    fn output_shape(&self, index: usize) -> &[usize] {
        &self.outputs[index]
    }

    fn session(&self) -> Result<Box<dyn Session>, BackendError> {
        let state = self.plan.spawn().map_err(|e| self.about.failed(&e))?;
        Ok(Box::new(TractSession {
            about: self.about.clone(),
            state,
            inputs: vec![None; self.about.inputs.len()],
            outputs: tvec![],
        }))
    }
}

struct TractSession {
    about: Arc<About>,
    state: TypedSimpleState,
    inputs: Vec<Option<TValue>>,
    outputs: TVec<TValue>,
}

impl Session for TractSession {
    fn set(&mut self, input: usize, values: &[f32]) -> Result<(), BackendError> {
        let (name, shape) = &self.about.inputs[input];
        let expected = shape.iter().product();
        if values.len() != expected {
            return Err(BackendError::Size {
                graph: self.about.graph.clone(),
                tensor: name.clone(),
                expected,
                found: values.len(),
            });
        }
        let tensor = Tensor::from_shape(shape, values).map_err(|e| self.about.failed(&e))?;
        self.inputs[input] = Some(tensor.into_tvalue());
        Ok(())
    }

    fn run(&mut self) -> Result<(), BackendError> {
        let inputs = self
            .inputs
            .iter()
            .zip(&self.about.inputs)
            .map(|(value, (name, _))| {
                value
                    .clone()
                    .with_context(|| format!("input {name} has not been set"))
            })
            .collect::<TractResult<TVec<TValue>>>()
            .map_err(|e| self.about.failed(&e))?;
        // The last outputs go first, so that their memory can be used again.
        self.outputs.clear();
        self.outputs = self.state.run(inputs).map_err(|e| self.about.failed(&e))?;
        Ok(())
    }

    fn output(&self, index: usize) -> &[f32] {
        self.outputs
            .get(index)
            .and_then(|t| t.try_as_plain_ram().ok())
            .and_then(|t| t.as_slice::<f32>().ok())
            .unwrap_or_default()
    }
}

/// tract's errors are chains with line breaks in them.
fn one_line(e: &TractError) -> String {
    let chain: Vec<String> = e.chain().map(|c| c.to_string()).collect();
    chain
        .join(": ")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}
