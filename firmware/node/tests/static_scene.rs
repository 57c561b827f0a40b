//! If the backbone does not run on every frame, only changed tiles of class maps are computed, and the
//! maps are identical to fully computed ones.

mod common;

use std::sync::Arc;

use loftup_bundle::Size;
use loftup_node::{
    assemble::model_factory,
    config::{Config, Upsampler},
    model::{FrameRequest, Model},
    output::FrameOutput,
    regions::RegionFinder,
};
use loftup_runtime::{Features, FrameInputs, image::RgbImage};

/// Size of the camera image and of the output, which consists of 2 x 1 tiles of 48 x 64.
const CAMERA: Size = Size {
    width: 96,
    height: 64,
};

fn model(more: &str) -> (Config, Arc<dyn Model>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    common::bundle(folder.path());
    let text = common::config_text(&common::queries([8, 8, 70, 40]))
        .replace("threads = 1", &format!("threads = 1\n{more}"));
    let config = Config::parse(&text, &folder.path().join("node.toml")).unwrap();
    let model = model_factory(&config, None)().unwrap();
    (config, model, folder)
}

fn encode(model: &dyn Model, image: &RgbImage) -> (FrameInputs, Features) {
    let inputs = model.preprocess(image, CAMERA).unwrap();
    let features = model.features(&inputs).unwrap();
    (inputs, features)
}

fn output(
    model: &dyn Model,
    config: &Config,
    inputs: &FrameInputs,
    features: &Features,
) -> FrameOutput {
    let request = FrameRequest {
        queries: &config.queries(),
        regions_only: false,
        upsampler: Upsampler::Loftup,
        words: None,
        min_area_px: 1,
        max_regions: 64,
        camera: CAMERA,
    };
    let (mut finder, mut out) = (RegionFinder::default(), FrameOutput::default());
    model
        .upsample(inputs, features, &request, &mut finder, &mut out)
        .unwrap();
    out
}

fn test_image() -> RgbImage {
    let pixels = 0..CAMERA.area() * 3;
    let data = pixels.map(|i| (i * 7919 % 251) as u8).collect();
    RgbImage::new(CAMERA.width, CAMERA.height, data).unwrap()
}

#[test]
fn incremental_maps_are_identical_to_full_ones() {
    let range = "color_range = [[-3, 3], [-3, 3], [-3, 3]]";
    let (config, cached, _folder) = model(&format!("{range}\nbackbone_interval = 3"));
    let (_, plain, _other) = model(range);
    let mut image = test_image();
    let mut features: Vec<Features> = Vec::new();
    let mut counts = Vec::new();
    for frame in 0..8 {
        match frame {
            // Nothing changes in frames 0, 1 and 4.
            2 => image.row_mut(20)[3 * 10] ^= 0x55,
            // In the halo of the left tile, inside the right one.
            5 => image.row_mut(20)[3 * 49] ^= 0x55,
            3 | 6 => image.row_mut(60)[0] ^= 0x55,
            7 => {
                image.row_mut(1)[3] ^= 0x55;
                image.row_mut(1)[3 * 90] ^= 0x55;
            }
            _ => {}
        }
        let (inputs, here) = encode(&*cached, &image);
        let found = output(&*cached, &config, &inputs, &here);
        let expected = output(&*plain, &config, &inputs, &here);
        assert_eq!(found.outputs().len(), 3);
        assert_eq!(found.outputs(), expected.outputs(), "frame {frame}");
        assert_eq!(expected.tiles, (0, 0), "nothing is cached");
        counts.push(found.tiles);
        features.push(here);
    }
    // The frame has 2 tiles, and so has the region of 70 x 40 at 8,8. All four are computed when the
    // features are new: in frames 0, 3 and 6.
    assert_eq!(
        counts,
        [
            (4, 0),
            (0, 4),
            (2, 2),
            (4, 0),
            (0, 4),
            (3, 1),
            (4, 0),
            (2, 2)
        ]
    );
    for (a, b, same) in [(0, 1, true), (0, 2, true), (2, 3, false), (3, 5, true)] {
        assert_eq!(features[a] == features[b], same, "{a} and {b}");
    }
}

#[test]
fn noise_below_the_threshold_changes_nothing() {
    let range = "color_range = [[-3, 3], [-3, 3], [-3, 3]]";
    let (config, cached, _folder) = model(&format!(
        "{range}\nbackbone_interval = 9\nnoise_threshold = 4"
    ));
    let first = test_image();
    let (at_first, features) = encode(&*cached, &first);
    let expected = output(&*cached, &config, &at_first, &features);
    let mut noisy = first.clone();
    for y in 0..CAMERA.height {
        for (i, x) in noisy.row_mut(y).iter_mut().enumerate() {
            *x = x.saturating_add(((i * 31 + y * 17) % 5) as u8);
        }
    }
    assert_ne!(noisy, first);
    let (then, features) = encode(&*cached, &noisy);
    assert_eq!(then.guidance, at_first.guidance);
    let found = output(&*cached, &config, &then, &features);
    assert_eq!(found.tiles, (0, 4));
    assert_eq!(found.outputs(), expected.outputs());
}
