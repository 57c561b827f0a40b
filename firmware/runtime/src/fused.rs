//! Heads as part of the queries graph, for engines whose outputs are copied from a device: only the
//! head's `k` outputs are copied per pixel, not the `d` channels of the features.
//!
//! One graph, and so one engine, serves features and every head: the weights of the head are inputs
//! ([`loftup_onnx::loftup::with_head`]). Only the requested outputs differ; the others stay on the
//! device.

use std::sync::Arc;

use loftup_bundle::{Bundle, Size};
use loftup_spec::{SplitMix64, io};

use crate::{
    Rect, RuntimeError,
    backend::{Backend, BackendError, Session, ShapeBounds, ShapeProfile},
    dot::linear,
    heads::Head,
    plan_cache::{PlanCache, SessionPool, Shapes, Source},
    words::{self, MomentMap},
};

/// Number of head outputs that an engine is optimized for.
const USUAL_OUTPUTS: usize = 16;
/// Heads with up to this many outputs share an engine; the widest class head has this many.
const MOST_OUTPUTS: usize = 256;
/// Number of outputs of the test head.
pub(crate) const TEST_OUTPUTS: usize = 16;

/// The outputs requested from the queries graph.
#[derive(Clone, Copy)]
pub(crate) enum Asked<'a> {
    /// The features.
    Features,
    /// The outputs of a head.
    Head(&'a Head),
    /// For each pixel, the features, the outputs of the test head for them, and the moments; for the
    /// comparison with reference outputs.
    Test,
}

/// Returns the number of values that the engine returns per pixel: the outputs of the head, and for a text
/// head also the mean and mean square of the features, which cosines need.
pub(crate) fn values_per_pixel(head: &Head) -> usize {
    head.kind().rows() + if head.is_words() { 2 } else { 0 }
}

/// The queries graph with a head.
pub(crate) struct FusedHeads {
    /// Plans for features, linear heads, text heads, and the test.
    plans: [PlanCache; 4],
    /// Index of the first input of the head.
    first_input: usize,
    dim: usize,
    ones: Vec<f32>,
    zeros: Vec<f32>,
    test: TestHead,
}

/// Inputs of a head: weight `[k, d]`, bias `[k]`, scale and offset `[d]`.
type Inputs<'a> = [&'a [f32]; 4];

impl FusedHeads {
    /// Creates the plan caches for the queries graph `source` with `dim` channels.
    pub fn new(
        bundle: &Arc<Bundle>,
        backend: &Arc<dyn Backend>,
        source: &Source,
        dim: usize,
    ) -> Self {
        let plans = |outputs: &[&str]| {
            let mut source = source.clone();
            source.head = true;
            source.inputs.extend(io::HEAD_INPUTS.map(str::to_owned));
            source.outputs = outputs.iter().map(|name| (*name).to_owned()).collect();
            PlanCache::new(bundle, backend, source)
        };
        Self {
            plans: [
                plans(&[io::UPSAMPLED]),
                plans(&[io::HEAD]),
                plans(&[io::HEAD, io::MOMENTS]),
                plans(&[io::UPSAMPLED, io::HEAD, io::MOMENTS]),
            ],
            first_input: source.inputs.len(),
            dim,
            ones: vec![1.0; dim],
            zeros: vec![0.0; dim],
            test: TestHead::new(dim),
        }
    }

    /// Returns the plan for queries inputs of these shapes.
    pub fn plan(
        &self,
        asked: Asked<'_>,
        mut shapes: Shapes,
        mut profiles: Vec<ShapeProfile>,
    ) -> Result<Arc<SessionPool>, RuntimeError> {
        let shape = |k: usize| {
            let d = self.dim;
            [vec![k, d], vec![k], vec![d], vec![d]]
        };
        let inputs = self.inputs(asked);
        shapes.extend(shape(inputs[1].len()));
        let (min, opt, max) = (1, USUAL_OUTPUTS, MOST_OUTPUTS.max(self.dim));
        for profile in &mut profiles {
            let ranges = shape(min).into_iter().zip(shape(opt)).zip(shape(max));
            let ranges = ranges.map(|((min, opt), max)| ShapeBounds { min, opt, max });
            profile.inputs.extend(ranges);
        }
        self.plans_of(asked).get(&shapes, &profiles)
    }

    fn plans_of(&self, asked: Asked<'_>) -> &PlanCache {
        let index = match asked {
            Asked::Features => 0,
            Asked::Head(head) if !head.is_words() => 1,
            Asked::Head(_) => 2,
            Asked::Test => 3,
        };
        &self.plans[index]
    }

