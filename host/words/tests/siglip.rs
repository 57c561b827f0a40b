//! SigLIP's tokenizers and words against transformers, with the small files that
//! `tools/make_tokenizer_fixtures.py` makes.
#![cfg(feature = "tokenizers")]

#[path = "../../../models/import/tests/common/made.rs"]
mod made;

use std::{
    fs,
    path::{Path, PathBuf},
};

use loftup_bundle::TensorFile;
use loftup_import::{text::TextOptions, vit::Activation};
use loftup_words::{Encoder, SiglipTokenizer, Templates, WordsError};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    tokenizer: String,
    texts: Vec<String>,
    ids: Vec<Vec<u32>>,
    tensors: Vec<(String, Vec<usize>)>,
    templates: Vec<String>,
    words: Vec<String>,
    embeddings: Vec<Vec<f32>>,
}

fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(file)
}

fn cases() -> Vec<Case> {
    let cases: Vec<Case> = serde_json::from_slice(&fs::read(data("tokens.json")).unwrap()).unwrap();
    assert_eq!(cases.len(), 2);
    cases
}

#[test]
fn tokens_are_those_of_transformers() {
    for case in cases() {
        let tokenizer = SiglipTokenizer::open(&data(&case.tokenizer)).unwrap();
        for (text, expected) in case.texts.iter().zip(&case.ids) {
            let found = tokenizer.encode(text, expected.len()).unwrap();
            assert_eq!(&found, expected, "{}: {text:?}", case.tokenizer);
        }
    }
}

#[test]
fn the_end_and_the_padding_are_those_of_the_model() {
    let of = |file: &str| {
        let tokenizer = SiglipTokenizer::open(&data(file)).unwrap();
        (tokenizer.end(), tokenizer.padding())
    };
    assert_eq!(of("siglip.json"), (1, 1));
    assert_eq!(of("siglip2.json"), (1, 0));
}

#[test]
fn a_text_that_is_too_long_is_refused_and_not_cut() {
    for case in cases() {
        let tokenizer = SiglipTokenizer::open(&data(&case.tokenizer)).unwrap();
        let padded = &case.ids[0];
        let end = padded.iter().position(|id| *id == tokenizer.end()).unwrap();
        let fitting = tokenizer.encode(&case.texts[0], end + 1).unwrap();
        assert_eq!(fitting, padded[..=end]);
        let Err(WordsError::TooLong { tokens, most, .. }) = tokenizer.encode(&case.texts[0], end)
        else {
            panic!("{} tokens were cut", end + 1)
        };
        assert_eq!((tokens, most), (end + 1, end));
    }
}

/// A directory with the text encoder of a case and its templates.
fn files(case: &Case) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let (tensors, _) = made::tensors(&case.tensors);
    let listed = tensors
        .iter()
        .map(|(n, t)| (n.as_str(), t.shape(), t.data()));
    let bytes = TensorFile::to_bytes(listed).unwrap();
    fs::write(directory.path().join("text.safetensors"), bytes).unwrap();
    let templates = case.templates.join("\n");
    fs::write(directory.path().join("templates.txt"), templates).unwrap();
    directory
}

const OPTIONS: TextOptions = TextOptions {
    heads: Some(2),
    activation: Some(Activation::GeluTanh),
};

#[test]
fn words_have_the_embeddings_of_transformers() {
    for case in cases() {
        let directory = files(&case);
        let path = |name: &str| directory.path().join(name);
        let templates = Templates::read(&path("templates.txt")).unwrap();
        let tokenizer = data(&case.tokenizer);
        let weights = path("text.safetensors");
        let encoder = Encoder::open(&weights, None, &OPTIONS, Some(&tokenizer)).unwrap();
        let found = encoder
            .embed(&case.words, &templates, 2, &mut |_, _, _| {})
            .unwrap();
        let expected = case.embeddings.concat();
        assert_eq!(found.len(), expected.len());
        let pairs = found.iter().zip(&expected);
        let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{}: off by {worst:.1e}", case.tokenizer);
        // Of length 1, stored with six digits; PyTorch and tract add in different orders.
        assert!(worst <= 5e-6, "{}: {worst:e}", case.tokenizer);
    }
}

#[test]
fn what_is_no_tokenizer_of_siglip_is_refused() {
    let case = &cases()[0];
    let directory = files(case);
    let path = |name: &str| directory.path().join(name);
    let other = fs::read_to_string(data("siglip.json")).unwrap();
    fs::write(path("other.json"), other.replace("</s>", "</t>")).unwrap();
    fs::write(path("none.json"), "{}").unwrap();
    for (file, part) in [
        ("other.json", "<eos>"),
        ("none.json", "tokenizer.json"),
        ("missing.json", "missing.json"),
    ] {
        let message = SiglipTokenizer::open(&path(file))
            .err()
            .unwrap()
            .to_string();
        assert!(
            message.contains(part) && message.contains(file),
            "{message}"
        );
        assert!(!message.contains('\n'), "{message}");
    }
    // More tokens than the text encoder has.
    let weights = path("text.safetensors");
    let larger = data("siglip2.json");
    let encoder = Encoder::open(&weights, None, &OPTIONS, Some(&larger)).unwrap();
    let templates = Templates::read(&path("templates.txt")).unwrap();
    let embedded = encoder.embed(&case.words, &templates, 1, &mut |_, _, _| {});
    let message = embedded.unwrap_err().to_string();
    assert!(message.contains("use its own tokenizer"), "{message}");
}
