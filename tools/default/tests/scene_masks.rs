//! Masks written with scenes are read back by the training code.

use std::collections::BTreeMap;

use loftup_scenes::Scene;
use loftup_train::{data::read_masks, regions::Window};

#[test]
fn masks_are_read_back_pixel_for_pixel() {
    for (seed, width, height) in [(1, 224, 224), (2, 97, 61), (3, 40, 130)] {
        let frame = Scene::new(seed).frame(2.0, width, height);
        let json = frame.masks_json("a \"name\".png");
        let (masks, broken) = read_masks(json.as_bytes(), (height, width), usize::MAX).unwrap();
        assert!(broken.is_empty(), "{broken:?}");

        let mut wanted: BTreeMap<u16, Vec<u32>> = BTreeMap::new();
        for (i, thing) in frame.instances.iter().enumerate() {
            wanted.entry(*thing).or_default().push(i as u32);
        }
        let whole = Window {
            x: 0,
            y: 0,
            width,
            height,
            out_width: width,
            out_height: height,
        };
        let mut found: Vec<Vec<u32>> = masks
            .iter()
            .map(|mask| {
                let mut pixels = mask.seen(&whole).pixels().to_vec();
                pixels.sort_unstable();
                pixels
            })
            .collect();
        assert!(found.is_sorted_by_key(|pixels| std::cmp::Reverse(pixels.len())));
        found.sort();
        let mut wanted: Vec<Vec<u32>> = wanted.into_values().collect();
        wanted.sort();
        assert!(wanted.len() > 10, "a scene with many objects");
        assert_eq!(found, wanted);
    }
}
