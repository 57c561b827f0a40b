//! Compares a backend with the bundle's reference outputs.
//!
//! A bundle contains the outputs of its 32-bit graphs for built-in test inputs. Any backend other than
//! the one that computed them is compared with them before its first output is used
//! ([`Perceptor::compare_with_references`]). `docs/bundle-format.md` specifies the format and the test
//! inputs.

mod error;
mod inputs;

use std::sync::atomic::Ordering::Relaxed;

use loftup_bundle::{
    HeadKind, Linear, Precision, ReferenceError, ReferenceOutputs, References, Size, UpsamplerKind,
};

pub use self::{
    error::{Comparison, error_of},
    inputs::{GUIDANCE, test_features, test_image},
};
use self::{
    error::{allowed, arithmetic_error},
    inputs::{GRID, IN_REGION, REGION, pixels},
};
pub use crate::self_test::Part;
use crate::{
    ColorRange, EncodedFrame, NafStatistics, Perceptor, Point, Rect, RuntimeError,
    backend::{Arithmetic, BackendError},
    encoded_frame::Upsampling,
    filter::naf::NafUpsampler,
    fused::{TEST_OUTPUTS, TestHead},
    heads::Head,
    sinks::VecSink,
    upsampler::SMALL_TILE,
};
pub(crate) use inputs::hash;

impl Perceptor {
    /// Computes the reference outputs from the test inputs.
    ///
    /// # Errors
    /// A graph fails.
    pub fn reference_outputs(&self) -> Result<ReferenceOutputs, RuntimeError> {
        let has = |part: bool| part.then_some(());
        Ok(ReferenceOutputs {
            backbone: has(self.manifest().backbone.is_some())
                .map(|()| self.reference_backbone())
                .transpose()?,
            upsampler: has(self.manifest().upsampler.is_some())
                .map(|()| self.reference_view(false, |view| view.points(&pixels())))
                .transpose()?,
        })
    }

    /// Compares every part with the bundle's reference outputs, on the backend in use. Empty for a
    /// bundle without reference outputs.
    ///
    /// # Errors
    /// A graph fails, or the reference file is damaged.
    pub fn compare_with_references(&self) -> Result<Vec<Comparison>, RuntimeError> {
        let arithmetic = self.backend.arithmetic(self.precision());
        let arithmetic = arithmetic.unwrap_or(Arithmetic::Fp32);
        let mut found = Vec::new();
        for part in [Part::Backbone, Part::Upsampler] {
            found.extend(self.compare(part, arithmetic)?.unwrap_or_default());
        }
        Ok(found)
    }

    /// Compares a part with the reference outputs once, before any of its outputs is used. Does nothing
    /// on the backend that computes the reference outputs.
    pub(crate) fn self_test(&self, part: Part) -> Result<(), RuntimeError> {
        let test = &self.tests[part as usize];
        let Some(arithmetic) = self.backend.arithmetic(self.precision()) else {
            return Ok(());
        };
        if test.done.load(Relaxed) {
            return Ok(());
        }
        let _held = test.running.lock();
        if test.done.load(Relaxed) {
            return Ok(());
        }
        let uses_fallback = || self.backend.health().reason().is_some();
        if uses_fallback() {
            // Not marked as done, since the preferred backend may be retried.
            return Ok(());
        }
        let engine = self.backend.describe();
        let Some(compared) = self.compare(part, arithmetic)? else {
            log::warn!(
                "{}: has no reference outputs, so the outputs of {engine} are not verified; convert the bundle again with this version",
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
                log::info!(
                    "{engine}: {part} ({}) matches the reference outputs: {c}",
                    c.asked
                );
            }
            test.done.store(true, Relaxed);
            return Ok(());
        };
        self.backend.distrust(self.wrong(&engine, wrong))?;
        // The fallback takes over permanently. If it is wrong as well, the bundle is at fault.
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

    /// Compares a part. Returns `None` if the bundle has no reference outputs, and an empty list if it
    /// does not have the part.
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
                    let files = u.graphs.get(&match u.kind {
                        UpsamplerKind::LoftUp => self.precision(),
                        // NAF has the same precision with every backbone.
                        UpsamplerKind::Naf => Precision::Fp32,
                    });
                    let graphs = files.map(|f| format!("{} and {}", f.keys, f.queries));
                    let graphs = graphs.unwrap_or_default();
                    let fused = self.upsampler.as_ref().and_then(|u| u.fused_heads());
                    self.reference_view(fused.is_some(), |view| {
                        for (asked, pixels, mut values) in outputs(view)? {
                            let mut head = None;
                            if let Some(fused) = fused {
                                let [features, found, expected] = fused.split_test(&values);
                                values = features;
                                head = Some(Comparison {
                                    part,
                                    asked: of_head(asked),
                                    graphs: graphs.clone(),
                                    found: error_of(&found, &expected, fused.test_dim() - u.dim),
                                    allowed: arithmetic_error(arithmetic),
                                });
                            }
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
                            compared.extend(head);
                        }
                        // With NAF, a head is applied to the features before they are upsampled.
                        if self.naf.as_ref().is_some_and(NafUpsampler::has_graphs) {
                            let head = test_head(u.dim)?;
                            let mut expected = Vec::new();
                            head.scores(reference, &mut expected);
                            let view = view.clone().with_head(&head)?;
                            compared.push(Comparison {
                                part,
                                asked: of_head("points"),
                                graphs: graphs.clone(),
                                found: error_of(&view.points(&pixels())?, &expected, view.dim()),
                                allowed,
                            });
                        }
                        Ok(())
                    })?;
                    if let Some(fused) = fused {
                        fused.end_test();
                    }
                }
            }
        }
        Ok(Some(compared))
    }

    /// Backbone outputs in the layout of [`ReferenceOutputs::backbone`].
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

    /// Runs `query` on the encoded test inputs; with `test`, the output is
    /// [`crate::fused::Asked::Test`].
    fn reference_view<T>(
        &self,
        test: bool,
        query: impl FnOnce(&EncodedFrame<'_>) -> Result<T, RuntimeError>,
    ) -> Result<T, RuntimeError> {
        let grid = self.manifest().backbone.as_ref().map_or(GRID, |b| Size {
            width: b.size.width / b.patch,
            height: b.size.height / b.patch,
        });
        let dim = self.manifest().upsampler.as_ref().map_or(0, |u| u.dim);
        let features = test_features(dim, grid);
        let guidance = test_image(GUIDANCE);
        let mut view = self.encode_untested(
            &features,
            &guidance,
            ColorRange::PerImage,
            &mut NafStatistics::every(1),
        )?;
        if let Upsampling::LoftUp(frame) = &mut view.upsampling {
            frame.test = test;
        }
        query(&view)
    }
}

