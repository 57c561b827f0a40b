//! What a caller relies on: objects, seeds and errors.

use loftup_spec::SplitMix64;

use super::{super::*, noise, size};
use crate::{Point, Rect};

/// A 24 x 16 grid of a noisy background with two squares of 5 x 5 cells, in rows 2 and 9, that move
/// `step` columns to the right from frame to frame.
struct Squares {
    background: Vec<f32>,
    textures: [Vec<f32>; 2],
}

const GRID: (usize, usize) = (24, 16);
const DIM: usize = 6;

impl Squares {
    fn new() -> Self {
        let mut random = SplitMix64::new(5);
        let mut around = |base: [f32; DIM], n: usize| -> Vec<f32> {
            let noise = noise(&mut random, n * DIM);
            noise
                .iter()
                .enumerate()
                .map(|(i, v)| base[i % DIM] + 0.1 * v)
                .collect()
        };
        Self {
            background: around([1.0, 0.0, 0.0, 1.0, 0.0, 0.0], GRID.0 * GRID.1),
            textures: [
                around([0.0, 1.0, 0.0, 0.0, 1.0, 0.0], 25),
                around([0.0, 0.0, 1.0, 0.0, 0.0, 1.0], 25),
            ],
        }
    }

    fn rect(object: usize, at: usize) -> Rect {
        Rect {
            x: 1 + at,
            y: 2 + 7 * object,
            width: 5,
            height: 5,
        }
    }

    fn frame(&self, at: usize) -> Vec<f32> {
        let mut features = self.background.clone();
        for (i, texture) in self.textures.iter().enumerate() {
            let rect = Self::rect(i, at);
            for (cell, values) in texture.chunks_exact(DIM).enumerate() {
                let at = (rect.y + cell / 5) * GRID.0 + rect.x + cell % 5;
                features[at * DIM..][..DIM].copy_from_slice(values);
            }
        }
        features
    }
}

fn tracker() -> Tracker {
    let options = TrackOptions {
        threads: 1,
        radius: 4,
        output_scale: 1,
        ..TrackOptions::default()
    };
    Tracker::new(GRID, DIM, options).unwrap()
}

fn bounds(mask: &TrackedMask, label: u8) -> Option<Rect> {
    mask.objects
        .iter()
        .find(|o| o.label == label)
        .unwrap()
        .bounds
}

#[test]
fn objects_are_followed_and_keep_their_labels_while_others_come_and_go() {
    let (video, mut tracker, mut mask) = (Squares::new(), tracker(), TrackedMask::default());
    let grid = size(GRID.0, GRID.1);
    tracker.update(&video.frame(0)).unwrap();
    tracker
        .start(&[(4, Seed::Box(Squares::rect(0, 0)))], grid)
        .unwrap();
    let memory = tracker.memory();
    for at in 1..6 {
        tracker.update(&video.frame(at)).unwrap();
        tracker.mask(grid, &mut mask).unwrap();
        assert_eq!(bounds(&mask, 4), Some(Squares::rect(0, at)));
        assert_eq!(mask.objects[0].area, 25);
        assert!(mask.objects[0].confidence > 0.9, "{:?}", mask.objects);
    }
    // Another one, by a click, in the same frame.
    assert_eq!(tracker.free_label(), Some(1));
    let Rect { x, y, .. } = Squares::rect(1, 5);
    tracker
        .start(&[(1, Seed::Click(Point { x: x + 2, y: y + 2 }))], grid)
        .unwrap();
    tracker.mask(grid, &mut mask).unwrap();
    assert_eq!(bounds(&mask, 1), Some(Squares::rect(1, 5)));
    for at in 6..9 {
        tracker.update(&video.frame(at)).unwrap();
        tracker.mask(grid, &mut mask).unwrap();
        assert_eq!(tracker.objects().collect::<Vec<_>>(), [1, 4]);
        assert_eq!(bounds(&mask, 4), Some(Squares::rect(0, at)));
        assert_eq!(bounds(&mask, 1), Some(Squares::rect(1, at)));
    }
    assert!(tracker.remove(4) && !tracker.remove(4) && !tracker.remove(0) && !tracker.remove(99));
    tracker.mask(grid, &mut mask).unwrap();
    assert_eq!(mask.objects.len(), 1);
    assert!(mask.labels.iter().all(|l| [0, 1].contains(l)));
    // Labels of a cell still add up to 1.
    for labels in tracker.soft_labels().chunks_exact(11) {
        assert!((labels.iter().sum::<f32>() - 1.0).abs() < 1e-5);
    }
    // The label is free for another object; the one that goes on is not disturbed.
    tracker.update(&video.frame(9)).unwrap();
    tracker
        .start(&[(4, Seed::Box(Squares::rect(0, 9)))], grid)
        .unwrap();
    tracker.update(&video.frame(10)).unwrap();
    tracker.mask(size(240, 160), &mut mask).unwrap();
    let times_ten = |r: Rect| Rect {
        x: 10 * r.x,
        y: 10 * r.y,
        width: 50,
        height: 50,
    };
    assert_eq!(bounds(&mask, 4), Some(times_ten(Squares::rect(0, 10))));
    assert_eq!(bounds(&mask, 1), Some(times_ten(Squares::rect(1, 10))));
    assert_eq!(tracker.memory(), memory);
    // Without objects everything is background.
    assert!(tracker.remove(1) && tracker.remove(4));
    tracker.update(&video.frame(11)).unwrap();
    tracker.mask(grid, &mut mask).unwrap();
    assert!(mask.objects.is_empty() && mask.labels.iter().all(|l| *l == 0));
}

