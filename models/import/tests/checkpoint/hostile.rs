//! Files that are damaged, by accident or on purpose. None may panic, take long, or take memory
//! that it does not itself fill.

use std::time::{Duration, Instant};

use loftup_import::{checkpoint::Checkpoint, checkpoint::CheckpointError};

use super::{archive, archive::Stored, fixture, open_bytes};

const REAL: [&str; 5] = [
    "plain.pth",
    "plain.safetensors",
    "strided.pt",
    "script_half.pt",
    "training.ckpt",
];

/// An error or the very tensors of the sound file; which of both is returned.
fn assert_error_or_equal(bytes: &[u8], sound: &Checkpoint, how: &str) -> bool {
    let Ok(opened) = open_bytes(bytes) else {
        return false;
    };
    let names: Vec<&str> = opened.names().collect();
    assert_eq!(names, sound.names().collect::<Vec<_>>(), "{how}");
    for name in names {
        let shape = sound.shape(name).unwrap();
        assert_eq!(
            opened.tensor(name, shape).unwrap(),
            sound.tensor(name, shape).unwrap(),
            "{how}"
        );
    }
    true
}

#[test]
fn a_file_cut_short_anywhere_is_an_error() {
    for name in REAL {
        let bytes = std::fs::read(fixture(name)).unwrap();
        let sound = Checkpoint::open(&fixture(name)).unwrap();
        let mut lengths: Vec<usize> = (0..bytes.len()).step_by(97).collect();
        lengths.extend(bytes.len().saturating_sub(300)..bytes.len());
        for length in lengths {
            let survived = assert_error_or_equal(&bytes[..length], &sound, name);
            assert!(!survived, "{name} was read from its first {length} bytes");
        }
    }
}

#[test]
fn a_flipped_byte_in_an_archive_is_an_error_or_does_not_matter() {
    let mut state = 20_261_122u64;
    let mut random = move |n: usize| {
        // Xorshift64* (Vigna, 2016).
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    };
    for name in REAL.iter().filter(|name| !name.ends_with(".safetensors")) {
        let bytes = std::fs::read(fixture(name)).unwrap();
        let sound = Checkpoint::open(&fixture(name)).unwrap();
        let mut survived = 0;
        for _ in 0..500 {
            let mut broken = bytes.clone();
            let at = random(broken.len());
            let flip = 1 + random(255) as u8;
            broken[at] ^= flip;
            let how = format!("{name}, byte {at} xor {flip:#04x}");
            survived += usize::from(assert_error_or_equal(&broken, &sound, &how));
        }
        println!("{name}: {survived} of 500 corruptions did not touch what is read");
    }
}

#[test]
fn a_flipped_byte_in_safetensors_never_panics() {
    // The format has no checksum: a flip among the elements goes unseen.
    let bytes = std::fs::read(fixture("plain.safetensors")).unwrap();
    for at in 0..bytes.len() {
        for flip in [0x01, 0x10, 0x80, 0xff] {
            let mut broken = bytes.clone();
            broken[at] ^= flip;
            drop(open_bytes(&broken));
        }
    }
}

fn one(class: &'static str, len: i64, offset: i64, shape: &[i64], stride: &[i64]) -> Vec<u8> {
    archive::state_dict(&[Stored {
        name: "w",
        class,
        key: 0,
        len,
        offset,
        shape,
        stride,
    }])
}

