//! The configuration file. Its keys are documented in `docs/node.md`.

mod arrays;
mod check;
mod endpoints;
mod engine;
mod error;
mod heads;
mod tables;
mod track;

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use loftup_bundle::Size;
use loftup_runtime::video::is_url;
use loftup_wire::{
    command::{Area, Want},
    message,
};

pub use engine::TensorRt;
pub use error::ConfigError;
pub use heads::{HeadNames, JbuHeads};
pub use tables::*;
pub use track::{ObjectEntry, Track, Upsampler, Words};

use crate::output::{Queries, Query};

/// Maximum size of a configuration file.
const MAX_BYTES: u64 = 1 << 20;

/// The settings of a degradation step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// Size of a full-frame output.
    pub size: Size,
    /// Skips maps of the whole frame.
    pub regions_only: bool,
    /// How features are upsampled to the resolution of the output.
    pub upsampler: Upsampler,
    /// Maximum frame rate, 0 for no limit.
    pub rate_hz: f64,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The first error that is found.
    pub fn open(path: &Path) -> Result<Self, ConfigError> {
        let invalid = |what: String| ConfigError {
            path: path.into(),
            key: "file".into(),
            what,
            hint: "use a readable configuration file".into(),
        };
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text))
            .map_err(|e| invalid(e.to_string()))?;
        if text.len() as u64 > MAX_BYTES {
            return Err(invalid(format!("it is longer than {MAX_BYTES} bytes")));
        }
        Self::parse(&text, path)
    }

    /// Parses and checks the text of the file `path`. Relative paths in it are relative to the
    /// directory of the file.
    ///
    /// # Errors
    /// The first error that is found.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self =
            toml::from_str(text).map_err(|e| check::parse_error(&e, text, path))?;
        let directory = path.parent().unwrap_or(Path::new(""));
        config.rebase(directory);
        check::check(&config).map_err(|m| m.in_file(path))?;
        Ok(config)
    }

    /// Warnings, one line each: devices that do not exist yet. The node starts without them.
    pub fn warnings(&self) -> Vec<String> {
        let source = match self.source.kind {
            SourceKind::V4l => self.source.path.as_ref(),
            _ => None,
        };
        let source = source.map(|path| ("source".to_owned(), path));
        let sinks = self.sink.iter().enumerate();
        let serial = sinks.filter(|(_, sink)| sink.kind == SinkKind::Serial);
        let serial = serial.filter_map(|(i, s)| Some((format!("sink[{i}]"), s.path.as_ref()?)));
        let devices = source.into_iter().chain(serial);
        devices
            .filter(|(_, path)| !path.exists())
            .map(|(table, path)| {
                let path = path.display();
                format!("{table}.path: {path} does not exist yet: the node will wait for it")
            })
            .collect()
    }

    fn rebase(&mut self, directory: &Path) {
        let rebase = |path: &mut PathBuf| *path = directory.join(&*path);
        rebase(&mut self.model.bundle);
        self.tensorrt.paths().for_each(rebase);
        let source = self.source.path.iter_mut();
        source.filter(|path| !is_url(path)).for_each(rebase);
        let words = self.words.iter_mut();
        words.filter_map(|w| w.directory.as_mut()).for_each(rebase);
        self.sink
            .iter_mut()
            .filter_map(|s| s.path.as_mut())
            .for_each(rebase);
    }

    /// Returns the settings of each degradation step, starting at step 0.
    pub fn levels(&self) -> Vec<Level> {
        let mut level = Level {
            size: size(self.model.size),
            regions_only: false,
            upsampler: self.model.upsampler,
            rate_hz: self.pipeline.rate_hz,
        };
        let mut levels = vec![level];
        for step in &self.degrade.step {
            level.size = step.size.map_or(level.size, size);
            level.regions_only |= step.regions_only;
            level.upsampler = step.upsampler.unwrap_or(level.upsampler);
            level.rate_hz = step.rate_hz.unwrap_or(level.rate_hz);
            levels.push(level);
        }
        levels
    }

    /// The queries, by slot.
    pub fn queries(&self) -> Queries {
        let mut queries = Queries::default();
        if self.query.is_empty() {
            queries[0] = Some(Query {
                area: Area::Frame,
                want: Want::Classes,
            });
        }
        for entry in &self.query {
            if let Some(slot) = queries.get_mut(usize::from(entry.slot)) {
                *slot = Some(entry.query());
            }
        }
        queries
    }
}

impl QueryEntry {
    fn query(&self) -> Query {
        let area = match (&self.region, &self.points) {
            (Some([x, y, width, height]), _) => Area::Region(message::Rect {
                x: *x,
                y: *y,
                width: *width,
                height: *height,
            }),
            (None, Some(points)) => Area::Points(
                points
                    .iter()
                    .map(|[x, y]| message::Point { x: *x, y: *y })
                    .take(64)
                    .collect(),
            ),
            (None, None) => Area::Frame,
        };
        let want = match self.want {
            WantName::Classes => Want::Classes,
            WantName::Regions => Want::Regions,
            WantName::FeaturesF16 => Want::FeaturesF16,
            WantName::FeaturesU8 => Want::FeaturesU8,
            WantName::Depth => Want::Depth,
            WantName::Objects => Want::Objects,
            WantName::Words => Want::Words,
        };
        Query { area, want }
    }
}

/// Converts `[columns, rows]`.
pub fn size([width, height]: [usize; 2]) -> Size {
    Size { width, height }
}
