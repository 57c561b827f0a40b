//! The parts of the page.

use std::fmt::Write;

use anyhow::Result;
use loftup_eval::{Method, segmentation::Outcome, video};
use loftup_scenes::{CLASSES, PALETTE};

use super::{
    Checks, Section, Timings,
    html::{Narrow, gallery},
    plot,
};
use crate::{
    commands::demo::{camera::Film, evaluation::Evaluation, pictures::Panel, training::Training},
    html::{escaped, table},
    spread::Spread,
};

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

impl Section for Vec<Panel> {
    fn title(&self) -> &'static str {
        "The same features, before and after"
    }

    fn body(&self) -> Result<String> {
        let mut body = String::from(
            "<p>Scenes that were not used for training. Three principal components of the features are shown as red, green and blue, with one basis per row.</p>",
        );
        for panel in self {
            let pictures = [
                ("photo", &panel.photo),
                ("backbone", &panel.backbone),
                ("bilinear", &panel.bilinear),
                ("LoftUp", &panel.loftup),
                ("predicted classes", &panel.seen),
                ("true classes", &panel.truth),
            ];
            body += &gallery(
                Narrow::Pairs,
                &pictures.map(|(name, p)| (name.to_owned(), p)),
            )?;
        }
        Ok(body + &legend())
    }
}

/// What the colors of classes mean.
fn legend() -> String {
    let mut out = String::from(r#"<ul class="legend">"#);
    for (name, [r, g, b]) in CLASSES.iter().zip(PALETTE) {
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            r#"<li><i style="background:rgb({r},{g},{b})"></i>{}</li>"#,
            escaped(name)
        );
    }
    out + "</ul>"
}

impl Section for Evaluation {
    fn title(&self) -> &'static str {
        "Linear-probe results"
    }

    fn body(&self) -> Result<String> {
        let report = &self.builtin;
        let row = |name: &str, r: &Outcome| {
            vec![
                name.to_owned(),
                percent(r.mean_iou),
                percent(r.boundary_f),
                percent(r.accuracy),
            ]
        };
        let mut rows: Vec<_> = report
            .results
            .iter()
            .map(|r| match r.method {
                Method::LoftUp => row("LoftUp, built-in weights", r),
                _ => row(r.method.name(), r),
            })
            .collect();
        if let Some(trained) = &self.trained {
            rows.push(row("LoftUp, trained by this demo", trained));
        }
        let outcomes: Vec<_> = report.results.iter().chain(&self.trained).collect();
        // The best of each column.
        let figures: [fn(&Outcome) -> f64; 3] = [|r| r.mean_iou, |r| r.boundary_f, |r| r.accuracy];
        let best: Vec<_> = figures
            .iter()
            .enumerate()
            .filter_map(|(column, figure)| {
                let by =
                    |a: &usize, b: &usize| figure(outcomes[*a]).total_cmp(&figure(outcomes[*b]));
                (0..outcomes.len()).max_by(by).map(|row| (row, column + 1))
            })
            .collect();
        Ok(format!(
            "<p>The same linear probe, trained on {} pixels of {} scenes and evaluated on every pixel of {} others at {}x{}. Only the upsampling of the features differs.</p>{}<p class=\"note\">mIoU: mean intersection over union of {} classes. Boundary F: F-score of class boundaries, within {} pixels.</p>",
            report.train_pixels,
            report.train_pictures,
            report.val_pictures,
            report.width,
            report.height,
            table(
                &["features", "mIoU", "boundary F", "pixel accuracy"],
                &rows,
                "best",
                &best
            ),
            report.classes.len(),
            report.boundary_tolerance
        ))
    }
}

impl Section for Film {
    fn title(&self) -> &'static str {
        "Segmenting a video"
    }

    fn body(&self) -> Result<String> {
        let row = |name: &str, s: &Spread| {
            vec![
                name.to_owned(),
                format!("{:.0} ms", s.p50),
                format!("{:.0} ms", s.p90),
            ]
        };
        let rows = [
            row("backbone", &self.backbone),
            row("LoftUp and head, every pixel", &self.classes),
            row("whole frame", &self.whole),
        ];
        let mut body = format!(
            "<p>{} frames of a scene that was not used for training, at {:.0} per second. The head runs inside the tile loop: {} mIoU, {} pixel accuracy.</p>{}<p class=\"note\">Wall time with {} threads, {}.</p>",
            self.frames,
            self.rate,
            percent(self.mean_iou),
            percent(self.accuracy),
            table(&["per frame", "median", "90 % below"], &rows, "", &[]),
            self.threads,
            escaped(&self.engine)
        );
        let mut pictures = Vec::new();
        for shown in &self.shown {
            let seen = format!("predicted, {} correct", percent(shown.right));
            pictures.push((format!("after {:.1} s", shown.seconds), &shown.photo));
            pictures.push((seen, &shown.seen));
            pictures.push(("truth".to_owned(), &shown.truth));
        }
        body += &gallery(Narrow::Triples, &pictures)?;
        Ok(body)
    }
}

