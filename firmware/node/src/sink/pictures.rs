//! Class maps as pictures in a folder.

use std::{collections::VecDeque, path::PathBuf};

use loftup_runtime::{heads::NO_CLASS, image::Rgb8};

use super::{Context, Sink, SinkError, series::Every};
use crate::answer::{Answer, Kind};

/// Writes `frame-SEQUENCE-slot-SLOT.png`, one colour for each class.
#[derive(Debug)]
pub struct Pictures {
    name: String,
    folder: PathBuf,
    every: Every,
    keep: u64,
    written: VecDeque<PathBuf>,
}

impl Pictures {
    /// Into `folder`, which is made; every `every`-th answer, of which the last `keep` pictures
    /// stay (0: all).
    ///
    /// # Errors
    /// Where the folder cannot be made.
    pub fn open(folder: PathBuf, every: u64, keep: u64) -> Result<Self, SinkError> {
        std::fs::create_dir_all(&folder).map_err(|cause| SinkError::Io {
            path: folder.clone(),
            cause,
        })?;
        Ok(Self {
            name: format!("pictures {}", folder.display()),
            folder,
            every: Every::new(every),
            keep,
            written: VecDeque::new(),
        })
    }
}

/// A colour for each class: far apart for neighbouring numbers. No class is black.
pub fn colour(class: u8) -> [u8; 3] {
    if class == NO_CLASS {
        return [0; 3];
    }
    // Steps of the golden angle around the circle of hues, at three brightnesses.
    let hue = (f32::from(class) * 0.618_034).fract() * 6.0;
    let bright = [1.0, 0.75, 0.55][usize::from(class) % 3];
    let channel = |offset: f32| {
        let h = (hue + offset) % 6.0;
        let x = (h - 3.0).abs().clamp(1.0, 2.0) - 1.0;
        (255.0 * bright * (0.15 + 0.85 * x)) as u8
    };
    [channel(0.0), channel(4.0), channel(2.0)]
}

impl Sink for Pictures {
    fn name(&self) -> &str {
        &self.name
    }

    fn answer(&mut self, answer: &Answer, _: &Context<'_>) -> Result<(), SinkError> {
        if !self.every.is_due() {
            return Ok(());
        }
        let maps = answer
            .parts()
            .iter()
            .filter(|p| p.kind == Kind::Classes && p.height > 1);
        for part in maps {
            let rgb = part.classes.iter().flat_map(|c| colour(*c)).collect();
            let bad = |e: loftup_runtime::image::ImageError| SinkError::Other(e.to_string());
            let picture = Rgb8::new(part.width, part.height, rgb).map_err(bad)?;
            let file = format!("frame-{:08}-slot-{}.png", answer.sequence, part.slot);
            let path = self.folder.join(file);
            picture.save_png(&path).map_err(bad)?;
            if self.keep == 0 {
                continue;
            }
            self.written.push_back(path);
            while self.written.len() as u64 > self.keep
                && let Some(old) = self.written.pop_front()
            {
                std::fs::remove_file(&old).map_err(|cause| SinkError::Io { path: old, cause })?;
            }
        }
        Ok(())
    }
}
