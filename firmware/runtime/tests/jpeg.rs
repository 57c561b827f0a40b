//! Tests of damaged JPEGs and of EXIF orientation.

use std::path::{Path, PathBuf};

use image::{DynamicImage, ExtendedColorType, ImageEncoder};
use loftup_runtime::image::{self as images, Orientation, RgbImage};

fn fixture(name: &str) -> Vec<u8> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/decode")
        .join(name);
    std::fs::read(path).unwrap()
}

/// A gradient with a pattern that never repeats.
fn pattern(width: u32, height: u32) -> Vec<u8> {
    let level = |i: u32| (i.wrapping_mul(2_654_435_761) >> 25) as u8;
    (0..width * height)
        .flat_map(|i| {
            let (x, y) = (i % width, i / width);
            [(x * 5) as u8, (y * 7) as u8, level(x / 4 + y / 4 * 64)]
        })
        .collect()
}

/// A baseline JPEG by the encoder of the `image` crate, with optional EXIF data.
fn jpeg(width: u32, height: u32, exif: Option<Vec<u8>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 90);
    if let Some(exif) = exif {
        encoder.set_exif_metadata(exif).unwrap();
    }
    let pixels = pattern(width, height);
    encoder
        .write_image(&pixels, width, height, ExtendedColorType::Rgb8)
        .unwrap();
    bytes
}

/// EXIF data with only the orientation.
fn exif(orientation: u8) -> Vec<u8> {
    let mut exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    exif
}

/// The entropy-coded data of each scan: `(header, start, end)`.
fn scans(bytes: &[u8]) -> Vec<(usize, usize, usize)> {
    let (mut at, mut found) = (2, Vec::new());
    while bytes[at + 1] != 0xd9 {
        let length = usize::from(bytes[at + 2]) << 8 | usize::from(bytes[at + 3]);
        let start = at + 2 + length;
        if bytes[at + 1] != 0xda {
            at = start;
            continue;
        }
        let ends = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0 | 0xd0..=0xd7);
        let end = start + bytes[start..].windows(2).position(ends).unwrap();
        found.push((at, start, end));
        at = end;
    }
    found
}

fn message(bytes: &[u8]) -> String {
    let error = images::decode(bytes, "x.jpg").expect_err("damaged");
    let message = error.to_string();
    assert!(message.starts_with("x.jpg: JPEG"), "{message}");
    message
}

#[test]
fn a_cut_image_is_refused_whatever_follows() {
    let small = jpeg(64, 48, None);
    let fixtures = ["rgb_444.jpg", "rgb_420.jpg", "progressive.jpg"].map(fixture);
    for whole in fixtures.iter().chain([&small]) {
        let (_, start, _) = scans(whole)[0];
        let (_, _, end) = *scans(whole).last().unwrap();
        for percent in (0..100).step_by(5) {
            let cut = &whole[..start + (end - start) * percent / 100];
            let cut = cut.strip_suffix(&[0xff]).unwrap_or(cut);
            message(&[cut, &[0xff, 0xd9]].concat());
            message(&[cut, &whole[..]].concat());
            message(cut);
        }
    }
    let (_, start, end) = scans(&small)[0];
    let cut = &small[..start + (end - start) / 2];
    let text = message(&[cut, &small[..]].concat());
    assert!(
        text.contains(" of 48 MCUs, with the start of another image"),
        "{text}"
    );
    let text = message(&[cut, &[0xff, 0xd9]].concat());
    assert!(
        text.contains("of 48 MCUs, with the end-of-image marker"),
        "{text}"
    );
}

#[test]
fn surplus_and_lost_data_are_noticed() {
    let whole = jpeg(64, 48, None);
    let (_, start, end) = scans(&whole)[0];
    let middle = start + (end - start) / 2;
    let text = message(&[&whole[..end], &whole[middle..]].concat());
    assert!(
        text.contains("after 48 of 48 MCUs: there is data after the last block"),
        "{text}"
    );
    message(&[&whole[..start + 40], &whole[start + 140..]].concat());
}

