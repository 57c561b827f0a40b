//! Maps of an image by each upsampling method.

use loftup_bundle::Size;
use loftup_runtime::{
    ColorRange, Perceptor, Rect,
    heads::Head,
    image::{Orientation, RgbImage},
    sinks::VecSink,
};
use rayon::prelude::*;

use crate::{
    EvalError, Method,
    sampling::{Encoded, Encoder},
};

/// Features of every pixel of an image by one method, `[height * width, dim]`, at `size` or the
/// backbone's own size. Returns the size, too.
///
/// # Errors
/// Where the bundle has no backbone, or none of the upsampler that the method needs, or the engine
/// fails.
pub fn features(
    perceptor: &Perceptor,
    image: &RgbImage,
    size: Option<Size>,
    range: ColorRange,
    method: Method,
) -> Result<(Size, Vec<f32>), EvalError> {
    let encoder = Encoder::new(perceptor, size, range, Orientation::Upright)?;
    check_methods(perceptor, &[method])?;
    let encoded = encoder.encode(image)?;
    Ok((encoder.size, encoder.map(method, &encoded, None)?))
}

/// The methods to compare: those given, or all that the bundle supports.
pub(crate) fn methods_or_all(
    perceptor: &Perceptor,
    methods: &[Method],
) -> Result<Vec<Method>, EvalError> {
    if methods.is_empty() {
        return Ok(Method::of(perceptor.manifest()));
    }
    check_methods(perceptor, methods)?;
    Ok(methods.to_vec())
}

fn check_methods(perceptor: &Perceptor, methods: &[Method]) -> Result<(), EvalError> {
    let able = Method::of(perceptor.manifest());
    match methods.iter().find(|m| !able.contains(m)) {
        Some(method) => Err(EvalError::Request(format!(
            "the bundle has no upsampler for {}; convert it with --upsampler-weights",
            method.name()
        ))),
        None => Ok(()),
    }
}

impl Encoder<'_> {
    /// Features of every pixel, `[height * width, dim]`, or the outputs of `head` on them.
    pub fn map(
        &self,
        method: Method,
        encoded: &Encoded,
        head: Option<&Head>,
    ) -> Result<Vec<f32>, EvalError> {
        let tokens = &encoded.features;
        let dim = head.map_or(tokens.dim, Head::outputs);
        let Some(weights) = self.weights(method, encoded) else {
            let mut view = self.view(encoded, self.range)?;
            if let Some(head) = head {
                view = view.with_head(head)?;
            }
            let mut sink = VecSink::new(Rect::whole(self.size), dim)?;
            view.frame(&mut |tile| sink.push(tile))?;
            return Ok(sink.into_values());
        };
        // Checks that it fits into memory.
        let mut map = VecSink::new(Rect::whole(self.size), dim)?.into_values();
        let rows = map.par_chunks_mut(self.size.width * dim).enumerate();
        let buffers = || (Vec::new(), Vec::new(), Vec::new());
        rows.for_each_init(buffers, |(scratch, row, outputs), (y, line)| {
            weights.row(&tokens.tokens, tokens.dim, y, scratch, row);
            match head {
                Some(head) => {
                    outputs.clear();
                    head.apply(row, outputs);
                    line.copy_from_slice(outputs);
                }
                None => line.copy_from_slice(row),
            }
        });
        Ok(map)
    }
}
