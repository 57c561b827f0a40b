//! The CPU backend, which is always available.
//!
//! tract's API is not declared stable; this is the only module of the runtime that uses it.

mod rounding;

use std::{io::Cursor, sync::Arc};

use loftup_bundle::Precision;
use loftup_kernels::Arithmetic as Products;
use loftup_onnx::rewrite;

use tract_onnx::{
    prelude::*,
    tract_core::internal::{TractErrorContext, format_err},
    tract_hir::infer::Factoid,
};

use super::{
    Arithmetic, Backend, BackendError, CpuPrecision, Graph, Model, Plan, Session, ShapeProfile,
    graph::Signature, native, shared::shared,
};

const NAME: &str = "tract";

/// The CPU backend: `loftup-kernels` for the upsampler's queries, tract for everything else.
///
/// The environment variable `LOFTUP_KERNELS` selects the instruction set of the kernels (`generic`,
/// `avx2`, `avxvnni`, `avx512`); with `off` everything runs on tract. All products are computed in 32 bits.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuBackend;

impl Backend for CpuBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn arithmetic(&self, _: Precision) -> Option<Arithmetic> {
        None
    }

    fn load(&self, graph: &Graph) -> Result<Arc<dyn Model>, BackendError> {
        load(graph, native::Kernels::from_environment(graph)?)
    }
}

/// The CPU backend with products of fewer than 32 bits in the upsampler's queries. All other graphs run as on
/// [`CpuBackend`].
#[derive(Debug, Clone, Copy)]
pub struct NarrowCpuBackend(CpuPrecision);

impl NarrowCpuBackend {
    /// Creates the backend with products of this precision.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] if this CPU has no instructions for them.
    pub fn new(precision: CpuPrecision) -> Result<Self, BackendError> {
        match precision.check() {
            Ok(()) => Ok(Self(precision)),
            Err(what) => Err(BackendError::Unavailable {
                backend: NAME,
                what,
                absent: false,
            }),
        }
    }
}

impl Backend for NarrowCpuBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    /// Fastest first with [`CpuPrecision::Auto`]; otherwise most precise first, with products rounded as requested.
    fn precisions(&self) -> [Precision; 4] {
        match self.0 {
            CpuPrecision::Auto => [
                Precision::Int8,
                Precision::Fp16,
                Precision::Fp32,
                Precision::Fp16Weights,
            ],
            _ => CpuBackend.precisions(),
        }
    }

    fn arithmetic(&self, precision: Precision) -> Option<Arithmetic> {
        match self.0.of(precision) {
            Products::Fp32 => None,
            products => Some(Arithmetic::Products(products)),
        }
    }

    fn describe(&self) -> String {
        match self.0 {
            CpuPrecision::Auto => {
                format!("{NAME} with the upsampler's products in the precision of its graph")
            }
            fixed => format!("{NAME} with the upsampler's products in {fixed}"),
        }
    }

    fn load(&self, graph: &Graph) -> Result<Arc<dyn Model>, BackendError> {
        let kernels = native::Kernels::from_environment(graph)?;
        load(graph, kernels.with_products(self.0.of(graph.precision)))
    }
}

fn load(graph: &Graph, kernels: native::Kernels) -> Result<Arc<dyn Model>, BackendError> {
    shared(graph, format!("{kernels:?}"), || {
        let graph = &to_fp32(graph)?;
        match native::NativeModel::load(graph, kernels)? {
            Some(model) => Ok(Arc::new(model)),
            None => TractBackend.load(graph),
        }
    })
}

/// tract without the kernels, for comparison. Heads are part of the queries graph, as with
/// TensorRT.
#[derive(Debug, Clone, Copy, Default)]
pub struct TractBackend;

impl Backend for TractBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn arithmetic(&self, _: Precision) -> Option<Arithmetic> {
        None
    }

    fn fuses_heads(&self) -> bool {
        true
    }

    fn load(&self, graph: &Graph) -> Result<Arc<dyn Model>, BackendError> {
        let graph = to_fp32(graph)?;
        let parsed = parse(&graph).map_err(|e| graph.rejected(NAME, one_line(&e)))?;
        Ok(Arc::new(TractModel {
            signature: graph.signature(),
            parsed,
        }))
    }
}

/// The 32-bit version of a quantized graph. On the CPU, 16-bit products are slow, and 8-bit
/// products are not faster than the 32-bit kernels (`docs/quantization.md`).
fn to_fp32(graph: &Graph) -> Result<Graph, BackendError> {
    if graph.precision == Precision::Fp32 {
        return Ok(graph.clone());
    }
    let wide = rewrite::Model::decode(&graph.onnx).and_then(|model| rewrite::to_fp32(&model));
    let wide = wide.map_err(|e| graph.rejected(NAME, e.to_string()))?;
    Ok(graph.with_fp32(wide.encode()))
}

/// Decodes the graph and selects its inputs and outputs.
fn parse(graph: &Graph) -> TractResult<InferenceModel> {
    let mut model = tract_onnx::onnx().model_for_read(&mut Cursor::new(&graph.onnx))?;
    model.set_input_names(graph.inputs.iter())?;
    model.select_outputs_by_name(graph.outputs.iter())?;
    Ok(model)
}

