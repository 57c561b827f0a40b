//! PyTorch's zip archives: `torch.save` since 1.6, and TorchScript.
//!
//! An archive has one directory. In it, `data.pkl` describes the saved object, `data/N` are the raw
//! bytes of the storages it refers to, and `byteorder` gives their byte order. All entries are
//! stored uncompressed. The checksums of all storages with floating-point numbers are verified when
//! the archive is opened; elements are read on demand.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Write},
    sync::Arc,
};

use zip::{CompressionMethod, ZipArchive, result::ZipError};

use super::{
    contents,
    dtype::ByteOrder,
    entry::{Entries, Extent, Source},
    error::{Problem, printable},
    pickle::Pickle,
};

/// Maximum size of `data.pkl`; the largest checkpoints need a tenth of this.
const MAX_PICKLE: u64 = 64 << 20;

/// All tensors in the archive.
pub(super) fn read(
    file: &mut File,
    file_len: u64,
    source: &Arc<Source>,
) -> Result<Entries, Problem> {
    let mut archive = Archive::open(file, file_len)?;
    let order = archive.byte_order()?;
    let data = archive.read("data.pkl", MAX_PICKLE)?;
    let pickle = Pickle::parse(&data)?;
    // Each storage is verified once for all of its tensors.
    let mut storages: BTreeMap<&str, Extent> = BTreeMap::new();
    contents::entries(&pickle, source, order, |key| {
        if let Some(extent) = storages.get(key) {
            return Ok(*extent);
        }
        let extent = archive.storage(key)?;
        storages.insert(key, extent);
        Ok(extent)
    })
}

struct Archive<'f> {
    zip: ZipArchive<BufReader<&'f mut File>>,
    /// The directory with a trailing slash; empty if the entries are at the top level.
    root: String,
    /// Remaining bytes to read: overlapping entries do not make the file larger.
    budget: u64,
}

impl<'f> Archive<'f> {
    fn open(file: &'f mut File, file_len: u64) -> Result<Self, Problem> {
        // No data precedes the first entry; detecting such data automatically is unreliable.
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
            // Before PyTorch 2.1: almost always little-endian.
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

    /// The location of a storage in the file, with its checksum verified.
    fn storage(&mut self, key: &str) -> Result<Extent, Problem> {
        self.copy(&format!("data/{key}"), u64::MAX, &mut std::io::sink())
    }

    /// The contents of an entry, with its checksum verified.
    fn read(&mut self, name: &str, limit: u64) -> Result<Vec<u8>, Problem> {
        let mut bytes = Vec::new();
        self.copy(name, limit, &mut bytes)?;
        Ok(bytes)
    }

    /// Copies an entry, and returns its location in the file.
    fn copy(&mut self, name: &str, limit: u64, out: &mut impl Write) -> Result<Extent, Problem> {
        let full = format!("{}{name}", self.root);
        let shown = format!("entry {}", printable(&full));
        let index = self
            .zip
            .index_for_name(&full)
            .ok_or_else(|| failed(&shown, ZipError::FileNotFound))?;
        // A compressed or encrypted entry can only be opened raw.
        let raw = self
            .zip
            .by_index_raw(index)
            .map_err(|error| failed(&shown, error))?;
        if raw.encrypted() {
            return Err(Problem::unsupported(
                format!("{shown} of the archive is encrypted"),
                "unpack it, and zip it again without a password or compression (zip -0 -r)",
            ));
        }
        if raw.compression() != CompressionMethod::Stored {
            return Err(Problem::unsupported(
                format!("{shown} of the archive is compressed, which torch.save never does"),
                "load it in PyTorch and save it again: torch.save(torch.load(FILE, map_location=\"cpu\"), NEW_FILE)",
            ));
        }
        drop(raw);
        let mut entry = self
            .zip
            .by_index(index)
            .map_err(|error| failed(&shown, error))?;
        let size = entry.size();
        if size > limit {
            return Err(Problem::damaged(format!(
                "{shown} has {size} bytes, over the limit of {limit}"
            )));
        }
        self.budget = self.budget.checked_sub(size).ok_or_else(|| {
            Problem::damaged(format!(
                "{shown}: the entries together are larger than the file"
            ))
        })?;
        // The checksum is verified only at the end of the entry.
        let copied =
            std::io::copy(&mut entry, out).map_err(|error| Problem::reading(&shown, error))?;
        let start = entry
            .data_start()
            .filter(|_| copied == size)
            .ok_or_else(|| Problem::damaged(format!("{shown} has {copied} of {size} bytes")))?;
        Ok(Extent { start, len: size })
    }
}

/// The directory with `data.pkl`, with a trailing slash. `torch.save` puts all entries in one
/// directory; repacked archives have none, or an additional one.
fn root(zip: &ZipArchive<BufReader<&mut File>>) -> Result<String, Problem> {
    let mut names = Vec::new();
    for name in zip.file_names() {
        names.push(name.map_err(|error| failed("the zip archive's directory", error))?);
    }
    let mut roots: Vec<&str> = names
        .iter()
        .filter_map(|name| name.strip_suffix("data.pkl"))
        .filter(|root| root.is_empty() || root.ends_with('/'))
        .collect();
    // If there are several, the one that PyTorch would use.
    if let Some(root) = roots.iter().find(|root| root.matches('/').count() == 1) {
        return Ok((*root).into());
    }
    roots.sort_unstable();
    match roots[..] {
        [] => Err(Problem::UnknownFormat(archive_of(&names))),
        [root] => Ok(root.into()),
        [one, other, ..] => Err(Problem::unsupported(
            format!(
                "it contains several checkpoints, {}data.pkl and {}data.pkl",
                printable(one),
                printable(other)
            ),
            "unpack it, and zip only one of the directories (zip -0 -r)",
        )),
    }
}

/// Describes a zip archive with these names, for an error message.
fn archive_of(names: &[impl AsRef<str>]) -> String {
    let ending = |endings: &[&str]| {
        names
            .iter()
            .map(AsRef::as_ref)
            .find(|name| endings.iter().any(|ending| name.ends_with(ending)))
            .map(printable)
    };
    if ending(&[".npy"]).is_some() {
        "a NumPy .npz archive (in Python: torch.save({k: torch.from_numpy(v) for k, v in numpy.load(FILE).items()}, NEW_FILE))".into()
    } else if ending(&["/archive_format", "serialized_exported_program.json"]).is_some() {
        "an exported program of torch.export (save the state_dict() of the model itself)".into()
    } else if ending(&["model.weights.h5"]).is_some() {
        "a Keras model (use the PyTorch or safetensors file of the same model)".into()
    } else if let Some(inner) = ending(&[".pth", ".pt", ".bin", ".ckpt", ".safetensors"]) {
        format!("a zip archive with {inner} (unpack it, and use that file)")
    } else {
        let first = names.first().map_or("nothing", |name| name.as_ref());
        format!(
            "a zip archive without a data.pkl (its first entry is {})",
            printable(first)
        )
    }
}

fn failed(what: &str, error: ZipError) -> Problem {
    match error {
        ZipError::Io(error) => Problem::reading(what, error),
        ZipError::FileNotFound => Problem::damaged(format!("{what} is not in the archive")),
        other => Problem::damaged(format!("{what}: {}", printable(&other.to_string()))),
    }
}
