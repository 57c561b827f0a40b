//! Checks of the configuration beyond what its types ensure.

mod heads;
mod track;

use std::path::Path;

use loftup_runtime::backend::Choice;
use loftup_wire::command::{MAX_POINTS, Refusal};

use super::{
    Config, ConfigError, Upsampler, WantName, endpoints,
    error::{Invalid, check_range, check_size, invalid, printable},
    size,
};
use crate::output::SLOTS;

/// Keys and values that were renamed.
const RENAMED: [(&str, &str); 8] = [
    ("backbone_every", "backbone_interval"),
    ("hold", "noise_threshold"),
    ("misses", "miss_limit"),
    ("grow_after", "recover_after"),
    ("most_restarts", "max_restarts"),
    ("least_pixels", "min_area_px"),
    ("most", "max_regions"),
    ("pictures", "images"),
];

/// Returns the error for text that is not TOML, or has an unknown key or value.
pub fn parse_error(error: &toml::de::Error, text: &str, path: &Path) -> ConfigError {
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
        // A table header, not an array.
        .find(|l| l.starts_with('[') && l.ends_with(']') && !l.contains(','));
    let table = table.unwrap_or_default().trim_matches(['[', ']']);
    let message = error.message().replace('\n', " ");
    let key_of = |line: &str| Some(line.trim().split_once('=')?.0.trim().to_owned());
    let key = match key_of(line) {
        // A multi-line array.
        None if message.contains("invalid length") => above.iter().rev().find_map(|l| key_of(l)),
        key => key,
    };
    let key = key.unwrap_or_default();
    let renamed = RENAMED.iter().find(|(old, _)| {
        message.starts_with(&format!("unknown field `{old}`"))
            || message.starts_with(&format!("unknown variant `{old}`"))
    });
    let hint = if let Some((_, new)) = renamed {
        &format!("it was renamed: use `{new}`")
    } else if message.contains("unknown field") {
        "remove or correct the key"
    } else if message.contains("missing field") {
        "add the key"
    } else if message.contains("unknown variant") || message.contains("invalid") {
        "correct the value"
    } else {
        "write it as TOML"
    };
    ConfigError {
        path: path.into(),
        key: format!(
            "line {}: {}",
            number + 1,
            printable(&qualified(table, &key))
        ),
        what: printable(&message),
        hint: hint.into(),
    }
}

/// A key with its table.
fn qualified(table: &str, key: &str) -> String {
    match (table, key) {
        ("", "") => "top level".into(),
        ("", name) | (name, "") => name.into(),
        (table, key) => format!("{table}.{key}"),
    }
}

pub fn check(config: &Config) -> Result<(), Invalid> {
    check_model(config)?;
    config.tensorrt.check(config.watchdog.hang_ms)?;
    check_frame_graph(config)?;
    endpoints::check_source(&config.source)?;
    check_times(config)?;
    check_degrade(config)?;
    check_thermal(config)?;
    if let Some(server) = config.metrics
        && !server.listen.ip().is_loopback()
    {
        return invalid(
            "metrics.listen",
            format!("{} is reachable from other machines", server.listen),
            "listen on 127.0.0.1, and forward the port if other machines need it",
        );
    }
    check_range("regions.max_regions", config.regions.max_regions, 1, 1024)?;
    track::check(config)?;
    check_queries(config)?;
    for (i, sink) in config.sink.iter().enumerate() {
        endpoints::check_sink(sink, &format!("sink[{i}]"))?;
        let same = config.sink.iter().take(i).any(|other| {
            other.kind == sink.kind
                && (other.path.is_some() && other.path == sink.path
                    || other.bind.is_some() && other.bind == sink.bind)
        });
        if same {
            return invalid(
                format!("sink[{i}]"),
                "another sink has the same path or address",
                "give each sink its own",
            );
        }
    }
    Ok(())
}