    fn inputs<'a>(&'a self, asked: Asked<'a>) -> Inputs<'a> {
        match asked {
            // A head whose outputs are not used.
            Asked::Features => [&self.zeros, &self.zeros[..1], &self.ones, &self.zeros],
            Asked::Head(head) => {
                let linear = head.linear();
                let (scale, offset) = match &head.norm {
                    Some(norm) if head.is_words() => (&norm.scale, &norm.offset),
                    _ => (&self.ones, &self.zeros),
                };
                [&linear.weight, &linear.bias, scale, offset]
            }
            Asked::Test => self.test.inputs(),
        }
    }

    /// Sets the inputs of the head.
    pub fn set(&self, session: &mut dyn Session, asked: Asked<'_>) -> Result<(), BackendError> {
        for (i, values) in self.inputs(asked).into_iter().enumerate() {
            session.set(self.first_input + i, values)?;
        }
        Ok(())
    }

    /// Number of values per pixel that [`FusedHeads::outputs`] returns for the test.
    pub fn test_dim(&self) -> usize {
        self.dim + TEST_OUTPUTS + 2
    }

    /// Returns the requested outputs of the last run of `session`, for the pixels in `place`. `scratch` is
    /// a buffer.
    pub fn outputs<'b>(
        &self,
        session: &'b dyn Session,
        asked: Asked<'_>,
        place: (&[Rect], Size, &MomentMap),
        scratch: &'b mut Vec<f32>,
    ) -> &'b [f32] {
        scratch.clear();
        match asked {
            Asked::Head(head) if head.is_words() => {
                let words = (&head.sums[..], self.dim);
                let products = (session.output(0), session.output(1));
                words::similarities_of_products(words, products, place, scratch);
                words::decide(head.kind(), scratch, 0);
                scratch
            }
            Asked::Features | Asked::Head(_) => session.output(0),
            Asked::Test => {
                let features = session.output(0).chunks_exact(self.dim);
                let scores = session.output(1).chunks_exact(TEST_OUTPUTS);
                let moments = session.output(2).chunks_exact(2);
                for ((pixel, scores), moments) in features.zip(scores).zip(moments) {
                    scratch.extend(pixel.iter().chain(scores).chain(moments));
                }
                scratch
            }
        }
    }

    /// Splits values of [`Asked::Test`] into the features, the head's outputs with the moments, and the
    /// expected outputs and moments for these features.
    pub fn split_test(&self, values: &[f32]) -> [Vec<f32>; 3] {
        let mut parts = [Vec::new(), Vec::new(), Vec::new()];
        for pixel in values.chunks_exact(self.test_dim()) {
            let (features, found) = pixel.split_at(self.dim);
            parts[0].extend(features);
            parts[1].extend(found);
            self.test.apply(features, &mut parts[2]);
        }
        parts
    }

    /// Drops the sessions of the test. Its plans stay, to keep the engine loaded.
    pub fn end_test(&self) {
        self.plans_of(Asked::Test).drop_idle_sessions();
    }

    /// Drops all plans and their sessions.
    pub fn clear(&self) {
        self.plans.iter().for_each(PlanCache::clear);
    }
}

/// A head to compare an engine's matrix product with the CPU's.
pub(crate) struct TestHead {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    scale: Vec<f32>,
    offset: Vec<f32>,
}

impl TestHead {
    pub fn new(dim: usize) -> Self {
        let mut random = SplitMix64::new(1);
        let mut values =
            |n: usize, from: f32| -> Vec<f32> { (0..n).map(|_| from + random.uniform()).collect() };
        Self {
            weight: values(TEST_OUTPUTS * dim, -0.5),
            bias: values(TEST_OUTPUTS, -0.5),
            scale: values(dim, 0.5),
            offset: values(dim, -0.5),
        }
    }

    fn inputs(&self) -> Inputs<'_> {
        [&self.weight, &self.bias, &self.scale, &self.offset]
    }

    /// Appends the outputs for one pixel and its moments.
    fn apply(&self, pixel: &[f32], out: &mut Vec<f32>) {
        let affine = pixel.iter().zip(&self.scale).zip(&self.offset);
        let x: Vec<f32> = affine.map(|((x, a), b)| x * a + b).collect();
        linear(&self.weight, &self.bias, &x, out);
        let mean =
            |f: fn(f64) -> f64| x.iter().map(|x| f(f64::from(*x))).sum::<f64>() / x.len() as f64;
        out.extend([mean(|x| x) as f32, mean(|x| x * x) as f32]);
    }
}
