//! The camera's images of the frames that were processed, to be played again.

use std::path::PathBuf;

use super::{
    Context, Sink, SinkError,
    disk::Local,
    series::{Every, Retry, Series, Written},
};
use crate::{
    answer::Answer,
    health::Reason,
    source::recording::{HEAD, MAGIC, head},
};

/// Writes recordings, see [`crate::source::Recording`].
pub struct RecordingSink {
    name: String,
    files: Series,
    every: Every,
    /// Images that were not written.
    missed: u64,
}

impl RecordingSink {
    /// Every `every`-th image, into files of some `limit` bytes (0: one file), the first of them
    /// `path` or, where that exists, the next in its row.
    pub fn new(path: PathBuf, every: u64, limit: u64) -> Self {
        let name = format!("recording {}", path.display());
        let files = Series::new(Box::new(Local), path, limit, &[], Retry::new());
        Self::into_files(name, every, files)
    }

    fn into_files(name: String, every: u64, files: Series) -> Self {
        Self {
            name,
            files,
            every: Every::new(every),
            missed: 0,
        }
    }

    fn add(&mut self, head: &[u8; HEAD], rgb: &[u8]) -> Result<Written, SinkError> {
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

    fn answer(&mut self, answer: &Answer, _: &Context<'_>) -> Result<(), SinkError> {
        let due = self.every.is_due();
        let Some(picture) = answer.picture.as_ref().filter(|_| due) else {
            return Ok(());
        };
        let (width, height, rgb) = (picture.width(), picture.height(), picture.data());
        let Some(head) = head(answer.number, answer.captured_us, width, height, rgb) else {
            return Err(SinkError::Other(format!(
                "{}: an image of {width} x {height} is too large for a recording",
                self.name
            )));
        };
        let written = self.add(&head, rgb);
        self.missed += u64::from(!matches!(written, Ok(Written::Yes)));
        written.map(drop)
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.files.close(&[]).map(drop)
    }

    fn not_written(&self) -> u64 {
        self.missed
    }

    fn reason(&self) -> Reason {
        Reason::Storage
    }

    fn is_well(&self) -> bool {
        !self.files.is_failing()
    }

    fn wants_picture(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
