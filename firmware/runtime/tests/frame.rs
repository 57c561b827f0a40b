//! Images in a camera's buffer become RGB.

use loftup_runtime::{Frame, PixelFormat};

/// ITU-R BT.601 in video range, in 64 bit.
fn bt601(y: u8, u: u8, v: u8) -> [u8; 3] {
    let (r, b) = (0.299, 0.114);
    let g = 1.0 - r - b;
    let y = (f64::from(y) - 16.0) / 219.0;
    let (u, v) = (
        (f64::from(u) - 128.0) / 224.0,
        (f64::from(v) - 128.0) / 224.0,
    );
    let (red, blue) = (y + 2.0 * (1.0 - r) * v, y + 2.0 * (1.0 - b) * u);
    let green = (y - r * red - b * blue) / g;
    [red, green, blue].map(|x| (255.0 * x).round().clamp(0.0, 255.0) as u8)
}

/// The pixel at `x`, `y`, from the definition of the format.
fn pixel(frame: &Frame<'_>, x: usize, y: usize) -> [u8; 3] {
    let at = |row: usize, byte: usize| frame.data[row * frame.stride + byte];
    match frame.format {
        PixelFormat::Rgb8 => [0, 1, 2].map(|c| at(y, 3 * x + c)),
        PixelFormat::Bgr8 => [2, 1, 0].map(|c| at(y, 3 * x + c)),
        PixelFormat::Rgba8 => [0, 1, 2].map(|c| at(y, 4 * x + c)),
        PixelFormat::Bgra8 => [2, 1, 0].map(|c| at(y, 4 * x + c)),
        PixelFormat::Gray8 => [at(y, x); 3],
        PixelFormat::Nv12 => {
            let row = frame.height + y / 2;
            bt601(at(y, x), at(row, x / 2 * 2), at(row, x / 2 * 2 + 1))
        }
        PixelFormat::Yuyv => {
            let pair = x / 2 * 4;
            bt601(at(y, 2 * x), at(y, pair + 1), at(y, pair + 3))
        }
        PixelFormat::Uyvy => {
            let pair = x / 2 * 4;
            bt601(at(y, 2 * x + 1), at(y, pair), at(y, pair + 2))
        }
    }
}

#[test]
fn colors_follow_bt_601() {
    // Y, Cb, Cr of 75 % and 100 % color bars, and their RGB values.
    for (yuv, expected) in [
        ([16, 128, 128], [0, 0, 0]),
        ([235, 128, 128], [255, 255, 255]),
        ([81, 90, 240], [254, 0, 0]),
        ([145, 54, 34], [0, 255, 1]),
        ([41, 240, 110], [0, 0, 255]),
        ([126, 128, 128], [128, 128, 128]),
    ] {
        let [y, u, v] = yuv;
        let frame = Frame {
            data: &[y, u, y, v],
            width: 1,
            height: 1,
            stride: 4,
            format: PixelFormat::Yuyv,
        };
        let found = frame.to_image().unwrap();
        for (a, b) in found.data().iter().zip(expected) {
            assert!(a.abs_diff(b) <= 1, "{yuv:?}: {found:?}, not {expected:?}");
        }
    }
}

#[test]
fn every_format_gives_the_pixels_of_its_definition() {
    for format in PixelFormat::ALL {
        // Coefficients of 16 bits may round to the next level.
        let tolerance = match format {
            PixelFormat::Nv12 | PixelFormat::Yuyv | PixelFormat::Uyvy => 1,
            _ => 0,
        };
        for (width, height) in [(1, 1), (2, 1), (1, 2), (5, 3), (6, 4), (17, 9)] {
            for gap in [0, 3] {
                let stride = format.row_bytes(width) + gap;
                let least = format.least_bytes(width, height, stride).unwrap();
                let data: Vec<u8> = (0..least).map(|i| (i * 89 % 251) as u8).collect();
                let frame = Frame {
                    data: &data,
                    width,
                    height,
                    stride,
                    format,
                };
                let image = frame.to_image().unwrap();
                for y in 0..height {
                    for x in 0..width {
                        let found = &image.row(y)[3 * x..][..3];
                        let expected = pixel(&frame, x, y);
                        for (a, b) in found.iter().zip(expected) {
                            let apart = a.abs_diff(b);
                            assert!(apart <= tolerance, "{format} {width}x{height}: {x}, {y}");
                        }
                    }
                }
                // A byte less, and a stride that is too short.
                for (data, stride) in [
                    (&data[..least - 1], stride),
                    (&data[..], format.row_bytes(width) - 1),
                ] {
                    let wrong = Frame {
                        data,
                        stride,
                        ..frame
                    };
                    let mut out = vec![7];
                    let text = wrong.append_rgb(&mut out).unwrap_err().to_string();
                    assert!(text.contains(format.name()), "{text}");
                    assert_eq!(out, [7]);
                }
            }
        }
    }
}

#[test]
fn sides_that_cannot_be_counted_are_an_error() {
    for format in PixelFormat::ALL {
        for (width, height) in [(0, 1), (1, 0), (usize::MAX, 2), (2, usize::MAX), (0, 0)] {
            for stride in [0, 64, usize::MAX] {
                let frame = Frame {
                    data: &[0; 64],
                    width,
                    height,
                    stride,
                    format,
                };
                assert!(frame.to_image().is_err(), "{frame:?}");
            }
        }
    }
}
