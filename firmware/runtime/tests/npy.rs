//! Arrays compared with files written by NumPy. Fixtures: `tools/make_npy_fixtures.py`.

use std::path::{Path, PathBuf};

use loftup_runtime::npy::{self, NpyError, NpyWriter};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/npy")
        .join(name)
}

/// Element (i, j, k) of shape (2, 3, 4) is 100 i + 10 j + k + offset.
fn counted(offset: f32) -> Vec<f32> {
    (0..24)
        .map(|n| (n / 12 * 100 + n / 4 % 3 * 10 + n % 4) as f32 + offset)
        .collect()
}

fn put(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npy");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn refused(path: &Path) -> (NpyError, String) {
    let error = npy::read(path).unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with(&*path.to_string_lossy()), "{message}");
    assert!(!message.contains('\n'), "{message}");
    (error, message)
}

#[test]
fn every_type_order_and_version_is_read() {
    for (name, offset) in [
        ("f2", -0.5),
        ("f4", -0.5),
        ("f8", -0.5),
        ("f2_fortran", -0.5),
        ("f4_fortran", -0.5),
        ("f8_fortran", -0.5),
        ("v2", -0.5),
        ("v3", -0.5),
        ("u1", 0.0),
        ("u1_fortran", 0.0),
    ] {
        let array = npy::read(&data(&format!("{name}.npy"))).unwrap();
        assert_eq!(array.shape, [2, 3, 4], "{name}");
        assert_eq!(array.data, counted(offset), "{name}");
    }
}

#[test]
fn scalars_vectors_and_empty_arrays_are_read() {
    let scalar = npy::read(&data("scalar.npy")).unwrap();
    assert_eq!((scalar.shape, scalar.data), (vec![], vec![2.5]));
    let vector = npy::read(&data("vector.npy")).unwrap();
    assert_eq!(vector.shape, [5]);
    assert_eq!(vector.data, [0.0, 1.0, 2.0, 3.0, 4.0]);
    let empty = npy::read(&data("empty.npy")).unwrap();
    assert_eq!((empty.shape, empty.data), (vec![3, 0, 2], vec![]));
}

#[test]
fn other_types_are_refused_by_name_with_the_remedy() {
    for (name, dtype) in [
        ("big_endian.npy", ">f4"),
        ("int64.npy", "<i8"),
        ("record.npy", "'x'"),
    ] {
        let (error, message) = refused(&data(name));
        assert!(matches!(error, NpyError::UnsupportedType { .. }));
        assert!(message.contains(dtype), "{message}");
        assert!(message.contains("astype"), "{message}");
    }
}

#[test]
fn a_file_of_another_length_than_its_header_says_is_refused() {
    let whole = std::fs::read(data("f4.npy")).unwrap();
    for len in 0..whole.len() {
        let (_folder, path) = put(&whole[..len]);
        let (error, message) = refused(&path);
        match error {
            NpyError::NotAnArray { .. } => assert!(len < 128, "{message}"),
            NpyError::WrongLength {
                expected, found, ..
            } => {
                assert_eq!((expected, found), (96, len as u64 - 128));
                assert!(message.contains("float32 [2, 3, 4]"), "{message}");
            }
            other => panic!("{other}"),
        }
    }
    let (_folder, path) = put(&[&whole[..], b"more"].concat());
    assert!(matches!(
        refused(&path).0,
        NpyError::WrongLength { found: 100, .. }
    ));
}