/// The error allowed for a part on an engine with this arithmetic.
pub(crate) fn allowed_error(
    perceptor: &Perceptor,
    part: Part,
    arithmetic: Arithmetic,
) -> ReferenceError {
    allowed(
        perceptor.manifest(),
        part,
        perceptor.precision(),
        arithmetic,
    )
}

/// A linear head for features of `dim` channels.
fn test_head(dim: usize) -> Result<Head, RuntimeError> {
    let TestHead { weight, bias, .. } = TestHead::new(dim);
    let linear = Linear {
        inputs: dim,
        weight,
        bias,
    };
    let kind = HeadKind::Descriptors {
        channels: TEST_OUTPUTS,
    };
    let file = String::new();
    Head::new(loftup_bundle::Head { kind, dim, file }, linear)
}

/// Returns the name of the comparison of a head's outputs with the CPU's for the same features.
fn of_head(asked: &'static str) -> &'static str {
    match asked {
        "points" => "head, points",
        "region" => "head, region",
        _ => "head, frame",
    }
}

type Outputs = (&'static str, std::ops::Range<usize>, Vec<f32>);

/// Returns the kept pixels for each kind of query that has its own profile in a TensorRT engine: the
/// kind, the indices of the pixels, and their values `[pixels, d]`.
fn outputs(view: &EncodedFrame<'_>) -> Result<Vec<Outputs>, RuntimeError> {
    let all = pixels();
    let in_region = References::PIXELS - IN_REGION..References::PIXELS;
    let mut found = vec![("points", 0..all.len(), view.points(&all)?)];
    let mut region = VecSink::new(REGION, view.dim())?;
    view.region(REGION, &mut |tile| region.push(tile))?;
    let values = at(region.values(), REGION, &all[in_region.clone()]);
    found.push(("region", in_region, values));
    if view.frame_tile() > SMALL_TILE {
        let rect = Rect::whole(GUIDANCE);
        let mut frame = VecSink::new(rect, view.dim())?;
        view.frame(&mut |tile| frame.push(tile))?;
        found.push(("frame", 0..all.len(), at(frame.values(), rect, &all)));
    }
    Ok(found)
}

/// Returns the values at `pixels`, `[pixels, d]`, from `values` `[H, W, d]` of `rect`.
fn at(values: &[f32], rect: Rect, pixels: &[Point]) -> Vec<f32> {
    let dim = values.len() / rect.area();
    let index = |p: &Point| (p.y - rect.y) * rect.width + p.x - rect.x;
    let values = |p: &Point| values[index(p) * dim..][..dim].iter().copied();
    pixels.iter().flat_map(values).collect()
}
