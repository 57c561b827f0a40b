//! Reference outputs: whether an engine computes what the bundle's 32-bit graphs compute.
//!
//! A bundle carries the outputs of its 32-bit graphs for built-in test inputs. An engine other
//! than the one that made them is compared with them before its first output is handed out
//! ([`Perceptor::compare_with_references`]). The format and the formulas of the test inputs are
//! in `docs/bundle-format.md`.

use std::{fmt, sync::atomic::Ordering::Relaxed};

use loftup_bundle::{Manifest, Precision, ReferenceError, ReferenceOutputs, References, Size};

use crate::{
    ColorRange, EncodedFrame, Features, ImageTensor, Perceptor, Point, Rect, RuntimeError,
    backend::{Arithmetic, BackendError},
    features::transposed,
    sinks::VecSink,
    threads::lock,
};

pub use crate::self_test::Part;

/// Size of the image that guides the reference upsampling.
pub const GUIDANCE: Size = Size {
    width: 224,
    height: 224,
};
/// Grid of the reference features where the bundle has no backbone.
const GRID: Size = Size {
    width: 16,
    height: 16,
};
/// The part of the guidance that is computed as a region, and holds the last of the pixels.
const REGION: Rect = Rect {
    x: 88,
    y: 88,
    width: 48,
    height: 48,
};
/// Reference pixels within [`REGION`].
const IN_REGION: usize = 16;
/// Engines build one more engine for tiles with longer sides than this.
const SMALL_TILE: usize = crate::upsampler::SMALL_TILE;

/// Outputs of an engine next to the reference outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// What was compared.
    pub part: Part,
    /// How the outputs were asked for: each way has a profile of its own in an engine.
    pub asked: &'static str,
    /// Files of the graphs that ran.
    pub graphs: String,
    /// The error that was found.
    pub found: ReferenceError,
    /// The error that is allowed.
    pub allowed: ReferenceError,
}

impl Comparison {
    /// Whether the error is allowed. Never with NaN.
    pub fn passed(&self) -> bool {
        self.found.relative_error <= self.allowed.relative_error
            && self.found.cosine >= self.allowed.cosine
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "relative error {:.2e}, allowed {:.2e}; least cosine {:.5}, allowed {:.5}",
            self.found.relative_error,
            self.allowed.relative_error,
            self.found.cosine,
            self.allowed.cosine
        )
    }
}

/// A normalized image with edges, gradients and texture, the same on every machine.
pub fn test_image(size: Size) -> ImageTensor {
    let Size { width, height } = size;
    let mut data = Vec::with_capacity(3 * size.area());
    for c in 0..3 {
        for y in 0..height {
            for x in 0..width {
                let (u, v) = (x as f32 / width as f32, y as f32 / height as f32);
                let block = ((x / 7 + y / 5 + c) % 3) as f32 - 1.0;
                let texture = (hash((c * height + y) * width + x) - 0.5) * 0.2;
                data.push(block + u - v + texture);
            }
        }
    }
    ImageTensor { size, data }
}

/// Features with a variance of about 1 on a grid of that size, the same on every machine.
pub fn test_features(dim: usize, grid: Size) -> Features {
    let map: Vec<f32> = (0..dim * grid.area())
        .map(|i| (hash(i) - 0.5) * 3.5)
        .collect();
    Features {
        dim,
        height: grid.height,
        width: grid.width,
        tokens: transposed(&map, dim, grid.area()),
    }
}

/// 0 to 1, scrambled.
fn hash(i: usize) -> f32 {
    let x = (i as u32).wrapping_add(1).wrapping_mul(0x9E37_79B9);
    let x = (x ^ (x >> 15)).wrapping_mul(0x85EB_CA6B);
    let x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE35);
    ((x ^ (x >> 16)) >> 8) as f32 / (1u32 << 24) as f32
}

/// The pixels of [`GUIDANCE`] that are kept: most of them all over the image, the last in
/// [`REGION`].
fn pixels() -> Vec<Point> {
    let spread = References::PIXELS - IN_REGION;
    let step = GUIDANCE.area() / spread;
    let all = (0..spread).map(|i| {
        let at = i * step + i * 37 % step;
        Point {
            x: at % GUIDANCE.width,
            y: at / GUIDANCE.width,
        }
    });
    let region = (0..IN_REGION).map(|i| Point {
        x: REGION.x + 3 + 13 * (i % 4),
        y: REGION.y + 3 + 13 * (i / 4),
    });
    all.chain(region).collect()
}

