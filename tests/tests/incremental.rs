//! For a video only the changed tiles are computed, and the output is bit-identical to a complete
//! computation.

use std::sync::Arc;

use loftup_bundle::{HeadKind, Linear, Size};
use loftup_runtime::{
    ColorRange, EncodedFrame, Features, ImageTensor, IncrementalUpsampler, Rect, UpdateStats,
    backend::{
        Backend, CpuBackend, Fallback, FallbackOptions,
        fault::{Fault, Faults, Faulty},
    },
    heads::Head,
    sinks::VecSink,
};
use loftup_tests::{
    frames::{DIM, SIZE, perceptor},
    synthetic::{Noise, upsampler_bundle},
};

const FIXED: ColorRange = ColorRange::Fixed {
    min: [-1.0; 3],
    max: [1.0; 3],
};

fn features(seed: u64) -> Features {
    let values = Noise::new(seed).vec(DIM * 4 * 5);
    Features::from_map(&[1, DIM, 4, 5], &values, DIM).unwrap()
}

/// An image with 256 levels.
fn image(size: Size, seed: u64) -> ImageTensor {
    let mut data = Noise::new(seed).vec(3 * size.area());
    for x in &mut data {
        *x = ((*x + 1.0) * 127.5).round() / 127.5 - 1.0;
    }
    ImageTensor { size, data }
}

/// A video and the output that its sink has received so far.
struct Watched {
    video: IncrementalUpsampler,
    answer: VecSink,
}

impl Watched {
    fn new(rect: Rect, dim: usize) -> Self {
        Self {
            video: IncrementalUpsampler::new(),
            answer: VecSink::new(rect, dim).unwrap(),
        }
    }

    /// Processes the next frame, whose output must equal that of a complete computation.
    fn next(&mut self, view: &EncodedFrame<'_>) -> UpdateStats {
        let mut delivered = 0;
        let update = self.video.frame(view, &mut |tile| {
            delivered += 1;
            self.answer.push(tile)
        });
        let update = update.unwrap();
        assert_eq!(delivered, update.computed);
        let mut expected = VecSink::new(Rect::whole(view.size()), view.dim()).unwrap();
        view.frame(&mut |tile| expected.push(tile)).unwrap();
        same(self.answer.values(), expected.values());
        update
    }
}

fn same(a: &[f32], b: &[f32]) {
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert!(bits(a) == bits(b), "not bit-identical");
}

#[test]
fn only_tiles_that_can_have_changed_are_computed() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = upsampler_bundle(DIM, 3, directory.path());
    for threads in [1, 3] {
        // 43 x 29 pixels in tiles of 15 x 15: the last column starts at 28, the last row at 14.
        let perceptor = perceptor(&bundle, Arc::new(CpuBackend), threads, 16);
        let lr = features(1);
        let mut frame = image(SIZE, 2);
        let mut watched = Watched::new(Rect::whole(SIZE), DIM);
        let mut next = |lr: &Features, frame: &ImageTensor, range| {
            let update = watched.next(&perceptor.encode_features(lr, frame, range).unwrap());
            assert_eq!(update.tiles, 6);
            update.computed
        };
        assert_eq!(next(&lr, &frame, FIXED), 6, "the first frame");
        assert_eq!(next(&lr, &frame, FIXED), 0, "the same frame again");
        for (x, y, tiles) in [
            (7, 7, 1),
            // One pixel past the first tile: in its halo, and inside the second tile.
            (16, 7, 2),
            (17, 7, 1),
            // Both rows of tiles compute row 14, and both columns use column 15.
            (15, 14, 4),
            // The halo above the last row of tiles extends up to row 12.
            (7, 12, 2),
            (7, 11, 1),
            (42, 28, 1),
            (0, 0, 1),
        ] {
            for channel in 0..3 {
                let at = (channel * SIZE.height + y) * SIZE.width + x;
                frame.data[at] = if frame.data[at] > 0.0 { -0.5 } else { 0.5 };
                assert_eq!(next(&lr, &frame, FIXED), tiles, "pixel {x},{y}");
            }
        }
        assert_eq!(next(&lr, &image(SIZE, 9), FIXED), 6, "another image");
        assert_eq!(next(&features(2), &image(SIZE, 9), FIXED), 6, "features");
        let range = ColorRange::PerImage;
        assert_eq!(next(&lr, &frame, range), 6, "another range");
        frame.data[0] = 3.0;
        // It scales the red channel of every pixel.
        assert_eq!(next(&lr, &frame, range), 6, "a brighter pixel");
        assert_eq!(next(&lr, &frame, range), 0);
    }
}

