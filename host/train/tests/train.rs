//! Whole trainings, small: resuming, broken data. Killed trainings are tested with the command.

mod support;

use std::{collections::BTreeSet, path::Path, sync::atomic::AtomicBool};

use loftup_bundle::Size;
use loftup_import::checkpoint::Checkpoint;
use loftup_train::data::{Dataset, Sample};
use loftup_train::{Config, Event, Outcome, TrainError, checkpoint, files, train};
use support::{bundle, config, image, images, read, run, settings};

#[test]
fn both_stages_resumed_are_the_same_bit_for_bit_as_uninterrupted() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    bundle(at);
    images(at, 5);
    for (stage, out) in [(1, "one"), (2, "two")] {
        let (whole, path) = config(at, "whole.toml", &settings(stage, 7, out));
        assert_eq!(
            run(&whole, &path, false, None),
            Outcome::Finished(at.join(out).join(files::WEIGHTS))
        );
        let (halves, path) = config(
            at,
            "halves.toml",
            &settings(stage, 7, &format!("{out}-halves")),
        );
        assert_eq!(run(&halves, &path, false, Some(3)), Outcome::Stopped(3));
        assert!(!halves.out.join(files::WEIGHTS).exists());
        run(&halves, &path, true, None);
        for name in ["losses.csv", files::WEIGHTS, files::PREVIEW] {
            assert_eq!(
                read(&whole.out, name),
                read(&halves.out, name),
                "stage {stage}: {name}"
            );
        }
        let state = |c: &Config| {
            let (tensors, mut progress) = checkpoint::load(&c.out.join(files::CHECKPOINT)).unwrap();
            progress.config.clear();
            (tensors, progress)
        };
        assert_eq!(state(&whole), state(&halves), "stage {stage}");

        let table = String::from_utf8(read(&whole.out, "losses.csv")).unwrap();
        println!("stage {stage}:\n{table}");
        assert_eq!(table.lines().count(), 8);
        // Weights under the authors' names, which the exporter reads, and which have moved.
        let trained = Checkpoint::open(&whole.out.join(files::WEIGHTS)).unwrap();
        assert_eq!(
            loftup_import::loftup::read(&trained).unwrap().config().dim,
            48
        );
        let provenance: serde_json::Value =
            serde_json::from_slice(&read(&whole.out, files::PROVENANCE)).unwrap();
        assert_eq!(provenance["steps"], 7);
        assert_eq!(provenance["weights_sha256"], trained.sha256().unwrap());
        assert_eq!(provenance["config"]["seed"], 3);
    }
}

#[test]
fn the_loss_falls_on_a_few_images() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    bundle(at);
    images(at, 2);
    let text = settings(1, 60, "out").replace("augmentations = 2", "augmentations = 0");
    let windows = text
        .replace("\"out\"", "\"windows\"")
        .replace("[data]", "[data]\nhorizontal_flip = true")
        .replace("[optimizer]", "[optimizer]\nfreeze_batch_norm = true")
        .replace("\"28x28\"", "\"28x28\"\nwindow = \"20x16\"");
    assert_ne!(windows, text);
    for (name, text) in [("t.toml", text), ("w.toml", windows)] {
        let (config, path) = config(at, name, &text);
        loss_falls(&config, &path);
    }
}

fn loss_falls(config: &Config, path: &Path) {
    run(config, path, false, None);
    let table = String::from_utf8(read(&config.out, "losses.csv")).unwrap();
    let losses: Vec<f32> = table
        .lines()
        .skip(1)
        .map(|l| l.split(',').nth(2).unwrap().parse().unwrap())
        .collect();
    let mean = |x: &[f32]| x.iter().sum::<f32>() / x.len() as f32;
    // The first 10 steps are clipped to almost nothing.
    let (first, last) = (mean(&losses[..10]), mean(&losses[50..]));
    println!("loss {first} to {last}");
    assert!(last < 0.8 * first, "{first} to {last}");
}

/// A tar archive of some files.
fn archive(path: &Path, members: &[(&str, Vec<u8>)]) {
    let mut builder = tar::Builder::new(std::fs::File::create(path).unwrap());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, name, bytes.as_slice())
            .unwrap();
    }
    builder.finish().unwrap();
}