/// The error of `found` against `reference`, both `[rows, dim]`. NaN where they cannot be compared.
pub fn error_of(found: &[f32], reference: &[f32], dim: usize) -> ReferenceError {
    if found.len() != reference.len() || dim == 0 || found.is_empty() {
        return ReferenceError {
            relative_error: f64::NAN,
            cosine: f64::NAN,
        };
    }
    let (mut differences, mut squares, mut cosine) = (0f64, 0f64, 1f64);
    for (a, b) in found.chunks(dim).zip(reference.chunks(dim)) {
        let (mut ab, mut aa, mut bb) = (0f64, 0f64, 0f64);
        for (a, b) in a.iter().zip(b) {
            let (a, b) = (f64::from(*a), f64::from(*b));
            differences += (a - b) * (a - b);
            (ab, aa, bb) = (ab + a * b, aa + a * a, bb + b * b);
        }
        squares += bb;
        let row = match aa == 0.0 && bb == 0.0 {
            true => 1.0,
            false => ab / (aa * bb).sqrt(),
        };
        // Against a zero vector, or with NaN: as far apart as can be.
        cosine = cosine.min(if row.is_nan() { -1.0 } else { row });
    }
    ReferenceError {
        relative_error: (differences / squares.max(f64::MIN_POSITIVE)).sqrt(),
        cosine,
    }
}

/// What an error may be: what the arithmetic of the engine may add to what the precision of the
/// graph costs. The tolerances are justified in `docs/engines.md`.
fn allowed(
    manifest: &Manifest,
    part: Part,
    precision: Precision,
    arithmetic: Arithmetic,
) -> ReferenceError {
    let (engine, turned) = match arithmetic {
        Arithmetic::Fp32 => (2e-3, 1e-4),
        Arithmetic::Tf32 => (5e-2, 1e-2),
    };
    let errors = manifest.references.as_ref();
    let errors = errors.and_then(|r| r.errors.get(&precision));
    let measured = errors.and_then(|e| match part {
        Part::Backbone => e.backbone,
        Part::Upsampler => e.upsampler,
    });
    let cost = measured.unwrap_or(match precision {
        Precision::Fp32 => ReferenceError {
            relative_error: 0.0,
            cosine: 1.0,
        },
        // Not measured: what the precisions have cost at most on real bundles, and then some.
        Precision::Fp16 | Precision::Fp16Weights => ReferenceError {
            relative_error: 0.03,
            cosine: 0.995,
        },
        Precision::Int8 => ReferenceError {
            relative_error: 0.15,
            cosine: 0.95,
        },
    });
    // An engine may round at other places than the graph says. With an error half as large again,
    // the distance of the cosine from 1, which goes with its square, grows by 2.25.
    ReferenceError {
        relative_error: 1.5 * cost.relative_error + engine,
        cosine: 1.0 - 2.25 * (1.0 - cost.cosine).max(0.0) - turned,
    }
}

impl Perceptor {
    /// What the graphs compute from the test inputs, as a bundle keeps it.
    ///
    /// # Errors
    /// Where a graph does not run.
    pub fn reference_outputs(&self) -> Result<ReferenceOutputs, RuntimeError> {
        let has = |part: bool| part.then_some(());
        Ok(ReferenceOutputs {
            backbone: has(self.manifest().backbone.is_some())
                .map(|()| self.reference_backbone())
                .transpose()?,
            upsampler: has(self.manifest().upsampler.is_some())
                .map(|()| self.reference_view(|view| view.points(&pixels())))
                .transpose()?,
        })
    }

    /// Compares every part with the bundle's reference outputs, on whatever engine answers now.
    /// Empty for a bundle without reference outputs.
    ///
    /// # Errors
    /// Where a graph does not run, or the file of the references is damaged.
    pub fn compare_with_references(&self) -> Result<Vec<Comparison>, RuntimeError> {
        let arithmetic = self.backend.arithmetic().unwrap_or(Arithmetic::Fp32);
        let mut found = Vec::new();
        for part in [Part::Backbone, Part::Upsampler] {
            found.extend(self.compare(part, arithmetic)?.unwrap_or_default());
        }
        Ok(found)
    }

