use std::sync::Arc;

use loftup_spec::naf::NafWeights;

use super::{Area, EncodedImage, Image, Naf, Values, in_order, reference};
use crate::{Isa, KernelError, reference::noise, simd::SupportedIsa};

fn image(seed: u64, (height, width): (usize, usize)) -> Image {
    let data = noise(seed, 3 * height * width);
    Image {
        data: data.into_iter().map(|x| 2.0 * x).collect(),
        height,
        width,
    }
}

fn whole(encoded: &EncodedImage, values: &Values) -> Vec<f32> {
    let (height, width) = encoded.size();
    let area = Area {
        x: 0,
        y: 0,
        width,
        height,
    };
    attend(encoded, values, area)
}

fn attend(encoded: &EncodedImage, values: &Values, area: Area) -> Vec<f32> {
    let mut out = vec![f32::NAN; area.pixels() * values.outputs()];
    encoded.attend(values, area, &mut out).unwrap();
    out
}

fn worst(found: &[f32], exact: impl IntoIterator<Item = f64>) -> f64 {
    let exact: Vec<f64> = exact.into_iter().collect();
    assert_eq!(found.len(), exact.len());
    let errors = found
        .iter()
        .zip(exact)
        .map(|(a, b)| (f64::from(*a) - b).abs());
    errors.fold(0.0, |a: f64, b| if b.is_nan() { b } else { a.max(b) })
}

/// Grids and images: multiples, odd sides, as many pixels as cells.
const CASES: [((usize, usize), (usize, usize)); 5] = [
    ((9, 9), (9, 9)),
    ((9, 10), (27, 20)),
    ((9, 11), (19, 37)),
    ((10, 9), (10, 29)),
    ((11, 13), (34, 13)),
];

#[test]
fn it_matches_the_definition_whether_encodings_are_kept_or_not() {
    let weights = NafWeights::random(3);
    for (i, (grid, size)) in CASES.into_iter().enumerate() {
        let dim = [4, 12, 20, 4, 36][i];
        let image = image(i as u64, size);
        let features = noise(50 + i as u64, grid.0 * grid.1 * dim);
        let exact = reference::upsample(&weights, &image, (&features, dim), grid);
        for isa in SupportedIsa::all() {
            for kept in [0, usize::MAX] {
                let naf = Naf::new(isa.isa(), &weights).unwrap().keeping(kept);
                let encoded = Arc::new(naf)
                    .encode(image.clone(), grid, &in_order)
                    .unwrap();
                let values = Values::features(features.clone(), dim).unwrap();
                let error = worst(&whole(&encoded, &values), exact.iter().copied());
                println!("{isa} {grid:?} {size:?} {kept}: {error:.1e}");
                // Winograd's transforms magnify rounding errors in each of four layers; the features
                // are below 1.
                assert!(error < 5e-5, "{isa} {grid:?} {size:?}: {error:.1e}");
            }
        }
    }
}

#[test]
fn tiles_and_points_are_parts_of_the_whole_image() {
    let weights = NafWeights::random(4);
    // More than one band and tile.
    let (grid, size, dim) = ((9, 11), (70, 90), 8);
    let features = Values::features(noise(5, grid.0 * grid.1 * dim), dim).unwrap();
    for kept in [0, usize::MAX] {
        let naf = Arc::new(Naf::new(Isa::detect(), &weights).unwrap().keeping(kept));
        let encoded = naf.encode(image(6, size), grid, &in_order).unwrap();
        let all = whole(&encoded, &features);
        for (y, x, height, width) in [
            (0, 0, 1, 1),
            (69, 89, 1, 1),
            (33, 0, 1, 90),
            (0, 44, 70, 1),
            (61, 57, 9, 33),
            (7, 9, 40, 17),
        ] {
            let area = Area {
                x,
                y,
                width,
                height,
            };
            let part = attend(&encoded, &features, area);
            let expected = (0..area.pixels()).flat_map(|p| {
                let at = (y + p / width) * size.1 + x + p % width;
                all[at * dim..][..dim].iter().map(|v| f64::from(*v))
            });
            let error = worst(&part, expected);
            println!("{area:?}, {kept}: {error:.1e}");
            // Equal but for rounding: of other tiles of Winograd's transforms, if encodings are
            // computed again.
            assert!(
                error < if kept == 0 { 2e-5 } else { 1e-6 },
                "{area:?}: {error:.1e}"
            );
        }
    }
}

