//! Trainings of NAF, small.

// Its bundle is for the tests of LoftUp.
#[allow(dead_code)]
mod support;

use std::{ops::ControlFlow, path::Path, sync::atomic::AtomicBool};

use loftup_convert::Builtin;
use loftup_import::checkpoint::Checkpoint;
use loftup_train::{Config, Outcome, checkpoint, files, train};
use support::{config, images, read, run, settings, tiny_dinov2};

/// Makes `backbone.loftup` in `folder`: EfficientNet-Lite0, which takes any size, in patches of 16 pixels.
fn bundle(folder: &Path) {
    let out = folder.join("backbone.loftup");
    let written = Builtin::Photos.write(&out, false, |_| ControlFlow::Continue(()));
    written.unwrap();
}

/// Settings for NAF: a grid of 9x9 tokens, and those of twice the size as the target.
fn naf_settings(steps: u64, out: &str) -> String {
    let text = settings(1, steps, out)
        .replace("seed = 3", "seed = 3\nupsampler = \"naf\"")
        .replace("augmentations = 2\n", "")
        .replace("projection = 16", "projection = 0\nclip = 1.0")
        .replace(
            "guidance = \"28x28\"",
            "guidance = \"36x36\"\nbackbone = \"144x144\"\ntarget = \"288x288\"",
        );
    assert!(text.contains("naf") && text.contains("288x288"));
    text
}

#[test]
fn resumed_it_is_the_same_bit_for_bit_and_the_loss_falls() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    bundle(at);
    images(at, 3);
    let (whole, path) = config(at, "whole.toml", &naf_settings(30, "whole"));
    assert_eq!(
        run(&whole, &path, false, None),
        Outcome::Finished(whole.out.join(files::WEIGHTS))
    );
    let (halves, path) = config(at, "halves.toml", &naf_settings(30, "halves"));
    assert_eq!(run(&halves, &path, false, Some(11)), Outcome::Stopped(11));
    run(&halves, &path, true, None);
    for name in ["losses.csv", files::WEIGHTS, files::PREVIEW] {
        assert_eq!(read(&whole.out, name), read(&halves.out, name), "{name}");
    }
    let state = |c: &Config| checkpoint::load(&c.out.join(files::CHECKPOINT)).unwrap().0;
    assert_eq!(state(&whole), state(&halves));

    let (first, last) = first_and_last(&whole);
    println!("loss {first} to {last}");
    assert!(last < 0.95 * first, "{first} to {last}");
}

/// Two backbones with 112 and 48 channels, the first at two sizes, and rescaled coordinates.
fn several(steps: u64, out: &str) -> String {
    let further = r#"
[[backbones]]
bundle = "vit.loftup"

[[backbones]]
bundle = "backbone.loftup"
guidance = "60x40"
backbone = "240x160"

[data]"#;
    naf_settings(steps, out)
        .replace("\n[data]", further)
        .replace("target =", "rescale_coords = 2.0\ntarget =")
}