fn check_model(config: &Config) -> Result<(), Invalid> {
    let model = &config.model;
    if !model.bundle.is_dir() {
        return invalid(
            "model.bundle",
            format!("{} is not a bundle", model.bundle.display()),
            "use the directory that `loftup convert` wrote",
        );
    }
    let bundle = match loftup_bundle::Bundle::open(&model.bundle) {
        Ok(bundle) => bundle,
        Err(e) => return invalid("model.bundle", e.to_string(), ""),
    };
    let manifest = bundle.manifest();
    let needs_upsampler = config
        .levels()
        .iter()
        .map(|level| level.upsampler)
        .chain(config.track.iter().map(|track| track.upsampler))
        .any(|upsampler| upsampler == Upsampler::Loftup);
    for (part, missing, option) in [
        ("backbone", manifest.backbone.is_none(), "--backbone"),
        (
            "upsampler",
            needs_upsampler && manifest.upsampler.is_none(),
            "--upsampler-weights",
        ),
    ] {
        if missing {
            return invalid(
                "model.bundle",
                format!("the bundle has no {part}"),
                format!("convert it again with {option}"),
            );
        }
    }
    heads::check(config, manifest)?;
    check_size("model.size", model.size)?;
    check_range("model.threads", model.threads, 0, 256)?;
    check_range(
        "model.backbone_interval",
        model.backbone_interval,
        1,
        100_000,
    )?;
    check_range(
        "model.naf_statistics_interval",
        model.naf_statistics_interval,
        1,
        100_000,
    )?;
    let ranges = model.color_range.iter().flatten();
    if ranges
        .clone()
        .any(|[min, max]| !(min.is_finite() && max.is_finite() && min < max))
    {
        return invalid(
            "model.color_range",
            "each minimum must be less than its maximum",
            "use [min, max] for each of the three channels",
        );
    }
    Ok(())
}

/// Checks what the engine for whole frames needs.
fn check_frame_graph(config: &Config) -> Result<(), Invalid> {
    let key = "tensorrt.frame_graph";
    let model = &config.model;
    if !config.tensorrt.frame_graph {
        return Ok(());
    }
    if Choice::from(model.backend) == Choice::Tract {
        let why = "model.backend is tract";
        return invalid(
            key,
            why,
            "use model.backend auto or tensorrt, or remove the key",
        );
    }
    if config.source.size.is_none() {
        let why = "the size of the camera images is unknown";
        return invalid(key, why, "add source.size");
    }
    if config.track.is_some() || model.backbone_interval > 1 || model.noise_threshold > 0 {
        let why = "[track], model.backbone_interval and model.noise_threshold need the single steps of a frame";
        return invalid(key, why, "remove them, or this key");
    }
    Ok(())
}

fn check_times(config: &Config) -> Result<(), Invalid> {
    let p = &config.pipeline;
    check_range("pipeline.deadline_ms", p.deadline_ms, 1, 600_000)?;
    check_range("pipeline.max_age_ms", p.max_age_ms, 1, 3_600_000)?;
    if p.max_age_ms < p.deadline_ms {
        return invalid(
            "pipeline.max_age_ms",
            format!(
                "{} is less than the deadline of {}",
                p.max_age_ms, p.deadline_ms
            ),
            "must be at least deadline_ms",
        );
    }
    check_range("pipeline.queue", p.queue, 1, 2)?;
    check_range("pipeline.rate_hz", p.rate_hz, 0.0, 1000.0)?;
    check_range("pipeline.max_cpus", p.max_cpus, 0.0, 1024.0)?;
    let w = &config.watchdog;
    check_range("watchdog.hang_ms", w.hang_ms, 10, 3_600_000)?;
    check_range("watchdog.start_ms", w.start_ms, 100, 3_600_000)?;
    check_range("watchdog.max_restarts", w.max_restarts, 0, 1000)?;
    check_range("watchdog.window_s", w.window_s, 1, 86_400)?;
    check_range("watchdog.failures", w.failures, 1, 1_000_000)?;
    check_range("watchdog.drain_ms", w.drain_ms, 0, 60_000)
}

