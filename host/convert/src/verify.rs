//! The checks a bundle must pass.

use std::{fmt, sync::Arc};

use loftup_bundle::{Bundle, Precision, Size};
use loftup_runtime::{
    ColourRange, Features, Options, Perceptor, Picture, Point, Rect, RuntimeError,
    backend::{Backend, GraphSource, Tract},
    sinks::InMemory,
};
use loftup_spec::io;
use serde::Serialize;

use crate::compare::{Difference, Tolerance};
use crate::quantize;

/// One check and its outcome.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// Whether it is as it should be.
    pub passed: bool,
    /// What was measured, where something was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
    /// What may be measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<Tolerance>,
    /// A measured number that is no difference of two maps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
}

/// A number and what it may be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Measured {
    /// What was measured.
    pub found: f64,
    /// The most that it may be.
    pub most: f64,
}

impl Check {
    /// A yes or no.
    fn yes(name: &str, passed: bool) -> Self {
        Self {
            name: name.into(),
            passed,
            difference: None,
            tolerance: None,
            measured: None,
        }
    }

    /// A number and what it may be.
    pub(crate) fn most(name: &str, found: f64, most: f64) -> Self {
        Self {
            name: name.into(),
            // Never with NaN.
            passed: found <= most,
            difference: None,
            tolerance: None,
            measured: Some(Measured { found, most }),
        }
    }

