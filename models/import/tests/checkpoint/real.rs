//! Valid files.

use std::collections::BTreeMap;

use loftup_import::checkpoint::{Checkpoint, CheckpointError};
use sha2::{Digest, Sha256};

use super::{archive, fixture, open_bytes, value, values};

/// The file must have exactly these names, shapes and values.
pub(super) fn assert_holds(checkpoint: &Checkpoint, expected: &[(&str, &[usize], Vec<f32>)]) {
    let names: Vec<&str> = checkpoint.names().collect();
    let mut wanted: Vec<&str> = expected.iter().map(|(name, ..)| *name).collect();
    wanted.sort_unstable();
    assert_eq!(names, wanted, "{}", checkpoint.path().display());
    for (name, shape, data) in expected {
        let tensor = checkpoint.tensor(name, shape).unwrap();
        assert_eq!(
            tensor.data(),
            &data[..],
            "{name} of {}",
            checkpoint.path().display()
        );
    }
}

pub(super) fn plain() -> [(&'static str, &'static [usize], Vec<f32>); 5] {
    [
        ("pos_embed", &[1, 3, 4], values(0, 12)),
        ("blocks.0.weight", &[5, 4], values(1, 20)),
        ("blocks.0.bias", &[5], values(2, 5)),
        ("scale", &[], values(3, 1)),
        ("empty", &[0, 4], vec![]),
    ]
}

#[test]
fn a_state_dict_is_read_whatever_it_is_wrapped_in() {
    for name in [
        "plain.pth",
        "twenty_one_characters.bin",
        "protocol4.pt",
        "parallel.pth",
        "plain.safetensors",
        "legacy.pth",
        "legacy_protocol4.pth",
        "wrapped.pth",
        "no_root.pth",
        "outer_root.pth",
    ] {
        assert_holds(&Checkpoint::open(&fixture(name)).unwrap(), &plain());
    }
}

#[test]
fn all_floating_types_are_widened_and_integers_left_out() {
    // The values are exact in every type, so they must be equal.
    for name in ["types.pt", "types.safetensors"] {
        let expected = ["float32", "float16", "bfloat16", "float64"];
        let expected: Vec<(&str, &[usize], Vec<f32>)> = expected
            .iter()
            .zip(0..)
            .map(|(name, i)| (*name, &[3, 4][..], values(i, 12)))
            .collect();
        assert_holds(&Checkpoint::open(&fixture(name)).unwrap(), &expected);
    }
}

#[test]
fn views_into_shared_storages_are_copied_out_in_row_major_order() {
    let pick = |n: usize, f: &dyn Fn(usize) -> usize, seed| {
        (0..n).map(|i| value(seed, f(i))).collect::<Vec<f32>>()
    };
    let expected: [(&str, &[usize], Vec<f32>); 9] = [
        ("base", &[6, 4], values(0, 24)),
        ("tied", &[6, 4], values(0, 24)),
        ("transposed", &[4, 6], pick(24, &|i| i % 6 * 4 + i / 6, 0)),
        ("row", &[4], pick(4, &|i| 8 + i, 0)),
        ("column", &[6], pick(6, &|i| 4 * i + 1, 0)),
        (
            "every_second",
            &[3, 2],
            pick(6, &|i| (1 + 2 * (i / 2)) * 4 + i % 2 * 2, 0),
        ),
        // [2, 3, 4] permuted to [4, 2, 3].
        (
            "permuted",
            &[4, 2, 3],
            pick(24, &|i| i / 3 % 2 * 12 + i % 3 * 4 + i / 6, 1),
        ),
        // Stored in another order, with the same values by index.
        ("channels_last", &[2, 3, 2, 2], values(2, 24)),
        ("half_view", &[4, 2], pick(8, &|i| i / 2 * 4 + i % 2 + 1, 3)),
    ];
    assert_holds(
        &Checkpoint::open(&fixture("strided.pt")).unwrap(),
        &expected,
    );
}

#[test]
fn parameters_and_tensors_with_attributes_are_tensors() {
    let expected: [(&str, &[usize], Vec<f32>); 3] = [
        ("parameter", &[2, 3], values(0, 6)),
        ("tagged", &[4], values(1, 4)),
        ("marked", &[3], values(2, 3)),
    ];
    assert_holds(
        &Checkpoint::open(&fixture("parameters.pt")).unwrap(),
        &expected,
    );
}

/// The module that the script trains, scripts and traces; seeds in the order of its state_dict.
fn clip() -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let mut out = Vec::new();
    let mut seed = 0;
    let mut entry = |name: String, shape: &[usize]| {
        out.push((name, shape.to_vec(), values(seed, shape.iter().product())));
        seed += 1;
    };
    entry("text_projection".into(), &[4, 2]);
    entry("visual.ids".into(), &[4]);
    entry("visual.conv1.weight".into(), &[4, 3, 2, 2]);
    for block in 0..2 {
        let mut part = |name: &str, shape: &[usize]| {
            entry(format!("visual.blocks.{block}.{name}"), shape);
        };
        part("gain", &[4]);
        part("attn.weight", &[4, 4]);
        part("attn.bias", &[4]);
        for name in ["weight", "bias", "running_mean", "running_var"] {
            part(&format!("norm.{name}"), &[4]);
        }
        part("norm.num_batches_tracked", &[]);
    }
    entry("visual.list.0.weight".into(), &[4]);
    entry("visual.list.0.bias".into(), &[4]);
    out.retain(|(name, ..)| !name.ends_with("ids") && !name.ends_with("num_batches_tracked"));
    out
}

