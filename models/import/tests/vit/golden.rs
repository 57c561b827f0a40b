//! Comparison with features of the original PyTorch models.

use std::fs;

use loftup_import::{
    checkpoint::Checkpoint,
    vit::{ConfigFiles, Preset, Vit},
};
use serde_json::Value;

use crate::support::{golden, npy, options, run, worst};

/// PyTorch and tract add in different orders; features have a magnitude of 1 to 4.
const TOLERANCE: f32 = 1e-4;

fn check(case: &str) {
    let folder = golden().join(case);
    let facts: Value =
        serde_json::from_slice(&fs::read(folder.join("case.json")).unwrap()).unwrap();
    let number = |key: &str| facts[key].as_u64().unwrap() as usize;
    let file = golden()
        .join("weights")
        .join(facts["weights"].as_str().unwrap());
    let preset = Preset::parse(facts["kind"].as_str().unwrap()).unwrap();
    let checkpoint = Checkpoint::open(&file).unwrap();
    let vit = Vit::from_checkpoint(
        &checkpoint,
        preset,
        &options(preset, Some(number("heads"))),
        &ConfigFiles::default(),
    )
    .unwrap();

    let config = vit.config();
    assert_eq!(config.patch, number("patch"));
    assert_eq!(config.dim, number("dim"));
    assert_eq!(config.depth, number("depth"));
    let grid = config.position.grid().unwrap();
    assert_eq!(grid * config.patch, number("trained_at"));
    assert_eq!(
        config.registers,
        facts["registers"].as_u64().unwrap_or(0) as usize
    );
    for (key, ours) in [("mean", config.mean), ("std", config.std)] {
        if let Some(theirs) = facts[key].as_array() {
            let theirs: Vec<f32> = theirs.iter().map(|x| x.as_f64().unwrap() as f32).collect();
            assert_eq!(ours.as_slice(), theirs, "{key}");
        }
    }

    let features = run(&vit, &npy(&folder.join("image.npy")));
    let worst = worst(&features, &npy(&folder.join("out.npy")));
    println!("{case}: worst error {worst:e}");
    assert!(worst <= TOLERANCE, "{case}: {worst:e}");
}

#[test]
fn dinov2_gives_the_features_of_the_original() {
    check("dinov2_native");
}

#[test]
fn dinov2_at_another_size_gives_the_features_of_the_original() {
    check("dinov2_resized");
}

#[test]
fn dinov2_with_registers_gives_the_features_of_the_original() {
    check("dinov2_reg_native");
}

#[test]
fn dinov2_with_registers_at_another_size_gives_the_features_of_the_original() {
    check("dinov2_reg_resized");
}

#[test]
fn clip_gives_the_features_of_the_original() {
    check("clip_native");
}

#[test]
fn clip_at_another_size_gives_the_features_of_the_original() {
    check("clip_resized");
}

#[test]
fn siglip_gives_the_features_of_the_original() {
    check("siglip_native");
}
