//! The tracker against its definition.

mod objects;
mod reference;

use loftup_bundle::Size;
use loftup_spec::SplitMix64;

use super::*;
use reference::Reference;

fn size(width: usize, height: usize) -> Size {
    Size { width, height }
}

/// Values from -1 to 1.
fn noise(random: &mut SplitMix64, n: usize) -> Vec<f32> {
    (0..n)
        .map(|_| (random.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
        .collect()
}

#[test]
fn soft_labels_and_masks_match_the_definition_on_awkward_shapes() {
    let base = TrackOptions {
        threads: 1,
        ..TrackOptions::default()
    };
    // Grid, channels, frames, options.
    let cases = [
        ((1, 1), 3, 4, base),
        ((7, 1), 5, 4, TrackOptions { threads: 3, ..base }),
        ((1, 9), 2, 4, TrackOptions { radius: 2, ..base }),
        ((9, 6), 16, 12, base),
        (
            (17, 13),
            7,
            5,
            TrackOptions {
                radius: 3,
                top_k: 1,
                threads: 2,
                ..base
            },
        ),
        (
            (13, 10),
            33,
            5,
            TrackOptions {
                radius: 0,
                last_frames: 2,
                ..base
            },
        ),
        (
            (31, 21),
            8,
            4,
            TrackOptions {
                last_frames: 1,
                temperature: 0.5,
                ..base
            },
        ),
        (
            (30, 5),
            8,
            4,
            TrackOptions {
                last_frames: 0,
                top_k: 9,
                ..base
            },
        ),
        // More columns than the widest product has at a time.
        (
            (75, 4),
            4,
            3,
            TrackOptions {
                radius: 20,
                output_scale: 3,
                ..base
            },
        ),
    ];
    let mut worst = 0f64;
    for (i, ((width, height), dim, frames, options)) in cases.into_iter().enumerate() {
        let options = TrackOptions {
            max_objects: 3,
            ..options
        };
        let mut random = SplitMix64::new(i as u64);
        let cells = width * height;
        let values: Vec<u8> = (0..cells).map(|_| [0, 0, 1, 3][random.below(4)]).collect();
        let first = noise(&mut random, cells * dim);
        let mut slow = Reference::new((width, height), dim, 4, &first, &values);
        let mut fast = Tracker::new((width, height), dim, options).unwrap();
        fast.update(&first).unwrap();
        fast.start_mask(&values, size(width, height)).unwrap();
        let mut mask = TrackedMask::default();
        for frame in 1..frames {
            let features = noise(&mut random, cells * dim);
            fast.update(&features).unwrap();
            let expected = slow.update(&features, &options);
            for (a, b) in fast.soft_labels().iter().zip(expected) {
                worst = worst.max((f64::from(*a) - b).abs());
            }
            // Cosines in 32 bit are off by some 1e-7, exp(cosine / temperature) by ten times that,
            // and errors add up over the frames.
            assert!(worst < 2e-5, "case {i}, frame {frame}: off by {worst:.1e}");
            let out = size(2 * width + 3, 5 * height);
            fast.mask(out, &mut mask).unwrap();
            let shape = (width, height, 4);
            let expected = reference::mask(
                fast.soft_labels(),
                shape,
                options.output_scale,
                (out.width, out.height),
            );
            assert_eq!(mask.labels, expected, "case {i}, frame {frame}");
        }
    }
    println!("worst error {worst:.1e}");
}

#[test]
fn cells_of_equal_features_are_all_taken() {
    // Enlarged by nearest neighbor: nine cells each have the same features.
    let (width, height, dim) = (12, 9, 4);
    let options = TrackOptions {
        radius: 4,
        max_objects: 3,
        threads: 2,
        ..TrackOptions::default()
    };
    let mut random = SplitMix64::new(8);
    let small = noise(&mut random, width / 3 * (height / 3) * dim);
    let cell = |i: usize| (i / width / 3 * (width / 3) + i % width / 3) * dim;
    let features: Vec<f32> = (0..width * height)
        .flat_map(|i| small[cell(i)..][..dim].to_vec())
        .collect();
    let values: Vec<u8> = (0..width * height).map(|i| u8::from(i % 5 == 0)).collect();
    let mut slow = Reference::new((width, height), dim, 4, &features, &values);
    let mut fast = Tracker::new((width, height), dim, options).unwrap();
    fast.update(&features).unwrap();
    fast.start_mask(&values, size(width, height)).unwrap();
    for _ in 0..5 {
        fast.update(&features).unwrap();
        let expected = slow.update(&features, &options);
        for (a, b) in fast.soft_labels().iter().zip(expected) {
            // As above.
            assert!((f64::from(*a) - b).abs() < 2e-5);
        }
    }
}
