//! Checks the settings of words and of tracked objects.

use crate::{
    config::{
        Config,
        error::{Invalid, check_range, invalid},
        size,
    },
    objects::{ObjectSeed, seed_of},
};

/// Checks the settings of words and of tracked objects.
pub fn check(config: &Config) -> Result<(), Invalid> {
    if let Some(directory) = config.words.as_ref().and_then(|w| w.directory.as_ref())
        && !directory.is_dir()
    {
        return invalid(
            "words.directory",
            format!("{} is not a directory", directory.display()),
            "create it, or remove the key",
        );
    }
    let Some(track) = &config.track else {
        return Ok(());
    };
    check_range("track.grid", track.grid[0], 1, 1024)?;
    check_range("track.grid", track.grid[1], 1, 1024)?;
    check_range("track.radius", track.radius, 0, 1024)?;
    check_range("track.last_frames", track.last_frames, 0, 64)?;
    check_range("track.top_k", track.top_k, 1, 254)?;
    check_range("track.temperature", track.temperature, 0.01, 100.0)?;
    check_range("track.min_label", track.min_label, 0.0, 1.0)?;
    check_range("track.max_objects", track.max_objects, 1, 64)?;
    check_range("track.threads", track.threads, 1, 256)?;
    let camera = config.source.size.map(size);
    for (i, entry) in track.object.iter().enumerate() {
        let key = |name: &str| format!("track.object[{i}].{name}");
        check_range(&key("object"), entry.object, 1, track.max_objects)?;
        let before = &track.object[..i];
        if before.iter().any(|other| other.object == entry.object) {
            return invalid(
                key("object"),
                format!("object {} is there twice", entry.object),
                "give each object its own number",
            );
        }
        let Some(seed) = seed_of(entry.region, entry.point) else {
            return invalid(
                key("region"),
                "an object needs a region or a point",
                "set one of them, and not both",
            );
        };
        if ObjectSeed::check(&seed, camera).is_err() {
            let area = if entry.point.is_some() {
                "point"
            } else {
                "region"
            };
            return invalid(
                key(area),
                "it is empty or extends outside the image",
                "must be within source.size",
            );
        }
    }
    Ok(())
}