/// A decoded graph. Clones share the weights.
struct TractModel {
    signature: Signature,
    parsed: InferenceModel,
}

impl Model for TractModel {
    fn compile(
        &self,
        shapes: &[Vec<usize>],
        _: &[ShapeProfile],
    ) -> Result<Box<dyn Plan>, BackendError> {
        let signature = &self.signature;
        signature.ports(NAME, shapes)?;
        match self.optimize(shapes) {
            Ok(plan) => Ok(Box::new(plan)),
            Err(e) => Err(signature.rejected(NAME, one_line(&e))),
        }
    }
}

impl TractModel {
    fn optimize(&self, shapes: &[Vec<usize>]) -> TractResult<TractPlan> {
        let mut model = self.parsed.clone();
        for (i, shape) in shapes.iter().enumerate() {
            let kind = model.input_fact(i)?.datum_type.concretize();
            let fact = match kind == Some(u8::datum_type()) {
                true => u8::fact(shape),
                false => f32::fact(shape),
            };
            model.set_input_fact(i, fact.into())?;
        }
        let mut model = model.into_typed()?;
        rounding::fuse(&mut model)?;
        let plan = model.into_optimized()?.into_runnable()?;
        let outputs = self.signature.outputs.iter().enumerate();
        let outputs = outputs
            .map(|(i, name)| {
                let fact = plan.model().output_fact(i)?;
                let shape = fact.shape.as_concrete().with_context(|| {
                    format!("output {name} has the dynamic shape {:?}", fact.shape)
                })?;
                if ![f32::datum_type(), u8::datum_type()].contains(&fact.datum_type) {
                    let dtype = fact.datum_type;
                    return Err(format_err!(
                        "output {name} is {dtype:?}, expected F32 or U8"
                    ));
                }
                Ok(shape.to_vec())
            })
            .collect::<TractResult<_>>()?;
        Ok(TractPlan {
            signature: self.signature.clone(),
            shapes: shapes.into(),
            outputs,
            plan,
        })
    }
}

struct TractPlan {
    signature: Signature,
    shapes: Arc<[Vec<usize>]>,
    outputs: Vec<Vec<usize>>,
    plan: Arc<TypedRunnableModel>,
}

impl Plan for TractPlan {
    fn output_shape(&self, index: usize) -> &[usize] {
        &self.outputs[index]
    }

    fn session(&self) -> Result<Box<dyn Session>, BackendError> {
        let failed = |e| self.signature.failed(NAME, one_line(&e));
        Ok(Box::new(TractSession {
            signature: self.signature.clone(),
            shapes: self.shapes.clone(),
            state: self.plan.spawn().map_err(failed)?,
            inputs: vec![None; self.shapes.len()],
            outputs: tvec![],
        }))
    }
}

struct TractSession {
    signature: Signature,
    shapes: Arc<[Vec<usize>]>,
    state: TypedSimpleState,
    inputs: Vec<Option<TValue>>,
    outputs: TVec<TValue>,
}

impl Session for TractSession {
    fn set(&mut self, input: usize, values: &[f32]) -> Result<(), BackendError> {
        self.set_values(input, values)
    }

    fn set_bytes(&mut self, input: usize, values: &[u8]) -> Result<(), BackendError> {
        self.set_values(input, values)
    }

    fn run(&mut self) -> Result<(), BackendError> {
        let mut inputs = TVec::new();
        for (i, value) in self.inputs.iter().enumerate() {
            let missing = || self.signature.not_set(NAME, i);
            inputs.push(value.clone().ok_or_else(missing)?);
        }
        // Drop the previous outputs first, so that their memory can be reused.
        self.outputs.clear();
        self.outputs = self.state.run(inputs).map_err(|e| self.failed(&e))?;
        Ok(())
    }

    fn output(&self, index: usize) -> &[f32] {
        self.values(index)
    }

    fn output_bytes(&self, index: usize) -> &[u8] {
        self.values(index)
    }
}

impl TractSession {
    fn set_values<T: Datum + Copy>(
        &mut self,
        input: usize,
        values: &[T],
    ) -> Result<(), BackendError> {
        let shape = &self.shapes[input];
        self.signature.check_size(input, shape, values.len())?;
        let tensor = Tensor::from_shape(shape, values).map_err(|e| self.failed(&e))?;
        self.inputs[input] = Some(tensor.into_tvalue());
        Ok(())
    }

    fn values<T: Datum>(&self, index: usize) -> &[T] {
        self.outputs
            .get(index)
            .and_then(|t| t.try_as_plain_ram().ok())
            .and_then(|t| t.as_slice::<T>().ok())
            .unwrap_or_default()
    }

    fn failed(&self, e: &TractError) -> BackendError {
        self.signature.failed(NAME, one_line(e))
    }
}

/// tract's errors are multi-line chains.
fn one_line(e: &TractError) -> String {
    let chain: Vec<String> = e.chain().map(|c| c.to_string()).collect();
    chain
        .join(": ")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}
