//! Class maps as images in a folder.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use loftup_runtime::{heads::NO_CLASS, image::RgbImage};

use super::{
    Context, Sink, SinkError,
    disk::{Disk, Local},
    series::{Every, Retry, entries},
};
use crate::{
    answer::{Answer, Kind, Part},
    health::Reason,
};

/// Writes `frame-SEQUENCE-slot-SLOT.png`, one color for each class. Where the folder has images
/// of an earlier start, names begin with `run-0001-`, or the next number after those there.
pub struct PngSink {
    name: String,
    folder: PathBuf,
    every: Every,
    keep: u64,
    disk: Box<dyn Disk>,
    retry: Retry,
    /// Of the starts that wrote into the folder, from 0.
    run: Option<u64>,
    written: VecDeque<PathBuf>,
    /// PngSink that were not written.
    missed: u64,
    png: Vec<u8>,
}

impl PngSink {
    /// Into `folder`, which is made; every `every`-th output, of which the last `keep` images
    /// stay (0: all). PngSink of earlier starts stay in any case.
    pub fn new(folder: PathBuf, every: u64, keep: u64) -> Self {
        Self::on(Box::new(Local), folder, every, keep, Retry::new())
    }

    fn on(disk: Box<dyn Disk>, folder: PathBuf, every: u64, keep: u64, retry: Retry) -> Self {
        Self {
            name: format!("pictures {}", folder.display()),
            folder,
            every: Every::new(every),
            keep,
            disk,
            retry,
            run: None,
            written: VecDeque::new(),
            missed: 0,
            png: Vec::new(),
        }
    }

    /// Writes the image at hand under a name that is free.
    fn put(&mut self, sequence: u64, slot: u8) -> io::Result<PathBuf> {
        std::fs::create_dir_all(&self.folder)?;
        self.retry.probe(&*self.disk, &self.folder)?;
        let mut run = self.run.unwrap_or_else(|| next_run(&self.folder));
        loop {
            let path = self.folder.join(name(run, sequence, slot));
            match self.disk.put_new(&path, &self.png) {
                Ok(()) => {
                    self.run = Some(run);
                    return Ok(path);
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => run += 1,
                Err(e) => return Err(e),
            }
        }
    }

    fn map(&mut self, sequence: u64, part: &Part) -> Result<(), SinkError> {
        if !self.retry.is_due() {
            self.missed += 1;
            return Ok(());
        }
        let rgb = part.classes.iter().flat_map(|c| color(*c)).collect();
        let bad = |e: loftup_runtime::image::ImageError| SinkError::Other(e.to_string());
        let picture = RgbImage::new(part.width, part.height, rgb).map_err(bad)?;
        self.png.clear();
        let encoded = picture.encode_png(&mut self.png);
        encoded.map_err(|e| SinkError::Other(e.to_string()))?;
        match self.put(sequence, part.slot) {
            Ok(path) => {
                self.retry.worked();
                self.forget(path)
            }
            Err(cause) => {
                self.missed += 1;
                let path = self.folder.clone();
                let bytes = self.png.len() as u64;
                self.retry.failed(bytes, SinkError::Io { path, cause })
            }
        }
    }

    /// Removes the oldest images of this start, where there are more than are kept.
    fn forget(&mut self, newest: PathBuf) -> Result<(), SinkError> {
        if self.keep == 0 {
            return Ok(());
        }
        self.written.push_back(newest);
        while self.written.len() as u64 > self.keep
            && let Some(old) = self.written.pop_front()
        {
            std::fs::remove_file(&old).map_err(|cause| SinkError::Io { path: old, cause })?;
        }
        Ok(())
    }
}

fn name(run: u64, sequence: u64, slot: u8) -> String {
    match run {
        0 => format!("frame-{sequence:08}-slot-{slot}.png"),
        _ => format!("run-{run:04}-frame-{sequence:08}-slot-{slot}.png"),
    }
}

/// The number after the highest in the folder. Where it cannot be listed, 0.
fn next_run(folder: &Path) -> u64 {
    let runs = entries(folder).filter_map(|file| run_of(&file));
    runs.max().map_or(0, |highest| highest.saturating_add(1))
}

fn run_of(file: &OsStr) -> Option<u64> {
    let file = file.to_str()?;
    if file.starts_with("frame-") {
        return Some(0);
    }
    let (number, _) = file.strip_prefix("run-")?.split_once("-frame-")?;
    number.parse().ok().filter(|n| *n < u64::MAX)
}

/// A color for each class: far apart for neighboring numbers. No class is black.
pub fn color(class: u8) -> [u8; 3] {
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

impl Sink for PngSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn answer(&mut self, answer: &Answer, _: &Context<'_>) -> Result<(), SinkError> {
        if !self.every.is_due() {
            return Ok(());
        }
        answer
            .parts()
            .iter()
            .filter(|p| p.kind == Kind::Classes && p.height > 1)
            .try_for_each(|part| self.map(answer.sequence, part))
    }

    fn not_written(&self) -> u64 {
        self.missed
    }

    fn reason(&self) -> Reason {
        Reason::Storage
    }

    fn is_well(&self) -> bool {
        !self.retry.is_failing()
    }
}

#[cfg(test)]
mod tests;
