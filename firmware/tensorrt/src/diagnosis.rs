//! Converts TensorRT's log messages to errors.
//!
//! TensorRT reports failure as a null pointer or `false`; only its log has the reason. The messages
//! matched here were observed with TensorRT-RTX 1.4 and 1.7, or are strings in the libraries of
//! 8.5.3, 10.16 and 11.4. If none matches, the log messages are passed on unchanged.

use crate::error::Error;
use crate::logger::Entry;

/// Maximum length of a TensorRT message that is passed on.
const LONGEST: usize = 600;

/// Joins the errors among `entries` into one line.
pub(crate) fn joined(entries: &[Entry]) -> String {
    let mut text = String::new();
    let errors: Vec<&Entry> = entries.iter().filter(|entry| entry.is_error()).collect();
    for entry in &errors {
        // Without a GPU this message follows every other error and adds nothing.
        if entry.text.contains("::catchCudaError::") && errors.len() > 1 {
            continue;
        }
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(entry.text.trim());
    }
    one_line(&text, "no reason given")
}

/// Removes line breaks and limits the length.
pub(crate) fn one_line(text: &str, if_empty: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    match text.char_indices().nth(LONGEST) {
        _ if text.is_empty() => if_empty.to_string(),
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text,
    }
}

/// The error for a failed build, from its log messages.
pub(crate) fn build_failure(entries: &[Entry], limit: u64) -> Error {
    let all = |entry: &&Entry| entry.severity <= crate::logger::WARNING;
    for entry in entries.iter().filter(all) {
        let text = &entry.text;
        if text.contains("no optimization profile has been defined")
            || text.contains("optimization profile is missing")
        {
            return Error::NoProfile {
                input: quoted(text).unwrap_or("of the network").into(),
            };
        }
    }
    let needed = entries
        .iter()
        .filter(all)
        .filter_map(|entry| requested_bytes(&entry.text))
        .max();
    const SHORT: [&str; 4] = [
        "within workspace limit",
        "workspace memory",
        "increasing the workspace size",
        "insufficient to use tactic",
    ];
    let short = entries.iter().filter(all).any(|entry| {
        let text = entry.text.to_ascii_lowercase();
        SHORT.iter().any(|known| text.contains(known))
    });
    // The limit was large enough, but the GPU's memory was not.
    let full = entries
        .iter()
        .any(|entry| entry.text.contains("decreasing the workspace size"));
    if (needed.is_some() || short) && !full {
        return Error::WorkspaceTooSmall { needed, limit };
    }
    Error::Build {
        message: joined(entries),
    }
}

/// The error for an engine that cannot be deserialized, from its log messages.
pub(crate) fn deserialize_failure(entries: &[Entry]) -> Error {
    const STALE: [&str; 5] = [
        "Version tag does not match",
        "Platform specific tag mismatch",
        "generated on an incompatible device",
        "not compatible with this version",
        "lease rebuild",
    ];
    let message = joined(entries);
    let has = |known: &&str| entries.iter().any(|entry| entry.text.contains(*known));
    if STALE.iter().any(has) {
        return Error::Deserialize {
            message,
            stale: true,
        };
    }
    // The driver failed, not the engine: rebuilding it would not help.
    let driver = entries.iter().find(|entry| entry.is_error());
    if driver.is_some_and(|entry| entry.text.contains("Error Code 1: Cuda Runtime")) {
        return Error::Refused {
            call: "deserializeCudaEngine",
            message,
        };
    }
    Error::Deserialize {
        message,
        stale: false,
    }
}

/// Returns `N` of "Requested size was N bytes".
fn requested_bytes(text: &str) -> Option<u64> {
    let rest = text.split_once("Requested size was ")?.1;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// The first name between single or double quotes.
fn quoted(text: &str) -> Option<&str> {
    ['"', '\'']
        .iter()
        .find_map(|mark| text.split(*mark).nth(1).filter(|name| !name.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(severity: i32, text: &str) -> Entry {
        Entry {
            number: 0,
            severity,
            text: text.into(),
        }
    }

    #[test]
    fn a_missing_profile_is_recognized() {
        let log = [entry(
            1,
            "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (Network has dynamic or shape inputs, but no optimization profile has been defined.)",
        )];
        assert!(matches!(build_failure(&log, 1), Error::NoProfile { .. }));
    }

    #[test]
    fn the_requested_workspace_is_read_from_the_log() {
        let log = [
            entry(
                2,
                "Skipping tactic 0 due to insufficient memory. Requested size was 100 bytes.",
            ),
            entry(1, "x: Requested size was 285614268 bytes."),
        ];
        let expected = Error::WorkspaceTooSmall {
            needed: Some(285_614_268),
            limit: 1 << 28,
        };
        assert_eq!(build_failure(&log, 1 << 28), expected);
    }

    #[test]
    fn a_gpu_that_is_full_is_not_taken_for_a_small_limit() {
        let log = [entry(
            1,
            "Requested size was 9 bytes. Try decreasing the workspace size with IBuilderConfig::setMemoryPoolLimit().",
        )];
        assert!(matches!(build_failure(&log, 1), Error::Build { .. }));
    }

    #[test]
    fn an_unknown_failure_is_passed_on_in_one_bounded_line() {
        let log = [
            entry(3, "chatter"),
            entry(1, "first\nline"),
            entry(0, &"x".repeat(5000)),
        ];
        let Error::Build { message } = build_failure(&log, 1) else {
            panic!("not a build error")
        };
        assert!(
            message.starts_with("first line; xxx") && message.len() < 700,
            "{message}"
        );
        assert_eq!(joined(&[]), "no reason given");
    }

    #[test]
    fn an_engine_of_another_version_is_told_from_a_damaged_one() {
        let stale = [entry(
            1,
            "Serialization (Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed.Version tag does not match. Note: Current Version: 228, Serialized Engine Version: 213)",
        )];
        assert!(matches!(
            deserialize_failure(&stale),
            Error::Deserialize { stale: true, .. }
        ));
        let torn = [entry(1, "Error Code 1: Serialization (plan is truncated)")];
        assert!(matches!(
            deserialize_failure(&torn),
            Error::Deserialize { stale: false, .. }
        ));
    }
}
