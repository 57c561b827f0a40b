//! The file format of a cached engine.
//!
//! ```text
//! 16 bytes   "loftup engine 1\n"
//!  4 bytes   length of the key, little-endian
//!  8 bytes   length of the engine, little-endian
//! 64 bytes   SHA-256 of the engine, hexadecimal
//!            the key, UTF-8, one line for each field
//!            the engine
//! ```

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
};

use loftup_bundle::sha256_hex;

use super::EngineKey;

const MAGIC: &[u8; 16] = b"loftup engine 1\n";
const FIXED: usize = 16 + 4 + 8 + 64;
/// Maximum length of a key; a longer one is invalid.
const MAX_KEY: u32 = 64 << 10;

/// Why a file cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// It does not exist.
    Missing,
    /// It is invalid, for this reason.
    Invalid(String),
}

impl From<io::Error> for Unusable {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::UnexpectedEof => Self::Invalid("it is truncated".into()),
            _ => Self::Invalid(e.to_string()),
        }
    }
}

fn invalid(what: impl Into<String>) -> Unusable {
    Unusable::Invalid(what.into())
}

struct Header {
    key: EngineKey,
    length: u64,
    sha256: String,
}

/// Reads the engine in the file at `path` if it matches `key` and is intact.
pub(super) fn read(path: &Path, key: &EngineKey) -> Result<Vec<u8>, Unusable> {
    let mut file = File::open(path)?;
    let header = read_header(&mut file)?;
    if header.key != *key {
        return Err(invalid(key.difference(&header.key)));
    }
    read_engine(&mut file, &header)
}

/// Reads the key of the file at `path`; the engine is not checked.
pub(super) fn header(path: &Path) -> Result<EngineKey, Unusable> {
    Ok(read_header(&mut File::open(path)?)?.key)
}

/// Checks the complete file at `path` and returns its key, or the reason why it cannot be used.
pub(super) fn describe(path: &Path) -> Result<EngineKey, String> {
    let checked = || {
        let mut file = File::open(path)?;
        let header = read_header(&mut file)?;
        read_engine(&mut file, &header)?;
        Ok(header.key)
    };
    checked().map_err(|unusable| match unusable {
        Unusable::Missing => "it has just been removed".into(),
        Unusable::Invalid(why) => why,
    })
}

fn read_header(file: &mut File) -> Result<Header, Unusable> {
    let mut fixed = [0; FIXED];
    file.read_exact(&mut fixed)?;
    let (magic, rest) = fixed.split_at(16);
    if magic != MAGIC {
        return Err(invalid(
            "it is not an engine cache file, or has another format version",
        ));
    }
    let (key_length, rest) = rest.split_at(4);
    let (length, sha256) = rest.split_at(8);
    let key_length = u32::from_le_bytes(key_length.try_into().unwrap_or_default());
    let length = u64::from_le_bytes(length.try_into().unwrap_or_default());
    if key_length > MAX_KEY {
        return Err(invalid("its header is damaged"));
    }
    let mut text = vec![0; key_length as usize];
    file.read_exact(&mut text)?;
    let key = str::from_utf8(&text).ok().and_then(EngineKey::parse);
    Ok(Header {
        key: key.ok_or_else(|| invalid("its header is damaged"))?,
        length,
        sha256: String::from_utf8_lossy(sha256).into_owned(),
    })
}

/// Reads the engine that follows the header.
fn read_engine(file: &mut File, header: &Header) -> Result<Vec<u8>, Unusable> {
    let before = FIXED as u64 + header.key.text().len() as u64;
    let there = file.metadata()?.len().saturating_sub(before);
    // Checked before any memory is allocated.
    if there != header.length {
        let what = format!("it has {there} of {} bytes", header.length);
        return Err(invalid(what));
    }
    let mut engine = Vec::with_capacity(usize::try_from(there).unwrap_or(0));
    file.take(there).read_to_end(&mut engine)?;
    if sha256_hex(&engine) != header.sha256 {
        return Err(invalid("its checksum is wrong: it is damaged"));
    }
    Ok(engine)
}

/// Writes an engine atomically. The caller holds the lock.
pub(super) fn write(path: &Path, key: &EngineKey, engine: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    let part = Path::new(&name);
    let written = write_part(part, key, engine).and_then(|()| fs::rename(part, path));
    if written.is_err() {
        let _ = fs::remove_file(part);
        return written;
    }
    // Sync the directory, so that the name survives a power failure as well.
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

fn write_part(part: &Path, key: &EngineKey, engine: &[u8]) -> io::Result<()> {
    let text = key.text();
    let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "the key is too long");
    let key_length = u32::try_from(text.len()).map_err(too_long)?;
    let mut file = File::create(part)?;
    file.write_all(MAGIC)?;
    file.write_all(&key_length.to_le_bytes())?;
    file.write_all(&(engine.len() as u64).to_le_bytes())?;
    file.write_all(sha256_hex(engine).as_bytes())?;
    file.write_all(text.as_bytes())?;
    file.write_all(engine)?;
    file.sync_all()
}
