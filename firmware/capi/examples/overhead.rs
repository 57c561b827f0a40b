//! What a call through the C interface takes longer than the same call in Rust, at 224x224.
//!
//!     loftup convert --builtin=scenes --out default.loftup
//!     cargo run -p loftup-capi --example overhead default.loftup

use std::{ffi::CString, hint::black_box, os::unix::ffi::OsStrExt, ptr, time::Instant};

use loftup::*;
use loftup_bundle::Size;
use loftup_runtime::{
    ColorRange, ExecutionOptions, Frame, Perceptor, Point, Query, image::RgbImage,
};

const SIDE: usize = 224;
const RUNS: usize = 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: overhead BUNDLE")?;
    let options = ExecutionOptions {
        threads: 1,
        tile: None,
    };
    let perceptor = Perceptor::open_on_cpu(path.as_ref(), options)?;
    let pixels: Vec<u8> = (0..SIDE * SIDE * 3).map(|i| (i * 31 % 251) as u8).collect();
    let size = Size {
        width: SIDE,
        height: SIDE,
    };
    let image = loftup_image {
        size: size_of::<loftup_image>(),
        data: pixels.as_ptr(),
        length: pixels.len(),
        width: SIDE,
        height: SIDE,
        stride: 0,
        format: loftup_pixel_format::Rgb8 as i32,
        reserved: 0,
    };
    let path = CString::new(path.as_bytes())?;
    let mut model = ptr::null_mut();
    let options = loftup_options {
        size: size_of::<loftup_options>(),
        engine: loftup_engine::Cpu as i32,
        precision: 0,
        cache_directory: ptr::null(),
        threads: 1,
        tile: 0,
        cpu_precision: 0,
        reserved: 0,
    };
    // SAFETY: pointers to what lives until the end of `main`.
    let status = unsafe { loftup_open(path.as_ptr(), &raw const options, &raw mut model) };
    assert_eq!(status, loftup_status::Ok);

    let mut out = vec![0f32; SIDE * SIDE * 64];
    let (mut in_rust, mut in_c) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let start = Instant::now();
        let frame = Frame::packed(&pixels, SIDE, SIDE);
        let expected = perceptor.perceive(&frame, &Query::frame(size))?.values;
        in_rust.push(start.elapsed().as_secs_f64() * 1e6);

        let start = Instant::now();
        let mut frame = ptr::null_mut();
        // SAFETY: as above; the frame is freed once.
        unsafe {
            loftup_encode(
                model,
                &raw const image,
                SIDE,
                SIDE,
                ptr::null(),
                &raw mut frame,
            );
            loftup_frame_features(frame, ptr::null(), ptr::null(), out.as_mut_ptr(), out.len());
            loftup_frame_free(frame);
        }
        in_c.push(start.elapsed().as_secs_f64() * 1e6);
        assert!(expected == out, "other values");
    }
    // What is not the model: a frame once more, and its cheapest call.
    let mut frame = ptr::null_mut();
    // SAFETY: as above.
    unsafe {
        loftup_encode(
            model,
            &raw const image,
            SIDE,
            SIDE,
            ptr::null(),
            &raw mut frame,
        )
    };
    let mut info = loftup_frame_info {
        size: size_of::<loftup_frame_info>(),
        width: 0,
        height: 0,
        dim: 0,
    };
    // One point: so little of the model that the border shows.
    let rgb = RgbImage::new(SIDE, SIDE, pixels.clone())?;
    let encoded = perceptor.encode(&rgb, size, ColorRange::PerImage)?;
    let (in_rust_point, in_c_point) = (&mut Vec::new(), &mut Vec::new());
    for _ in 0..50 * RUNS {
        let start = Instant::now();
        black_box(encoded.points(&[Point { x: 50, y: 60 }])?);
        in_rust_point.push(start.elapsed().as_secs_f64() * 1e6);
        let start = Instant::now();
        let point = loftup_point { x: 50, y: 60 };
        // SAFETY: as above.
        black_box(unsafe {
            loftup_frame_points(
                frame,
                ptr::null(),
                &raw const point,
                1,
                out.as_mut_ptr(),
                64,
            )
        });
        in_c_point.push(start.elapsed().as_secs_f64() * 1e6);
    }
    let start = Instant::now();
    let calls = 1_000_000;
    for _ in 0..calls {
        // SAFETY: as above.
        black_box(unsafe { loftup_frame_get_info(frame, &raw mut info) });
    }
    let call = start.elapsed().as_secs_f64() * 1e9 / f64::from(calls);
    report("the whole frame", &mut in_rust, &mut in_c);
    report("one point of an encoded frame", in_rust_point, in_c_point);
    println!("a call that does nothing: {call:.0} ns");
    // SAFETY: made above, and not used any more.
    unsafe {
        loftup_frame_free(frame);
        loftup_model_free(model);
    }
    Ok(())
}

/// Prints medians of pairs, in microseconds.
fn report(what: &str, in_rust: &mut [f64], in_c: &mut [f64]) {
    let mut apart: Vec<f64> = in_c.iter().zip(&*in_rust).map(|(c, r)| c - r).collect();
    let pairs = apart.len();
    let [rust, c, apart] = [in_rust, in_c, &mut apart].map(|values| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    });
    println!("{what}, {pairs} pairs: Rust {rust:.1} us, C {c:.1} us, C - Rust {apart:.1} us");
}
