//! The tracker of the runtime allocates nothing after its first frames, for as long as it runs. Here, and
//! not in the runtime, because that crate forbids the `unsafe` of a counting allocator.

#![allow(unsafe_code, reason = "a counting allocator")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use loftup_bundle::Size;
use loftup_runtime::{
    Rect,
    track::{Seed, TrackOptions, TrackedMask, Tracker},
};
use loftup_scenes::Scene;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: all calls are forwarded to the system allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller upholds the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread during `work`.
fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

const GRID: (usize, usize) = (24, 16);

#[test]
fn a_thousand_frames_allocate_nothing() {
    let camera = Size {
        width: 2 * GRID.0,
        height: 2 * GRID.1,
    };
    let scene = Scene::new(3);
    // The colors of the four pixels of a cell.
    let features = |i: usize| -> Vec<f32> {
        let frame = scene.frame(i as f64 / 30.0, camera.width, camera.height);
        let pixel = |i: usize| {
            frame.rgb[3 * i..][..3]
                .iter()
                .map(|v| f32::from(*v) / 255.0)
        };
        (0..GRID.0 * GRID.1)
            .flat_map(|cell| {
                let first = cell / GRID.0 * 2 * camera.width + cell % GRID.0 * 2;
                [
                    first,
                    first + 1,
                    first + camera.width,
                    first + camera.width + 1,
                ]
            })
            .flat_map(pixel)
            .collect()
    };
    let options = TrackOptions {
        threads: 1,
        radius: 3,
        ..TrackOptions::default()
    };
    let mut tracker = Tracker::new(GRID, 12, options).unwrap();
    let mut mask = TrackedMask::default();
    tracker.update(&features(0)).unwrap();
    let rect = |x, y| Rect {
        x,
        y,
        width: 12,
        height: 12,
    };
    let seeds = [(1, Seed::Box(rect(6, 10))), (3, Seed::Box(rect(24, 14)))];
    tracker.start(&seeds, camera).unwrap();
    for i in 1..=1000 {
        let features = features(i);
        let found = allocations(|| {
            tracker.update(&features).unwrap();
            tracker.mask(camera, &mut mask).unwrap();
        });
        // The buffers of the mask grow with the first one.
        assert!(found == 0 || i == 1, "{found} allocations in frame {i}");
    }
    assert_eq!(mask.objects.len(), 2);
    assert!(
        allocations(|| drop(vec![1u8; 5])) > 0,
        "allocations are counted"
    );
}
