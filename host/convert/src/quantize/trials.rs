//! Versions of the graphs, tried on a few small parts of the answers.
//!
//! Which layers hurt most is seen on little. From the first rounded graph on, the bundle is run as
//! it will be; what lies before it is not run at all, what is not rounded runs in our kernels, and
//! what is compiled stays compiled.

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
    graph::Graph,
    loss::Sum,
    pictures::{Parts, Sample, Samples, compare, places},
    versions::open,
};

/// Pictures that are looked at.
const PICTURES: usize = 4;
/// Parts of each, and their side in pixels.
const PARTS: usize = 3;
const SIDE: usize = 16;

/// Runs versions of graphs on little.
pub(super) struct Trials<'a> {
    bundle: &'a Bundle,
    /// Files of the graphs, and what they are in 32 bits.
    graphs: Vec<(String, Variant)>,
    samples: Vec<(&'a Sample, Parts)>,
}

impl<'a> Trials<'a> {
    /// Answers in 32 bits. `graphs` are those of the bundle, in their order.
    pub fn new(
        bundle: &'a Bundle,
        samples: &'a Samples,
        graphs: &[Graph],
    ) -> Result<Self, QuantizeError> {
        let wide = |graph: &Graph| (graph.file.clone(), Variant::default());
        let mut trials = Self {
            bundle,
            graphs: graphs.iter().map(wide).collect(),
            samples: Vec::new(),
        };
        let perceptor = trials.perceptor(Vec::new())?;
        let all = &samples.samples;
        let count = PICTURES.min(all.len());
        for i in 0..count {
            let sample = &all[i * all.len() / count];
            let rects = match bundle.manifest().upsampler {
                Some(_) => places(sample.picture.size, SIDE, PARTS, i),
                None => Vec::new(),
            };
            let parts = Parts::of(&perceptor, &sample.features, &sample.picture, rects)?;
            trials.samples.push((sample, parts));
        }
        Ok(trials)
    }

    /// Relative error of the answers with these versions in the place of the graphs of these indices,
    /// and the others in 32 bits.
    pub fn loss(&self, variants: Vec<(usize, Variant)>) -> Result<f64, QuantizeError> {
        // There is a backbone, and it comes first: what it made of the pictures is known.
        let same_features = variants.iter().all(|(graph, _)| *graph != 0);
        let perceptor = self.perceptor(variants)?;
        let mut sum = Sum::default();
        for (i, (sample, parts)) in self.samples.iter().enumerate() {
            if same_features {
                compare(&perceptor, sample, &sample.features, parts, i, &mut sum)?;
            } else {
                let features = perceptor.features_of(&sample.picture)?;
                compare(&perceptor, sample, &features, parts, i, &mut sum)?;
            }
        }
        Ok(sum.loss().relative_error)
    }

    /// The bundle with these versions in the place of some of its graphs.
    fn perceptor(&self, variants: Vec<(usize, Variant)>) -> Result<Perceptor, QuantizeError> {
        let mut graphs: BTreeMap<String, Variant> = self.graphs.iter().cloned().collect();
        for (graph, variant) in variants {
            graphs.insert(self.graphs[graph].0.clone(), variant);
        }
        open(self.bundle, Arc::new(Mixed { graphs }), Precision::Fp32)
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
    onnx: Option<Arc<[u8]>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    model: Option<Arc<dyn backend::Model>>,
    plans: Vec<(Shapes, Arc<dyn Plan>)>,
}

impl Variant {
    /// A version of `graph` that is to be run as it is written.
    pub fn new(graph: &Graph, written: &Model) -> Result<Self, QuantizeError> {
        let emulated = rewrite::emulate(written).map_err(|e| graph.rewritten(e))?;
        Ok(Self(Arc::new(Compiled {
            onnx: Some(emulated.encode().into()),
            state: Mutex::default(),
        })))
    }

    /// The version of `graph`, loaded the first time.
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

/// The CPU engine, with versions of graphs in the place of those it is given.
struct Mixed {
    /// By file.
    graphs: BTreeMap<String, Variant>,
}

impl Backend for Mixed {
    fn arithmetic(&self) -> Option<loftup_runtime::backend::Arithmetic> {
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

/// A version that is loaded. What it is compiled to is kept for all [`Mixed`] engines.
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
