//! Selection of one upsampler if a checkpoint contains several.

use std::path::Path;

use loftup_import::checkpoint::Checkpoint;

/// The test upsampler under each prefix.
fn under(prefixes: &[&str]) -> Checkpoint {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/data/golden/weights/loftup_wide.safetensors");
    let opened = Checkpoint::open(&path).unwrap();
    let mut tensors = std::collections::BTreeMap::new();
    for (i, prefix) in prefixes.iter().enumerate() {
        for name in opened.names() {
            let tensor = opened.tensor(name, opened.shape(name).unwrap()).unwrap();
            // Scaled differently, to show which one was selected.
            let tensor = match name {
                "upsampler.final_conv.0.weight" => tensor.map(|_, x| x * (i + 1) as f32),
                _ => tensor,
            };
            tensors.insert(format!("{prefix}{name}"), tensor);
        }
    }
    Checkpoint::from_tensors("w.ckpt", tensors)
}

fn graph(checkpoint: &Checkpoint) -> Result<Vec<u8>, String> {
    let model = loftup_import::loftup::read(checkpoint).map_err(|e| e.to_string())?;
    Ok(model.queries_graph())
}

#[test]
fn an_upsampler_is_found_under_any_prefix() {
    let bare = graph(&under(&[""])).unwrap();
    for prefixes in [
        &["model."][..],
        &["ema_model.online."],
        &["", "train.teacher."],
        &["teacher.", "student."],
    ] {
        assert!(graph(&under(prefixes)).unwrap() == bare, "{prefixes:?}");
    }
    let second = under(&["student.", "teacher."]);
    assert!(graph(&second).unwrap() != bare);
    assert!(graph(&second.within("student").unwrap()).unwrap() == bare);
}

#[test]
fn of_upsamplers_alike_one_must_be_chosen() {
    let both = under(&["model.", "model_ema."]);
    let message = graph(&both).unwrap_err();
    for word in [
        "several upsamplers",
        "model.*, model_ema.*",
        "--prefix model",
    ] {
        assert!(message.contains(word), "{message:?} lacks {word:?}");
    }
    assert!(graph(&both.within("model_ema").unwrap()).is_ok());
}

#[test]
fn what_is_missing_is_named_with_its_prefix() {
    let broken = under(&["model."])
        .renamed(|name| (!name.ends_with("final_conv.1.bias")).then(|| name.into()));
    let message = graph(&broken).unwrap_err();
    assert!(
        message.contains("model.upsampler.final_conv.1.bias is missing"),
        "{message}"
    );
}
