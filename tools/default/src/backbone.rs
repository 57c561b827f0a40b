//! Trains the backbone to predict what is in each patch of a scene, and where.
//!
//! Three linear heads on the final features are trained along and discarded: the class fractions in
//! a patch, the class fractions in each quarter of it, and the mean colors of the quarters. An
//! upsampler needs quarters and colors to tell which pixel of a patch belongs to what.

use std::{
    path::Path,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::sync_channel,
    },
};

use anyhow::{Context, Result, bail};
use burn::tensor::{Device, Tensor, activation::log_softmax};
use loftup_onnx::Tensor as HostTensor;
use loftup_scenes::CLASSES;
use loftup_train::{
    checkpoint,
    kernels::{Kernel, run},
    model::{Params, device_matrix, host_values},
    optim::{Method, Optimizer, Settings as OptimizerSettings, clip, ema},
    rng::{Purpose, Rng},
};

use crate::{
    Progress, SEED,
    scenes::{Labeled, Part, SIDE, labeled},
    vit::{Shape, Vit, patches},
};

/// Parts per side of a patch whose contents are predicted.
const PARTS: usize = 2;
const CLASS_COUNT: usize = CLASSES.len();

/// Training settings of the backbone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Its architecture.
    pub shape: Shape,
    /// Number of steps.
    pub steps: u64,
    /// Batch size.
    pub batch: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Warmup steps.
    pub warmup: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            shape: Shape::SHIPPED,
            steps: 5000,
            batch: 6,
            learning_rate: 1.5e-3,
            warmup: 150,
        }
    }
}

/// Decay of the exponential moving average of the weights.
const EMA_DECAY: f64 = 0.998;
/// Maximum gradient norm.
const CLIP: f64 = 1.0;
/// Weight decay.
const WEIGHT_DECAY: f64 = 0.02;
/// Steps between checkpoints.
const SAVE_EVERY: u64 = 200;
/// Number of validation frames.
const CHECKED: usize = 32;

/// Loss weight of objects, which cover little of an image, relative to sky, walls and ground.
const BODIES: f32 = 3.0;
/// Number of classes that are not objects: the first ones.
const SURROUNDINGS: usize = 4;
/// Loss weights of the class fractions in quarters, and of the colors.
const QUARTERS: f32 = 1.0;
const COLORS: f32 = 0.3;

/// ImageNet mean and standard deviation, as used by DINOv2.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// The normalized colors of an image, `[3, side, side]`.
pub fn normalized(rgb: &[u8]) -> Vec<f32> {
    let area = rgb.len() / 3;
    let mut out = vec![0.0; rgb.len()];
    for (i, pixel) in rgb.as_chunks::<3>().0.iter().enumerate() {
        for c in 0..3 {
            out[c * area + i] = (f32::from(pixel[c]) / 255.0 - MEAN[c]) / STD[c];
        }
    }
    out
}

/// The images of a step and their targets.
struct Batch {
    images: Vec<Vec<f32>>,
    /// Class fractions, `[batch * tokens, classes]`.
    whole: Vec<f32>,
    /// `[batch * tokens * quarters, classes]`.
    quarters: Vec<f32>,
    /// `[batch * tokens, quarters * 3]`.
    colors: Vec<f32>,
}

/// Mirrors the image horizontally.
fn mirror(frame: &mut Labeled) {
    for row in frame.rgb.chunks_exact_mut(SIDE * 3) {
        row.as_chunks_mut::<3>().0.reverse();
    }
    for row in frame.classes.chunks_exact_mut(SIDE) {
        row.reverse();
    }
}

