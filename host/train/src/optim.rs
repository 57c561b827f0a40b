//! PyTorch's optimizers NAdam and AdamW.

use serde::{Deserialize, Serialize};

use crate::model::{Params, host_values};

/// The type of optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Adam with Nesterov momentum (Dozat, 2016); weight decay is added to the gradient.
    NAdam,
    /// Adam with decoupled weight decay (Loshchilov and Hutter, 2019).
    AdamW,
}

/// Settings of an optimizer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// The type of optimizer.
    pub method: Method,
    /// Learning rate.
    pub learning_rate: f64,
    /// Weight decay.
    pub weight_decay: f64,
}

/// Decay of the first moment.
const BETA1: f64 = 0.9;
/// Decay of the second moment.
const BETA2: f64 = 0.999;
/// Added to the square root of the second moment.
const EPS: f64 = 1e-8;
/// Decay of NAdam's momentum schedule.
const MOMENTUM_DECAY: f64 = 4e-3;

/// An optimizer with its state.
#[derive(Debug, Clone)]
pub struct Optimizer {
    /// Settings.
    pub settings: Settings,
    /// Moving average of the gradients.
    pub exp_avg: Params,
    /// Moving average of the squared gradients.
    pub exp_avg_sq: Params,
    /// The scalar state.
    pub counters: Counters,
}

/// The scalar state of an optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Completed steps.
    pub steps: u64,
    /// Product of NAdam's momentum schedule.
    pub mu_product: f64,
}

impl Optimizer {
    /// Creates an optimizer for weights of these shapes.
    pub fn new(settings: Settings, weights: &Params) -> Self {
        let zeros = weights.map(|_, w| w.clone().inner().zeros_like());
        let counters = Counters {
            steps: 0,
            mu_product: 1.0,
        };
        Self {
            settings,
            exp_avg: zeros.clone(),
            exp_avg_sq: zeros,
            counters,
        }
    }

    /// Returns the weights after a step.
    pub fn step(&mut self, weights: &Params, gradients: &Params) -> Params {
        let Settings {
            method,
            learning_rate: rate,
            weight_decay: decay,
        } = self.settings;
        self.counters.steps += 1;
        let t = self.counters.steps as f64;
        let momentum = |t: f64| BETA1 * (1.0 - 0.5 * 0.96f64.powf(t * MOMENTUM_DECAY));
        // Coefficients of the gradient and of its moving average in the step.
        let (of_gradient, of_mean) = match method {
            Method::AdamW => (0.0, rate / (1.0 - BETA1.powf(t))),
            Method::NAdam => {
                let (now, next) = (momentum(t), momentum(t + 1.0));
                self.counters.mu_product *= now;
                let product = self.counters.mu_product;
                (
                    rate * (1.0 - now) / (1.0 - product),
                    rate * next / (1.0 - product * next),
                )
            }
        };
        let correction = 1.0 - BETA2.powf(t);
        let (mut first, mut second) = (Params::default(), Params::default());
        std::mem::swap(&mut first, &mut self.exp_avg);
        std::mem::swap(&mut second, &mut self.exp_avg_sq);
        let decayed = |w: burn::tensor::Tensor<2>, g: burn::tensor::Tensor<2>| {
            if method == Method::NAdam && decay != 0.0 {
                g + w * decay
            } else {
                g
            }
        };
        let gradients = weights.zip(gradients, decayed);
        self.exp_avg = first.zip(&gradients, |m, g| m * BETA1 + g * (1.0 - BETA1));
        self.exp_avg_sq = second.zip(&gradients, |v, g| v * BETA2 + g.square() * (1.0 - BETA2));
        weights.map(|name, w| {
            let mean = self.exp_avg.get(name);
            let root = (self.exp_avg_sq.get(name) / correction).sqrt() + EPS;
            match method {
                Method::AdamW => w.clone() * (1.0 - rate * decay) - mean / root * of_mean,
                Method::NAdam => {
                    w.clone()
                        - gradients.get(name) / root.clone() * of_gradient
                        - mean / root * of_mean
                }
            }
        })
    }
}

/// Scales gradients so that their global norm is at most `most`. Returns the previous norm.
pub fn clip(gradients: &Params, most: f64) -> (Params, f64) {
    let norm = norm(gradients);
    let scale = (most / (norm + 1e-6)).min(1.0);
    (gradients.map(|_, g| g.clone() * scale), norm)
}

/// The Euclidean norm of all values.
pub fn norm(values: &Params) -> f64 {
    let square = |name: &str| -> f64 {
        host_values(&values.get(name))
            .iter()
            .map(|x| f64::from(*x) * f64::from(*x))
            .sum()
    };
    values.names().map(square).sum::<f64>().sqrt()
}

/// Updates an exponential moving average: `decay * average + (1 - decay) * new`.
pub fn ema(average: &Params, new: &Params, decay: f64) -> Params {
    average.zip(new, |a, n| a * decay + n * (1.0 - decay))
}
