//! The camera's pictures of the frames that were answered, to be played again.

use std::path::PathBuf;

use super::{
    Context, Sink, SinkError,
    series::{Every, Series},
};
use crate::{answer::Answer, source::Recorder};

/// Writes a recording, see [`crate::source::Recording`].
#[derive(Debug)]
pub struct RecordingFile {
    name: String,
    files: Series,
    every: Every,
    recorder: Option<Recorder>,
}

impl RecordingFile {
    /// Every `every`-th picture, into files of some `limit` bytes (0: one file).
    ///
    /// # Errors
    /// Where the file cannot be made.
    pub fn create(path: PathBuf, every: u64, limit: u64) -> Result<Self, SinkError> {
        let mut this = Self {
            name: format!("recording {}", path.display()),
            files: Series::new(path, limit),
            every: Every::new(every),
            recorder: None,
        };
        this.open()?;
        Ok(this)
    }

    fn open(&mut self) -> Result<(), SinkError> {
        let path = self.files.path();
        let recorder = Recorder::create(&path).map_err(|cause| SinkError::Io { path, cause })?;
        self.recorder = Some(recorder);
        Ok(())
    }

    fn failed(&self, cause: std::io::Error) -> SinkError {
        SinkError::Io {
            path: self.files.path(),
            cause,
        }
    }
}

impl Sink for RecordingFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn answer(&mut self, answer: &Answer, _: &Context<'_>) -> Result<(), SinkError> {
        let due = self.every.is_due();
        let Some(picture) = answer.picture.as_ref().filter(|_| due) else {
            return Ok(());
        };
        let full = |r: &Recorder| self.files.is_full(r.written());
        if self.recorder.as_ref().is_some_and(full) {
            self.finish()?;
            self.files.advance();
            self.open()?;
        }
        let (width, height) = (picture.width(), picture.height());
        let written = match &mut self.recorder {
            Some(recorder) => recorder.add(
                answer.number,
                answer.captured_us,
                width,
                height,
                picture.data(),
            ),
            None => Ok(()),
        };
        written.map_err(|e| self.failed(e))
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        match self.recorder.take() {
            Some(recorder) => recorder.finish().map_err(|e| self.failed(e)),
            None => Ok(()),
        }
    }

    fn wants_picture(&self) -> bool {
        true
    }
}
