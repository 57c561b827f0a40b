//! The same image gives the same bits, whatever the model processed before it, and in a model that
//! was opened again, as after a hang.

mod common;

use loftup_bundle::Size;
use loftup_node::{
    answer::{Answer, Part},
    assemble::model_factory,
    config::Config,
    frame::RawFrame,
    model::{Model, Question},
    regions::Finder,
    source::{Pace, Scenes},
};
use loftup_runtime::image::RgbImage;

fn answer(model: &dyn Model, config: &Config, scenes: &Scenes, number: u64) -> Vec<Part> {
    let mut raw = RawFrame::default();
    scenes.draw(number, &mut raw);
    let picture = RgbImage::new(raw.width, raw.height, raw.bytes).unwrap();
    let size = Size {
        width: 42,
        height: 42,
    };
    let inputs = model.preprocess(&picture, size).unwrap();
    let features = model.features(&inputs).unwrap();
    let question = Question {
        queries: &config.queries(),
        regions_only: false,
        min_area_px: 1,
        max_regions: 64,
        camera: Size {
            width: raw.width,
            height: raw.height,
        },
    };
    let (mut finder, mut out) = (Finder::default(), Answer::default());
    model
        .upsample(&inputs, &features, &question, &mut finder, &mut out)
        .unwrap();
    out.parts().to_vec()
}

#[test]
fn the_same_picture_gives_the_same_bits_whatever_came_before() {
    let folder = tempfile::tempdir().unwrap();
    common::bundle(folder.path());
    let text = common::config_text(&common::queries([8, 8, 30, 20]));
    let config = Config::parse(&text, &folder.path().join("node.toml")).unwrap();
    let scenes = Scenes::new(5, 96, 64, Pace::new(10.0));
    let factory = model_factory(&config, None);
    let old = factory().unwrap();
    for number in 0..12 {
        let before = answer(&*old, &config, &scenes, number);
        let fresh = answer(&*factory().unwrap(), &config, &scenes, number);
        assert_eq!(before.len(), 3);
        assert_eq!(before, fresh, "picture {number}");
    }
}
