//! SigLIP's pooling head, applied to each token, against the libraries.

use std::{collections::BTreeMap, fs, path::Path};

use loftup_import::vit::{ConfigFiles, Preset, Vit, VitOptions};
use loftup_onnx::Tensor;
use serde::Deserialize;

use crate::{
    made::{self, hash},
    slow::activate,
    support::{Tensors, run, try_with, vit, weights, worst},
};

/// One entry of `pooling_heads.json`, which `tools/make_text_fixtures.py` writes.
#[derive(Deserialize)]
struct Case {
    name: String,
    activation: String,
    heads: usize,
    side: usize,
    tensors: Vec<(String, Vec<usize>)>,
    /// The library's head of the whole image.
    pooled: Vec<f32>,
    /// The library's head of a sequence of one token, for each token.
    each: Vec<Vec<f32>>,
}

/// Outputs have magnitudes up to 2 and are stored with six digits; PyTorch and tract add in
/// different orders.
const TOLERANCE: f32 = 2e-5;

fn cases() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pooling_heads.json");
    let cases: Vec<Case> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert_eq!(cases.len(), 2);
    cases
}

impl Case {
    /// The weights, and the image, which follows them.
    fn made(&self) -> (Tensors, Tensor) {
        let (tensors, first) = made::tensors(&self.tensors);
        let image = |i| hash(first + i) * 2.0 - 1.0;
        (
            tensors,
            Tensor::from_fn([1, 3, self.side, self.side], image),
        )
    }

    fn options(&self, text_space: bool) -> VitOptions {
        VitOptions {
            heads: Some(self.heads),
            activation: Some(self.activation.parse().unwrap()),
            text_space,
            ..VitOptions::default()
        }
    }

    fn vit(&self, tensors: Tensors, text_space: bool) -> Result<Vit, String> {
        let preset = Preset::parse("siglip").unwrap();
        let options = self.options(text_space);
        try_with(tensors, preset, &options, &ConfigFiles::default())
    }
}

/// The tokens of a map `[1, d, h, w]`.
fn tokens(map: &Tensor) -> Vec<Vec<f64>> {
    let [1, dim, rows, columns] = map.shape()[..] else {
        panic!("{:?}", map.shape())
    };
    let n = rows * columns;
    let at = |token: usize, c: usize| f64::from(map.data()[c * n + token]);
    (0..n)
        .map(|token| (0..dim).map(|c| at(token, c)).collect())
        .collect()
}

fn furthest<'a>(found: impl IntoIterator<Item = &'a f64>, expected: &[f32]) -> f32 {
    let found: Vec<f32> = found.into_iter().map(|x| *x as f32).collect();
    assert_eq!(found.len(), expected.len());
    let pairs = found.iter().zip(expected);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn features_in_the_space_of_texts_are_the_head_of_each_token() {
    for case in cases() {
        let (tensors, image) = case.made();
        let vit = case.vit(tensors, true).unwrap();
        assert!(vit.config().text_space && vit.config().architecture().text_space);
        let found = tokens(&run(&vit, &image));
        let off = furthest(found.iter().flatten(), &case.each.concat());
        println!("{}: off by {off:.1e}", case.name);
        assert!(off <= TOLERANCE, "{}: {off:e}", case.name);
    }
}

/// The head as in the paper, in 64 bits: attention of the probe to the tokens, which weights
/// `proj(value(token))` head by head, and the MLP.
struct Slow<'a> {
    tensors: &'a BTreeMap<String, Tensor>,
    case: &'a Case,
    module: String,
    timm: bool,
}

impl<'a> Slow<'a> {
    fn new(tensors: &'a Tensors, case: &'a Case) -> Self {
        let name = |end: &str| {
            tensors
                .keys()
                .find_map(|k| Some(k.strip_suffix(end)?.into()))
        };
        let hf: Option<String> = name("probe");
        Self {
            tensors,
            case,
            timm: hf.is_none(),
            module: hf.or_else(|| name("latent")).unwrap(),
        }
    }

    fn linear(&self, names: [String; 2], rows: std::ops::Range<usize>, x: &[f64]) -> Vec<f64> {
        let [weight, bias] = names.map(|name| &self.tensors[&(self.module.clone() + &name)]);
        rows.map(|row| {
            let weights = &weight.data()[row * x.len()..][..x.len()];
            let sum: f64 = weights.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum();
            sum + f64::from(bias.data()[row])
        })
        .collect()
    }

    fn layer(&self, timm: &str, hf: &str, out: usize, x: &[f64]) -> Vec<f64> {
        let name = if self.timm { timm } else { hf };
        let names = ["weight", "bias"].map(|end| format!("{name}.{end}"));
        self.linear(names, 0..out, x)
    }

    /// Part 0, 1 or 2: query, key or value.
    fn projected(&self, part: usize, x: &[f64]) -> Vec<f64> {
        let width = x.len();
        match (self.timm, part) {
            (true, 0) => self.layer("q", "", width, x),
            (true, _) => {
                let names = ["kv.weight".into(), "kv.bias".into()];
                self.linear(names, (part - 1) * width..part * width, x)
            }
            (false, _) => {
                let names = ["attention.in_proj_weight", "attention.in_proj_bias"];
                let names = names.map(String::from);
                self.linear(names, part * width..(part + 1) * width, x)
            }
        }
    }

