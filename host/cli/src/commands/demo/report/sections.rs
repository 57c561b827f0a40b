//! The parts of the page.

use anyhow::Result;
use loftup_eval::{Method, segmentation::Outcome, video};
use loftup_scenes::{CLASSES, PALETTE};
use maud::{Markup, html};

use super::{
    Checks, Section, Timings,
    html::{Narrow, gallery},
    plot,
};
use crate::{
    commands::demo::{camera::Film, evaluation::Evaluation, images::Panel, training::Training},
    html::table,
    spread::Spread,
};

pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

impl Section for Vec<Panel> {
    fn title(&self) -> &'static str {
        "The same features, before and after"
    }

    fn body(&self) -> Result<Markup> {
        let galleries = self
            .iter()
            .map(|panel| {
                let images = [
                    ("photo", &panel.photo),
                    ("backbone", &panel.backbone),
                    ("bilinear", &panel.bilinear),
                    ("LoftUp", &panel.loftup),
                    ("predicted classes", &panel.seen),
                    ("true classes", &panel.truth),
                ];
                gallery(Narrow::Pairs, &images.map(|(name, p)| (name.to_owned(), p)))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(html! {
            p {
                "Scenes that were not used for training. Three principal components of the features \
                 are shown as red, green and blue, with one basis per row."
            }
            @for gallery in &galleries { (gallery) }
            (legend())
        })
    }
}

/// The colors of the classes.
fn legend() -> Markup {
    html! {
        ul class="legend" {
            @for (name, [r, g, b]) in CLASSES.iter().zip(PALETTE) {
                li { i style={ "background:rgb(" (r) "," (g) "," (b) ")" } {} (name) }
            }
        }
    }
}

impl Section for Evaluation {
    fn title(&self) -> &'static str {
        "Linear-probe results"
    }

    fn body(&self) -> Result<Markup> {
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
        Ok(html! {
            p {
                "The same linear probe, trained on " (report.train_pixels) " pixels of "
                (report.train_images) " scenes and evaluated on every pixel of "
                (report.val_images) " others at " (report.width) "x" (report.height)
                ". Only the upsampling of the features differs."
            }
            (table(&["features", "mIoU", "boundary F", "pixel accuracy"], &rows, "best", &best))
            p class="note" {
                "mIoU: mean intersection over union of " (report.classes.len())
                " classes. Boundary F: F-score of class boundaries, within "
                (report.boundary_tolerance) " pixels."
            }
        })
    }
}

impl Section for Film {
    fn title(&self) -> &'static str {
        "Segmenting a video"
    }

    fn body(&self) -> Result<Markup> {
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
        let mut images = Vec::new();
        for shown in &self.shown {
            let seen = format!("predicted, {} correct", percent(shown.right));
            images.push((format!("after {:.1} s", shown.seconds), &shown.photo));
            images.push((seen, &shown.seen));
            images.push(("truth".to_owned(), &shown.truth));
        }
        let gallery = gallery(Narrow::Triples, &images)?;
        Ok(html! {
            p {
                (self.frames) " frames of a scene that was not used for training, at "
                (self.rate) " per second. The head runs inside the tile loop: "
                (percent(self.mean_iou)) " mIoU, " (percent(self.accuracy)) " pixel accuracy."
            }
            (table(&["per frame", "median", "90 % below"], &rows, "", &[]))
            p class="note" { "Wall time with " (self.threads) " threads, " (self.engine) "." }
            (gallery)
        })
    }
}

impl Section for video::Report {
    fn title(&self) -> &'static str {
        "Flicker"
    }

    fn body(&self) -> Result<Markup> {
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
        let motion = format!("{:.1}", self.motion);
        Ok(html! {
            p {
                "Change of the features of a point while the camera moves: " (self.followed)
                " points tracked through " (self.frames) " frames by exact optical flow, " (motion)
                " pixels per frame on average."
            }
            (table(&["features", "change", "95 % below"], &rows, "", &[]))
            p class="note" {
                "In percent of the standard deviation of the features within a frame; lower is more \
                 stable. Features that blur objects together flicker less and distinguish less."
            }
        })
    }
}

/// The training and its effect on the features.
pub struct Trained<'a>(pub &'a Training, pub &'a Evaluation);

impl Section for Trained<'_> {
    fn title(&self) -> &'static str {
        "A short training"
    }

    fn body(&self) -> Result<Markup> {
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
        let seconds = format!("{:.0}", training.seconds);
        let parameters = format!("{:.2}", training.parameters as f64 / 1e6);
        Ok(html! {
            p {
                (losses.len()) " steps of stage 1 on windows of " (training.window) "x" (training.window)
                " pixels, with a batch size of " (training.batch_size) ", in " (seconds) " s: "
                (parameters) " million parameters, " (training.images)
                " scenes with instance masks, no class labels. The upsampler starts from a bilateral \
                 initialization: as joint bilateral upsampling (JBU), which needs no training. It is trained \
                 to match the gradients of features averaged within the masks. The built-in weights were \
                 trained for about an hour."
            }
            (table(&["features", "probe mIoU"], &rows, "", &[]))
            (plot::curve(&losses, "step", "loss"))
            p class="note" {
                "The loss of each step, and its running mean. " code { "train.toml" }
                " next to this page has the settings, and " code { "trained.loftup" }
                " is the result. The other sections use the built-in weights."
            }
        })
    }
}

impl Section for Checks {
    fn title(&self) -> &'static str {
        "Checks of the bundle"
    }

    fn body(&self) -> Result<Markup> {
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
        Ok(html! {
            p {
                "The bundle contains a backbone, the upsampler and a head of " (CLASSES.len())
                " classes with an accuracy of " (percent(self.head.fit)) " on its "
                (self.head.pixels) " training pixels."
            }
            (table(&["check", "maximum error", ""], &rows, "", &[]))
        })
    }
}

impl Section for Timings {
    fn title(&self) -> &'static str {
        "Timing"
    }

    fn body(&self) -> Result<Markup> {
        let rows: Vec<_> = self
            .0
            .iter()
            .map(|(name, seconds)| vec![(*name).to_owned(), format!("{seconds:.1} s")])
            .collect();
        Ok(table(&["stage", "time"], &rows, "", &[]))
    }
}
