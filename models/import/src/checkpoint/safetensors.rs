//! The safetensors format: a JSON header, followed by the tensors without gaps.
//!
//! The header is parsed here and not by the safetensors crate, which rejects the whole file if one
//! tensor has a type that it does not know.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    sync::Arc,
};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

use super::{
    contents::is_name,
    dtype::Dtype,
    entry::{Entries, Entry, Extent, Source},
    error::{Problem, printable},
};

/// The limit in the format specification.
const MAX_HEADER: u64 = 100_000_000;

/// A tensor's header entry.
#[derive(Debug, Deserialize)]
struct Info {
    dtype: String,
    shape: Vec<usize>,
    /// Start and end of its bytes, relative to the end of the header.
    data_offsets: (u64, u64),
}

/// All tensors in the file.
pub(super) fn read(
    file: &mut File,
    file_len: u64,
    source: &Arc<Source>,
) -> Result<Entries, Problem> {
    let (infos, data_start) = header(file, file_len)?;
    let mut entries = Entries::new();
    for (name, info) in infos {
        if !is_name(&name) {
            let name = printable(&name);
            return Err(Problem::damaged(format!(
                "{name} is not a valid tensor name"
            )));
        }
        let (start, end) = info.data_offsets;
        let dtype = dtype(&info.dtype);
        let extent = Extent {
            start: data_start + start,
            len: end - start,
        };
        let entry = match dtype.size() {
            Some(_) => Entry::contiguous(source, extent, dtype, info.shape),
            None => Entry::unread(dtype, info.shape),
        };
        entries.insert(name, entry);
    }
    Ok(entries)
}

fn dtype(name: &str) -> Dtype {
    match name {
        "F32" => Dtype::F32,
        "F16" => Dtype::F16,
        "BF16" => Dtype::Bf16,
        "F64" => Dtype::F64,
        "BOOL" | "U8" | "I8" => Dtype::Integer(1),
        "U16" | "I16" => Dtype::Integer(2),
        "U32" | "I32" => Dtype::Integer(4),
        "U64" | "I64" => Dtype::Integer(8),
        "F8_E4M3" => Dtype::Other("F8_E4M3", 1),
        "F8_E5M2" => Dtype::Other("F8_E5M2", 1),
        "F8_E4M3FNUZ" => Dtype::Other("F8_E4M3FNUZ", 1),
        "F8_E5M2FNUZ" => Dtype::Other("F8_E5M2FNUZ", 1),
        "F8_E8M0" => Dtype::Other("F8_E8M0", 1),
        "F6_E2M3" => Dtype::Other("F6_E2M3", 0),
        "F6_E3M2" => Dtype::Other("F6_E3M2", 0),
        "F4" => Dtype::Other("F4", 0),
        "C64" => Dtype::Other("C64", 8),
        _ => Dtype::Other("unknown", 0),
    }
}

/// The validated header, and the offset of the tensor data. The tensors have no gaps, match the
/// size of their shape if the element size is known, and end at the end of the file.
fn header(file: &mut File, file_len: u64) -> Result<(BTreeMap<String, Info>, u64), Problem> {
    let reading = |error| Problem::reading("the header", error);
    let mut len = [0; 8];
    file.seek(SeekFrom::Start(0)).map_err(reading)?;
    file.read_exact(&mut len).map_err(reading)?;
    let len = u64::from_le_bytes(len);
    if len > MAX_HEADER || len > file_len.saturating_sub(8) {
        return Err(Problem::damaged(format!(
            "its header length is {len} bytes, but the file has only {file_len}"
        )));
    }
    let mut json = vec![0; len as usize];
    file.read_exact(&mut json).map_err(reading)?;
    let Header(infos) = serde_json::from_slice(&json).map_err(|error| {
        Problem::damaged(format!("its header: {}", printable(&error.to_string())))
    })?;
    let mut in_order: Vec<(&String, &Info)> = infos.iter().collect();
    in_order.sort_by_key(|(_, info)| info.data_offsets);
    let mut at = 0;
    for (name, info) in in_order {
        let (start, end) = info.data_offsets;
        if start != at || end < start {
            return Err(Problem::damaged(format!(
                "its header places tensor {} at bytes {start} to {end}, expected a start at {at}",
                printable(name)
            )));
        }
        let numel = info
            .shape
            .iter()
            .try_fold(1u64, |n, &d| n.checked_mul(d as u64));
        let size = dtype(&info.dtype).stored_size() as u64;
        let bytes = numel.and_then(|numel| numel.checked_mul(size));
        if bytes.is_none_or(|bytes| size > 0 && bytes != end - start) {
            return Err(Problem::damaged(format!(
                "its header lists tensor {} with shape {:?} of {}, but {} bytes",
                printable(name),
                info.shape,
                printable(&info.dtype),
                end - start
            )));
        }
        at = end;
    }
    if at.checked_add(8 + len) != Some(file_len) {
        return Err(Problem::damaged(format!(
            "its header describes {at} bytes of tensors, but {} follow",
            file_len - 8 - len
        )));
    }
    Ok((infos, 8 + len))
}

/// The tensors of a header. Names must be unique.
struct Header(BTreeMap<String, Info>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tensors;
        impl<'de> Visitor<'de> for Tensors {
            type Value = Header;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("tensors by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut tensors = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let info = map.next_value()?;
                    if tensors.insert(name, info).is_some() {
                        return Err(serde::de::Error::custom("duplicate tensor name"));
                    }
                }
                Ok(Header(tensors))
            }
        }
        deserializer.deserialize_map(Tensors)
    }
}
