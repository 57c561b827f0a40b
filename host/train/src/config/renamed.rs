//! Former names of settings, for error messages that suggest the current name.

/// Former and current names. Each former name was used in one table only.
const RENAMED: [(&str, &str); 13] = [
    ("begin", "init"),
    ("most_masks", "data.max_masks"),
    ("least", "data.segmentation.min_area"),
    ("batch", "run.batch_size"),
    ("picture", "run.preview_image"),
    ("picture_every", "run.preview_every"),
    ("rate", "optimizer.learning_rate"),
    ("jitters", "loss.augmentations"),
    ("variation", "loss.tv_weight"),
    ("balance", "stage1.area_weighting"),
    ("keep", "stage2.ema_decay"),
    ("interpolating", "bilinear"),
    ("fitted", "calibrated"),
];

/// Returns the current name of the unknown field or variant in an error message of the TOML parser.
pub(super) fn remedy(message: &str) -> Option<String> {
    let (kind, rest) = message
        .strip_prefix("unknown field `")
        .map(|rest| ("setting", rest))
        .or_else(|| {
            let rest = message.strip_prefix("unknown variant `")?;
            Some(("value", rest))
        })?;
    let old = rest.split_once('`')?.0;
    let new = RENAMED.iter().find(|(name, _)| *name == old)?.1;
    Some(format!("unknown {kind} `{old}`: it is now `{new}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_former_names_have_a_remedy() {
        assert_eq!(
            remedy("unknown field `rate`, expected one of `method`").as_deref(),
            Some("unknown setting `rate`: it is now `optimizer.learning_rate`")
        );
        assert_eq!(
            remedy("unknown variant `fitted`, expected `random`").as_deref(),
            Some("unknown value `fitted`: it is now `calibrated`")
        );
        for other in [
            "unknown field `sead`, expected `seed`",
            "missing field `rate`",
        ] {
            assert_eq!(remedy(other), None);
        }
    }
}