    /// A measured difference. `None`, two sizes that do not go together, fails.
    fn within(name: &str, difference: Option<Difference>, tolerance: Tolerance) -> Self {
        let passed = difference.is_some_and(|d| d.within(&tolerance));
        Self {
            name: name.into(),
            passed,
            difference,
            tolerance: Some(tolerance),
            measured: None,
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = if self.passed { "ok" } else { "FAILED" };
        write!(f, "{}: {outcome}", self.name)?;
        if let (Some(d), Some(t)) = (&self.difference, &self.tolerance) {
            let t = t.scaled(d.scale);
            write!(
                f,
                " (max {:.1e} of {:.0e}, mean {:.1e} of {:.0e}, cosine {:.7} of {})",
                d.max, t.max, d.mean, t.mean, d.cosine, t.cosine
            )?;
        }
        if let Some(m) = &self.measured {
            write!(f, " ({:.2e} of {:.2e})", m.found, m.most)?;
        }
        Ok(())
    }
}

/// Grid and guidance on which the upsampler is checked: odd, not square, several tiles.
const GRID: (usize, usize) = (5, 4);
const GUIDANCE: Size = Size {
    width: 43,
    height: 29,
};

/// [`verify_with`] on the CPU.
///
/// # Errors
/// Where something does not run at all.
pub fn verify(bundle: Bundle) -> Result<Vec<Check>, RuntimeError> {
    verify_with(bundle, Arc::new(Tract))
}

/// Runs every graph of a bundle whose files have been checked: outputs finite, tiles as the whole,
/// regions and points as the frame, and a quantised bundle no further from its 32-bit graphs than
/// its manifest says. The whole graph that the tiles are compared with runs on the
/// CPU in any case.
///
/// # Errors
/// Where something does not run at all.
pub fn verify_with(bundle: Bundle, backend: Arc<dyn Backend>) -> Result<Vec<Check>, RuntimeError> {
    let mut checks = vec![Check::yes(
        "every file has the SHA-256 of the manifest",
        true,
    )];
    let manifest = bundle.manifest().clone();
    let whole = manifest
        .upsampler
        .as_ref()
        .and_then(|u| u.graphs.get(&Precision::Fp32)?.whole.as_ref())
        .map(|name| Ok::<_, RuntimeError>((name.clone(), bundle.read(name)?)))
        .transpose()?;
    let (again, engine) = (bundle.clone(), backend.clone());
    let options = Options {
        tile: Some(16),
        ..Options::default()
    };
    let perceptor = Perceptor::with_backend(bundle, backend, options)?;

    if let Some(backbone) = &manifest.backbone {
        let features = perceptor.features_of(&test_picture(backbone.size))?;
        let finite = features.data.iter().all(|x| x.is_finite());
        checks.push(Check::yes(
            "backbone: finite features of a test picture",
            finite,
        ));
    }
    if let Some(upsampler) = &manifest.upsampler {
        let dim = upsampler.dim;
        let features = test_features(dim);
        let picture = test_picture(GUIDANCE);
        let view = perceptor.view(&features, &picture, ColourRange::PerImage)?;
        let all = Rect::whole(GUIDANCE);
        let mut frame = InMemory::new(all, dim);
        view.frame(&mut |tile| frame.take(tile))?;
        let frame = frame.into_values();
        checks.push(Check::yes(
            "upsampler: finite features of a test picture",
            frame.iter().all(|x| x.is_finite()),
        ));

        let rect = Rect {
            x: 3,
            y: 5,
            width: 21,
            height: 19,
        };
        let mut region = InMemory::new(rect, dim);
        view.region(rect, &mut |tile| region.take(tile))?;
        let expected = crop(&frame, all, rect);
        let difference = Difference::between(&region.into_values(), &expected, dim);
        checks.push(Check::within(
            "upsampler: a region is its part of the frame",
            difference,
            Tolerance::TILES,
        ));

        let points = [(0, 0), (42, 28), (17, 9), (0, 28)].map(|(x, y)| Point { x, y });
        let answer = view.points(&points)?;
        let expected: Vec<f32> = points
            .iter()
            .flat_map(|p| {
                crop(
                    &frame,
                    all,
                    Rect {
                        x: p.x,
                        y: p.y,
                        width: 1,
                        height: 1,
                    },
                )
            })
            .collect();
        // Tokens by channels on both sides: each point is a map of its own.
        let worst = answer
            .chunks_exact(dim)
            .zip(expected.chunks_exact(dim))
            .filter_map(|(a, b)| Difference::between(a, b, dim))
            .max_by(|a, b| a.max.total_cmp(&b.max));
        checks.push(Check::within(
            "upsampler: points are pixels of the frame",
            worst,
            Tolerance::TILES,
        ));

        if let Some((name, onnx)) = whole {
            let whole = run_whole(&name, &onnx, &features, &picture)?;
            let difference = Difference::between(&frame, &whole, dim);
            checks.push(Check::within(
                "upsampler: tiles are as the whole graph",
                difference,
                Tolerance::UPSAMPLER,
            ));
        }
    }
    checks.extend(quantize::checks(&again, &engine)?);
    Ok(checks)
}

/// Compares an answer `[d, ...]` with a reference that should be the same.
pub fn against(answer: &[f32], reference: &[f32], dim: usize, tolerance: Tolerance) -> Check {
    Check::within(
        "the answer is as the reference",
        Difference::between(answer, reference, dim),
        tolerance,
    )
}

/// The whole upsampler on the CPU.
fn run_whole(
    name: &str,
    onnx: &[u8],
    features: &Features,
    picture: &Picture,
) -> Result<Vec<f32>, RuntimeError> {
    let Size { width, height } = picture.size;
    let plan = Tract.compile(&GraphSource::fixed(
        name,
        onnx,
        &[
            (
                io::FEATURES,
                &[1, features.dim, features.height, features.width],
            ),
            (io::GUIDANCE, &[1, 3, height, width]),
        ],
        &[io::UPSAMPLED],
    ))?;
    let mut session = plan.session()?;
    session.set(0, &features.data)?;
    session.set(1, &picture.data)?;
    session.run()?;
    Ok(session.output(0).to_vec())
}

/// The part `rect` of planes `[d, H, W]` that cover `all`.
fn crop(planes: &[f32], all: Rect, rect: Rect) -> Vec<f32> {
    planes
        .chunks_exact(all.area())
        .flat_map(|plane| {
            (rect.y..rect.y + rect.height).flat_map(|y| {
                plane[y * all.width + rect.x..][..rect.width]
                    .iter()
                    .copied()
            })
        })
        .collect()
}

/// A picture in normalised units with edges, gradients and texture; the same everywhere.
pub(crate) fn test_picture(size: Size) -> Picture {
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
    Picture { size, data }
}

/// Features with unit variance or so on the test grid.
fn test_features(dim: usize) -> Features {
    let (width, height) = GRID;
    let data = (0..dim * width * height)
        .map(|i| (hash(i) - 0.5) * 3.5)
        .collect();
    Features {
        dim,
        height,
        width,
        data,
    }
}

/// 0 to 1, scrambled.
fn hash(i: usize) -> f32 {
    let x = (i as u32).wrapping_add(1).wrapping_mul(0x9E37_79B9);
    let x = (x ^ (x >> 15)).wrapping_mul(0x85EB_CA6B);
    let x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE35);
    ((x ^ (x >> 16)) >> 8) as f32 / (1u32 << 24) as f32
}
