//! The method by its definition: the whole affinity matrix, in 64 bit.

use super::super::TrackOptions;

/// A video whose objects are marked in the first frame.
pub struct Reference {
    pub width: usize,
    pub height: usize,
    pub dim: usize,
    pub channels: usize,
    /// Normalized features and soft labels `[cells][channels]` of all frames so far.
    frames: Vec<(Vec<f64>, Vec<f64>)>,
}

impl Reference {
    /// `labels` are those of the cells of the first frame.
    pub fn new(
        (width, height): (usize, usize),
        dim: usize,
        channels: usize,
        features: &[f32],
        labels: &[u8],
    ) -> Self {
        let one_hot = |label: &u8| {
            let label = usize::from(*label);
            (0..channels).map(move |c| f64::from(u8::from(c == label)))
        };
        Self {
            width,
            height,
            dim,
            channels,
            frames: vec![(
                unit(features, dim),
                labels.iter().flat_map(one_hot).collect(),
            )],
        }
    }

    /// The soft labels of the next frame.
    pub fn update(&mut self, features: &[f32], options: &TrackOptions) -> &[f64] {
        let (cells, dim) = (self.width * self.height, self.dim);
        let target = unit(features, dim);
        let count = self.frames.len();
        let last = count.saturating_sub(options.last_frames).max(1)..count;
        let contexts: Vec<_> = std::iter::once(0)
            .chain(last)
            .map(|i| &self.frames[i])
            .collect();
        let mut labels = vec![0.0; cells * self.channels];
        for i in 0..cells {
            let affinities: Vec<f64> = contexts
                .iter()
                .flat_map(|(source, _)| (0..cells).map(move |j| (source, j)))
                .map(|(source, j)| {
                    let near = (i % self.width).abs_diff(j % self.width) <= options.radius
                        && (i / self.width).abs_diff(j / self.width) <= options.radius;
                    let cosine: f64 = (0..dim)
                        .map(|c| target[i * dim + c] * source[j * dim + c])
                        .sum();
                    if near {
                        (cosine / f64::from(options.temperature)).exp()
                    } else {
                        0.0
                    }
                })
                .collect();
            let mut sorted = affinities.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let least = sorted[options.top_k.min(sorted.len()) - 1];
            let kept = |a: f64| if a < least { 0.0 } else { a };
            let sum: f64 = affinities.iter().map(|a| kept(*a)).sum();
            for (k, affinity) in affinities.iter().enumerate() {
                let (_, source) = &contexts[k / cells];
                for c in 0..self.channels {
                    labels[i * self.channels + c] +=
                        kept(*affinity) / sum * source[k % cells * self.channels + c];
                }
            }
        }
        self.frames.push((target, labels));
        &self.frames[count].1
    }
}

fn unit(features: &[f32], dim: usize) -> Vec<f64> {
    let normalized = |cell: &[f32]| {
        let length = cell
            .iter()
            .map(|v| f64::from(*v).powi(2))
            .sum::<f64>()
            .sqrt();
        let cell: Vec<f64> = cell
            .iter()
            .map(|v| f64::from(*v) / length.max(1e-12))
            .collect();
        cell
    };
    features.chunks_exact(dim).flat_map(normalized).collect()
}

/// The mask of soft labels `[height][width][channels]`: upsampled bilinearly by `scale`, each channel
/// scaled to 0 to 1, the largest, nearest neighbor to `(width, height)`.
pub fn mask(
    soft: &[f32],
    (width, height, channels): (usize, usize, usize),
    scale: usize,
    size: (usize, usize),
) -> Vec<u8> {
    let (w, h) = (width * scale, height * scale);
    // PyTorch's coordinates with align_corners=False.
    let tap = |i: usize, n: usize| {
        let at = ((i as f64 + 0.5) / scale as f64 - 0.5).max(0.0);
        let first = (at.floor() as usize).min(n - 1);
        (first, (first + 1).min(n - 1), at - first as f64)
    };
    let mut planes: Vec<Vec<f64>> = Vec::new();
    for c in 0..channels {
        let at = |x: usize, y: usize| f64::from(soft[(y * width + x) * channels + c]);
        let mut plane = Vec::new();
        for y in 0..h {
            let (y0, y1, v) = tap(y, height);
            for x in 0..w {
                let (x0, x1, u) = tap(x, width);
                plane.push(
                    (1.0 - v) * ((1.0 - u) * at(x0, y0) + u * at(x1, y0))
                        + v * ((1.0 - u) * at(x0, y1) + u * at(x1, y1)),
                );
            }
        }
        let low = plane.iter().copied().fold(f64::INFINITY, f64::min);
        let high = plane.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if high > low {
            plane
                .iter_mut()
                .for_each(|v| *v = (*v - low) / (high - low));
        }
        planes.push(plane);
    }
    let mut out = Vec::new();
    for y in 0..size.1 {
        for x in 0..size.0 {
            let from =
                |i: usize, to: usize, n: usize| ((i as f64 + 0.5) * n as f64 / to as f64) as usize;
            let i = from(y, size.1, h) * w + from(x, size.0, w);
            let mut best = 0;
            for c in 1..channels {
                if planes[c][i] > planes[best][i] {
                    best = c;
                }
            }
            out.push(best as u8);
        }
    }
    out
}
