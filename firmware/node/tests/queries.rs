//! Depth maps and words of the node are those of the runtime, for the whole frame, regions and points.

mod common;

use std::path::Path;

use loftup_bundle::Size;
use loftup_node::{
    assemble::model_factory,
    config::{Config, Upsampler},
    frame::RawFrame,
    model::{FrameRequest, Words},
    output::{FrameOutput, OutputKind, QueryOutput},
    regions::RegionFinder,
    source::{Pace, Scenes},
};
use loftup_runtime::{
    ExecutionOptions, Frame, Perceptor, Point, Query, Rect,
    depth::Depth,
    heads::{NO_CLASS, argmax},
    image::RgbImage,
    jbu::JbuOptions,
    sinks::VecSink,
};
use loftup_wire::depth::millimeters;

const QUERIES: &str = r#"
[words]
directory = "words"
head = "words"

[[query]]
slot = 0
want = "depth"

[[query]]
slot = 1
want = "depth"
region = [16, 8, 48, 32]

[[query]]
slot = 2
want = "depth"
points = [[3, 3], [90, 60], [40, 1]]

[[query]]
slot = 3
want = "words"

[[query]]
slot = 4
want = "words"
points = [[3, 3], [90, 60], [40, 1]]

[[query]]
slot = 5
want = "classes"

[[query]]
slot = 6
want = "regions"
"#;

/// Size of the camera image and of the output, which has odd tiles.
const CAMERA: [usize; 2] = [96, 64];
const SIZE: Size = Size {
    width: 42,
    height: 42,
};

fn config(folder: &Path, more: &str) -> Config {
    common::bundle(folder);
    let text = common::config_text(QUERIES).replace("threads = 1", more);
    Config::parse(&text, &folder.join("node.toml")).unwrap()
}

fn image(number: u64) -> RgbImage {
    let mut raw = RawFrame::default();
    Scenes::new(5, CAMERA[0], CAMERA[1], Pace::new(10.0)).draw(number, &mut raw);
    RgbImage::new(raw.width, raw.height, raw.bytes).unwrap()
}

struct Found {
    config: Config,
    model: std::sync::Arc<dyn loftup_node::model::Model>,
}

impl Found {
    fn outputs(&self, image: &RgbImage, words: Option<&Words>, regions_only: bool) -> FrameOutput {
        self.upsampled(image, words, regions_only, Upsampler::Loftup)
    }

    fn upsampled(
        &self,
        image: &RgbImage,
        words: Option<&Words>,
        regions_only: bool,
        upsampler: Upsampler,
    ) -> FrameOutput {
        let (inputs, mut finder, mut out) = (
            self.model.preprocess(image, SIZE).unwrap(),
            RegionFinder::default(),
            FrameOutput::default(),
        );
        let features = self.model.features(&inputs).unwrap();
        let request = FrameRequest {
            queries: &self.config.queries(),
            regions_only,
            upsampler,
            words,
            min_area_px: 1,
            max_regions: 64,
            camera: Size {
                width: CAMERA[0],
                height: CAMERA[1],
            },
        };
        let model = &self.model;
        model
            .upsample(&inputs, &features, &request, &mut finder, &mut out)
            .unwrap();
        out
    }
}

fn in_slot(out: &FrameOutput, slot: u8) -> &QueryOutput {
    let mut outputs = out.outputs().iter();
    outputs.find(|output| output.slot == slot).unwrap()
}

#[test]
fn depth_and_words_are_those_of_the_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), common::DEPTH);
    let model = model_factory(&config, None)().unwrap();
    let found = Found { config, model };
    let words = found.model.words("kitchen").unwrap();
    assert_eq!(words.names, common::OTHER_WORDS);
    let options = ExecutionOptions {
        threads: 1,
        ..ExecutionOptions::default()
    };
    let perceptor = Perceptor::open_on_cpu(&folder.path().join("robot.loftup"), options).unwrap();
    let depth_head = perceptor.head("depth").unwrap();
    let depth = Depth::of(&depth_head).unwrap();
    let word_head = folder.path().join("words/kitchen.safetensors");
    let word_head = perceptor.head_from_file(&word_head).unwrap();
    let whole = Rect::whole(SIZE);
    // 16 * 42 / 96 = 7, 8 * 42 / 64 = 5.25, 48 * 42 / 96 = 21, 40 * 42 / 64 = 26.25.
    let part = Rect {
        x: 7,
        y: 5,
        width: 21,
        height: 22,
    };
    // (2 x + 1) * 42 / (2 * 96), (2 y + 1) * 42 / (2 * 64).
    let points = [(1, 2), (39, 39), (17, 0)].map(|(x, y)| Point { x, y });
    let (mut none, mut several) = (0, 0);
    for number in 0..4 {
        let image = image(number);
        let frame = Frame::packed(image.data(), CAMERA[0], CAMERA[1]);
        let out = found.outputs(&image, Some(&words), false);
        assert_eq!(out.outputs().len(), 7);
        let perceive = |query: Query<'_>| perceptor.perceive(&frame, &query).unwrap();
        let queries = [
            Query::region(SIZE, whole),
            Query::region(SIZE, part),
            Query::points(SIZE, &points),
        ];
        for (slot, query) in (0..).zip(queries) {
            let expected = perceive(query.with_head(&depth_head));
            let output = in_slot(&out, slot);
            assert_eq!(output.kind, OutputKind::Depth);
            assert_eq!(
                (output.width, output.height),
                (expected.width, expected.height)
            );
            let meters = depth.map(&expected.values);
            let expected: Vec<u16> = meters.iter().map(|m| millimeters(*m)).collect();
            assert_eq!(output.depth, expected, "slot {slot}");
            assert!(output.depth.iter().all(|d| (250..=20_000).contains(d)));
            several += usize::from(output.depth.windows(2).any(|w| w[0] != w[1]));
        }
        let expected = perceive(Query::region(SIZE, whole).with_head(&word_head)).classes();
        assert_eq!(in_slot(&out, 3).classes, expected);
        none += expected.iter().filter(|class| **class == NO_CLASS).count();
        let expected = perceive(Query::points(SIZE, &points).with_head(&word_head)).classes();
        assert_eq!(in_slot(&out, 4).classes, expected);
        // The maps of two heads with the same size are not mixed up.
        assert_ne!(in_slot(&out, 3).classes, in_slot(&out, 5).classes);
        assert_eq!(in_slot(&out, 5).classes, in_slot(&out, 6).classes);
        let reduced = found.outputs(&image, None, true);
        let slots: Vec<u8> = reduced.outputs().iter().map(|o| o.slot).collect();
        assert_eq!(slots, [1, 2, 6], "no maps of the whole frame, and no words");
    }
    assert!(several >= 8 && none > 0, "{several} {none}");
}

