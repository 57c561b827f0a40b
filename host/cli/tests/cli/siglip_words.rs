//! `loftup head text` with SigLIP: the space of texts, the tokenizer, probabilities.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::*;

/// Channels of both encoders.
const WIDTH: usize = 16;
/// Side of the images and of a patch.
const SIZE: [usize; 2] = [32, 8];
/// Tokens that the text encoder reads.
const CONTEXT: usize = 40;

/// A small SigLIP with open_clip's names and random weights, whole: both encoders.
fn siglip(dir: &Path, vocabulary: usize) -> PathBuf {
    let mut state = 7u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut tensors = Tensors::new();
    let mut add = |name: String, shape: &[usize], base: f32| {
        let count = shape.iter().product::<usize>();
        let values = (0..count).map(|_| base + 0.5 * noise()).collect();
        tensors.insert(name, (shape.to_vec(), values));
    };
    let [side, patch] = SIZE;
    let (w, grid) = (WIDTH, side / patch);
    let trunk = "visual.trunk";
    add(
        format!("{trunk}.patch_embed.proj.weight"),
        &[w, 3, patch, patch],
        0.0,
    );
    add(format!("{trunk}.pos_embed"), &[1, grid * grid, w], 0.0);
    let norms = [
        format!("{trunk}.blocks.0.norm1"),
        format!("{trunk}.blocks.0.norm2"),
        format!("{trunk}.norm"),
        format!("{trunk}.attn_pool.norm"),
        "text.transformer.resblocks.0.ln_1".into(),
        "text.transformer.resblocks.0.ln_2".into(),
        "text.ln_final".into(),
    ];
    for norm in norms {
        add(format!("{norm}.weight"), &[w], 1.0);
        add(format!("{norm}.bias"), &[w], 0.0);
    }
    add(format!("{trunk}.patch_embed.proj.bias"), &[w], 0.0);
    let layers = [
        (format!("{trunk}.blocks.0.attn.qkv"), 3 * w, w),
        (format!("{trunk}.blocks.0.attn.proj"), w, w),
        (format!("{trunk}.blocks.0.mlp.fc1"), 2 * w, w),
        (format!("{trunk}.blocks.0.mlp.fc2"), w, 2 * w),
        (format!("{trunk}.attn_pool.kv"), 2 * w, w),
        (format!("{trunk}.attn_pool.proj"), w, w),
        (format!("{trunk}.attn_pool.mlp.fc1"), 2 * w, w),
        (format!("{trunk}.attn_pool.mlp.fc2"), w, 2 * w),
        ("text.transformer.resblocks.0.attn.out_proj".into(), w, w),
        ("text.transformer.resblocks.0.mlp.c_fc".into(), 2 * w, w),
        ("text.transformer.resblocks.0.mlp.c_proj".into(), w, 2 * w),
        ("text.text_projection".into(), w, w),
    ];
    for (layer, out, inputs) in layers {
        add(format!("{layer}.weight"), &[out, inputs], 0.0);
        add(format!("{layer}.bias"), &[out], 0.0);
    }
    let qkv = "text.transformer.resblocks.0.attn.in_proj_";
    add(format!("{qkv}weight"), &[3 * w, w], 0.0);
    add(format!("{qkv}bias"), &[3 * w], 0.0);
    add("text.token_embedding.weight".into(), &[vocabulary, w], 0.0);
    add("text.positional_embedding".into(), &[CONTEXT, w], 0.0);
    tensors.insert("logit_scale".into(), (vec![], vec![2.0]));
    tensors.insert("logit_bias".into(), (vec![], vec![-1.0]));
    let path = dir.join("siglip.safetensors");
    save(&path, &tensors);
    path
}

/// The command that makes a bundle of its image encoder.
fn convert(weights: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = loftup!(
        "convert",
        "--backbone",
        "siglip",
        "--heads",
        "2",
        "--size",
        "32x32"
    );
    command.args(["--activation", "gelu"]).args(more);
    command
        .arg("--backbone-weights")
        .arg(weights)
        .arg("--out")
        .arg(out);
    command
}

fn head_text(bundle: &Path, weights: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = loftup!(
        "head",
        "text",
        bundle,
        "--words",
        "mug, walk sign",
        "--heads",
        "2"
    );
    command.args(["--activation", "gelu-tanh"]).args(more);
    command
        .arg("--text-weights")
        .arg(weights)
        .arg("--out")
        .arg(out);
    command
}

/// The tokenizer of the tests of loftup-words, which has 541 tokens.
fn tokenizer() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../words/tests/data/siglip2.json");
    path.to_str().unwrap().into()
}

