//! Reading ONNX files that other tools wrote.
//!
//! An [`Import`] is a file with its external weights read in and floats of all widths made
//! 32-bit ones. [`Import::graph`] writes it as the graph of a bundle: one float32 input
//! `[1, 3, H, W]`, one float32 output, and no inferred shapes of inner values, which contradict the
//! shapes that an engine is given as soon as they name the batch.

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

/// A file that cannot be imported. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not ONNX.
    #[error("{}: not an ONNX model: {found}", path.display())]
    NotOnnx {
        /// The file.
        path: PathBuf,
        /// What it is, and what to do.
        found: String,
    },
    /// A part of ONNX that is not read.
    #[error("{}: {what}, which is not read here; in Python: {remedy}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The part.
        what: String,
        /// How to do without it.
        remedy: &'static str,
    },
    /// Weights in another file that cannot be used.
    #[error("{}: tensor {tensor}: {what}", path.display())]
    External {
        /// The ONNX file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong with it, and what to do.
        what: String,
    },
    /// A constant whose values do not fit its shape.
    #[error("{}: tensor {tensor}: its values do not fit its shape or type; export it again", path.display())]
    Tensor {
        /// The ONNX file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// Too large with its external weights.
    #[error("{}: {bytes} bytes with its weights, and a bundle's graph has at most {LARGEST}; export a smaller model or in float16", path.display())]
    Large {
        /// The ONNX file.
        path: PathBuf,
        /// What it would be.
        bytes: u64,
    },
}

/// An ONNX file that another tool wrote, with its weights.
#[derive(Debug, Clone)]
pub struct Import {
    model: ModelProto,
    graph: GraphProto,
    interface: Interface,
    files: Vec<(String, String)>,
}

impl Import {
    /// Reads the file and the files of weights next to it.
    ///
    /// # Errors
    /// Names the file, the tensor and the remedy. External weights may only be in plain files in
    /// the directory of the ONNX file, and take at most [`LARGEST`] bytes together.
    pub fn open(path: &Path) -> Result<Self, ImportError> {
        let bytes = loftup_onnx::read_file(path).map_err(|source| ImportError::Io {
            path: path.into(),
            source,
        })?;
        let not_onnx = || ImportError::NotOnnx {
            path: path.into(),
            found: checkpoint::other_format(&bytes).unwrap_or_else(|| {
                "it is damaged, or only a part of one; export or copy it again".into()
            }),
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
                "{}: {} becomes float32",
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

    /// Inputs, outputs and origin, as the file states them.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Name and SHA-256 of the file, and of each file of weights.
    pub fn files(&self) -> &[(String, String)] {
        &self.files
    }

    /// The graph with float32 values at its border, serialized. Its input is `[1, 3, H, W]`,
    /// colors from 0 to 255 where the file's input is uint8.
    pub fn graph(&self, border: &Border<'_>) -> Vec<u8> {
        let mut model = self.model.clone();
        model.graph = Some(border.around(self.graph.clone(), &self.interface));
        model.encode_to_vec()
    }
}

/// A part of the graph that no engine here reads, and how to write the file without it.
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
                format!("{} is a function of the file's own", n.op_type),
                "onnx.save(onnx.inliner.inline_local_functions(onnx.load(FILE)), NEW_FILE)",
            ));
        }
    });
    found
}