#[test]
fn skipped_images_and_masks_are_counted_and_named_and_the_rest_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    bundle(at);
    let data = images(at, 2);
    let png = read(&data, "0.png");
    // Runs down the columns of a mask of 70 rows and 90 columns: a part of the middle.
    let mask = |runs: &str| {
        format!(r#"{{"segmentation": {{"size": [70, 90], "counts": {runs}}}, "area": 1}}"#)
    };
    let json =
        |masks: &[String]| format!(r#"{{"image": {{}}, "annotations": [{}]}}"#, masks.join(","));
    std::fs::write(
        data.join("0.json"),
        json(&[
            mask("[2100, 1400, 2800]"),
            mask("[7, 3]"),
            mask("\"\\u0001\""),
        ]),
    )
    .unwrap();
    std::fs::write(data.join("1.json"), "{\"annotations\": 3").unwrap();
    std::fs::write(data.join("cut.png"), &png[..png.len() / 2]).unwrap();
    std::fs::write(data.join("text.jpg"), "no image").unwrap();
    std::fs::write(data.join("notes.txt"), "not even called one").unwrap();
    archive(
        &data.join("shard.tar"),
        &[
            ("a/1.png", png.clone()),
            ("a/1.json", json(&[mask("[0, 6300]")]).into_bytes()),
            ("a/2.png", png[..9].to_vec()),
        ],
    );
    let whole = read(&data, "shard.tar");
    std::fs::write(data.join("cut.tar"), &whole[..whole.len() / 2]).unwrap();

    let (config, path) = config(at, "t.toml", &settings(1, 6, "out"));
    let stop = AtomicBool::new(false);
    let mut found = None;
    train(&config, &path, false, &stop, &mut |event| {
        if let Event::Started {
            images, with_masks, ..
        } = event
        {
            found = Some((images, with_masks));
        }
    })
    .unwrap();
    // 0, 1, cut and text; two in the archive, and in the one that is cut off the first, if any.
    let (all, with_masks) = found.unwrap();
    assert!((6..=7).contains(&all), "{all}");
    assert!(with_masks >= 3);
    let provenance: serde_json::Value =
        serde_json::from_slice(&read(&config.out, files::PROVENANCE)).unwrap();
    let names = |key: &str| -> Vec<String> {
        let list = provenance[key].as_array().unwrap().iter();
        list.map(|n| n.as_str().unwrap().rsplit('/').next().unwrap().to_string())
            .collect()
    };
    println!("{:?} {:?}", names("skipped_images"), names("skipped_masks"));
    for name in ["2.png", "cut.png", "text.jpg"] {
        assert!(names("skipped_images").iter().any(|n| n == name), "{name}");
    }
    assert_eq!(names("skipped_masks"), ["0.png", "1.png"]);
}

#[test]
fn data_with_nothing_usable_are_an_error_that_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    bundle(at);
    let data = at.join("images");
    std::fs::create_dir(&data).unwrap();
    let (config, path) = config(at, "t.toml", &settings(1, 2, "out"));
    let message = || {
        train(&config, &path, false, &AtomicBool::new(false), &mut |_| {})
            .unwrap_err()
            .to_string()
    };
    let nothing = message();
    assert!(
        nothing.contains("no images") && nothing.contains("data.paths"),
        "{nothing}"
    );
    std::fs::write(data.join("a.jpg"), "no image").unwrap();
    let broken = message();
    assert!(broken.contains("none of the 1 images"), "{broken}");
    std::fs::remove_dir_all(&data).unwrap();
    assert!(message().contains("images: No such file"), "{}", message());
}

#[test]
fn a_checkpoint_of_other_settings_or_data_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    bundle(at);
    let data = images(at, 3);
    let text = settings(1, 2, "out");
    let (first, path) = config(at, "t.toml", &text);
    run(&first, &path, false, None);
    let message = |config: &Config, resume: bool| {
        train(config, &path, resume, &AtomicBool::new(false), &mut |_| {})
            .unwrap_err()
            .to_string()
    };
    assert!(
        message(&first, false).contains("--resume"),
        "an old training is not overwritten"
    );
    let (other, _) = config(
        at,
        "o.toml",
        &text.replace("learning_rate = 1e-3", "learning_rate = 2e-3"),
    );
    let found = message(&other, true);
    assert!(
        found.contains("0.001") && found.contains("0.002"),
        "{found}"
    );
    // More steps, or another rhythm of checkpoints, change nothing in what was done.
    let (longer, _) = config(
        at,
        "l.toml",
        &text
            .replace("steps = 2", "steps = 3")
            .replace("log_every = 1", "log_every = 3"),
    );
    run(&longer, &path, true, None);
    image(9, 30, 30).save_png(&data.join("new.png")).unwrap();
    let found = message(&longer, true);
    assert!(found.contains("other data"), "{found}");
}