    /// Compares a part with the reference outputs once, before anything that it computes is used;
    /// not where the engine is the one that made them.
    pub(crate) fn self_test(&self, part: Part) -> Result<(), RuntimeError> {
        let test = &self.tests[part as usize];
        let Some(arithmetic) = self.backend.arithmetic() else {
            return Ok(());
        };
        if test.done.load(Relaxed) {
            return Ok(());
        }
        let _held = lock(&test.running);
        if test.done.load(Relaxed) {
            return Ok(());
        }
        let uses_fallback = || self.backend.health().reason().is_some();
        if uses_fallback() {
            // Not done: the preferred engine may come back.
            return Ok(());
        }
        let engine = self.backend.describe();
        let Some(compared) = self.compare(part, arithmetic)? else {
            log::warn!(
                "{}: has no reference outputs, so what {engine} computes is not checked; make the bundle again with this version",
                self.bundle.path().display()
            );
            test.done.store(true, Relaxed);
            return Ok(());
        };
        if uses_fallback() {
            return Ok(());
        }
        let Some(wrong) = compared.iter().find(|c| !c.passed()) else {
            for c in &compared {
                log::info!("{engine}: {part} ({}) is as the references: {c}", c.asked);
            }
            test.done.store(true, Relaxed);
            return Ok(());
        };
        self.backend.distrust(self.wrong(&engine, wrong))?;
        // Another engine stands in for good. Where that one is wrong too, it is the bundle.
        let engine = self.backend.describe();
        let again = self.compare(part, arithmetic)?.unwrap_or_default();
        if let Some(wrong) = again.iter().find(|c| !c.passed()) {
            return Err(self.wrong(&engine, wrong).into());
        }
        test.done.store(true, Relaxed);
        Ok(())
    }

    fn wrong(&self, engine: &str, wrong: &Comparison) -> BackendError {
        BackendError::Wrong {
            engine: engine.into(),
            graph: format!(
                "{}/{} ({})",
                self.bundle.path().display(),
                wrong.graphs,
                wrong.asked
            ),
            what: wrong.to_string(),
        }
    }

    /// Compares a part; `None` where the bundle has no reference outputs, empty where it has no
    /// such part.
    fn compare(
        &self,
        part: Part,
        arithmetic: Arithmetic,
    ) -> Result<Option<Vec<Comparison>>, RuntimeError> {
        let Some(references) = self.bundle.reference_outputs()? else {
            return Ok(None);
        };
        let manifest = self.manifest();
        let allowed = allowed(manifest, part, self.precision(), arithmetic);
        let mut compared = Vec::new();
        match part {
            Part::Backbone => {
                if let (Some(reference), Some(b)) = (&references.backbone, &manifest.backbone) {
                    let graphs = b.graphs.get(&self.precision()).cloned();
                    compared.push(Comparison {
                        part,
                        asked: "whole image",
                        graphs: graphs.unwrap_or_default(),
                        found: error_of(&self.reference_backbone()?, reference, b.dim),
                        allowed,
                    });
                }
            }
            Part::Upsampler => {
                if let (Some(reference), Some(u)) = (&references.upsampler, &manifest.upsampler) {
                    let files = u.graphs.get(&self.precision());
                    let graphs = files.map(|f| format!("{} and {}", f.keys, f.queries));
                    let graphs = graphs.unwrap_or_default();
                    self.reference_view(|view| {
                        for (asked, pixels, values) in outputs(view, self.frame_tile())? {
                            let reference: Vec<f32> = pixels
                                .flat_map(|i| &reference[i * u.dim..][..u.dim])
                                .copied()
                                .collect();
                            compared.push(Comparison {
                                part,
                                asked,
                                graphs: graphs.clone(),
                                found: error_of(&values, &reference, u.dim),
                                allowed,
                            });
                        }
                        Ok(())
                    })?;
                }
            }
        }
        Ok(Some(compared))
    }

    /// Longest side of a tile of a frame; 0 without an upsampler.
    fn frame_tile(&self) -> usize {
        self.upsampler.as_ref().map_or(0, |u| u.frame_tile())
    }

    /// The backbone's outputs in the layout of [`ReferenceOutputs::backbone`].
    fn reference_backbone(&self) -> Result<Vec<f32>, RuntimeError> {
        let backbone = self.with_backbone()?;
        let size = backbone.default_size();
        let f = backbone.features(&test_image(size).data, size)?;
        let cells = f.height * f.width;
        let map = f.to_map();
        let planes = || map.chunks_exact(cells);
        let kept = References::cells(cells);
        let mut values: Vec<f32> = kept.flat_map(|i| planes().map(move |p| p[i])).collect();
        let mean = |plane: &[f32]| plane.iter().map(|x| f64::from(*x)).sum::<f64>() / cells as f64;
        values.extend(planes().map(|p| mean(p) as f32));
        values.extend(planes().map(|p| {
            let m = mean(p);
            let squares = p.iter().map(|x| (f64::from(*x) - m).powi(2)).sum::<f64>();
            (squares / cells as f64).sqrt() as f32
        }));
        Ok(values)
    }