fn check_degrade(config: &Config) -> Result<(), Invalid> {
    let d = &config.degrade;
    check_range("degrade.miss_limit", d.miss_limit, 1, 100_000)?;
    check_range("degrade.recover_after", d.recover_after, 1, 1_000_000)?;
    check_range("degrade.early", d.early, 0.01, 1.0)?;
    check_range("degrade.step", d.step.len(), 0, 16)?;
    for (i, step) in d.step.iter().enumerate() {
        let key = |name: &str| format!("degrade.step[{i}].{name}");
        if let Some(sides) = step.size {
            check_size(&key("size"), sides)?;
        }
        if let Some(rate) = step.rate_hz {
            check_range(&key("rate_hz"), rate, 0.01, 1000.0)?;
        }
    }
    let levels = config.levels();
    for (i, pair) in levels.windows(2).enumerate() {
        let [a, b] = [pair[0], pair[1]];
        let key = format!("degrade.step[{i}]");
        if b == a {
            return invalid(
                key,
                "it does not change anything",
                "set a smaller size, upsampler = \"jbu\", regions_only or a lower rate_hz",
            );
        }
        if b.size.width > a.size.width || b.size.height > a.size.height {
            return invalid(
                format!("{key}.size"),
                "it is larger than in the step before",
                "each size must be smaller than the one before",
            );
        }
        if (a.upsampler, b.upsampler) == (Upsampler::Jbu, Upsampler::Loftup) {
            return invalid(
                format!("{key}.upsampler"),
                "loftup takes longer than jbu in the step before",
                "use jbu from one step on",
            );
        }
        if b.upsampler != config.model.upsampler && config.model.jbu.is_none() {
            return invalid(
                format!("{key}.upsampler"),
                "the heads are for features of another upsampler",
                "add [model.jbu] with heads for features of jbu; without a head, its queries are skipped",
            );
        }
        if a.rate_hz > 0.0 && b.rate_hz > a.rate_hz {
            return invalid(
                format!("{key}.rate_hz"),
                "it is higher than in the step before",
                "each rate must be lower than the one before",
            );
        }
    }
    Ok(())
}

fn check_thermal(config: &Config) -> Result<(), Invalid> {
    let Some(t) = &config.thermal else {
        return Ok(());
    };
    if t.zones.is_empty() {
        return invalid(
            "thermal.zones",
            "the list is empty",
            "list files such as /sys/class/thermal/thermal_zone0/temp",
        );
    }
    if let Some(zone) = t.zones.iter().find(|zone| !zone.is_file()) {
        return invalid(
            "thermal.zones",
            format!("{} is not a file", zone.display()),
            "list files such as /sys/class/thermal/thermal_zone0/temp",
        );
    }
    check_range("thermal.hot_c", t.hot_c, -40.0, 200.0)?;
    check_range("thermal.critical_c", t.critical_c, -40.0, 200.0)?;
    check_range("thermal.hysteresis_c", t.hysteresis_c, 0.0, 100.0)?;
    check_range("thermal.period_ms", t.period_ms, 10, 60_000)?;
    check_range("thermal.step_ms", t.step_ms, 10, 3_600_000)?;
    if t.critical_c - t.hot_c <= t.hysteresis_c {
        return invalid(
            "thermal.critical_c",
            format!("{} is not above hot_c + hysteresis_c", t.critical_c),
            "set a higher limit or a smaller hysteresis",
        );
    }
    Ok(())
}

fn check_queries(config: &Config) -> Result<(), Invalid> {
    let camera = config.source.size.map(size);
    for (i, entry) in config.query.iter().enumerate() {
        let key = |name: &str| format!("query[{i}].{name}");
        check_range(&key("slot"), usize::from(entry.slot), 0, SLOTS - 1)?;
        if config
            .query
            .iter()
            .take(i)
            .any(|other| other.slot == entry.slot)
        {
            return invalid(
                key("slot"),
                format!("slot {} is used twice", entry.slot),
                "give each query its own slot",
            );
        }
        if entry.region.is_some() && entry.points.is_some() {
            return invalid(
                key("points"),
                "the query also has a region",
                "set one of them, or neither for the whole frame",
            );
        }
        if let Some(points) = &entry.points {
            check_range(&key("points"), points.len(), 1, MAX_POINTS)?;
        }
        let area = if entry.points.is_some() {
            "points"
        } else {
            "region"
        };
        match entry.query().check(camera) {
            Ok(()) => {}
            Err(Refusal::OutOfPicture) => {
                return invalid(
                    key(area),
                    "it is empty or extends outside the image",
                    "must be within source.size",
                );
            }
            Err(_) => {
                return invalid(
                    key("want"),
                    "not available for this area",
                    "features need points; regions need a region or the whole frame; objects need the whole frame",
                );
            }
        }
        let (missing, hint) = match entry.want {
            WantName::Depth => (
                config.model.depth.is_none(),
                "set model.depth to a head that outputs depth",
            ),
            WantName::Words => (config.words.is_none(), "add [words]"),
            WantName::Objects => (config.track.is_none(), "add [track]"),
            _ => (false, ""),
        };
        if missing {
            return invalid(key("want"), "this node cannot compute it", hint);
        }
    }
    Ok(())
}
