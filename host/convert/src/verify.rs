//! The checks a bundle must pass.

use std::{fmt, sync::Arc};

use loftup_bundle::{Bundle, Precision, ReferenceError, Size};
use loftup_runtime::{
    ColourRange, Features, Options, Perceptor, Picture, Point, Rect, RuntimeError,
    backend::{Backend, CpuBackend, compile_once},
    references::{test_features, test_picture},
    sinks::InMemory,
};
use loftup_spec::io;
use serde::Serialize;

use crate::compare::{Difference, Tolerance};
use crate::{quantize, references};

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
    /// The least cosine similarity to reference outputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least_cosine: Option<LeastCosine>,
}

/// A least cosine similarity and what it may be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LeastCosine {
    /// What was measured.
    pub found: f64,
    /// The least that it may be.
    pub least: f64,
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
            least_cosine: None,
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
            least_cosine: None,
        }
    }

    /// An error against reference outputs.
    pub(crate) fn error(name: &str, found: ReferenceError, allowed: ReferenceError) -> Self {
        let mut check = Self::most(name, found.relative_error, allowed.relative_error);
        check.passed &= found.cosine >= allowed.cosine;
        check.least_cosine = Some(LeastCosine {
            found: found.cosine,
            least: allowed.cosine,
        });
        check
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
            least_cosine: None,
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
        if let Some(c) = &self.least_cosine {
            write!(f, " (cosine {:.6} of {:.6})", c.found, c.least)?;
        }
        Ok(())
    }
}

/// Grid and guidance on which the upsampler is checked: odd, not square, several tiles.
const GRID: Size = Size {
    width: 5,
    height: 4,
};
const GUIDANCE: Size = Size {
    width: 43,
    height: 29,
};

/// [`verify_with`] on the CPU.
///
/// # Errors
/// Where something does not run at all.
pub fn verify(bundle: Bundle) -> Result<Vec<Check>, RuntimeError> {
    verify_with(bundle, Arc::new(CpuBackend))
}

/// Runs every graph of a bundle whose files have been checked: outputs finite, tiles as the whole,
/// regions and points as the frame, every precision as the bundle's reference outputs on the CPU and
/// on `backend`, and a quantised bundle no further from its 32-bit graphs than its manifest says. The whole graph that the tiles are compared with runs on the
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
        let features = test_features(dim, GRID);
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
    checks.extend(references::checks(&again, &engine)?);
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
    let plan = compile_once(
        &CpuBackend,
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
    )?;
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
