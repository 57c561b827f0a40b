//! What the types of the configuration do not say.

use std::path::Path;

use loftup_wire::command::{MAX_POINTS, Refusal};

use super::{
    Config, ConfigError, ends,
    mistake::{Mistake, check_size, printable, within, wrong},
    size,
};
use crate::answer::SLOTS;

/// Where the text is not TOML, or a key or value is none of ours.
pub fn not_understood(error: &toml::de::Error, text: &str, path: &Path) -> ConfigError {
    let at = error.span().map_or(0, |span| span.start).min(text.len());
    let before = text.get(..at).unwrap_or(text);
    let number = before.matches('\n').count();
    let lines: Vec<&str> = text.lines().collect();
    let line = lines.get(number).copied().unwrap_or_default().trim();
    let above = lines
        .get(..=number.min(lines.len().saturating_sub(1)))
        .unwrap_or_default();
    let table = above
        .iter()
        .rev()
        .map(|l| l.trim())
        // A table, and not an element of a list.
        .find(|l| l.starts_with('[') && l.ends_with(']') && !l.contains(','));
    let table = table.unwrap_or_default().trim_matches(['[', ']']);
    let message = error.message().replace('\n', " ");
    let key_of = |line: &str| Some(line.trim().split_once('=')?.0.trim().to_owned());
    let key = match key_of(line) {
        // A list that began lines before.
        None if message.contains("invalid length") => above.iter().rev().find_map(|l| key_of(l)),
        key => key,
    };
    let key = key.unwrap_or_default();
    let remedy = if message.contains("unknown field") {
        "remove or correct the key"
    } else if message.contains("missing field") {
        "add the key"
    } else if message.contains("unknown variant") || message.contains("invalid") {
        "correct the value"
    } else {
        "write it as TOML"
    };
    let mut name = [table, key.as_str()]
        .into_iter()
        .filter(|s| !s.is_empty())
        .collect::<Vec<_>>()
        .join(".");
    if name.is_empty() {
        name = "top level".into();
    }
    ConfigError {
        path: path.into(),
        key: format!("line {}: {}", number + 1, printable(&name)),
        what: printable(&message),
        remedy: remedy.into(),
    }
}

pub fn check(config: &Config) -> Result<(), Mistake> {
    check_model(config)?;
    config.tensorrt.check(config.watchdog.hang_ms)?;
    ends::check_source(&config.source)?;
    check_times(config)?;
    check_degrade(config)?;
    check_thermal(config)?;
    if let Some(server) = config.metrics
        && !server.listen.ip().is_loopback()
    {
        return wrong(
            "metrics.listen",
            format!("{} can be reached from other machines", server.listen),
            "listen on 127.0.0.1, and forward it where it is needed elsewhere",
        );
    }
    within("regions.max_regions", config.regions.max_regions, 1, 1024)?;
    check_queries(config)?;
    for (i, sink) in config.sink.iter().enumerate() {
        ends::check_sink(sink, &format!("sink[{i}]"))?;
        let same = config.sink.iter().take(i).any(|other| {
            other.kind == sink.kind
                && (other.path.is_some() && other.path == sink.path
                    || other.bind.is_some() && other.bind == sink.bind)
        });
        if same {
            return wrong(
                format!("sink[{i}]"),
                "another sink has the same place",
                "give each its own path or address",
            );
        }
    }
    Ok(())
}

fn check_model(config: &Config) -> Result<(), Mistake> {
    let model = &config.model;
    if !model.bundle.is_dir() {
        return wrong(
            "model.bundle",
            format!("{} is no bundle", model.bundle.display()),
            "name the folder that `loftup convert` made",
        );
    }
    let bundle = match loftup_bundle::Bundle::open(&model.bundle) {
        Ok(bundle) => bundle,
        Err(e) => return wrong("model.bundle", e.to_string(), ""),
    };
    let manifest = bundle.manifest();
    for (part, missing, option) in [
        ("backbone", manifest.backbone.is_none(), "--backbone"),
        (
            "upsampler",
            manifest.upsampler.is_none(),
            "--upsampler-weights",
        ),
    ] {
        if missing {
            return wrong(
                "model.bundle",
                format!("the bundle has no {part}"),
                format!("convert it again with {option}"),
            );
        }
    }
    let names = manifest
        .heads
        .keys()
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    let known = if names.is_empty() {
        "none".to_owned()
    } else {
        names
    };
    for (key, name, classes) in [
        ("model.head", Some(&model.head), true),
        ("model.descriptors", model.descriptors.as_ref(), false),
    ] {
        let Some(name) = name else { continue };
        let Some(head) = manifest.heads.get(name) else {
            return wrong(
                key,
                format!("the bundle has no head {name:?}, only {known}"),
                "make one with `loftup head`, or name another",
            );
        };
        let is_classes = matches!(head.kind, loftup_bundle::HeadKind::Classes { .. });
        if is_classes != classes {
            let wanted = if classes { "classes" } else { "descriptors" };
            return wrong(
                key,
                format!("head {name:?} does not give {wanted}"),
                format!("name a head that gives {wanted}"),
            );
        }
    }
    check_size("model.size", model.size)?;
    within("model.threads", model.threads, 0, 256)?;
    within(
        "model.backbone_interval",
        model.backbone_interval,
        1,
        100_000,
    )?;
    let ranges = model.color_range.iter().flatten();
    if ranges
        .clone()
        .any(|[min, max]| !(min.is_finite() && max.is_finite() && min < max))
    {
        return wrong(
            "model.color_range",
            "a minimum is not below its maximum",
            "give [min, max] for each of the three channels",
        );
    }
    Ok(())
}

