//! Dense features of an image on a grid of any size, by any upsampling method.

use loftup_bundle::Size;
use loftup_runtime::{
    ColorRange, NafStatistics, Perceptor, Rect,
    heads::Head,
    image::{Orientation, RgbImage},
    sinks::VecSink,
};
use rayon::prelude::*;

use crate::{
    EvalError, Method,
    sampling::{Encoded, Encoder},
};

/// Computes features of images on a grid.
///
/// The backbone runs at its default size; the guidance is the image at the size of the grid.
pub struct Dense<'a> {
    encoder: Encoder<'a>,
    methods: Vec<Method>,
}

/// An image after the backbone.
pub struct EncodedImage(Encoded);

impl<'a> Dense<'a> {
    /// Uses these methods, or all that the bundle supports if there are none.
    ///
    /// # Errors
    /// The bundle has no backbone, or no upsampler for a method, or the grid is empty or too large.
    pub fn new(
        perceptor: &'a Perceptor,
        grid: Size,
        range: ColorRange,
        methods: Vec<Method>,
    ) -> Result<Self, EvalError> {
        let encoder = Encoder::new(perceptor, Some(grid), range, Orientation::Upright)?;
        let methods = Method::checked(perceptor.manifest(), methods)?;
        Ok(Self { encoder, methods })
    }

    /// The methods.
    pub fn methods(&self) -> &[Method] {
        &self.methods
    }

    /// Size of the grid.
    pub fn grid(&self) -> Size {
        self.encoder.size
    }

    /// Number of channels.
    pub fn dim(&self) -> usize {
        let backbone = &self.encoder.perceptor.manifest().backbone;
        backbone.as_ref().map_or(0, |b| b.dim)
    }

    /// Runs the backbone.
    ///
    /// # Errors
    /// The engine fails.
    pub fn encode(&self, image: &RgbImage) -> Result<EncodedImage, EvalError> {
        Ok(EncodedImage(self.encoder.encode_at_own_size(image)?))
    }

    /// Computes the features by one method, `[height * width, dim]`. `statistics` are those of the video,
    /// for NAF.
    ///
    /// # Errors
    /// The engine fails.
    pub fn features(
        &self,
        method: Method,
        EncodedImage(encoded): &EncodedImage,
        statistics: &mut NafStatistics,
    ) -> Result<Vec<f32>, EvalError> {
        self.encoder.map_video(method, encoded, None, statistics)
    }
}

/// Computes the features of every pixel of an image by one method, `[height * width, dim]`, at `size` or
/// the backbone's default size. Also returns the size.
///
/// # Errors
/// If the bundle has no backbone or lacks the upsampler for the method, or the engine fails.
pub fn features(
    perceptor: &Perceptor,
    image: &RgbImage,
    size: Option<Size>,
    range: ColorRange,
    method: Method,
) -> Result<(Size, Vec<f32>), EvalError> {
    let encoder = Encoder::new(perceptor, size, range, Orientation::Upright)?;
    Method::checked(perceptor.manifest(), vec![method])?;
    let encoded = encoder.encode(image)?;
    Ok((encoder.size, encoder.map(method, &encoded, None)?))
}

impl Encoder<'_> {
    /// Computes the features of every pixel, `[height * width, dim]`, or the outputs of `head` on them.
    pub fn map(
        &self,
        method: Method,
        encoded: &Encoded,
        head: Option<&Head>,
    ) -> Result<Vec<f32>, EvalError> {
        self.map_video(method, encoded, head, &mut NafStatistics::every(1))
    }

    /// Same as [`Self::map`] for the next frame of a video.
    fn map_video(
        &self,
        method: Method,
        encoded: &Encoded,
        head: Option<&Head>,
        statistics: &mut NafStatistics,
    ) -> Result<Vec<f32>, EvalError> {
        let tokens = &encoded.features;
        let dim = head.map_or(tokens.dim, Head::outputs);
        let Some(weights) = self.weights(method, encoded) else {
            let Encoded {
                features, guidance, ..
            } = encoded;
            let mut view =
                (self.perceptor).encode_video(features, guidance, self.range, statistics)?;
            if let Some(head) = head {
                view = view.with_head(head)?;
            }
            let mut sink = VecSink::new(Rect::whole(self.size), dim)?;
            view.frame(&mut |tile| sink.push(tile))?;
            return Ok(sink.into_values());
        };
        // `VecSink` checks that the map fits into memory.
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
