//! Reads and writes NumPy's `.npy` files.
//!
//! Format: NumPy's `numpy/lib/format.py`, versions 1.0 to 3.0.

mod header;
mod write;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use header::{Element, Header};

pub(crate) use write::write_u8;
pub use write::{NpyWriter, write};

/// Errors of `.npy` files. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NpyError {
    /// The file could not be opened, read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The array file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not a `.npy` file, or its header is damaged.
    #[error("{}: not a .npy array: {what}", path.display())]
    NotAnArray {
        /// The array file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The element type is not supported.
    #[error("{}: element type {dtype} of an array of shape {shape:?} is not supported; save it as float32: array.astype('<f4')", path.display())]
    UnsupportedType {
        /// The array file.
        path: PathBuf,
        /// NumPy's name of the type, such as `<i8`.
        dtype: String,
        /// The shape in the header.
        shape: Vec<usize>,
    },
    /// The file is shorter or longer than its header says.
    #[error("{}: {dtype} {shape:?} takes {expected} bytes, but {found} follow the header; the file is damaged: save or copy it again", path.display())]
    WrongLength {
        /// The array file.
        path: PathBuf,
        /// NumPy's name of the element type.
        dtype: &'static str,
        /// The shape in the header.
        shape: Vec<usize>,
        /// Bytes of the elements according to the header.
        expected: u64,
        /// Bytes after the header.
        found: u64,
    },
    /// An array with more elements than this machine can address.
    #[error("{}: an array of shape {shape:?} is too large for this machine", path.display())]
    TooLarge {
        /// The array file.
        path: PathBuf,
        /// The shape.
        shape: Vec<usize>,
    },
    /// The disk is too full for the array.
    #[error("{}: no room for an array of shape {shape:?}: it takes {needed} bytes and {free} are free; free some or choose another disk", path.display())]
    NoSpace {
        /// The array file.
        path: PathBuf,
        /// The shape.
        shape: Vec<usize>,
        /// Bytes of the file.
        needed: u64,
        /// Free bytes of the file system.
        free: u64,
    },
    /// A write beyond the end of the array.
    #[error("{}: {count} elements at {offset} do not lie within an array of shape {shape:?}", path.display())]
    OutOfRange {
        /// The array file.
        path: PathBuf,
        /// The shape.
        shape: Vec<usize>,
        /// Offset of the write, in elements.
        offset: usize,
        /// Number of elements written.
        count: usize,
    },
    /// The array was finished before all elements were written.
    #[error("{}: only {written} elements were written of an array of shape {shape:?}", path.display())]
    Unfinished {
        /// The array file.
        path: PathBuf,
        /// The shape.
        shape: Vec<usize>,
        /// Number of elements written.
        written: usize,
    },
}

/// An array in C order (row-major).
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// The length of each axis; empty for a scalar.
    pub shape: Vec<usize>,
    /// The elements, as many as the product of the shape.
    pub data: Vec<f32>,
}

/// Elements converted at a time.
const CHUNK: usize = 1 << 16;

/// Reads a `.npy` file of float32, float16, float64 (rounded to float32) or uint8 (0 to 255),
/// little-endian, in C or Fortran order.
///
/// # Errors
/// The file cannot be read, is not a `.npy` file, has an unsupported element type, or its length does
/// not match the header. The length is checked before memory is allocated for the elements.
pub fn read(path: &Path) -> Result<Array, NpyError> {
    let io = |source| NpyError::Io {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(NpyError::NotAnArray {
            path: path.to_owned(),
            what: "not a regular file".to_owned(),
        });
    }
    let header = Header::read(&mut file, path)?;
    let too_large = || NpyError::TooLarge {
        path: path.to_owned(),
        shape: header.shape.clone(),
    };
    let elements = elements(&header.shape).ok_or_else(too_large)?;
    let expected = (elements as u64)
        .checked_mul(header.element.bytes() as u64)
        .ok_or_else(too_large)?;
    let found = metadata.len().saturating_sub(header.length);
    if expected != found {
        return Err(NpyError::WrongLength {
            path: path.to_owned(),
            dtype: header.element.name(),
            shape: header.shape,
            expected,
            found,
        });
    }
    let mut data = Vec::new();
    data.try_reserve_exact(elements).map_err(|_| too_large())?;
    if header.fortran && header.shape.len() > 1 {
        data.resize(elements, 0.0);
        let mut order = FortranOrder::new(&header.shape);
        each_chunk(&mut file, header.element, elements, |values| {
            for &value in values {
                data[order.next()] = value;
            }
        })
        .map_err(io)?;
    } else {
        each_chunk(&mut file, header.element, elements, |values| {
            data.extend_from_slice(values);
        })
        .map_err(io)?;
    }
    let shape = header.shape;
    Ok(Array { shape, data })
}

/// The number of elements of a shape; `None` on overflow.
fn elements(shape: &[usize]) -> Option<usize> {
    // An axis of length 0 makes the array empty however long the others are.
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |n, &len| n.checked_mul(len))
}

/// Reads `elements` elements and passes them on as f32, chunk by chunk.
fn each_chunk(
    file: &mut File,
    element: Element,
    elements: usize,
    mut take: impl FnMut(&[f32]),
) -> std::io::Result<()> {
    let mut bytes = vec![0u8; CHUNK.min(elements) * element.bytes()];
    let mut values = Vec::with_capacity(CHUNK.min(elements));
    let mut left = elements;
    while left > 0 {
        let count = left.min(CHUNK);
        let bytes = &mut bytes[..count * element.bytes()];
        file.read_exact(bytes)?;
        values.clear();
        element.decode(bytes, &mut values);
        take(&values);
        left -= count;
    }
    Ok(())
}

/// The C-order positions of the elements of an array stored in Fortran order.
struct FortranOrder {
    /// Length, step in C order, and current index of each axis.
    axes: Vec<(usize, usize, usize)>,
    position: usize,
}

impl FortranOrder {
    fn new(shape: &[usize]) -> Self {
        let mut axes = Vec::with_capacity(shape.len());
        let mut step = 1usize;
        for &len in shape.iter().rev() {
            axes.push((len, step, 0));
            step = step.saturating_mul(len);
        }
        axes.reverse();
        Self { axes, position: 0 }
    }

    fn next(&mut self) -> usize {
        let position = self.position;
        for (len, step, index) in &mut self.axes {
            *index += 1;
            self.position += *step;
            if *index < *len {
                break;
            }
            self.position -= *step * *len;
            *index = 0;
        }
        position
    }
}
