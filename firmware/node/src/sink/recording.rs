//! Recordings of the camera images of published frames.

use std::path::PathBuf;

use super::{
    Context, Sink, SinkError, SinkStatus,
    files::LocalFiles,
    series::{EveryNth, FileSeries, Retry, Written},
};
use crate::{
    output::FrameOutput,
    source::recording::{HEAD, MAGIC, head},
};

/// Writes recordings that [`crate::source::Recording`] plays.
pub struct RecordingSink {
    name: String,
    files: FileSeries,
    every: EveryNth,
    /// Images that were not written.
    not_written: u64,
}

impl RecordingSink {
    /// Writes every `every`-th image to `path` and the numbered files after it. A new file begins
    /// after about `limit` bytes; 0 is no limit.
    pub fn new(path: PathBuf, every: u64, limit: u64) -> Self {
        let name = format!("recording {}", path.display());
        let files = FileSeries::new(Box::new(LocalFiles), path, limit, &[], Retry::new());
        Self::with_files(name, every, files)
    }

    fn with_files(name: String, every: u64, files: FileSeries) -> Self {
        Self {
            name,
            files,
            every: EveryNth::new(every),
            not_written: 0,
        }
    }

    fn write(&mut self, head: &[u8; HEAD], rgb: &[u8]) -> Result<Written, SinkError> {
        if !self.files.is_due() {
            return Ok(Written::No);
        }
        if self.files.is_full() {
            let _ = self.files.close(&[])?;
        }
        match self.files.is_open() {
            true => self.files.append(&[head, rgb]),
            false => self.files.append(&[MAGIC, head, rgb]),
        }
    }
}

impl Sink for RecordingSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn push(&mut self, frame: &FrameOutput, _: &Context<'_>) -> Result<(), SinkError> {
        let due = self.every.is_due();
        let Some(image) = frame.image.as_ref().filter(|_| due) else {
            return Ok(());
        };
        let (width, height, rgb) = (image.width(), image.height(), image.data());
        let Some(head) = head(frame.number, frame.captured_us, width, height, rgb) else {
            return Err(SinkError::Other(format!(
                "{}: an image of {width} x {height} is too large for a recording",
                self.name
            )));
        };
        let written = self.write(&head, rgb);
        self.not_written += u64::from(!matches!(written, Ok(Written::Yes)));
        written.map(drop)
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.files.close(&[]).map(drop)
    }

    fn status(&self) -> SinkStatus {
        self.files.status(self.not_written)
    }

    fn needs_image(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