    /// Asks the upsampler about the test inputs.
    fn reference_view<T>(
        &self,
        ask: impl FnOnce(&EncodedFrame<'_>) -> Result<T, RuntimeError>,
    ) -> Result<T, RuntimeError> {
        let grid = self.manifest().backbone.as_ref().map_or(GRID, |b| Size {
            width: b.size.width / b.patch,
            height: b.size.height / b.patch,
        });
        let dim = self.manifest().upsampler.as_ref().map_or(0, |u| u.dim);
        let features = test_features(dim, grid);
        let guidance = test_image(GUIDANCE);
        ask(&self.encode_untested(&features, &guidance, ColorRange::PerImage)?)
    }
}

type Outputs = (&'static str, std::ops::Range<usize>, Vec<f32>);

/// The reference pixels in each of the ways that an engine has a profile for: how, which of the
/// pixels, and their values `[pixels, d]`.
fn outputs(view: &EncodedFrame<'_>, tile: usize) -> Result<Vec<Outputs>, RuntimeError> {
    let all = pixels();
    let in_region = References::PIXELS - IN_REGION..References::PIXELS;
    let mut found = vec![("points", 0..all.len(), view.points(&all)?)];
    let mut region = VecSink::new(REGION, view.dim())?;
    view.region(REGION, &mut |tile| region.push(tile))?;
    let values = at(region.values(), REGION, &all[in_region.clone()]);
    found.push(("region", in_region, values));
    if tile > SMALL_TILE {
        let rect = Rect::whole(GUIDANCE);
        let mut frame = VecSink::new(rect, view.dim())?;
        view.frame(&mut |tile| frame.push(tile))?;
        found.push(("frame", 0..all.len(), at(frame.values(), rect, &all)));
    }
    Ok(found)
}

/// Some pixels of `values` `[H, W, d]` that cover `rect`, `[pixels, d]`.
fn at(values: &[f32], rect: Rect, pixels: &[Point]) -> Vec<f32> {
    let dim = values.len() / rect.area();
    let index = |p: &Point| (p.y - rect.y) * rect.width + p.x - rect.x;
    let values = |p: &Point| values[index(p) * dim..][..dim].iter().copied();
    pixels.iter().flat_map(values).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PICTURE: [u32; 3] = [0xbf68f913, 0xbf7c8b3c, 0xbf73e1fb];
    const PICTURE_SUM: f64 = 23.421800676733255;
    const FEATURES: [u32; 3] = [0x3fc97c98, 0xbe38bd34, 0xbba3fb00];
    const FEATURES_SUM: f64 = 42.381392270326614;

    #[test]
    fn the_test_inputs_are_those_that_the_documentation_gives() {
        // Computed with NumPy from the formulas in docs/bundle-format.md.
        let size = Size {
            width: 42,
            height: 28,
        };
        let sum = |values: &[f32]| values.iter().map(|x| f64::from(*x)).sum::<f64>();
        let picture = test_image(size).data;
        assert_eq!(
            picture[..3].iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
            PICTURE
        );
        assert_eq!(sum(&picture), PICTURE_SUM);
        let features = test_features(3, size).to_map();
        assert_eq!(
            features[..3]
                .iter()
                .map(|x| x.to_bits())
                .collect::<Vec<_>>(),
            FEATURES
        );
        assert_eq!(sum(&features), FEATURES_SUM);
    }

    #[test]
    fn pixels_are_within_the_image_and_the_region_and_no_two_are_the_same() {
        let all = pixels();
        assert_eq!(all.len(), References::PIXELS);
        let places: std::collections::BTreeSet<_> = all.iter().map(|p| (p.y, p.x)).collect();
        assert_eq!(places.len(), all.len());
        assert!(
            all.iter()
                .all(|p| p.x < GUIDANCE.width && p.y < GUIDANCE.height)
        );
        let inside = |p: &Point| {
            (REGION.x..REGION.x + REGION.width).contains(&p.x)
                && (REGION.y..REGION.y + REGION.height).contains(&p.y)
        };
        assert!(all[References::PIXELS - IN_REGION..].iter().all(inside));
    }

    #[test]
    fn errors_of_scale_order_and_nan_are_seen() {
        let reference: Vec<f32> = (0..64 * 8).map(|i| hash(i) - 0.5).collect();
        assert_eq!(error_of(&reference, &reference, 8).relative_error, 0.0);
        let scaled: Vec<f32> = reference.iter().map(|x| x * 1.01).collect();
        let e = error_of(&scaled, &reference, 8);
        assert!(
            (e.relative_error - 0.01).abs() < 1e-4 && e.cosine > 0.9999,
            "{e:?}"
        );
        let mut shuffled = reference.clone();
        shuffled.rotate_left(8);
        let e = error_of(&shuffled, &reference, 8);
        assert!(e.relative_error > 0.5 && e.cosine < 0.5, "{e:?}");
        let mut nan = reference.clone();
        nan[3] = f32::NAN;
        let e = error_of(&nan, &reference, 8);
        assert!(e.relative_error.is_nan() && e.cosine == -1.0, "{e:?}");
        assert!(
            error_of(&reference[1..], &reference, 8)
                .relative_error
                .is_nan()
        );
    }
}
