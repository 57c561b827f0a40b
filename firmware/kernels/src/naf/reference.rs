//! Reference implementation of NAF in 64 bits.

use loftup_spec::naf::{
    Branch, BranchWeights, CHANNELS, EPS, GROUPS, HEAD_WIDTH, HEADS, NafWeights, WIDTH,
};

use super::Image;

/// The output for all pixels, `[height, width, dim]`, from features `[cells, dim]`.
pub fn upsample(
    weights: &NafWeights,
    image: &Image,
    (features, dim): (&[f32], usize),
    (down, across): (usize, usize),
) -> Vec<f64> {
    let (height, width) = (image.height, image.width);
    let x = encode(weights, image);
    let cell_mean = |row: usize, column: usize| -> Vec<f64> {
        let inside = |i: usize, at: usize, cells: usize, pixels: usize| {
            i * cells < (at + 1) * pixels && (i + 1) * cells > at * pixels
        };
        let pixels: Vec<usize> = (0..height * width)
            .filter(|p| inside(p / width, row, down, height))
            .filter(|p| inside(p % width, column, across, width))
            .collect();
        let sum = |c: usize| pixels.iter().map(|p| x[p * CHANNELS + c]).sum::<f64>();
        (0..CHANNELS)
            .map(|c| sum(c) / pixels.len() as f64)
            .collect()
    };
    let keys: Vec<Vec<f64>> = (0..down * across)
        .map(|i| cell_mean(i / across, i % across))
        .collect();
    let neighbors = |i: usize, pixels: usize, cells: usize| -> Vec<usize> {
        let dilation = pixels / cells;
        let same: Vec<usize> = (0..pixels)
            .filter(|p| p % dilation == i % dilation)
            .collect();
        let at = same.iter().position(|p| *p == i).unwrap();
        let start = at.saturating_sub(4).min(same.len() - 9);
        let scale = cells as f32 / pixels as f32;
        let cell = |p: usize| (((p as f32 + 0.5) * scale) as usize).min(cells - 1);
        same[start..start + 9].iter().map(|p| cell(*p)).collect()
    };
    let mut out = Vec::new();
    for p in 0..height * width {
        let rows = neighbors(p / width, height, down);
        let columns = neighbors(p % width, width, across);
        let cells: Vec<usize> = rows
            .iter()
            .flat_map(|r| columns.iter().map(move |c| r * across + c))
            .collect();
        for head in 0..HEADS {
            let query = &x[p * CHANNELS + head * HEAD_WIDTH..][..HEAD_WIDTH];
            let score = |cell: &usize| {
                let key = &keys[*cell][head * HEAD_WIDTH..][..HEAD_WIDTH];
                query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>() / 8.0
            };
            let scores: Vec<f64> = cells.iter().map(score).collect();
            let attention = crate::reference::softmax(&scores);
            for c in head * dim / HEADS..(head + 1) * dim / HEADS {
                let value = |cell: &usize| f64::from(features[cell * dim + c]);
                out.push(
                    cells
                        .iter()
                        .zip(&attention)
                        .map(|(cell, a)| a * value(cell))
                        .sum(),
                );
            }
        }
    }
    out
}

/// Rotated encodings of all pixels, `[height, width, 256]`.
fn encode(weights: &NafWeights, image: &Image) -> Vec<f64> {
    let size = (image.height, image.width);
    let area = size.0 * size.1;
    let colors: Vec<f64> = (0..3 * area)
        .map(|i| f64::from(image.data[i % 3 * area + i / 3]))
        .collect();
    let branches = Branch::ALL.map(|b| branch(&weights.branches[b as usize], &colors, size, b));
    let mut x = Vec::new();
    for p in 0..area {
        for branch in &branches {
            x.extend_from_slice(&branch[p * WIDTH..][..WIDTH]);
        }
    }
    for (p, pixel) in x.chunks_exact_mut(CHANNELS).enumerate() {
        let at = |i: usize, n: usize| 2.0 * (i as f64 + 0.5) / n as f64 - 1.0;
        let (y, x) = (at(p / size.1, size.0), at(p % size.1, size.1));
        for head in pixel.chunks_exact_mut(HEAD_WIDTH) {
            for c in 0..32 {
                let along = if c < 16 { y } else { x };
                let period = f64::from(weights.periods[c % 16]);
                let (sin, cos) = (std::f64::consts::TAU * along / period).sin_cos();
                let (a, b) = (head[c], head[c + 32]);
                head[c] = a * cos - b * sin;
                head[c + 32] = b * cos + a * sin;
            }
        }
    }
    x
}

fn branch(
    weights: &BranchWeights,
    colors: &[f64],
    size: (usize, usize),
    branch: Branch,
) -> Vec<f64> {
    let side = branch.kernel();
    let mut x = convolution(
        colors,
        size,
        &weights.first.weight,
        &weights.first.bias,
        side,
    );
    for layer in &weights.layers {
        const SIZE: usize = WIDTH / GROUPS;
        let mut normalized = vec![0.0; x.len()];
        for group in 0..GROUPS {
            let members = || (0..x.len()).filter(move |i| i % WIDTH / SIZE == group);
            let count = members().count() as f64;
            let mean = members().map(|i| x[i]).sum::<f64>() / count;
            let variance = members().map(|i| (x[i] - mean).powi(2)).sum::<f64>() / count;
            for i in members() {
                let (weight, bias) = (layer.norm.weight[i % WIDTH], layer.norm.bias[i % WIDTH]);
                let v = (x[i] - mean) / (variance + f64::from(EPS)).sqrt();
                let v = v * f64::from(weight) + f64::from(bias);
                normalized[i] = v / (1.0 + (-v).exp());
            }
        }
        x = convolution(
            &normalized,
            size,
            &layer.conv.weight,
            &layer.conv.bias,
            side,
        );
    }
    x
}

/// A convolution of `[height, width, channels]` with reflect padding.
fn convolution(
    x: &[f64],
    (height, width): (usize, usize),
    weight: &[f32],
    bias: &[f32],
    side: usize,
) -> Vec<f64> {
    let channels = x.len() / (height * width);
    let radius = side as isize / 2;
    let reflect = |i: isize, n: usize| match i {
        -1 => 1,
        i if i == n as isize => n - 2,
        i => i as usize,
    };
    let weight: Vec<f64> = weight.iter().map(|w| f64::from(*w)).collect();
    let mut out = Vec::new();
    for y in 0..height as isize {
        for x0 in 0..width as isize {
            // The window in the order of the weights.
            let mut window = vec![0.0; channels * side * side];
            for dy in 0..side {
                let y = reflect(y + dy as isize - radius, height);
                for dx in 0..side {
                    let x1 = reflect(x0 + dx as isize - radius, width);
                    for c in 0..channels {
                        window[(c * side + dy) * side + dx] = x[(y * width + x1) * channels + c];
                    }
                }
            }
            let rows = weight.chunks_exact(window.len()).zip(bias);
            out.extend(rows.map(|(row, bias)| {
                f64::from(*bias) + row.iter().zip(&window).map(|(w, x)| w * x).sum::<f64>()
            }));
        }
    }
    out
}
