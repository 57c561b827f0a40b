//! The training record next to upsampler weights.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
};

use loftup_bundle::{Training, sha256_hex};
use serde::{Deserialize, de::IgnoredAny};

/// Name of the record, which `loftup train` writes next to the weights.
const RECORD: &str = "provenance.json";

/// Maximum size of a record.
const MAX_BYTES: u64 = 16 << 20;

/// The fields that are used.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    tool: String,
    weights_sha256: String,
    config: Settings,
    steps: u64,
    data_fingerprint: String,
    images: u64,
    images_with_masks: u64,
    #[serde(rename = "skipped_images")]
    _skipped_images: IgnoredAny,
    #[serde(rename = "skipped_masks")]
    _skipped_masks: IgnoredAny,
    backbone_sha256: String,
    start_sha256: Option<String>,
    losses: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct Settings {
    stage: u8,
    seed: u64,
    init: Option<String>,
}

/// The training record of the weights at `weights`, if there is one with their SHA-256. An invalid
/// record is ignored with a warning, because the weights can be used without it.
pub(crate) fn read_for(weights: &Path, sha256: &str) -> Option<Training> {
    let path = weights.with_file_name(RECORD);
    match read(&path, sha256) {
        Ok(training) => training,
        Err(what) => {
            log::warn!(
                "{}: {what}; the training is not recorded in the bundle",
                path.display()
            );
            None
        }
    }
}

fn read(path: &Path, sha256: &str) -> Result<Option<Training>, String> {
    let file = match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|e| e.to_string())?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| e.to_string())?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!(
            "larger than {} MiB, not a training record",
            MAX_BYTES >> 20
        ));
    }
    let record: Record =
        serde_json::from_slice(&bytes).map_err(|e| format!("not a training record: {e}"))?;
    if record.weights_sha256 != sha256 {
        return Err("the record belongs to other weights".into());
    }
    let init =
        (record.config.init).filter(|init| record.start_sha256.is_none() && init != "random");
    let training = Training {
        init,
        tool: record.tool,
        stage: record.config.stage,
        steps: record.steps,
        seed: record.config.seed,
        images: record.images,
        images_with_masks: record.images_with_masks,
        data_fingerprint: record.data_fingerprint,
        weights_sha256: record.weights_sha256,
        backbone_sha256: record.backbone_sha256,
        start_sha256: record.start_sha256,
        losses: record.losses,
        record_sha256: sha256_hex(&bytes),
    };
    training.validate()?;
    Ok(Some(training))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(weights: &str) -> String {
        let hash = |c: &str| c.repeat(64);
        format!(
            r#"{{"tool": "loftup 0.1.0", "weights_sha256": "{weights}",
                "config": {{"stage": 2, "seed": 5, "init": "bilateral", "out": "anything"}}, "steps": 9,
                "data_fingerprint": "{}", "images": 3, "images_with_masks": 1,
                "skipped_images": ["a.png"], "skipped_masks": [], "backbone_sha256": "{}",
                "start_sha256": null, "losses": {{"total": 0.5}}}}"#,
            hash("1"),
            hash("2")
        )
    }

    #[test]
    fn invalid_records_and_those_of_other_weights_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(RECORD);
        let sha256 = "a".repeat(64);
        assert_eq!(read(&path, &sha256), Ok(None));
        let text = record(&sha256);
        std::fs::write(&path, &text).unwrap();
        let training = read(&path, &sha256).unwrap().unwrap();
        assert_eq!((training.stage, training.seed, training.steps), (2, 5, 9));
        assert_eq!(training.init.as_deref(), Some("bilateral"));
        assert_eq!(training.record_sha256, sha256_hex(text.as_bytes()));
        assert_eq!(training.losses["total"], 0.5);

        let cases = [
            (record(&"b".repeat(64)), "other weights"),
            (text.replace("\"steps\"", "\"stairs\""), "stairs"),
            (text.replace("\"stage\": 2", "\"stage\": 7"), "stage 7"),
            (text[..text.len() / 2].to_owned(), "EOF"),
            ("[".repeat(100_000), "invalid type"),
            (" ".repeat(MAX_BYTES as usize + 1), "16 MiB"),
        ];
        for (text, what) in cases {
            std::fs::write(&path, &text).unwrap();
            let error = read(&path, &sha256).unwrap_err();
            assert!(error.contains(what), "{what}: {error}");
            assert_eq!(read_for(&dir.path().join("w.safetensors"), &sha256), None);
        }
    }
}