#[test]
fn a_progressive_image_must_have_all_its_scans() {
    let whole = fixture("progressive.jpg");
    let scans = scans(&whole);
    assert!(scans.len() > 5);
    for (i, (header, _, end)) in scans.iter().enumerate() {
        let text = message(&[&whole[..*header], &whole[*end..]].concat());
        assert!(text.contains("scan"), "without scan {i}: {text}");
        if i > 0 {
            let text = message(&[&whole[..*header], &[0xff, 0xd9]].concat());
            assert!(text.contains("a scan is missing"), "up to scan {i}: {text}");
        }
        let text = message(&[&whole[..*end], &whole[*header..]].concat());
        assert!(text.contains("duplicated"), "scan {i} twice: {text}");
    }
}

#[test]
fn what_encoders_and_cameras_add_is_accepted() {
    for whole in [
        fixture("progressive.jpg"),
        fixture("rgb_420.jpg"),
        jpeg(33, 17, None),
    ] {
        let expected = images::decode(&whole, "x.jpg").unwrap();
        let (_, _, end) = *scans(&whole).last().unwrap();
        let (data, rest) = whole.split_at(end);
        for (what, bytes) in [
            (
                "a preview after the end",
                [&whole[..], &jpeg(16, 16, None)].concat(),
            ),
            ("a trailer", [&whole[..], b"SEFT\xff\xd8\0\0"].concat()),
            (
                "fill bytes before the end",
                [data, &[0xff, 0xff], rest].concat(),
            ),
            ("padding", [data, &[0; 7], rest].concat()),
            (
                "a comment",
                [&whole[..2], b"\xff\xfe\0\x04hi", &whole[2..]].concat(),
            ),
        ] {
            let decoded = images::decode(&bytes, what).unwrap();
            assert_eq!(decoded, expected, "{what}");
        }
    }
}

/// Restart markers by hand: one MCU of 8x8 gray pixels is one block, and all blocks here have the
/// same code, so that a scan with a restart interval of one can be assembled from whole bytes.
#[test]
fn restart_markers_come_in_their_order() {
    // A DC table with a single one-bit code for a difference of 0, and an AC table with one for end
    // of block.
    let table = |class: u8| {
        let mut counts = [0u8; 16];
        counts[0] = 1;
        [&[0xff, 0xc4, 0, 20, class][..], &counts, &[0]].concat()
    };
    let quantization = [&[0xff, 0xdb, 0, 67, 0][..], &[1; 64]].concat();
    let build = |markers: &[u8]| {
        let mut bytes = vec![0xff, 0xd8];
        bytes.extend(&quantization);
        bytes.extend([0xff, 0xc0, 0, 11, 8, 0, 8, 0, 80, 1, 1, 0x11, 0]);
        bytes.extend(table(0x00));
        bytes.extend(table(0x10));
        bytes.extend([0xff, 0xdd, 0, 4, 0, 1]);
        bytes.extend([0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0]);
        for marker in markers {
            bytes.extend([0b0011_1111, 0xff, *marker]);
        }
        bytes.extend([0b0011_1111, 0xff, 0xd9]);
        bytes
    };
    let right: Vec<u8> = (0..9).map(|i| 0xd0 + i % 8).collect();
    let image = images::decode(&build(&right), "x.jpg").unwrap();
    assert_eq!(image, RgbImage::filled(80, 8, [128; 3]).unwrap());
    for (what, markers) in [
        ("one is missing", [&right[..3], &right[4..]].concat()),
        (
            "two are swapped",
            [&right[..2], &[0xd3, 0xd2], &right[4..]].concat(),
        ),
        ("the last are missing", right[..5].to_vec()),
    ] {
        let text = message(&build(&markers));
        assert!(text.contains("without restart marker"), "{what}: {text}");
    }
    message(&build(&[&right[..], &[0xd1]].concat()).repeat(1)[..60]);
}

/// Decoding never panics, and accepted images have the size in their header.
#[test]
fn hostile_bytes_are_errors() {
    let whole = fixture("progressive.jpg");
    let small = jpeg(24, 16, Some(exif(6)));
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize % below
    };
    let mut refused = 0;
    for round in 0..2000 {
        let mut bytes = if round % 2 == 0 {
            whole.clone()
        } else {
            small.clone()
        };
        for _ in 0..=random(4) {
            let at = 2 + random(bytes.len() - 2);
            bytes[at] = random(256) as u8;
        }
        refused += usize::from(images::decode(&bytes, "x.jpg").is_err());
    }
    assert!(refused > 500, "{refused} of 2000");
}

