//! The leading eigenvectors of a covariance matrix, which is never formed explicitly.
//!
//! Block Krylov iteration: C is restricted to the space spanned by V, CV, C²V, ... for a block of
//! vectors V (Rayleigh-Ritz), and the best vectors start the next round until they converge to
//! eigenvectors. A block instead of one vector also finds equal eigenvalues.
//! Source: Golub and Van Loan, Matrix Computations, 4th ed., 10.3.6 (block Lanczos); here with
//! full orthogonalization, since the spaces are small.

use super::Statistics;

/// Number of vectors multiplied in one pass over the samples.
const BLOCK: usize = 8;

/// Powers of C in the space of one round.
const DEPTH: usize = 5;

/// Maximum number of rounds. A few suffice unless eigenvalues are very close, and then the choice
/// among their vectors hardly matters.
const ROUNDS: usize = 24;

/// Convergence threshold of `|Cv - λv|`, relative to the largest eigenvalue.
const TOLERANCE: f64 = 1e-9;

/// Eigenvalues below this fraction of the largest are rounding errors.
const RANK: f64 = 1e-12;

/// Samples with their mean removed and their scale set to 1, and a weight for each.
pub(super) struct Rows {
    width: usize,
    values: Vec<f32>,
    /// One per row; they sum to the number of sets.
    weights: Vec<f64>,
}

/// The result of [`leading`]: eigenvalues `[k]`, in descending order, and eigenvectors `[k, d]`.
pub(super) struct Leading {
    pub values: Vec<f64>,
    pub directions: Vec<f32>,
}

impl Rows {
    pub fn new(width: usize) -> Self {
        Self {
            width,
            values: Vec::new(),
            weights: Vec::new(),
        }
    }

    /// Appends `count` of the samples, evenly spaced, with a total weight of `1 / sets`.
    pub fn push(&mut self, samples: &[f32], statistics: &Statistics, sets: usize, count: usize) {
        let n = samples.len() / self.width;
        let inverse = 1.0 / statistics.rms;
        self.values.reserve_exact(count * self.width);
        for index in 0..count {
            let row = &samples[spread(index, count, n) * self.width..][..self.width];
            let centered = row.iter().zip(&statistics.mean);
            self.values.extend(
                centered.map(|(&value, mean)| ((f64::from(value) - mean) * inverse) as f32),
            );
        }
        let weight = 1.0 / (count as f64 * sets as f64);
        self.weights.resize(self.weights.len() + count, weight);
    }

    pub fn width(&self) -> usize {
        self.width
    }

    /// Multiplies C by each of the vectors: the weighted sum over all rows r of r (r · v).
    fn covariance_times(&self, vectors: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let mut products = Vec::with_capacity(vectors.len());
        for block in vectors.chunks(BLOCK) {
            // Interleaved, so that a channel of all vectors of the block is contiguous.
            let mut input = vec![[0f64; BLOCK]; self.width];
            for (lane, vector) in block.iter().enumerate() {
                for (entry, &value) in input.iter_mut().zip(vector) {
                    entry[lane] = value;
                }
            }
            let mut output = vec![[0f64; BLOCK]; self.width];
            for (row, &weight) in self.values.chunks_exact(self.width).zip(&self.weights) {
                let mut dots = [0f64; BLOCK];
                for (&value, entry) in row.iter().zip(&input) {
                    let value = f64::from(value);
                    for lane in 0..BLOCK {
                        dots[lane] += value * entry[lane];
                    }
                }
                dots.iter_mut().for_each(|dot| *dot *= weight);
                for (&value, entry) in row.iter().zip(&mut output) {
                    let value = f64::from(value);
                    for lane in 0..BLOCK {
                        entry[lane] += value * dots[lane];
                    }
                }
            }
            for lane in 0..block.len() {
                products.push(output.iter().map(|entry| entry[lane]).collect());
            }
        }
        products
    }
}

/// Returns the position of the `index`-th of `count` samples evenly spaced over `n`.
pub(super) fn spread(index: usize, count: usize, n: usize) -> usize {
    // In 128 bits, since the product of two lengths may not fit in 64.
    ((2 * index as u128 + 1) * n as u128 / (2 * count as u128)) as usize
}

