use loftup_spec::SplitMix64;

use super::*;

fn size(width: usize, height: usize) -> Size {
    Size { width, height }
}

fn click(x: usize, y: usize, positive: bool) -> Click {
    Click {
        point: Point { x, y },
        positive,
    }
}

fn segmenter(size: Size, dim: usize, features: &[f32], threshold: f32) -> ClickSegmenter {
    ClickSegmenter::from_features(size, dim, features.to_vec(), threshold).unwrap()
}

/// The definition in 64 bit, and components by spreading until nothing changes. Also returns the
/// smallest distance of a score from 0.
fn reference(
    Size { width, height }: Size,
    dim: usize,
    features: &[f32],
    threshold: f32,
    clicks: &[Click],
) -> (Vec<bool>, f64) {
    let cosine = |i: usize, j: usize| {
        let at = |i: usize, c: usize| f64::from(features[i * dim + c]);
        let product = |i: usize, j: usize| (0..dim).map(|c| at(i, c) * at(j, c)).sum::<f64>();
        let norms = (product(i, i) * product(j, j)).sqrt();
        if norms > 0.0 {
            product(i, j) / norms
        } else {
            0.0
        }
    };
    let greatest = |i: usize, positive: bool| {
        let of = clicks.iter().filter(|c| c.positive == positive);
        of.map(|c| cosine(i, c.point.y * width + c.point.x))
            .fold(f64::NEG_INFINITY, f64::max)
    };
    let scores: Vec<f64> = (0..width * height)
        .map(|i| greatest(i, true) - greatest(i, false).max(f64::from(threshold)))
        .collect();
    let mut mask = vec![false; width * height];
    for c in clicks.iter().filter(|c| c.positive) {
        let i = c.point.y * width + c.point.x;
        mask[i] = scores[i] > 0.0;
    }
    loop {
        let before = mask.clone();
        for i in 0..width * height {
            let (x, y) = (i % width, i / width);
            let beside = (x > 0 && mask[i - 1])
                || (x + 1 < width && mask[i + 1])
                || (y > 0 && mask[i - width])
                || (y + 1 < height && mask[i + width]);
            mask[i] |= beside && scores[i] > 0.0;
        }
        if mask == before {
            let margin = scores.iter().map(|s| s.abs()).fold(f64::INFINITY, f64::min);
            return (mask, margin);
        }
    }
}

