//! A loop of one's own around `Perceptor::perceive`: a moving camera, and what lies ahead.
//!
//!     cargo run -p loftup-runtime --example own_loop [BUNDLE]
//!
//! Without a bundle it makes one of the built-in weights.

use std::{ops::ControlFlow, path::PathBuf, time::Instant};

use loftup_bundle::Size;
use loftup_runtime::{Frame, Options, Perceptor, Point, Query};
use loftup_scenes::Scene;

const ANSWER: Size = Size {
    width: 112,
    height: 112,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let bundle = match std::env::args_os().nth(1) {
        Some(path) => PathBuf::from(path),
        None => {
            let path = folder.path().join("default.loftup");
            loftup_convert::builtin(&path, false, |_| ControlFlow::Continue(()))?;
            path
        }
    };
    let perceptor = Perceptor::open(&bundle, Options::default())?;
    // So that the first frame need not wait.
    perceptor.compile(ANSWER, (1, 1))?;

    // A spot on the ground ahead: how much it differs from where it was before.
    let spot = [Point { x: 56, y: 100 }];
    let mut before: Option<Vec<f32>> = None;
    let scene = Scene::new(3);
    for i in 0..10 {
        let seconds = f64::from(i) / 10.0;
        let seen = scene.frame(seconds, 320, 240);
        let frame = Frame::packed(&seen.rgb, seen.width, seen.height);

        let start = Instant::now();
        let answer = perceptor.perceive(&frame, &Query::points(ANSWER, &spot))?;
        let took = start.elapsed();

        let alike = before.as_ref().map(|b| cosine(b, &answer.values));
        match alike {
            Some(alike) => println!("{seconds:.1} s: {took:.1?}, like the last frame: {alike:.3}"),
            None => println!("{seconds:.1} s: {took:.1?}"),
        }
        before = Some(answer.values);
    }
    Ok(())
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f32::MIN_POSITIVE)
}
