//! Checkpoint entries: where the elements of each tensor are stored, or why they cannot be read.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    dtype::{ByteOrder, Dtype},
    error::{CheckpointError, Problem},
    pickle::StoredTensor,
    strided::Layout,
};
use loftup_onnx::Tensor;

/// Maximum total size of the tensors in memory, as a multiple of the file size: half precision
/// doubles in size, and tensors that share a storage are each copied.
const EXPANSION: u64 = 4;

/// Tensors by name.
pub(super) type Entries = BTreeMap<String, Entry>;

/// A tensor of a checkpoint.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    /// In memory.
    Held(Tensor),
    /// In a file, decoded on demand.
    Stored(Stored),
    /// In a file, but not readable.
    Unreadable(Unreadable),
}

/// A tensor that cannot be read.
#[derive(Debug, Clone)]
pub(super) struct Unreadable {
    /// Its shape, if known.
    pub shape: Option<Vec<usize>>,
    /// The reason, as in "tensor x is sparse".
    pub what: String,
    /// A hint for the user.
    pub remedy: &'static str,
    /// Whether it contains integers or booleans, such as counters and index tables, which models do
    /// not need.
    pub integer: bool,
}

/// An open checkpoint file.
#[derive(Debug)]
pub(super) struct Source {
    pub path: PathBuf,
    file: Mutex<File>,
}

/// A byte range of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub start: u64,
    pub len: u64,
}

/// A tensor whose elements are in a file. The whole byte range exists.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    source: Arc<Source>,
    storage: Extent,
    dtype: Dtype,
    order: ByteOrder,
    layout: Layout,
}

impl Entry {
    /// A strided tensor in a storage; `extent` finds the storage.
    ///
    /// # Errors
    /// The storage is too short or does not exist.
    pub fn stored(
        name: &str,
        tensor: &StoredTensor,
        source: &Arc<Source>,
        order: ByteOrder,
        extent: impl FnOnce() -> Result<Extent, Problem>,
    ) -> Result<Self, Problem> {
        let damaged = |what: String| Problem::damaged(format!("tensor {name}: {what}"));
        let (layout, dtype) = (&tensor.layout, tensor.dtype);
        let Some(size) = dtype.size() else {
            return Ok(Self::unread(dtype, layout.shape.clone()));
        };
        let storage = extent()?;
        let unit = if tensor.storage.dtype.is_some() {
            size
        } else {
            1
        };
        let bytes = tensor.storage.len.checked_mul(unit);
        if bytes.is_none_or(|bytes| bytes as u64 > storage.len) {
            return Err(damaged(format!(
                "its storage {} has {2} elements, expected {1}",
                super::error::printable(tensor.storage.key),
                tensor.storage.len,
                storage.len / unit as u64
            )));
        }
        let held = usize::try_from(storage.len / size as u64)
            .map_err(|_| damaged("its storage exceeds the address space".into()))?;
        if let Some(numel) = layout.numel().filter(|numel| *numel > held) {
            return Ok(Self::Unreadable(Unreadable {
                shape: Some(layout.shape.clone()),
                what: format!("has {numel} elements, but its storage has only {held}"),
                remedy: "it was saved as an expanded view; save its .contiguous() copy",
                integer: false,
            }));
        }
        layout.window(held).map_err(damaged)?;
        Ok(Self::Stored(Stored {
            source: source.clone(),
            storage,
            dtype,
            order,
            layout: layout.clone(),
        }))
    }

    /// A contiguous array that fills its storage.
    pub fn contiguous(
        source: &Arc<Source>,
        storage: Extent,
        dtype: Dtype,
        shape: Vec<usize>,
    ) -> Self {
        let mut stride = vec![1usize; shape.len()];
        for axis in (1..shape.len()).rev() {
            stride[axis - 1] = stride[axis].saturating_mul(shape[axis]);
        }
        Self::Stored(Stored {
            source: source.clone(),
            storage,
            dtype,
            order: ByteOrder::Little,
            layout: Layout {
                offset: 0,
                shape,
                stride,
            },
        })
    }

    /// A tensor with an unsupported element type.
    pub fn unread(dtype: Dtype, shape: Vec<usize>) -> Self {
        let (what, remedy, integer) = match dtype {
            Dtype::Other(name, _) => (
                format!("has an unsupported type ({name})"),
                "convert it to float32, float16 or bfloat16 and save the checkpoint again",
                false,
            ),
            _ => (
                "contains integers".into(),
                "if it is a quantized weight, use a checkpoint in float32, float16 or bfloat16",
                true,
            ),
        };
        Self::Unreadable(Unreadable {
            shape: Some(shape),
            what,
            remedy,
            integer,
        })
    }

    /// The shape, if known.
    pub fn shape(&self) -> Option<&[usize]> {
        match self {
            Self::Held(tensor) => Some(tensor.shape()),
            Self::Stored(stored) => Some(&stored.layout.shape),
            Self::Unreadable(unreadable) => unreadable.shape.as_deref(),
        }
    }
}

impl Source {
    pub fn new(path: PathBuf, file: File) -> Arc<Self> {
        let file = Mutex::new(file);
        Arc::new(Self { path, file })
    }

    fn read(&self, start: u64, len: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len)?;
        bytes.resize(len, 0);
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

impl Stored {
    /// Reads the elements.
    pub fn read(&self, name: &str) -> Result<Tensor, CheckpointError> {
        self.try_read(name)
            .map_err(|problem| problem.at(&self.source.path))
    }

    fn try_read(&self, name: &str) -> Result<Tensor, Problem> {
        let damaged = |what: &str| Problem::damaged(format!("tensor {name}: {what}"));
        let size = self.dtype.stored_size();
        let held = self.storage.len / size as u64;
        let held = usize::try_from(held).map_err(|_| damaged("its storage is too large"))?;
        let window = self.layout.window(held).map_err(|what| damaged(&what))?;
        let start = self.storage.start + (window.start * size) as u64;
        let bytes = self
            .source
            .read(start, window.len() * size)
            .map_err(|error| Problem::reading(&format!("tensor {name}"), error))?;
        let data = self.layout.gather(&bytes, self.dtype, self.order);
        Tensor::new(self.layout.shape.clone(), data)
            .ok_or_else(|| damaged("its data does not match its shape"))
    }
}

/// Limits the total size of the tensors in a file to a multiple of its length. Tensors beyond the
/// limit become unreadable, because they can only be views of the same elements.
pub(super) fn limit(entries: &mut Entries, file_len: u64) {
    let mut budget = file_len.saturating_mul(EXPANSION);
    for entry in entries.values_mut() {
        let Entry::Stored(stored) = entry else {
            continue;
        };
        let bytes = stored.layout.numel().unwrap_or(usize::MAX) as u64;
        match budget.checked_sub(bytes.saturating_mul(4)) {
            Some(left) => budget = left,
            None => {
                *entry = Entry::Unreadable(Unreadable {
                    shape: Some(stored.layout.shape.clone()),
                    what: format!(
                        "exceeds the limit: all tensors together would need more than {EXPANSION} times the file size"
                    ),
                    remedy: "too many tensors share a storage; clone() each one before saving",
                    integer: false,
                });
            }
        }
    }
}
