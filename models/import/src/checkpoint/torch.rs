//! PyTorch's zip archives: `torch.save` since 1.6, and TorchScript.
//!
//! An archive has one directory. In it `data.pkl` describes the saved object, `data/N` are the
//! storages that it refers to, byte for byte, and `byteorder` says how their elements are laid
//! down. Nothing is compressed that is read here. A storage is in memory only while its tensors
//! are copied out of it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
};

use zip::{CompressionMethod, ZipArchive, result::ZipError};

use super::{
    contents,
    dtype::{ByteOrder, Dtype},
    error::{Problem, printable},
    pickle::{Pickle, StoredTensor},
};
use loftup_onnx::Tensor;

/// What the tensors may take in memory, as a multiple of the file: half precision doubles, and
/// names that share a storage each get their own copy.
const EXPANSION: u64 = 4;
/// The descriptions in the largest checkpoints are a tenth of this.
const MAX_PICKLE: u64 = 64 << 20;

/// All floating-point tensors of the archive.
pub(super) fn read(file: File, file_len: u64) -> Result<BTreeMap<String, Tensor>, Problem> {
    let mut archive = Archive::open(file, file_len)?;
    let order = archive.byte_order()?;
    let data = archive.read("data.pkl", MAX_PICKLE)?;
    let pickle = Pickle::parse(&data)?;

    // A storage is read once for all its tensors.
    let mut by_storage: BTreeMap<(&str, Dtype), Vec<(String, &StoredTensor)>> = BTreeMap::new();
    for (name, tensor) in contents::tensors(&pickle, data.len())? {
        match tensor.dtype {
            Dtype::Integer => log::debug!("tensor {} holds integers: left out", printable(&name)),
            Dtype::Other(dtype) => {
                return Err(Problem::unsupported(
                    format!("tensor {name} is of type {dtype}, which is not read here"),
                    "convert the model to float32, float16 or bfloat16 and save it again",
                ));
            }
            dtype => by_storage
                .entry((tensor.storage.key, dtype))
                .or_default()
                .push((name, tensor)),
        }
    }

    let mut budget = file_len.saturating_mul(EXPANSION);
    let mut tensors = BTreeMap::new();
    for ((key, dtype), group) in by_storage {
        let storage = archive.storage(key)?;
        for (name, stored) in group {
            let damaged = |what: String| Problem::damaged(format!("tensor {name}: {what}"));
            let unit = if stored.storage.dtype.is_some() {
                dtype.size().unwrap_or(1)
            } else {
                1
            };
            if stored
                .storage
                .len
                .checked_mul(unit)
                .is_none_or(|bytes| bytes > storage.len())
            {
                return Err(damaged(format!(
                    "its storage {key} should have {} elements and has {}",
                    stored.storage.len,
                    storage.len() / unit
                )));
            }
            let held = storage.len() / dtype.size().unwrap_or(1);
            if let Some(numel) = stored.layout.numel().filter(|numel| *numel > held) {
                return Err(Problem::unsupported(
                    format!("tensor {name} has {numel} elements and its storage only {held}"),
                    "it was saved expanded: save its .contiguous() copy",
                ));
            }
            let data = stored
                .layout
                .gather(&storage, dtype, order)
                .map_err(damaged)?;
            budget = budget
                .checked_sub(size_of_val(&data[..]) as u64)
                .ok_or_else(|| {
                    Problem::unsupported(
                        format!(
                            "its tensors would take more than {EXPANSION} times the file's size"
                        ),
                        "they share their storages too often: clone() each before saving",
                    )
                })?;
            let tensor = Tensor::new(stored.layout.shape.clone(), data)
                .ok_or_else(|| damaged("its size overflows".into()))?;
            tensors.insert(name, tensor);
        }
    }
    Ok(tensors)
}

struct Archive {
    zip: ZipArchive<BufReader<File>>,
    /// The one directory, with its slash.
    root: String,
    /// How much may still be read: entries that overlap do not make the file larger.
    budget: u64,
}

