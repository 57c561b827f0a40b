//! Dense features of an image on a grid of any size, by any method.

use loftup_bundle::Size;
use loftup_runtime::{
    ColorRange, Perceptor,
    image::{Orientation, RgbImage},
};

use crate::{
    EvalError, Method,
    sampling::{Encoded, Encoder},
};

/// Makes features on a grid from images.
///
/// The backbone runs at the bundle's own size; the guidance is the image at the size of the grid.
pub struct Dense<'a> {
    encoder: Encoder<'a>,
    methods: Vec<Method>,
}

/// An image after the backbone.
pub struct EncodedImage(Encoded);

impl<'a> Dense<'a> {
    /// By these methods; by all that the bundle supports if there are none.
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

    /// Channels.
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

    /// The features by one method, `[height * width, dim]`.
    ///
    /// # Errors
    /// The engine fails.
    pub fn features(
        &self,
        method: Method,
        EncodedImage(encoded): &EncodedImage,
        out: &mut Vec<f32>,
    ) -> Result<(), EvalError> {
        let (Size { width, height }, dim) = (self.grid(), self.dim());
        out.clear();
        if let Some(weights) = self.encoder.weights(method, encoded) {
            let (mut scratch, mut row) = (Vec::new(), Vec::new());
            for y in 0..height {
                weights.row(&encoded.features.tokens, dim, y, &mut scratch, &mut row);
                out.extend_from_slice(&row);
            }
            return Ok(());
        }
        out.resize(width * height * dim, 0.0);
        let view = self.encoder.view(encoded, self.encoder.range)?;
        view.frame(&mut |tile| {
            for y in 0..tile.rect.height {
                let row = tile.row(y);
                let first = ((tile.rect.y + y) * width + tile.rect.x) * dim;
                out[first..][..row.len()].copy_from_slice(row);
            }
            Ok(())
        })?;
        Ok(())
    }
}
