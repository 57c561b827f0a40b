//! Objects tracked through a clip, from their mask in the first frame.

use std::path::Path;

use anyhow::Result;
use loftup_bundle::Size;
use loftup_eval::{Method, labels::Labels, vos};
use loftup_runtime::{
    ColorRange,
    image::{self, RgbImage},
    track::TrackOptions,
};
use serde::Serialize;

use super::{model, scenes, stages::Watch};
use crate::commands::track::overlay;

/// The grid on which labels are propagated: that of the published protocol.
const GRID: Size = Size {
    width: 112,
    height: 112,
};
/// Frame in the report: the last that is scored.
const SHOWN: usize = scenes::CLIP_FRAMES - 2;

/// Scores, and the masks of one frame.
#[derive(Debug, Serialize)]
pub struct Tracking {
    pub report: vos::Report,
    /// Captions and images.
    #[serde(skip)]
    pub shown: Vec<(String, RgbImage)>,
}

/// Tracks the objects of the clip with the methods of the report.
pub fn track(at: &Path, watch: Watch<'_>) -> Result<Tracking> {
    let request = vos::Request {
        data: &at.join(scenes::CLIP),
        clips: Vec::new(),
        max_frames: None,
        methods: model::COMPARED.to_vec(),
        grid: GRID,
        range: ColorRange::PerImage,
        naf_statistics_interval: 1,
        track: TrackOptions::default(),
        seed: 0,
    };
    let mut masks: Vec<(Method, Vec<u8>)> = Vec::new();
    let report = vos::evaluate_watched(
        &model::open(at, model::BUNDLE)?,
        &request,
        watch,
        &mut |method, _, frame, mask| {
            if frame == SHOWN {
                masks.push((method, mask.labels.clone()));
            }
        },
    )?;
    let (first, marked) = scenes::of_clip(at, 0);
    let (last, truth) = scenes::of_clip(at, SHOWN);
    let drawn = |image: &Path, labels: &[u8]| overlay::draw(&image::open(image)?, labels);
    let labels = |path: &Path| Ok::<_, anyhow::Error>(Labels::open(path)?.values);
    let mut shown = vec![
        (
            "first frame, as marked".to_owned(),
            drawn(&first, &labels(&marked)?)?,
        ),
        (
            format!("frame {}, truth", SHOWN + 1),
            drawn(&last, &labels(&truth)?)?,
        ),
    ];
    for (method, labels) in masks {
        shown.push((method.name().to_owned(), drawn(&last, &labels)?));
    }
    Ok(Tracking { report, shown })
}