    /// The attention of each head to each token.
    fn weights(&self, tokens: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let probe = if self.timm { "latent" } else { "probe" };
        let probe = &self.tensors[&(self.module.clone() + probe)];
        let probe: Vec<f64> = probe.data().iter().map(|x| f64::from(*x)).collect();
        let query = self.projected(0, &probe);
        let channels = query.len() / self.case.heads;
        let keys: Vec<Vec<f64>> = tokens.iter().map(|t| self.projected(1, t)).collect();
        (0..self.case.heads)
            .map(|head| {
                let part = head * channels..(head + 1) * channels;
                let score = |key: &Vec<f64>| -> f64 {
                    let products = query[part.clone()].iter().zip(&key[part.clone()]);
                    products.map(|(q, k)| q * k).sum::<f64>() / (channels as f64).sqrt()
                };
                let scores: Vec<f64> = keys.iter().map(|key| score(key).exp()).collect();
                let total: f64 = scores.iter().sum();
                scores.iter().map(|score| score / total).collect()
            })
            .collect()
    }

    /// The head of tokens that each of its attention heads weights so.
    fn pooled(&self, tokens: &[Vec<f64>], weights: &[Vec<f64>]) -> Vec<f64> {
        let width = tokens[0].len();
        let channels = width / self.case.heads;
        let mut mixed = vec![0.0; width];
        for (j, token) in tokens.iter().enumerate() {
            let value = self.projected(2, token);
            for (c, mixed) in mixed.iter_mut().enumerate() {
                *mixed += weights[c / channels][j] * value[c];
            }
        }
        let o = self.layer("proj", "attention.out_proj", width, &mixed);
        let n = width as f64;
        let mean = o.iter().sum::<f64>() / n;
        let variance = o.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let norm = if self.timm { "norm" } else { "layernorm" };
        let of = |end: &str| &self.tensors[&format!("{}{norm}.{end}", self.module)];
        let (scale, offset) = (of("weight"), of("bias"));
        let normed: Vec<f64> = (0..width)
            .map(|c| {
                let x = (o[c] - mean) / (variance + 1e-6).sqrt();
                x * f64::from(scale.data()[c]) + f64::from(offset.data()[c])
            })
            .collect();
        let hidden = self.tensors[&format!("{}mlp.fc1.bias", self.module)].shape()[0];
        let activation = self.case.activation.parse().unwrap();
        let y = self.layer("mlp.fc1", "mlp.fc1", hidden, &normed);
        let y: Vec<f64> = y.into_iter().map(|x| activate(x, activation)).collect();
        let y = self.layer("mlp.fc2", "mlp.fc2", width, &y);
        o.iter().zip(y).map(|(o, y)| o + y).collect()
    }
}

#[test]
fn the_heads_attention_to_the_tokens_gives_the_embedding_of_the_image() {
    for case in cases() {
        let (tensors, image) = case.made();
        let plain = case.vit(tensors.clone(), false).unwrap();
        assert!(!plain.config().text_space);
        let tokens = tokens(&run(&plain, &image));
        let slow = Slow::new(&tensors, &case);
        let weights = slow.weights(&tokens);
        let off = furthest(&slow.pooled(&tokens, &weights), &case.pooled);
        println!("{}: off by {off:.1e}", case.name);
        assert!(off <= TOLERANCE, "{}: {off:e}", case.name);
        // All attention to one token is the head of this token alone.
        for (j, each) in case.each.iter().enumerate() {
            let one: Vec<f64> = (0..tokens.len())
                .map(|i| f64::from(u8::from(i == j)))
                .collect();
            let found = slow.pooled(&tokens, &vec![one; case.heads]);
            let off = furthest(&found, each);
            assert!(off <= TOLERANCE, "{}, token {j}: {off:e}", case.name);
        }
    }
}

#[test]
fn features_without_the_option_are_as_before() {
    let (tensors, image) = cases()[0].made();
    let [plain, text] = [false, true].map(|t| cases()[0].vit(tensors.clone(), t).unwrap());
    assert!(worst(&run(&plain, &image), &run(&text, &image)) > 0.1);
}

#[test]
fn the_space_of_texts_needs_the_head_and_a_model_of_texts() {
    let case = &cases()[1];
    let (mut tensors, _) = case.made();
    tensors.insert(
        "visual.trunk.attn_pool.pos_embed".into(),
        Tensor::from_fn([9, 16], |_| 0.0),
    );
    let message = case.vit(tensors.clone(), true).unwrap_err();
    assert!(message.contains("attn_pool.pos_embed"), "{message}");
    tensors.retain(|name, _| !name.contains("attn_pool"));
    assert!(case.vit(tensors.clone(), false).is_ok());
    let message = case.vit(tensors, true).unwrap_err();
    for part in ["w.pth", "visual.trunk.attn_pool", "whole model"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    // CLIP's features are in the space of texts anyway; DINOv2's never are.
    let space = |file: &str, preset: &str| {
        let preset = Preset::parse(preset).unwrap();
        let options = VitOptions {
            text_space: true,
            ..crate::support::options(preset, Some(3))
        };
        try_with(weights(file), preset, &options, &ConfigFiles::default())
    };
    let clip = space("clip.bin", "clip").unwrap();
    assert_eq!(
        clip.config(),
        vit(weights("clip.bin"), "clip", Some(3)).config()
    );
    let message = space("dinov2.bin", "dinov2").unwrap_err();
    assert!(
        message.contains("DINOv2") && message.contains("--text-space"),
        "{message}"
    );
}