#[test]
fn an_object_that_leaves_gets_no_pixels_above_the_least_label() {
    let video = Squares::new();
    let grid = size(GRID.0, GRID.1);
    for (min_label, visible) in [(0.0, true), (0.3, false)] {
        let options = TrackOptions {
            threads: 1,
            temperature: 0.5,
            min_label,
            ..TrackOptions::default()
        };
        let mut tracker = Tracker::new(GRID, DIM, options).unwrap();
        tracker.update(&video.frame(0)).unwrap();
        // A part of the background is marked, too: this label spreads a little.
        let rect = Rect {
            x: 1,
            y: 2,
            width: 6,
            height: 5,
        };
        tracker.start(&[(1, Seed::Box(rect))], grid).unwrap();
        tracker.update(&video.background).unwrap();
        let soft = tracker.soft_labels().chunks_exact(11).map(|l| l[1]);
        let largest = soft.fold(0f32, f32::max);
        assert!(
            largest > 0.0 && largest < 0.3 || min_label == 0.0,
            "{largest}"
        );
        let mut mask = TrackedMask::default();
        tracker.mask(grid, &mut mask).unwrap();
        let object = mask.objects[0];
        assert_eq!(
            (object.area > 0, object.bounds.is_some()),
            (visible, visible),
            "{object:?}"
        );
        assert_eq!(object.confidence > 0.0, visible);
    }
}

#[test]
fn seeds_cover_the_cells_whose_centers_are_inside() {
    let mut tracker = tracker();
    tracker.update(&Squares::new().frame(0)).unwrap();
    let started = |tracker: &Tracker, label: usize| -> Vec<usize> {
        let labels = tracker.soft_labels().chunks_exact(11).enumerate();
        labels
            .filter(|(_, l)| l[label] == 1.0)
            .map(|(i, _)| i)
            .collect()
    };
    // Ten pixels for each cell; its center is at 5.
    let image = size(240, 160);
    let rect = Rect {
        x: 6,
        y: 0,
        width: 20,
        height: 10,
    };
    tracker.start(&[(1, Seed::Box(rect))], image).unwrap();
    assert_eq!(started(&tracker, 1), [1, 2]);
    // Too small for any center: the cells that it touches.
    let rect = Rect {
        x: 18,
        y: 11,
        width: 3,
        height: 1,
    };
    tracker.start(&[(1, Seed::Box(rect))], image).unwrap();
    assert_eq!(started(&tracker, 1), [25, 26]);
    // The later of two objects counts where they overlap.
    let mut values = vec![0; image.area()];
    values[..5 * 240].fill(7);
    values[5 * 240..10 * 240].fill(7);
    values[0] = 255;
    let rect = Rect {
        x: 0,
        y: 0,
        width: 100,
        height: 160,
    };
    let seeds = [
        (
            7,
            Seed::Mask {
                values: &values,
                value: 7,
            },
        ),
        (2, Seed::Box(rect)),
    ];
    tracker.start(&seeds, image).unwrap();
    assert_eq!(started(&tracker, 7), (10..24).collect::<Vec<_>>());
    assert_eq!(started(&tracker, 2).len(), 10 * 16);
    // A click on a frame of one color marks its cell only.
    tracker.update(&vec![1.0; GRID.0 * GRID.1 * DIM]).unwrap();
    tracker
        .start(&[(3, Seed::Click(Point { x: 239, y: 159 }))], image)
        .unwrap();
    assert_eq!(started(&tracker, 3), [GRID.0 * GRID.1 - 1]);
}

