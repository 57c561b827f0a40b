//! A linear head for depth.

use std::path::Path;

use anyhow::{Context, Result};
use loftup_eval::{depth, heads};
use loftup_runtime::{
    ColorRange, Rect,
    depth::{Camera, Depth, DepthMap},
    image::{self, Orientation, RgbImage},
};
use loftup_scenes::Scene;
use serde::Serialize;

use super::{model, scenes, stages::Watch};
use crate::commands::colors;

/// Name of the head.
pub const HEAD: &str = "depth";
/// Held-out scenes in the report.
const SHOWN: [u64; 2] = [0, 7];

/// Scores, and the depth of some scenes.
#[derive(Debug, Serialize)]
pub struct Distances {
    pub report: depth::Report,
    /// Photo, depth by the head, and true depth of each scene, with captions.
    #[serde(skip)]
    pub shown: Vec<(String, RgbImage)>,
}

/// Evaluates depth heads, and adds that on LoftUp's features to the bundle.
pub fn measure(at: &Path, watch: Watch<'_>) -> Result<Distances> {
    let data = at.join(scenes::FOLDER);
    let request = depth::Request {
        data: &data,
        set: None,
        size: Some(scenes::SIZE),
        range: ColorRange::PerImage,
        orientation: Orientation::Upright,
        methods: model::COMPARED.to_vec(),
        samples: model::SAMPLES,
        most: None,
        max_depth: None,
        bins: None,
        camera: Camera::default(),
        ridge: depth::RIDGE,
        seed: 0,
    };
    let perceptor = model::open(at, model::BUNDLE)?;
    let report = depth::evaluate(&perceptor, &request, &mut *watch)?;
    let made = depth::head(&perceptor, &request, watch)?;
    let bundle = at.join(model::BUNDLE);
    heads::add(&bundle, HEAD, &made, &data, &bundle, true)?;
    let shown = maps(at)?;
    Ok(Distances { report, shown })
}

fn maps(at: &Path) -> Result<Vec<(String, RgbImage)>> {
    let perceptor = model::open(at, model::BUNDLE)?;
    let head = perceptor.head(HEAD)?;
    let mut shown = Vec::new();
    for i in SHOWN {
        let photo = image::open(&scenes::held_out_as(at, i, "images"))?;
        let view = perceptor.encode(&photo, scenes::SIZE, ColorRange::PerImage)?;
        let depth = Depth::of(&head).context("the head is no depth head")?;
        let mut map = DepthMap::new(Rect::whole(scenes::SIZE), depth);
        let view = view.with_head(&head)?;
        view.frame(&mut |tile| map.push(tile))?;
        let truth = scenes::depth_of(&Scene::new(scenes::HELD_OUT + i));
        // Pixels without depth are black in both, and both have the same colors.
        let known = |(meters, truth): (f32, &f32)| if truth.is_nan() { *truth } else { meters };
        let mut both: Vec<f32> = map
            .into_meters()
            .into_iter()
            .zip(&truth)
            .map(known)
            .collect();
        both.extend(&truth);
        let colors = colors::of_depth(&both);
        let (found, truth) = colors.split_at(truth.len());
        let image = |colors: &[[u8; 3]]| {
            RgbImage::new(
                photo.width(),
                photo.height(),
                colors.as_flattened().to_vec(),
            )
        };
        shown.push(("predicted depth".to_owned(), image(found)?));
        shown.push(("true depth".to_owned(), image(truth)?));
        shown.insert(shown.len() - 2, ("photo".to_owned(), photo));
    }
    Ok(shown)
}
