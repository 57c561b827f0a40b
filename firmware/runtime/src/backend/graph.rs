//! Graphs and the shapes that they are compiled for.

use std::sync::Arc;

use loftup_bundle::Precision;

use super::{Backend, BackendError, Plan};

/// A graph to load. Clones share the file.
#[derive(Debug, Clone)]
pub struct Graph {
    /// Name for messages; its last component is the file name.
    pub name: Arc<str>,
    /// The ONNX file.
    pub onnx: Arc<[u8]>,
    /// SHA-256 of the file in hexadecimal, if it has been computed.
    pub sha256: Option<Arc<str>>,
    /// Precision of the graph.
    pub precision: Precision,
    /// Names of the inputs, in the order of their indices.
    pub inputs: Arc<[String]>,
    /// Names of the outputs, in the order of their indices.
    pub outputs: Arc<[String]>,
}

impl Graph {
    /// A 32-bit graph.
    pub fn new<I: AsRef<str>, O: AsRef<str>>(
        name: &str,
        onnx: impl Into<Arc<[u8]>>,
        inputs: &[I],
        outputs: &[O],
    ) -> Self {
        Self {
            name: name.into(),
            onnx: onnx.into(),
            sha256: None,
            precision: Precision::Fp32,
            inputs: inputs.iter().map(|name| name.as_ref().into()).collect(),
            outputs: outputs.iter().map(|name| name.as_ref().into()).collect(),
        }
    }

    /// The file name without its directory.
    pub fn file(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }

    /// Returns the same graph with a 32-bit ONNX file in place of its own.
    pub fn with_fp32(&self, onnx: impl Into<Arc<[u8]>>) -> Self {
        Self {
            onnx: onnx.into(),
            sha256: None,
            precision: Precision::Fp32,
            ..self.clone()
        }
    }

    /// The error for a graph that `backend` cannot load or compile.
    pub fn rejected(&self, backend: &'static str, what: impl Into<String>) -> BackendError {
        self.signature().rejected(backend, what)
    }

    pub(super) fn signature(&self) -> Signature {
        Signature {
            graph: self.name.clone(),
            inputs: self.inputs.clone(),
            outputs: self.outputs.clone(),
        }
    }
}

/// Loads a 32-bit graph and compiles it for one set of input shapes. Use [`Backend::load`] to
/// compile the same graph for several sets of shapes.
///
/// # Errors
/// Same as for [`Backend::load`] and [`super::Model::compile`].
pub fn compile_once(
    backend: &dyn Backend,
    name: &str,
    onnx: impl Into<Arc<[u8]>>,
    inputs: &[(&str, &[usize])],
    outputs: &[&str],
) -> Result<Box<dyn Plan>, BackendError> {
    let (names, shapes): (Vec<_>, Vec<_>) = inputs.iter().map(|(n, s)| (*n, s.to_vec())).unzip();
    let graph = Graph::new(name, onnx, &names, outputs);
    backend.load(&graph)?.compile(&shapes, &[])
}

/// Name and signature of a loaded graph, without its file.
#[derive(Debug, Clone)]
pub(super) struct Signature {
    pub graph: Arc<str>,
    pub inputs: Arc<[String]>,
    pub outputs: Arc<[String]>,
}

impl Signature {
    /// Name and shape of each input.
    pub fn ports(
        &self,
        backend: &'static str,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<(String, Vec<usize>)>, BackendError> {
        if shapes.len() != self.inputs.len() {
            let (given, inputs) = (shapes.len(), self.inputs.len());
            let what = format!("got {given} shapes for {inputs} inputs");
            return Err(self.rejected(backend, what));
        }
        let names = self.inputs.iter().cloned();
        Ok(names.zip(shapes.iter().cloned()).collect())
    }

    /// Same as [`Graph::rejected`].
    pub fn rejected(&self, backend: &'static str, what: impl Into<String>) -> BackendError {
        BackendError::Load {
            backend,
            graph: self.graph.to_string(),
            what: what.into(),
        }
    }

    /// The error for a failed run.
    pub fn failed(&self, backend: &'static str, what: impl Into<String>) -> BackendError {
        BackendError::Run {
            backend,
            graph: self.graph.to_string(),
            what: what.into(),
        }
    }

    /// The error for an input that was not set before a run.
    pub fn not_set(&self, backend: &'static str, input: usize) -> BackendError {
        let what = format!("input {} has not been set", self.inputs[input]);
        self.failed(backend, what)
    }

    /// Checks that `found` values match the size of an input with this shape.
    pub fn check_size(
        &self,
        input: usize,
        shape: &[usize],
        found: usize,
    ) -> Result<(), BackendError> {
        let expected = shape.iter().product();
        if found == expected {
            return Ok(());
        }
        Err(BackendError::Size {
            graph: self.graph.to_string(),
            tensor: self.inputs[input].clone(),
            expected,
            found,
        })
    }
}

/// The shapes that an engine is built for: a range for each input, in the order of
/// [`Graph::inputs`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeProfile {
    /// The ranges.
    pub inputs: Vec<ShapeBounds>,
}

impl ShapeProfile {
    /// Exactly these shapes.
    pub fn fixed(shapes: &[Vec<usize>]) -> Self {
        let inputs = shapes.iter().map(|s| ShapeBounds::fixed(s)).collect();
        Self { inputs }
    }

    /// Whether these shapes are within the ranges.
    pub fn contains(&self, shapes: &[Vec<usize>]) -> bool {
        let mut pairs = self.inputs.iter().zip(shapes);
        self.inputs.len() == shapes.len() && pairs.all(|(bounds, shape)| bounds.contains(shape))
    }
}

/// The minimum, optimum and maximum shape of one input, all of the same rank, as in a TensorRT
/// optimization profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeBounds {
    /// The smallest shape that will be used.
    pub min: Vec<usize>,
    /// The shape to optimize for.
    pub opt: Vec<usize>,
    /// The largest shape that will be used.
    pub max: Vec<usize>,
}

impl ShapeBounds {
    /// Exactly this shape.
    pub fn fixed(shape: &[usize]) -> Self {
        Self {
            min: shape.to_vec(),
            opt: shape.to_vec(),
            max: shape.to_vec(),
        }
    }

    fn contains(&self, shape: &[usize]) -> bool {
        let (low, high) = (&self.min, &self.max);
        shape.len() == low.len()
            && shape.len() == high.len()
            && shape
                .iter()
                .zip(low.iter().zip(high))
                .all(|(n, (low, high))| low <= n && n <= high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_contains_what_lies_between_its_ends() {
        let profile = ShapeProfile {
            inputs: vec![
                ShapeBounds {
                    min: vec![1, 3],
                    opt: vec![2, 3],
                    max: vec![4, 3],
                },
                ShapeBounds::fixed(&[7]),
            ],
        };
        let holds = |a: &[usize], b: &[usize]| profile.contains(&[a.to_vec(), b.to_vec()]);
        assert!(holds(&[1, 3], &[7]) && holds(&[4, 3], &[7]));
        assert!(!holds(&[0, 3], &[7]) && !holds(&[5, 3], &[7]) && !holds(&[2, 2], &[7]));
        assert!(!holds(&[2, 3], &[8]) && !holds(&[2], &[7]) && !holds(&[2, 3, 1], &[7]));
        assert!(!profile.contains(&[vec![2, 3]]));
    }
}
