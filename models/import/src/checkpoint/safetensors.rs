//! The safetensors format: a JSON header, then all tensors end to end.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
};

use ::safetensors::{Dtype as StDtype, tensor::Metadata};

use super::{
    contents::is_name,
    dtype::{ByteOrder, Dtype},
    error::{Problem, printable},
};
use loftup_onnx::Tensor;

/// The format's own limit.
const MAX_HEADER: u64 = 100_000_000;

/// All floating-point tensors of the file. One is in memory as bytes at a time.
pub(super) fn read(mut file: File, file_len: u64) -> Result<BTreeMap<String, Tensor>, Problem> {
    let metadata = header(&mut file, file_len)?;
    let data_start = file_len - metadata.data_len() as u64;
    let mut tensors = BTreeMap::new();
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else {
            continue;
        };
        if !is_name(&name) {
            let name = printable(&name);
            return Err(Problem::damaged(format!(
                "{name} is not the name of a tensor"
            )));
        }
        let dtype = match info.dtype {
            StDtype::F32 => Dtype::F32,
            StDtype::F16 => Dtype::F16,
            StDtype::BF16 => Dtype::Bf16,
            StDtype::F64 => Dtype::F64,
            StDtype::BOOL
            | StDtype::U8
            | StDtype::I8
            | StDtype::U16
            | StDtype::I16
            | StDtype::U32
            | StDtype::I32
            | StDtype::U64
            | StDtype::I64 => {
                log::debug!("tensor {name} holds integers: left out");
                continue;
            }
            other => {
                return Err(Problem::unsupported(
                    format!("tensor {name} is of type {other:?}, which is not read here"),
                    "convert the model to F32, F16 or BF16 and save it again",
                ));
            }
        };
        let (start, end) = info.data_offsets;
        let reading = |error| Problem::reading(&format!("tensor {name}"), error);
        file.seek(SeekFrom::Start(data_start + start as u64))
            .map_err(reading)?;
        let mut bytes = vec![0; end - start];
        file.read_exact(&mut bytes).map_err(reading)?;
        let data = dtype.decode(&bytes, ByteOrder::Little);
        let tensor = Tensor::new(info.shape.clone(), data).ok_or_else(|| {
            Problem::damaged(format!("tensor {name}: its bytes do not fill its shape"))
        })?;
        tensors.insert(name, tensor);
    }
    if tensors.is_empty() {
        return Err(Problem::unsupported(
            "it holds no floating-point tensors",
            "save the model's state_dict",
        ));
    }
    Ok(tensors)
}

/// The header, checked: the tensors lie end to end, have the size of their shape, and fill the
/// file to its end.
fn header(file: &mut File, file_len: u64) -> Result<Metadata, Problem> {
    let reading = |error| Problem::reading("the header", error);
    let mut len = [0; 8];
    file.read_exact(&mut len).map_err(reading)?;
    let len = u64::from_le_bytes(len);
    if len > MAX_HEADER || len > file_len.saturating_sub(8) {
        return Err(Problem::damaged(format!(
            "its header should have {len} bytes, in a file of {file_len}"
        )));
    }
    let mut json = vec![0; len as usize];
    file.read_exact(&mut json).map_err(reading)?;
    let metadata: Metadata = serde_json::from_slice(&json).map_err(|error| {
        Problem::damaged(format!("its header: {}", printable(&error.to_string())))
    })?;
    let expected = (metadata.data_len() as u64).checked_add(8 + len);
    if expected != Some(file_len) {
        return Err(Problem::damaged(format!(
            "its header describes {} bytes of tensors, and {} follow",
            metadata.data_len(),
            file_len - 8 - len
        )));
    }
    Ok(metadata)
}
