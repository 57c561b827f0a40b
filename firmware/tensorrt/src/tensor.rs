//! Names, shapes and element types of inputs and outputs.

use std::fmt;

use crate::error::{Error, Result};

/// Element types of inputs and outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DataType {
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point, IEEE.
    F16,
    /// 8-bit signed integer.
    I8,
    /// 32-bit signed integer.
    I32,
    /// One byte, 0 or 1.
    Bool,
    /// 8-bit unsigned integer.
    U8,
    /// 8-bit floating point.
    F8,
    /// 16-bit floating point with the exponent range of 32-bit (bfloat16).
    Bf16,
    /// 64-bit signed integer.
    I64,
}

impl DataType {
    /// Converts an `nvinfer1::DataType`.
    pub(crate) fn from_raw(value: i32) -> Option<DataType> {
        Some(match value {
            0 => DataType::F32,
            1 => DataType::F16,
            2 => DataType::I8,
            3 => DataType::I32,
            4 => DataType::Bool,
            5 => DataType::U8,
            6 => DataType::F8,
            7 => DataType::Bf16,
            8 => DataType::I64,
            _ => return None,
        })
    }

    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            DataType::I64 => 8,
            DataType::F32 | DataType::I32 => 4,
            DataType::F16 | DataType::Bf16 => 2,
            DataType::I8 | DataType::Bool | DataType::U8 | DataType::F8 => 1,
        }
    }
}

/// Direction of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Filled by the caller.
    Input,
    /// Filled by TensorRT.
    Output,
}

/// An input or output of a network or an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name in the ONNX graph.
    pub name: String,
    /// Input or output.
    pub direction: Direction,
    /// Type of its elements.
    pub data_type: DataType,
    /// Its shape; -1 is a dynamic dimension.
    pub shape: Vec<i64>,
}

impl TensorInfo {
    /// Whether any dimension is dynamic.
    pub fn is_dynamic(&self) -> bool {
        self.shape.iter().any(|extent| *extent < 0)
    }
}

impl fmt::Display for TensorInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {:?}", self.name, self.data_type, self.shape)
    }
}

/// Bytes of a tensor of this shape.
///
/// # Errors
/// [`Error::Shape`] if a dimension is unknown or the product overflows.
pub(crate) fn byte_count(name: &str, shape: &[i64], data_type: DataType) -> Result<usize> {
    let fail = |message: String| Error::Shape {
        tensor: name.into(),
        message,
    };
    let mut bytes = data_type.bytes();
    for extent in shape {
        let extent = usize::try_from(*extent).map_err(|_| {
            fail(format!(
                "the shape {shape:?} is not fully specified; set the shapes of all inputs first"
            ))
        })?;
        bytes = bytes
            .checked_mul(extent)
            .ok_or_else(|| fail(format!("the shape {shape:?} is too large")))?;
    }
    Ok(bytes)
}

/// The tensor with this name and direction.
pub(crate) fn find<'a>(
    tensors: &'a [TensorInfo],
    direction: Direction,
    name: &str,
) -> Result<&'a TensorInfo> {
    let of_kind = || {
        tensors
            .iter()
            .filter(|tensor| tensor.direction == direction)
    };
    of_kind()
        .find(|tensor| tensor.name == name)
        .ok_or_else(|| Error::NoTensor {
            what: if direction == Direction::Input {
                "input"
            } else {
                "output"
            },
            name: name.into(),
            known: of_kind()
                .map(|tensor| tensor.name.as_str())
                .collect::<Vec<_>>()
                .join(", "),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_that_is_unknown_or_too_large_has_no_size() {
        assert_eq!(byte_count("x", &[2, 3, 4], DataType::F16).unwrap(), 48);
        assert_eq!(byte_count("x", &[], DataType::F32).unwrap(), 4);
        assert_eq!(byte_count("x", &[2, 0], DataType::F32).unwrap(), 0);
        assert!(byte_count("x", &[2, -1], DataType::F32).is_err());
        assert!(byte_count("x", &[i64::MAX, 3], DataType::F32).is_err());
    }

    #[test]
    fn unknown_element_types_are_not_guessed() {
        for value in [-1, 9, 10, 99] {
            assert_eq!(DataType::from_raw(value), None);
        }
    }
}
