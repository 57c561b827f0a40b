//! Rendering time of frames and optical flow.

use std::time::Instant;

use loftup_scenes::Scene;

fn main() {
    for size in [112, 224, 448] {
        let (mut frames, mut flows) = (Vec::new(), Vec::new());
        for seed in 0..40 {
            let scene = Scene::new(seed);
            let start = Instant::now();
            std::hint::black_box(scene.frame(1.0, size, size));
            frames.push(start.elapsed());
            let start = Instant::now();
            std::hint::black_box(scene.flow(1.0, 1.1, size, size));
            flows.push(start.elapsed());
        }
        frames.sort();
        flows.sort();
        println!(
            "{size}x{size}: a frame takes {:.1?} (slowest of 40 scenes {:.1?}), a flow {:.1?}",
            frames[20], frames[39], flows[20]
        );
    }
    let start = Instant::now();
    std::hint::black_box(Scene::new(1));
    println!("a new scene takes {:.1?}", start.elapsed());
}
