//! Image resizing and decoding compared with PIL and torchvision. Fixtures:
//! `tools/make_resize_fixtures.py`.

use std::path::{Path, PathBuf};

use loftup_runtime::image::{self, ImageError, MAX_SIDE, RgbImage};
use sha2::{Digest, Sha256};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// The same pixels as `noise` in the fixture script.
fn noise(width: usize, height: usize) -> RgbImage {
    let mut pixels = Vec::with_capacity(width * height * 3);
    for y in 0..height as u32 {
        for x in 0..width as u32 {
            for c in 0..3u32 {
                let mut mixed = x
                    .wrapping_mul(2_654_435_761)
                    .wrapping_add(y.wrapping_mul(2_246_822_519))
                    .wrapping_add(c.wrapping_mul(3_266_489_917));
                mixed ^= mixed >> 15;
                mixed = mixed.wrapping_mul(2_246_822_519);
                mixed ^= mixed >> 13;
                let ramp = x.wrapping_mul(3) + y.wrapping_mul(5) + c * 7;
                let rough = ((x >> 4) + (y >> 4)).is_multiple_of(2);
                pixels.push(if rough { mixed >> 24 } else { ramp & 255 } as u8);
            }
        }
    }
    RgbImage::new(width, height, pixels).unwrap()
}

#[test]
fn resize_gives_the_bytes_of_pillow() {
    let cases = std::fs::read_to_string(data("resize.txt")).unwrap();
    let mut count = 0;
    for case in cases.lines() {
        let fields: Vec<&str> = case.split(' ').collect();
        let size: Vec<usize> = fields[..4].iter().map(|f| f.parse().unwrap()).collect();
        let out = noise(size[0], size[1]).resized(size[2], size[3]).unwrap();
        let digest = Sha256::digest(out.data());
        let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, fields[4], "{size:?}");
        count += 1;
    }
    assert_eq!(count, 31);
}

#[test]
fn small_resizes_equal_the_committed_bytes() {
    for (from, to) in [((37, 23), (61, 19)), ((97, 61), (13, 7)), ((1, 9), (5, 4))] {
        let out = noise(from.0, from.1).resized(to.0, to.1).unwrap();
        let name = format!("resize_{}x{}_{}x{}.rgb", from.0, from.1, to.0, to.1);
        let expected = std::fs::read(data(&name)).unwrap();
        let differ = out.data().iter().zip(&expected).filter(|(a, b)| a != b);
        assert_eq!(differ.count(), 0, "{name}");
        assert_eq!(out.data().len(), expected.len(), "{name}");
    }
}

#[test]
fn all_levels_are_normalized_to_the_bits_of_torchvision() {
    let table = loftup_runtime::npy::read(&data("normalize.npy")).unwrap();
    assert_eq!(table.shape, [3, 3, 256]);
    let levels: Vec<u8> = (0..=255).flat_map(|v| [v; 3]).collect();
    let image = RgbImage::new(256, 1, levels).unwrap();
    let kinds = [
        ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        (
            [0.481_454_66, 0.457_827_5, 0.408_210_73],
            [0.268_629_54, 0.261_302_6, 0.275_777_1],
        ),
        ([0.5; 3], [0.5; 3]),
    ];
    for ((mean, std), expected) in kinds.into_iter().zip(table.data.chunks_exact(3 * 256)) {
        let got = image.normalized(mean, std);
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&got), bits(expected), "{mean:?}");
    }
}

#[test]
fn normalized_planes_are_in_order_of_channel_row_and_column() {
    let image = noise(5, 4);
    let planes = image.normalized([0.0; 3], [1.0 / 255.0; 3]);
    for (i, value) in planes.iter().enumerate() {
        let (channel, y, x) = (i / 20, i / 5 % 4, i % 5);
        assert_eq!(value.round() as u8, image.row(y)[x * 3 + channel]);
    }
}