#[test]
fn every_exif_orientation_is_applied_unless_switched_off() {
    let (width, height) = (40, 24);
    for orientation in 1..=8 {
        let bytes = jpeg(width, height, Some(exif(orientation)));
        let stored = images::decode_with(&bytes, "x.jpg", Orientation::AsStored).unwrap();
        assert_eq!((stored.image.width(), stored.image.height()), (40, 24));
        assert_eq!(stored.exif_orientation, 1);
        let upright = images::decode_with(&bytes, "x.jpg", Orientation::Upright).unwrap();
        assert_eq!(upright.exif_orientation, orientation);
        // Where the pixel at column x and row y of the upright image is stored, according to the
        // EXIF standard's definition of row 0 and column 0.
        let (w, h) = (width as usize, height as usize);
        let place = |x: usize, y: usize| match orientation {
            1 => (x, y),
            2 => (w - 1 - x, y),
            3 => (w - 1 - x, h - 1 - y),
            4 => (x, h - 1 - y),
            5 => (y, x),
            6 => (y, h - 1 - x),
            7 => (w - 1 - y, h - 1 - x),
            _ => (w - 1 - y, x),
        };
        let image = &upright.image;
        let sides = if orientation < 5 { (w, h) } else { (h, w) };
        assert_eq!((image.width(), image.height()), sides, "{orientation}");
        for y in 0..sides.1 {
            for x in 0..sides.0 {
                let (sx, sy) = place(x, y);
                let pixel = &image.row(y)[3 * x..][..3];
                assert_eq!(
                    pixel,
                    &stored.image.row(sy)[3 * sx..][..3],
                    "{orientation}: {x},{y}"
                );
            }
        }
        assert_eq!(
            images::decode(&bytes, "x.jpg").unwrap(),
            upright.image,
            "the default"
        );
    }
}

#[test]
fn labels_that_do_not_fit_because_of_exif_are_explained() {
    let of = |orientation| {
        images::decode_with(
            &jpeg(40, 24, Some(exif(orientation))),
            "x",
            Orientation::Upright,
        )
        .unwrap()
    };
    let why = of(6).why_labels_differ((40, 24));
    assert!(why.contains("EXIF orientation 6"), "{why}");
    assert_eq!(of(6).why_labels_differ((41, 24)), "");
    assert_eq!(of(3).why_labels_differ((24, 40)), "");
}

#[test]
fn exif_orientation_in_png_is_applied_too() {
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    encoder.set_exif_metadata(exif(6)).unwrap();
    encoder
        .write_image(&pattern(40, 24), 40, 24, ExtendedColorType::Rgb8)
        .unwrap();
    let image = images::decode(&bytes, "x.png").unwrap();
    let stored = image::RgbImage::from_raw(40, 24, pattern(40, 24)).unwrap();
    let expected = DynamicImage::ImageRgb8(stored).rotate90().into_rgb8();
    assert_eq!(image.data(), expected.as_raw());
}

#[test]
fn a_webp_shorter_than_it_says_is_refused() {
    let whole = fixture("rgb.webp");
    let mut longer = whole.clone();
    let length = whole.len() as u32;
    longer[4..8].copy_from_slice(&length.to_le_bytes());
    let text = images::decode(&longer, "x.webp").unwrap_err().to_string();
    assert!(text.contains("the file is truncated"), "{text}");
    longer.extend([0; 8]);
    assert!(images::decode(&longer, "x.webp").is_ok());
}

#[test]
fn the_frame_of_another_coding_does_not_hide_what_is_missing() {
    for marker in [0xc3, 0xc5, 0xc9, 0xce] {
        let mut bytes = jpeg(24, 17, None);
        let (_, start, _) = scans(&bytes)[0];
        bytes.truncate(start);
        let frame = [0xff, marker, 0, 11, 8, 0, 17, 0, 24, 1, 1, 0x11, 0];
        bytes.splice(2..2, frame);
        let message = message(&bytes);
        assert!(message.contains(&format!("ff{marker:02x}")), "{message}");
    }
}
