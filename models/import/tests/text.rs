//! Text encoders against the libraries whose tensor names are read, and the errors of reading them.

#[path = "common/made.rs"]
mod made;

use std::{collections::BTreeMap, fs, path::Path};

use loftup_import::{
    checkpoint::Checkpoint,
    text::{TextConfigFiles, TextEncoder, TextOptions},
    vit::{Activation, Family, Origin},
};
use loftup_onnx::Tensor;
use serde::Deserialize;
use tract_onnx::prelude::*;

/// One entry of `text_encoders.json`, which `tools/make_text_fixtures.py` writes.
#[derive(Deserialize)]
struct Case {
    name: String,
    activation: String,
    heads: usize,
    ids: Vec<Vec<u32>>,
    tensors: Vec<(String, Vec<usize>)>,
    embeddings: Vec<Vec<f32>>,
}

type Tensors = BTreeMap<String, Tensor>;

fn cases() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/text_encoders.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

impl Case {
    fn tensors(&self) -> Tensors {
        made::tensors(&self.tensors).0
    }

    fn options(&self) -> TextOptions {
        TextOptions {
            heads: Some(self.heads),
            activation: Some(self.activation.parse().unwrap()),
        }
    }
}

fn read(tensors: Tensors, options: &TextOptions) -> Result<TextEncoder, String> {
    let checkpoint = Checkpoint::from_tensors("clip.pt", tensors);
    let read = TextEncoder::from_checkpoint(&checkpoint, options, &TextConfigFiles::default());
    read.map_err(|e| {
        let message = e.to_string();
        assert!(!message.contains('\n'), "{message}");
        message
    })
}

/// The embeddings of `texts`, in one batch of `length` tokens.
fn run(encoder: &TextEncoder, texts: &[Vec<u32>], length: usize) -> Vec<f32> {
    let (mut tokens, mut pool) = (Vec::new(), Vec::new());
    for ids in texts {
        encoder.embed(ids, length, &mut tokens, &mut pool).unwrap();
    }
    let bytes = encoder.graph(texts.len(), length);
    let model = tract_onnx::onnx()
        .model_for_read(&mut bytes.as_slice())
        .and_then(|m| m.into_optimized())
        .and_then(|m| m.into_runnable())
        .unwrap();
    let width = encoder.config().width;
    let input = |shape: &[usize], data: &[f32]| {
        tract_onnx::prelude::Tensor::from_shape(shape, data)
            .unwrap()
            .into_tvalue()
    };
    let inputs = tvec!(
        input(&[texts.len(), length, width], &tokens),
        input(&[texts.len(), 1, length], &pool)
    );
    let output = model.run(inputs).unwrap().remove(0);
    let output = output.to_plain_array_view::<f32>().unwrap();
    assert_eq!(output.shape(), [texts.len(), encoder.config().dim]);
    output.iter().copied().collect()
}

#[test]
fn every_naming_scheme_gives_the_embeddings_of_its_library() {
    let cases = cases();
    assert_eq!(cases.len(), 7);
    for case in &cases {
        let encoder = read(case.tensors(), &case.options()).unwrap();
        let expected: Vec<f32> = case.embeddings.concat();
        let longest = case.ids.iter().map(Vec::len).max().unwrap();
        let found = run(&encoder, &case.ids, longest);
        let worst = |found: &[f32]| {
            assert_eq!(found.len(), expected.len());
            let pairs = found.iter().zip(&expected);
            pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        println!("{}: off by {:.1e}", case.name, worst(&found));
        // PyTorch and tract add in different orders; embeddings have magnitudes of 1 to 4, and are
        // stored with six digits.
        assert!(worst(&found) <= 2e-5, "{}", case.name);
        // One text at a time, without padding.
        if encoder.config().causal {
            let each = case.ids.iter();
            let found: Vec<f32> = each
                .flat_map(|ids| run(&encoder, std::slice::from_ref(ids), ids.len()))
                .collect();
            assert!(worst(&found) <= 2e-5, "{} one by one", case.name);
        }
        let family = match case.name.contains("iglip") || case.name.contains("SigLIP") {
            true => Family::SigLip,
            false => Family::Clip,
        };
        assert_eq!(encoder.config().family, family, "{}", case.name);
    }
}

#[test]
fn the_other_activation_is_another_model() {
    let case = &cases()[0];
    let other = TextOptions {
        activation: Some(Activation::QuickGelu),
        ..case.options()
    };
    let encoder = read(case.tensors(), &other).unwrap();
    let found = run(&encoder, &case.ids, 9);
    let pairs = found.iter().zip(case.embeddings.iter().flatten());
    let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst > 1e-3, "{worst:e}");
}