impl Archive {
    fn open(file: File, file_len: u64) -> Result<Self, Problem> {
        // Nothing ever precedes the first entry; guessing whether something does goes wrong.
        let config = zip::read::Config {
            archive_offset: zip::read::ArchiveOffset::Known(0),
        };
        let zip = ZipArchive::with_config(config, BufReader::new(file))
            .map_err(|error| failed("the zip archive's directory", error))?;
        let root = root(&zip)?;
        Ok(Self {
            zip,
            root,
            budget: file_len,
        })
    }

    fn byte_order(&mut self) -> Result<ByteOrder, Problem> {
        if self
            .zip
            .index_for_name(&format!("{}byteorder", self.root))
            .is_none()
        {
            // Before PyTorch 2.1: little in all but exotic cases.
            return Ok(ByteOrder::Little);
        }
        match self.read("byteorder", 16)?.as_slice() {
            b"little" => Ok(ByteOrder::Little),
            b"big" => Ok(ByteOrder::Big),
            other => {
                let other = printable(&String::from_utf8_lossy(other));
                Err(Problem::damaged(format!(
                    "byte order {other:?} is neither little nor big"
                )))
            }
        }
    }

    fn storage(&mut self, key: &str) -> Result<Vec<u8>, Problem> {
        self.read(&format!("data/{key}"), u64::MAX)
    }

    /// A whole entry, its checksum verified.
    fn read(&mut self, name: &str, limit: u64) -> Result<Vec<u8>, Problem> {
        let full = format!("{}{name}", self.root);
        let shown = format!("entry {}", printable(&full));
        let mut entry = self
            .zip
            .by_name(&full)
            .map_err(|error| failed(&shown, error))?;
        if entry.compression() != CompressionMethod::Stored {
            return Err(Problem::unsupported(
                format!("{shown} of the archive is compressed, which torch.save never does"),
                "load the checkpoint in PyTorch and torch.save it again",
            ));
        }
        let size = entry.size();
        if size > limit {
            return Err(Problem::damaged(format!(
                "{shown} has {size} bytes, at most {limit} make sense"
            )));
        }
        self.budget = self.budget.checked_sub(size).ok_or_else(|| {
            Problem::damaged(format!(
                "{shown}: the entries together are larger than the file"
            ))
        })?;
        let mut bytes = Vec::new();
        let reserved = usize::try_from(size)
            .ok()
            .map(|size| bytes.try_reserve_exact(size).is_ok());
        if reserved != Some(true) {
            return Err(Problem::Io(std::io::ErrorKind::OutOfMemory.into()));
        }
        // The checksum is compared at the end of the entry, so it must be read to there.
        entry
            .read_to_end(&mut bytes)
            .map_err(|error| Problem::reading(&shown, error))?;
        if bytes.len() as u64 != size {
            return Err(Problem::damaged(format!(
                "{shown} has {} of {size} bytes",
                bytes.len()
            )));
        }
        Ok(bytes)
    }
}

/// The directory that holds `data.pkl`, with its slash.
fn root(zip: &ZipArchive<BufReader<File>>) -> Result<String, Problem> {
    let mut names = Vec::new();
    for name in zip.file_names() {
        names.push(name.map_err(|error| failed("the zip archive's directory", error))?);
    }
    let found = names.iter().find_map(|name| {
        let root = name.strip_suffix("data.pkl")?;
        (root.ends_with('/') && root.matches('/').count() == 1).then(|| root.to_string())
    });
    found.ok_or_else(|| {
        let first = names.first().map_or("nothing", |name| &**name);
        Problem::UnknownFormat(if names.iter().any(|name| name.ends_with(".npy")) {
            "a NumPy .npz archive".into()
        } else {
            format!(
                "a zip archive without a data.pkl (it begins with {})",
                printable(first)
            )
        })
    })
}

fn failed(what: &str, error: ZipError) -> Problem {
    match error {
        ZipError::Io(error) => Problem::reading(what, error),
        ZipError::FileNotFound => Problem::damaged(format!("{what} is not in the archive")),
        other => Problem::damaged(format!("{what}: {}", printable(&other.to_string()))),
    }
}
