//! Reading weights out of checkpoint files, without executing anything in them.
//!
//! Three formats are read, told apart by their content: PyTorch's zip archives (`torch.save` since
//! 1.6 and TorchScript), what `torch.save` wrote before, and safetensors; each as one file or as
//! shards. A file from an untrusted source may be refused or give wrong numbers; it cannot run
//! code, and what it makes us allocate is bounded by its own size: the tensors take at most four
//! times as much, and the description of them, which is limited to 64 MiB (100 MB in
//! safetensors), a small multiple of itself.
//!
//! Files are checked when they are opened; tensors are read when they are asked for.

mod closest;
mod contents;
mod dtype;
mod entry;
mod error;
mod legacy;
mod pickle;
mod safetensors;
mod shards;
mod sniff;
mod strided;
mod torch;
mod wrappers;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{Read, Seek},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

pub(crate) use self::sniff::other_format;
pub use error::CheckpointError;
pub(crate) use wrappers::{listed, teacher_of};

use entry::{Entries, Entry};
use error::Problem;
use loftup_onnx::Tensor;

/// The tensors of a checkpoint, by name. Floating-point numbers are widened to 32 bit.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    path: PathBuf,
    entries: Entries,
    files: Vec<CheckpointFile>,
    prefix: String,
}

/// A file that a checkpoint was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointFile {
    /// The file.
    pub path: PathBuf,
    /// SHA-256 of its bytes in lower-case hexadecimal.
    pub sha256: String,
}

