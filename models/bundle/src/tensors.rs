//! Small safetensors files with 32-bit floats.

use std::collections::{BTreeMap, HashMap};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

/// Serializes tensors, given by name, shape and values.
///
/// # Errors
/// A shape does not match its values.
pub(super) fn write(tensors: &[(&str, &[usize], &[f32])]) -> Result<Vec<u8>, String> {
    write_with(tensors, None)
}

/// Same as [`write()`], with metadata.
pub(super) fn write_with(
    tensors: &[(&str, &[usize], &[f32])],
    metadata: Option<HashMap<String, String>>,
) -> Result<Vec<u8>, String> {
    let bytes =
        |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|x| x.to_le_bytes()).collect() };
    let data: Vec<_> = tensors.iter().map(|(_, _, v)| bytes(v)).collect();
    let mut views = BTreeMap::new();
    for ((name, shape, _), data) in tensors.iter().zip(&data) {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), data);
        views.insert(*name, view.map_err(|e| e.to_string())?);
    }
    safetensors::serialize(views, metadata).map_err(|e| e.to_string())
}

/// Reads a tensor with this shape.
///
/// # Errors
/// It is missing, has a different shape or type, or contains NaN or infinity.
pub(super) fn read(
    file: &SafeTensors<'_>,
    name: &str,
    shape: &[usize],
) -> Result<Vec<f32>, String> {
    let tensor = file
        .tensor(name)
        .map_err(|_| format!("tensor {name} is missing"))?;
    if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
        return Err(format!(
            "tensor {name} is {:?} {:?}, expected F32 {shape:?}",
            tensor.dtype(),
            tensor.shape()
        ));
    }
    let (bytes, _) = tensor.data().as_chunks::<4>();
    let values: Vec<f32> = bytes.iter().map(|b| f32::from_le_bytes(*b)).collect();
    match values.iter().position(|x| !x.is_finite()) {
        Some(i) => Err(format!("tensor {name} contains {} at index {i}", values[i])),
        None => Ok(values),
    }
}
