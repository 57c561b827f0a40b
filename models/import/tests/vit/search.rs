//! Selection of one model if a checkpoint contains several.

use loftup_import::{
    checkpoint::Checkpoint,
    vit::{ConfigFiles, Preset, Vit},
};
use loftup_onnx::Tensor;

use crate::support::{Tensors, options, weights};

fn under(prefix: &str, tensors: &Tensors) -> Tensors {
    tensors
        .iter()
        .map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone()))
        .collect()
}

/// The same weights with one tensor changed, which changes every output.
fn changed(tensors: &Tensors) -> Tensors {
    let mut changed = tensors.clone();
    let norm = changed.remove("norm.weight").unwrap();
    changed.insert("norm.weight".into(), norm.map(|_, x| 2.0 * x));
    changed
}

fn graph(tensors: Tensors, preset: &str, prefix: Option<&str>) -> Result<Vec<u8>, String> {
    let checkpoint = Checkpoint::from_tensors("w.pth", tensors);
    let checkpoint = match prefix {
        Some(prefix) => checkpoint.within(prefix).map_err(|e| e.to_string())?,
        None => checkpoint,
    };
    let preset = Preset::parse(preset).unwrap();
    let vit = Vit::from_checkpoint(
        &checkpoint,
        preset,
        &options(preset, Some(3)),
        &ConfigFiles::default(),
    )
    .map_err(|e| e.to_string())?;
    Ok(vit.graph(112, 112).unwrap())
}

fn says(error: Result<Vec<u8>, String>, words: &[&str]) {
    let message = error.unwrap_err();
    assert!(!message.contains('\n'), "{message}");
    for word in words {
        assert!(message.contains(word), "{message:?} lacks {word:?}");
    }
}

#[test]
fn of_student_and_teacher_the_teacher_is_taken() {
    let teacher = weights("dinov2.bin");
    let student = changed(&teacher);
    let alone = graph(teacher.clone(), "dinov2", None).unwrap();
    for (one, other) in [
        ("teacher.backbone.", "student.backbone."),
        ("model.teacher.", "model.student."),
    ] {
        let mut both = under(one, &teacher);
        both.extend(under(other, &student));
        both.insert("dino_loss.center".into(), Tensor::from_fn([1, 4], |_| 0.0));
        assert!(graph(both.clone(), "dinov2", None).unwrap() == alone);
        assert!(graph(both.clone(), "dinov2", Some(one)).unwrap() == alone);
        let chosen = graph(both, "dinov2", Some(other)).unwrap();
        assert!(chosen == graph(student.clone(), "dinov2", None).unwrap() && chosen != alone);
    }
}

#[test]
fn of_two_families_the_requested_one_is_used() {
    // As in OpenVLA: both with the names of timm.
    let dinov2 = weights("dinov2.bin");
    let siglip: Tensors = weights("siglip.safetensors")
        .into_iter()
        .map(|(name, tensor)| (name.replace("visual.trunk.", ""), tensor))
        .collect();
    let mut both = under("featurizer.", &dinov2);
    both.extend(under("fused_featurizer.", &siglip));
    for (preset, alone) in [("dinov2", dinov2), ("siglip", siglip)] {
        assert!(graph(both.clone(), preset, None).unwrap() == graph(alone, preset, None).unwrap());
    }
    says(
        graph(both.clone(), "clip", None),
        &[
            "several",
            "featurizer.*, fused_featurizer.*",
            "--prefix featurizer",
        ],
    );
    says(
        graph(both, "siglip", Some("featurizer")),
        &["contains a DINOv2 backbone, not SigLIP"],
    );
}

#[test]
fn of_models_alike_one_must_be_chosen() {
    let weights = weights("dinov2.bin");
    let mut both = under("model.", &weights);
    both.extend(under("model_ema.", &changed(&weights)));
    both.insert("head.weight".into(), Tensor::from_fn([1], |_| 0.0));
    says(
        graph(both.clone(), "dinov2", None),
        &["model.*, model_ema.*", "--prefix model"],
    );
    let alone = graph(weights, "dinov2", None).unwrap();
    assert!(graph(both.clone(), "dinov2", Some("model")).unwrap() == alone);
    assert!(graph(both.clone(), "dinov2", Some("model_ema.")).unwrap() != alone);
    says(
        graph(both.clone(), "dinov2", Some("head")),
        &[
            "no vision transformer under the prefix head.",
            "model.*, model_ema.*",
        ],
    );
    says(
        graph(both, "dinov2", Some("mod")),
        &[
            "no tensor name starts with the prefix mod.",
            "head.*, model.*",
        ],
    );
}
