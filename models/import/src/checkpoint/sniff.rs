//! Detects the file format from its first bytes. File names are not reliable: `.bin` and `.pt` are
//! used for everything.

use super::error::Problem;

/// Number of bytes that detection needs.
pub(super) const PREFIX: usize = 512;

/// Supported formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    TorchZip,
    TorchLegacy,
    Safetensors,
}

/// Long integer 0x1950a86a20f9469cfc6c, the first object in files by PyTorch before 1.6.
const LEGACY_MAGIC: [u8; 12] = [
    0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19,
];

/// Magic bytes of other file types.
const OTHERS: [(&[u8], &str); 22] = [
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the file itself (git lfs pull fetches it)",
    ),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x1f\x8b", "a gzip file (unpack it first)"),
    (b"\xfd7zXZ\0", "an xz file (unpack it first)"),
    (b"\x28\xb5\x2f\xfd", "a zstd file (unpack it first)"),
    (b"BZh", "a bzip2 file (unpack it first)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive (unpack it first)"),
    (b"Rar!", "a rar archive (unpack it first)"),
    (
        b"\x93NUMPY",
        "a NumPy .npy file, a single array without a name (save a state_dict with torch.save instead)",
    ),
    (
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file, as Keras saves them (use the PyTorch or safetensors file of the same model)",
    ),
    (
        b"GGUF",
        "a GGUF file, as llama.cpp uses them (use the PyTorch or safetensors file of the same model)",
    ),
    (b"ftrt", "a TensorRT engine"),
    (b"ptrt", "a TensorRT engine"),
    (b"\x7fELF", "an executable"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"RIFF", "an audio, video or image file (RIFF)"),
    (b"SQLite format 3", "an SQLite database"),
    (b"ARROW1", "an Arrow file"),
    (b"PAR1", "a Parquet file"),
    (b"DDUF", "a DDUF archive"),
];

/// Hint for files of other frameworks.
const OTHER_FILE: &str = "(use the PyTorch or safetensors file of the same model)";

/// Detects the format of a file from its first bytes (at most [`PREFIX`]) and its length.
///
/// # Errors
/// `UnknownFormat` with a description of the file, and `Unsupported` for files that only PyTorch
/// reads.
pub(super) fn sniff(prefix: &[u8], len: u64) -> Result<Format, Problem> {
    if prefix.is_empty() {
        return Err(unknown("an empty file"));
    }
    if prefix.starts_with(b"PK\x03\x04") {
        return Ok(Format::TorchZip);
    }
    if is_safetensors(prefix) {
        return Ok(Format::Safetensors);
    }
    if let [0x80, 2..=5, ..] = prefix {
        let magic = prefix
            .windows(LEGACY_MAGIC.len())
            .take(16)
            .any(|w| w == LEGACY_MAGIC);
        if magic {
            return Ok(Format::TorchLegacy);
        }
        return Err(Problem::unsupported(
            "it is a plain pickle, which torch.load cannot read either",
            "in Python, if you trust the file: torch.save(pickle.load(open(FILE, \"rb\")), NEW_FILE), with the arrays converted to tensors",
        ));
    }
    if let Some((_, what)) = OTHERS.iter().find(|(magic, _)| prefix.starts_with(magic)) {
        return Err(unknown(*what));
    }
    if prefix.get(4..8) == Some(b"TFL3") {
        return Err(unknown("a TensorFlow Lite model"));
    }
    if prefix.get(4..8) == Some(b"ET12") {
        return Err(unknown("an ExecuTorch program"));
    }
    if prefix.get(257..262) == Some(b"ustar") {
        return Err(tar(prefix));
    }
    if prefix.iter().all(|&b| b == 0) {
        return Err(unknown(format!("{len} bytes that start with zeros")));
    }
    if prefix.starts_with(b"\x08\x01\x12") {
        return Err(unknown(format!("a TensorFlow SavedModel {OTHER_FILE}")));
    }
    if is_onnx(prefix) {
        return Err(unknown(
            "an ONNX model (as a backbone: --backbone-onnx FILE --patch PIXELS)",
        ));
    }
    if is_msgpack(prefix) {
        return Err(unknown(format!(
            "a Flax checkpoint in MessagePack {OTHER_FILE}"
        )));
    }
    Err(unknown(as_text(prefix).unwrap_or_else(|| {
        let first: Vec<String> = prefix.iter().take(8).map(|b| format!("{b:02x}")).collect();
        format!(
            "an unknown binary file (it starts with {})",
            first.join(" ")
        )
    })))
}

