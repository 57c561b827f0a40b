//! Probabilities of SigLIP.

/// Conversion of a cosine of SigLIP to a probability, `sigmoid(exp(scale) cosine + bias)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Logit {
    /// The logarithm of the factor: `logit_scale` in the weights.
    pub scale: f32,
    /// `logit_bias` in the weights.
    pub bias: f32,
}

impl Logit {
    /// The probability that a text describes an image, from the cosine of their embeddings.
    pub fn probability(&self, cosine: f64) -> f64 {
        let logit = f64::from(self.scale).exp() * cosine + f64::from(self.bias);
        1.0 / (1.0 + (-logit).exp())
    }

    /// The cosine of a probability between 0 and 1.
    pub fn cosine(&self, probability: f64) -> f64 {
        let logit = (probability / (1.0 - probability)).ln();
        (logit - f64::from(self.bias)) / f64::from(self.scale).exp()
    }
}
