use super::*;

/// A message that another encoder has written (`tools/make_ros_fixtures.py`), and its pixels.
macro_rules! image {
    ($name:literal) => {
        (
            $name,
            &include_bytes!(concat!("../../../tests/data/ros/images/", $name, ".cdr"))[..],
            &include_bytes!(concat!("../../../tests/data/ros/images/", $name, ".rgb"))[..],
        )
    };
}

const STAMP_NS: u64 = 1_700_000_000_000_000_007;

fn raw() -> [(&'static str, &'static [u8], &'static [u8]); 10] {
    [
        image!("rgb8"),
        image!("bgr8"),
        image!("rgba8"),
        image!("bgra8"),
        image!("mono8"),
        image!("uyvy"),
        image!("yuv422"),
        image!("yuyv"),
        image!("yuv422_yuy2"),
        image!("nv12"),
    ]
}

fn compressed() -> [(&'static str, &'static [u8], &'static [u8]); 2] {
    [image!("jpeg"), image!("png")]
}

fn assert_near(found: &[u8], expected: &[u8], tolerance: u8, name: &str) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let apart = found.iter().zip(expected).map(|(a, b)| a.abs_diff(*b));
    let apart = apart.max();
    assert!(apart <= Some(tolerance), "{name}: {apart:?} levels apart");
}

#[test]
fn every_encoding_of_another_publisher_is_read() {
    assert_eq!(
        raw().map(|(name, ..)| name),
        ENCODINGS.map(|(name, _)| name)
    );
    for (name, message, expected) in raw() {
        let image = RawImage::parse(message).unwrap();
        assert_eq!(
            (image.header.stamp_ns, image.header.frame_id),
            (STAMP_NS, "front_optical")
        );
        assert_eq!((image.frame.width, image.frame.height), (7, 5));
        let mut rgb = Vec::new();
        image.frame.append_rgb(&mut rgb).unwrap();
        // Fixed-point coefficients may round to the next level.
        let yuv = name.contains("yuv") || name.contains("yv") || name == "nv12";
        assert_near(&rgb, expected, u8::from(yuv), name);
    }
}

#[test]
fn jpeg_and_png_of_another_publisher_are_read() {
    for (name, message, expected) in compressed() {
        let image = CompressedImage::parse(message).unwrap();
        assert_eq!(
            (image.header.stamp_ns, image.header.frame_id),
            (STAMP_NS, "front_optical")
        );
        let image = image.decode(Orientation::Upright).unwrap();
        assert_eq!((image.width(), image.height()), (56, 40), "{name}");
        // Decoders of JPEG may differ by two levels.
        let tolerance = if name == "jpeg" { 2 } else { 0 };
        assert_near(image.data(), expected, tolerance, name);
    }
}

/// `rgb8`, with a part replaced.
fn changed(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut message = raw()[0].1.to_vec();
    message[at..at + bytes.len()].copy_from_slice(bytes);
    message
}

/// Places of fields in the message of `rgb8`: after 4 bytes of encapsulation, 8 of the stamp, and 4 + 14 of the
/// frame of reference.
const HEIGHT: usize = 32;
const ENCODING: usize = HEIGHT + 8;
const BIG_ENDIAN: usize = ENCODING + 4 + 5;
const STEP: usize = BIG_ENDIAN + 3;

#[test]
fn messages_that_cannot_be_used_are_errors_that_say_why() {
    let long = u32::MAX.to_le_bytes();
    for (message, text) in [
        (changed(0, &[0, 0]), "little-endian CDR"),
        (changed(0, &[0, 7]), "little-endian CDR"),
        // Seconds before 1970, and too many nanoseconds.
        (changed(4, &(-1i32).to_le_bytes()), "-1 s"),
        (changed(8, &1_000_000_000u32.to_le_bytes()), "1000000000 ns"),
        (changed(12, &long), "header.frame_id"),
        // No zero at its end; no UTF-8; a zero in the middle.
        (
            changed(12 + 4 + 13, &[7]),
            "header.frame_id is not a string",
        ),
        (changed(12 + 4, &[0xFF]), "header.frame_id is not a string"),
        (changed(12 + 4, &[0]), "header.frame_id is not a string"),
        (changed(HEIGHT, &long), "RGB8"),
        (changed(HEIGHT, &[0; 4]), "RGB8"),
        (changed(HEIGHT + 4, &long), "RGB8"),
        (changed(HEIGHT + 4, &[0; 4]), "RGB8"),
        (changed(ENCODING, &long), "encoding"),
        (
            changed(ENCODING + 4, b"x"),
            "\"xgb8\" is not supported: publish one of rgb8, bgr8",
        ),
        (changed(BIG_ENDIAN, &[1]), "is_bigendian is 1"),
        (changed(STEP, &20u32.to_le_bytes()), "rows of 20"),
        (changed(STEP, &25u32.to_le_bytes()), "rows of 25"),
        (changed(STEP, &long), "RGB8"),
        (
            changed(STEP + 4, &long),
            "data: it needs 4294967295 more bytes",
        ),
        (changed(STEP + 4, &[0; 4]), "bytes after the last field"),
    ] {
        let e = RawImage::parse(&message).unwrap_err().to_string();
        assert!(e.contains(text) && !e.contains('\n'), "{e}, not {text}");
    }
    let mut message = raw()[0].1.to_vec();
    // Padding to a multiple of four is accepted.
    message.extend([0; 3]);
    assert!(RawImage::parse(&message).is_ok());
    message.push(0);
    assert!(RawImage::parse(&message).is_err());
}

#[test]
fn a_message_that_ends_early_is_an_error_at_every_length() {
    for (name, message, _) in raw() {
        for length in 0..message.len() {
            assert!(
                RawImage::parse(&message[..length]).is_err(),
                "{name}: {length}"
            );
        }
    }
    for (name, message, _) in compressed() {
        for length in 0..message.len() {
            let found = CompressedImage::parse(&message[..length]);
            assert!(found.is_err(), "{name}: {length}");
        }
    }
}

#[test]
fn any_changed_bit_gives_an_image_or_an_error() {
    for (_, message, _) in raw() {
        let mut message = message.to_vec();
        for bit in 0..8 * message.len() {
            message[bit / 8] ^= 1 << (bit % 8);
            if let Ok(image) = RawImage::parse(&message) {
                let mut rgb = Vec::new();
                image.frame.append_rgb(&mut rgb).unwrap();
                assert_eq!(rgb.len(), 3 * image.frame.width * image.frame.height);
            }
            message[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn compressed_data_are_jpeg_or_png_and_complete() {
    let message = compressed()[1].1;
    let start = message
        .windows(4)
        .position(|bytes| bytes == b"\x89PNG")
        .unwrap();
    let mut other = message.to_vec();
    other[start..start + 2].copy_from_slice(b"BM");
    let e = CompressedImage::parse(&other).unwrap_err().to_string();
    assert_eq!(e, "format \"png\": the data are neither JPEG nor PNG");
    for (name, message, _) in compressed() {
        let image = CompressedImage::parse(message).unwrap();
        let cut = CompressedImage {
            data: &image.data[..image.data.len() / 2],
            ..image
        };
        let e = cut.decode(Orientation::Upright).unwrap_err().to_string();
        assert!(e.starts_with("data: "), "{name}: {e}");
    }
}

#[test]
fn a_long_frame_of_reference_is_an_error() {
    let mut message = vec![0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend(257u32.to_le_bytes());
    message.extend([b'a'; 256]);
    message.push(0);
    let e = RawImage::parse(&message).unwrap_err();
    assert!(matches!(e, MessageError::FrameId(256)), "{e}");
}