#[test]
fn an_unknown_activation_is_asked_for() {
    let case = &cases()[0];
    let options = TextOptions {
        activation: None,
        ..case.options()
    };
    let message = read(case.tensors(), &options).unwrap_err();
    for part in [
        "clip.pt",
        "width 16, depth 2",
        "--activation",
        "open_clip_config.json",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    // OpenAI's archives have three numbers that tell them apart.
    let mut tensors = case.tensors();
    for name in ["input_resolution", "context_length", "vocab_size"] {
        tensors.insert(name.into(), Tensor::from_fn([1], |_| 1.0));
    }
    let encoder = read(tensors, &options).unwrap();
    assert_eq!(encoder.config().activation, Activation::QuickGelu);
    assert_eq!(encoder.config().activation_from, Origin::Weights);
}

#[test]
fn config_files_decide_and_are_checked() {
    let directory = tempfile::tempdir().unwrap();
    let weights = directory.path().join("clip.pt");
    let case = &cases()[0];
    let checkpoint = Checkpoint::from_tensors("clip.pt", case.tensors());
    let with = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        let files = TextConfigFiles::next_to(&weights);
        let read = files.and_then(|files| {
            TextEncoder::from_checkpoint(&checkpoint, &TextOptions::default(), &files)
        });
        fs::remove_file(path).unwrap();
        read.map(|e| (e.config().heads, e.config().activation))
            .map_err(|e| e.to_string())
    };
    let open_clip = |quick: bool, width: usize| {
        format!(
            r#"{{"model_cfg": {{"quick_gelu": {quick}, "text_cfg": {{"width": {width}, "heads": 4, "layers": 2}}}}}}"#
        )
    };
    let name = "open_clip_config.json";
    assert_eq!(
        with(name, &open_clip(true, 16)),
        Ok((4, Activation::QuickGelu))
    );
    assert_eq!(with(name, &open_clip(false, 16)), Ok((4, Activation::Gelu)));
    let message = with(name, &open_clip(false, 32)).unwrap_err();
    assert!(
        message.contains(name) && message.contains("width 32"),
        "{message}"
    );
    let transformers = r#"{"model_type": "clip", "text_config": {"hidden_act": "gelu", "num_attention_heads": 2}}"#;
    assert_eq!(with("config.json", transformers), Ok((2, Activation::Gelu)));
    let message = with("config.json", &transformers.replace("clip", "siglip")).unwrap_err();
    assert!(message.contains("SigLIP"), "{message}");
    let message = with("config.json", &transformers.replace("gelu", "relu")).unwrap_err();
    assert!(message.contains("hidden_act"), "{message}");
}

