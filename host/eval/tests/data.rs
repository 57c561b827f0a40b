//! Data sets as they come.

use std::{fs, path::Path};

use loftup_bundle::Size;
use loftup_eval::{
    EvalError,
    data::{Classes, pairs},
    labels::{Labels, UNLABELED},
};

fn mask(path: &Path, color: png::ColorType, depth: png::BitDepth, (w, h): (u32, u32), data: &[u8]) {
    let file = fs::File::create(path).unwrap();
    let mut encoder = png::Encoder::new(file, w, h);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == png::ColorType::Indexed {
        encoder.set_palette((0..16 * 3).map(|i| (i * 5) as u8).collect::<Vec<_>>());
    }
    encoder
        .write_header()
        .unwrap()
        .write_image_data(data)
        .unwrap();
}

fn gray(path: &Path, size: (u32, u32), data: &[u8]) {
    mask(
        path,
        png::ColorType::Grayscale,
        png::BitDepth::Eight,
        size,
        data,
    );
}

/// A data set of gray masks of 2x1, with empty images.
fn data_set(masks: &[(&str, [u8; 2])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for kind in ["images", "labels"] {
        fs::create_dir(dir.path().join(kind)).unwrap();
    }
    for (name, values) in masks {
        fs::write(dir.path().join("images").join(format!("{name}.jpg")), "").unwrap();
        gray(
            &dir.path().join("labels").join(format!("{name}.png")),
            (2, 1),
            values,
        );
    }
    dir
}

fn classes(dir: &Path) -> Result<Classes, EvalError> {
    Classes::of(dir, &pairs(dir, "train")?)
}

fn message<T>(result: Result<T, EvalError>) -> String {
    let message = result.err().expect("refused").to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

#[test]
fn indices_are_read_from_gray_and_from_palette_masks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.png");
    gray(&path, (3, 2), &[0, 1, 2, 3, 254, 255]);
    let labels = Labels::open(&path).unwrap();
    assert_eq!(labels.values, [0, 1, 2, 3, 254, 255]);
    assert_eq!(
        labels.size,
        Size {
            width: 3,
            height: 2
        }
    );
    for (depth, data, expected) in [
        (
            png::BitDepth::Four,
            vec![0x12, 0x30, 0x45, 0x60],
            [1, 2, 3, 4, 5, 6],
        ),
        (
            png::BitDepth::Two,
            vec![0b00_01_10_00, 0b11_10_01_00],
            [0, 1, 2, 3, 2, 1],
        ),
        (
            png::BitDepth::One,
            vec![0b101_00000, 0b011_00000],
            [1, 0, 1, 0, 1, 1],
        ),
    ] {
        mask(&path, png::ColorType::Indexed, depth, (3, 2), &data);
        assert_eq!(Labels::open(&path).unwrap().values, expected, "{depth:?}");
    }
}

#[test]
fn masks_that_are_none_are_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.png");
    mask(
        &path,
        png::ColorType::Rgb,
        png::BitDepth::Eight,
        (1, 1),
        &[1, 2, 3],
    );
    let rgb = message(Labels::open(&path));
    assert!(
        rgb.contains("m.png") && rgb.contains("Rgb") && rgb.contains("class indices"),
        "{rgb}"
    );
    mask(
        &path,
        png::ColorType::Grayscale,
        png::BitDepth::Sixteen,
        (1, 1),
        &[1, 2],
    );
    assert!(message(Labels::open(&path)).contains("16 bits"));
    fs::write(&path, b"not an image").unwrap();
    assert!(message(Labels::open(&path)).contains("cannot be decoded as PNG"));
    // A damaged one: cut in the middle.
    gray(&path, (64, 64), &[7; 64 * 64]);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 30]).unwrap();
    message(Labels::open(&path));
    // A header that claims a gigapixel.
    let mut huge = whole.clone();
    huge[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    fs::write(&path, huge).unwrap();
    message(Labels::open(&path));
}

#[test]
fn labels_are_resized_to_what_lies_under_each_center() {
    let labels = Labels {
        size: Size {
            width: 4,
            height: 2,
        },
        values: vec![0, 1, 2, 3, 4, 5, 6, 7],
    };
    let half = labels.resized(Size {
        width: 2,
        height: 1,
    });
    assert_eq!(half.values, [5, 7]);
    let double = labels.resized(Size {
        width: 8,
        height: 2,
    });
    assert_eq!(double.values[..8], [0, 0, 1, 1, 2, 2, 3, 3]);
}

#[test]
fn classes_are_named_in_a_file_and_void_is_none() {
    let dir = data_set(&[("a", [0, 2]), ("b", [3, 255])]);
    fs::write(
        dir.path().join("classes.txt"),
        "grass\nvoid\nsky\nroad\nunlabelled\n",
    )
    .unwrap();
    let classes = classes(dir.path()).unwrap();
    assert_eq!(classes.names, ["grass", "sky", "road"]);
    let read = |name: &str| {
        classes
            .read(&dir.path().join("labels").join(name))
            .unwrap()
            .values
    };
    assert_eq!(read("a.png"), [0, 1]);
    assert_eq!(read("b.png"), [2, UNLABELED]);
    gray(&dir.path().join("labels/c.png"), (2, 1), &[1, 5]);
    let message = message(classes.read(&dir.path().join("labels/c.png")));
    assert!(
        message.contains("value 5 at (1, 0)") && message.contains("3 classes"),
        "{message}"
    );
}

#[test]
fn without_a_file_classes_are_the_values_that_occur() {
    let dir = data_set(&[("a", [0, 2]), ("b", [5, 255])]);
    assert_eq!(classes(dir.path()).unwrap().names.len(), 6);
}

#[test]
fn camvid_is_known_by_its_names() {
    let dir = data_set(&[("0016E5_07959", [0, 11]), ("Seq05VD_f00000", [10, 3])]);
    let classes = classes(dir.path()).unwrap();
    assert_eq!(classes.names.len(), 11);
    assert_eq!(classes.names[8], "car");
    let labels = classes
        .read(&dir.path().join("labels/0016E5_07959.png"))
        .unwrap();
    assert_eq!(labels.values, [0, UNLABELED]);
}

#[test]
fn a_data_set_with_nothing_in_it_is_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    assert!(message(pairs(dir.path(), "train")).contains("no images directory"));
    fs::create_dir(dir.path().join("images")).unwrap();
    assert!(message(pairs(dir.path(), "train")).contains("no labels directory"));
    fs::create_dir(dir.path().join("labels")).unwrap();
    fs::write(dir.path().join("images/a.jpg"), "").unwrap();
    gray(&dir.path().join("labels/b.png"), (1, 1), &[0]);
    assert!(message(pairs(dir.path(), "train")).contains("NAME.png"));
    fs::rename(
        dir.path().join("labels/b.png"),
        dir.path().join("labels/a.png"),
    )
    .unwrap();
    assert_eq!(pairs(dir.path(), "train").unwrap().len(), 1);
    assert!(message(classes(dir.path())).contains("at least two"));
    gray(&dir.path().join("labels/a.png"), (1, 1), &[255]);
    assert!(message(classes(dir.path())).contains("no mask contains a label"));
    fs::write(dir.path().join("classes.txt"), "a\n\nb\n").unwrap();
    assert!(message(classes(dir.path())).contains("line 2 is empty"));
    fs::write(dir.path().join("classes.txt"), "a\n".repeat(300)).unwrap();
    assert!(message(classes(dir.path())).contains("300 classes"));
}
