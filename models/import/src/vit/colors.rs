//! Mean and standard deviation of colors in the config files of libraries.

use std::path::{Path, PathBuf};

use loftup_bundle::Normalization;
use serde_json::Value;

use crate::config_json::shown;

/// Mean and standard deviation, and the file that they come from.
#[derive(Debug, Clone)]
pub(super) struct Colors {
    pub path: PathBuf,
    pub colors: Normalization,
}

impl Colors {
    pub fn of(path: &Path, json: &Value, mean: &str, std: &str) -> Result<Option<Self>, String> {
        let triple = |key: &str| -> Result<Option<[f32; 3]>, String> {
            let Some(value) = json.get(key).filter(|v| !v.is_null()) else {
                return Ok(None);
            };
            let numbers: Option<Vec<f32>> = value.as_array().map(|a| {
                a.iter()
                    .filter_map(Value::as_f64)
                    .map(|x| x as f32)
                    .collect()
            });
            numbers
                .and_then(|n| <[f32; 3]>::try_from(n).ok())
                .filter(|n| n.iter().all(|x| x.is_finite()))
                .map(Some)
                .ok_or_else(|| format!("{key} is {}, not three numbers", shown(value)))
        };
        let (mean, std) = match json.get("do_normalize") {
            Some(Value::Bool(false)) => ([0.0; 3], [1.0; 3]),
            _ => match (triple(mean)?, triple(std)?) {
                (Some(mean), Some(std)) => (mean, std),
                _ => return Ok(None),
            },
        };
        if std.iter().any(|x| *x <= 0.0) {
            return Err(format!("the standard deviation {std:?} is not positive"));
        }
        Ok(Some(Self {
            path: path.into(),
            colors: Normalization { mean, std },
        }))
    }
}
