//! The head at the end of a queries graph (`loftup_onnx::loftup::with_head`), on the CPU.

use loftup_spec::io;

use crate::dot::linear;

/// Returns the number of outputs of a head whose inputs have these shapes, for `dim` channels; `None` if the
/// shapes do not fit a head.
pub(super) fn outputs(shapes: &[Vec<usize>], dim: usize) -> Option<usize> {
    let [weight, bias, scale, offset] = shapes else {
        return None;
    };
    let [k] = bias[..] else { return None };
    let fit = *weight == [k, dim] && *scale == [dim] && *offset == [dim] && k > 0;
    fit.then_some(k)
}

/// An output of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    Upsampled,
    Head,
    Moments,
}

impl Output {
    pub fn of(name: &str) -> Option<Self> {
        match name {
            io::UPSAMPLED => Some(Self::Upsampled),
            io::HEAD => Some(Self::Head),
            io::MOMENTS => Some(Self::Moments),
            _ => None,
        }
    }
}

/// A head and its outputs for the last tile.
#[derive(Default)]
pub(super) struct Head {
    /// In the order of [`io::HEAD_INPUTS`].
    inputs: [Vec<f32>; 4],
    /// Whether scale and offset are the identity, so that features need no scaling.
    unscaled: bool,
    scaled: Vec<f32>,
    pub scores: Vec<f32>,
    pub moments: Vec<f32>,
}

impl Head {
    pub fn set(&mut self, input: usize, values: &[f32]) {
        self.inputs[input].clear();
        self.inputs[input].extend_from_slice(values);
        let [_, _, scale, offset] = &self.inputs;
        self.unscaled = scale.iter().all(|x| *x == 1.0) && offset.iter().all(|x| *x == 0.0);
    }

    /// Computes the wanted outputs for `features` `[n, dim]`.
    pub fn run(&mut self, features: &[f32], dim: usize, wanted: &[Output]) {
        let [weight, bias, scale, offset] = &self.inputs;
        self.scores.clear();
        self.moments.clear();
        let [scores, moments] = [Output::Head, Output::Moments].map(|o| wanted.contains(&o));
        if !scores && !moments {
            return;
        }
        for pixel in features.chunks_exact(dim) {
            let x = match self.unscaled {
                true => pixel,
                false => {
                    self.scaled.clear();
                    let affine = pixel.iter().zip(scale).zip(offset);
                    self.scaled.extend(affine.map(|((x, a), b)| x * a + b));
                    &self.scaled
                }
            };
            if scores {
                linear(weight, bias, x, &mut self.scores);
            }
            if moments {
                let n = dim as f32;
                let mean = x.iter().sum::<f32>() / n;
                let square = x.iter().map(|x| x * x).sum::<f32>() / n;
                self.moments.extend([mean, square]);
            }
        }
    }
}
