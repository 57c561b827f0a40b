//! One step of each stage, and the optimizers, against PyTorch: `tools/make_training_fixtures.py`.

use std::{collections::BTreeMap, path::Path};

use super::*;
use loftup_runtime::Features;

use crate::{
    kernels::Grid,
    losses::{AuxModules, Base, Projection, View, pseudo_ground_truth},
    model::{
        Guidance, LoftUp, Mode, Params, RangeOver, Tokens, Upsampler, device_matrix, host_values,
        init,
    },
    optim::{Method, Optimizer, Settings, clip},
    regions::Mask,
    resample::Jitter,
    teacher::{Part, Region, encode},
};
use burn::tensor::{Device, Tensor, TensorData};
use loftup_import::checkpoint::Checkpoint;

struct Fixture {
    checkpoint: Checkpoint,
    device: Device,
}

impl Fixture {
    fn open() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/step.safetensors");
        Self {
            checkpoint: Checkpoint::open(&path).unwrap(),
            device: Device::flex(),
        }
    }

    fn get(&self, name: &str) -> (Vec<f32>, Vec<usize>) {
        let shape = self.checkpoint.shape(name).unwrap().to_vec();
        (
            self.checkpoint.tensor(name, &shape).unwrap().into_data(),
            shape,
        )
    }

    fn values(&self, name: &str) -> Vec<f32> {
        self.get(name).0
    }

    /// Maps `[b, d, h, w]` as rows.
    fn tokens(&self, name: &str) -> Tokens {
        let (x, shape) = self.get(name);
        let [batch, d, height, width] = shape[..] else {
            panic!("{name}")
        };
        let area = height * width;
        let rows = (0..x.len())
            .map(|i| x[(i / d / area * d + i % d) * area + i / d % area])
            .collect();
        let grid = Grid {
            batch,
            height,
            width,
        };
        Tokens {
            values: device_matrix(rows, grid.pixels(), d, &self.device),
            grid,
        }
    }

    fn images(&self, name: &str) -> Vec<Vec<f32>> {
        self.values(name)
            .chunks_exact(3 * 8 * 8)
            .map(<[f32]>::to_vec)
            .collect()
    }

    fn net(&self) -> Trainable {
        let config = *loftup_import::loftup::read(&self.checkpoint)
            .unwrap()
            .config();
        assert_eq!((config.dim, config.frequencies, config.layers), (4, 4, 2));
        let start = init::from_checkpoint(&self.checkpoint, &config).unwrap();
        let names = [
            "downsampler.attention.weight",
            "downsampler.attention.bias",
            "downsampler.w",
            "downsampler.b",
            "uncertainty.weight",
            "uncertainty.bias",
        ];
        let aux = names.map(|name| {
            let (data, shape) = self.get(name);
            (
                name.to_string(),
                loftup_onnx::Tensor::new(shape, data).unwrap(),
            )
        });
        Trainable {
            upsampler: Upsampler::LoftUp(LoftUp::new(config, start, &self.device)),
            aux: AuxModules {
                weights: Params::new(aux, &self.device),
            },
        }
    }

    fn projection(&self, name: &str) -> Projection {
        let (values, shape) = self.get(name);
        Projection {
            values,
            dim: shape[0],
            to: shape[1],
        }
    }

    fn masks(&self) -> Vec<Vec<Mask>> {
        let (masks, shape) = self.get("masks");
        let area = shape[2] * shape[3];
        let of = |m: &[f32]| Mask::new((0..area as u32).filter(|&i| m[i as usize] > 0.5).collect());
        masks
            .chunks_exact(shape[1] * area)
            .map(|its| its.chunks_exact(area).map(of).collect())
            .collect()
    }

    fn batch(&self, target: Target) -> Batch {
        let images = self.images("image");
        let slices: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
        let views = (0..2).map(|i| {
            let j = self.values(&format!("view{i}.jitter"));
            View {
                jitter: Jitter {
                    pad: j[0] as usize,
                    zoom: j[1],
                    down: j[2] as usize,
                    right: j[3] as usize,
                    mirrored: j[4] > 0.0,
                },
                lr: self.tokens(&format!("view{i}.lr")),
                kept: self.values(&format!("view{i}.kept")),
                projection: self.projection(&format!("view{i}.projection")),
            }
        });
        Batch {
            guidance: Guidance::new(&slices, 8, 8, RangeOver::Batch),
            lr: self.tokens("lr"),
            views: views.collect(),
            target,
            output: None,
            coordinate_scale: 1.0,
            batch_norm: Mode::Train,
        }
    }

    /// Losses within 1e-4 relative, gradients within 1e-4 of each tensor's maximum.
    fn compare(&self, stage: &str, found: &StepOutput) {
        let mut worst_loss = 0.0f32;
        for (name, loss) in &found.losses {
            let expected = self.values(&format!("{stage}.losses.{name}"))[0];
            assert!(
                expected.abs() > 1e-3,
                "{stage} {name}: a test of nothing: {expected}"
            );
            let error = (loss / expected - 1.0).abs();
            assert!(error < 1e-4, "{stage} {name}: {loss} against {expected}");
            worst_loss = worst_loss.max(error);
        }
        let gradients = found.gradients.to_host();
        assert!(gradients.len() > 40);
        // A bias in front of a batch normalization has no gradient but rounding: those of the
        // weights beside it say how much that may be.
        let scale = |name: &str| {
            let most = |name: &str| {
                self.values(&format!("{stage}.gradients.{name}"))
                    .iter()
                    .fold(0.0f32, |m, g| m.max(g.abs()))
            };
            let before_norm =
                ["upsampler.first_conv.1.bias", "upsampler.first_conv.4.bias"].contains(&name);
            if before_norm {
                most(&name.replace("bias", "weight"))
            } else {
                most(name)
            }
        };
        let mut worst = (0.0f32, "");
        for (name, gradient) in &gradients {
            let expected = self.values(&format!("{stage}.gradients.{name}"));
            assert_eq!(expected.len(), gradient.data().len(), "{name}");
            let difference = gradient
                .data()
                .iter()
                .zip(&expected)
                .fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            let error = if difference == 0.0 {
                0.0
            } else {
                difference / scale(name)
            };
            assert!(
                error < 1e-4,
                "{stage}, gradient of {name}: {error:.1e} of its maximum"
            );
            if error > worst.0 {
                worst = (error, name);
            }
        }
        println!(
            "{stage}: losses within {worst_loss:.1e}, gradients within {:.1e} ({})",
            worst.0, worst.1
        );
    }
}

