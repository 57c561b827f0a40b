//! Sensitivity analysis: the error of graph variants on a few small tiles.
//!
//! Graphs before the first quantized one are not run again, graphs that are not quantized run in
//! the project's own kernels, and compiled variants are reused.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use loftup_bundle::{Bundle, Precision};
use loftup_onnx::rewrite::{self, Model};
use loftup_runtime::{
    Perceptor,
    backend::{self, Backend, BackendError, CpuBackend, Plan, Session, ShapeProfile, TractBackend},
};

use super::{
    QuantizeError,
    error_stats::ErrorAccumulator,
    graph::Graph,
    samples::{ReferenceTiles, Sample, Samples, compare, tile_rects},
    session::open,
};

/// Number of images used.
const IMAGES: usize = 4;
/// Number of tiles per image, and their side in pixels.
const TILES: usize = 3;
const SIDE: usize = 16;

/// Measures the error of graph variants on a few tiles.
pub(super) struct SensitivityAnalysis<'a> {
    bundle: &'a Bundle,
    /// Files of the graphs, with their fp32 variants.
    graphs: Vec<(String, Variant)>,
    samples: Vec<(&'a Sample, ReferenceTiles)>,
}

impl<'a> SensitivityAnalysis<'a> {
    /// Computes the fp32 reference. `graphs` are those of the bundle, in order.
    pub fn new(
        bundle: &'a Bundle,
        samples: &'a Samples,
        graphs: &[Graph],
    ) -> Result<Self, QuantizeError> {
        let wide = |graph: &Graph| (graph.file.clone(), Variant::default());
        let mut analysis = Self {
            bundle,
            graphs: graphs.iter().map(wide).collect(),
            samples: Vec::new(),
        };
        let perceptor = analysis.perceptor(Vec::new())?;
        let all = &samples.samples;
        let count = IMAGES.min(all.len());
        for i in 0..count {
            let sample = &all[i * all.len() / count];
            let rects = match bundle.manifest().upsampler {
                Some(_) => tile_rects(sample.image.size, SIDE, TILES, i),
                None => Vec::new(),
            };
            let tiles = ReferenceTiles::of(&perceptor, &sample.features, &sample.image, rects)?;
            analysis.samples.push((sample, tiles));
        }
        Ok(analysis)
    }

    /// Relative error of the output with these variants of the graphs with these indices, and the
    /// others in fp32.
    pub fn error(&self, variants: Vec<(usize, Variant)>) -> Result<f64, QuantizeError> {
        // The backbone is always the first graph, and its fp32 features are known.
        let same_features = variants.iter().all(|(graph, _)| *graph != 0);
        let perceptor = self.perceptor(variants)?;
        let mut sum = ErrorAccumulator::default();
        for (i, (sample, tiles)) in self.samples.iter().enumerate() {
            if same_features {
                compare(&perceptor, sample, &sample.features, tiles, i, &mut sum)?;
            } else {
                let features = perceptor.features(&sample.image)?;
                compare(&perceptor, sample, &features, tiles, i, &mut sum)?;
            }
        }
        Ok(sum.stats().relative_error)
    }

    /// The bundle with some graphs replaced by these variants.
    fn perceptor(&self, variants: Vec<(usize, Variant)>) -> Result<Perceptor, QuantizeError> {
        let mut graphs: BTreeMap<String, Variant> = self.graphs.iter().cloned().collect();
        for (graph, variant) in variants {
            graphs.insert(self.graphs[graph].0.clone(), variant);
        }
        open(
            self.bundle,
            Arc::new(MixedBackend { graphs }),
            Precision::Fp32,
        )
    }
}

/// One variant of a graph, with its compiled plans.
#[derive(Clone, Default)]
pub(super) struct Variant(Arc<Compiled>);

/// Shapes of the inputs of a graph.
type Shapes = Vec<Vec<usize>>;

#[derive(Default)]
struct Compiled {
    /// The fake-quantized graph; `None` for the graph of the bundle.
    onnx: Option<Arc<[u8]>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    model: Option<Arc<dyn backend::Model>>,
    plans: Vec<(Shapes, Arc<dyn Plan>)>,
}

impl Variant {
    /// A quantized variant of `graph`.
    pub fn new(graph: &Graph, written: &Model) -> Result<Self, QuantizeError> {
        let fake_quantized = rewrite::fake_quantize(written).map_err(|e| graph.rewritten(e))?;
        Ok(Self(Arc::new(Compiled {
            onnx: Some(fake_quantized.encode().into()),
            state: Mutex::default(),
        })))
    }

    /// The variant of `graph`, loaded the first time.
    fn load(&self, graph: &backend::Graph) -> Result<VariantModel, BackendError> {
        let model = &mut self.state().model;
        let model = match model {
            Some(model) => model,
            None => model.insert(match &self.0.onnx {
                Some(onnx) => TractBackend.load(&graph.with_fp32(onnx.clone()))?,
                None => CpuBackend.load(graph)?,
            }),
        };
        Ok(VariantModel {
            model: model.clone(),
            variant: self.clone(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The CPU backend, with some graphs replaced by variants.
struct MixedBackend {
    /// By file.
    graphs: BTreeMap<String, Variant>,
}

impl Backend for MixedBackend {
    fn arithmetic(&self, _: Precision) -> Option<loftup_runtime::backend::Arithmetic> {
        None
    }

    fn name(&self) -> &'static str {
        "as written, in part"
    }

    fn load(&self, graph: &backend::Graph) -> Result<Arc<dyn backend::Model>, BackendError> {
        match self.graphs.get(graph.file()) {
            Some(variant) => Ok(Arc::new(variant.load(graph)?)),
            None => CpuBackend.load(graph),
        }
    }
}

/// A loaded variant. Its compiled plans are shared by all [`MixedBackend`]s.
struct VariantModel {
    model: Arc<dyn backend::Model>,
    variant: Variant,
}

impl backend::Model for VariantModel {
    fn compile(
        &self,
        shapes: &[Vec<usize>],
        profiles: &[ShapeProfile],
    ) -> Result<Box<dyn Plan>, BackendError> {
        let mut state = self.variant.state();
        if let Some((_, plan)) = state.plans.iter().find(|(s, _)| s == shapes) {
            return Ok(Box::new(Shared(plan.clone())));
        }
        let plan: Arc<dyn Plan> = self.model.compile(shapes, profiles)?.into();
        state.plans.push((shapes.to_vec(), plan.clone()));
        Ok(Box::new(Shared(plan)))
    }
}

/// A shared plan.
struct Shared(Arc<dyn Plan>);

impl Plan for Shared {
    fn output_shape(&self, index: usize) -> &[usize] {
        self.0.output_shape(index)
    }

    fn session(&self) -> Result<Box<dyn Session>, BackendError> {
        self.0.session()
    }
}