impl Section for video::Report {
    fn title(&self) -> &'static str {
        "Flicker"
    }

    fn body(&self) -> Result<String> {
        let rows: Vec<_> = self
            .results
            .iter()
            .map(|r| {
                vec![
                    r.method.to_owned(),
                    percent(r.change),
                    percent(r.change_p95),
                ]
            })
            .collect();
        Ok(format!(
            "<p>Change of the features of a point while the camera moves: {} points tracked through {} frames by exact optical flow, {:.1} pixels per frame on average.</p>{}<p class=\"note\">In percent of the standard deviation of the features within a frame; lower is more stable. Features that blur objects together flicker less and distinguish less.</p>",
            self.followed,
            self.frames,
            self.motion,
            table(&["features", "change", "95 % below"], &rows, "", &[])
        ))
    }
}

/// The training, and how far it brings the features.
pub struct Trained<'a>(pub &'a Training, pub &'a Evaluation);

impl Section for Trained<'_> {
    fn title(&self) -> &'static str {
        "A short training"
    }

    fn body(&self) -> Result<String> {
        let Self(training, evaluation) = self;
        let losses: Vec<f64> = training
            .losses
            .iter()
            .filter_map(|l| l.first())
            .map(|l| f64::from(*l))
            .collect();
        let of = |method| {
            let found = evaluation
                .builtin
                .results
                .iter()
                .find(|r| r.method == method);
            found.map(|r| r.mean_iou)
        };
        let rows: Vec<_> = [
            ("bilinear interpolation".to_owned(), of(Method::Bilinear)),
            ("joint bilateral upsampling".to_owned(), of(Method::Jbu)),
            (
                "LoftUp, before the first step".to_owned(),
                evaluation.start.as_ref().map(|r| r.mean_iou),
            ),
            (
                format!("LoftUp, after {} steps", losses.len()),
                evaluation.trained.as_ref().map(|r| r.mean_iou),
            ),
            (
                "LoftUp, built-in weights: 3300 steps".to_owned(),
                of(Method::LoftUp),
            ),
        ]
        .into_iter()
        .filter_map(|(name, mean_iou)| Some(vec![name, percent(mean_iou?)]))
        .collect();
        Ok(format!(
            "<p>{} steps of stage 1 at {}x{} pixels with a batch size of {}, in {:.0} s: {:.2} million parameters, {} scenes with instance masks, no class labels. The upsampler starts from a bilateral initialization: as joint bilateral upsampling (JBU), which needs no training. The built-in weights were trained in the same way for about an hour.</p>{}{}<p class=\"note\">The loss of each step, and its running mean. <code>train.toml</code> next to this page has the settings, and <code>trained.loftup</code> is the result. The other sections use the built-in weights.</p>",
            losses.len(),
            training.guidance,
            training.guidance,
            training.batch_size,
            training.seconds,
            training.parameters as f64 / 1e6,
            training.images,
            table(&["features", "probe mIoU"], &rows, "", &[]),
            plot::curve(&losses, "step", "loss")
        ))
    }
}

impl Section for Checks {
    fn title(&self) -> &'static str {
        "Checks of the bundle"
    }

    fn body(&self) -> Result<String> {
        let rows: Vec<_> = self
            .bundle
            .iter()
            .map(|check| {
                let measured = check.difference.as_ref().zip(check.tolerance.as_ref());
                vec![
                    check.name.clone(),
                    measured.map_or(String::new(), |(d, t)| {
                        format!("{:.1e} of {:.0e}", d.max, t.scaled(d.scale).max)
                    }),
                    if check.passed { "ok" } else { "failed" }.to_owned(),
                ]
            })
            .collect();
        Ok(format!(
            "<p>The bundle contains a backbone, the upsampler and a head of {} classes with an accuracy of {} on its {} training pixels.</p>{}",
            CLASSES.len(),
            percent(self.head.fit),
            self.head.pixels,
            table(&["check", "maximum error", ""], &rows, "", &[])
        ))
    }
}

impl Section for Timings {
    fn title(&self) -> &'static str {
        "Timing"
    }

    fn body(&self) -> Result<String> {
        let rows: Vec<_> = self
            .0
            .iter()
            .map(|(name, seconds)| vec![(*name).to_owned(), format!("{seconds:.1} s")])
            .collect();
        Ok(table(&["stage", "time"], &rows, "", &[]))
    }
}
