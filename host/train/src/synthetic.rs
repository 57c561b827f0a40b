//! Synthetic features of images, from which NAF learns without a backbone.
//!
//! They are constant on the regions of each image, plus a smooth field. Their means over patches are blurred, as by
//! a backbone's receptive field, and noise is added; from these tokens, NAF learns to restore the features. Its
//! attention depends on the image alone, so what it learns are the weights with which patches contribute to a pixel,
//! whatever the features are.

use loftup_bundle::Size;
use loftup_runtime::{Features, Rect, image::RgbImage};

use crate::{
    config::Synthetic,
    data::{Sample, part},
    error::TrainError,
    host_batch::{HostBatch, HostTarget},
    losses::random_projection,
    model::least_squares::statistics,
    regions::Mask,
    resample::{Axis, resample_values},
    rng::Rng,
};

/// Minimum standard deviation of the blur in tokens.
const LEAST_BLUR: f32 = 0.1;
/// Standard deviation of the blur that makes noise a smooth field, in tokens.
const FIELD_BLUR: f32 = 2.0;
/// Tokens around a smooth field, so that it has the same deviation at the border.
const FIELD_BORDER: usize = 6;

/// Features of a crop.
#[derive(Debug)]
struct Scene {
    /// `[crop * crop, channels]`.
    tokens: Vec<f32>,
    /// `[pixels, channels]`.
    target: Vec<f32>,
}