/// Computes the `k` leading eigenvectors of the weighted covariance of `rows`. Vectors whose
/// eigenvalue is at most `floor`, or far below the largest, are zero.
pub(super) fn leading(rows: &Rows, k: usize, floor: f64) -> Leading {
    let width = rows.width();
    let block = (k + 4).next_multiple_of(BLOCK).min(width);
    let mut start: Vec<Vec<f64>> = (0..block).map(|j| start_vector(j, width)).collect();
    let mut found = Vec::new();
    for round in 0..ROUNDS {
        let space = krylov(rows, start, width);
        let ritz = rayleigh_ritz(&space, block);
        let largest = ritz.first().map_or(0.0, |pair| pair.value);
        let worst = ritz.iter().take(k).map(|pair| pair.residual);
        let worst = worst.fold(0f64, f64::max);
        let last = worst <= TOLERANCE * largest || largest <= floor || round + 1 == ROUNDS;
        if last {
            log::debug!("principal components: {} rounds, {worst:e}", round + 1);
            found = ritz;
            break;
        }
        start = ritz.into_iter().map(|pair| pair.vector).collect();
    }
    let largest = found.first().map_or(0.0, |pair| pair.value);
    found.retain(|pair| pair.value > floor.max(RANK * largest));
    found.truncate(k);
    let mut values: Vec<f64> = found.iter().map(|pair| pair.value).collect();
    values.resize(k, 0.0);
    let mut directions = Vec::with_capacity(k * width);
    for pair in &found {
        let sign = sign(&pair.vector);
        directions.extend(pair.vector.iter().map(|&entry| (entry * sign) as f32));
    }
    directions.resize(k * width, 0.0);
    Leading { values, directions }
}

/// Returns the `j`-th start vector: deterministic, without a pattern that features could share.
fn start_vector(j: usize, width: usize) -> Vec<f64> {
    // Multiples of an irrational number, modulo 1, are spread evenly (Weyl's sequence).
    let step = ((2 * j + 1) as f64 * 2f64.sqrt() + (j * j) as f64 * 3f64.sqrt()).fract();
    let entry = |i: usize| ((i * i + i + 1) as f64 * step).fract() - 0.5;
    (0..width).map(entry).collect()
}

/// Returns -1 if the entry of largest magnitude is negative, otherwise +1. Magnitudes that differ
/// only by rounding count as equal, and the first of them decides.
fn sign(vector: &[f64]) -> f64 {
    let largest = vector.iter().fold(0f64, |most, v| most.max(v.abs()));
    let decisive = vector.iter().find(|v| v.abs() >= largest * (1.0 - 1e-6));
    if decisive.is_some_and(|&v| v < 0.0) {
        -1.0
    } else {
        1.0
    }
}

/// An orthonormal basis and C times each of its vectors.
struct Space {
    basis: Vec<Vec<f64>>,
    images: Vec<Vec<f64>>,
}

fn krylov(rows: &Rows, start: Vec<Vec<f64>>, width: usize) -> Space {
    let mut space = Space {
        basis: Vec::new(),
        images: Vec::new(),
    };
    let mut next = start;
    for _ in 0..DEPTH {
        let first = space.basis.len();
        for vector in next {
            if space.basis.len() < width {
                append_orthonormal(&mut space.basis, vector);
            }
        }
        if space.basis.len() == first {
            break;
        }
        next = rows.covariance_times(&space.basis[first..]);
        space.images.extend_from_slice(&next);
    }
    space
}

/// Appends the component of `vector` orthogonal to the basis, normalized; nothing if `vector` is in
/// the span of the basis.
fn append_orthonormal(basis: &mut Vec<Vec<f64>>, mut vector: Vec<f64>) {
    let before = norm(&vector);
    // Two passes are enough for orthogonality up to rounding (Giraud et al., 2005).
    for _ in 0..2 {
        for other in basis.iter() {
            let along = dot(&vector, other);
            for (entry, other) in vector.iter_mut().zip(other) {
                *entry -= along * other;
            }
        }
    }
    let after = norm(&vector);
    if after > 1e-10 * before {
        vector.iter_mut().for_each(|entry| *entry /= after);
        basis.push(vector);
    }
}