#[test]
fn words_need_the_space_of_texts_and_a_tokenizer() {
    let dir = dir();
    let dir = dir.path();
    let weights = siglip(dir, 541);
    let (plain, texts) = (dir.join("plain.loftup"), dir.join("texts.loftup"));
    done(&mut convert(&weights, &plain, &[]));
    let said = done(&mut convert(&weights, &texts, &["--text-space"]));
    names(&said, &["in the space of texts"]);
    let out = dir.join("words.safetensors");
    let message = refused(dir, &mut head_text(&plain, &weights, &out, &[]));
    names(&message, &["plain.loftup", "--text-space"]);
    let message = refused(dir, &mut head_text(&texts, &weights, &out, &[]));
    names(&message, &["siglip.safetensors", "--tokenizer"]);
    let mut dinov2 = loftup!(
        "convert",
        "--backbone",
        "dinov2",
        "--heads",
        "3",
        "--text-space"
    );
    dinov2
        .arg("--backbone-weights")
        .arg(self::weights("dinov2.bin"));
    let message = refused(dir, dinov2.arg("--out").arg(dir.join("dinov2.loftup")));
    names(&message, &["dinov2.bin", "DINOv2", "--text-space"]);
    if !cfg!(feature = "tokenizers") {
        let given = ["--tokenizer", &tokenizer()];
        let message = refused(dir, &mut head_text(&texts, &weights, &out, &given));
        names(&message, &["siglip2.json", "--features tokenizers"]);
    }
}

#[test]
#[cfg_attr(not(feature = "tokenizers"), ignore = "needs the feature tokenizers")]
fn words_of_siglip_become_classes_with_a_probability() {
    let dir = dir();
    let dir = dir.path();
    let weights = siglip(dir, 541);
    let bundle = dir.join("texts.loftup");
    done(&mut convert(&weights, &bundle, &["--text-space"]));
    let templates = dir.join("templates.txt");
    fs::write(&templates, "a {}.\nthe {} there\n").unwrap();
    let tokenizer = tokenizer();
    let given = [
        "--tokenizer",
        &tokenizer,
        "--templates",
        templates.to_str().unwrap(),
    ];
    let image = png(dir);
    let points = dir.join("points.csv");
    fs::write(&points, "0,0\n31,17\n20,25\n").unwrap();
    let run = |head: &Path| {
        let out = head.with_extension("npy");
        let mut command = loftup!("run", &bundle, "--backend", "tract", "--image", &image);
        command.args(["--upsampler", "jbu", "--head"]).arg(head);
        done(command.arg("--points").arg(&points).arg("--out").arg(&out));
        read(out)
    };
    let head = dir.join("words.safetensors");
    done(&mut head_text(&bundle, &weights, &head, &given));
    let cosines = run(&head);
    assert_eq!(cosines.shape, [3, 2]);
    let sound = |c: &f32| (-1.0..=1.0).contains(c);
    assert!(cosines.data.iter().all(sound), "{:?}", cosines.data);
    assert!(cosines.data[0] != cosines.data[1]);
    // A probability between those of the best word of two points finds it at one of them.
    let best: Vec<f64> = cosines
        .data
        .chunks(2)
        .map(|c| f64::from(c[0].max(c[1])))
        .collect();
    let (least, most) = (
        best.iter().copied().fold(1.0, f64::min),
        best.iter().copied().fold(-1.0, f64::max),
    );
    assert!(most - least > 1e-4, "{best:?}");
    let between = (least + most) / 2.0;
    let probability = 1.0 / (1.0 + (-(2f64.exp() * between - 1.0)).exp());
    let some = dir.join("some.safetensors");
    let asked = ["--probability", &probability.to_string()];
    let said = done(&mut head_text(
        &bundle,
        &weights,
        &some,
        &[&given[..], &asked].concat(),
    ));
    names(&said, &["threshold", "probability"]);
    let found = run(&some);
    for (cosines, best) in found.data.chunks(2).zip(&best) {
        let none = cosines.iter().all(|c| *c == f32::NEG_INFINITY);
        assert_eq!(none, *best < between, "{cosines:?}");
    }
    // exp(2) - 1 = 6.39 at most, which is 0.998.
    let out = dir.join("out.safetensors");
    let asked = ["--probability", "0.999"];
    let message = refused(
        dir,
        &mut head_text(&bundle, &weights, &out, &[&given[..], &asked].concat()),
    );
    names(&message, &["0.999", "logit_scale 2", "logit_bias -1"]);
}