#[test]
fn what_is_no_supported_text_encoder_is_refused() {
    let case = &cases()[0];
    let options = case.options();
    let changed = |change: &dyn Fn(&mut Tensors)| {
        let mut tensors = case.tensors();
        change(&mut tensors);
        read(tensors, &options).unwrap_err()
    };
    type Change<'a> = &'a dyn Fn(&mut Tensors);
    let table: [(Change, &[&str]); 8] = [
        (
            &|t| t.retain(|n, _| n.contains("resblocks")),
            &["no text encoder", "resblocks.0"],
        ),
        (
            &|t| {
                let more: Tensors = t
                    .iter()
                    .map(|(n, t)| (format!("two.{n}"), t.clone()))
                    .collect();
                t.extend(more);
            },
            &["several", "--prefix"],
        ),
        (
            &|t| drop(t.remove("text_projection")),
            &["without its projection text_projection"],
        ),
        (&|t| drop(t.remove("ln_final.bias")), &["ln_final.bias"]),
        (
            &|t| {
                let scale = Tensor::from_fn([16], |_| 1.0);
                t.insert("transformer.resblocks.1.ls_1.gamma".into(), scale);
            },
            &["unsupported", "resblocks.1.ls_1.gamma"],
        ),
        (
            &|t| t.retain(|n, _| !n.contains("resblocks.0.")),
            &["block transformer.resblocks.0 is missing"],
        ),
        (
            &|t| drop(t.insert("cls_emb".into(), Tensor::from_fn([16], |_| 0.0))),
            &["class token"],
        ),
        (
            &|t| {
                drop(t.insert(
                    "positional_embedding".into(),
                    Tensor::from_fn([9, 8], |_| 0.0),
                ))
            },
            &["position embeddings of 8 channels"],
        ),
    ];
    for (change, parts) in table {
        let message = changed(change);
        for part in parts {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
    let odd = TextOptions {
        heads: Some(3),
        ..options
    };
    let message = read(case.tensors(), &odd).unwrap_err();
    assert!(message.contains("3 attention heads"), "{message}");
}

#[test]
fn tokens_that_do_not_fit_are_refused() {
    let cases = cases();
    let clip = read(cases[0].tensors(), &cases[0].options()).unwrap();
    let siglip = read(cases[3].tensors(), &cases[3].options()).unwrap();
    let embed = |encoder: &TextEncoder, ids: &[u32], length: usize| {
        let (mut tokens, mut pool) = (Vec::new(), Vec::new());
        let embedded = encoder.embed(ids, length, &mut tokens, &mut pool);
        embedded.map(|()| pool).map_err(|e| e.to_string())
    };
    assert_eq!(embed(&clip, &[1, 2], 3), Ok(vec![0.0, 1.0, 0.0]));
    assert!(embed(&clip, &[], 3).is_err());
    assert!(embed(&clip, &[1; 4], 3).is_err());
    assert!(embed(&clip, &[1; 4], 10).is_err());
    let message = embed(&clip, &[1, 40], 3).unwrap_err();
    assert!(
        message.contains("token 40") && message.contains("tokenizer"),
        "{message}"
    );
    let message = embed(&siglip, &[1, 2], 9).unwrap_err();
    assert!(message.contains("exactly 9"), "{message}");
}

#[test]
fn scale_and_bias_of_siglip_turn_cosines_into_probabilities() {
    let number = |shape: &[usize], x: f32| Tensor::from_fn(shape.to_vec(), |_| x);
    let cases = cases();
    // open_clip stores scalars, transformers vectors of one.
    for (case, shape) in [(&cases[3], &[][..]), (&cases[6], &[1])] {
        let mut tensors = case.tensors();
        assert_eq!(
            read(tensors.clone(), &case.options())
                .unwrap()
                .config()
                .logit,
            None
        );
        tensors.insert("logit_scale".into(), number(shape, 4.5));
        tensors.insert("logit_bias".into(), number(shape, -12.0));
        let encoder = read(tensors.clone(), &case.options()).unwrap();
        let logit = encoder.config().logit.unwrap();
        assert_eq!((logit.scale, logit.bias), (4.5, -12.0));
        // 90.017 x 0.15 - 12 = 1.5026, and 1 / (1 + exp(-1.5026)) = 0.8179.
        assert!((logit.probability(0.15) - 0.8179).abs() < 1e-4);
        for probability in [0.01, 0.5, 0.999] {
            let back = logit.probability(logit.cosine(probability));
            assert!((back - probability).abs() < 1e-12);
        }
        tensors.insert("logit_bias".into(), number(&[2], 0.0));
        let message = read(tensors, &case.options()).unwrap_err();
        assert!(message.contains("logit_bias has shape [2]"), "{message}");
    }
    // CLIP's scale is that of a softmax.
    let mut tensors = cases[0].tensors();
    tensors.insert("logit_scale".into(), number(&[], 4.6));
    let encoder = read(tensors, &cases[0].options()).unwrap();
    assert_eq!(encoder.config().logit, None);
}

#[test]
fn so400m_has_sixteen_heads() {
    let case = &cases()[3];
    let width = 1152;
    let tensors = case
        .tensors
        .iter()
        .filter(|(n, _)| !n.contains("resblocks.1."));
    let tensors = tensors.map(|(name, shape)| {
        // Hidden channels stay few; the width and its three parts grow.
        let wide = |n: &usize| match n {
            16 => width,
            48 if name.contains("in_proj") => 3 * width,
            n => *n,
        };
        let shape: Vec<usize> = shape.iter().map(wide).collect();
        (name.clone(), Tensor::from_fn(shape, |_| 0.0))
    });
    let options = TextOptions {
        heads: None,
        ..case.options()
    };
    let encoder = read(tensors.collect(), &options).unwrap();
    assert_eq!(
        (encoder.config().width, encoder.config().heads),
        (width, 16)
    );
}