#[test]
fn with_jbu_each_query_has_a_head_for_its_features_or_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let options = ExecutionOptions {
        threads: 1,
        ..ExecutionOptions::default()
    };
    let image = image(3);
    let open = |more: &str| {
        common::bundle(folder.path());
        let text = common::config_text(&format!("{QUERIES}\n{more}"));
        let text = text.replace("threads = 1", common::DEPTH);
        let config = Config::parse(&text, &folder.path().join("node.toml")).unwrap();
        let model = model_factory(&config, None)().unwrap();
        Found { config, model }
    };
    let slots = |out: &FrameOutput| -> Vec<u8> {
        let mut slots: Vec<u8> = out.outputs().iter().map(|o| o.slot).collect();
        slots.sort_unstable();
        slots
    };
    let step = "[[degrade.step]]\nupsampler = \"jbu\"\n";
    let bare = open(&format!("[model.jbu]\n{step}"));
    let words = bare.model.words("words").unwrap();
    let out = bare.upsampled(&image, Some(&words), false, Upsampler::Jbu);
    assert_eq!(slots(&out), [3, 4], "words need no other head");
    let out = bare.upsampled(&image, Some(&words), false, Upsampler::Loftup);
    assert_eq!(slots(&out).len(), 7);

    let full = open(&format!(
        "[model.jbu]\nhead = \"scene\"\ndepth = \"depth\"\n{step}"
    ));
    let out = full.upsampled(&image, Some(&words), false, Upsampler::Jbu);
    assert_eq!(slots(&out).len(), 7);
    let perceptor = Perceptor::open_on_cpu(&folder.path().join("robot.loftup"), options).unwrap();
    let inputs = perceptor.preprocess(&image, SIZE).unwrap();
    let features = perceptor.features(inputs.backbone()).unwrap();
    let encoded = perceptor.encode_jbu(features, &inputs.guidance, JbuOptions::default());
    let values = |head: &str| {
        let head = perceptor.head(head).unwrap();
        let view = encoded.clone().with_head(&head).unwrap();
        let mut values = VecSink::new(Rect::whole(SIZE), view.dim()).unwrap();
        view.frame(&mut |tile| values.push(tile)).unwrap();
        (values.into_values(), view.dim())
    };
    let (scores, dim) = values("scene");
    let expected: Vec<u8> = scores.chunks_exact(dim).map(argmax).collect();
    assert_eq!(in_slot(&out, 5).classes, expected);
    let (scores, dim) = values("words");
    let expected: Vec<u8> = scores.chunks_exact(dim).map(argmax).collect();
    assert_eq!(in_slot(&out, 3).classes, expected);
    let depth = Depth::of(&perceptor.head("depth").unwrap()).unwrap();
    let meters = depth.map(&values("depth").0);
    let expected: Vec<u16> = meters.iter().map(|m| millimeters(*m)).collect();
    assert_eq!(in_slot(&out, 0).depth, expected);
}

#[test]
fn static_scenes_have_the_same_depth_and_words() {
    let folder = tempfile::tempdir().unwrap();
    let range = "color_range = [[-3, 3], [-3, 3], [-3, 3]]";
    let more = |more: &str| format!("{}\n{range}\n{more}", common::DEPTH);
    let config = |text: &str| {
        let config = config(folder.path(), text);
        let model = model_factory(&config, None)().unwrap();
        Found { config, model }
    };
    let plain = config(&more(""));
    let cached = config(&more("backbone_interval = 2"));
    for number in [0, 0, 1, 1, 2] {
        let image = image(number);
        // The same two heads in turn, in the same slots.
        for name in ["kitchen", "words"] {
            let words = plain.model.words(name).unwrap();
            let expected = plain.outputs(&image, Some(&words), false);
            let words = cached.model.words(name).unwrap();
            let found = cached.outputs(&image, Some(&words), false);
            assert_eq!(found.outputs(), expected.outputs(), "{number} {name}");
        }
    }
}

#[test]
fn words_outside_the_directory_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), common::DEPTH);

    let model = model_factory(&config, None)().unwrap();
    let path = folder.path().join("words/kitchen");
    for name in [
        "",
        ".",
        "..",
        "../words/kitchen",
        "words/kitchen",
        path.to_str().unwrap(),
        "kitchen.safetensors",
        "nothing",
    ] {
        let error = model.words(name).unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error:?}");
    }
    let error = model.words("scene").unwrap_err().to_string();
    assert!(error.contains("not one of words"), "{error}");
    // Damaged, and for another number of channels.
    let file = folder.path().join("words/bad.safetensors");
    std::fs::write(&file, b"nothing").unwrap();
    let error = model.words("bad").unwrap_err().to_string();
    assert!(error.contains("bad.safetensors"), "{error}");
}