#[test]
fn tensors_that_do_not_fit_their_storage_are_damage() {
    let storage = [0u8; 48];
    const MAX: i64 = i64::MAX;
    for (what, pickle) in [
        ("too short", one("FloatStorage", 13, 0, &[12], &[1])),
        ("too long", one("FloatStorage", 12, 0, &[13], &[1])),
        ("offset", one("FloatStorage", 12, 1, &[12], &[1])),
        ("huge offset", one("FloatStorage", 12, MAX, &[1], &[1])),
        ("negative offset", one("FloatStorage", 12, -1, &[1], &[1])),
        ("negative axis", one("FloatStorage", 12, 0, &[-1], &[1])),
        ("negative stride", one("FloatStorage", 12, 4, &[2], &[-1])),
        ("huge storage", one("FloatStorage", MAX, 0, &[12], &[1])),
        ("huge axis", one("FloatStorage", 12, 0, &[MAX], &[0])),
        (
            "numel overflows",
            one("FloatStorage", 12, 0, &[1 << 32, 1 << 32], &[0, 0]),
        ),
        (
            "numel wraps to 0",
            one("FloatStorage", 12, 0, &[1 << 32, 1 << 32, 1], &[1, 1, 1]),
        ),
        (
            "stride overflows",
            one("FloatStorage", 12, 0, &[3, 3], &[MAX, MAX]),
        ),
        ("expanded", one("FloatStorage", 12, 0, &[1 << 40], &[0])),
        ("fewer strides", one("FloatStorage", 12, 0, &[3, 4], &[1])),
        (
            "many axes",
            one("FloatStorage", 12, 0, &[1; 100], &[1; 100]),
        ),
        (
            "double in a float's place",
            one("DoubleStorage", 12, 0, &[12], &[1]),
        ),
    ] {
        match open_bytes(&archive::checkpoint("a", &pickle, &[&storage])) {
            Err(CheckpointError::Damaged { what, .. }) => println!("{what}"),
            // More elements than the storage has: what `expand` makes.
            Err(CheckpointError::Unsupported { what, remedy, .. }) => {
                println!("{what}");
                assert!(remedy.contains("contiguous"), "{remedy}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn storages_that_are_not_there_are_damage() {
    let pickle = one("FloatStorage", 12, 0, &[12], &[1]);
    let error = open_bytes(&archive::checkpoint("a", &pickle, &[])).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("entry a/data/0 is not in the archive"),
        "{error}"
    );
}

#[test]
fn a_storage_under_a_million_names_is_not_copied_a_million_times() {
    let storage = vec![0u8; 40_000];
    let names: Vec<String> = (0..5000).map(|i| i.to_string()).collect();
    let tensors: Vec<Stored> = names
        .iter()
        .map(|name| Stored {
            name,
            class: "FloatStorage",
            key: 0,
            len: 10_000,
            offset: 0,
            shape: &[10_000],
            stride: &[1],
        })
        .collect();
    let bytes = archive::checkpoint("a", &archive::state_dict(&tensors), &[&storage]);
    let error = open_bytes(&bytes).unwrap_err();
    assert!(
        matches!(error, CheckpointError::Unsupported { .. }),
        "{error}"
    );
}

#[test]
fn a_pickle_that_names_a_function_is_refused_before_anything_is_read() {
    for (pickle, named) in [
        (
            &b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R."[..],
            "os.system",
        ),
        (
            b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.",
            "os.system",
        ),
        (b"(X\x02\0\0\0idiposix\nsystem\n.", "posix.system"),
        (b"(cbuiltins\neval\nX\x01\0\0\x001o.", "builtins.eval"),
    ] {
        match open_bytes(&archive::checkpoint("a", pickle, &[])) {
            Err(CheckpointError::Refused { global, .. }) => assert_eq!(global, named),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn pickles_that_want_to_exhaust_the_reader_end_soon() {
    // Modules that each contain the next twice: 2^60 paths.
    let mut doubling = b"\x80\x02".to_vec();
    doubling.extend(b"c__torch__\nM\n)\x81q\x00");
    for _ in 0..60 {
        doubling.extend(b"0c__torch__\nM\n)\x81}(X\x01\0\0\0ah\x00X\x01\0\0\0bh\x00ubq\x00");
    }
    doubling.push(b'.');
    // A module in itself.
    let endless = b"\x80\x02c__torch__\nM\n)\x81q\x00}X\x01\0\0\0ah\x00sb.".to_vec();
    let nested = [&b"\x80\x02"[..], &vec![b'('; 3 << 20]].concat();
    let lists = [&b"\x80\x02"[..], &vec![b']'; 3 << 20]].concat();
    let memo = b"\x80\x02}r\xff\xff\xff\xff.".to_vec();
    let text = b"\x80\x02X\xff\xff\xff\xffabc.".to_vec();
    let wrapped = [
        &b"\x80\x02"[..],
        &b"}X\x05\0\0\0model".repeat(9),
        b"}",
        &[b's'; 9],
        b".",
    ]
    .concat();
    for (what, pickle) in [
        ("doubling", doubling),
        ("endless", endless),
        ("nested", nested),
        ("lists", lists),
        ("memo", memo),
        ("text", text),
        ("wrapped", wrapped),
    ] {
        let started = Instant::now();
        let error = open_bytes(&archive::checkpoint("a", &pickle, &[])).unwrap_err();
        println!("{what}: {error}");
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "{what} took {:?}",
            started.elapsed()
        );
    }
}

#[test]
fn entries_that_lie_over_each_other_are_read_no_more_often_than_the_file_is_long() {
    // A directory of 1000 entries that all are the same 100 kB.
    let storage = vec![0u8; 100_000];
    let names: Vec<String> = (0..1000).map(|i| format!("t{i}")).collect();
    let tensors: Vec<Stored> = names
        .iter()
        .enumerate()
        .map(|(key, name)| Stored {
            name,
            class: "FloatStorage",
            key,
            len: 25_000,
            offset: 0,
            shape: &[1],
            stride: &[1],
        })
        .collect();
    let pickle = archive::state_dict(&tensors);
    let bytes = archive::checkpoint("a", &pickle, &[&storage]);
    let end = bytes.len() - 22 - 20 - 56;
    let field = |at: usize| u64::from_le_bytes(bytes[end + at..end + at + 8].try_into().unwrap());
    let (size, start) = (field(40) as usize, field(48) as usize);
    let directory = &bytes[start..start + size];
    let at = directory.windows(8).position(|w| w == b"a/data/0").unwrap() - 46;
    let (header, rest) = (&directory[at..at + 46], &directory[at + 54..]);
    let mut forged = directory[..at].to_vec();
    for key in 0..1000 {
        let name = format!("a/data/{key}");
        let mut header = header.to_vec();
        header[28] = name.len() as u8;
        forged.extend(header);
        forged.extend(name.as_bytes());
    }
    forged.extend(rest);
    let mut out = bytes[..start].to_vec();
    out.extend(&forged);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([1004u16, 1004].iter().flat_map(|n| n.to_le_bytes()));
    out.extend(
        [forged.len() as u32, start as u32]
            .iter()
            .flat_map(|n| n.to_le_bytes()),
    );
    out.extend(b"\0\0");
    let error = open_bytes(&out).unwrap_err();
    assert!(
        error.to_string().contains("larger than the file"),
        "{error}"
    );
}

#[test]
fn headers_of_safetensors_are_believed_only_as_far_as_the_file_goes() {
    for (header, len) in [
        (
            r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
            None,
        ),
        (
            r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}}"#,
            None,
        ),
        (
            r#"{"w":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}"#,
            None,
        ),
        (
            r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#,
            None,
        ),
        (
            r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#,
            None,
        ),
        (
            r#"{"w":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}"#,
            None,
        ),
        (r#"{}"#, Some(u64::from(u32::MAX))),
        (r#"{}"#, Some(100_000_001)),
        (r#"{}"#, Some(1000)),
    ] {
        let mut bytes = len.unwrap_or(header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([0; 4]);
        match open_bytes(&bytes) {
            Err(CheckpointError::Damaged { what, .. }) => println!("{what}"),
            other => panic!("{header}: {other:?}"),
        }
    }
}

#[test]
fn other_files_are_called_by_their_name() {
    let npz = archive::zip(
        "a",
        &[archive::Entry {
            name: "x.npy",
            data: b"\x93NUMPY",
        }],
    );
    for (bytes, word) in [
        (&b""[..], "an empty file"),
        (b"<!DOCTYPE html>\n<html>", "an HTML page"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "a Git LFS pointer",
        ),
        (&npz, "a NumPy .npz archive"),
        (
            &archive::zip(
                "a",
                &[archive::Entry {
                    name: "b.txt",
                    data: b"x",
                }],
            ),
            "without a data.pkl",
        ),
    ] {
        match open_bytes(bytes) {
            Err(CheckpointError::UnknownFormat { found, .. }) => {
                assert!(found.contains(word), "{found:?} lacks {word:?}");
            }
            other => panic!("{word}: {other:?}"),
        }
    }
    let directory = Checkpoint::open(&fixture("")).unwrap_err();
    assert!(directory.to_string().contains("a directory"), "{directory}");
    let absent = Checkpoint::open(&fixture("absent.pth")).unwrap_err();
    assert!(matches!(absent, CheckpointError::Io { .. }), "{absent}");
}