fn check_times(config: &Config) -> Result<(), Mistake> {
    let p = &config.pipeline;
    within("pipeline.deadline_ms", p.deadline_ms, 1, 600_000)?;
    within("pipeline.max_age_ms", p.max_age_ms, 1, 3_600_000)?;
    if p.max_age_ms < p.deadline_ms {
        return wrong(
            "pipeline.max_age_ms",
            format!(
                "{} is less than the deadline of {}",
                p.max_age_ms, p.deadline_ms
            ),
            "give at least deadline_ms",
        );
    }
    within("pipeline.queue", p.queue, 1, 2)?;
    within("pipeline.rate_hz", p.rate_hz, 0.0, 1000.0)?;
    let w = &config.watchdog;
    within("watchdog.hang_ms", w.hang_ms, 10, 3_600_000)?;
    within("watchdog.start_ms", w.start_ms, 100, 3_600_000)?;
    within("watchdog.most_restarts", w.most_restarts, 0, 1000)?;
    within("watchdog.window_s", w.window_s, 1, 86_400)?;
    within("watchdog.failures", w.failures, 1, 1_000_000)?;
    within("watchdog.drain_ms", w.drain_ms, 0, 60_000)
}

fn check_degrade(config: &Config) -> Result<(), Mistake> {
    let d = &config.degrade;
    within("degrade.miss_limit", d.miss_limit, 1, 100_000)?;
    within("degrade.recover_after", d.recover_after, 1, 1_000_000)?;
    within("degrade.early", d.early, 0.01, 1.0)?;
    within("degrade.step", d.step.len(), 0, 16)?;
    for (i, step) in d.step.iter().enumerate() {
        let key = |name: &str| format!("degrade.step[{i}].{name}");
        if let Some(sides) = step.size {
            check_size(&key("size"), sides)?;
        }
        if let Some(rate) = step.rate_hz {
            within(&key("rate_hz"), rate, 0.01, 1000.0)?;
        }
    }
    let levels = config.levels();
    for (i, pair) in levels.windows(2).enumerate() {
        let [a, b] = [pair[0], pair[1]];
        let key = format!("degrade.step[{i}]");
        if b == a {
            return wrong(
                key,
                "it changes nothing",
                "give it a smaller size, regions_only or a lower rate_hz",
            );
        }
        if b.size.width > a.size.width || b.size.height > a.size.height {
            return wrong(
                format!("{key}.size"),
                "it is larger than before",
                "let each step be smaller than the last",
            );
        }
        if a.rate_hz > 0.0 && b.rate_hz > a.rate_hz {
            return wrong(
                format!("{key}.rate_hz"),
                "it is higher than before",
                "let each step be slower than the last",
            );
        }
    }
    Ok(())
}

fn check_thermal(config: &Config) -> Result<(), Mistake> {
    let Some(t) = &config.thermal else {
        return Ok(());
    };
    if t.zones.is_empty() {
        return wrong(
            "thermal.zones",
            "there is none",
            "name files such as /sys/class/thermal/thermal_zone0/temp",
        );
    }
    if let Some(zone) = t.zones.iter().find(|zone| !zone.is_file()) {
        return wrong(
            "thermal.zones",
            format!("{} is no file", zone.display()),
            "name files such as /sys/class/thermal/thermal_zone0/temp",
        );
    }
    within("thermal.hot_c", t.hot_c, -40.0, 200.0)?;
    within("thermal.critical_c", t.critical_c, -40.0, 200.0)?;
    within("thermal.hysteresis_c", t.hysteresis_c, 0.0, 100.0)?;
    within("thermal.period_ms", t.period_ms, 10, 60_000)?;
    within("thermal.step_ms", t.step_ms, 10, 3_600_000)?;
    if t.critical_c - t.hot_c <= t.hysteresis_c {
        return wrong(
            "thermal.critical_c",
            format!("{} is not above hot_c + hysteresis_c", t.critical_c),
            "give a higher limit, or a smaller hysteresis",
        );
    }
    Ok(())
}

fn check_queries(config: &Config) -> Result<(), Mistake> {
    let camera = config.source.size.map(size);
    for (i, entry) in config.query.iter().enumerate() {
        let key = |name: &str| format!("query[{i}].{name}");
        within(&key("slot"), usize::from(entry.slot), 0, SLOTS - 1)?;
        if config
            .query
            .iter()
            .take(i)
            .any(|other| other.slot == entry.slot)
        {
            return wrong(
                key("slot"),
                format!("slot {} is taken", entry.slot),
                "give each query its own",
            );
        }
        if entry.region.is_some() && entry.points.is_some() {
            return wrong(
                key("points"),
                "there is a region too",
                "give one of both, or neither for the frame",
            );
        }
        if let Some(points) = &entry.points {
            within(&key("points"), points.len(), 1, MAX_POINTS)?;
        }
        let area = if entry.points.is_some() {
            "points"
        } else {
            "region"
        };
        match entry.query().check(camera) {
            Ok(()) => {}
            Err(Refusal::OutOfPicture) => {
                return wrong(
                    key(area),
                    "it extends outside the image, or is empty",
                    "stay within source.size",
                );
            }
            Err(_) => {
                return wrong(
                    key("want"),
                    "that cannot be told of this area",
                    "ask for features at points, for regions in a region or the frame",
                );
            }
        }
    }
    Ok(())
}
