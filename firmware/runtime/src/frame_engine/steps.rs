//! The perceptor as a backend for the frame graph.

use std::sync::Arc;

use loftup_bundle::Size;
use loftup_spec::io::frame::{CLASSES, SCORES};

use super::FrameEngineQuery;
use crate::{
    Frame, Perceptor, Query, RuntimeError,
    backend::{Backend, BackendError, Graph, Model, Plan, Session, ShapeProfile},
    heads::argmax_pixels,
};

const NAME: &str = "steps";

/// Computes the outputs of the frame graph step by step: preprocessing, backbone, keys, queries, head.
#[derive(Clone)]
pub(super) struct Steps(Arc<Shared>);

struct Shared {
    perceptor: Arc<Perceptor>,
    query: FrameEngineQuery,
}

impl Steps {
    pub fn new(perceptor: Arc<Perceptor>, query: FrameEngineQuery) -> Self {
        Self(Arc::new(Shared { perceptor, query }))
    }
}

impl Backend for Steps {
    fn name(&self) -> &'static str {
        NAME
    }

    fn load(&self, graph: &Graph) -> Result<Arc<dyn Model>, BackendError> {
        Ok(Arc::new(StepsModel {
            shared: self.0.clone(),
            graph: graph.name.clone(),
            outputs: graph.outputs.clone(),
        }))
    }

    fn describe(&self) -> String {
        format!("{NAME} on {}", self.0.perceptor.engine())
    }
}

#[derive(Clone)]
struct StepsModel {
    shared: Arc<Shared>,
    graph: Arc<str>,
    outputs: Arc<[String]>,
}

impl Model for StepsModel {
    fn compile(&self, _: &[Vec<usize>], _: &[ShapeProfile]) -> Result<Box<dyn Plan>, BackendError> {
        let FrameEngineQuery { size, head, .. } = &self.shared.query;
        let shape = |name: &String| match name == CLASSES {
            true => vec![1, size.height, size.width],
            false => vec![1, size.height, size.width, head.outputs()],
        };
        Ok(Box::new(StepsPlan {
            shapes: self.outputs.iter().map(shape).collect(),
            model: self.clone(),
        }))
    }
}

struct StepsPlan {
    model: StepsModel,
    shapes: Vec<Vec<usize>>,
}

impl Plan for StepsPlan {
    fn output_shape(&self, index: usize) -> &[usize] {
        &self.shapes[index]
    }

    fn session(&self) -> Result<Box<dyn Session>, BackendError> {
        Ok(Box::new(StepsSession {
            model: self.model.clone(),
            image: Vec::new(),
            classes: Vec::new(),
            scores: Vec::new(),
        }))
    }
}

struct StepsSession {
    model: StepsModel,
    image: Vec<u8>,
    classes: Vec<u8>,
    scores: Vec<f32>,
}

impl Session for StepsSession {
    fn set(&mut self, _: usize, _: &[f32]) -> Result<(), BackendError> {
        Err(self.failed("the image is not floats"))
    }

    fn set_bytes(&mut self, _: usize, values: &[u8]) -> Result<(), BackendError> {
        self.image.clear();
        self.image.extend_from_slice(values);
        Ok(())
    }

    fn run(&mut self) -> Result<(), BackendError> {
        let Shared { perceptor, query } = &*self.model.shared;
        let Size { width, height } = query.camera;
        let frame = Frame::packed(&self.image, width, height);
        let wanted = Query::frame(query.size).with_head(&query.head);
        let output = perceptor.perceive(&frame, &wanted.with_color_range(query.range));
        let output = output.map_err(|e| match e {
            RuntimeError::Backend(e) => e,
            e => self.failed(e.to_string()),
        })?;
        self.classes.resize(output.width * output.height, 0);
        argmax_pixels(&output.values, output.dim, &mut self.classes);
        self.scores = output.values;
        Ok(())
    }

    fn output(&self, index: usize) -> &[f32] {
        match self.is(index, SCORES) {
            true => &self.scores,
            false => &[],
        }
    }

    fn output_bytes(&self, index: usize) -> &[u8] {
        match self.is(index, CLASSES) {
            true => &self.classes,
            false => &[],
        }
    }
}

impl StepsSession {
    fn is(&self, index: usize, name: &str) -> bool {
        let output = self.model.outputs.get(index);
        output.is_some_and(|output| output == name)
    }

    fn failed(&self, what: impl Into<String>) -> BackendError {
        BackendError::Run {
            backend: NAME,
            graph: self.model.graph.to_string(),
            what: what.into(),
        }
    }
}