#[test]
fn settings_that_make_no_sense_are_errors_with_the_key_and_the_remedy() {
    let text = settings(1, 2, "out");
    let cases = [
        ("seed = 3", "sead = 3", "line 5", "unknown field `sead`"),
        ("stage = 1", "stage = 3", "line 4", "write 1 or 2"),
        ("stage = 1", "stage = 2", "start", "checkpoint of stage 1"),
        (
            "batch_size = 2",
            "batch_size = 0",
            "run.batch_size",
            "1 to 4096",
        ),
        ("pad = 2", "pad = -2", "line", "invalid value"),
        ("\"28x28\"", "\"28\"", "line", "x"),
        (
            "learning_rate = 1e-3",
            "learning_rate = nan",
            "optimizer.learning_rate",
            "above 0",
        ),
        (
            "learning_rate = 1e-3",
            "rate = 1e-3",
            "line",
            "now `optimizer.learning_rate`",
        ),
        (
            "stage = 1",
            "stage = 1\nbegin = \"random\"",
            "line",
            "now `init`",
        ),
        (
            "stage = 1",
            "stage = 1\ninit = \"interpolating\"",
            "line",
            "now `bilinear`",
        ),
        (
            "sizes = [28, 56]",
            "sizes = [28, 560]",
            "stage2.sizes",
            "stage2.high",
        ),
        (
            "guidance = \"28x28\"",
            "guidance = \"28x28\"\nwindow = \"32x16\"",
            "stage1.window",
            "28x28",
        ),
        (
            "guidance = \"28x28\"",
            "guidance = \"28x28\"\nwindow = \"16x16\"",
            "stage1.window",
            "loss.augmentations = 0",
        ),
        (
            "guidance = \"28x28\"",
            "guidance = \"28x28\"\ngradient_weight = -1.0",
            "stage1.gradient_weight",
            "0 or more",
        ),
        (
            "guidance = \"28x28\"",
            "guidance = \"28x28\"\nmse_weight = 0.0",
            "stage1.mse_weight",
            "stage1.gradient_weight above 0",
        ),
        (
            "paths = [\"images\"]",
            "paths = []",
            "data.paths",
            "at least one",
        ),
    ];
    for (old, new, key, what) in cases {
        let text = text.replace(old, new);
        let message = Config::parse(&text, Path::new("train.toml"))
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with("train.toml: ") && message.contains(key) && message.contains(what),
            "{new}: {message}"
        );
        assert!(!message.contains('\n'));
    }
    let window = text
        .replace("augmentations = 2", "augmentations = 0")
        .replace("\"28x28\"", "\"28x28\"\nwindow = \"16x16\"");
    let message = Config::parse(&window, Path::new("train.toml")).unwrap_err();
    assert!(
        message.to_string().contains("freeze_batch_norm = true"),
        "{message}"
    );
}

#[test]
fn a_guidance_that_windows_do_not_fit_is_an_error_with_a_size_that_does() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    bundle(at);
    images(at, 1);
    let (config, path) = config(
        at,
        "t.toml",
        &settings(1, 2, "out").replace("28x28", "30x27"),
    );
    let message = train(&config, &path, false, &AtomicBool::new(false), &mut |_| {})
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("stage1.guidance") && message.contains("32x28"),
        "{message}"
    );
}

#[test]
fn complete_settings_say_what_was_published_and_can_be_read_back() {
    let least = "bundle = \"b\"\nout = \"o\"\nstage = 1\n[data]\npaths = [\"p\"]\n";
    let one = Config::parse(least, Path::new("t.toml")).unwrap();
    let complete = one.complete();
    for line in [
        "method = \"nadam\"",
        "learning_rate = 0.0001",
        "augmentations = 4",
        "guidance = \"224x224\"",
        "projection = 64",
        "clip = 0.0001",
        "batch_size = 8",
        "max_masks = 150",
    ] {
        assert!(complete.contains(line), "{line} in {complete}");
    }
    assert_eq!(
        Config::parse(&complete, Path::new("t.toml"))
            .unwrap()
            .complete(),
        complete
    );
    let two = least.replace("stage = 1", "stage = 2\nstart = \"s\"");
    let complete = Config::parse(&two, Path::new("t.toml")).unwrap().complete();
    for line in [
        "method = \"adamw\"",
        "learning_rate = 0.001",
        "weight_decay = 0.01",
        "augmentations = 2",
        "tv_weight = 0.05",
        "affinity = 20.0",
        "ema_decay = 0.99",
        "sizes = [\n    224,",
    ] {
        assert!(
            complete.replace("[224, ", "[\n    224,").contains(line),
            "{line} in {complete}"
        );
    }
}

#[test]
fn presets_can_be_read_and_differ_from_the_defaults_only_where_they_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("presets");
    let mut names = Vec::new();
    for item in std::fs::read_dir(&folder).unwrap() {
        let path = item.unwrap().path();
        let preset = Config::open(&path).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let published = name.ends_with("-published");
        assert_eq!(
            preset.learning_rate(5, 100) == preset.optimizer().learning_rate,
            published,
            "{name}"
        );
        assert_eq!(preset.run.batch_size == 8, published, "{name}");
        names.push(name);
    }
    names.sort();
    assert_eq!(
        names,
        [
            "stage1-published",
            "stage1-small",
            "stage2-published",
            "stage2-small"
        ]
    );
}

