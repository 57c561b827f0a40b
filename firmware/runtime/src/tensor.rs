//! Images as the model takes them.

use loftup_bundle::{Normalization, Size};

use crate::{Perceptor, RuntimeError, error::check_finite, image::RgbImage, npy};

/// A normalized image.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageTensor {
    /// Its size.
    pub size: Size,
    /// `[3, H, W]`.
    pub data: Vec<f32>,
}

impl ImageTensor {
    /// From an array `[1, 3, H, W]` that is already normalized.
    ///
    /// # Errors
    /// Where it has another shape or holds NaN.
    pub fn from_array(array: npy::Array) -> Result<Self, RuntimeError> {
        match array.shape[..] {
            [1, 3, height, width] if height > 0 && width > 0 => {
                check_finite("the image's values", &array.data)?;
                Ok(Self {
                    size: Size { width, height },
                    data: array.data,
                })
            }
            _ => Err(RuntimeError::ImageShape { found: array.shape }),
        }
    }
}

/// A preprocessed image: the inputs of the backbone and of the upsampler.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameInputs {
    /// The image at the size of the output.
    pub guidance: ImageTensor,
    /// The image at the backbone's input size; `None` where `guidance` has that size.
    resized: Option<ImageTensor>,
}

impl FrameInputs {
    /// An image that the backbone takes as it is.
    pub fn same_size(image: ImageTensor) -> Self {
        Self {
            guidance: image,
            resized: None,
        }
    }

    /// The input of the backbone.
    pub fn backbone(&self) -> &ImageTensor {
        self.resized.as_ref().unwrap_or(&self.guidance)
    }
}

impl Perceptor {
    /// Resizes an image and normalizes it with the bundle's mean and standard deviation.
    ///
    /// # Errors
    /// Where a side is 0 or too long.
    pub fn to_tensor(&self, image: &RgbImage, size: Size) -> Result<ImageTensor, RuntimeError> {
        let Normalization { mean, std } = self.manifest().normalization;
        let resized = image.resized(size.width, size.height)?;
        Ok(ImageTensor {
            size,
            data: resized.normalized(mean, std),
        })
    }

    /// Preprocesses an image for an output of `size`.
    ///
    /// # Errors
    /// Where a side is 0 or too long, or the bundle has no backbone.
    pub fn preprocess(&self, image: &RgbImage, size: Size) -> Result<FrameInputs, RuntimeError> {
        let input = self.backbone_size(size)?;
        let resized = (input != size)
            .then(|| self.to_tensor(image, input))
            .transpose()?;
        Ok(FrameInputs {
            guidance: self.to_tensor(image, size)?,
            resized,
        })
    }
}
