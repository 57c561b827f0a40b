//! The frozen weights of the positional channels.

use burn::tensor::Device;
use loftup_onnx::Tensor;

use super::{ANGLES, conv, layer};
use crate::model::{LoftUp, Params, host_values};

/// The weights of the positional channels, which are not trained.
#[derive(Debug, Clone)]
pub struct Frozen {
    /// For tensors with frozen weights: 1 for a frozen weight, 0 for others.
    masks: Params,
}

/// Whether a row of a matrix is frozen.
type Rows = Box<dyn Fn(usize) -> bool>;

impl Frozen {
    /// Finds the positional channels of an upsampler, if it has any: the first channels, as long as the
    /// second convolution passes them unchanged.
    pub fn find(upsampler: &LoftUp, device: &Device) -> Option<Self> {
        let (name, e) = (&conv(4, "weight"), upsampler.config.width());
        if upsampler.weights.shape(name)? != [e, e, 3, 3] {
            return None;
        }
        let taps = host_values(&upsampler.weights.get(name));
        let passed_on = |(row, taps): &(usize, &[f32])| {
            let mut taps = taps.iter().enumerate();
            taps.all(|(i, &tap)| tap == f32::from(i == row * 9 + 4))
        };
        let channels = taps
            .chunks_exact(9 * e)
            .enumerate()
            .take_while(passed_on)
            .count();
        (channels > 0).then(|| Self::new(upsampler, channels, device))
    }

    /// Freezes the first `channels` channels of an upsampler.
    fn new(upsampler: &LoftUp, channels: usize, device: &Device) -> Self {
        let (d, e) = (upsampler.config.dim, upsampler.config.width());
        let head = e / upsampler.config.heads;
        let wanted = |name: &str| -> Option<(usize, Rows)> {
            let positional = move |row: usize| row < channels;
            let key = move |row: usize| row / e == 1 && row % e % head < ANGLES;
            let first = format!("{}.0.attention.in_proj", layer(0));
            match name {
                "upsampler.fourier_feat.1.biases" | "upsampler.lr_pe.biases" => {
                    Some((1, Box::new(|_| true)))
                }
                "upsampler.first_conv.1.weight" => Some((
                    9 * upsampler.config.guidance_channels(),
                    Box::new(positional),
                )),
                "upsampler.first_conv.4.weight" => Some((9 * e, Box::new(positional))),
                _ if name.starts_with("upsampler.first_conv.") && !name.contains(".0.norm") => {
                    Some((1, Box::new(positional)))
                }
                _ if name == format!("{first}_weight") => Some((e, Box::new(key))),
                _ if name == format!("{first}_bias") => Some((1, Box::new(key))),
                // In the normalization before the keys, the weights of the sinusoids are frozen, too.
                _ if name == format!("{}.0.norm_kv.weight", layer(0)) => {
                    Some((1, Box::new(move |i| i >= d)))
                }
                _ => None,
            }
        };
        let masks = upsampler.weights.names().filter_map(|name| {
            let (columns, frozen) = wanted(name)?;
            let shape = upsampler.weights.shape(name)?.to_vec();
            let mask = Tensor::from_fn(shape, |i| f32::from(frozen(i / columns)));
            Some((name.to_string(), mask))
        });
        Self {
            masks: Params::new(masks, device),
        }
    }

    /// Returns `new` with the frozen weights of `old`.
    pub fn restore(&self, old: &Params, new: &Params) -> Params {
        new.map(|name, new| match self.masks.shape(name) {
            Some(_) => {
                // Products with 0 and 1, and sums with 0, are exact.
                let mask = self.masks.get(name);
                new.clone() * (mask.clone() * -1.0 + 1.0) + old.get(name) * mask
            }
            None => new.clone(),
        })
    }
}