impl Checkpoint {
    /// Opens a checkpoint, whatever of the known formats it is in: a file, any shard of several,
    /// their index (`model.safetensors.index.json`), or the directory that holds it.
    ///
    /// Tensors of 16, 32 and 64 bit floats can be read, under their dotted names. Of a training
    /// checkpoint they are those of the model (under `state_dict`, `model_state_dict`, `model`,
    /// `module`, `teacher` and the like; where there are several, the names begin with the key),
    /// of a TorchScript archive its parameters and buffers. Everything that is not a tensor is
    /// left out. The parts that wrappers put into names (`module`, `_orig_mod`,
    /// `_fsdp_wrapped_module`, `_checkpoint_wrapped_module`) are taken off.
    ///
    /// Tensors of other types, sparse ones, and expanded ones, which have more elements than their
    /// storage, are an error only where they are asked for.
    ///
    /// # Errors
    /// Where a file cannot be read, is damaged, is no checkpoint, or names a class or function
    /// that is not part of a tensor; where a shard is missing; and where two tensors have the same
    /// name.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let parts = shards::locate(path)?;
        let mut all = Entries::new();
        let mut files = Vec::new();
        for file in parts.files {
            let (entries, sha256) = read(&file).map_err(|problem| problem.at(&file))?;
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            for (tensor, entry) in entries {
                if let Some(index) = &parts.index
                    && index.get(&tensor).is_none_or(|shard| *shard != name)
                {
                    log::debug!("{}: the index does not have {tensor} here", file.display());
                    continue;
                }
                if all.insert(tensor.clone(), entry).is_some() {
                    let what = format!("tensor {tensor} is in another shard as well");
                    return Err(Problem::damaged(what).at(&file));
                }
            }
            files.push(CheckpointFile { path: file, sha256 });
        }
        if let Some((tensor, shard)) = parts
            .index
            .iter()
            .flatten()
            .find(|(t, _)| !all.contains_key(*t))
        {
            let what = format!(
                "its index has tensor {} in {shard}, which does not hold it",
                error::printable(tensor)
            );
            return Err(Problem::damaged(what).at(path));
        }
        let entries = wrappers::unwrapped(all).map_err(|problem| problem.at(path))?;
        log::debug!("{}: {} tensors", path.display(), entries.len());
        let opened = Self {
            path: path.into(),
            entries,
            files,
            prefix: String::new(),
        };
        if opened.names().next().is_none() {
            let what = "it holds no floating-point tensors";
            return Err(Problem::unsupported(what, "save the model's state_dict").at(path));
        }
        Ok(opened)
    }

    /// Tensors that come from elsewhere; `path` is what errors will name.
    pub fn from_tensors(path: impl Into<PathBuf>, tensors: BTreeMap<String, Tensor>) -> Self {
        Self {
            path: path.into(),
            entries: tensors
                .into_iter()
                .map(|(name, tensor)| (name, Entry::Held(tensor)))
                .collect(),
            files: Vec::new(),
            prefix: String::new(),
        }
    }

    /// The file, index or directory that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that the tensors are in: one, or all shards. None where the tensors did not come
    /// from a file.
    pub fn files(&self) -> &[CheckpointFile] {
        &self.files
    }

    /// SHA-256 in lower-case hexadecimal, for the record of where weights came from. Of one file it
    /// is that of its bytes, of several that of the lines which `sha256sum` prints for them (hash,
    /// two spaces, name) in the order of their names. `None` where the tensors did not come from a
    /// file.
    pub fn sha256(&self) -> Option<String> {
        match &self.files[..] {
            [] => None,
            [file] => Some(file.sha256.clone()),
            files => {
                let mut hash = Sha256::new();
                for CheckpointFile { path, sha256 } in files {
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    hash.update(format!("{sha256}  {name}\n"));
                }
                Some(hexadecimal(hash))
            }
        }
    }

    /// All names, sorted, but those of tensors that hold integers or booleans.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let named = self.entries.iter().filter(|(_, entry)| match entry {
            Entry::Unreadable(unreadable) => !unreadable.integer,
            _ => true,
        });
        named.map(|(name, _)| name.as_str())
    }

    /// Those of the [`names`](Self::names) whose tensors cannot be read, and why.
    pub fn unreadable(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().filter_map(|(name, entry)| match entry {
            Entry::Unreadable(it) if !it.integer => Some((name.as_str(), it.what.as_str())),
            _ => None,
        })
    }

    /// Whether there is a tensor of that name, readable or not.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Where there are several models in it, limits the search for one to those whose names begin
    /// with `prefix` (whole dotted parts; the last dot may be left out). Names stay as they are.
    ///
    /// # Errors
    /// Where no name begins so.
    pub fn within(mut self, prefix: &str) -> Result<Self, CheckpointError> {
        let bare = wrappers::unwrap(&format!("{}.", prefix.trim_end_matches(['.', '*'])));
        let prefix = if bare == "." { "" } else { &bare };
        if self.names().any(|name| name.starts_with(prefix)) {
            self.prefix = prefix.into();
            return Ok(self);
        }
        let heads: BTreeSet<&str> = self
            .names()
            .filter_map(|name| Some(&name[..=name.find('.')?]))
            .collect();
        Err(Problem::unsupported(
            format!("no tensor begins with the prefix {prefix}"),
            format!("its names begin with {}", listed(heads)),
        )
        .at(&self.path))
    }

    /// What stands before `marker` in the names that end with it, within the prefix that was set:
    /// one for each model that has such a tensor.
    pub(crate) fn prefixes(&self, marker: &str) -> BTreeSet<&str> {
        self.all_prefixes(marker)
            .filter(|prefix| prefix.starts_with(&self.prefix))
            .collect()
    }

    /// The same, wherever they are.
    pub(crate) fn all_prefixes(&self, marker: &str) -> impl Iterator<Item = &str> {
        self.names()
            .filter_map(move |name| name.strip_suffix(marker))
            .filter(|prefix| prefix.is_empty() || prefix.ends_with('.'))
    }

    /// The prefix that the search is limited to, with its last dot; empty where it is not.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The same tensors under other names; those renamed to `None` are left out.
    pub fn renamed(mut self, mut rename: impl FnMut(&str) -> Option<String>) -> Self {
        self.entries = self
            .entries
            .into_iter()
            .filter_map(|(name, entry)| rename(&name).map(|name| (name, entry)))
            .collect();
        self
    }

    /// Shape of the tensor of that name.
    ///
    /// # Errors
    /// Where there is none, or none whose shape is known.
    pub fn shape(&self, name: &str) -> Result<&[usize], CheckpointError> {
        let entry = self.find(name)?;
        match (entry.shape(), entry) {
            (Some(shape), _) => Ok(shape),
            (None, Entry::Unreadable(unreadable)) => Err(self.unread(name, unreadable)),
            (None, _) => Err(self.missing(name)),
        }
    }

    /// The tensor of that name, which must have that shape and hold finite numbers.
    ///
    /// # Errors
    /// Where there is none, or it cannot be read.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, CheckpointError> {
        let entry = self.find(name)?;
        if let Entry::Unreadable(unreadable) = entry {
            return Err(self.unread(name, unreadable));
        }
        let found = entry.shape().unwrap_or_default();
        if found != shape {
            return Err(CheckpointError::Misshapen {
                path: self.path.clone(),
                name: name.into(),
                found: found.to_vec(),
                expected: shape.to_vec(),
            });
        }
        let tensor = match entry {
            Entry::Held(tensor) => tensor.clone(),
            Entry::Stored(stored) => stored.read(name)?,
            Entry::Unreadable(unreadable) => return Err(self.unread(name, unreadable)),
        };
        if let Some(index) = tensor.data().iter().position(|x| !x.is_finite()) {
            return Err(CheckpointError::NotFinite {
                path: self.path.clone(),
                name: name.into(),
                index,
                value: tensor.data()[index],
            });
        }
        Ok(tensor)
    }

    fn find(&self, name: &str) -> Result<&Entry, CheckpointError> {
        self.entries.get(name).ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &str) -> CheckpointError {
        CheckpointError::Missing {
            path: self.path.clone(),
            name: name.into(),
            closest: closest::closest(name, self.names()).map(Into::into),
        }
    }

    fn unread(&self, name: &str, unreadable: &entry::Unreadable) -> CheckpointError {
        let what = format!("tensor {name} {}", unreadable.what);
        Problem::unsupported(what, unreadable.remedy).at(&self.path)
    }
}

/// The tensors of one file, and its SHA-256.
fn read(path: &Path) -> Result<(Entries, String), Problem> {
    let mut file = File::open(path).map_err(Problem::Io)?;
    let metadata = file.metadata().map_err(Problem::Io)?;
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
    let source = entry::Source::new(path.into(), file.try_clone().map_err(Problem::Io)?);
    let mut entries = match format {
        sniff::Format::TorchZip => torch::read(&mut file, len, &source)?,
        sniff::Format::TorchLegacy => legacy::read(&mut file, len, &source)?,
        sniff::Format::Safetensors => safetensors::read(&mut file, len, &source)?,
    };
    entry::limit(&mut entries, len);
    Ok((entries, sha256))
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
    Ok(hexadecimal(hash))
}

fn hexadecimal(hash: Sha256) -> String {
    let bytes = hash.finalize();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
