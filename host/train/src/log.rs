//! Training logs: losses as CSV, and TensorBoard events.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use crate::{checkpoint::replace, error::TrainError, events::EventFile};

/// `losses.csv` and `events/`.
pub(crate) struct Log {
    table: File,
    path: PathBuf,
    header: bool,
    events: EventFile,
}

impl Log {
    /// Opens the logs in `folder` for a training that continues from `step`. Lines of later steps are
    /// removed, because these steps will be repeated.
    pub fn open(folder: &Path, step: u64) -> Result<Self, TrainError> {
        let path = folder.join("losses.csv");
        let io = || TrainError::io(&path);
        let old = if step > 0 && path.exists() {
            std::fs::read_to_string(&path).map_err(io())?
        } else {
            String::new()
        };
        let keep = |line: &&str| match line.split(',').next().map(str::parse::<u64>) {
            Some(Ok(n)) => n <= step,
            _ => true,
        };
        // The last line may be incomplete if the training was killed.
        let whole = &old[..old.rfind('\n').map_or(0, |i| i + 1)];
        let kept: String = whole.lines().filter(keep).flat_map(|l| [l, "\n"]).collect();
        replace(&path, kept.as_bytes()).map_err(io())?;
        let table = OpenOptions::new().append(true).open(&path).map_err(io())?;
        let events = folder.join("events");
        let events = EventFile::create(&events, step).map_err(TrainError::io(&events))?;
        Ok(Self {
            table,
            header: !kept.is_empty(),
            path,
            events,
        })
    }

    /// Writes the losses of a step.
    pub fn losses(
        &mut self,
        step: u64,
        learning_rate: f64,
        losses: &[(&str, f32)],
    ) -> Result<(), TrainError> {
        let mut text = String::new();
        if !self.header {
            let names: Vec<&str> = losses.iter().map(|l| l.0).collect();
            text += &format!("step,learning_rate,{}\n", names.join(","));
            self.header = true;
        }
        // The shortest decimal that parses to the same f32.
        let values: Vec<String> = losses.iter().map(|l| l.1.to_string()).collect();
        text += &format!("{step},{learning_rate},{}\n", values.join(","));
        self.table
            .write_all(text.as_bytes())
            .map_err(TrainError::io(&self.path))?;
        let path = self.events.path().to_path_buf();
        let write = |events: &mut EventFile| {
            for (name, value) in losses {
                let tag = if *name == "loss" {
                    "loss/total".into()
                } else {
                    format!("loss/{name}")
                };
                events.scalar(step, &tag, *value)?;
            }
            events.scalar(step, "learning_rate", learning_rate as f32)?;
            events.flush()
        };
        write(&mut self.events).map_err(TrainError::io(&path))
    }

    /// Writes an image.
    pub fn image(&mut self, step: u64, size: (usize, usize), png: &[u8]) -> Result<(), TrainError> {
        let path = self.events.path().to_path_buf();
        let events = &mut self.events;
        events
            .image(step, "features", size, png)
            .and_then(|()| events.flush())
            .map_err(TrainError::io(&path))
    }
}