/// A description of `bytes` if they are known not to be ONNX: a phrase that starts with "it is",
/// with a hint.
pub(crate) fn other_format(bytes: &[u8]) -> Option<String> {
    let checkpoint = |kind: &str| {
        Some(format!(
            "it is {kind} (for weights, use --backbone-weights FILE)"
        ))
    };
    match sniff(&bytes[..bytes.len().min(PREFIX)], bytes.len() as u64) {
        Ok(Format::Safetensors) => checkpoint("a safetensors checkpoint"),
        Ok(Format::TorchLegacy) => checkpoint("a PyTorch checkpoint"),
        Ok(Format::TorchZip) => Some(
            "it is a zip archive (unpack it first) or a PyTorch checkpoint (--backbone-weights FILE)"
                .into(),
        ),
        Err(Problem::UnknownFormat(found)) if !is_onnx(bytes) && !found.contains("unknown") => {
            Some(format!("it is {found}"))
        }
        Err(_) => None,
    }
}

/// The error for a tar archive: a checkpoint of the first PyTorch versions, or any other.
fn tar(prefix: &[u8]) -> Problem {
    let name = prefix[..100].split(|&b| b == 0).next().unwrap_or_default();
    let name = name.strip_prefix(b"./").unwrap_or(name);
    match name {
        b"sys_info" | b"pickle" | b"tensors" | b"storages" => Problem::unsupported(
            "it is a tar archive, PyTorch's first format, which is not supported",
            "in PyTorch, if you trust the file: torch.save(torch.load(FILE, map_location=\"cpu\", weights_only=False), NEW_FILE)",
        ),
        _ => unknown("a tar archive (unpack it first)"),
    }
}

fn unknown(found: impl Into<String>) -> Problem {
    Problem::UnknownFormat(found.into())
}

/// A 64-bit JSON header length, of which only the lower half is ever used, followed by the header.
fn is_safetensors(prefix: &[u8]) -> bool {
    matches!(prefix, [_, _, _, _, 0, 0, 0, 0, b'{', ..])
}

/// A protobuf `ModelProto`: field 1 (version), followed by field 2 (producer) or 7 (graph).
fn is_onnx(prefix: &[u8]) -> bool {
    matches!(prefix, [0x08, 1..=32, 0x12 | 0x3a | 0x42, ..])
}

/// A MessagePack map with at least one entry, whose first key is lowercase text.
fn is_msgpack(prefix: &[u8]) -> bool {
    let key = match prefix {
        [0x81..=0x8f, key @ ..] | [0xde, _, _, key @ ..] => key,
        _ => return false,
    };
    let (len, text) = match key {
        [len @ 0xa1..=0xbf, text @ ..] => (usize::from(len & 0x1f), text),
        [0xd9, len, text @ ..] => (usize::from(*len), text),
        _ => return false,
    };
    text.get(..len)
        .is_some_and(|text| text.iter().all(|b| b.is_ascii_graphic()))
}