#[test]
fn a_training_checkpoint_gives_the_model_and_nothing_else() {
    let clip = clip();
    let expected: Vec<_> = clip
        .iter()
        .map(|(n, s, d)| (&n[..], &s[..], d.clone()))
        .collect();
    assert_holds(
        &Checkpoint::open(&fixture("training.ckpt")).unwrap(),
        &expected,
    );
}

#[test]
fn torchscript_modules_give_the_names_of_their_state_dict() {
    let clip = clip();
    let expected: Vec<_> = clip
        .iter()
        .map(|(n, s, d)| (&n[..], &s[..], d.clone()))
        .collect();
    for name in ["script_half.pt", "traced.pt"] {
        assert_holds(&Checkpoint::open(&fixture(name)).unwrap(), &expected);
    }
}

#[test]
fn what_is_not_read_says_so_and_what_to_do() {
    for (name, words) in [
        ("float8.pt", &["tensor w", "float8_e4m3fn"][..]),
        ("float8.safetensors", &["tensor w", "F8_E4M3"]),
        ("complex.pt", &["tensor w", "complex64"]),
        (
            "whole_module.pt",
            &["refused", "torch.nn.modules.linear.Linear", "state_dict()"],
        ),
        (
            "expanded.pt",
            &["tensor w", "400 elements", "only 4", ".contiguous()"],
        ),
        ("unusual.pt", &["tensor w", "400 elements"]),
    ] {
        let message = Checkpoint::open(&fixture(name))
            .and_then(|opened| opened.tensor("w", &[4]))
            .unwrap_err()
            .to_string();
        println!("{message}");
        for word in words {
            assert!(message.contains(word), "{message:?} lacks {word:?}");
        }
    }
}

#[test]
fn archives_with_stems_of_every_length_are_read() {
    let storage: Vec<u8> = values(0, 12).iter().flat_map(|x| x.to_le_bytes()).collect();
    let pickle = archive::state_dict(&[archive::Stored {
        name: "w",
        class: "FloatStorage",
        key: 0,
        len: 12,
        offset: 0,
        shape: &[3, 4],
        stride: &[4, 1],
    }]);
    for length in 1..=80 {
        let stem: String = ('a'..='z').cycle().take(length).collect();
        let checkpoint = open_bytes(&archive::checkpoint(&stem, &pickle, &[&storage]))
            .unwrap_or_else(|error| panic!("stem of {length}: {error}"));
        assert_holds(&checkpoint, &[("w", &[3, 4], values(0, 12))]);
    }
}

#[test]
fn big_endian_archives_are_read() {
    let expected = values(5, 6);
    let f32s: Vec<u8> = expected.iter().flat_map(|x| x.to_be_bytes()).collect();
    let f16s = expected
        .iter()
        .flat_map(|x| half::f16::from_f32(*x).to_be_bytes())
        .collect();
    let bf16s = expected
        .iter()
        .flat_map(|x| half::bf16::from_f32(*x).to_be_bytes())
        .collect();
    let f64s = expected
        .iter()
        .flat_map(|x| f64::from(*x).to_be_bytes())
        .collect();
    for (class, storage) in [
        ("FloatStorage", f32s),
        ("HalfStorage", f16s),
        ("BFloat16Storage", bf16s),
        ("DoubleStorage", f64s),
    ] {
        let storage: Vec<u8> = storage;
        let pickle = archive::state_dict(&[archive::Stored {
            name: "w",
            class,
            key: 0,
            len: 6,
            offset: 0,
            shape: &[6],
            stride: &[1],
        }]);
        let bytes = archive::checkpoint_in("a", &pickle, &[&storage], "big");
        assert_holds(
            &open_bytes(&bytes).unwrap(),
            &[("w", &[6], expected.clone())],
        );
        let bytes = archive::checkpoint_in("a", &pickle, &[&storage], "middle");
        assert!(
            open_bytes(&bytes)
                .unwrap_err()
                .to_string()
                .contains("byte order \"middle\"")
        );
    }
}

#[test]
fn the_hash_is_that_of_the_file() {
    for name in ["plain.pth", "plain.safetensors", "traced.pt", "legacy.pth"] {
        let digest = Sha256::digest(std::fs::read(fixture(name)).unwrap());
        let digest: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        let checkpoint = Checkpoint::open(&fixture(name)).unwrap();
        assert_eq!(checkpoint.sha256().as_ref(), Some(&digest));
        let renamed = checkpoint.renamed(|name| Some(name.to_uppercase()));
        assert_eq!(renamed.sha256(), Some(digest));
    }
    assert_eq!(
        Checkpoint::from_tensors("x", BTreeMap::new()).sha256(),
        None
    );
}

#[test]
fn a_missing_tensor_names_its_likeness() {
    let checkpoint = Checkpoint::open(&fixture("plain.pth")).unwrap();
    for (wanted, likeness) in [
        ("model.blocks.0.weight", Some("blocks.0.weight")),
        ("blocks.0.wieght", Some("blocks.0.weight")),
        ("head.classifier", None),
    ] {
        match checkpoint.shape(wanted) {
            Err(CheckpointError::Missing { closest, .. }) => {
                assert_eq!(closest.as_deref(), likeness)
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn non_finite_numbers_are_an_error_on_access() {
    let storage: Vec<u8> = [1.0, f32::NAN]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let pickle = archive::state_dict(&[archive::Stored {
        name: "w",
        class: "FloatStorage",
        key: 0,
        len: 2,
        offset: 0,
        shape: &[2],
        stride: &[1],
    }]);
    let checkpoint = open_bytes(&archive::checkpoint("a", &pickle, &[&storage])).unwrap();
    let error = checkpoint.tensor("w", &[2]).unwrap_err();
    assert!(
        matches!(error, CheckpointError::NotFinite { index: 1, .. }),
        "{error}"
    );
}
