//! Damaged files, by accident or intentionally. None may cause a panic, long run time, or memory
//! use out of proportion to its size.

use std::time::{Duration, Instant};

use loftup_import::checkpoint::{Checkpoint, CheckpointError};

use super::{archive, archive::Stored, fixture, open_bytes};

const REAL: [&str; 8] = [
    "plain.pth",
    "plain.safetensors",
    "strided.pt",
    "script_half.pt",
    "training.ckpt",
    "legacy.pth",
    "views_legacy.pt",
    "wrapped.pth",
];

/// Files without checksums, in which a changed element goes undetected.
const UNCHECKED: [&str; 6] = [
    "plain.safetensors",
    "unusual.safetensors",
    "legacy.pth",
    "legacy_protocol4.pth",
    "views_legacy.pt",
    "unusual_legacy.pt",
];

/// Reads all tensors of an arbitrary file.
fn ask_for_all(bytes: &[u8]) {
    let Ok(opened) = open_bytes(bytes) else {
        return;
    };
    let mut elements = 0;
    for name in opened.names() {
        if let Ok(shape) = opened.shape(name)
            && let Ok(tensor) = opened.tensor(name, shape)
        {
            elements += tensor.data().len();
        }
    }
    assert!(elements <= bytes.len(), "{elements} of {}", bytes.len());
}

/// Reading must fail or return the tensors of the intact file; returns which.
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
    for name in REAL.iter().filter(|name| !UNCHECKED.contains(name)) {
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
        println!("{name}: {survived} of 500 corruptions did not change the result");
    }
}

#[test]
fn a_flipped_byte_in_a_file_without_checksums_never_panics() {
    for name in UNCHECKED {
        let bytes = std::fs::read(fixture(name)).unwrap();
        for at in 0..bytes.len() {
            for flip in [0x01, [0x10, 0x80, 0xff][at % 3]] {
                let mut broken = bytes.clone();
                broken[at] ^= flip;
                ask_for_all(&broken);
            }
        }
    }
}