#[test]
fn holding_keeps_pixels_that_are_near_and_only_those() {
    let before = noise(7, 5);
    let mut after = before.clone();
    for (i, level) in (0..5)
        .flat_map(|y| (0..21).map(move |x| (y, x)))
        .enumerate()
    {
        let (y, x) = level;
        // Up to 6 levels, up or down.
        let by = (i % 7) as u8;
        let old = before.row(y)[x];
        after.row_mut(y)[x] = if old < 128 { old + by } else { old - by };
    }
    let mut held = after.clone();
    held.suppress_noise(&before, 3);
    let mut kept = 0;
    for y in 0..5 {
        for x in 0..7 {
            let of = |image: &RgbImage| image.row(y)[3 * x..3 * x + 3].to_vec();
            let near = (of(&before).iter())
                .zip(of(&after))
                .all(|(a, b)| a.abs_diff(b) <= 3);
            let expected = if near { of(&before) } else { of(&after) };
            assert_eq!(of(&held), expected, "{x},{y}");
            kept += usize::from(near);
        }
    }
    assert!((1..35).contains(&kept), "{kept}");
    let mut other = noise(5, 7);
    other.suppress_noise(&before, 255);
    assert_eq!(other, noise(5, 7), "another size");
}

fn worst_level(image: &RgbImage, expected: &[u8]) -> u8 {
    assert_eq!(image.data().len(), expected.len());
    let pairs = image.data().iter().zip(expected);
    pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn lossless_images_of_every_type_decode_as_in_pil() {
    for name in [
        "rgb.png",
        "rgb.bmp",
        "rgb.ppm",
        "rgb.tif",
        "rgb.webp",
        "gray.png",
        "gray.ppm",
        "bilevel.png",
        "gray_alpha.png",
        "rgba.png",
        "palette.png",
        "palette_transparent.png",
        "gray16.png",
        "gray16.tif",
    ] {
        let path = data("decode").join(name);
        let image = image::open(&path).unwrap();
        assert_eq!((image.width(), image.height()), (19, 13), "{name}");
        let expected = std::fs::read(path.with_file_name(format!("{name}.rgb"))).unwrap();
        assert_eq!(image.data(), expected, "{name}");
    }
}

#[test]
fn jpegs_decode_within_the_freedom_of_decoders() {
    // ITU-T T.83 allows one level per coefficient; upsampling subsampled color allows more.
    for (name, tolerance) in [
        ("rgb_444.jpg", 2),
        ("progressive.jpg", 4),
        ("rgb_420.jpg", 4),
        ("rotated.jpg", 4),
    ] {
        let path = data("decode").join(name);
        // `rotated.jpg` has an EXIF orientation; PIL returns the pixels as stored.
        let image = image::open_with(&path, image::Orientation::AsStored)
            .unwrap()
            .image;
        assert_eq!((image.width(), image.height()), (32, 24), "{name}");
        let expected = std::fs::read(path.with_file_name(format!("{name}.rgb"))).unwrap();
        let worst = worst_level(&image, &expected);
        println!("{name}: worst {worst} levels");
        assert!(worst <= tolerance, "{name}: {worst}");
    }
}

#[test]
fn the_content_counts_and_not_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("really_a_png.jpg");
    std::fs::copy(data("decode/rgb.png"), &path).unwrap();
    assert_eq!(
        image::open(&path).unwrap(),
        image::open(&data("decode/rgb.png")).unwrap()
    );
}

/// The one-line message of a failed decode.
fn refused(bytes: &[u8]) -> (ImageError, String) {
    let error = image::decode(bytes, "x.jpg").unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with("x.jpg: "), "{message}");
    assert!(!message.contains('\n'), "{message}");
    (error, message)
}

#[test]
fn files_that_are_not_images_are_described_in_the_error() {
    for (bytes, looks) in [
        (&b""[..], "the file is empty"),
        (b"\x93NUMPY\x01\x00", "NumPy array"),
        (b"PK\x03\x04rest", "ZIP"),
        (b"GIF89a", "GIF"),
        (b"<html><body>404", "text: \"<html><body>404\""),
        (b"\x00\x00\x00\x20ftypavif", "AVIF"),
        (b"\x00\x00\x00\x20ftypisom", "video"),
        (b"\x01\x02\x03\xff", "bytes 01 02 03 ff"),
    ] {
        let (error, message) = refused(bytes);
        assert!(matches!(error, ImageError::NotAnImage { .. }), "{message}");
        assert!(message.contains(looks), "{message}");
    }
    let message = image::open(&data("decode")).unwrap_err().to_string();
    assert!(message.contains("it is a directory"), "{message}");
    let message = image::open(&data("absent.png")).unwrap_err().to_string();
    assert!(message.contains("absent.png: No such file"), "{message}");
}

