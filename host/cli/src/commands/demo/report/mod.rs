//! `report.html`, a self-contained page, and the same results as JSON.
//!
//! Each section is a struct with results that writes its own part of the page. A new stage of the
//! demo adds one to [`Report`] and to [`Report::sections`].

mod html;
mod plot;
mod sections;
mod tasks;

use std::{fs, io::Write, path::Path};

use anyhow::{Context, Result};
use loftup_bundle::Manifest;
use loftup_convert::Check;
use loftup_eval::video;
use maud::Markup;
use serde::{Deserialize, Serialize};

use sections::Trained;

use super::{
    camera::Film, clicks::Clicks, depth::Distances, evaluation::Evaluation, images::Panel,
    model::Head, stages::Stages, tracking::Tracking, training::Training,
};

/// The page.
pub const FILE: &str = "report.html";
/// The results as JSON.
pub const FIGURES: &str = "demo.json";

/// The results of a demo.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub about: About,
    #[serde(skip)]
    pub shown: Vec<Panel>,
    pub evaluation: Evaluation,
    pub training: Training,
    pub film: Film,
    pub flicker: video::Report,
    pub tracking: Tracking,
    pub clicks: Clicks,
    pub distances: Distances,
    pub checks: Checks,
    pub stages: Timings,
}

/// Identifies the output directory of a demo.
#[derive(Debug, Serialize, Deserialize)]
pub struct Marker {
    loftup_demo: u32,
}

/// The program, the machine and the model.
#[derive(Debug, Serialize)]
pub struct About {
    #[serde(flatten)]
    marker: Marker,
    pub version: &'static str,
    pub machine: String,
    pub threads: usize,
    pub dim: usize,
    pub patch: usize,
    pub bundle_bytes: u64,
    pub seconds: f64,
}

/// Results of the checks.
#[derive(Debug, Serialize)]
pub struct Checks {
    pub head: Head,
    pub conversion: Vec<Check>,
    pub bundle: Vec<Check>,
}

/// Duration of each stage.
#[derive(Debug, Serialize)]
pub struct Timings(pub Vec<(&'static str, f64)>);

impl Timings {
    pub fn of(stages: &Stages) -> Self {
        Self(stages.done.clone())
    }
}

impl About {
    pub fn of(manifest: &Manifest, seconds: f64) -> Self {
        let backbone = manifest.backbone.as_ref();
        Self {
            marker: Marker { loftup_demo: 1 },
            version: env!("CARGO_PKG_VERSION"),
            machine: machine(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            dim: backbone.map_or(0, |b| b.dim),
            patch: backbone.map_or(0, |b| b.patch),
            bundle_bytes: manifest.files.values().map(|f| f.bytes).sum(),
            seconds,
        }
    }
}

/// A part of the page.
pub trait Section {
    /// Its heading.
    fn title(&self) -> &'static str;
    /// Its contents.
    fn body(&self) -> Result<Markup>;
}

impl Report {
    /// In the order of the page.
    fn sections<'a>(&'a self, trained: &'a Trained<'a>) -> Vec<&'a dyn Section> {
        vec![
            &self.shown,
            &self.evaluation,
            &self.film,
            &self.flicker,
            &self.tracking,
            &self.clicks,
            &self.distances,
            trained,
            &self.checks,
            &self.stages,
        ]
    }

    /// Writes the page and the JSON file to `at`.
    pub fn write(&self, at: &Path) -> Result<()> {
        let trained = Trained(&self.training, &self.evaluation);
        let page = html::page(&self.about, &self.sections(&trained))?;
        let figures = serde_json::to_string_pretty(self)?;
        for (name, text) in [(FILE, page), (FIGURES, figures)] {
            let path = at.join(name);
            let write = || {
                let mut file = fs::File::create_new(&path)?;
                file.write_all(text.as_bytes())?;
                file.sync_all()
            };
            write().with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}

/// CPU model and operating system.
fn machine() -> String {
    let system = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
    let model = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    match model {
        Some(model) => format!("{model}, {system}"),
        None => system,
    }
}
