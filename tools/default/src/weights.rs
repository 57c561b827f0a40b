//! Writes weights as fp16.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};
use half::f16;
use loftup_onnx::Tensor;
use safetensors::{Dtype, tensor::TensorView};

/// Writes tensors, rounded to fp16, to a safetensors file, atomically.
///
/// # Errors
/// The file cannot be written, or a value does not fit in fp16.
pub fn write_half(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let mut bytes: Vec<(&str, &[usize], Vec<u8>)> = Vec::new();
    for (name, tensor) in tensors {
        let mut data = Vec::with_capacity(2 * tensor.data().len());
        for x in tensor.data() {
            let half = f16::from_f32(*x);
            anyhow::ensure!(
                half.is_finite(),
                "{}: {name} contains {x}, which does not fit in fp16; lower the learning rate",
                path.display()
            );
            data.extend(half.to_le_bytes());
        }
        bytes.push((name, tensor.shape(), data));
    }
    let mut views = Vec::new();
    for (name, shape, data) in &bytes {
        let view = TensorView::new(Dtype::F16, shape.to_vec(), data)
            .with_context(|| format!("{}: {name}", path.display()))?;
        views.push((*name, view));
    }
    let file = safetensors::serialize(views, None).with_context(|| path.display().to_string())?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    let mut temporary = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))
        .with_context(|| path.display().to_string())?;
    std::io::Write::write_all(&mut temporary, &file).with_context(|| path.display().to_string())?;
    readable_by_all(temporary.as_file()).with_context(|| path.display().to_string())?;
    temporary
        .persist(path)
        .with_context(|| path.display().to_string())?;
    Ok(())
}

/// Temporary files are readable only by their owner; the weights should be readable by everyone.
fn readable_by_all(file: &std::fs::File) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}
