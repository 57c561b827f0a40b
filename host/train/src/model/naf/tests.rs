use std::sync::Arc;

use loftup_kernels::{
    Isa,
    naf::{self, Area, Image, Values},
};

use super::*;
use crate::{model::host_values, rng::Purpose};

fn grid(batch: usize, (height, width): (usize, usize)) -> Grid {
    Grid {
        batch,
        height,
        width,
    }
}

struct Case {
    colors: Vec<f32>,
    features: Vec<f32>,
    image: Grid,
    cells: Grid,
    dim: usize,
}

impl Case {
    fn new(batch: usize, cells: (usize, usize), image: (usize, usize), dim: usize) -> Self {
        let mut rng = Rng::new(5, Purpose::Step, (image.1 * dim) as u64);
        let (image, cells) = (grid(batch, image), grid(batch, cells));
        let mut noise = |n: usize| (0..n).map(|_| rng.normal()).collect();
        Self {
            colors: noise(image.pixels() * 3),
            features: noise(cells.pixels() * dim),
            image,
            cells,
            dim,
        }
    }

    fn forward(&self, naf: &Naf, size: (usize, usize)) -> Tensor<2> {
        let device = Device::flex();
        let lr = Tokens {
            values: device_matrix(
                self.features.clone(),
                self.cells.pixels(),
                self.dim,
                &device,
            ),
            grid: self.cells,
        };
        let colors = device_matrix(self.colors.clone(), self.image.pixels(), 3, &device);
        naf.forward(&lr, colors, self.image, size)
    }
}

#[test]
fn it_computes_what_the_robot_computes() {
    let weights = NafWeights::random(2);
    let ours = Naf::new(&weights, &Device::flex());
    let theirs = Arc::new(naf::Naf::new(Isa::detect(), &weights).unwrap());
    let cases = [
        Case::new(1, (9, 9), (9, 9), 4),
        Case::new(2, (9, 10), (27, 20), 12),
        Case::new(1, (11, 9), (11, 45), 8),
    ];
    let mut worst = 0.0f32;
    for case in cases {
        let Grid { height, width, .. } = case.image;
        let found = host_values(&case.forward(&ours, (height, width)));
        let area = height * width;
        for image in 0..case.image.batch {
            let colors = &case.colors[image * area * 3..][..area * 3];
            let planes = (0..3 * area).map(|i| colors[i % area * 3 + i / area]);
            let encoded = theirs
                .encode(
                    Image {
                        data: planes.collect(),
                        height,
                        width,
                    },
                    (case.cells.height, case.cells.width),
                    &naf::in_order,
                )
                .unwrap();
            let tokens = case.features.len() / case.image.batch;
            let features = case.features[image * tokens..][..tokens].to_vec();
            let values = Values::features(features, case.dim).unwrap();
            let mut expected = vec![0.0; area * case.dim];
            let whole = Area {
                x: 0,
                y: 0,
                width,
                height,
            };
            encoded.attend(&values, whole, &mut expected).unwrap();
            let found = &found[image * area * case.dim..];
            for (a, b) in found.iter().zip(&expected) {
                worst = worst.max((a - b).abs());
            }
        }
    }
    println!("against the kernels: {worst:.1e}");
    // Both have 32 bits, and add up in another order; features are near 1.
    assert!(worst < 2e-5);
}

#[test]
fn gradients_agree_with_finite_differences() {
    // An image of twice the output, which is twice the grid.
    let case = Case::new(2, (9, 10), (36, 40), 4);
    let size = (18, 20);
    let naf = Naf::new(&NafWeights::random(4), &Device::flex());
    let mut rng = Rng::new(6, Purpose::Step, 0);
    let probe: Vec<f32> = (0..2 * size.0 * size.1 * 4).map(|_| rng.normal()).collect();
    let weights = device_matrix(probe.clone(), probe.len() / 4, 4, &Device::flex());
    let tracked = naf.weights.tracked();
    let with = |weights: &Params| Naf {
        weights: weights.clone(),
        periods: naf.periods.clone(),
    };
    let mut found = (case.forward(&with(&tracked), size) * weights)
        .sum()
        .backward();
    let gradients = tracked.gradients(&mut found);
    let loss = |weights: &Params| -> f64 {
        let output = host_values(&case.forward(&with(weights), size));
        let terms = output.iter().zip(&probe);
        terms.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let names: Vec<String> = naf.weights.names().map(str::to_owned).collect();
    let mut worst = 0.0f64;
    for name in &names {
        // The slope along the gradient of one tensor is its length.
        let values = host_values(&gradients.get(name));
        let length = values
            .iter()
            .map(|g| f64::from(*g).powi(2))
            .sum::<f64>()
            .sqrt();
        assert!(length > 1e-3, "{name}: a test of nothing: {length}");
        let own = host_values(&naf.weights.get(name));
        let size = own
            .iter()
            .map(|w| f64::from(*w).powi(2))
            .sum::<f64>()
            .sqrt();
        let step = 2e-3 * size.max(0.1);
        let moved = |by: f64| {
            let along = gradients.get(name) * (by / length) as f32;
            naf.weights.map(|n, value| match n == name {
                true => value.clone() + along.clone(),
                false => value.clone(),
            })
        };
        let slope = (loss(&moved(step)) - loss(&moved(-step))) / (2.0 * step);
        let error = (slope / length - 1.0).abs();
        println!("{name}: {length:.3} {error:.1e}");
        worst = worst.max(error);
    }
    println!("gradients against finite differences: worst {worst:.1e}");
    // Third derivatives times the squared step, and rounding in 32 bits over the step.
    assert!(worst < 2e-2);
}
