//! Reads weights from checkpoint files without executing anything in them.
//!
//! Three formats are detected by content: PyTorch's zip archives (`torch.save` since 1.6 and
//! TorchScript), the `torch.save` format before 1.6, and safetensors; each as one file or as
//! shards. An untrusted file may be rejected or contain wrong numbers, but it cannot run code, and
//! the memory it uses is bounded by its size: the tensors take at most four times as much, and
//! their description, which is limited to 64 MiB (100 MB in safetensors), a small multiple of
//! itself.
//!
//! Files are checked when they are opened; tensors are read on demand.

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

/// The tensors of a checkpoint, by name. Floating-point numbers are converted to 32 bits.
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
    /// SHA-256 of its bytes in lowercase hexadecimal.
    pub sha256: String,
}

impl Checkpoint {
    /// Opens a checkpoint in any supported format: a file, any of several shards, their index
    /// (`model.safetensors.index.json`), or the directory that contains it.
    ///
    /// Tensors of 16-, 32- and 64-bit floats can be read under their dotted names. From a training
    /// checkpoint these are the tensors of the model (under `state_dict`, `model_state_dict`,
    /// `model`, `module`, `teacher` and the like; if there are several, the names start with the
    /// key), and from a TorchScript archive its parameters and buffers. Everything else is skipped.
    /// Name components added by wrappers (`module`, `_orig_mod`, `_fsdp_wrapped_module`,
    /// `_checkpoint_wrapped_module`) are removed.
    ///
    /// Tensors of other types, sparse tensors, and expanded tensors, which have more elements than
    /// their storage, are an error only on access.
    ///
    /// # Errors
    /// A file cannot be read, is damaged, is not a checkpoint, or names a class or function that is
    /// not part of a tensor; a shard is missing; or two tensors have the same name.
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
                    log::debug!(
                        "{}: the index does not list {tensor} in this file",
                        file.display()
                    );
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
                "its index lists tensor {} in {shard}, which does not contain it",
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
            let what = "it contains no floating-point tensors";
            return Err(Problem::unsupported(what, "save the model's state_dict").at(path));
        }
        Ok(opened)
    }

    /// Tensors from another source; `path` is used in error messages.
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

    /// The files that contain the tensors: one, or all shards. Empty if the tensors did not come
    /// from a file.
    pub fn files(&self) -> &[CheckpointFile] {
        &self.files
    }

    /// SHA-256 in lowercase hexadecimal, for provenance. For one file it is the hash of its bytes;
    /// for several, the hash of the `sha256sum` output for them (hash, two spaces, name), sorted by
    /// name. `None` if the tensors did not come from a file.
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

    /// All names, sorted, except those of integer and boolean tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let named = self.entries.iter().filter(|(_, entry)| match entry {
            Entry::Unreadable(unreadable) => !unreadable.integer,
            _ => true,
        });
        named.map(|(name, _)| name.as_str())
    }

    /// The [`names`](Self::names) whose tensors cannot be read, and the reasons.
    pub fn unreadable(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().filter_map(|(name, entry)| match entry {
            Entry::Unreadable(it) if !it.integer => Some((name.as_str(), it.what.as_str())),
            _ => None,
        })
    }

    /// Whether a tensor of that name exists, readable or not.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// If the checkpoint contains several models, limits the search for one to names that start
    /// with `prefix` (whole dotted components; the last dot is optional). Names are unchanged.
    ///
    /// # Errors
    /// If no name starts with the prefix.
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
            format!("no tensor name starts with the prefix {prefix}"),
            format!("its names start with {}", listed(heads)),
        )
        .at(&self.path))
    }

    /// The prefixes before `marker` in names that end with it, within the selected prefix: one for
    /// each model that has such a tensor.
    pub(crate) fn prefixes(&self, marker: &str) -> BTreeSet<&str> {
        self.all_prefixes(marker)
            .filter(|prefix| prefix.starts_with(&self.prefix))
            .collect()
    }

    /// Same as [`Checkpoint::prefixes`], ignoring the selected prefix.
    pub(crate) fn all_prefixes(&self, marker: &str) -> impl Iterator<Item = &str> {
        self.names()
            .filter_map(move |name| name.strip_suffix(marker))
            .filter(|prefix| prefix.is_empty() || prefix.ends_with('.'))
    }

    /// The selected prefix with its last dot; empty if none is selected.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Renames the tensors; those renamed to `None` are removed.
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
    /// If it does not exist, or its shape is unknown.
    pub fn shape(&self, name: &str) -> Result<&[usize], CheckpointError> {
        let entry = self.find(name)?;
        match (entry.shape(), entry) {
            (Some(shape), _) => Ok(shape),
            (None, Entry::Unreadable(unreadable)) => Err(self.unread(name, unreadable)),
            (None, _) => Err(self.missing(name)),
        }
    }

    /// The tensor of that name, which must have that shape and only finite values.
    ///
    /// # Errors
    /// If it does not exist, or cannot be read.
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

/// SHA-256 of a file, read in blocks.
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
