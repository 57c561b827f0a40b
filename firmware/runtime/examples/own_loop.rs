//! A perception loop around `Perceptor::perceive`: a moving camera, and the ground ahead of it.
//!
//!     loftup convert --builtin=scenes --out default.loftup
//!     cargo run -p loftup-runtime --example own_loop default.loftup

use std::{path::PathBuf, time::Instant};

use loftup_bundle::Size;
use loftup_runtime::{ExecutionOptions, Frame, Perceptor, Point, Query};
use loftup_scenes::Scene;

const OUTPUT: Size = Size {
    width: 112,
    height: 112,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bundle = std::env::args_os().nth(1).map(PathBuf::from);
    let bundle =
        bundle.ok_or("usage: own_loop BUNDLE; make one with `loftup convert --builtin`")?;
    let perceptor = Perceptor::open(&bundle, ExecutionOptions::default())?;
    // So that the first frame does not wait for it.
    perceptor.compile(OUTPUT, (1, 1))?;

    // A spot on the ground ahead: how similar is it to the last frame?
    let spot = [Point { x: 56, y: 100 }];
    let mut before: Option<Vec<f32>> = None;
    let scene = Scene::new(3);
    for i in 0..10 {
        let seconds = f64::from(i) / 10.0;
        let seen = scene.frame(seconds, 320, 240);
        let frame = Frame::packed(&seen.rgb, seen.width, seen.height);

        let start = Instant::now();
        let output = perceptor.perceive(&frame, &Query::points(OUTPUT, &spot))?;
        let took = start.elapsed();

        let similarity = before.as_ref().map(|b| cosine(b, &output.values));
        match similarity {
            Some(cosine) => {
                println!("{seconds:.1} s: {took:.1?}, cosine to the last frame: {cosine:.3}")
            }
            None => println!("{seconds:.1} s: {took:.1?}"),
        }
        before = Some(output.values);
    }
    Ok(())
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f32::MIN_POSITIVE)
}
