//! Reading weights out of checkpoint files, without executing anything in them.
//!
//! Two formats are read, told apart by their content: PyTorch's zip archives (`torch.save` since
//! 1.6 and TorchScript) and safetensors. A file from an untrusted source may be refused or give
//! wrong numbers; it cannot run code, and what it makes us allocate is bounded by its own size:
//! the tensors take at most four times as much, and the description of them, which is limited
//! to 64 MiB, a small multiple of itself.

mod closest;
mod contents;
mod dtype;
mod error;
mod pickle;
mod safetensors;
mod sniff;
mod strided;
mod torch;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

pub use error::CheckpointError;
use error::Problem;

use crate::Tensor;

/// What wrappers of a module put before all of its names: data parallelism and compilation.
const MODULE_PREFIXES: [&str; 2] = ["module.", "_orig_mod."];

/// All floating-point tensors of a checkpoint file, by name, widened to 32 bit.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
    sha256: Option<String>,
}

impl Checkpoint {
    /// Reads the file, whatever of the known formats it is in.
    ///
    /// Tensors of 16, 32 and 64 bit floats are taken, under their dotted names. Of a training
    /// checkpoint they are those of the model (`state_dict`, `model_state_dict`, `model`,
    /// `module` or `teacher`), of a TorchScript archive its parameters and buffers. Integer
    /// tensors and everything that is not a tensor are left out. A prefix `module.` or
    /// `_orig_mod.` that all names have is taken off.
    ///
    /// A tensor may be any strided view of its storage, but not have more elements than it, as
    /// `expand` makes them.
    ///
    /// # Errors
    /// Where the file cannot be read, is damaged, is no checkpoint, names a class or function
    /// that is not part of a tensor, or has tensors of a type that is not read.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let (tensors, sha256) = read(path).map_err(|problem| problem.at(path))?;
        log::debug!("{}: {} tensors", path.display(), tensors.len());
        Ok(Self {
            path: path.into(),
            tensors: unwrapped(tensors),
            sha256: Some(sha256),
        })
    }

    /// Tensors that come from elsewhere; `path` is what errors will name.
    pub fn from_tensors(path: impl Into<PathBuf>, tensors: BTreeMap<String, Tensor>) -> Self {
        Self {
            path: path.into(),
            tensors,
            sha256: None,
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SHA-256 of the file's bytes in lower-case hexadecimal, for the record of where weights
    /// came from. `None` where they did not come from a file.
    pub fn sha256(&self) -> Option<&str> {
        self.sha256.as_deref()
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The same tensors under other names; those renamed to `None` are left out.
    pub fn renamed(self, mut rename: impl FnMut(&str) -> Option<String>) -> Self {
        let tensors = self
            .tensors
            .into_iter()
            .filter_map(|(k, v)| rename(&k).map(|k| (k, v)))
            .collect();
        Self {
            path: self.path,
            tensors,
            sha256: self.sha256,
        }
    }

    /// Shape of the tensor of that name.
    pub fn shape(&self, name: &str) -> Result<&[usize], CheckpointError> {
        Ok(self.find(name)?.shape())
    }

    /// The tensor of that name, which must have that shape and hold finite numbers.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, CheckpointError> {
        let tensor = self.find(name)?;
        if tensor.shape() != shape {
            return Err(CheckpointError::Misshapen {
                path: self.path.clone(),
                name: name.into(),
                found: tensor.shape().to_vec(),
                expected: shape.to_vec(),
            });
        }
        if let Some(index) = tensor.data().iter().position(|x| !x.is_finite()) {
            return Err(CheckpointError::NotFinite {
                path: self.path.clone(),
                name: name.into(),
                index,
                value: tensor.data()[index],
            });
        }
        Ok(tensor.clone())
    }

    fn find(&self, name: &str) -> Result<&Tensor, CheckpointError> {
        self.tensors
            .get(name)
            .ok_or_else(|| CheckpointError::Missing {
                path: self.path.clone(),
                name: name.into(),
                closest: closest::closest(name, self.names()).map(Into::into),
            })
    }
}

fn read(path: &Path) -> Result<(BTreeMap<String, Tensor>, String), Problem> {
    let mut file = File::open(path).map_err(Problem::Io)?;
    let metadata = file.metadata().map_err(Problem::Io)?;
    if metadata.is_dir() {
        return Err(Problem::UnknownFormat("a directory".into()));
    }
    if !metadata.is_file() {
        return Err(Problem::UnknownFormat("a device or pipe".into()));
    }
    let len = metadata.len();
    let mut prefix = Vec::new();
    file.by_ref()
        .take(sniff::PREFIX as u64)
        .read_to_end(&mut prefix)
        .map_err(Problem::Io)?;
    let format = sniff::sniff(&prefix, len)?;
    let sha256 = digest(&mut file).map_err(Problem::Io)?;
    file.rewind().map_err(Problem::Io)?;
    let tensors = match format {
        sniff::Format::TorchZip => torch::read(file, len)?,
        sniff::Format::Safetensors => safetensors::read(file, len)?,
    };
    Ok((tensors, sha256))
}

/// SHA-256 of the whole file, in blocks.
pub(crate) fn digest(file: &mut File) -> std::io::Result<String> {
    file.rewind()?;
    let mut hash = Sha256::new();
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block) {
            Ok(0) => break,
            Ok(n) => hash.update(&block[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// Takes off what all names begin with because the module was wrapped when it was saved.
fn unwrapped(mut tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    while let Some(prefix) = MODULE_PREFIXES.iter().find(|prefix| {
        !tensors.is_empty()
            && tensors
                .keys()
                .all(|k| k.len() > prefix.len() && k.starts_with(**prefix))
    }) {
        tensors = tensors
            .into_iter()
            .map(|(k, v)| (k[prefix.len()..].to_string(), v))
            .collect();
    }
    tensors
}
