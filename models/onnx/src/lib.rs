//! ONNX graphs: the protobuf messages ([`pb`]), a graph builder ([`Graph`]), conversion to other
//! precisions ([`rewrite`]), the graphs of LoftUp ([`loftup`]) and NAF ([`naf`]), and one graph for a
//! whole camera frame ([`frame`]).
//!
//! Graphs use opset 17 without the operators that TensorRT 8.5 to 10.3 do not support
//! (`LayerNormalization`, `Gelu`): these are decomposed into older ones.

#![forbid(unsafe_code)]

mod blocks;
pub mod frame;
mod graph;
mod inspect;
pub mod loftup;
pub mod naf;
pub mod pb;
pub mod rewrite;
mod tensor;
pub mod walk;

pub use graph::{Attr, Dim, Graph, Value, value_info};
pub use inspect::{ElementType, Interface, Port};
pub use tensor::Tensor;

/// Maximum size of an ONNX file, in bytes: it is one protobuf message.
pub const LARGEST: u64 = 2 << 30;

/// Reads an ONNX file.
///
/// # Errors
/// Errors of the file system; the file is longer than [`LARGEST`].
pub fn read_file(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    use std::io::{Error, ErrorKind, Read};
    let file = std::fs::File::open(path)?;
    let mut bytes = Vec::new();
    if file.metadata()?.len() <= LARGEST {
        file.take(LARGEST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 <= LARGEST {
            return Ok(bytes);
        }
    }
    let what = format!("longer than {LARGEST} bytes, the maximum for ONNX");
    Err(Error::new(ErrorKind::FileTooLarge, what))
}