#[test]
fn a_step_of_stage_1_agrees_with_pytorch() {
    let fixture = Fixture::open();
    let lr = fixture.tokens("lr");
    let projection = fixture.projection("projection");
    let rows = host_values(&lr.values);
    let targets: Vec<f32> = rows
        .chunks_exact(rows.len() / 2)
        .zip(fixture.masks())
        .flat_map(|(lr, masks)| {
            pseudo_ground_truth(
                lr,
                (4, 4),
                (8, 8),
                Base::Bicubic,
                &[masks],
                0.8,
                &projection,
            )
        })
        .collect();
    let target = Target::MaskBicubic {
        values: device_matrix(targets, 128, projection.to, &fixture.device),
        projection: projection.matrix(&fixture.device),
        weights: None,
    };
    let mut net = fixture.net();
    let batch = fixture.batch(target);
    let published = LossWeights {
        mse: 1.0,
        gradient: 0.0,
        total_variation: 0.001,
        affinity: 0.0,
    };
    let found = step(&net, &batch, published);
    fixture.compare("stage1", &found);
    let weights = LossWeights {
        mse: 0.5,
        gradient: 2.0,
        ..published
    };
    let losses: BTreeMap<_, _> = step(&net, &batch, weights).losses.into_iter().collect();
    let expected = 0.5 * losses["mask_bicubic"]
        + 2.0 * losses["gradient_matching"]
        + losses["reconstruction"]
        + 0.001 * losses["total_variation"];
    assert!(losses["gradient_matching"] > 0.01, "a test of nothing");
    assert!((losses["loss"] / expected - 1.0).abs() < 1e-6, "{losses:?}");

    let loftup = net.upsampler.loftup_mut().unwrap();
    loftup.update_running_stats(&found.batch_stats);
    for (name, running) in loftup.statistics.to_host() {
        let expected = fixture.values(&format!("remembered.{name}"));
        for (a, b) in running.data().iter().zip(&expected) {
            assert!((a - b).abs() < 1e-5 * b.abs().max(1.0), "{name}: {a} {b}");
        }
    }
}