#[test]
fn with_several_backbones_and_rescaled_coordinates_it_resumes_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    bundle(at);
    tiny_dinov2(at.join("vit.loftup"), 126);
    images(at, 2);
    let (whole, path) = config(at, "whole.toml", &several(8, "whole"));
    run(&whole, &path, false, None);
    let (halves, path) = config(at, "halves.toml", &several(8, "halves"));
    assert_eq!(run(&halves, &path, false, Some(3)), Outcome::Stopped(3));
    // Another list is another training.
    let text = several(8, "halves").replace("60x40", "120x80");
    let (other, path) = config(at, "other.toml", &text);
    let message = train(&other, &path, true, &AtomicBool::new(false), &mut |_| {});
    let message = message.unwrap_err().to_string();
    assert!(message.contains("guidance = \"60x40\""), "{message}");

    run(&halves, &path.with_file_name("halves.toml"), true, None);
    let state = |c: &Config| checkpoint::load(&c.out.join(files::CHECKPOINT)).unwrap();
    assert_eq!(state(&whole), {
        let (tensors, mut progress) = state(&halves);
        progress.config = state(&whole).1.config;
        (tensors, progress)
    });
    // The periods are NAF's own, whatever the last step multiplied coordinates by.
    let weights = Checkpoint::open(&whole.out.join(files::WEIGHTS)).unwrap();
    let weights = loftup_import::naf::read(&weights).unwrap();
    assert_eq!(weights.periods, loftup_spec::naf::periods());

    // Every backbone is drawn in these eight steps, and the scale matters: the losses are others.
    let losses = |c: &Config| String::from_utf8(read(&c.out, "losses.csv")).unwrap();
    let without = [
        ("rescale_coords = 2.0\n", ""),
        (
            "bundle = \"vit.loftup\"",
            "bundle = \"backbone.loftup\"\nbackbone = \"144x144\"",
        ),
        ("60x40", "120x80"),
    ];
    for (old, new) in without {
        let text = several(8, "without").replace(old, new);
        assert!(text.contains(new));
        let (config, path) = config(at, "without.toml", &text);
        run(&config, &path, false, None);
        assert_ne!(losses(&config), losses(&whole), "{old}");
        std::fs::remove_dir_all(&config.out).unwrap();
    }
}

#[test]
fn the_target_may_be_the_pseudo_ground_truth_and_a_training_may_start_from_weights() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    bundle(at);
    images(at, 2);
    let text = naf_settings(1, "one").replace("target = \"288x288\"", "gradient_weight = 1.0");
    let (first, path) = config(at, "one.toml", &text);
    run(&first, &path, false, None);
    let weights = first.out.join(files::WEIGHTS);
    let weights_of =
        |path: &Path| loftup_import::naf::read(&Checkpoint::open(path).unwrap()).unwrap();

    let text = naf_settings(0, "two").replace(
        "seed = 3",
        "seed = 3\nstart = \"one/upsampler.safetensors\"",
    );
    let (second, path) = config(at, "two.toml", &text);
    run(&second, &path, false, None);
    assert_eq!(
        weights_of(&weights).tensors(),
        weights_of(&second.out.join(files::WEIGHTS)).tensors()
    );
}

/// Settings for synthetic features: crops of 9x9 tokens from a grid of 10x10, 4 pixels each.
fn synthetic_settings(steps: u64, out: &str) -> String {
    naf_settings(steps, out)
        .replace("36x36", "40x40")
        .replace("144x144", "160x160")
        .replace(
            "target = \"288x288\"",
            "synthetic = { channels = 8, crop = 9 }",
        )
}

#[test]
fn from_synthetic_features_it_learns_and_resumes_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    bundle(at);
    images(at, 3);
    let (whole, path) = config(at, "whole.toml", &synthetic_settings(40, "whole"));
    run(&whole, &path, false, None);
    let (halves, path) = config(at, "halves.toml", &synthetic_settings(40, "halves"));
    assert_eq!(run(&halves, &path, false, Some(7)), Outcome::Stopped(7));
    run(&halves, &path, true, None);
    for name in ["losses.csv", files::WEIGHTS, files::PREVIEW] {
        assert_eq!(read(&whole.out, name), read(&halves.out, name), "{name}");
    }
    let (first, last) = first_and_last(&whole);
    println!("loss {first} to {last}");
    assert!(last < 0.9 * first, "{first} to {last}");
    // It does not matter what the backbone computes, only its grid.
    tiny_dinov2(at.join("vit.loftup"), 140);
    let text = synthetic_settings(3, "other")
        .replace("\"backbone.loftup\"", "\"vit.loftup\"")
        .replace("160x160", "140x140");
    let (other, path) = config(at, "other.toml", &text);
    run(&other, &path, false, None);
    let losses = |c: &Config| String::from_utf8(read(&c.out, "losses.csv")).unwrap();
    let start = |text: String| text.lines().take(4).collect::<Vec<_>>().join("\n");
    assert_eq!(start(losses(&other)), start(losses(&whole)));
}