#[test]
fn an_output_fitted_to_the_backbone_begins_with_its_mean_and_deviation() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    bundle(at);
    images(at, 3);
    let text = settings(1, 1, "out").replace("stage = 1", "stage = 1\ninit = \"calibrated\"");
    // A rate of next to nothing: what is saved is what it began with.
    let (config, path) = config(
        at,
        "t.toml",
        &text.replace("learning_rate = 1e-3", "learning_rate = 1e-12"),
    );
    run(&config, &path, false, None);
    let trained = Checkpoint::open(&config.out.join(files::WEIGHTS)).unwrap();
    let begun = |name: &str| {
        trained
            .tensor(&format!("upsampler.final_conv.1.{name}"), &[48])
            .unwrap()
    };
    let cache = config.out.join("cache");
    let features: Vec<f32> = std::fs::read_dir(cache)
        .unwrap()
        .flat_map(|f| loftup_runtime::npy::read(&f.unwrap().path()).unwrap().data)
        .collect();
    assert_eq!(features.len(), 3 * 16 * 48);
    for c in 0..48 {
        let channel: Vec<f64> = features[c..]
            .iter()
            .step_by(48)
            .map(|x| f64::from(*x))
            .collect();
        let mean = channel.iter().sum::<f64>() / 48.0;
        let deviation = (channel.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 48.0).sqrt();
        let close = |a: f32, b: f64| (f64::from(a) - b).abs() < 1e-4 * b.abs().max(1.0);
        assert!(
            close(begun("bias").data()[c], mean) && close(begun("weight").data()[c], deviation)
        );
    }
}

/// Links may lead back to where they are: each real folder counts once.
#[cfg(unix)]
#[test]
fn links_do_not_multiply_images() {
    use loftup_train::data::Dataset;

    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    images(at, 3);
    let (config, _) = config(at, "t.toml", &settings(1, 1, "out"));
    let open = |stop: bool| {
        let (paths, preparation) = (&config.data.paths, config.preparation());
        Dataset::open(paths, None, preparation, &AtomicBool::new(stop))
    };
    let before = open(false).unwrap();
    let root = &config.data.paths[0];
    for link in ["a", "b"] {
        std::os::unix::fs::symlink(".", root.join(link)).unwrap();
    }
    let after = open(false).unwrap();
    assert_eq!(after.len(), before.len());
    assert_eq!(after.fingerprint(), before.fingerprint());
    let stopped = open(true).unwrap_err();
    assert!(matches!(stopped, TrainError::Interrupted), "{stopped}");
}

#[test]
fn a_flip_takes_the_masks_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let images = images(folder.path(), 1);
    // A mask of the first three columns of 90x70 pixels.
    let json = format!(
        r#"{{"annotations":[{{"segmentation":{{"size":[70,90],"counts":[0,{},{}]}}}}]}}"#,
        3 * 70,
        87 * 70
    );
    std::fs::write(images.join("0.json"), json).unwrap();
    let config = Config::parse(&settings(1, 1, "out"), folder.path()).unwrap();
    let stop = AtomicBool::new(false);
    let data = Dataset::open(&[images], None, config.preparation(), &stop).unwrap();
    let size = Size {
        width: 90,
        height: 70,
    };
    let sample = data.sample(0, size).unwrap();
    let mut flipped = sample.clone();
    flipped.flip();
    assert_ne!(flipped.identity(), sample.identity());
    let column = |sample: &Sample, x: usize| {
        let rows = (0..sample.photo.height()).map(|y| sample.photo.row(y)[3 * x..][..3].to_vec());
        rows.collect::<Vec<_>>()
    };
    let masked = |sample: &Sample| {
        let masks = &sample.segmentations(&sample.resized(size).unwrap())[0];
        let width = sample.photo.width();
        let columns = masks[0].pixels().iter().map(|&p| p as usize % width);
        columns.collect::<BTreeSet<_>>()
    };
    let width = sample.photo.width();
    for x in 0..width {
        assert_eq!(column(&flipped, x), column(&sample, width - 1 - x));
    }
    let expected: BTreeSet<usize> = masked(&sample).iter().map(|x| width - 1 - x).collect();
    assert!(!expected.is_empty() && expected != masked(&sample));
    assert_eq!(masked(&flipped), expected);
    flipped.flip();
    assert_eq!(flipped.photo, sample.photo);
    assert_eq!(masked(&flipped), masked(&sample));
}