impl Batch {
    fn new(shape: &Shape, frames: &[Labeled]) -> Self {
        let part = shape.patch / PARTS;
        let share = 1.0 / (part * part) as f32;
        let quarters = PARTS * PARTS;
        let mut batch = Self {
            images: Vec::new(),
            whole: Vec::new(),
            quarters: Vec::new(),
            colors: Vec::new(),
        };
        for frame in frames {
            let image = normalized(&frame.rgb);
            for token in 0..shape.tokens() {
                let mut whole = [0.0; CLASS_COUNT];
                for quarter in 0..quarters {
                    let top = token / shape.grid * shape.patch + quarter / PARTS * part;
                    let left = token % shape.grid * shape.patch + quarter % PARTS * part;
                    let (mut shares, mut color) = ([0.0; CLASS_COUNT], [0.0f32; 3]);
                    for y in top..top + part {
                        for x in left..left + part {
                            let at = y * SIDE + x;
                            shares[usize::from(frame.classes[at])] += share;
                            for (c, sum) in color.iter_mut().enumerate() {
                                *sum += image[c * SIDE * SIDE + at] * share;
                            }
                        }
                    }
                    for (w, s) in whole.iter_mut().zip(shares) {
                        *w += s / quarters as f32;
                    }
                    batch.quarters.extend(shares);
                    batch.colors.extend(color);
                }
                batch.whole.extend(whole);
            }
            batch.images.push(image);
        }
        batch
    }
}

/// The transformer and the heads that are discarded.
struct Trainable {
    vit: Vit,
    heads: Params,
}

impl Trainable {
    fn new(shape: Shape, rng: &mut Rng, device: &Device) -> Self {
        let vit = Vit::new(shape, rng, device);
        let mut heads = Params::default();
        let quarters = PARTS * PARTS;
        for (name, out) in [
            ("heads.whole", CLASS_COUNT),
            ("heads.quarters", quarters * CLASS_COUNT),
            ("heads.colors", quarters * 3),
        ] {
            let weight = HostTensor::from_fn([out, shape.width], |_| {
                rng.normal() / (shape.width as f32).sqrt()
            });
            heads.insert(format!("{name}.weight"), &weight, device);
            let bias = HostTensor::from_fn([out], |_| 0.0);
            heads.insert(format!("{name}.bias"), &bias, device);
        }
        Self { vit, heads }
    }

    fn weights(&self) -> Params {
        self.vit.weights.clone().joined(self.heads.clone())
    }

    fn with(&self, weights: &Params) -> Self {
        let is_head = |name: &str| name.starts_with("heads.");
        Self {
            vit: Vit {
                shape: self.vit.shape,
                weights: weights.only(|name| !is_head(name)),
            },
            heads: weights.only(is_head),
        }
    }

    fn head(&self, features: &Tensor<2>, name: &str) -> Tensor<2> {
        let part = |what: &str| self.heads.get(&format!("heads.{name}.{what}"));
        run(
            Kernel::Linear,
            features.clone(),
            part("weight"),
            part("bias"),
        )
    }

    fn loss(&self, batch: &Batch, device: &Device) -> Tensor<1> {
        let shape = self.vit.shape;
        let slices: Vec<&[f32]> = batch.images.iter().map(Vec::as_slice).collect();
        let n = slices.len();
        let features = self.vit.forward(patches(&shape, &slices, device), n);
        let rows = n * shape.tokens();
        let quarters = PARTS * PARTS;
        let cross_entropy = |scores: Tensor<2>, shares: &[f32]| {
            let rows = shares.len() / CLASS_COUNT;
            let weighted = shares.iter().enumerate().map(|(i, share)| {
                let body = i % CLASS_COUNT >= SURROUNDINGS;
                if body { BODIES * share } else { *share }
            });
            let shares = device_matrix(weighted.collect(), rows, CLASS_COUNT, device);
            -sum(log_softmax(scores, 1) * shares) / rows as f32
        };
        let whole = cross_entropy(self.head(&features, "whole"), &batch.whole);
        let parts = self
            .head(&features, "quarters")
            .reshape([rows * quarters, CLASS_COUNT]);
        let parts = cross_entropy(parts, &batch.quarters);
        let colors = device_matrix(batch.colors.clone(), rows, quarters * 3, device);
        let difference = self.head(&features, "colors") - colors;
        let colors = sum(difference.square()) / (rows * quarters * 3) as f32;
        whole + parts * QUARTERS + colors * COLORS
    }
}