fn as_text(prefix: &[u8]) -> Option<String> {
    // The prefix may end inside a multi-byte character.
    let text = match std::str::from_utf8(prefix) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&prefix[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    if text.is_empty() {
        return None;
    }
    let text = text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    let start: String = text
        .chars()
        .take(15)
        .collect::<String>()
        .to_ascii_lowercase();
    Some(
        if start.starts_with("<!doctype html") || start.starts_with("<html") {
            "an HTML page: the download failed or requires a login (open the URL in a browser, or use huggingface-cli download)".into()
        } else if start.starts_with('<') {
            "an XML document, possibly a server's error message".into()
        } else if start.starts_with('{') || start.starts_with('[') {
            "a JSON document: a config file or a server's error message (use the weights, or the *.index.json of their shards)".into()
        } else if text.chars().any(|c| c.is_control() && !c.is_whitespace()) {
            return None;
        } else {
            format!(
                "a text file (it starts with {:?})",
                text.chars().take(40).collect::<String>()
            )
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(bytes: &[u8]) -> String {
        match sniff(&bytes[..bytes.len().min(PREFIX)], bytes.len() as u64) {
            Err(Problem::UnknownFormat(found)) => found,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_a_checkpoint_is_called_by_its_name() {
        let mut tar = vec![b'a'; 257];
        tar.extend(b"ustar\x0000");
        tar.resize(1024, 0);
        let cases: [(&[u8], &str); 19] = [
            (b"", "empty file"),
            (b"\n<!DOCTYPE html><html><head>", "HTML page"),
            (b"<HTML>", "HTML page"),
            (b"<?xml version=\"1.0\"?><Error>", "XML"),
            (b"{\"error\": \"Entry not found\"}", "JSON"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n",
                "Git LFS pointer",
            ),
            (b"\x08\x08\x12\x07pytorch", "ONNX"),
            (b"\x08\x01\x12\xc2\x03\x0a", "TensorFlow SavedModel"),
            (b"\x82\xaatext_model\x83", "Flax checkpoint"),
            (b"\xde\x00\x10\xd9\x02ab\x80", "Flax checkpoint"),
            (b"GGUF\x03\0\0\0", "GGUF"),
            (b"\x18\0\0\0ET12", "ExecuTorch"),
            (&tar, "tar archive"),
            (&[0; 4096], "zeros"),
            (
                b"Entry not found",
                "text file (it starts with \"Entry not found\")",
            ),
            (b"\x1f\x8b\x08\x00", "gzip"),
            (b"\x93NUMPY\x01\x00", "NumPy"),
            (
                b"\x00\x01\x02\x03\xfe",
                "unknown binary file (it starts with 00 01 02 03 fe)",
            ),
            (b"\xff", "unknown binary file"),
        ];
        for (bytes, expected) in cases {
            let found = found(bytes);
            assert!(
                found.contains(expected),
                "{found:?} does not say {expected:?}"
            );
            assert!(!found.contains('\n'), "{found:?}");
        }
    }

    #[test]
    fn text_that_is_cut_within_a_character_is_still_text() {
        let text = "ä".repeat(PREFIX);
        assert!(found(&text.as_bytes()[1..]).contains("binary"));
        assert!(found(format!("x{text}").as_bytes()).contains("text file"));
    }

    #[test]
    fn what_pytorch_alone_reads_says_so() {
        let mut tar = b"storages".to_vec();
        tar.resize(257, 0);
        tar.extend(b"ustar  \0");
        for (bytes, word) in [
            (&tar[..], "PyTorch's first format"),
            (b"\x80\x04\x95\x10\0\0\0\0\0\0\0}\x94.", "a plain pickle"),
        ] {
            match sniff(bytes, bytes.len() as u64) {
                Err(Problem::Unsupported { what, remedy }) => {
                    assert!(
                        what.contains(word) && remedy.contains("torch.save"),
                        "{what}"
                    );
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_formats_are_recognized() {
        assert_eq!(sniff(b"PK\x03\x04\0\0", 6).unwrap(), Format::TorchZip);
        let legacy = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
        assert_eq!(sniff(legacy, 15).unwrap(), Format::TorchLegacy);
        assert_eq!(
            sniff(b"\x40\0\0\0\0\0\0\0{\"a", 72).unwrap(),
            Format::Safetensors
        );
    }
}
