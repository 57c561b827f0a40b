//! The `torch.save` format before PyTorch 1.6, which is still available on request.
//!
//! The file contains five pickles: a magic number, the format version, the sizes of C types, the
//! saved object, and the keys of its storages. The storages follow in the order of the keys, each
//! as a 64-bit element count and the elements, all little-endian.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    sync::Arc,
};

use super::{
    contents,
    dtype::ByteOrder,
    entry::{Entries, Extent, Source},
    error::{Problem, printable},
    pickle::{Pickle, Value},
};

/// Maximum total size of the pickles. The largest checkpoints need a tenth of this.
const MAX_PICKLES: u64 = 64 << 20;
/// The only existing version of the format.
const VERSION: i64 = 1001;

/// All tensors in the file.
pub(super) fn read(
    file: &mut File,
    file_len: u64,
    source: &Arc<Source>,
) -> Result<Entries, Problem> {
    let reading = |error| Problem::reading("its pickles", error);
    file.seek(SeekFrom::Start(0)).map_err(reading)?;
    let mut bytes = Vec::new();
    file.take(MAX_PICKLES)
        .read_to_end(&mut bytes)
        .map_err(reading)?;

    let mut at = 0;
    let mut next = || -> Result<Pickle, Problem> {
        let pickle = Pickle::parse(&bytes[at..])?;
        at += pickle.len();
        Ok(pickle)
    };
    let _magic = next()?;
    let version = next()?.root();
    if version != Value::Int(VERSION) {
        return Err(Problem::damaged(format!(
            "its format version is not {VERSION}"
        )));
    }
    let _sizes = next()?;
    let object = next()?;
    let keys = next()?;
    let storages = storages(file, file_len, at as u64, &object, &keys)?;
    contents::entries(&object, source, ByteOrder::Little, |key| {
        storages.get(key).copied().ok_or_else(|| {
            Problem::damaged(format!("storage {} is not in the file", printable(key)))
        })
    })
}

/// The location of each storage, by key.
fn storages<'a>(
    file: &mut File,
    file_len: u64,
    mut at: u64,
    object: &Pickle<'a>,
    keys: &Pickle<'a>,
) -> Result<BTreeMap<&'a str, Extent>, Problem> {
    // Number of elements, and bytes per element.
    let known: BTreeMap<&str, (usize, usize)> = object
        .storages()
        .map(|s| {
            (
                s.key,
                (s.len, s.dtype.map_or(1, |dtype| dtype.stored_size())),
            )
        })
        .collect();
    let keys = keys
        .sequence(keys.root())
        .ok_or_else(|| Problem::damaged("its storage keys are not a list"))?;
    let mut storages = BTreeMap::new();
    for key in keys {
        let Value::Str(key) = key else {
            return Err(Problem::damaged("a storage key is not a string"));
        };
        let shown = format!("storage {}", printable(key));
        let (len, size) = known
            .get(key)
            .ok_or_else(|| Problem::damaged(format!("{shown} does not belong to any tensor")))?;
        let reading = |error| Problem::reading(&shown, error);
        let mut count = [0; 8];
        file.seek(SeekFrom::Start(at)).map_err(reading)?;
        file.read_exact(&mut count).map_err(reading)?;
        let count = u64::from_le_bytes(count);
        if count != *len as u64 {
            return Err(Problem::damaged(format!(
                "{shown} has {count} elements, expected {len}"
            )));
        }
        let start = at + 8;
        let end = count
            .checked_mul(*size as u64)
            .and_then(|bytes| start.checked_add(bytes))
            .filter(|end| *end <= file_len)
            .ok_or_else(|| {
                Problem::damaged(format!(
                    "{shown} has {count} elements, but the file ends before the last one"
                ))
            })?;
        let extent = Extent {
            start,
            len: end - start,
        };
        if storages.insert(*key, extent).is_some() {
            return Err(Problem::damaged(format!("{shown} occurs twice")));
        }
        at = end;
    }
    Ok(storages)
}