#[test]
fn lengths_in_the_header_take_no_memory() {
    let with = |shape: &str| {
        let text = format!("{{'descr': '<f4', 'fortran_order': True, 'shape': {shape}, }}\n");
        let len = (text.len() as u16).to_le_bytes();
        put(&[b"\x93NUMPY\x01\x00", &len[..], text.as_bytes()].concat())
    };
    let (_folder, path) = with("(1099511627776,)");
    assert!(matches!(refused(&path).0, NpyError::WrongLength { .. }));
    let (_folder, path) = with("(4294967296, 4294967296)");
    assert!(matches!(refused(&path).0, NpyError::TooLarge { .. }));
    let (_folder, path) = with("(4611686018427387904, 2)");
    assert!(matches!(refused(&path).0, NpyError::TooLarge { .. }));
    let (_folder, path) = with("(9223372036854775807, 9223372036854775807, 0)");
    assert!(npy::read(&path).unwrap().data.is_empty());
    let (_folder, path) = put(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{");
    assert!(refused(&path).1.contains("over the limit"));
    let (_folder, path) = put(b"\x93NUMPY\x09\x00\x10\x00{");
    assert!(refused(&path).1.contains("version 9"));
    let (_folder, path) = put(b"\x89PNG\r\n\x1a\n1234");
    assert!(refused(&path).1.contains("numpy.save"));
    assert!(refused(Path::new("/dev/null")).1.contains("regular"));
}

#[test]
fn what_is_written_is_what_numpy_would_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.npy");
    npy::write(&path, &[2, 3, 4], &counted(-0.5)).unwrap();
    assert_eq!(
        std::fs::read(&path).unwrap(),
        std::fs::read(data("f4.npy")).unwrap()
    );
    npy::write(&path, &[], &[2.5]).unwrap();
    assert_eq!(
        npy::read(&path).unwrap(),
        npy::read(&data("scalar.npy")).unwrap()
    );
    npy::write(&path, &[3, 0, 2], &[]).unwrap();
    assert_eq!(
        npy::read(&path).unwrap(),
        npy::read(&data("empty.npy")).unwrap()
    );
    npy::write(&path, &[5], &[0.0, 1.0, 2.0, 3.0, 4.0]).unwrap();
    assert_eq!(
        npy::read(&path).unwrap(),
        npy::read(&data("vector.npy")).unwrap()
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn every_bit_pattern_survives() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.npy");
    let values: Vec<f32> = (0..200_000u32)
        .map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b9)))
        .chain([f32::NAN, f32::INFINITY, -0.0])
        .collect();
    npy::write(&path, &[values.len()], &values).unwrap();
    let read = npy::read(&path).unwrap();
    let differ = read.data.iter().zip(&values);
    assert_eq!(read.data.len(), values.len());
    assert!(differ.into_iter().all(|(a, b)| a.to_bits() == b.to_bits()));
}

#[test]
fn threads_write_their_parts_at_the_same_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.npy");
    let values: Vec<f32> = (0..4 * 100_003).map(|i| i as f32).collect();
    let writer = NpyWriter::create(&path, &[4, 100_003]).unwrap();
    std::thread::scope(|scope| {
        for (part, values) in values.chunks(100_003).enumerate() {
            let writer = &writer;
            scope.spawn(move || writer.write_at(part * 100_003, values).unwrap());
        }
    });
    writer.finish().unwrap();
    assert_eq!(npy::read(&path).unwrap().data, values);
}

#[test]
fn dropped_or_unfinished_the_destination_stays_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.npy");
    npy::write(&path, &[1], &[7.0]).unwrap();
    let before = std::fs::read(&path).unwrap();

    let writer = NpyWriter::create(&path, &[1000]).unwrap();
    writer.write_at(0, &[1.0; 500]).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    drop(writer);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    let writer = NpyWriter::create(&path, &[1000]).unwrap();
    writer.write_at(0, &[1.0; 999]).unwrap();
    let error = writer.finish().unwrap_err();
    assert!(
        matches!(error, NpyError::Unfinished { written: 999, .. }),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn writes_outside_the_array_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.npy");
    let writer = NpyWriter::create(&path, &[2, 5]).unwrap();
    for (offset, count) in [(0, 11), (10, 1), (9, 2), (usize::MAX, 1)] {
        let error = writer.write_at(offset, &vec![0.0; count]).unwrap_err();
        assert!(matches!(error, NpyError::OutOfRange { .. }), "{error}");
    }
    writer.write_at(10, &[]).unwrap();
    let error = npy::write(&path, &[3], &[1.0, 2.0]).unwrap_err();
    assert!(matches!(error, NpyError::Unfinished { .. }), "{error}");
    assert!(npy::write(&path, &[1], &[1.0, 2.0]).is_err());
    assert!(!path.exists());
}

#[test]
fn an_array_that_the_disk_has_no_room_for_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.npy");
    // An exbibyte.
    let error = NpyWriter::create(&path, &[1 << 58]).unwrap_err();
    let NpyError::NoSpace { needed, free, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(*needed, (1u64 << 60) + 128);
    assert!(*free < *needed);
    assert!(error.to_string().contains(&needed.to_string()));
    for shape in [&[usize::MAX, 2][..], &[1 << 61], &[1 << 62]] {
        let error = NpyWriter::create(&path, shape).unwrap_err();
        assert!(matches!(error, NpyError::TooLarge { .. }), "{error}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_new_array_has_the_permissions_of_any_new_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (array, plain) = (folder.path().join("out.npy"), folder.path().join("plain"));
    npy::write(&array, &[1], &[1.0]).unwrap();
    std::fs::write(&plain, b"").unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode();
    assert_eq!(mode(&array), mode(&plain));
}
