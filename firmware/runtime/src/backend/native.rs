//! Runs the upsampler's queries graph with `loftup-kernels`, as part of the CPU backend.
//!
//! If a graph is exactly the queries graph of `loftup-onnx`, with or without a head, its weights are
//! extracted and `loftup-kernels` computes it. tract runs all other graphs.

mod head;
mod kernels;

use std::sync::Arc;

use loftup_bundle::Precision;
use loftup_kernels::{Context, KernelError, Queries};
use loftup_onnx::loftup::{read_queries, read_queries_with_head};
use loftup_spec::{HALO, io};

use self::head::{Head, Output};
pub(super) use self::kernels::{Kernels, VARIABLE, instruction_set};
pub(crate) use self::kernels::{kernel_isa, kernels};
use super::{BackendError, Graph, Model, Plan, Session, ShapeProfile, graph::Signature};

const BACKEND: &str = "tract";
/// Inputs per tile: guidance, coordinates and mask. Keys and values follow.
const PIXELS: usize = 3;

/// A queries graph with its weights packed for an instruction set.
pub(super) struct NativeModel {
    signature: Signature,
    queries: Arc<Queries>,
    ports: Ports,
}

impl NativeModel {
    /// `None` if `graph` is not a 32-bit queries graph, or kernels are disabled.
    pub fn load(graph: &Graph, kernels: Kernels) -> Result<Option<Self>, BackendError> {
        let Kernels::On(isa, arithmetic) = kernels else {
            return Ok(None);
        };
        let Some(ports) = Ports::of(graph) else {
            return Ok(None);
        };
        let read = match ports.head {
            true => read_queries_with_head,
            false => read_queries,
        };
        // tract reports errors in invalid graphs.
        let Some(weights) = read(&graph.onnx, ports.layers) else {
            log::info!(
                "{}: not the queries graph of this version; running it with tract, which is slower",
                graph.name
            );
            return Ok(None);
        };
        let queries = Queries::with_arithmetic(isa, arithmetic, &weights);
        let queries = queries.map_err(|e| graph.rejected(BACKEND, e.to_string()))?;
        log::debug!("{}: {isa} kernels, products in {arithmetic}", graph.name);
        Ok(Some(Self {
            signature: graph.signature(),
            queries: Arc::new(queries),
            ports,
        }))
    }
}

/// Inputs and outputs of a queries graph.
#[derive(Debug, Clone)]
struct Ports {
    layers: usize,
    /// Whether the graph has a head, whose inputs come last.
    head: bool,
    outputs: Arc<[Output]>,
}

impl Ports {
    /// Returns `None` if the graph has other inputs or outputs.
    fn of(graph: &Graph) -> Option<Self> {
        let (pixels, rest) = graph.inputs.split_at_checked(PIXELS)?;
        let pairs = rest.strip_suffix(&io::HEAD_INPUTS.map(str::to_owned));
        let (pairs, head) = (pairs.unwrap_or(rest), pairs.is_some());
        let expected = (0..pairs.len() / 2).flat_map(|i| [io::key(i), io::value(i)]);
        let outputs: Option<Arc<[Output]>> =
            graph.outputs.iter().map(|name| Output::of(name)).collect();
        let outputs = outputs.filter(|o| head || o[..] == [Output::Upsampled])?;
        let is_queries = graph.precision == Precision::Fp32
            && pixels == [io::GUIDANCE, io::COORDS, io::MASK]
            && !pairs.is_empty()
            && expected.eq(pairs.iter().cloned());
        is_queries.then_some(Self {
            layers: pairs.len() / 2,
            head,
            outputs,
        })
    }

    /// Index of the first input of the head.
    fn head_start(&self) -> usize {
        PIXELS + 2 * self.layers
    }
}

impl Model for NativeModel {
    fn compile(
        &self,
        shapes: &[Vec<usize>],
        _: &[ShapeProfile],
    ) -> Result<Box<dyn Plan>, BackendError> {
        let dims = self.queries.dims();
        let ports = self.signature.ports(BACKEND, shapes)?;
        let (queries, head) = shapes.split_at(self.ports.head_start());
        let outputs = match self.ports.head {
            true => head::outputs(head, dims.dim),
            false => Some(0),
        };
        let extents = Extents::of(queries, [dims.heads, dims.head_width]);
        let (Some(extents), Some(outputs)) = (extents, outputs) else {
            let list: Vec<_> = ports.iter().map(|(n, s)| format!("{n} {s:?}")).collect();
            let what = format!(
                "inputs of these shapes do not match its {} layers with {} heads of {} channels: {}",
                self.ports.layers,
                dims.heads,
                dims.head_width,
                list.join(", ")
            );
            return Err(self.signature.rejected(BACKEND, what));
        };
        let pixels = extents.tiles * extents.height * extents.width;
        Ok(Box::new(NativePlan {
            signature: self.signature.clone(),
            ports: self.ports.clone(),
            shapes: shapes.to_vec(),
            outputs: (self.ports.outputs.iter())
                .map(|output| match output {
                    Output::Upsampled => [pixels, dims.dim],
                    Output::Head => [pixels, outputs],
                    Output::Moments => [pixels, 2],
                })
                .collect(),
            values: pixels * dims.dim,
            extents,
            queries: self.queries.clone(),
        }))
    }
}