/// An approximate eigenvector.
struct Ritz {
    value: f64,
    vector: Vec<f64>,
    /// The length of `Cv - λv`.
    residual: f64,
}

/// Returns the best `count` approximate eigenvectors in the space, by descending eigenvalue.
fn rayleigh_ritz(space: &Space, count: usize) -> Vec<Ritz> {
    let m = space.basis.len();
    let mut restricted = vec![0f64; m * m];
    for i in 0..m {
        for j in 0..=i {
            // Symmetric up to rounding.
            let one = dot(&space.basis[i], &space.images[j]);
            let other = dot(&space.basis[j], &space.images[i]);
            restricted[i * m + j] = (one + other) / 2.0;
            restricted[j * m + i] = (one + other) / 2.0;
        }
    }
    let mut vectors = vec![0f64; m * m];
    jacobi(&mut restricted, &mut vectors, m);
    let mut order: Vec<usize> = (0..m).collect();
    order.sort_by(|&a, &b| restricted[b * m + b].total_cmp(&restricted[a * m + a]));
    order.truncate(count);
    let combine = |parts: &[Vec<f64>], which: usize| {
        let mut sum = vec![0f64; parts.first().map_or(0, Vec::len)];
        for (part, coefficients) in parts.iter().zip(vectors.chunks_exact(m)) {
            for (sum, value) in sum.iter_mut().zip(part) {
                *sum += coefficients[which] * value;
            }
        }
        sum
    };
    order
        .into_iter()
        .map(|which| {
            let value = restricted[which * m + which];
            let vector = combine(&space.basis, which);
            let mut rest = combine(&space.images, which);
            for (rest, entry) in rest.iter_mut().zip(&vector) {
                *rest -= value * entry;
            }
            Ritz {
                value,
                vector,
                residual: norm(&rest),
            }
        })
        .collect()
}

/// Computes eigenvalues (on the diagonal of `a`) and eigenvectors (columns of `v`) of the symmetric
/// `m` x `m` matrix `a` by cyclic Jacobi rotations.
/// Source: Golub and Van Loan, Matrix Computations, 4th ed., 8.5.
fn jacobi(a: &mut [f64], v: &mut [f64], m: usize) {
    v.fill(0.0);
    (0..m).for_each(|i| v[i * m + i] = 1.0);
    let total: f64 = a.iter().map(|x| x * x).sum();
    for _ in 0..30 {
        let mut off = 0.0;
        for p in 0..m {
            for q in p + 1..m {
                let apq = a[p * m + q];
                off += apq * apq;
                // Negligible compared to the squares of the diagonal.
                if apq * apq <= 1e-34 * total {
                    continue;
                }
                let tau = (a[q * m + q] - a[p * m + p]) / (2.0 * apq);
                let t = tau.signum() / (tau.abs() + (1.0 + tau * tau).sqrt());
                let c = 1.0 / (1.0 + t * t).sqrt();
                let s = t * c;
                for k in 0..m {
                    rotate(a, k * m + p, k * m + q, c, s);
                }
                for k in 0..m {
                    rotate(a, p * m + k, q * m + k, c, s);
                }
                for k in 0..m {
                    rotate(v, k * m + p, k * m + q, c, s);
                }
            }
        }
        if off <= 1e-30 * total {
            break;
        }
    }
}

fn rotate(a: &mut [f64], i: usize, j: usize, c: f64, s: f64) {
    let (x, y) = (a[i], a[j]);
    a[i] = c * x - s * y;
    a[j] = s * x + c * y;
}

/// A dot product in four interleaved sums.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a_blocks, a_rest) = a.as_chunks::<4>();
    let (b_blocks, b_rest) = b.as_chunks::<4>();
    let mut sums = [0f64; 4];
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..4 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}
