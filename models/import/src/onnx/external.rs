//! Weights in external files (`external_data`).

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use loftup_onnx::pb::{GraphProto, TensorProto, tensor_proto::DataType};

use loftup_onnx::{LARGEST, rewrite::tensors, walk};

use super::ImportError;
use crate::checkpoint::digest;

/// Reads all external weights of `graph`, the main graph of the file `onnx`, into it. Returns name
/// and SHA-256 of each file read.
///
/// # Errors
/// Names the tensor and its file, with a hint.
pub fn embed(graph: &mut GraphProto, onnx: &Path) -> Result<Vec<(String, String)>, ImportError> {
    let fail = |tensor: &str, what: String| ImportError::External {
        path: onnx.into(),
        tensor: tensor.into(),
        what,
    };
    let (mut total, mut large) = (0u64, None);
    walk::tensors(graph, &mut |tensor| {
        if tensor.is_external() {
            let length = Place::of(tensor).map_or(0, |place| place.length);
            total = total.saturating_add(length);
            if total > LARGEST && large.is_none() {
                large = Some(tensor.name.as_str());
            }
        }
    });
    if let Some(name) = large {
        let what = format!(
            "with it the weights exceed {LARGEST} bytes, the maximum for a bundle's graph; export a smaller model or in float16"
        );
        return Err(fail(name, what));
    }
    let mut files: BTreeMap<String, Open> = BTreeMap::new();
    walk::tensors_mut(graph, &mut |tensor| {
        if !tensor.is_external() {
            return Ok(());
        }
        let values = read(tensor, onnx, &mut files).map_err(|what| fail(&tensor.name, what))?;
        tensor.raw_data = values;
        tensor.data_location = None;
        tensor.external_data.clear();
        Ok(())
    })?;
    let hashes = files.into_iter().map(|(name, open)| (name, open.sha256));
    Ok(hashes.collect())
}

/// Reads the values of `tensor` from its file.
fn read(
    tensor: &TensorProto,
    onnx: &Path,
    files: &mut BTreeMap<String, Open>,
) -> Result<Vec<u8>, String> {
    let place = Place::of(tensor)?;
    let file = match files.entry(place.file.to_owned()) {
        Entry::Occupied(open) => open.into_mut(),
        Entry::Vacant(new) => new.insert(Open::next_to(onnx, place.file)?),
    };
    let end = place.offset.checked_add(place.length);
    if end.is_none_or(|end| end > file.length) {
        return Err(format!(
            "it has {} bytes from {} on in {}, which is {} bytes long; copy both files again",
            place.length, place.offset, place.file, file.length
        ));
    }
    file.read(&place)
        .map_err(|e| format!("{}: {e}", place.file))
}

/// The location of a tensor's values.
struct Place<'a> {
    file: &'a str,
    offset: u64,
    length: u64,
}

impl<'a> Place<'a> {
    fn of(tensor: &'a TensorProto) -> Result<Self, String> {
        let file = tensor.external_entry("location").unwrap_or("");
        let file = file.strip_prefix("./").unwrap_or(file);
        let plain = !file.is_empty()
            && !matches!(file, "." | "..")
            && !file.contains(['/', '\\', ':', '\0']);
        if !plain {
            return Err(format!(
                "its file is {file:?}, but only a plain file name in the directory of the ONNX file is allowed; save it again with onnx.save_model(..., save_as_external_data=True, location=\"weights.data\")"
            ));
        }
        let number = |key: &str| -> Result<Option<u64>, String> {
            let parse = |text: &str| {
                let wrong = |_| format!("its {key} {text:?} is not a number; export it again");
                text.parse().map_err(wrong)
            };
            tensor.external_entry(key).map(parse).transpose()
        };
        let bytes = tensors::count(tensor)
            .zip(width(tensor.data_type))
            .and_then(|(count, width)| count.checked_mul(width))
            .ok_or("its shape or type cannot be read; export it again")?;
        let length = number("length")?.unwrap_or(bytes as u64);
        if length != bytes as u64 {
            return Err(format!(
                "its shape {:?} takes {bytes} bytes, but its entry says {length}; export it again",
                tensor.dims
            ));
        }
        Ok(Self {
            file,
            offset: number("offset")?.unwrap_or(0),
            length,
        })
    }
}

/// Size of a value in bytes. `None` for types that cannot be stored externally.
fn width(kind: i32) -> Option<usize> {
    Some(match DataType::try_from(kind).ok()? {
        DataType::Uint8 | DataType::Int8 | DataType::Bool => 1,
        DataType::Uint16 | DataType::Int16 | DataType::Float16 | DataType::Bfloat16 => 2,
        DataType::Float | DataType::Int32 | DataType::Uint32 => 4,
        DataType::Double | DataType::Int64 | DataType::Uint64 | DataType::Complex64 => 8,
        DataType::Complex128 => 16,
        _ => return None,
    })
}

/// An external file.
struct Open {
    file: File,
    length: u64,
    sha256: String,
}

impl Open {
    fn next_to(onnx: &Path, name: &str) -> Result<Self, String> {
        let path = onnx.with_file_name(name);
        let fail = |e: std::io::Error| {
            format!("its values are in {name}, which is expected next to the ONNX file: {e}")
        };
        // Checked before it is opened: opening a pipe would block until there is a writer.
        if !std::fs::metadata(&path).map_err(fail)?.is_file() {
            return Err(format!("its values are in {name}, which is not a file"));
        }
        let mut file = File::open(&path).map_err(fail)?;
        let length = file.metadata().map_err(fail)?.len();
        let sha256 = digest(&mut file).map_err(fail)?;
        Ok(Self {
            file,
            length,
            sha256,
        })
    }

    fn read(&mut self, place: &Place<'_>) -> std::io::Result<Vec<u8>> {
        self.file.seek(SeekFrom::Start(place.offset))?;
        // At most the file size, which has been checked.
        let mut values = vec![0; usize::try_from(place.length).map_err(std::io::Error::other)?];
        self.file.read_exact(&mut values)?;
        Ok(values)
    }
}
