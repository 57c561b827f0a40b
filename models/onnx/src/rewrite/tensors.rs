//! Reads and writes the values of constants.

use crate::pb::{TensorProto, tensor_proto::DataType};
use half::f16;

/// Values of a 16- or 32-bit float constant. `None` for other types, or if there are fewer values
/// than the shape requires.
pub fn floats(tensor: &TensorProto) -> Option<Vec<f32>> {
    let count = count(tensor)?;
    let values: Vec<f32> = if tensor.data_type == DataType::Float as i32 {
        if tensor.raw_data.is_empty() {
            tensor.float_data.clone()
        } else {
            let chunks = tensor.raw_data.as_chunks::<4>().0.iter();
            chunks.map(|b| f32::from_le_bytes(*b)).collect()
        }
    } else if tensor.data_type == DataType::Float16 as i32 {
        if tensor.raw_data.is_empty() {
            // The bits of each value are in the low half of an integer.
            let bits = tensor.int32_data.iter();
            bits.map(|x| f16::from_bits(*x as u16).to_f32()).collect()
        } else {
            let chunks = tensor.raw_data.as_chunks::<2>().0.iter();
            chunks.map(|b| f16::from_le_bytes(*b).to_f32()).collect()
        }
    } else {
        return None;
    };
    (values.len() == count).then_some(values)
}

/// Values of an int8 constant.
pub fn bytes(tensor: &TensorProto) -> Option<Vec<i8>> {
    if tensor.data_type != DataType::Int8 as i32 {
        return None;
    }
    let values: Vec<i8> = if tensor.raw_data.is_empty() {
        tensor.int32_data.iter().map(|x| *x as i8).collect()
    } else {
        tensor.raw_data.iter().map(|x| *x as i8).collect()
    };
    (values.len() == count(tensor)?).then_some(values)
}

/// Number of values according to the shape.
pub fn count(tensor: &TensorProto) -> Option<usize> {
    tensor.dims.iter().try_fold(1usize, |n, d| {
        usize::try_from(*d).ok().and_then(|d| n.checked_mul(d))
    })
}

/// A 32-bit constant.
pub fn from_f32(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    let raw = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    constant(name, DataType::Float, dims, raw)
}

/// A 16-bit constant, rounded to nearest.
pub fn from_f16(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    let halves = values.iter().map(|x| f16::from_f32(*x));
    let raw = halves.flat_map(f16::to_le_bytes).collect();
    constant(name, DataType::Float16, dims, raw)
}

/// An 8-bit constant.
pub fn from_i8(name: &str, dims: &[i64], values: &[i8]) -> TensorProto {
    let raw = values.iter().map(|x| *x as u8).collect();
    constant(name, DataType::Int8, dims, raw)
}

fn constant(name: &str, kind: DataType, dims: &[i64], raw: Vec<u8>) -> TensorProto {
    TensorProto {
        name: name.into(),
        data_type: kind as i32,
        dims: dims.to_vec(),
        raw_data: raw,
        ..Default::default()
    }
}
