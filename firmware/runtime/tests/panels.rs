//! Tests of images that are shown side by side.

use loftup_runtime::image::RgbImage;
use loftup_runtime::panels::{ComponentMap, MIN_PANEL, PanelsError, three_panels};
use loftup_runtime::pca::Range;

fn range() -> Range {
    Range::new(&[(0.0, 255.0); 3])
}

/// An image whose colors encode their position.
fn placed(width: usize, height: usize) -> Vec<f32> {
    (0..width * height)
        .flat_map(|i| [(i % width) as f32, (i / width) as f32, 200.0])
        .collect()
}

fn pixel(panels: &RgbImage, x: usize, y: usize) -> [u8; 3] {
    panels.row(y)[x * 3..][..3].try_into().unwrap()
}

#[test]
fn each_panel_shows_its_source_at_the_outputs_size() {
    let photograph = RgbImage::filled(50, 40, [9, 8, 7]).unwrap();
    let (low, high) = (placed(20, 16), placed(320, 256));
    let low = ComponentMap::new(&low, 20, 16).unwrap();
    let high = ComponentMap::new(&high, 320, 256).unwrap();
    let panels = three_panels(&photograph, low, high, &range()).unwrap();
    let gap = 4;
    assert_eq!((panels.width(), panels.height()), (3 * 320 + 2 * gap, 256));
    for y in 0..256 {
        for x in 0..320 {
            assert_eq!(pixel(&panels, x, y), [9, 8, 7]);
            let cell = [(x / 16) as u8, (y / 16) as u8, 200];
            assert_eq!(pixel(&panels, 320 + gap + x, y), cell);
            let own = [x.min(255) as u8, y as u8, 200];
            assert_eq!(pixel(&panels, 640 + 2 * gap + x, y), own);
        }
        for x in 0..gap {
            assert_eq!(pixel(&panels, 320 + x, y), [255; 3]);
            assert_eq!(pixel(&panels, 640 + gap + x, y), [255; 3]);
        }
    }
}

#[test]
fn the_photograph_is_resized_as_everywhere() {
    let pixels = (0..30 * 20 * 3).map(|i| (i * 37 % 256) as u8).collect();
    let photograph = RgbImage::new(30, 20, pixels).unwrap();
    let values = placed(300, 224);
    let map = ComponentMap::new(&values, 300, 224).unwrap();
    let panels = three_panels(&photograph, map, map, &range()).unwrap();
    let resized = photograph.resized(300, 224).unwrap();
    for y in 0..224 {
        assert_eq!(&panels.row(y)[..900], resized.row(y));
    }
}

#[test]
fn small_outputs_are_enlarged_by_a_whole_factor() {
    let photograph = RgbImage::filled(5, 5, [1; 3]).unwrap();
    for (width, height, factor) in [(30, 50, 5), (7, 1, 224), (3, 223, 2), (3, 224, 1)] {
        let values = placed(width, height);
        let map = ComponentMap::new(&values, width, height).unwrap();
        let panels = three_panels(&photograph, map, map, &range()).unwrap();
        assert_eq!(panels.height(), height * factor);
        assert!(panels.height() >= MIN_PANEL);
        let left = panels.width() - width * factor;
        for y in 0..height * factor {
            for x in 0..width * factor {
                let expected = [(x / factor) as u8, (y / factor) as u8, 200];
                assert_eq!(pixel(&panels, left + x, y), expected);
            }
        }
    }
}

#[test]
fn low_features_that_do_not_divide_the_output_fill_their_panel() {
    let photograph = RgbImage::filled(5, 5, [1; 3]).unwrap();
    let (low, high) = (placed(3, 7), placed(226, 230));
    let panels = three_panels(
        &photograph,
        ComponentMap::new(&low, 3, 7).unwrap(),
        ComponentMap::new(&high, 226, 230).unwrap(),
        &range(),
    )
    .unwrap();
    let left = 226 + 3;
    for (x, y, cell) in [
        (0, 0, [0, 0]),
        (225, 229, [2, 6]),
        (113, 115, [1, 3]),
        (74, 0, [0, 0]),
        (76, 0, [1, 0]),
    ] {
        let got = pixel(&panels, left + x, y);
        assert_eq!(got[..2], cell, "{x} {y}");
    }
}

#[test]
fn values_beyond_the_range_are_clamped_and_nan_is_black() {
    let photograph = RgbImage::filled(1, 1, [1; 3]).unwrap();
    let values = [-5.0, 1e9, f32::NAN];
    let map = ComponentMap::new(&values, 1, 1).unwrap();
    let panels = three_panels(&photograph, map, map, &range()).unwrap();
    assert_eq!(pixel(&panels, panels.width() - 1, 0), [0, 255, 0]);
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let values = placed(4, 4);
    for (width, height) in [(4, 5), (0, 0), (usize::MAX, 2), (16, 3)] {
        let map = ComponentMap::new(&values, width, height);
        assert!(matches!(map, Err(PanelsError::BadMap { .. })));
    }
    assert!(ComponentMap::new(&[], 0, 0).is_err());
    let map = ComponentMap::new(&values, 4, 4).unwrap();
    let photograph = RgbImage::filled(1, 1, [1; 3]).unwrap();
    let four = Range::new(&[(0.0, 1.0); 4]);
    let error = three_panels(&photograph, map, map, &four).unwrap_err();
    assert!(matches!(error, PanelsError::BadRange(4)));
    // 40 rows need a factor of 6, which makes 2000 columns too wide.
    let wide = vec![0f32; 2000 * 40 * 3];
    let wide = ComponentMap::new(&wide, 2000, 40).unwrap();
    let error = three_panels(&photograph, map, wide, &range()).unwrap_err();
    assert!(matches!(error, PanelsError::Image(_)), "{error}");
}