/// The dimensions given by the input shapes of a queries graph.
#[derive(Debug, Clone, Copy)]
struct Extents {
    tiles: usize,
    height: usize,
    width: usize,
    tokens: usize,
}

impl Extents {
    /// Returns `None` if the shapes do not fit a queries graph with attention heads of this number and width.
    fn of(shapes: &[Vec<usize>], [heads, head_width]: [usize; 2]) -> Option<Self> {
        let [guidance, coords, mask, pairs @ ..] = shapes else {
            return None;
        };
        let [tiles, 3, rows, cols] = guidance[..] else {
            return None;
        };
        let (height, width) = (rows.checked_sub(2 * HALO)?, cols.checked_sub(2 * HALO)?);
        let [_, _, tokens] = pairs.first()?[..] else {
            return None;
        };
        let fit = pairs.iter().enumerate().all(|(i, shape)| match i % 2 {
            0 => *shape == [heads, head_width, tokens],
            _ => *shape == [heads, tokens, head_width],
        });
        let whole = *coords == [tiles, 2, rows, cols]
            && *mask == [tiles, 1, rows, cols]
            && fit
            && tiles * height * width * tokens > 0;
        whole.then_some(Self {
            tiles,
            height,
            width,
            tokens,
        })
    }
}

/// The queries graph for one tile shape.
struct NativePlan {
    signature: Signature,
    ports: Ports,
    shapes: Vec<Vec<usize>>,
    outputs: Vec<[usize; 2]>,
    /// Values of the features.
    values: usize,
    extents: Extents,
    queries: Arc<Queries>,
}

impl Plan for NativePlan {
    fn output_shape(&self, index: usize) -> &[usize] {
        // Indices come from the graph that was compiled.
        &self.outputs[index]
    }

    fn session(&self) -> Result<Box<dyn Session>, BackendError> {
        let Extents {
            tiles,
            height,
            width,
            tokens,
        } = self.extents;
        Ok(Box::new(NativeSession {
            signature: self.signature.clone(),
            ports: self.ports.clone(),
            context: self.queries.context(tiles, height, width, tokens),
            set: vec![false; self.shapes.len()],
            shapes: self.shapes.clone(),
            pixels: Default::default(),
            values: self.values,
            dim: self.queries.dims().dim,
            features: Vec::new(),
            head: Head::default(),
        }))
    }
}

struct NativeSession {
    signature: Signature,
    ports: Ports,
    shapes: Vec<Vec<usize>>,
    context: Context,
    /// Which inputs have been set.
    set: Vec<bool>,
    /// Guidance, coordinates and mask.
    pixels: [Vec<f32>; PIXELS],
    /// Values of the features.
    values: usize,
    /// Channels.
    dim: usize,
    features: Vec<f32>,
    head: Head,
}

impl Session for NativeSession {
    fn set(&mut self, input: usize, values: &[f32]) -> Result<(), BackendError> {
        self.signature
            .check_size(input, &self.shapes[input], values.len())?;
        let pixels = self.pixels.len();
        let head = self.ports.head_start();
        let taken: Result<(), KernelError> = if input >= head {
            self.head.set(input - head, values);
            Ok(())
        } else if input < pixels {
            self.pixels[input].clear();
            self.pixels[input].extend_from_slice(values);
            Ok(())
        } else if (input - pixels).is_multiple_of(2) {
            self.context.set_keys((input - pixels) / 2, values)
        } else {
            self.context.set_values((input - pixels) / 2, values)
        };
        taken.map_err(|e| self.signature.failed(BACKEND, e.to_string()))?;
        self.set[input] = true;
        Ok(())
    }

    fn run(&mut self) -> Result<(), BackendError> {
        if let Some(missing) = self.set.iter().position(|set| !set) {
            return Err(self.signature.not_set(BACKEND, missing));
        }
        self.features.resize(self.values, 0.0);
        let [guidance, coords, mask] = &self.pixels;
        self.context
            .run(guidance, coords, mask, &mut self.features)
            .map_err(|e| self.signature.failed(BACKEND, e.to_string()))?;
        if self.ports.head {
            self.head.run(&self.features, self.dim, &self.ports.outputs);
        }
        Ok(())
    }

    fn output(&self, index: usize) -> &[f32] {
        match self.ports.outputs.get(index) {
            Some(Output::Upsampled) => &self.features,
            Some(Output::Head) => &self.head.scores,
            Some(Output::Moments) => &self.head.moments,
            None => &[],
        }
    }
}
