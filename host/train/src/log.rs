//! The record of a training: a table of losses and TensorBoard's events.

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
    /// The record in `folder` of a training that goes on from `step`. Lines after it, of steps
    /// that will be done again, are taken off.
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
        // Only whole lines: the last may have been cut off when the training was.
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

    /// Writes down the losses of a step.
    pub fn losses(
        &mut self,
        step: u64,
        rate: f64,
        losses: &[(&str, f32)],
    ) -> Result<(), TrainError> {
        let mut text = String::new();
        if !self.header {
            let names: Vec<&str> = losses.iter().map(|l| l.0).collect();
            text += &format!("step,rate,{}\n", names.join(","));
            self.header = true;
        }
        // As many digits as it takes to read the very same number back.
        let values: Vec<String> = losses.iter().map(|l| l.1.to_string()).collect();
        text += &format!("{step},{rate},{}\n", values.join(","));
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
            events.scalar(step, "rate", rate as f32)?;
            events.flush()
        };
        write(&mut self.events).map_err(TrainError::io(&path))
    }

    /// Writes down a picture.
    pub fn picture(
        &mut self,
        step: u64,
        size: (usize, usize),
        png: &[u8],
    ) -> Result<(), TrainError> {
        let path = self.events.path().to_path_buf();
        let events = &mut self.events;
        events
            .picture(step, "features", size, png)
            .and_then(|()| events.flush())
            .map_err(TrainError::io(&path))
    }
}
