//! The parts of the page about tracking, clicks and depth.

use anyhow::Result;
use loftup_runtime::image::RgbImage;
use maud::{Markup, html};

use super::{
    Section,
    html::{Narrow, gallery},
    sections::percent,
};
use crate::{
    commands::demo::{clicks::Clicks, depth::Distances, tracking::Tracking},
    html::table,
    output::difference,
};

fn images(narrow: Narrow, shown: &[(String, RgbImage)]) -> Result<Markup> {
    let shown: Vec<_> = shown
        .iter()
        .map(|(name, image)| (name.clone(), image))
        .collect();
    gallery(narrow, &shown)
}

impl Section for Tracking {
    fn title(&self) -> &'static str {
        "Tracking objects"
    }

    fn body(&self) -> Result<Markup> {
        let report = &self.report;
        let rows: Vec<_> = report
            .results
            .iter()
            .map(|r| {
                let s = &r.scores;
                let values = [s.j_and_f, s.j.mean, s.f.mean].map(percent);
                [vec![r.method.name().to_owned()], values.to_vec()].concat()
            })
            .collect();
        Ok(html! {
            p {
                (report.objects) " objects, marked in the first of " (report.frames)
                " frames, are followed while the camera moves: labels are propagated along similar \
                 features on a grid of " (report.grid_width) "x" (report.grid_height)
                ", without training."
            }
            (table(&["features", "J&F", "J", "F"], &rows, "", &[]))
            (images(Narrow::Triples, &self.shown)?)
            p class="note" {
                "J: mean intersection over union. F: F-score of the contours. A single clip, so there \
                 is no interval."
            }
        })
    }
}

impl Section for Clicks {
    fn title(&self) -> &'static str {
        "One click"
    }

    fn body(&self) -> Result<Markup> {
        let report = &self.report;
        let rows: Vec<_> = report
            .results
            .iter()
            .map(|r| {
                vec![
                    r.method.name().to_owned(),
                    format!("{:.3}", r.threshold),
                    r.iou.first().map_or_else(String::new, |iou| percent(*iou)),
                    difference(r.minus_bilinear.map(|d| d.iou_1), 100.0, 1),
                    difference(r.minus_jbu.map(|d| d.iou_1), 100.0, 1),
                ]
            })
            .collect();
        let head = [
            "features",
            "threshold",
            "IoU",
            "minus bilinear",
            "minus JBU",
        ];
        Ok(html! {
            p {
                "An object is what is connected to the click through similar features. The "
                (report.objects) " objects of " (report.images)
                " scenes, with one click in the middle of each; thresholds are fitted to "
                (report.train_objects) " objects of other scenes."
            }
            (table(&head, &rows, "", &[]))
            (images(Narrow::Triples, &self.shown)?)
            p class="note" {
                "IoU: mean intersection over union. Differences in percentage points, with 95 % \
                 bootstrap intervals. The images show the largest object of one scene."
            }
        })
    }
}

impl Section for Distances {
    fn title(&self) -> &'static str {
        "Depth"
    }

    fn body(&self) -> Result<Markup> {
        let report = &self.report;
        let rows: Vec<_> = report
            .results
            .iter()
            .map(|r| {
                let whole = &r.whole.absolute;
                let band = r.band.map(|b| format!("{:.3}", b.absolute.abs_rel));
                vec![
                    r.method.name().to_owned(),
                    format!("{:.3}", whole.abs_rel),
                    percent(whole.d1),
                    band.unwrap_or_default(),
                    difference(r.minus_bilinear.map(|d| d.abs_rel), 1.0, 3),
                    difference(r.minus_jbu.map(|d| d.abs_rel), 1.0, 3),
                ]
            })
            .collect();
        let head = [
            "features",
            "AbsRel",
            "within 25 %",
            "AbsRel at edges",
            "minus bilinear",
            "minus JBU",
        ];
        Ok(html! {
            p {
                "A linear head for the logarithm of the depth, fitted to " (report.train_pixels)
                " pixels of " (report.train_images) " scenes with exact depth and evaluated on "
                (report.val_images) " others."
            }
            (table(&head, &rows, "", &[]))
            (images(Narrow::Triples, &self.shown)?)
            p class="note" {
                "AbsRel: mean relative error; lower is better. Edges: pixels within "
                (report.band_radius) " of a jump in depth. Differences of AbsRel, with 95 % bootstrap \
                 intervals over scenes. The sky has no depth."
            }
        })
    }
}