#[test]
fn it_is_the_definition_on_awkward_shapes() {
    let mut random = SplitMix64::new(4);
    let mut uniform = || (random.next_u64() >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
    let (mut compared, mut inside) = (0, 0);
    for (width, height, dim) in [(1, 1, 2), (7, 1, 3), (1, 6, 2), (13, 9, 5), (16, 11, 33)] {
        // Neighbors are alike, so that components have several pixels.
        let mut features: Vec<f32> = (0..width * height * dim).map(|_| uniform()).collect();
        for i in dim..features.len() {
            features[i] += 0.8 * features[i - dim];
        }
        if width * height > 20 {
            features[3 * dim..4 * dim].fill(0.0);
        }
        for threshold in [-1.0, 0.1, 0.5, 0.9] {
            let mut fast = segmenter(size(width, height), dim, &features, threshold);
            let mut clicks = Vec::new();
            for k in 0..6 {
                let x = (uniform() * 1000.0).abs() as usize % width;
                let y = (uniform() * 1000.0).abs() as usize % height;
                clicks.push(click(x, y, k % 3 != 2));
                let mask = fast.click(clicks[k]).unwrap().to_vec();
                let (expected, margin) =
                    reference(size(width, height), dim, &features, threshold, &clicks);
                // Scores closer to 0 may round to either side in 32 bit: cosines are off by a few 1e-7.
                if margin < 1e-6 {
                    continue;
                }
                assert_eq!(mask, expected, "{width}x{height}, {threshold}, {clicks:?}");
                compared += 1;
                inside += mask.iter().filter(|m| **m).count();
            }
        }
    }
    println!("{compared} masks compared, {inside} pixels inside");
    assert!(compared > 40 && inside > 500);
}

/// Features of two channels with the given angles in degrees.
fn angles(degrees: &[f32]) -> Vec<f32> {
    let unit = |d: &f32| [d.to_radians().cos(), d.to_radians().sin()];
    degrees.iter().flat_map(unit).collect()
}

#[test]
fn a_worked_example() {
    // A row: object, object, background, object, and a part that is like both.
    let row = angles(&[0.0, 10.0, 80.0, 5.0, 30.0]);
    let mut s = segmenter(size(5, 1), 2, &row, 0.8);
    // cos 10 = 0.98; the fourth pixel is alike, but not connected.
    let mask = s.click(click(0, 0, true)).unwrap();
    assert_eq!(mask, [true, true, false, false, false]);
    // cos 25 = 0.91 from the fourth pixel.
    let mask = s.click(click(3, 0, true)).unwrap();
    assert_eq!(mask, [true, true, false, true, true]);
    // A negative click on the last pixel takes only what is closer to it.
    let mask = s.click(click(4, 0, false)).unwrap();
    assert_eq!(mask, [true, true, false, true, false]);
    assert_eq!(s.clicks().len(), 3);
    s.set_threshold(0.999).unwrap();
    assert_eq!(s.mask(), [true, false, false, true, false]);
    s.clear();
    assert_eq!(s.mask(), [false; 5]);
    let mask = s.click(click(2, 0, true)).unwrap();
    assert_eq!(mask, [false, false, true, false, false]);
    // Only negative clicks: nothing.
    s.clear();
    assert_eq!(s.click(click(2, 0, false)).unwrap(), [false; 5]);
    assert_eq!(s.mask_at(size(9, 3)), [false; 27]);
}

#[test]
fn neighbors_at_corners_are_not_connected() {
    let mut s = segmenter(size(2, 2), 2, &angles(&[0.0, 90.0, 90.0, 0.0]), 0.5);
    let mask = s.click(click(0, 0, true)).unwrap();
    assert_eq!(mask, [true, false, false, false]);
}

#[test]
fn a_mask_is_enlarged_along_its_scores() {
    // Scores at threshold 0.5: 0.5, 0.5, -0.5, -0.5. The edge is halfway, between two pixels of eight.
    let mut s = segmenter(size(4, 1), 2, &angles(&[0.0, 0.0, 90.0, 90.0]), 0.5);
    s.click(click(0, 0, true)).unwrap();
    let row = |inside: usize| (0..8).map(|i| i < inside).collect::<Vec<_>>();
    assert_eq!(s.mask_at(size(8, 2)), [row(4), row(4)].concat());
    assert_eq!(s.mask_at(size(4, 1)), s.mask());
    assert_eq!(s.mask_at(size(2, 1)), [true, false]);
    // One pixel between others: interpolation alone would lose it at half the size.
    let mut s = segmenter(size(4, 1), 2, &angles(&[90.0, 0.0, 90.0, 90.0]), 0.9);
    s.click(click(1, 0, true)).unwrap();
    assert_eq!(s.mask_at(size(2, 1)), [true, false]);
}

#[test]
fn what_cannot_be_clicked_is_refused() {
    let features = angles(&[0.0, 90.0]);
    let new = |size, dim, threshold| {
        ClickSegmenter::from_features(size, dim, features.clone(), threshold).map(|_| ())
    };
    for (size, dim) in [(size(3, 1), 2), (size(0, 1), 2), (size(2, 1), 0)] {
        let error = new(size, dim, 0.5);
        assert!(matches!(error, Err(RuntimeError::ClickFeatures { .. })));
    }
    for threshold in [f32::NAN, 1.5] {
        let error = new(size(2, 1), 2, threshold);
        assert!(matches!(error, Err(RuntimeError::ClickThreshold(_))));
    }
    let nan = ClickSegmenter::from_features(size(1, 1), 1, vec![f32::NAN], 0.5);
    assert!(matches!(nan, Err(RuntimeError::NotFinite { .. })));
    let mut s = segmenter(size(2, 1), 2, &features, 0.5);
    let outside = s.click(click(2, 0, true)).unwrap_err().to_string();
    assert!(
        outside.contains("(2, 0)") && s.clicks().is_empty(),
        "{outside}"
    );
    for _ in 0..MAX_CLICKS {
        s.click(click(0, 0, true)).unwrap();
    }
    assert!(matches!(
        s.click(click(0, 0, true)),
        Err(RuntimeError::TooManyClicks(MAX_CLICKS))
    ));
}
