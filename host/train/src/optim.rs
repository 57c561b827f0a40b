//! Optimisers as PyTorch has them, over a whole set of weights.

use serde::{Deserialize, Serialize};

use crate::model::{Params, host_values};

/// Which optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Adam with Nesterov momentum (Dozat, 2016), weight decay added to the gradient.
    NAdam,
    /// Adam with decoupled weight decay (Loshchilov and Hutter, 2019).
    AdamW,
}

/// Settings of an optimiser.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Which optimiser.
    pub method: Method,
    /// Learning rate.
    pub rate: f64,
    /// Weight decay.
    pub decay: f64,
}

/// How fast the first moment forgets.
const BETA1: f64 = 0.9;
/// How fast the second moment forgets.
const BETA2: f64 = 0.999;
/// Added to the root of the second moment.
const EPS: f64 = 1e-8;
/// How fast NAdam's momentum grows to its full strength.
const MOMENTUM_DECAY: f64 = 4e-3;

/// An optimiser with its state.
#[derive(Debug, Clone)]
pub struct Optimizer {
    /// Settings.
    pub settings: Settings,
    /// Mean of the gradients.
    pub first: Params,
    /// Mean of their squares.
    pub second: Params,
    /// The numbers of its state.
    pub counters: Counters,
}

/// The numbers of an optimiser's state.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Steps done.
    pub steps: u64,
    /// Product of NAdam's momenta.
    pub momenta: f64,
}

impl Optimizer {
    /// A new optimiser for weights of these shapes.
    pub fn new(settings: Settings, weights: &Params) -> Self {
        let zeros = weights.map(|_, w| w.clone().inner().zeros_like());
        let counters = Counters {
            steps: 0,
            momenta: 1.0,
        };
        Self {
            settings,
            first: zeros.clone(),
            second: zeros,
            counters,
        }
    }

    /// The weights after a step along `gradients`.
    pub fn step(&mut self, weights: &Params, gradients: &Params) -> Params {
        let Settings {
            method,
            rate,
            decay,
        } = self.settings;
        self.counters.steps += 1;
        let t = self.counters.steps as f64;
        let momentum = |t: f64| BETA1 * (1.0 - 0.5 * 0.96f64.powf(t * MOMENTUM_DECAY));
        // How much of the gradient and of its mean go into the step.
        let (of_gradient, of_mean) = match method {
            Method::AdamW => (0.0, rate / (1.0 - BETA1.powf(t))),
            Method::NAdam => {
                let (now, next) = (momentum(t), momentum(t + 1.0));
                self.counters.momenta *= now;
                let product = self.counters.momenta;
                (
                    rate * (1.0 - now) / (1.0 - product),
                    rate * next / (1.0 - product * next),
                )
            }
        };
        let correction = 1.0 - BETA2.powf(t);
        let (mut first, mut second) = (Params::default(), Params::default());
        std::mem::swap(&mut first, &mut self.first);
        std::mem::swap(&mut second, &mut self.second);
        let decayed = |w: burn::tensor::Tensor<2>, g: burn::tensor::Tensor<2>| {
            if method == Method::NAdam && decay != 0.0 {
                g + w * decay
            } else {
                g
            }
        };
        let gradients = weights.zip(gradients, decayed);
        self.first = first.zip(&gradients, |m, g| m * BETA1 + g * (1.0 - BETA1));
        self.second = second.zip(&gradients, |v, g| v * BETA2 + g.square() * (1.0 - BETA2));
        weights.map(|name, w| {
            let mean = self.first.get(name);
            let root = (self.second.get(name) / correction).sqrt() + EPS;
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

/// Scales gradients so that the norm of all together is at most `most`. Returns the norm before.
pub fn clip(gradients: &Params, most: f64) -> (Params, f64) {
    let norm = norm(gradients);
    let scale = (most / (norm + 1e-6)).min(1.0);
    (gradients.map(|_, g| g.clone() * scale), norm)
}

/// The Euclidean norm of all values together.
pub fn norm(values: &Params) -> f64 {
    let square = |name: &str| -> f64 {
        host_values(&values.get(name))
            .iter()
            .map(|x| f64::from(*x) * f64::from(*x))
            .sum()
    };
    values.names().map(square).sum::<f64>().sqrt()
}

/// `old` moved towards `new`: an exponential moving average.
pub fn average(old: &Params, new: &Params, keep: f64) -> Params {
    old.zip(new, |o, n| o * keep + n * (1.0 - keep))
}