/// The mean losses of the first and the last six steps.
fn first_and_last(config: &Config) -> (f32, f32) {
    let table = String::from_utf8(read(&config.out, "losses.csv")).unwrap();
    let losses: Vec<f32> = table
        .lines()
        .skip(1)
        .map(|line| line.split(',').nth(2).unwrap().parse().unwrap())
        .collect();
    let mean = |x: &[f32]| x.iter().sum::<f32>() / x.len() as f32;
    (mean(&losses[..6]), mean(&losses[losses.len() - 6..]))
}

#[test]
fn settings_that_naf_cannot_have_are_errors_with_the_remedy() {
    let text = naf_settings(1, "out");
    let cases = [
        (
            "stage = 1",
            "stage = 2\nstart = \"x\"",
            "stage: NAF has no second stage",
        ),
        (
            "seed = 3",
            "seed = 3\ninit = \"bilateral\"",
            "init: NAF starts from random weights",
        ),
        (
            "projection = 0",
            "augmentations = 2",
            "loss.augmentations: NAF is trained without views",
        ),
        (
            "target",
            "window = \"16x16\"\ntarget",
            "stage1.window: NAF normalizes over whole images",
        ),
        (
            "upsampler = \"naf\"",
            "",
            "stage1.target: only upsampler = \"naf\"",
        ),
        (
            "target = \"288x288\"",
            "rescale_coords = 0.5",
            "stage1.rescale_coords: write 1 to 16",
        ),
        (
            "target = \"288x288\"",
            "target = \"288x288\"\nsynthetic = {}",
            "stage1.synthetic: only upsampler = \"naf\" without stage1.target",
        ),
        (
            "target = \"288x288\"",
            "synthetic = {}\n[[backbones]]\nbundle = \"b\"\ntarget = \"288x288\"",
            "stage1.synthetic: only upsampler = \"naf\" without stage1.target and backbones.target",
        ),
        (
            "target = \"288x288\"",
            "synthetic = { channels = 6 }",
            "stage1.synthetic.channels: write a multiple of 4",
        ),
        (
            "target = \"288x288\"",
            "synthetic = { blur = 0.0 }",
            "stage1.synthetic.blur: write 0.1 to 4",
        ),
        (
            "target = \"288x288\"",
            "synthetic = { noise = -1.0 }",
            "stage1.synthetic.noise: write 0 to 10",
        ),
    ];
    for (old, new, what) in cases {
        let text = text.replace(old, new);
        let message = Config::parse(&text, Path::new("train.toml")).unwrap_err();
        assert!(message.to_string().contains(what), "{message}");
    }

    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    bundle(at);
    images(at, 1);
    for (old, new, what) in [
        ("36x36", "40x40", "9x9, 18x18 and 40x40"),
        ("144x144", "128x128", "8x8, 18x18 and 36x36"),
        ("288x288", "280x288", "the backbone takes 288x288"),
        (
            "target = \"288x288\"",
            "synthetic = { crop = 10 }",
            "synthetic.crop: a crop has 9 or more rows and columns of tokens",
        ),
        (
            "guidance = \"36x36\"\nbackbone = \"144x144\"\ntarget = \"288x288\"",
            "guidance = \"40x36\"\nbackbone = \"160x144\"\nsynthetic = { crop = 9 }",
            "the grid must be square, and 10x9 is not",
        ),
        (
            "\n[data]",
            "\n[[backbones]]\nbundle = \"backbone.loftup\"\n[data]",
            "backbones[0].guidance: NAF is trained with a grid of at least 9x9",
        ),
        (
            "\n[data]",
            "\n[[backbones]]\nbundle = \"backbone.loftup\"\nbackbone = \"150x144\"\n[data]",
            "backbones[0].backbone: the backbone takes 144x144",
        ),
    ] {
        let (config, path) = config(at, "t.toml", &text.replace(old, new));
        let message = train(&config, &path, false, &AtomicBool::new(false), &mut |_| {});
        let message = message.unwrap_err().to_string();
        assert!(message.contains(what), "{message}");
    }
}
