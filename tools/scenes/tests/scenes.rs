//! Tests of frames and optical flow.

use std::collections::BTreeMap;

use loftup_scenes::{CLASSES, Frame, PALETTE, Scene};
use sha2::{Digest, Sha256};

fn digest(frame: &Frame) -> String {
    let mut hash = Sha256::new();
    hash.update(&frame.rgb);
    hash.update(&frame.classes);
    hash.update(
        frame
            .instances
            .iter()
            .flat_map(|i| i.to_le_bytes())
            .collect::<Vec<_>>(),
    );
    hash.finalize()[..8]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// Frozen, because changing scenes changes every dataset generated from them.
#[test]
fn frames_are_the_same_on_every_machine() {
    let frames = [
        (1, 0.0, 224, 224, "8d0eb0b2b2e4d854"),
        (2, 12.5, 97, 61, "235319489b2f426e"),
        (3, -3e6, 64, 200, "f4ba78e13fa3107a"),
    ];
    for (seed, time, width, height, golden) in frames {
        let frame = Scene::new(seed).with_noise(2.0).frame(time, width, height);
        assert_eq!(
            digest(&frame),
            golden,
            "seed {seed} at {time}, {width}x{height}"
        );
    }
}

#[test]
fn seed_time_and_noise_matter_and_nothing_else_does() {
    let scene = Scene::new(5);
    let frame = scene.frame(1.0, 64, 48);
    assert_eq!(frame, Scene::new(5).frame(1.0, 64, 48));
    assert_ne!(frame.rgb, Scene::new(6).frame(1.0, 64, 48).rgb);
    assert_ne!(frame.rgb, scene.frame(1.5, 64, 48).rgb);
    let noisy = scene.clone().with_noise(3.0).frame(1.0, 64, 48);
    assert_eq!(
        (&noisy.classes, &noisy.instances),
        (&frame.classes, &frame.instances)
    );
    let inside = |(a, b): &(&u8, &u8)| (16..240).contains(*a) && **a.max(b) > 0;
    let differences: Vec<f64> = frame
        .rgb
        .iter()
        .zip(&noisy.rgb)
        .filter(inside)
        .map(|(a, b)| f64::from(*b) - f64::from(*a))
        .collect();
    let n = differences.len() as f64;
    let mean = differences.iter().sum::<f64>() / n;
    let sigma = (differences.iter().map(|d| d * d).sum::<f64>() / n - mean * mean).sqrt();
    println!("noise: mean {mean:.3}, standard deviation {sigma:.3} over {n} values");
    assert!(
        mean.abs() < 0.15 && (2.7..3.3).contains(&sigma),
        "{mean} {sigma}"
    );
}

#[test]
fn frames_have_the_requested_size_and_valid_labels() {
    assert_eq!(CLASSES.len(), PALETTE.len());
    for (width, height) in [(1, 1), (3, 200), (200, 3), (65, 33)] {
        let frame = Scene::new(9).frame(0.0, width, height);
        assert_eq!((frame.width, frame.height), (width, height));
        assert_eq!(frame.rgb.len(), 3 * width * height);
        assert_eq!(frame.instances.len(), width * height);
        assert!(
            frame
                .classes
                .iter()
                .all(|c| usize::from(*c) < CLASSES.len())
        );
    }
}

/// An instance has the same class in every frame of its scene.
#[test]
fn instances_keep_their_class() {
    for seed in 0..8 {
        let scene = Scene::new(seed);
        let mut class_of = BTreeMap::new();
        for i in 0..6 {
            let frame = scene.frame(f64::from(i) * 7.0, 96, 96);
            for (class, instance) in frame.classes.iter().zip(&frame.instances) {
                assert_eq!(
                    class_of.entry(*instance).or_insert(*class),
                    class,
                    "{instance}"
                );
            }
        }
    }
}

#[test]
fn every_class_is_seen_often_enough_to_be_learnt() {
    let mut pixels = [0u64; CLASSES.len()];
    let mut frames = [0u64; CLASSES.len()];
    for seed in 0..60 {
        let frame = Scene::new(seed).frame(0.0, 80, 80);
        let mut here = [0u64; CLASSES.len()];
        frame
            .classes
            .iter()
            .for_each(|c| here[usize::from(*c)] += 1);
        for (class, n) in here.into_iter().enumerate() {
            pixels[class] += n;
            frames[class] += u64::from(n > 0);
        }
    }
    let total: u64 = pixels.iter().sum();
    for (class, name) in CLASSES.iter().enumerate() {
        let share = pixels[class] as f64 / total as f64;
        println!(
            "{name:6} {:5.2} % of pixels, in {} of 60 frames",
            100.0 * share,
            frames[class]
        );
        assert!(share > 0.008 && frames[class] >= 20, "{name}");
    }
}

/// Bilinear sample at a position in pixels; `None` if a tap is outside or shows another instance.
fn tap(frame: &Frame, [x, y]: [f32; 2], instance: u16) -> Option<[f32; 3]> {
    let (x, y) = (x - 0.5, y - 0.5);
    if x < 0.0 || y < 0.0 {
        return None;
    }
    let (column, row) = (x as usize, y as usize);
    if column + 1 >= frame.width || row + 1 >= frame.height {
        return None;
    }
    let (fx, fy) = (x - column as f32, y - row as f32);
    let mut sum = [0.0; 3];
    for (dy, wy) in [(0, 1.0 - fy), (1, fy)] {
        for (dx, wx) in [(0, 1.0 - fx), (1, fx)] {
            let i = (row + dy) * frame.width + column + dx;
            if frame.instances[i] != instance {
                return None;
            }
            for (sum, value) in sum.iter_mut().zip(&frame.rgb[3 * i..]) {
                *sum += wx * wy * f32::from(*value);
            }
        }
    }
    Some(sum)
}

/// Mean difference in levels between frame `t0` and frame `t1` warped back, over pixels whose taps
/// are inside one instance; and the fraction of such pixels.
fn difference(scene: &Scene, t0: f64, t1: f64, size: usize, still: bool) -> (f64, f64) {
    let (a, b) = (scene.frame(t0, size, size), scene.frame(t1, size, size));
    let flow = scene.flow(t0, t1, size, size);
    let (mut sum, mut count) = (0.0, 0u64);
    for i in (0..size * size).filter(|i| flow.visible[*i]) {
        let place = if still {
            [(i % size) as f32 + 0.5, (i / size) as f32 + 0.5]
        } else {
            flow.target(i)
        };
        if let Some(color) = tap(&b, place, a.instances[i]) {
            let at = &a.rgb[3 * i..3 * i + 3];
            sum += color
                .iter()
                .zip(at)
                .map(|(c, a)| f64::from((c - f32::from(*a)).abs()))
                .sum::<f64>()
                / 3.0;
            count += 1;
        }
    }
    (sum / count as f64, count as f64 / (size * size) as f64)
}

/// What remains is the blur of bilinear sampling at textures and shadow edges: 2.5 levels are
/// allowed on average. Without the flow the same pixels differ several times as much, and at a
/// higher resolution, with less to blur, less remains.
#[test]
fn the_second_frame_warped_back_is_the_first() {
    let (mut worst, mut least_gain, mut least_share) = (0f64, f64::INFINITY, 1f64);
    for seed in 0..10 {
        let scene = Scene::new(seed);
        for (t0, t1) in [(0.0, 0.2), (3.0, 2.6)] {
            let (warped, share) = difference(&scene, t0, t1, 224, false);
            let (still, _) = difference(&scene, t0, t1, 224, true);
            worst = worst.max(warped);
            least_gain = least_gain.min(still / warped);
            least_share = least_share.min(share);
        }
    }
    println!(
        "worst mean difference {worst:.2} levels, at least {least_gain:.1} times less than \
         without warping, on at least {:.0} % of pixels",
        100.0 * least_share
    );
    assert!(worst < 2.5 && least_gain > 4.5 && least_share > 0.6);
    let coarse = difference(&Scene::new(1), 0.0, 0.2, 112, false).0;
    let fine = difference(&Scene::new(1), 0.0, 0.2, 448, false).0;
    println!("at 112x112 {coarse:.2}, at 448x448 {fine:.2} levels");
    assert!(fine < 0.6 * coarse);
}

/// A pixel that is visible according to the flow shows the same instance in both frames. Only next
/// to edges may the center of the target pixel show another one, and anything thinner than a pixel
/// may be missed by all surrounding centers.
#[test]
fn visible_pixels_show_the_same_thing_in_both_frames() {
    for seed in 0..10 {
        let scene = Scene::new(seed);
        let size = 160;
        let (a, b) = (scene.frame(0.0, size, size), scene.frame(0.5, size, size));
        let flow = scene.flow(0.0, 0.5, size, size);
        let (mut same, mut near, mut all) = (0, 0, 0);
        for i in (0..size * size).filter(|i| flow.visible[*i]) {
            let [x, y] = flow.target(i);
            let (x, y) = (x as usize, y as usize);
            let seen = |x: usize, y: usize| {
                x < size && y < size && b.instances[y * size + x] == a.instances[i]
            };
            let around = |k: usize| seen((x + k % 3).wrapping_sub(1), (y + k / 3).wrapping_sub(1));
            same += u32::from(seen(x, y));
            near += u32::from((0..9).any(around));
            all += 1;
        }
        let share = |n: u32| f64::from(n) / f64::from(all);
        let (same, near) = (share(same), share(near));
        println!(
            "seed {seed}: {:.2} % on the same instance, {:.3} % next to it",
            100.0 * same,
            100.0 * near
        );
        assert!(same > 0.975 && near > 0.998);
    }
}

/// A pixel that is occluded in the second frame is not visible, except through gaps between two
/// pixel centers.
#[test]
fn hidden_things_are_not_visible() {
    let (mut hidden, mut wrong) = (0, 0);
    for seed in 0..10 {
        let scene = Scene::new(seed);
        let size = 128;
        let (a, b) = (scene.frame(0.0, size, size), scene.frame(1.5, size, size));
        let flow = scene.flow(0.0, 1.5, size, size);
        for i in 0..size * size {
            let [x, y] = flow.target(i);
            let within = 1.0..(size - 1) as f32;
            if !within.contains(&x) || !within.contains(&y) {
                continue;
            }
            let (x, y) = (x as usize - 1, y as usize - 1);
            let around = |k: usize| b.instances[(y + k / 3) * size + x + k % 3];
            if (0..9).all(|k| around(k) == around(4) && around(k) != a.instances[i]) {
                hidden += 1;
                wrong += u32::from(flow.visible[i]);
            }
        }
    }
    println!("{hidden} occluded pixels, {wrong} of them marked visible");
    assert!(hidden > 1000 && wrong * 200 < hidden);
}

/// Forward and backward flow cancel: the flow back from the nearest pixel of the target leads to
/// the start.
#[test]
fn the_flow_back_undoes_the_flow() {
    let scene = Scene::new(4);
    let size = 128;
    let (there, back) = (
        scene.flow(0.0, 0.3, size, size),
        scene.flow(0.3, 0.0, size, size),
    );
    let frame = scene.frame(0.0, size, size);
    let second = scene.frame(0.3, size, size);
    let mut distances = Vec::new();
    for i in (0..size * size).filter(|i| there.visible[*i]) {
        let [x, y] = there.target(i);
        let j = y as usize * size + x as usize;
        if second.instances[j] == frame.instances[i] && back.visible[j] {
            // The center of pixel `j` is not exactly the target, so its shift is applied at the
            // target.
            let [dx, dy] = back.shift[j];
            let (ex, ey) = (dx + there.shift[i][0], dy + there.shift[i][1]);
            distances.push((ex * ex + ey * ey).sqrt());
        }
    }
    distances.sort_by(f32::total_cmp);
    let (median, high) = (
        distances[distances.len() / 2],
        distances[distances.len() * 99 / 100],
    );
    println!(
        "there and back: median {median:.4}, 99 % {high:.3} pixels, of {}",
        distances.len()
    );
    assert!(median < 0.05 && high < 0.6 && distances.len() > size * size / 2);
}

#[test]
fn the_camera_keeps_clear_of_everything() {
    for seed in 0..20 {
        let scene = Scene::new(seed);
        for i in 0..40 {
            let time = f64::from(i) * 3.1;
            let axes = scene.camera(time, 64, 64).axes();
            for (i, a) in axes.iter().enumerate() {
                for (j, b) in axes.iter().enumerate() {
                    let dot: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                    assert!(
                        (dot - f32::from(u8::from(i == j))).abs() < 1e-5,
                        "{i} {j} {dot}"
                    );
                }
            }
            assert!(axes[1][1] < -0.9, "the image is upright");
            // No object fills the frame, as one around the camera would.
            let frame = scene.frame(time, 24, 24);
            let first = frame.instances[0];
            assert!(
                frame.instances.iter().any(|i| *i != first),
                "seed {seed} at {time}"
            );
        }
    }
}

#[test]
fn depth_and_cameras_give_the_flow() {
    let (width, height) = (53, 31);
    for seed in [1, 2, 3] {
        let scene = Scene::new(seed);
        let (t0, t1) = (0.3, 0.5);
        let depth = scene.depth(t0, width, height);
        let flow = scene.flow(t0, t1, width, height);
        let [from, to] = [t0, t1].map(|t| scene.camera(t, width, height));
        let middle = (0.5 * width as f32, 0.5 * height as f32);
        let (mut compared, mut sky) = (0, 0);
        let frame = scene.frame(t0, width, height);
        for (i, depth) in depth.iter().enumerate() {
            assert_eq!(depth.is_infinite(), frame.classes[i] == 0);
            if depth.is_infinite() {
                sky += 1;
                continue;
            }
            assert!(*depth > 0.0);
            let (u, v) = (
                ((i % width) as f32 + 0.5 - middle.0) / from.focal(),
                ((i / width) as f32 + 0.5 - middle.1) / from.focal(),
            );
            let [right, down, forward] = from.axes();
            let point: [f32; 3] = std::array::from_fn(|c| {
                let ray = forward[c] + right[c] * u + down[c] * v;
                from.position()[c] + ray * depth - to.position()[c]
            });
            let along = to
                .axes()
                .map(|axis| (0..3).map(|c| axis[c] * point[c]).sum::<f32>());
            if along[2] < 0.1 {
                continue;
            }
            let scale = to.focal() / along[2];
            let found = [along[0] * scale + middle.0, along[1] * scale + middle.1];
            let expected = flow.target(i);
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-2, "seed {seed}, pixel {i}");
            }
            compared += 1;
        }
        assert!(compared > width * height / 3 && sky > 0);
    }
}
