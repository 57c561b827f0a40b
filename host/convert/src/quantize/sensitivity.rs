//! Versions of the graphs, tried on a few small tiles of the answers.
//!
//! Which layers hurt most is seen on little. From the first rounded graph on, the bundle is run as
//! it will be; what lies before it is not run at all, what is not rounded runs in our kernels, and
//! what is compiled stays compiled.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use loftup_bundle::{Bundle, Precision};
use loftup_onnx::rewrite::{self, Model};
use loftup_runtime::{
    Perceptor,
    backend::{Backend, BackendError, GraphSource, Plan, Session, Tract, TractOnly},
};

use super::{
    QuantizeError,
    error_stats::ErrorAccumulator,
    graph::Graph,
    samples::{ReferenceTiles, Sample, Samples, compare, tile_rects},
    session::open,
};

/// Pictures that are looked at.
const IMAGES: usize = 4;
/// ReferenceTiles of each, and their side in pixels.
const TILES: usize = 3;
const SIDE: usize = 16;

/// Runs session of graphs on little.
pub(super) struct SensitivityAnalysis<'a> {
    bundle: &'a Bundle,
    /// Files of the graphs, and what they are in 32 bits.
    graphs: Vec<(String, Variant)>,
    samples: Vec<(&'a Sample, ReferenceTiles)>,
}

impl<'a> SensitivityAnalysis<'a> {
    /// Answers in 32 bits. `graphs` are those of the bundle, in their order.
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

    /// Relative error of the answers with these session in the place of the graphs of these indices,
    /// and the others in 32 bits.
    pub fn error(&self, variants: Vec<(usize, Variant)>) -> Result<f64, QuantizeError> {
        // There is a backbone, and it comes first: what it made of the samples is known.
        let same_features = variants.iter().all(|(graph, _)| *graph != 0);
        let perceptor = self.perceptor(variants)?;
        let mut sum = ErrorAccumulator::default();
        for (i, (sample, tiles)) in self.samples.iter().enumerate() {
            if same_features {
                compare(&perceptor, sample, &sample.features, tiles, i, &mut sum)?;
            } else {
                let features = perceptor.features_of(&sample.image)?;
                compare(&perceptor, sample, &features, tiles, i, &mut sum)?;
            }
        }
        Ok(sum.stats().relative_error)
    }

    /// The bundle with these session in the place of some of its graphs.
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

/// One version of one graph, and what it was compiled to.
#[derive(Clone, Default)]
pub(super) struct Variant(Arc<Compiled>);

/// Shapes of the inputs of a graph.
type Shapes = Vec<Vec<usize>>;

#[derive(Default)]
struct Compiled {
    /// The version in 32-bit operators; none for the graph of the bundle.
    onnx: Option<Vec<u8>>,
    plans: Mutex<Vec<(Shapes, Arc<dyn Plan>)>>,
}

impl Variant {
    /// A version of `graph` that is to be run as it is written.
    pub fn new(graph: &Graph, written: &Model) -> Result<Self, QuantizeError> {
        let fake_quantized = rewrite::fake_quantize(written).map_err(|e| graph.rewritten(e))?;
        Ok(Self(Arc::new(Compiled {
            onnx: Some(fake_quantized.encode()),
            plans: Mutex::default(),
        })))
    }

    fn plan(&self, graph: &GraphSource<'_>) -> Result<Arc<dyn Plan>, BackendError> {
        let shapes: Shapes = graph.inputs.iter().map(|(_, s)| s.to_vec()).collect();
        let plans = &self.0.plans;
        let mut plans = plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, plan)) = plans.iter().find(|(s, _)| *s == shapes) {
            return Ok(plan.clone());
        }
        let plan: Arc<dyn Plan> = match &self.0.onnx {
            Some(onnx) => TractOnly.compile(&GraphSource { onnx, ..*graph })?,
            None => Tract.compile(graph)?,
        }
        .into();
        plans.push((shapes, plan.clone()));
        Ok(plan)
    }
}

/// The CPU engine, with session of graphs in the place of those it is given.
struct MixedBackend {
    /// By file.
    graphs: BTreeMap<String, Variant>,
}

impl Backend for MixedBackend {
    fn arithmetic(&self) -> Option<loftup_runtime::backend::Arithmetic> {
        None
    }

    fn name(&self) -> &'static str {
        "as written, in part"
    }

    fn compile(&self, graph: &GraphSource<'_>) -> Result<Box<dyn Plan>, BackendError> {
        let file = graph.name.rsplit('/').next().unwrap_or(graph.name);
        match self.graphs.get(file) {
            Some(variant) => Ok(Box::new(Shared(variant.plan(graph)?))),
            None => Tract.compile(graph),
        }
    }
}

/// A plan that others have, too.
struct Shared(Arc<dyn Plan>);

impl Plan for Shared {
    fn output_shape(&self, index: usize) -> &[usize] {
        self.0.output_shape(index)
    }

    fn session(&self) -> Result<Box<dyn Session>, BackendError> {
        self.0.session()
    }
}
