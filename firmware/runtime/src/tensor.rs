//! Images as model inputs.

use loftup_bundle::{Normalization, Size};

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
    /// Creates an image from an array `[1, 3, H, W]` that is already normalized.
    ///
    /// # Errors
    /// If the array has a different shape or contains NaN.
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

impl ImageTensor {
    /// Converts the image to 8 bits per channel, `[H, W, 3]`.
    pub fn to_rgb(&self, Normalization { mean, std }: &Normalization) -> Vec<u8> {
        let area = self.size.area();
        let level = |i: usize, c: usize| {
            let x = self.data[c * area + i] * std[c] + mean[c];
            (x * 255.0).round().clamp(0.0, 255.0) as u8
        };
        (0..area)
            .flat_map(|i| (0..3).map(move |c| level(i, c)))
            .collect()
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
    /// Uses the same image for the backbone and the guidance.
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
