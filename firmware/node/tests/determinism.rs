//! The output of an image does not depend on earlier images or on the instance of the model.

mod common;

use loftup_bundle::Size;
use loftup_node::{
    assemble::model_factory,
    config::{Config, Upsampler},
    frame::RawFrame,
    model::{FrameRequest, Model},
    output::{FrameOutput, QueryOutput},
    regions::RegionFinder,
    source::{Pace, Scenes},
};
use loftup_runtime::image::RgbImage;

fn outputs(model: &dyn Model, config: &Config, scenes: &Scenes, number: u64) -> Vec<QueryOutput> {
    let mut raw = RawFrame::default();
    scenes.draw(number, &mut raw);
    let image = RgbImage::new(raw.width, raw.height, raw.bytes).unwrap();
    let size = Size {
        width: 42,
        height: 42,
    };
    let inputs = model.preprocess(&image, size).unwrap();
    let features = model.features(&inputs).unwrap();
    let request = FrameRequest {
        queries: &config.queries(),
        regions_only: false,
        upsampler: Upsampler::Loftup,
        words: None,
        min_area_px: 1,
        max_regions: 64,
        camera: Size {
            width: raw.width,
            height: raw.height,
        },
    };
    let (mut finder, mut out) = (RegionFinder::default(), FrameOutput::default());
    model
        .upsample(&inputs, &features, &request, &mut finder, &mut out)
        .unwrap();
    out.outputs().to_vec()
}

#[test]
fn outputs_are_bit_identical_whatever_came_before() {
    let folder = tempfile::tempdir().unwrap();
    common::bundle(folder.path());
    let text = common::config_text(&common::queries([8, 8, 30, 20]));
    let config = Config::parse(&text, &folder.path().join("node.toml")).unwrap();
    let scenes = Scenes::new(5, 96, 64, Pace::new(10.0));
    let factory = model_factory(&config, None);
    let old = factory().unwrap();
    for number in 0..12 {
        let reused = outputs(&*old, &config, &scenes, number);
        let fresh = outputs(&*factory().unwrap(), &config, &scenes, number);
        assert_eq!(reused.len(), 3);
        assert_eq!(reused, fresh, "image {number}");
    }
}