/// The sum of all elements, always in the same order.
fn sum(x: Tensor<2>) -> Tensor<1> {
    x.sum_dim(1).sum()
}

/// Mean IoU on validation images, where every pixel gets the class that the backbone's own head
/// predicts with the largest fraction in its patch.
fn check(net: &Trainable, frames: &[Labeled], device: &Device) -> f64 {
    let shape = net.vit.shape;
    let (mut hits, mut seen, mut there) = (
        [0u64; CLASS_COUNT],
        [0u64; CLASS_COUNT],
        [0u64; CLASS_COUNT],
    );
    for block in frames.chunks(16) {
        let images: Vec<Vec<f32>> = block.iter().map(|f| normalized(&f.rgb)).collect();
        let slices: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
        let features = net
            .vit
            .forward(patches(&shape, &slices, device), block.len());
        let scores = host_values(&net.head(&features, "whole"));
        for (i, scores) in scores.chunks_exact(CLASS_COUNT).enumerate() {
            let best = (0..CLASS_COUNT)
                .max_by(|a, b| scores[*a].total_cmp(&scores[*b]))
                .unwrap_or(0);
            let (frame, token) = (&block[i / shape.tokens()], i % shape.tokens());
            for y in 0..shape.patch {
                let row = (token / shape.grid * shape.patch + y) * SIDE;
                for x in 0..shape.patch {
                    let class =
                        usize::from(frame.classes[row + token % shape.grid * shape.patch + x]);
                    hits[class] += u64::from(class == best);
                    seen[best] += 1;
                    there[class] += 1;
                }
            }
        }
    }
    log::debug!("correct by class: {hits:?} of {there:?}, predicted {seen:?}");
    let of = |c: usize| hits[c] as f64 / (seen[c] + there[c] - hits[c]).max(1) as f64;
    let classes: Vec<f64> = (0..CLASS_COUNT).filter(|c| there[*c] > 0).map(of).collect();
    classes.iter().sum::<f64>() / classes.len().max(1) as f64
}

/// File name of the checkpoint.
const CHECKPOINT: &str = "backbone-checkpoint.safetensors";

