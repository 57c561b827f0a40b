//! Element types of stored tensors.

use half::{bf16, f16};

/// An element type, and whether it is supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Dtype {
    F32,
    F16,
    Bf16,
    F64,
    /// Integers and booleans, such as counters and index tables, which are skipped. Bytes per
    /// element.
    Integer(usize),
    /// Unsupported; an error on access. Name of the type, and bytes per element.
    Other(&'static str, usize),
}

/// Byte order of stored elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByteOrder {
    Little,
    Big,
}

impl Dtype {
    /// Bytes per element, for supported types.
    pub fn size(self) -> Option<usize> {
        match self {
            Self::F16 | Self::Bf16 => Some(2),
            Self::F32 => Some(4),
            Self::F64 => Some(8),
            Self::Integer(_) | Self::Other(..) => None,
        }
    }

    /// Bytes per element in a file, for all types.
    pub fn stored_size(self) -> usize {
        match self {
            Self::Integer(size) | Self::Other(_, size) => size,
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// Converts all whole elements in `bytes` to f32 (64-bit values are rounded).
    pub fn decode(self, bytes: &[u8], order: ByteOrder) -> Vec<f32> {
        match (self, order) {
            (Self::F32, ByteOrder::Little) => each(bytes, f32::from_le_bytes),
            (Self::F32, ByteOrder::Big) => each(bytes, f32::from_be_bytes),
            (Self::F16, ByteOrder::Little) => each(bytes, |b| f16::from_le_bytes(b).to_f32()),
            (Self::F16, ByteOrder::Big) => each(bytes, |b| f16::from_be_bytes(b).to_f32()),
            (Self::Bf16, ByteOrder::Little) => each(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            (Self::Bf16, ByteOrder::Big) => each(bytes, |b| bf16::from_be_bytes(b).to_f32()),
            (Self::F64, ByteOrder::Little) => each(bytes, |b| f64::from_le_bytes(b) as f32),
            (Self::F64, ByteOrder::Big) => each(bytes, |b| f64::from_be_bytes(b) as f32),
            (Self::Integer(_) | Self::Other(..), _) => Vec::new(),
        }
    }
}

fn each<const N: usize>(bytes: &[u8], decode: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (elements, _) = bytes.as_chunks::<N>();
    elements.iter().map(|element| decode(*element)).collect()
}
