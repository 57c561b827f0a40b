//! Imports ONNX files written by other tools.
//!
//! An [`Import`] is a file with its external weights read in and all floats converted to 32 bits.
//! [`Import::graph`] writes it as a graph of a bundle: one float32 input `[1, 3, H, W]`, one
//! float32 output, and no inferred shapes of intermediate values, since these contradict the actual
//! shapes if they include a batch size.

mod attention;
mod border;
mod external;
mod precision;
#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use loftup_onnx::pb::{GraphProto, ModelProto, tensor_proto::DataType};
use prost::Message;

pub use self::border::{Arrangement, Border};
use crate::checkpoint;
use loftup_onnx::{ElementType, Interface, LARGEST, walk};

/// The file cannot be imported. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is not an ONNX file.
    #[error("{}: not an ONNX model: {found}", path.display())]
    NotOnnx {
        /// The file.
        path: PathBuf,
        /// What it is, with a hint.
        found: String,
    },
    /// The file uses an ONNX feature that is not supported.
    #[error("{}: {what}, which is not supported; in Python: {remedy}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The feature.
        what: String,
        /// How to avoid it.
        remedy: &'static str,
    },
    /// External weights that cannot be used.
    #[error("{}: tensor {tensor}: {what}", path.display())]
    External {
        /// The ONNX file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong, with a hint.
        what: String,
    },
    /// A constant whose values do not match its shape.
    #[error("{}: tensor {tensor}: its values do not match its shape or type; export it again", path.display())]
    Tensor {
        /// The ONNX file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// Too large including its external weights.
    #[error("{}: {bytes} bytes including weights, but a bundle's graph has at most {LARGEST}; export a smaller model or in float16", path.display())]
    Large {
        /// The ONNX file.
        path: PathBuf,
        /// The size it would have.
        bytes: u64,
    },
}

/// An ONNX file written by another tool, with its weights.
#[derive(Debug, Clone)]
pub struct Import {
    model: ModelProto,
    graph: GraphProto,
    interface: Interface,
    files: Vec<(String, String)>,
}

impl Import {
    /// Reads the file and its external weights.
    ///
    /// # Errors
    /// Names the file and the tensor, with a hint. External weights must be in regular files in the
    /// directory of the ONNX file, and have at most [`LARGEST`] bytes in total.
    pub fn open(path: &Path) -> Result<Self, ImportError> {
        let bytes = loftup_onnx::read_file(path).map_err(|source| ImportError::Io {
            path: path.into(),
            source,
        })?;
        let not_onnx = || ImportError::NotOnnx {
            path: path.into(),
            found: checkpoint::other_format(&bytes)
                .unwrap_or_else(|| "it is damaged or incomplete; export or copy it again".into()),
        };
        let mut model = ModelProto::decode(&*bytes).map_err(|_| not_onnx())?;
        let mut graph = model.graph.take().ok_or_else(not_onnx)?;
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let mut files = vec![(file.into(), loftup_bundle::sha256_hex(&bytes))];
        drop(bytes);
        if let Some((what, remedy)) = unsupported(&model, &mut graph) {
            let path = path.into();
            return Err(ImportError::Unsupported { path, what, remedy });
        }
        let interface = Interface::of_graph(&model, &graph);
        files.extend(external::embed(&mut graph, path)?);
        walk::graphs_mut(&mut graph, &mut attention::drop_unread_outputs);
        walk::graphs_mut(&mut graph, &mut attention::add_masks);

        let mut other = vec![DataType::Float16, DataType::Bfloat16];
        let mut ports = interface.inputs.iter().chain(&interface.outputs);
        if ports.any(|p| p.element == ElementType::FLOAT64) {
            other.push(DataType::Double);
        }
        other.retain(|kind| precision::mentions(&mut graph, *kind));
        precision::to_float32(&mut graph, &other).map_err(|tensor| ImportError::Tensor {
            path: path.into(),
            tensor,
        })?;
        let bytes = graph.encoded_len() as u64;
        if bytes > LARGEST {
            let path = path.into();
            return Err(ImportError::Large { path, bytes });
        }
        for kind in other {
            log::info!(
                "{}: converting {} to float32",
                path.display(),
                ElementType::from(kind)
            );
        }
        Ok(Self {
            model,
            graph,
            interface,
            files,
        })
    }

    /// Inputs, outputs and origin, as stated in the file.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Name and SHA-256 of the file and of each external file.
    pub fn files(&self) -> &[(String, String)] {
        &self.files
    }

    /// The graph with float32 inputs and outputs, serialized. Its input is `[1, 3, H, W]`, with
    /// colors from 0 to 255 if the input of the file is uint8.
    pub fn graph(&self, border: &Border<'_>) -> Vec<u8> {
        let mut model = self.model.clone();
        model.graph = Some(border.around(self.graph.clone(), &self.interface));
        model.encode_to_vec()
    }
}

/// An unsupported feature used by the graph, and how to write the file without it.
fn unsupported(model: &ModelProto, graph: &mut GraphProto) -> Option<(String, &'static str)> {
    let functions: HashSet<(&str, &str)> = model
        .functions
        .iter()
        .map(|f| (f.domain.as_str(), f.name.as_str()))
        .collect();
    let mut found = None;
    walk::graphs_mut(graph, &mut |graph| {
        let mut nodes = graph.node.iter();
        if let Some(tensor) = graph.sparse_initializer.first() {
            let values = tensor.values.as_ref();
            let name = values.map_or("", |values| values.name.as_str());
            found = Some((
                format!("constant {name} is sparse"),
                "store it as a dense initializer (onnx.numpy_helper.from_array)",
            ));
        } else if let Some(n) = nodes.find(|n| functions.contains(&(&n.domain, &n.op_type))) {
            found = Some((
                format!("{} is a model-local function", n.op_type),
                "onnx.save(onnx.inliner.inline_local_functions(onnx.load(FILE)), NEW_FILE)",
            ));
        }
    });
    found
}