/// Encodes the same image once more, with its own statistics given.
fn in_blocks(exact: &EncodedImage) -> EncodedImage {
    exact
        .encode_next(exact.frame.image.clone(), exact.grid())
        .unwrap()
}

#[test]
fn an_image_with_its_own_statistics_given_is_the_same() {
    let weights = NafWeights::random(7);
    let more = [
        ((9, 9), (140, 75)),
        ((10, 9), (65, 68)),
        ((9, 70), (9, 141)),
    ];
    let mut most: f64 = 0.0;
    for (i, (grid, size)) in CASES.into_iter().chain(more).enumerate() {
        let values = Values::features(noise(i as u64, grid.0 * grid.1 * 12), 12).unwrap();
        for isa in SupportedIsa::all() {
            let naf = Naf::new(isa.isa(), &weights).unwrap();
            let exact = Arc::new(naf).encode(image(20 + i as u64, size), grid, &in_order);
            let exact = exact.unwrap();
            let expected = whole(&exact, &values);
            let found = whole(&in_blocks(&exact), &values);
            let error = worst(&found, expected.iter().map(|x| f64::from(*x)));
            println!("{isa} {grid:?} {size:?}: {error:.1e}");
            most = most.max(error);
            // Other tiles of Winograd's transforms, as below.
            assert!(error < 2e-5, "{isa} {grid:?} {size:?}: {error:.1e}");
            // Regions and points have the same bits as the whole.
            let part = Area {
                x: size.1 / 3,
                y: size.0 / 2,
                width: size.1.div_ceil(2),
                height: size.0.div_ceil(3),
            };
            let rows = attend(&in_blocks(&exact), &values, part);
            for (y, row) in rows.chunks_exact(part.width * 12).enumerate() {
                let at = ((part.y + y) * size.1 + part.x) * 12;
                assert_eq!(row, &found[at..at + row.len()]);
            }
        }
    }
    println!("worst: {most:.1e}");
}

#[test]
fn after_a_local_change_the_rest_is_shared() {
    let naf = Arc::new(Naf::new(Isa::detect(), &NafWeights::random(8)).unwrap());
    // Blocks of 8x8 cells.
    let (grid, size) = ((40, 24), (320, 192));
    let exact = naf.encode(image(1, size), grid, &in_order).unwrap();
    let values = Values::features(noise(3, grid.0 * grid.1 * 4), 4).unwrap();
    let first = in_blocks(&exact);
    let before = whole(&first, &values);
    let changed = |y: usize, x: usize| {
        let mut changed = image(1, size);
        changed.data[y * size.1 + x] += 1.0;
        changed
    };
    // The last changes only the encodings of the next block.
    for (y, x) in [(0, 0), (150, 100), (319, 191), (70, 122), (123, 66)] {
        let next = first.encode_next(changed(y, x), grid).unwrap();
        let fresh = exact.encode_next(changed(y, x), grid).unwrap();
        let (found, expected) = (whole(&next, &values), whole(&fresh, &values));
        assert!(found == expected, "{y} {x}");
        let own = naf.encode(changed(y, x), grid, &in_order).unwrap();
        assert!(whole(&own, &values) != expected);
        let mut shared = 0;
        for (top, left) in (0..size.0).flat_map(|y| (0..size.1).map(move |x| (y, x))) {
            let pixel = Area {
                x: left,
                y: top,
                width: 1,
                height: 1,
            };
            let at = (top * size.1 + left) * 4;
            if next.shares(&first, pixel) {
                shared += 1;
                assert_eq!(before[at..at + 4], found[at..at + 4], "{top} {left}");
            }
            assert!(!fresh.shares(&first, pixel) && next.shares(&next, pixel));
        }
        let at = (y * size.1 + x) * 4;
        assert_ne!(before[at..at + 4], found[at..at + 4]);
        assert!(shared > 64 * 192, "{y} {x}: {shared}");
    }
}

#[test]
fn threads_share_blocks_however_many_are_kept() {
    let weights = NafWeights::random(9);
    let (grid, size) = ((12, 15), (110, 140));
    let values = Values::features(noise(3, grid.0 * grid.1 * 4), 4).unwrap();
    let mut all = Vec::new();
    for kept in [0, 9_000, usize::MAX] {
        let naf = Arc::new(Naf::new(Isa::detect(), &weights).unwrap().keeping(kept));
        let exact = naf.encode(image(2, size), grid, &in_order).unwrap();
        let shared = in_blocks(&exact);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| whole(&shared, &values)))
                .collect();
            all.extend(workers.into_iter().map(|worker| worker.join().unwrap()));
        });
        assert!(
            all.iter()
                .all(|out| worst(out, all[0].iter().map(|x| f64::from(*x))) < 2e-5)
        );
        let same = &all[all.len() - 4..];
        assert!(same.iter().all(|out| *out == same[0]), "{kept}");
    }
}

