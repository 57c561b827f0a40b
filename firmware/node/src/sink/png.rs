//! Class maps as PNG files in a directory.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use loftup_runtime::{heads::NO_CLASS, image::RgbImage};

use super::{
    Context, Sink, SinkError, SinkStatus,
    files::{FileSystem, LocalFiles},
    series::{EveryNth, Retry, entries},
};
use crate::output::{FrameOutput, OutputKind, QueryOutput};

/// Writes `frame-SEQUENCE-slot-SLOT.png`, with one color per class. If the directory has images of
/// earlier runs, file names begin with `run-0001-`, or the next number.
pub struct PngSink {
    name: String,
    directory: PathBuf,
    every: EveryNth,
    keep: u64,
    files: Box<dyn FileSystem>,
    retry: Retry,
    /// Number of this run in the directory, from 0.
    run: Option<u64>,
    written: VecDeque<PathBuf>,
    /// Images that were not written.
    not_written: u64,
    png: Vec<u8>,
}

impl PngSink {
    /// Writes every `every`-th output to `directory`, which is created. Keeps the last `keep` images
    /// of this run, or all if 0. Images of earlier runs are never deleted.
    pub fn new(directory: PathBuf, every: u64, keep: u64) -> Self {
        Self::with_files(Box::new(LocalFiles), directory, every, keep, Retry::new())
    }

    fn with_files(
        files: Box<dyn FileSystem>,
        directory: PathBuf,
        every: u64,
        keep: u64,
        retry: Retry,
    ) -> Self {
        Self {
            name: format!("images {}", directory.display()),
            directory,
            every: EveryNth::new(every),
            keep,
            files,
            retry,
            run: None,
            written: VecDeque::new(),
            not_written: 0,
            png: Vec::new(),
        }
    }

    /// Writes the encoded image to a new file.
    fn write(&mut self, sequence: u64, slot: u8) -> io::Result<PathBuf> {
        std::fs::create_dir_all(&self.directory)?;
        self.retry.probe(&*self.files, &self.directory)?;
        let mut run = self.run.unwrap_or_else(|| next_run(&self.directory));
        loop {
            let path = self.directory.join(name(run, sequence, slot));
            match self.files.write_new(&path, &self.png) {
                Ok(()) => {
                    self.run = Some(run);
                    return Ok(path);
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => run += 1,
                Err(e) => return Err(e),
            }
        }
    }

    fn write_map(&mut self, sequence: u64, output: &QueryOutput) -> Result<(), SinkError> {
        if !self.retry.is_due() {
            self.not_written += 1;
            return Ok(());
        }
        let rgb = output.classes.iter().flat_map(|c| color(*c)).collect();
        let error = |e: loftup_runtime::image::ImageError| SinkError::Other(e.to_string());
        let image = RgbImage::new(output.width, output.height, rgb).map_err(error)?;
        self.png.clear();
        let encoded = image.encode_png(&mut self.png);
        encoded.map_err(|e| SinkError::Other(e.to_string()))?;
        match self.write(sequence, output.slot) {
            Ok(path) => {
                self.retry.succeeded();
                self.remove_old(path)
            }
            Err(cause) => {
                self.not_written += 1;
                let path = self.directory.clone();
                let bytes = self.png.len() as u64;
                self.retry.failed(bytes, SinkError::Io { path, cause })
            }
        }
    }

    /// Removes the oldest images of this run beyond `keep`.
    fn remove_old(&mut self, newest: PathBuf) -> Result<(), SinkError> {
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

/// The number after the highest in the directory, or 0 if it cannot be listed.
fn next_run(directory: &Path) -> u64 {
    let runs = entries(directory).filter_map(|file| run_of(&file));
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

/// The color of a class. Neighboring classes have distinct colors, and pixels without class are black.
pub fn color(class: u8) -> [u8; 3] {
    if class == NO_CLASS {
        return [0; 3];
    }
    // Hues at multiples of the golden angle, at three brightness levels.
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

    fn push(&mut self, frame: &FrameOutput, _: &Context<'_>) -> Result<(), SinkError> {
        if !self.every.is_due() {
            return Ok(());
        }
        frame
            .outputs()
            .iter()
            .filter(|p| p.kind == OutputKind::Classes && p.height > 1)
            .try_for_each(|output| self.write_map(frame.sequence, output))
    }

    fn status(&self) -> SinkStatus {
        self.retry.status(self.not_written)
    }
}

#[cfg(test)]
mod tests;
