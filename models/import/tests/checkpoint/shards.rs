//! Sharded checkpoints.

use std::{fs, path::Path};

use loftup_import::checkpoint::{Checkpoint, CheckpointError};
use safetensors::{Dtype, serialize, tensor::TensorView};
use sha2::{Digest, Sha256};

use super::{archive, real::assert_holds, values};

const NAMES: [&str; 3] = [
    "model-00001-of-00003.safetensors",
    "model-00002-of-00003.safetensors",
    "model-00003-of-00003.safetensors",
];
const INDEX: &str = "model.safetensors.index.json";

/// One tensor `t{seed}` with two elements.
fn safetensors(seed: usize) -> Vec<u8> {
    let bytes: Vec<u8> = values(seed, 2)
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let view = TensorView::new(Dtype::F32, vec![2], &bytes).unwrap();
    serialize([(format!("t{seed}"), view)], None).unwrap()
}

fn put(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    fs::write(dir.join(name), bytes).unwrap();
}

fn index(map: &[(&str, &str)]) -> String {
    let map: serde_json::Map<_, _> = map
        .iter()
        .map(|(tensor, shard)| ((*tensor).into(), (*shard).into()))
        .collect();
    serde_json::json!({ "metadata": { "total_size": 24 }, "weight_map": map }).to_string()
}

/// Three shards and their index.
fn sharded() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (seed, name) in NAMES.iter().enumerate() {
        put(dir.path(), name, safetensors(seed));
    }
    let map = index(&[("t0", NAMES[0]), ("t1", NAMES[1]), ("t2", NAMES[2])]);
    put(dir.path(), INDEX, map);
    dir
}

fn assert_whole(checkpoint: &Checkpoint) {
    let expected: [(&str, &[usize], Vec<f32>); 3] = [
        ("t0", &[2], values(0, 2)),
        ("t1", &[2], values(1, 2)),
        ("t2", &[2], values(2, 2)),
    ];
    assert_holds(checkpoint, &expected);
}

fn error(path: &Path) -> String {
    let message = Checkpoint::open(path).unwrap_err().to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

#[track_caller]
fn says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "{message:?} lacks {word:?}");
    }
}

#[test]
fn shards_are_read_by_index_shard_or_directory() {
    let dir = sharded();
    for name in [INDEX, NAMES[0], NAMES[2], ""] {
        assert_whole(&Checkpoint::open(&dir.path().join(name)).unwrap());
    }
    fs::remove_file(dir.path().join(INDEX)).unwrap();
    for name in [NAMES[1], ""] {
        assert_whole(&Checkpoint::open(&dir.path().join(name)).unwrap());
    }
}

#[test]
fn shards_of_pytorch_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let names = [
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
    ];
    for (seed, name) in names.iter().enumerate() {
        let storage: Vec<u8> = values(seed, 2)
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        let pickle = archive::state_dict(&[archive::Stored {
            name: &format!("t{seed}"),
            class: "FloatStorage",
            key: 0,
            len: 2,
            offset: 0,
            shape: &[2],
            stride: &[1],
        }]);
        put(
            dir.path(),
            name,
            archive::checkpoint("a", &pickle, &[&storage]),
        );
    }
    let map = index(&[("t0", names[0]), ("t1", names[1])]);
    put(dir.path(), "pytorch_model.bin.index.json", map);
    let expected: [(&str, &[usize], Vec<f32>); 2] =
        [("t0", &[2], values(0, 2)), ("t1", &[2], values(1, 2))];
    for name in ["", names[1], "pytorch_model.bin.index.json"] {
        assert_holds(
            &Checkpoint::open(&dir.path().join(name)).unwrap(),
            &expected,
        );
    }
}

#[test]
fn the_hash_covers_all_shards() {
    let dir = sharded();
    let hex = |bytes: &[u8]| -> String {
        Sha256::digest(bytes)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect()
    };
    let opened = Checkpoint::open(dir.path()).unwrap();
    let mut lines = String::new();
    for (seed, (name, file)) in NAMES.iter().zip(opened.files()).enumerate() {
        assert_eq!(file.path, dir.path().join(name));
        assert_eq!(file.sha256, hex(&safetensors(seed)));
        lines += &format!("{}  {name}\n", file.sha256);
    }
    assert_eq!(opened.sha256(), Some(hex(lines.as_bytes())));
}