#[test]
fn truncated_images_are_rejected_at_every_length() {
    for name in [
        "rgb_444.jpg",
        "rgb_420.jpg",
        "rotated.jpg",
        "progressive.jpg",
        "rgb.png",
        "rgb.bmp",
        "rgb.ppm",
        "rgb.tif",
        "rgb.webp",
    ] {
        let whole = std::fs::read(data("decode").join(name)).unwrap();
        let mut accepted = Vec::new();
        for len in 0..whole.len() {
            match image::decode(&whole[..len], name) {
                Err(error) => assert!(error.to_string().starts_with(name), "{error}"),
                Ok(image) => accepted.push((len, image)),
            }
        }
        // A trailer without pixel data may be missing, but no pixel may differ.
        let full = image::decode(&whole, name).unwrap();
        for (len, image) in accepted {
            assert_eq!(image, full, "{name} cut to {len} of {}", whole.len());
        }
    }
}

#[test]
fn floating_point_pixels_are_refused() {
    let bytes = std::fs::read(data("decode/float.tif")).unwrap();
    let (error, message) = refused(&bytes);
    assert!(matches!(error, ImageError::Undecodable { .. }), "{message}");
    println!("{message}");
}

#[test]
fn sizes_beyond_the_limits_are_refused_before_memory_is_taken() {
    // Headers of 1e5 x 1e5 and of 2e4 x 1, with almost no data.
    for (header, size) in [
        ("100000 100000", "100000 x 100000"),
        ("20000 1", "20000 x 1"),
    ] {
        let (error, message) = refused(format!("P6\n{header}\n255\nabc").as_bytes());
        assert!(matches!(error, ImageError::TooLarge { .. }), "{message}");
        assert!(message.contains(size), "{message}");
    }
    let mut bmp = std::fs::read(data("decode/rgb.bmp")).unwrap();
    bmp[18..22].copy_from_slice(&30000u32.to_le_bytes());
    let (error, message) = refused(&bmp);
    assert!(matches!(error, ImageError::TooLarge { .. }), "{message}");

    let small = RgbImage::filled(2, 2, [1, 2, 3]).unwrap();
    for (width, height) in [(0, 5), (5, 0), (MAX_SIDE + 1, 1), (usize::MAX, usize::MAX)] {
        let resized = small.resized(width, height);
        assert!(matches!(resized, Err(ImageError::BadSize { .. })));
        assert!(RgbImage::new(width, height, Vec::new()).is_err());
    }
    assert!(matches!(
        RgbImage::new(2, 2, vec![0; 11]),
        Err(ImageError::BadData { bytes: 11, .. })
    ));
}

#[test]
fn a_saved_image_reads_back_and_replaces_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.png");
    for image in [noise(33, 21), noise(7, 50)] {
        image.save_png(&path).unwrap();
        assert_eq!(image::open(&path).unwrap(), image);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn saving_where_it_cannot_stand_names_the_file_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let image = noise(3, 3);
    let absent = folder.path().join("absent/out.png");
    let message = image.save_png(&absent).unwrap_err().to_string();
    assert!(message.contains("absent/out.png: "), "{message}");
    let taken = folder.path().join("taken.png");
    std::fs::create_dir(&taken).unwrap();
    let message = image.save_png(&taken).unwrap_err().to_string();
    assert!(message.contains("not a regular file"), "{message}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn saving_through_a_link_replaces_the_file_and_keeps_the_link() {
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (
        folder.path().join("file.png"),
        folder.path().join("link.png"),
    );
    noise(3, 3).save_png(&file).unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    noise(4, 4).save_png(&link).unwrap();
    assert!(link.is_symlink() && !file.is_symlink());
    assert_eq!(image::open(&file).unwrap(), noise(4, 4));
}