#[test]
fn any_change_of_awkward_frames_leaves_the_answer_of_a_whole_computation() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = upsampler_bundle(DIM, 4, directory.path());
    let mut noise = Noise::new(5);
    let mut below = |n: usize| ((noise.sample() + 1.0) / 2.0 * n as f32) as usize % n;
    let (mut computed, mut tiles) = (0, 0);
    for (width, height, tile) in [(1, 1, 4), (1, 9, 3), (5, 3, 1), (33, 17, 16), (20, 23, 7)] {
        let size = Size { width, height };
        let perceptor = perceptor(&bundle, Arc::new(CpuBackend), 2, tile);
        let lr = features(1);
        let mut frame = image(size, 7);
        let mut watched = Watched::new(Rect::whole(size), DIM);
        for _ in 0..8 {
            let update = watched.next(&perceptor.encode_features(&lr, &frame, FIXED).unwrap());
            (computed, tiles) = (computed + update.computed, tiles + update.tiles);
            // A rectangle with another level in one channel.
            let (x, y, level) = (below(width), below(height), below(256));
            let channel = below(3);
            for y in y..(y + 1 + below(3)).min(height) {
                for x in x..(x + 1 + below(3)).min(width) {
                    frame.data[(channel * height + y) * width + x] = level as f32 / 127.5 - 1.0;
                }
            }
        }
    }
    println!("{computed} of {tiles} tiles computed");
    assert!(computed < tiles);
}

#[test]
fn another_head_region_or_bundle_is_computed_whole() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = upsampler_bundle(DIM, 3, directory.path());
    let one = perceptor(&bundle, Arc::new(CpuBackend), 1, 16);
    let (lr, frame) = (features(1), image(SIZE, 2));
    let view = || one.encode_features(&lr, &frame, FIXED).unwrap();
    let head = |seed| {
        let manifest = loftup_bundle::Head {
            kind: HeadKind::Descriptors { channels: 2 },
            dim: DIM,
            file: String::new(),
        };
        let linear = Linear {
            inputs: DIM,
            weight: Noise::new(seed).vec(2 * DIM),
            bias: vec![0.5, -0.5],
        };
        Head::new(manifest, linear).unwrap()
    };
    let (a, b) = (head(1), head(2));
    let mut watched = Watched::new(Rect::whole(SIZE), 2);
    assert_eq!(watched.next(&view().with_head(&a).unwrap()).computed, 6);
    assert_eq!(watched.next(&view().with_head(&a).unwrap()).computed, 0);
    assert_eq!(watched.next(&view().with_head(&b).unwrap()).computed, 6);
    assert_eq!(watched.next(&view().with_head(&b).unwrap()).computed, 0);
    // An equal head, created again.
    let c = head(2);
    assert_eq!(watched.next(&view().with_head(&c).unwrap()).computed, 0);

    let mut video = IncrementalUpsampler::new();
    let mut region = |view: &EncodedFrame<'_>, rect| {
        let update = video.region(view, rect, &mut |_| Ok(()));
        update.map(|update| update.computed)
    };
    let rect = Rect {
        x: 3,
        y: 5,
        width: 20,
        height: 11,
    };
    let moved = Rect { x: 4, ..rect };
    assert_eq!(region(&view(), rect).unwrap(), 2);
    assert_eq!(region(&view(), rect).unwrap(), 0);
    assert_eq!(region(&view(), moved).unwrap(), 2);
    let outside = Rect { x: 40, ..rect };
    assert!(region(&view(), outside).is_err());
    assert_eq!(region(&view(), moved).unwrap(), 0);
    // The same weights in another backend are not assumed to give the same output.
    let other = perceptor(&bundle, Arc::new(CpuBackend), 1, 16);
    let of_other = other.encode_features(&lr, &frame, FIXED).unwrap();
    assert_eq!(region(&of_other, moved).unwrap(), 2);
    assert_eq!(region(&view(), moved).unwrap(), 2);
}

#[test]
fn after_a_failure_or_another_engine_everything_is_computed() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = upsampler_bundle(DIM, 3, directory.path());
    let (lr, frame) = (features(1), image(SIZE, 2));
    let tract = perceptor(&bundle, Arc::new(CpuBackend), 1, 16);
    let view = tract.encode_features(&lr, &frame, FIXED).unwrap();
    let mut video = IncrementalUpsampler::new();
    let mut left = 3;
    let refused = video.frame(&view, &mut |_| {
        left -= 1;
        match left {
            0 => Err("the disk is full".into()),
            _ => Ok(()),
        }
    });
    assert!(refused.is_err());
    let mut count = |view: &EncodedFrame<'_>| video.frame(view, &mut |_| Ok(())).unwrap().computed;
    assert_eq!(count(&view), 6, "the sink has an unknown part of it");
    assert_eq!(count(&view), 0);

    // Run 0 computes the keys. Run 3, in the middle of the first frame, fails, and the fallback
    // computes the rest.
    let faults = Faults::none();
    faults.at_run(3, Fault::Error);
    let faulty: Arc<dyn Backend> = Arc::new(Faulty::new(CpuBackend, faults));
    let options = FallbackOptions::default();
    let fallback = Arc::new(Fallback::new(Ok(faulty), Arc::new(CpuBackend), options));
    let both = perceptor(&bundle, fallback, 1, 16);
    let mut watched = Watched::new(Rect::whole(SIZE), DIM);
    let computed: Vec<usize> = (0..3)
        .map(|_| {
            let view = both.encode_features(&lr, &frame, FIXED).unwrap();
            watched.next(&view).computed
        })
        .collect();
    assert_eq!(computed, [6, 6, 0]);
}