#[test]
fn a_linear_layer_before_attention_is_one_after_it() {
    let weights = NafWeights::random(5);
    let naf = Arc::new(Naf::new(Isa::detect(), &weights).unwrap());
    let (grid, size) = ((9, 12), (19, 36));
    let encoded = naf.encode(image(7, size), grid, &in_order).unwrap();
    for (dim, outputs) in [(4, 1), (16, 3), (36, 19), (20, 65)] {
        let features = noise(8, grid.0 * grid.1 * dim);
        let (weight, bias) = (noise(9, outputs * dim), noise(10, outputs));
        for isa in SupportedIsa::all() {
            let linear = Values::linear(isa.isa(), (&features, dim), &weight, &bias).unwrap();
            assert_eq!(linear.outputs(), outputs);
            let found = whole(&encoded, &linear);
            let upsampled = whole(&encoded, &Values::features(features.clone(), dim).unwrap());
            let outputs_of = |x: &[f32]| -> Vec<f64> {
                let rows = weight.chunks(dim).zip(&bias);
                rows.map(|(row, bias)| {
                    let dot: f64 = row.iter().zip(x).map(|(w, x)| f64::from(w * x)).sum();
                    dot + f64::from(*bias)
                })
                .collect()
            };
            let exact = upsampled.chunks(dim).flat_map(outputs_of);
            let error = worst(&found, exact);
            // Sums of up to 36 products below 1.
            assert!(error < 3e-6, "{isa} {dim} {outputs}: {error:.1e}");
        }
    }
}

#[test]
fn the_order_of_jobs_changes_no_bit() {
    let weights = NafWeights::random(6);
    let backwards = |n: usize, job: &(dyn Fn(usize) + Sync)| (0..n).rev().for_each(job);
    for kept in [0, usize::MAX] {
        let naf = Arc::new(Naf::new(Isa::detect(), &weights).unwrap().keeping(kept));
        let values = Values::features(noise(2, 9 * 9 * 4), 4).unwrap();
        let bits = |jobs: super::Jobs<'_>| {
            let encoded = naf.encode(image(1, (71, 40)), (9, 9), jobs).unwrap();
            let out = whole(&encoded, &values);
            out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        assert!(bits(&in_order) == bits(&backwards));
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let naf = Arc::new(Naf::new(Isa::detect(), &NafWeights::random(1)).unwrap());
    for (grid, size) in [((8, 9), (64, 64)), ((9, 8), (64, 64)), ((9, 20), (64, 19))] {
        let text = naf
            .encode(image(1, size), grid, &in_order)
            .unwrap_err()
            .to_string();
        assert!(text.contains("at least 9 cells"), "{text}");
    }
    let small = Image {
        width: 10,
        ..image(1, (9, 9))
    };
    let wrong = naf.encode(small, (9, 9), &in_order);
    assert!(matches!(wrong, Err(KernelError::Size { .. })));
    let text = Values::features(vec![0.0; 12], 6).unwrap_err().to_string();
    assert!(text.contains("multiple of 4"), "{text}");
    assert!(Values::linear(Isa::Generic, (&[0.0; 8], 4), &[0.0; 3], &[0.0]).is_err());

    let encoded = naf.encode(image(1, (9, 9)), (9, 9), &in_order).unwrap();
    let values = Values::features(vec![0.0; 80 * 4], 4).unwrap();
    let area = Area {
        x: 0,
        y: 0,
        width: 9,
        height: 9,
    };
    assert!(encoded.attend(&values, area, &mut [0.0; 81 * 4]).is_err());
    let values = Values::features(vec![0.0; 81 * 4], 4).unwrap();
    assert!(encoded.attend(&values, area, &mut [0.0; 80 * 4]).is_err());
    let outside = Area { x: 1, ..area };
    assert!(
        encoded
            .attend(&values, outside, &mut [0.0; 81 * 4])
            .is_err()
    );

    let mut short = NafWeights::random(1);
    short.branches[1].layers[2].conv.weight.pop();
    let text = Naf::new(Isa::Generic, &short).unwrap_err().to_string();
    assert!(
        text.contains("image_encoder.sem_encoder.2.conv1.weight"),
        "{text}"
    );
}