/// Trains the backbone, or resumes from the checkpoint in `work`. Returns its tensors, and the
/// final result of `check`.
///
/// # Errors
/// A checkpoint cannot be read or written, or was made with other settings.
pub fn train(
    settings: &Settings,
    work: &Path,
    device: &Device,
    stop: &AtomicBool,
    progress: Progress<'_>,
) -> Result<std::collections::BTreeMap<String, HostTensor>> {
    let shape = settings.shape;
    if shape.patch * shape.grid != SIDE || !shape.patch.is_multiple_of(PARTS) {
        bail!(
            "patches of {} on a grid of {}: scenes are {SIDE} pixels wide",
            shape.patch,
            shape.grid
        );
    }
    let mut net = Trainable::new(shape, &mut Rng::new(SEED, Purpose::Weights, 0), device);
    let mut optimizer = Optimizer::new(
        OptimizerSettings {
            method: Method::AdamW,
            learning_rate: settings.learning_rate,
            weight_decay: WEIGHT_DECAY,
        },
        &net.weights(),
    );
    let mut mean = net.weights();
    let mut done = 0;
    let file = work.join(CHECKPOINT);
    let text = format!("{settings:?}");
    if file.exists() {
        let (tensors, progress) = checkpoint::load(&file)?;
        if progress.config != text {
            bail!(
                "{}: made with other settings: remove it, or use another --work",
                file.display()
            );
        }
        let take = |prefix: &str, like: &Params| -> Result<Params> {
            let each = like.names().map(|name| {
                let key = format!("{prefix}{name}");
                let tensor = tensors.get(&key).with_context(|| {
                    format!(
                        "{}: tensor {key} is missing: remove the file",
                        file.display()
                    )
                })?;
                Ok((name.to_string(), tensor.clone()))
            });
            Ok(Params::new(each.collect::<Result<Vec<_>>>()?, device))
        };
        let weights = take("", &mean)?;
        optimizer.exp_avg = take("exp_avg.", &mean)?;
        optimizer.exp_avg_sq = take("exp_avg_sq.", &mean)?;
        mean = take("mean.", &mean)?;
        optimizer.counters = progress.counters;
        net = net.with(&weights);
        done = progress.step;
    }
    if done < settings.steps {
        let held_out = labeled(Part::BackboneCheck, 0..CHECKED);
        let first = done;
        std::thread::scope(|scope| -> Result<()> {
            let (sender, receiver) = sync_channel(2);
            scope.spawn(move || {
                for step in first..settings.steps {
                    let mut rng = Rng::new(SEED, Purpose::Step, step);
                    // Every step uses new scenes, so that overfitting is not possible.
                    let from = step as usize * settings.batch;
                    let mut frames = labeled(Part::Backbone, from..from + settings.batch);
                    for frame in &mut frames {
                        if rng.below(2) == 0 {
                            mirror(frame);
                        }
                    }
                    // The receiver is gone if the training has failed.
                    if sender.send(Batch::new(&shape, &frames)).is_err() {
                        return;
                    }
                }
            });
            let (mut smooth, mut score) = (None, 0.0);
            while done < settings.steps {
                let batch = receiver
                    .recv()
                    .context("the data loader thread has stopped")?;
                let weights = net.weights().tracked();
                let loss = net.with(&weights).loss(&batch, device);
                let value = host_values(&loss)[0];
                if !value.is_finite() {
                    bail!("the backbone's loss is {value} at step {done}: lower its learning rate");
                }
                let gradients = weights.gradients(&mut loss.backward());
                let rise = ((done + 1) as f64 / settings.warmup.max(1) as f64).min(1.0);
                let fall = 0.5
                    * (1.0 + (std::f64::consts::PI * done as f64 / settings.steps as f64).cos());
                optimizer.settings.learning_rate = settings.learning_rate * rise * fall;
                let weights = optimizer.step(&net.weights(), &clip(&gradients, CLIP).0);
                net = net.with(&weights);
                done += 1;
                // The average adapts faster during the first steps.
                let decay = EMA_DECAY.min(done as f64 / (done + 10) as f64);
                mean = ema(&mean, &weights, decay);
                smooth = Some(smooth.map_or(value, |s: f32| 0.98 * s + 0.02 * value));
                if done.is_multiple_of(SAVE_EVERY) || done == settings.steps {
                    score = check(&net.with(&mean), &held_out, device);
                    log::info!(
                        "backbone: step {done}, loss {:.4}, mIoU of patches {:.1} %",
                        smooth.unwrap_or(value),
                        100.0 * score
                    );
                    save(&file, &net, &mean, &optimizer, done, &text)?;
                }
                progress(
                    "backbone",
                    done,
                    settings.steps,
                    &format!(
                        "loss {:.3}, mIoU {:.1} %",
                        smooth.unwrap_or(value),
                        100.0 * score
                    ),
                );
                if stop.load(Ordering::Relaxed) && done < settings.steps {
                    save(&file, &net, &mean, &optimizer, done, &text)?;
                    bail!("stopped after {done} steps of the backbone; the same command resumes");
                }
            }
            Ok(())
        })?;
    }
    Ok(net.with(&mean).vit.tensors())
}

fn save(
    file: &Path,
    net: &Trainable,
    mean: &Params,
    optimizer: &Optimizer,
    step: u64,
    settings: &str,
) -> Result<()> {
    let mut tensors = net.weights().to_host();
    for (prefix, params) in [
        ("mean.", mean),
        ("exp_avg.", &optimizer.exp_avg),
        ("exp_avg_sq.", &optimizer.exp_avg_sq),
    ] {
        let named = params.to_host().into_iter();
        tensors.extend(named.map(|(name, t)| (format!("{prefix}{name}"), t)));
    }
    let progress = checkpoint::Progress::new(
        step,
        optimizer.counters,
        settings.into(),
        String::new(),
        String::new(),
    );
    Ok(checkpoint::save(file, &tensors, &progress)?)
}