#[test]
fn wrong_inputs_are_named_and_change_nothing() {
    let (video, mut tracker, mut mask) = (Squares::new(), tracker(), TrackedMask::default());
    let grid = size(GRID.0, GRID.1);
    let rect = Squares::rect(0, 0);
    assert!(matches!(
        tracker.mask(grid, &mut mask),
        Err(TrackError::NoFrame)
    ));
    assert!(matches!(
        tracker.start(&[(1, Seed::Box(rect))], grid),
        Err(TrackError::NoFrame)
    ));
    tracker.update(&video.frame(0)).unwrap();
    tracker.start(&[(1, Seed::Box(rect))], grid).unwrap();
    tracker.update(&video.frame(1)).unwrap();
    let before = tracker.soft_labels().to_vec();
    let values = vec![0; grid.area()];
    let far = Rect {
        x: 20,
        y: 0,
        width: 5,
        height: 1,
    };
    let wide = Rect {
        x: 1,
        y: 0,
        width: usize::MAX,
        height: 1,
    };
    let empty = Rect {
        x: 1,
        y: 1,
        width: 0,
        height: 1,
    };
    for (seed, label, named) in [
        (Seed::Box(rect), 0, "label 0"),
        (Seed::Box(rect), 11, "label 11: labels are 1 to 10"),
        (Seed::Box(far), 2, "object 2: the box 20,0,5,1"),
        (Seed::Box(wide), 2, "object 2: the box 1,0,"),
        (Seed::Box(empty), 3, "object 3"),
        (
            Seed::Click(Point { x: 24, y: 0 }),
            2,
            "24,0 is outside the image of 24x16",
        ),
        (
            Seed::Mask {
                values: &values,
                value: 1,
            },
            5,
            "object 5 has no pixel",
        ),
        (
            Seed::Mask {
                values: &values[1..],
                value: 1,
            },
            5,
            "a mask of 383 values",
        ),
    ] {
        // The good one before it does not start either.
        let seeds = [(9, Seed::Box(rect)), (label, seed)];
        let error = tracker.start(&seeds, grid).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
    let mut features = video.frame(2);
    assert!(matches!(
        tracker.update(&features[1..]),
        Err(TrackError::FeatureCount { .. })
    ));
    features[17] = f32::NAN;
    let error = tracker.update(&features).unwrap_err().to_string();
    assert!(error.contains("flat index 17"), "{error}");
    assert_eq!(tracker.soft_labels(), before);
    assert_eq!(tracker.objects().collect::<Vec<_>>(), [1]);
    assert!(tracker.mask(size(0, 5), &mut mask).is_err());
    // The next good frame goes on as if nothing had been.
    tracker.update(&video.frame(2)).unwrap();
    tracker.mask(grid, &mut mask).unwrap();
    assert_eq!(bounds(&mask, 1), Some(Squares::rect(0, 2)));

    let base = TrackOptions::default();
    for (options, named) in [
        (TrackOptions { top_k: 0, ..base }, "top_k is 0"),
        (
            TrackOptions {
                max_objects: 255,
                ..base
            },
            "max_objects is 255",
        ),
        (
            TrackOptions {
                temperature: 0.0,
                ..base
            },
            "temperature is 0",
        ),
        (
            TrackOptions {
                temperature: f32::NAN,
                ..base
            },
            "temperature is NaN",
        ),
        (
            TrackOptions {
                min_label: 2.0,
                ..base
            },
            "min_label is 2",
        ),
        (
            TrackOptions {
                output_scale: 0,
                ..base
            },
            "output_scale is 0",
        ),
    ] {
        let error = Tracker::new(GRID, DIM, options).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
    for (grid, dim) in [((0, 4), 3), ((4, 4), 0), ((16384, 16384), 16384)] {
        assert!(Tracker::new(grid, dim, base).is_err());
    }
}
