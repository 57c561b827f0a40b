//! `loftup run --video`

use std::{path::Path, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use loftup_runtime::{Perceptor, video::VideoWriter};
use serde_json::json;

use super::{Args, Job};
use crate::{
    commands::{
        frames::{Frames, Pictures},
        input::Input,
        through::Shown,
    },
    engines, interrupt, output, progress,
};

/// Answers for each frame.
pub fn run(args: &Args, perceptor: &Perceptor, mut job: Job<'_>, video: &Path) -> Result<()> {
    let out = args.out.as_deref();
    let overlay = out.filter(|out| VideoWriter::writes(out));
    let files = out.filter(|out| !VideoWriter::writes(out));
    if let Some(path) = overlay {
        ensure!(
            args.head.is_some(),
            "{}: a video with overlaid classes or depths needs a --head; use --picture for features",
            path.display()
        );
    }
    if let Some(path) = files.filter(|path| path.is_file()) {
        bail!("{}: is a file; a video needs a directory", path.display());
    }
    let mut frames = Frames::open(video, args.frames, args.input.orientation())?;
    let start = Instant::now();
    let _writing = interrupt::Writing::begin()?;
    let mut progress = progress::stages();
    let mut pictures = Outputs::default();
    let (mut done, mut shape, mut extension) = (0, Vec::new(), "");
    loop {
        progress("frames", done, frames.expected().unwrap_or(done));
        let frame = frames.next_frame()?;
        let stopped =
            || format!("interrupted after {done} frames; the files of these are complete");
        ensure!(!interrupt::pending(), stopped());
        let Some(frame) = frame else {
            break;
        };
        let input = Input::frame(
            frame.image,
            &frame.shown,
            &args.input,
            perceptor,
            job.is_jbu(),
        )?;
        if done == 0 {
            extension = job.extension()?;
            // Not before the video is known to be right.
            if let Some(dir) = files {
                std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
            }
            pictures = Outputs::create(overlay, args.picture.as_deref(), &frames)?;
        }
        let file = files.map(|dir| dir.join(format!("{}.{extension}", frame.name)));
        let mut show = |shown: Shown<'_>| pictures.write(&frame.name, shown);
        let show = (overlay.is_some() || args.picture.is_some()).then_some(&mut show as _);
        let answered = job.answer(&input, file.as_deref(), show);
        ensure!(answered.is_ok() || !interrupt::pending(), stopped());
        shape = answered.with_context(|| frame.shown.clone())?;
        done += 1;
    }
    drop(progress);
    pictures.finish()?;
    let seconds = start.elapsed().as_secs_f64();
    let health = perceptor.health();
    if args.json {
        let json = json!({
            "video": video,
            "out": args.out,
            "picture": args.picture,
            "frames": done,
            "shape": shape,
            "backend": health.answering,
            "seconds": seconds,
        });
        return output::line(format!("{json:#}"));
    }
    for path in [&args.out, &args.picture].into_iter().flatten() {
        output::line(format!("{}: {done} frames", path.display()))?;
    }
    output::line(format!(
        "{seconds:.2} s, {:.2} frames per second; {} on {} threads",
        done as f64 / seconds,
        health.answering,
        perceptor.options().threads
    ))?;
    if engines::is_noteworthy(&health) {
        output::line(engines::summary(&health, &perceptor.engine()))?;
    }
    Ok(())
}

/// Videos or pictures of the frames.
#[derive(Default)]
struct Outputs {
    overlay: Option<Pictures>,
    pictures: Option<Pictures>,
}

impl Outputs {
    fn create(overlay: Option<&Path>, pictures: Option<&Path>, frames: &Frames) -> Result<Self> {
        let create = |path: Option<&Path>| path.map(|path| Pictures::create(path, frames));
        Ok(Self {
            overlay: create(overlay).transpose()?,
            pictures: create(pictures).transpose()?,
        })
    }

    fn write(&mut self, name: &str, shown: Shown<'_>) -> Result<()> {
        if let Some(overlay) = &mut self.overlay
            && let Some(picture) = shown.over()?
        {
            overlay.write(name, &picture)?;
        }
        match &mut self.pictures {
            Some(pictures) => pictures.write(name, &shown.beside()?),
            None => Ok(()),
        }
    }

    fn finish(self) -> Result<()> {
        let mut outputs = [self.overlay, self.pictures].into_iter().flatten();
        outputs.try_for_each(Pictures::finish)
    }
}
