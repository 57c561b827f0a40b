//! A file of named tensors.

use safetensors::SafeTensors;

use super::tensors;

/// The contents of a safetensors file with 32-bit floats.
#[derive(Debug, Clone)]
pub struct TensorFile(Vec<u8>);

impl TensorFile {
    /// Serializes tensors, given by name, shape and values.
    ///
    /// # Errors
    /// A shape does not match its values.
    pub fn to_bytes<'a>(
        tensors: impl Iterator<Item = (&'a str, &'a [usize], &'a [f32])>,
    ) -> Result<Vec<u8>, String> {
        tensors::write(&tensors.collect::<Vec<_>>())
    }

    /// Wraps the bytes of a file.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The values of a tensor of this shape.
    ///
    /// # Errors
    /// The file is damaged, or the tensor is missing, has a different shape or type, or contains NaN or
    /// infinity.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
        let file =
            SafeTensors::deserialize(&self.0).map_err(|e| format!("not safetensors: {e}"))?;
        tensors::read(&file, name, shape)
    }
}
