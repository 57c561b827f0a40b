//! Reference outputs: the outputs of the fp32 graphs for the built-in test inputs.

use safetensors::SafeTensors;

use super::{
    manifest::{Backbone, Manifest, Upsampler},
    reference::References,
    tensors,
};

/// Reference outputs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReferenceOutputs {
    /// Backbone, `[cells + 2, d]`: its features at [`References::cells`], then mean and standard
    /// deviation of each channel over all cells.
    pub backbone: Option<Vec<f32>>,
    /// Upsampler, `[References::PIXELS, d]`.
    pub upsampler: Option<Vec<f32>>,
}

const BACKBONE: &str = "backbone";
const UPSAMPLER: &str = "upsampler";

impl ReferenceOutputs {
    /// Serializes to a safetensors file with the tensors `backbone` and `upsampler`, F32.
    ///
    /// # Errors
    /// A length does not match the parts of `manifest`.
    pub fn to_bytes(&self, manifest: &Manifest) -> Result<Vec<u8>, String> {
        let backbone = manifest.backbone.as_ref().map(backbone_shape);
        let upsampler = manifest.upsampler.as_ref().map(upsampler_shape);
        let mut parts: Vec<(&str, &[usize], &[f32])> = Vec::new();
        if let (Some(values), Some(shape)) = (&self.backbone, &backbone) {
            parts.push((BACKBONE, shape, values));
        }
        if let (Some(values), Some(shape)) = (&self.upsampler, &upsampler) {
            parts.push((UPSAMPLER, shape, values));
        }
        tensors::write(&parts)
    }

    /// Reads the output of [`ReferenceOutputs::to_bytes`] for the parts of `manifest`.
    ///
    /// # Errors
    /// A tensor is missing, has a different shape, or contains NaN or infinity.
    pub fn from_bytes(bytes: &[u8], manifest: &Manifest) -> Result<Self, String> {
        let file = SafeTensors::deserialize(bytes).map_err(|e| format!("not safetensors: {e}"))?;
        let backbone = manifest.backbone.as_ref();
        let backbone = backbone.map(|b| tensors::read(&file, BACKBONE, &backbone_shape(b)));
        let upsampler = manifest.upsampler.as_ref();
        let upsampler = upsampler.map(|u| tensors::read(&file, UPSAMPLER, &upsampler_shape(u)));
        Ok(Self {
            backbone: backbone.transpose()?,
            upsampler: upsampler.transpose()?,
        })
    }
}

fn backbone_shape(b: &Backbone) -> [usize; 2] {
    let cells = (b.size.width / b.patch) * (b.size.height / b.patch);
    [cells.min(References::CELLS) + 2, b.dim]
}

fn upsampler_shape(u: &Upsampler) -> [usize; 2] {
    [References::PIXELS, u.dim]
}