#[test]
fn a_lone_shard_is_named_as_such() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), NAMES[0], safetensors(0));
    says(
        &error(&dir.path().join(NAMES[0])),
        &[
            "shard 1 of 3",
            "2 of the others",
            NAMES[1],
            INDEX,
            "into one directory",
        ],
    );
    put(
        dir.path(),
        INDEX,
        index(&[("t0", NAMES[0]), ("t1", NAMES[1])]),
    );
    says(&error(&dir.path().join(INDEX)), &[NAMES[1], "all 2 shards"]);
    let only = "model-00001-of-00001.safetensors";
    put(dir.path(), only, safetensors(0));
    assert!(Checkpoint::open(&dir.path().join(only)).is_ok());
}

#[test]
fn an_index_names_only_files_next_to_it() {
    let outside = tempfile::tempdir().unwrap();
    put(outside.path(), "a.safetensors", safetensors(0));
    let absolute = outside.path().join("a.safetensors");
    let dir = outside.path().join("inside");
    fs::create_dir(&dir).unwrap();
    for shard in [
        "../a.safetensors",
        absolute.to_str().unwrap(),
        "..",
        "",
        "x/../../a.safetensors",
    ] {
        put(&dir, INDEX, index(&[("t0", shard)]));
        says(
            &error(&dir.join(INDEX)),
            &["not a file in the same directory"],
        );
    }
}

#[test]
fn an_index_that_does_not_fit_its_shards_is_damage() {
    for (what, map) in [
        ("t9", vec![("t0", NAMES[0]), ("t9", NAMES[1])]),
        ("t0", vec![("t0", NAMES[1])]),
    ] {
        let dir = sharded();
        put(dir.path(), INDEX, index(&map));
        match Checkpoint::open(&dir.path().join(INDEX)) {
            Err(CheckpointError::Damaged { what: found, .. }) => says(&found, &[what, NAMES[1]]),
            other => panic!("{other:?}"),
        }
    }
    let dir = sharded();
    put(dir.path(), INDEX, r#"{"weight_map": {}}"#);
    says(&error(&dir.path().join(INDEX)), &["lists 0 shards"]);
    for json in [
        "{}",
        r#"{"weight_map": 1}"#,
        "[1]",
        "{\"weight_map\": {\"a\": {}}}",
    ] {
        put(dir.path(), INDEX, json);
        says(&error(&dir.path().join(INDEX)), &["a JSON document"]);
    }
}

#[test]
fn a_tensor_in_two_shards_without_an_index_is_an_error() {
    let dir = sharded();
    fs::remove_file(dir.path().join(INDEX)).unwrap();
    put(dir.path(), NAMES[2], safetensors(0));
    says(&error(dir.path()), &["t0", "another shard", NAMES[2]]);
}

#[test]
fn a_damaged_shard_is_named() {
    let dir = sharded();
    put(dir.path(), NAMES[1], &safetensors(1)[..40]);
    let message = error(dir.path());
    says(&message, &["damaged", NAMES[1]]);
}

#[test]
fn a_directory_says_what_it_lacks_or_has_too_much_of() {
    let dir = tempfile::tempdir().unwrap();
    says(&error(dir.path()), &["a directory without a checkpoint"]);
    put(dir.path(), "a.safetensors", safetensors(0));
    assert!(Checkpoint::open(dir.path()).is_ok());
    put(dir.path(), "b.pth", safetensors(1));
    says(
        &error(dir.path()),
        &["2 checkpoints", "a.safetensors, b.pth"],
    );
    put(dir.path(), "model.safetensors", safetensors(2));
    let opened = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(opened.names().collect::<Vec<_>>(), ["t2"]);
    let distributed = tempfile::tempdir().unwrap();
    put(distributed.path(), "__0_0.distcp", b"x");
    says(
        &error(distributed.path()),
        &["distributed checkpoint", "dcp_to_torch"],
    );
}
