//! Training checkpoints.
//!
//! A checkpoint is a safetensors file. The upsampler's weights have their original names, so that
//! `loftup convert --upsampler-weights` accepts a checkpoint. The names of tensors that only training needs
//! begin with `train.`, and scalars are in the header. Files are written atomically.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
    path::Path,
};

use loftup_onnx::Tensor;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use crate::{error::TrainError, optim::Counters};

/// Version of the header.
const FORMAT: u32 = 2;
/// Key of the metadata entry.
const KEY: &str = "loftup_train";

/// Scalars of the training state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Version of this record.
    pub format: u32,
    /// Completed steps.
    pub step: u64,
    /// Counters of the optimizer.
    pub counters: Counters,
    /// The settings, as TOML.
    pub config: String,
    /// Fingerprint of the data.
    pub data: String,
    /// SHA-256 of the backbones.
    pub backbone: String,
    /// Losses of the last step.
    pub losses: Vec<(String, f32)>,
}

impl Progress {
    /// Creates a record of this version.
    pub fn new(
        step: u64,
        counters: Counters,
        config: String,
        data: String,
        backbone: String,
    ) -> Self {
        Self {
            format: FORMAT,
            step,
            counters,
            config,
            data,
            backbone,
            losses: Vec::new(),
        }
    }
}

/// Writes tensors and an optional metadata entry to a safetensors file, atomically.
///
/// # Errors
/// If the file cannot be written. An existing file is then unchanged.
pub fn write(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    header: Option<(&str, String)>,
) -> Result<(), TrainError> {
    let io = || TrainError::io(path);
    let bytes: BTreeMap<&str, (Vec<u8>, &[usize])> = tensors
        .iter()
        .map(|(name, t)| {
            (
                name.as_str(),
                (
                    t.data().iter().flat_map(|x| x.to_le_bytes()).collect(),
                    t.shape(),
                ),
            )
        })
        .collect();
    let mut views = Vec::with_capacity(bytes.len());
    for (name, (data, shape)) in &bytes {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), data)
            .map_err(|e| io()(std::io::Error::other(e.to_string())))?;
        views.push((*name, view));
    }
    let header = header.map(|(key, text)| HashMap::from([(key.to_string(), text)]));
    let file = safetensors::serialize(views, header)
        .map_err(|e| io()(std::io::Error::other(e.to_string())))?;
    replace(path, &file).map_err(io())
}

/// Replaces a file atomically.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".loftup-")
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    // Temporary files are only readable by their owner.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file()
            .set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    file.persist(path).map_err(|e| e.error)?;
    std::fs::File::open(folder)?.sync_all()
}

/// Writes a checkpoint.
///
/// # Errors
/// Same as [`write()`].
pub fn save(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    progress: &Progress,
) -> Result<(), TrainError> {
    let text = serde_json::to_string(progress)
        .map_err(|e| TrainError::io(path)(std::io::Error::other(e)))?;
    write(path, tensors, Some((KEY, text)))
}

/// Reads a checkpoint.
///
/// # Errors
/// If the file cannot be read or is not a checkpoint.
pub fn load(path: &Path) -> Result<(BTreeMap<String, Tensor>, Progress), TrainError> {
    let bytes = std::fs::read(path).map_err(TrainError::io(path))?;
    let bad = |what: String| TrainError::Resume {
        path: path.into(),
        what,
    };
    let damaged = |e: &dyn std::fmt::Display| {
        bad(format!(
            "damaged, or not a training checkpoint: {e}; start again without --resume"
        ))
    };
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| damaged(&e))?;
    let text = metadata
        .metadata()
        .as_ref()
        .and_then(|m| m.get(KEY))
        .ok_or_else(|| {
            bad(
                "contains weights but no training state; use it as `start` in train.toml instead"
                    .into(),
            )
        })?;
    let progress: Progress = serde_json::from_str(text).map_err(|e| damaged(&e))?;
    if progress.format != FORMAT {
        return Err(bad(format!(
            "checkpoint format {} is not supported (expected {FORMAT})",
            progress.format
        )));
    }
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| damaged(&e))?;
    let mut all = BTreeMap::new();
    for (name, view) in tensors.iter() {
        if view.dtype() != Dtype::F32 {
            return Err(damaged(&format!(
                "tensor {name} has type {:?}",
                view.dtype()
            )));
        }
        let (values, _) = view.data().as_chunks::<4>();
        let data = values.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let tensor =
            Tensor::new(view.shape(), data).ok_or_else(|| damaged(&format!("tensor {name}")))?;
        all.insert(name.to_string(), tensor);
    }
    Ok((all, progress))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (BTreeMap<String, Tensor>, Progress) {
        let tensor = Tensor::from_fn([2, 3], |i| (i as f32).exp());
        let counters = Counters {
            steps: 7,
            mu_product: 0.1 + 0.2,
        };
        let mut progress = Progress::new(7, counters, "seed = 1".into(), "d".into(), "b".into());
        progress.losses.push(("loss".into(), 0.1));
        (BTreeMap::from([("a.b".into(), tensor)]), progress)
    }

    #[test]
    fn a_state_is_read_back_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.safetensors");
        let (tensors, progress) = state();
        save(&path, &tensors, &progress).unwrap();
        save(&path, &tensors, &progress).unwrap();
        assert_eq!(load(&path).unwrap(), (tensors, progress));
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            1,
            "no temporary files are left"
        );
    }

    #[test]
    fn damaged_and_foreign_files_are_errors_that_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.safetensors");
        let (tensors, progress) = state();
        save(&path, &tensors, &progress).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for len in [0, 7, 8, 100, whole.len() - 1] {
            std::fs::write(&path, &whole[..len]).unwrap();
            let message = load(&path).unwrap_err().to_string();
            assert!(
                message.contains("c.safetensors: damaged"),
                "{len}: {message}"
            );
        }
        write(&path, &tensors, None).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("`start`"));
    }
}
