//! Unusual files, and tensors that are not supported.

use loftup_import::checkpoint::{Checkpoint, CheckpointError};

use super::{archive, fixture, open_bytes, real::assert_holds, values};

fn open(name: &str) -> Checkpoint {
    Checkpoint::open(&fixture(name)).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_tensor_that_is_not_needed_makes_no_file_unreadable() {
    let why = [
        ("bits", "unknown"),
        ("complex", "complex64"),
        ("conjugated", "conjugated or negated view"),
        ("float8", "float8_e4m3fn"),
        ("meta", "meta device"),
        ("negated", "negated view"),
        ("quantized", "is quantized"),
        ("sparse", "is sparse"),
        ("sparse_rows", "is sparse"),
        ("w", "400 elements"),
    ];
    for (name, absent) in [
        ("unusual.pt", &[][..]),
        ("unusual_legacy.pt", &["float8", "bits"]),
    ] {
        let opened = open(name);
        let found: Vec<(&str, &str)> = opened.unreadable().collect();
        let expected: Vec<_> = why
            .iter()
            .filter(|(tensor, _)| !absent.contains(tensor))
            .collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for ((tensor, reason), (expected, words)) in found.iter().zip(expected) {
            assert_eq!(tensor, expected);
            assert!(reason.contains(words), "{tensor} {reason}");
            assert!(opened.contains(tensor));
        }
        assert_eq!(opened.tensor("good", &[2, 3]).unwrap().data(), values(0, 6));
        assert_eq!(opened.tensor("last", &[3]).unwrap().data(), values(4, 3));
        assert_eq!(opened.tensor("empty", &[0]).unwrap().data(), [0.0; 0]);
        for (tensor, shape) in [
            ("meta", &[3, 5][..]),
            ("quantized", &[2, 4]),
            ("sparse", &[3, 3]),
            ("sparse_rows", &[3, 3]),
            ("negated", &[4]),
            ("w", &[100, 4]),
        ] {
            assert_eq!(opened.shape(tensor).unwrap(), shape, "{tensor}");
        }
    }
}

#[test]
fn asking_for_it_says_why_it_is_not_read() {
    let opened = open("unusual.pt");
    for (tensor, words) in [
        (
            "float8",
            &[
                "tensor float8 has an unsupported type (float8_e4m3fn)",
                "bfloat16",
            ][..],
        ),
        ("sparse", &["tensor sparse is sparse", "dense copy"]),
        ("meta", &["meta device"]),
        ("bool", &["tensor bool contains integers", "quantized"]),
    ] {
        let message = opened.tensor(tensor, &[4]).unwrap_err().to_string();
        for word in words {
            assert!(message.contains(word), "{message:?} lacks {word:?}");
        }
    }
}

#[test]
fn safetensors_with_types_that_are_not_read_give_the_others() {
    let opened = open("unusual.safetensors");
    let unreadable: Vec<&str> = opened.unreadable().map(|(name, _)| name).collect();
    assert_eq!(unreadable, ["complex", "float8"]);
    assert_eq!(opened.tensor("good", &[2, 3]).unwrap().data(), values(0, 6));
    assert_eq!(opened.tensor("last", &[3]).unwrap().data(), values(4, 3));
    // An unknown type next to a known one.
    let header = r#"{"a":{"dtype":"F99","shape":[9],"data_offsets":[0,5]},"b":{"dtype":"F32","shape":[1],"data_offsets":[5,9]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend([0; 5]);
    bytes.extend(1.5f32.to_le_bytes());
    let opened = open_bytes(&bytes).unwrap();
    assert_eq!(opened.tensor("b", &[1]).unwrap().data(), [1.5]);
    assert!(matches!(
        opened.tensor("a", &[9]),
        Err(CheckpointError::Unsupported { .. })
    ));
}

#[test]
fn views_in_the_old_format_are_read() {
    let transposed = (0..24).map(|i| values(0, 24)[i % 6 * 4 + i / 6]).collect();
    let expected: [(&str, &[usize], Vec<f32>); 4] = [
        ("base", &[6, 4], values(0, 24)),
        ("transposed", &[4, 6], transposed),
        ("row", &[4], values(0, 24)[8..12].to_vec()),
        ("half", &[3], values(1, 3)),
    ];
    assert_holds(&open("views_legacy.pt"), &expected);
}

#[test]
fn tensors_are_read_from_the_file_that_was_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pth");
    std::fs::copy(fixture("plain.pth"), &path).unwrap();
    let opened = Checkpoint::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(
        opened.tensor("blocks.0.weight", &[5, 4]).unwrap().data(),
        values(1, 20)
    );
}

#[test]
fn several_models_are_told_apart_by_their_keys() {
    let expected: [(&str, &[usize], Vec<f32>); 2] = [
        ("student.w", &[2], values(0, 2)),
        ("teacher.w", &[2], values(1, 2)),
    ];
    assert_holds(&open("two_models.pth"), &expected);
    let expected: [(&str, &[usize], Vec<f32>); 2] = [
        ("vision.w", &[2], values(0, 2)),
        ("llm.layers.w", &[2], values(1, 2)),
    ];
    assert_holds(&open("nested.pth"), &expected);
}

#[test]
fn a_prefix_that_nothing_has_gets_those_that_there_are() {
    let opened = open("two_models.pth");
    for prefix in ["teacher", "teacher.", "module.teacher.*", ""] {
        assert!(opened.clone().within(prefix).is_ok(), "{prefix}");
    }
    for prefix in ["teach", "w", "teacher.x", "."] {
        match opened.clone().within(prefix) {
            Err(error) => {
                let message = error.to_string();
                assert!(message.contains("student.*, teacher.*"), "{message}");
            }
            Ok(_) => assert_eq!(prefix, "."),
        }
    }
}

#[test]
fn files_that_cannot_be_read_say_what_they_are_and_what_to_do() {
    for (name, words) in [
        (
            "deflated.pth",
            &["compressed", "torch.save(torch.load("][..],
        ),
        (
            "collision.pth",
            &["a._orig_mod.w and a.w are both named a.w", "one of the two"],
        ),
        (
            "whole_module.pt",
            &["a whole object", "of class torch.nn.modules.linear.Linear"],
        ),
    ] {
        let message = Checkpoint::open(&fixture(name)).unwrap_err().to_string();
        for word in words {
            assert!(message.contains(word), "{message:?} lacks {word:?}");
        }
        assert!(!message.contains("download"), "{message}");
    }
}

#[test]
fn archives_of_other_things_are_named() {
    let zip = |names: &[&str]| {
        let entries: Vec<_> = names
            .iter()
            .map(|name| archive::Entry { name, data: b"x" })
            .collect();
        archive::zip("a", &entries)
    };
    for (names, words) in [
        (
            &["weights.npy"][..],
            &["NumPy .npz", "torch.from_numpy"][..],
        ),
        (&["readme.txt", "vit.pth"], &["with a/vit.pth", "unpack it"]),
        (&["config.json", "model.weights.h5"], &["Keras"]),
        (
            &["archive_format", "models/model.json"],
            &["torch.export", "state_dict()"],
        ),
        (
            &["b/data.pkl", "c/data.pkl"],
            &["several checkpoints", "a/b/data.pkl", "a/c/data.pkl"],
        ),
    ] {
        let message = open_bytes(&zip(names)).unwrap_err().to_string();
        for word in words {
            assert!(message.contains(word), "{message:?} lacks {word:?}");
        }
    }
}
