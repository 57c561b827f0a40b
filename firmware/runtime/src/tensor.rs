//! Images as the model takes them.

use loftup_bundle::Size;

use crate::{RuntimeError, error::check_finite, npy};

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
    pub(crate) resized: Option<ImageTensor>,
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
