//! Finds the files of a checkpoint: one, or shards with or without an index.
//!
//! transformers writes large models as `model-00001-of-00003.safetensors` and so on, together with
//! `model.safetensors.index.json`, which maps each tensor to its shard.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::error::{CheckpointError, Problem, printable};

/// Maximum size of an index; the largest models need a few MiB.
const MAX_INDEX: u64 = 64 << 20;
/// Maximum number of shards; the largest models have a few hundred.
const MAX_SHARDS: usize = 10_000;
/// File names to look for in a directory, in order of preference: those used by transformers,
/// open_clip, timm and diffusers.
const IN_DIRECTORY: [&str; 8] = [
    "model.safetensors.index.json",
    "model.safetensors",
    "open_clip_model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
    "consolidated.00.pth",
];
/// Extensions of checkpoint files.
const ENDINGS: [&str; 5] = [".safetensors", ".bin", ".pth", ".pt", ".ckpt"];

/// The files of a checkpoint.
#[derive(Debug)]
pub(super) struct Parts {
    pub files: Vec<PathBuf>,
    /// Shard name of each tensor, if there is an index.
    pub index: Option<BTreeMap<String, String>>,
}

/// Finds all files of the checkpoint at `path`, which is a file, a shard, an index, or a directory.
pub(super) fn locate(path: &Path) -> Result<Parts, CheckpointError> {
    if path.is_dir() {
        let inside = in_directory(path).map_err(|problem| problem.at(path))?;
        log::info!("{}: reading {}", path.display(), inside.display());
        return by_name(&inside);
    }
    by_name(path)
}

fn by_name(path: &Path) -> Result<Parts, CheckpointError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.ends_with(".json")
        && let Some(map) = read_index(path).map_err(|problem| problem.at(path))?
    {
        return by_index(path, map).map_err(|problem| problem.at(path));
    }
    let Some(shard) = Shard::parse(&name) else {
        return Ok(Parts {
            files: vec![path.into()],
            index: None,
        });
    };
    let index = path.with_file_name(shard.index());
    if index.is_file()
        && let Some(map) = read_index(&index).map_err(|problem| problem.at(&index))?
        && map.values().any(|shard| *shard == name)
    {
        return by_index(&index, map).map_err(|problem| problem.at(&index));
    }
    by_number(path, &shard).map_err(|problem| problem.at(path))
}

/// The shard name of each tensor, or `None` if the file is not an index.
fn read_index(path: &Path) -> Result<Option<BTreeMap<String, String>>, Problem> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_INDEX + 1).read_to_end(&mut bytes))
        .map_err(Problem::Io)?;
    if bytes.len() as u64 > MAX_INDEX {
        return Err(Problem::unsupported(
            format!("it is larger than {} MiB", MAX_INDEX >> 20),
            "use the checkpoint itself, or the index of its shards",
        ));
    }
    let index = serde_json::from_slice(&bytes);
    Ok(index.ok().map(|Index { weight_map }| weight_map))
}

/// The shards listed in an index.
fn by_index(path: &Path, map: BTreeMap<String, String>) -> Result<Parts, Problem> {
    let names: BTreeSet<&String> = map.values().collect();
    if let Some(name) = names.iter().find(|name| !is_plain(name)) {
        return Err(Problem::unsupported(
            format!(
                "it lists the shard {:?}, which is not a file in the same directory",
                printable(name)
            ),
            "put all shards in the directory of the index, and list them by plain file name",
        ));
    }
    if names.is_empty() || names.len() > MAX_SHARDS {
        return Err(Problem::damaged(format!("it lists {} shards", names.len())));
    }
    let files: Vec<PathBuf> = names.iter().map(|name| path.with_file_name(name)).collect();
    if let Some(missing) = files.iter().find(|file| !file.is_file()) {
        return Err(Problem::unsupported(
            format!(
                "its shard {} is missing from its directory",
                missing.file_name().unwrap_or_default().to_string_lossy()
            ),
            format!("download all {} shards into one directory", files.len()),
        ));
    }
    Ok(Parts {
        files,
        index: Some(map),
    })
}

/// Finds all shards by number if there is no index.
fn by_number(path: &Path, shard: &Shard) -> Result<Parts, Problem> {
    let files: Vec<PathBuf> = (1..=shard.count)
        .map(|number| path.with_file_name(shard.name(number)))
        .collect();
    let missing: Vec<&PathBuf> = files.iter().filter(|file| !file.exists()).collect();
    let Some(first) = missing.first() else {
        return Ok(Parts { files, index: None });
    };
    Err(Problem::unsupported(
        format!(
            "it is shard {} of {}, and {} of the others are missing, such as {}",
            shard.number,
            shard.count,
            missing.len(),
            first.file_name().unwrap_or_default().to_string_lossy()
        ),
        format!(
            "download all shards and {} into one directory, and use any of them",
            shard.index()
        ),
    ))
}