#[test]
fn a_step_of_stage_2_agrees_with_pytorch() {
    let fixture = Fixture::open();
    let net = fixture.net();
    let teacher = net.upsampler.loftup().unwrap();
    let masks = fixture.masks();
    let crops = (0..2).map(|i| {
        let place = fixture.values(&format!("crop{i}.place"));
        // A crop at even pixels of an image of 16x16 covers 4x4 pixels of the student's output.
        let region = Region::new(place[1] as usize * 2, place[0] as usize * 2, 8, 16, 0.25);
        assert_eq!((region.side, region.border, region.inner()), (4, 1, 2));
        let lr = fixture.tokens(&format!("crop{i}.lr"));
        let rows = host_values(&lr.values);
        let mut seen = Vec::new();
        for (b, image) in fixture.images(&format!("crop{i}.image")).iter().enumerate() {
            let half = rows.len() / 2;
            let part = Part {
                image: image.clone(),
                side: 8,
                lr: Features {
                    dim: half / 16,
                    height: 4,
                    width: 4,
                    tokens: rows[b * half..][..half].to_vec(),
                },
                segmentations: vec![masks[b].clone()],
            };
            seen.extend(encode(teacher, &part, 0.5, &region, &fixture.device));
        }
        let inner = region.inner();
        Crop {
            top: region.top + region.border,
            left: region.left + region.border,
            side: inner,
            features: Tensor::from_data(
                TensorData::new(seen, [2, inner * inner, 4]),
                &fixture.device,
            ),
        }
    });
    let batch = fixture.batch(Target::Teacher(crops.collect()));
    let found = step(
        &net,
        &batch,
        LossWeights {
            mse: 1.0,
            gradient: 0.0,
            total_variation: 0.05,
            affinity: 20.0,
        },
    );
    fixture.compare("stage2", &found);
}

#[test]
fn ten_steps_of_each_optimizer_on_given_gradients_agree_with_pytorch() {
    let fixture = Fixture::open();
    let (start, shape) = fixture.get("optimizer.start");
    let tensor = |data: Vec<f32>| {
        let tensor = loftup_onnx::Tensor::new(shape.clone(), data).unwrap();
        Params::new(BTreeMap::from([("w".to_string(), tensor)]), &fixture.device)
    };
    let cases = [
        ("nadam", Method::NAdam, 0.0),
        ("nadam_decay", Method::NAdam, 0.1),
        ("adamw", Method::AdamW, 0.01),
    ];
    for (name, method, weight_decay) in cases {
        let mut weights = tensor(start.clone());
        let mut optimizer = Optimizer::new(
            Settings {
                method,
                learning_rate: 1e-2,
                weight_decay,
            },
            &weights,
        );
        for gradient in fixture
            .values("optimizer.gradients")
            .chunks_exact(start.len())
        {
            weights = optimizer.step(&weights, &tensor(gradient.to_vec()));
        }
        let found = host_values(&weights.get("w"));
        let expected = fixture.values(&format!("optimizer.{name}"));
        let moved = expected
            .iter()
            .zip(&start)
            .fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(moved > 0.05, "a test of nothing");
        let worst = found
            .iter()
            .zip(&expected)
            .fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        println!("{name}: weights within {worst:.1e} after 10 steps");
        assert!(worst < 1e-6, "{name}: {worst}");
    }
}

#[test]
fn clipping_by_the_norm_of_all_gradients_agrees_with_pytorch() {
    let fixture = Fixture::open();
    let set = |which: &str| {
        let each = (0..2).map(|i| {
            let (data, shape) = fixture.get(&format!("clip.{which}{i}"));
            (
                i.to_string(),
                loftup_onnx::Tensor::new(shape, data).unwrap(),
            )
        });
        Params::new(each, &fixture.device)
    };
    let (clipped, norm) = clip(&set("given"), 0.5);
    assert!(norm > 1.0);
    let expected = set("clipped").to_host();
    for (name, tensor) in clipped.to_host() {
        for (a, b) in tensor.data().iter().zip(expected[&name].data()) {
            assert!((a - b).abs() < 1e-7, "{a} {b}");
        }
    }
}