/// Prepares a batch of random crops. `size` is the size of the images, and `grid` that of their tokens.
///
/// # Errors
/// If an image cannot be resized.
pub(crate) fn batch(
    settings: &Synthetic,
    (size, grid): (Size, Size),
    samples: &[Sample],
    normalized: &dyn Fn(&RgbImage) -> Vec<f32>,
    rng: &mut Rng,
) -> Result<HostBatch, TrainError> {
    let crop = settings.crop;
    let (width, height) = (
        size.width / grid.width * crop,
        size.height / grid.height * crop,
    );
    let dim = settings.channels;
    let (mut images, mut lr, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for sample in samples {
        let rect = Rect {
            x: rng.below(size.width - width + 1),
            y: rng.below(size.height - height + 1),
            width,
            height,
        };
        let image = sample.resized(size)?;
        let segmentations = sample.segmentations(&image);
        let inside = part(&image, rect.x, rect.y, width, height);
        images.push(normalized(
            &inside.map_err(loftup_runtime::RuntimeError::from)?,
        ));
        let scene = Scene::random(settings, &segmentations, size.width, rect, rng);
        values.extend(scene.target);
        lr.push(Features {
            dim,
            height: crop,
            width: crop,
            tokens: scene.tokens,
        });
    }
    Ok(HostBatch {
        size: Size { width, height },
        output: None,
        // The encoding of the whole image.
        coordinate_scale: crop as f32 / grid.width as f32,
        windows: None,
        images,
        lr,
        views: Vec::new(),
        target: HostTarget::MaskBicubic {
            values,
            projection: random_projection(dim, 0, rng),
            weights: Vec::new(),
        },
    })
}

impl Scene {
    /// Draws features for the part `rect` of an image of `width` columns with these regions.
    fn random(
        settings: &Synthetic,
        segmentations: &[Vec<Mask>],
        width: usize,
        rect: Rect,
        rng: &mut Rng,
    ) -> Self {
        let (dim, crop) = (settings.channels, settings.crop);
        let mut target = vec![0.0; rect.area() * dim];
        // One segmentation dominates, and about half of the others contribute less.
        let largest = rng.below(segmentations.len());
        let mut weights: Vec<f32> = segmentations
            .iter()
            .map(|_| rng.uniform().powi(2) * f32::from(rng.uniform() < 0.5))
            .collect();
        if let Some(weight) = weights.get_mut(largest) {
            *weight = 1.0;
        }
        let norm = weights.iter().map(|w| w * w).sum::<f32>().sqrt();
        for (masks, weight) in segmentations.iter().zip(&weights) {
            if *weight > 0.0 {
                add_regions(&mut target, dim, masks, width, rect, weight / norm, rng);
            }
        }
        if rng.uniform() < 0.5 {
            add_field(&mut target, dim, crop, rect, rng.uniform(), rng);
        }
        let blur = LEAST_BLUR + (settings.blur - LEAST_BLUR) * rng.uniform();
        let radius = (3.0 * blur).ceil() as usize;
        let axis = |pixels| Axis::mean(pixels, crop).then(&Axis::gaussian(crop, blur, radius));
        let mut tokens = resample_values(&target, dim, &axis(rect.height), &axis(rect.width));
        let noise = settings.noise * rng.uniform() * deviation(&tokens);
        tokens.iter_mut().for_each(|x| *x += noise * rng.normal());
        Self { tokens, target }
    }
}

/// Adds a random vector, times `weight`, to the pixels of each mask.
fn add_regions(
    target: &mut [f32],
    dim: usize,
    masks: &[Mask],
    width: usize,
    rect: Rect,
    weight: f32,
    rng: &mut Rng,
) {
    for mask in masks {
        let value: Vec<f32> = (0..dim).map(|_| weight * rng.normal()).collect();
        for &pixel in mask.pixels() {
            let (y, x) = (pixel as usize / width, pixel as usize % width);
            let inside = (rect.y..rect.y + rect.height).contains(&y)
                && (rect.x..rect.x + rect.width).contains(&x);
            if inside {
                let at = (y - rect.y) * rect.width + x - rect.x;
                let features = &mut target[at * dim..][..dim];
                features.iter_mut().zip(&value).for_each(|(f, v)| *f += v);
            }
        }
    }
}

/// Adds a smooth random field with a standard deviation of `amplitude`.
fn add_field(
    target: &mut [f32],
    dim: usize,
    crop: usize,
    rect: Rect,
    amplitude: f32,
    rng: &mut Rng,
) {
    let side = crop + 2 * FIELD_BORDER;
    let noise: Vec<f32> = (0..side * side * dim).map(|_| rng.normal()).collect();
    let radius = (3.0 * FIELD_BLUR) as usize;
    let axis = Axis::gaussian(side, FIELD_BLUR, radius).part(FIELD_BORDER, crop);
    let field = resample_values(&noise, dim, &axis, &axis);
    let scale = amplitude / deviation(&field).max(1e-6);
    let (rows, columns) = (
        Axis::bicubic(crop, rect.height),
        Axis::bicubic(crop, rect.width),
    );
    let field = resample_values(&field, dim, &rows, &columns);
    target
        .iter_mut()
        .zip(&field)
        .for_each(|(t, f)| *t += scale * f);
}

/// The standard deviation of all values.
fn deviation(values: &[f32]) -> f32 {
    let (_, deviation) = statistics(values, 1);
    deviation[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    const SIZE: usize = 96;
    const CROP: usize = 9;

    /// Two regions: the left 40 columns, and the others.
    fn halves() -> Vec<Mask> {
        let side = |inside: fn(usize) -> bool| {
            let pixels = (0..SIZE * SIZE).filter(|p| inside(p % SIZE));
            Mask::new(pixels.map(|p| p as u32).collect())
        };
        vec![side(|x| x < 40), side(|x| x >= 40)]
    }

    fn scene(settings: &Synthetic, seed: u64) -> (Rect, Scene) {
        let mut rng = Rng::new(seed, Purpose::Step, 0);
        let side = SIZE / 12 * CROP;
        let rect = Rect {
            x: rng.below(SIZE - side + 1),
            y: rng.below(SIZE - side + 1),
            width: side,
            height: side,
        };
        let scene = Scene::random(settings, &[halves()], SIZE, rect, &mut rng);
        (rect, scene)
    }

    #[test]
    fn features_are_constant_on_regions_and_tokens_are_their_means() {
        let settings = Synthetic {
            channels: 4,
            crop: CROP,
            blur: LEAST_BLUR,
            noise: 0.0,
        };
        let mut fields = 0;
        for seed in 0..20 {
            let (rect, Scene { tokens, target }) = scene(&settings, seed);
            let at = |y: usize, x: usize| &target[(y * rect.width + x) * 4..][..4];
            if at(0, 0) != at(1, 0) {
                fields += 1;
                continue;
            }
            for y in 0..rect.height {
                for x in 0..rect.width {
                    let left = rect.x + x < 40;
                    let same = if left {
                        at(0, 0)
                    } else {
                        at(0, rect.width - 1)
                    };
                    assert_eq!(at(y, x), same, "{seed}: {y}, {x}");
                }
            }
            // With a deviation of 0.1 tokens, a neighbor has a weight of exp(-50).
            let size = rect.width / CROP;
            for cell in 0..CROP * CROP {
                let (top, left) = (cell / CROP * size, cell % CROP * size);
                let pixels = (0..size * size).map(|i| at(top + i / size, left + i % size)[0]);
                let mean = pixels.sum::<f32>() / (size * size) as f32;
                assert!((tokens[cell * 4] - mean).abs() < 1e-5, "{seed}: {cell}");
            }
        }
        assert!(
            (1..20).contains(&fields),
            "{fields} of 20 have a smooth field"
        );
    }

    #[test]
    fn noise_has_the_stated_deviation_at_most() {
        let of = |noise: f32| {
            let settings = Synthetic {
                channels: 16,
                crop: CROP,
                blur: 0.5,
                noise,
            };
            scene(&settings, 3).1.tokens
        };
        let (clean, noisy) = (of(0.0), of(0.5));
        let difference: Vec<f32> = clean.iter().zip(&noisy).map(|(a, b)| a - b).collect();
        let share = deviation(&difference) / deviation(&clean);
        println!("noise: {share} of the tokens' deviation");
        assert!((0.01..0.55).contains(&share), "{share}");
    }
}