/// Finds the checkpoint in a directory.
fn in_directory(path: &Path) -> Result<PathBuf, Problem> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(Problem::Io)? {
        let name = entry.map_err(Problem::Io)?.file_name();
        names.extend(name.to_str().map(String::from));
    }
    names.sort_unstable();
    let has = |name: &str| names.iter().any(|n| n == name);
    if let Some(name) = IN_DIRECTORY.iter().find(|name| has(name)) {
        return Ok(path.join(name));
    }
    if let Some(name) = names.iter().find(|name| name.ends_with(".distcp")) {
        return Err(Problem::UnknownFormat(format!(
            "a directory with a distributed checkpoint ({name} and others; convert it to one file with python -m torch.distributed.checkpoint.format_utils dcp_to_torch DIRECTORY FILE)"
        )));
    }
    if has("saved_model.pb") || names.iter().any(|n| n.ends_with(".data-00000-of-00001")) {
        return Err(Problem::UnknownFormat(
            "a directory with a TensorFlow model (use the PyTorch or safetensors file of the same model)".into(),
        ));
    }
    // The shards of one checkpoint count as one, represented by the first.
    let found: Vec<&String> = names
        .iter()
        .filter(|name| ENDINGS.iter().any(|ending| name.ends_with(ending)))
        .filter(|name| Shard::parse(name).is_none_or(|shard| shard.number == 1))
        .collect();
    match found[..] {
        [] => Err(Problem::UnknownFormat(
            "a directory without a checkpoint".into(),
        )),
        [name] => Ok(path.join(name)),
        _ => {
            let shown: Vec<String> = found.iter().take(6).map(|name| printable(name)).collect();
            Err(Problem::UnknownFormat(format!(
                "a directory with {} checkpoints (use one of them: {}{})",
                found.len(),
                shown.join(", "),
                if found.len() > shown.len() {
                    ", ..."
                } else {
                    ""
                }
            )))
        }
    }
}

/// Whether a name refers to a file in the same directory.
fn is_plain(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= 255
        && !name.contains(['/', '\\', ':'])
        && !name.chars().any(char::is_control)
}

/// A name such as `model-00001-of-00003.safetensors`.
#[derive(Debug, PartialEq)]
struct Shard<'a> {
    /// `model`
    stem: &'a str,
    number: usize,
    count: usize,
    /// Number of digits, and the shard count as text.
    digits: usize,
    of: &'a str,
    /// `.safetensors`
    ending: &'a str,
}

impl<'a> Shard<'a> {
    fn parse(name: &'a str) -> Option<Self> {
        let ending = ENDINGS.iter().find(|ending| name.ends_with(**ending))?;
        let (numbered, of) = name.strip_suffix(ending)?.rsplit_once("-of-")?;
        let (stem, digits) = numbered.rsplit_once('-')?;
        let number = |digits: &str| -> Option<usize> {
            let all = digits.bytes().all(|b| b.is_ascii_digit());
            all.then(|| digits.parse().ok()).flatten()
        };
        let shard = Self {
            stem,
            number: number(digits)?,
            count: number(of)?,
            digits: digits.len(),
            of,
            ending: &name[name.len() - ending.len()..],
        };
        ((1..=shard.count).contains(&shard.number) && shard.count <= MAX_SHARDS).then_some(shard)
    }

    fn name(&self, number: usize) -> String {
        let Self {
            stem,
            digits,
            of,
            ending,
            ..
        } = self;
        format!("{stem}-{number:0digits$}-of-{of}{ending}")
    }

    /// Name of the index in the same directory.
    fn index(&self) -> String {
        format!("{}{}.index.json", self.stem, self.ending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_known_by_their_names() {
        let shard = Shard::parse("model-00002-of-00003.safetensors").unwrap();
        assert_eq!((shard.number, shard.count), (2, 3));
        assert_eq!(shard.name(1), "model-00001-of-00003.safetensors");
        assert_eq!(shard.index(), "model.safetensors.index.json");
        let shard = Shard::parse("pytorch_model-1-of-2.bin").unwrap();
        assert_eq!(shard.name(2), "pytorch_model-2-of-2.bin");
        for name in [
            "model.safetensors",
            "model-of-3.bin",
            "model-00000-of-00003.bin",
            "model-00004-of-00003.bin",
            "model-1-of-99999999999999999999.bin",
            "model-1-of-10001.bin",
            "model-+1-of-3.bin",
            "1-of-3.bin",
            "model-00001-of-00003.gguf",
            "model-1-of-.bin",
        ] {
            assert_eq!(Shard::parse(name), None, "{name}");
        }
    }

    #[test]
    fn only_names_in_the_same_directory_are_plain() {
        assert!(is_plain("model-00001-of-00003.safetensors"));
        for name in [
            "",
            ".",
            "..",
            "../a",
            "/etc/passwd",
            "a/b",
            "a\\b",
            "c:a",
            "a\0",
            "a\n",
        ] {
            assert!(!is_plain(name), "{name:?}");
        }
    }
}
