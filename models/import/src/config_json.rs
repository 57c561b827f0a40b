//! Values in the config files that libraries save next to weights.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
};

use loftup_bundle::Activation;
use serde_json::Value;

/// Maximum size of a config file.
const LARGEST: u64 = 4 << 20;

/// Reads a config file, if it exists.
pub(crate) fn read(path: &Path) -> Result<Option<Value>, String> {
    let file = match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|e| e.to_string())?,
    };
    if !file.metadata().is_ok_and(|m| m.is_file()) {
        return Err("not a file".into());
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| e.to_string())?;
    if bytes.len() as u64 > LARGEST {
        return Err(format!("more than {} MiB", LARGEST >> 20));
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| format!("not valid JSON: {e}"))
}

/// A positive integer, if the key exists.
pub(crate) fn number(json: &Value, key: &str) -> Result<Option<usize>, String> {
    match json.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_u64()
            .filter(|n| (1..=1 << 20).contains(n))
            .map(|n| Some(n as usize))
            .ok_or_else(|| format!("{key} is {}, not a positive integer", shown(value))),
    }
}

/// A string, if the key exists.
pub(crate) fn text<'a>(json: &'a Value, key: &str) -> Option<&'a str> {
    json.get(key).and_then(Value::as_str)
}

/// Formats a value for a message: short, and on one line.
pub(crate) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Parses an activation as named by transformers and timm.
pub(crate) fn named_activation(key: &str, value: &Value) -> Result<Activation, String> {
    match value.as_str() {
        Some("gelu" | "gelu_python" | "gelu_erf") => Ok(Activation::Gelu),
        Some("quick_gelu" | "quickgelu") => Ok(Activation::QuickGelu),
        Some("gelu_pytorch_tanh" | "gelu_new" | "gelu_fast" | "gelu_tanh") => {
            Ok(Activation::GeluTanh)
        }
        _ => Err(format!(
            "{key} is {}, which is not supported; supported are gelu, quick_gelu and gelu_pytorch_tanh",
            shown(value)
        )),
    }
}
