//! PyTorch's zip archives: `torch.save` since 1.6, and TorchScript.
//!
//! An archive has one directory. In it `data.pkl` describes the saved object, `data/N` are the
//! storages that it refers to, byte for byte, and `byteorder` says how their elements are laid
//! down. Nothing is compressed that is read here. The checksums of all storages that hold numbers
//! are compared when the archive is opened; their elements are read when they are asked for.

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

/// The descriptions in the largest checkpoints are a tenth of this.
const MAX_PICKLE: u64 = 64 << 20;

/// All tensors of the archive.
pub(super) fn read(
    file: &mut File,
    file_len: u64,
    source: &Arc<Source>,
) -> Result<Entries, Problem> {
    let mut archive = Archive::open(file, file_len)?;
    let order = archive.byte_order()?;
    let data = archive.read("data.pkl", MAX_PICKLE)?;
    let pickle = Pickle::parse(&data)?;
    // A storage is checked once for all its tensors.
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
    /// The one directory, with its slash; empty where the entries are in none.
    root: String,
    /// How much may still be read: entries that overlap do not make the file larger.
    budget: u64,
}

impl<'f> Archive<'f> {
    fn open(file: &'f mut File, file_len: u64) -> Result<Self, Problem> {
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

    /// Where a storage is in the file, its checksum verified.
    fn storage(&mut self, key: &str) -> Result<Extent, Problem> {
        self.copy(&format!("data/{key}"), u64::MAX, &mut std::io::sink())
    }

    /// A whole entry, its checksum verified.
    fn read(&mut self, name: &str, limit: u64) -> Result<Vec<u8>, Problem> {
        let mut bytes = Vec::new();
        self.copy(name, limit, &mut bytes)?;
        Ok(bytes)
    }

    /// Copies a whole entry, and says where in the file it is.
    fn copy(&mut self, name: &str, limit: u64, out: &mut impl Write) -> Result<Extent, Problem> {
        let full = format!("{}{name}", self.root);
        let shown = format!("entry {}", printable(&full));
        let index = self
            .zip
            .index_for_name(&full)
            .ok_or_else(|| failed(&shown, ZipError::FileNotFound))?;
        // A compressed or encrypted entry can be opened only as it is.
        let raw = self
            .zip
            .by_index_raw(index)
            .map_err(|error| failed(&shown, error))?;
        if raw.encrypted() {
            return Err(Problem::unsupported(
                format!("{shown} of the archive is encrypted"),
                "unpack it, and pack it again without a password or compression (zip -0 -r)",
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
                "{shown} has {size} bytes, at most {limit} make sense"
            )));
        }
        self.budget = self.budget.checked_sub(size).ok_or_else(|| {
            Problem::damaged(format!(
                "{shown}: the entries together are larger than the file"
            ))
        })?;
        // The checksum is compared at the end of the entry, so it must be read to there.
        let copied =
            std::io::copy(&mut entry, out).map_err(|error| Problem::reading(&shown, error))?;
        let start = entry
            .data_start()
            .filter(|_| copied == size)
            .ok_or_else(|| Problem::damaged(format!("{shown} has {copied} of {size} bytes")))?;
        Ok(Extent { start, len: size })
    }
}

/// The directory that holds `data.pkl`, with its slash. `torch.save` puts all entries into one
/// directory; archives that were packed again have none, or one more around it.
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
    // Where there are several, the one that PyTorch would take.
    if let Some(root) = roots.iter().find(|root| root.matches('/').count() == 1) {
        return Ok((*root).into());
    }
    roots.sort_unstable();
    match roots[..] {
        [] => Err(Problem::UnknownFormat(archive_of(&names))),
        [root] => Ok(root.into()),
        [one, other, ..] => Err(Problem::unsupported(
            format!(
                "it holds several checkpoints, {}data.pkl and {}data.pkl",
                printable(one),
                printable(other)
            ),
            "unpack it, and pack the directory of one alone (zip -0 -r)",
        )),
    }
}

/// For a message: what kind of zip archive has these names.
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
        format!("a zip archive that holds {inner} (unpack it, and give that file)")
    } else {
        let first = names.first().map_or("nothing", |name| name.as_ref());
        format!(
            "a zip archive without a data.pkl (it begins with {})",
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