#[test]
fn unusual_tensors_in_damaged_archives_never_panic() {
    let bytes = std::fs::read(fixture("unusual.pt")).unwrap();
    for at in 0..bytes.len() {
        let mut broken = bytes.clone();
        broken[at] ^= 0x11;
        ask_for_all(&broken);
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
        let opened = open_bytes(&archive::checkpoint("a", &pickle, &[&storage]));
        match opened.and_then(|opened| opened.tensor("w", opened.shape("w")?)) {
            Err(CheckpointError::Damaged { what, .. }) => println!("{what}"),
            // More elements than the storage has, as created by `expand`.
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
    let opened = open_bytes(&bytes).unwrap();
    let read = |name: &String| opened.tensor(name, &[10_000]);
    let (read, refused): (Vec<_>, Vec<_>) = names.iter().map(read).partition(Result::is_ok);
    assert!(
        (1..=4 * bytes.len() / 40_000).contains(&read.len()),
        "{} were read",
        read.len()
    );
    for error in refused {
        let message = error.unwrap_err().to_string();
        assert!(message.contains("clone()"), "{message}");
    }
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
    // Modules that each contain the next one twice: 2^60 paths.
    let mut doubling = b"\x80\x02".to_vec();
    doubling.extend(b"c__torch__\nM\n)\x81q\x00");
    for _ in 0..60 {
        doubling.extend(b"0c__torch__\nM\n)\x81}(X\x01\0\0\0ah\x00X\x01\0\0\0bh\x00ubq\x00");
    }
    doubling.push(b'.');
    // A module that contains itself.
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
    // A directory of 1000 entries that are all the same 100 kB.
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
            r#"{"w":{"dtype":"F99","shape":[1],"data_offsets":[0,5]}}"#,
            None,
        ),
        (
            r#"{"w":{"dtype":"F8_E4M3","shape":[5],"data_offsets":[0,4]}}"#,
            None,
        ),
        (
            r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"v":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
            None,
        ),
        (
            r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
            None,
        ),
        (
            r#"{"w":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}}"#,
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

/// A file in the format before PyTorch 1.6: the saved object, the keys of its storages, and the
/// storages, each preceded by its element count.
fn old(pickle: &[u8], keys: &[u8], storages: &[(u64, &[u8])]) -> Vec<u8> {
    let mut out =
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.".to_vec();
    out.extend(pickle);
    out.extend(keys);
    for (count, bytes) in storages {
        out.extend(count.to_le_bytes());
        out.extend(*bytes);
    }
    out
}

const KEYS: &[u8] = b"\x80\x02]X\x01\0\0\x000a.";

#[test]
fn counts_in_the_old_format_are_believed_only_as_far_as_the_file_goes() {
    let bytes = [0u8; 48];
    let sound = one("FloatStorage", 12, 0, &[12], &[1]);
    let opened = open_bytes(&old(&sound, KEYS, &[(12, &bytes)])).unwrap();
    assert_eq!(opened.tensor("w", &[12]).unwrap().data(), [0.0; 12]);
    const MAX: i64 = i64::MAX;
    let huge = one("FloatStorage", MAX, 0, &[12], &[1]);
    let double = one("DoubleStorage", 12, 0, &[12], &[1]);
    let outside = one("FloatStorage", 12, 1, &[12], &[1]);
    let twice = b"\x80\x02]X\x01\0\0\x000aX\x01\0\0\x000a.";
    for (what, file) in [
        ("no storages", old(&sound, KEYS, &[])),
        ("another count", old(&sound, KEYS, &[(11, &bytes)])),
        ("a huge count", old(&sound, KEYS, &[(u64::MAX, &bytes)])),
        ("a huge storage", old(&huge, KEYS, &[(MAX as u64, &bytes)])),
        ("too few bytes", old(&sound, KEYS, &[(12, &bytes[..47])])),
        ("wide elements", old(&double, KEYS, &[(12, &bytes)])),
        ("outside", old(&outside, KEYS, &[(12, &bytes)])),
        ("no keys", old(&sound, b"\x80\x02].", &[])),
        (
            "keys that are no list",
            old(&sound, b"\x80\x02N.", &[(12, &bytes)]),
        ),
        (
            "a key that is a number",
            old(&sound, b"\x80\x02]K\x00a.", &[(12, &bytes)]),
        ),
        (
            "an unknown key",
            old(&sound, b"\x80\x02]X\x01\0\0\x001a.", &[(12, &bytes)]),
        ),
        (
            "a key twice",
            old(&sound, twice, &[(12, &bytes), (12, &bytes)]),
        ),
        ("no object", old(b"", b"", &[])),
        ("endless marks", old(&vec![b'('; 3 << 20], b"", &[])),
    ] {
        match open_bytes(&file) {
            Err(CheckpointError::Damaged { what, .. }) => println!("{what}"),
            other => panic!("{what}: {other:?}"),
        }
    }
    let version = old(&sound, KEYS, &[(12, &bytes)]);
    let at = version.windows(2).position(|w| w == b"\xe9\x03").unwrap();
    let version = [&version[..at], b"\xe8\x03", &version[at + 2..]].concat();
    assert!(matches!(
        open_bytes(&version),
        Err(CheckpointError::Damaged { .. })
    ));
}

#[test]
fn the_old_format_executes_nothing_either() {
    let command = b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R.";
    let sound = one("FloatStorage", 12, 0, &[12], &[1]);
    for file in [
        old(command, KEYS, &[]),
        old(&sound, command, &[]),
        [&old(b"", b"", &[])[..15], command].concat(),
    ] {
        match open_bytes(&file) {
            Err(CheckpointError::Refused { global, .. }) => assert_eq!(global, "os.system"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn part_of_a_storage_of_the_old_format_is_read_from_where_it_begins() {
    // ("storage", class, "0", "cpu", 12, ("1", 4, 8)): elements 4 to 12.
    let pickle = |offset: u8| {
        let mut pickle = one("FloatStorage", 12, 0, &[3], &[1]);
        let at = pickle.windows(2).position(|w| w == b"tQ").unwrap();
        let view = [&b"(X\x01\0\0\x001K"[..], &[offset], b"K\x08t"].concat();
        pickle.splice(at..at, view);
        pickle
    };
    let bytes: Vec<u8> = (0..12).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let opened = open_bytes(&old(&pickle(4), KEYS, &[(12, &bytes)])).unwrap();
    assert_eq!(opened.tensor("w", &[3]).unwrap().data(), [4.0, 5.0, 6.0]);
    let error = open_bytes(&old(&pickle(10), KEYS, &[(12, &bytes)])).unwrap_err();
    assert!(matches!(error, CheckpointError::Damaged { .. }), "{error}");
}

#[test]
fn dictionaries_that_contain_each_other_end() {
    // Each contains the next one twice: 2^60 names. The last contains itself.
    let mut doubling = b"\x80\x02}q\x00".to_vec();
    for _ in 0..60 {
        doubling.extend(b"}(X\x01\0\0\0ah\x00X\x01\0\0\0bh\x00uq\x00");
    }
    doubling.push(b'.');
    let endless = b"\x80\x02}q\x00X\x01\0\0\0ah\x00s.".to_vec();
    for pickle in [doubling, endless] {
        let error = open_bytes(&archive::checkpoint("a", &pickle, &[])).unwrap_err();
        println!("{error}");
    }
}
