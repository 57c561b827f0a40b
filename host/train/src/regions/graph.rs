//! Segmentation by color, on the graph of neighboring pixels (Felzenszwalb and Huttenlocher,
//! "Efficient Graph-Based Image Segmentation", IJCV 2004).

use loftup_runtime::image::RgbImage;
use serde::{Deserialize, Serialize};

use super::{ColorSpace, Mask};

/// Parameters of a segmentation by color.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Segmentation {
    /// Standard deviation of the initial blur, in pixels.
    pub sigma: f32,
    /// The paper's k, for colors of 0 to 255: a larger scale gives larger regions.
    pub scale: f32,
    /// Minimum area of a region, as a fraction of the image; smaller ones are merged into a neighbor.
    pub min_area: f32,
    /// The space in which colors are compared.
    pub color_space: ColorSpace,
}

impl Default for Segmentation {
    fn default() -> Self {
        Self {
            sigma: 0.8,
            scale: 150.0,
            min_area: 0.002,
            color_space: ColorSpace::Rgb,
        }
    }
}

impl Segmentation {
    /// Minimum area in pixels, in an image of `pixels` pixels.
    fn min_size(&self, pixels: usize) -> usize {
        (self.min_area * pixels as f32) as usize
    }
}

/// Neighboring pixels and the difference of their colors.
#[derive(Debug, Clone, Copy)]
struct Edge {
    weight: f32,
    a: u32,
    b: u32,
}

/// Regions as trees of pixels.
struct Forest {
    parent: Vec<u32>,
    size: Vec<u32>,
    /// Maximum weight of an edge that joins a region to another: the greatest weight inside, plus
    /// `scale` divided by the size.
    threshold: Vec<f32>,
}

impl Forest {
    fn root(&mut self, mut i: u32) -> u32 {
        while self.parent[i as usize] != i {
            // Halving the path keeps the trees flat.
            self.parent[i as usize] = self.parent[self.parent[i as usize] as usize];
            i = self.parent[i as usize];
        }
        i
    }

    fn join(&mut self, a: u32, b: u32) -> u32 {
        let (large, small) = if self.size[a as usize] >= self.size[b as usize] {
            (a, b)
        } else {
            (b, a)
        };
        self.parent[small as usize] = large;
        self.size[large as usize] += self.size[small as usize];
        large
    }
}

/// Blurs the colors, `[height * width, 3]`, with replicated borders.
fn blurred(image: &RgbImage, how: Segmentation) -> Vec<f32> {
    let (width, height) = (image.width(), image.height());
    let sigma = how.sigma;
    let source = how.color_space.colors(image.data());
    if sigma <= 0.0 {
        return source;
    }
    let reach = (4.0 * sigma).ceil() as isize;
    let bell: Vec<f32> = (-reach..=reach)
        .map(|i| (-0.5 * (i as f32 / sigma).powi(2)).exp())
        .collect();
    let sum: f32 = bell.iter().sum();
    let pass = |x: &[f32], across: bool| {
        let mut out = vec![0.0; x.len()];
        for y in 0..height as isize {
            for col in 0..width as isize {
                for (k, weight) in bell.iter().enumerate() {
                    let shift = k as isize - reach;
                    let (sy, sx) = if across {
                        (y, col + shift)
                    } else {
                        (y + shift, col)
                    };
                    let sy = sy.clamp(0, height as isize - 1) as usize;
                    let sx = sx.clamp(0, width as isize - 1) as usize;
                    let to = (y as usize * width + col as usize) * 3;
                    let from = (sy * width + sx) * 3;
                    for c in 0..3 {
                        out[to + c] += weight / sum * x[from + c];
                    }
                }
            }
        }
        out
    };
    pass(&pass(&source, true), false)
}

/// Edges between each pixel and its eight neighbors, lightest first, in a fixed order.
fn edges(colors: &[f32], width: usize, height: usize) -> Vec<Edge> {
    let mut edges = Vec::with_capacity(4 * width * height);
    for y in 0..height {
        for x in 0..width {
            let a = y * width + x;
            let mut edge = |b: usize| {
                let square: f32 = (0..3)
                    .map(|c| (colors[a * 3 + c] - colors[b * 3 + c]).powi(2))
                    .sum();
                edges.push(Edge {
                    weight: square.sqrt(),
                    a: a as u32,
                    b: b as u32,
                });
            };
            if x + 1 < width {
                edge(a + 1);
            }
            if y + 1 < height {
                edge(a + width);
                if x + 1 < width {
                    edge(a + width + 1);
                }
                if x > 0 {
                    edge(a + width - 1);
                }
            }
        }
    }
    edges.sort_by(|a, b| a.weight.total_cmp(&b.weight));
    edges
}

/// Segments an image into regions. Each pixel is in exactly one.
pub fn segment(image: &RgbImage, how: Segmentation) -> Vec<Mask> {
    let (width, height) = (image.width(), image.height());
    let edges = edges(&blurred(image, how), width, height);
    let n = width * height;
    let min_size = how.min_size(n);
    let mut forest = Forest {
        parent: (0..n as u32).collect(),
        size: vec![1; n],
        threshold: vec![how.scale; n],
    };
    for edge in &edges {
        let (a, b) = (forest.root(edge.a), forest.root(edge.b));
        if a != b && edge.weight <= forest.threshold[a as usize].min(forest.threshold[b as usize]) {
            let root = forest.join(a, b) as usize;
            forest.threshold[root] = edge.weight + how.scale / forest.size[root] as f32;
        }
    }
    for edge in &edges {
        let (a, b) = (forest.root(edge.a), forest.root(edge.b));
        let smaller = forest.size[a as usize].min(forest.size[b as usize]) as usize;
        if a != b && smaller < min_size {
            forest.join(a, b);
        }
    }
    let mut index = vec![usize::MAX; n];
    let mut regions: Vec<Vec<u32>> = Vec::new();
    for pixel in 0..n as u32 {
        let root = forest.root(pixel) as usize;
        if index[root] == usize::MAX {
            index[root] = regions.len();
            regions.push(Vec::new());
        }
        regions[index[root]].push(pixel);
    }
    regions.into_iter().map(Mask::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Rng};

    fn noise(width: usize, height: usize, seed: u64, levels: usize) -> RgbImage {
        let mut rng = Rng::new(seed, Purpose::Step, 0);
        let data = (0..width * height * 3)
            .map(|_| (rng.below(levels) * 200 / levels) as u8)
            .collect();
        RgbImage::new(width, height, data).unwrap()
    }

    /// The paper's definitions, word by word and slowly: the internal difference of a component
    /// is the greatest weight in its minimum spanning tree, found anew each time by Prim's
    /// algorithm.
    fn slow(image: &RgbImage, how: Segmentation) -> Vec<Mask> {
        let (width, height) = (image.width(), image.height());
        let edges = edges(&blurred(image, how), width, height);
        let n = width * height;
        let mut label: Vec<usize> = (0..n).collect();
        let internal = |label: &[usize], component: usize| -> f32 {
            let members: Vec<usize> = (0..n).filter(|&i| label[i] == component).collect();
            let mut inside = vec![members[0]];
            let mut greatest = 0.0f32;
            while inside.len() < members.len() {
                let lightest = edges
                    .iter()
                    .filter_map(|e| {
                        let (a, b) = (e.a as usize, e.b as usize);
                        let (a_in, b_in) = (inside.contains(&a), inside.contains(&b));
                        let other = if a_in { b } else { a };
                        (a_in != b_in && label[other] == component).then_some((e.weight, other))
                    })
                    .min_by(|x, y| x.0.total_cmp(&y.0))
                    .unwrap();
                greatest = greatest.max(lightest.0);
                inside.push(lightest.1);
            }
            greatest
        };
        let count =
            |label: &[usize], component: usize| label.iter().filter(|&&l| l == component).count();
        for merge_small in [false, true] {
            for edge in &edges {
                let (a, b) = (label[edge.a as usize], label[edge.b as usize]);
                if a == b {
                    continue;
                }
                let join = if merge_small {
                    count(&label, a).min(count(&label, b)) < how.min_size(n)
                } else {
                    let limit =
                        |c: usize| internal(&label, c) + how.scale / count(&label, c) as f32;
                    edge.weight <= limit(a).min(limit(b))
                };
                if join {
                    label.iter_mut().filter(|l| **l == b).for_each(|l| *l = a);
                }
            }
        }
        let mut seen: Vec<usize> = Vec::new();
        for l in &label {
            if !seen.contains(l) {
                seen.push(*l);
            }
        }
        let pixels = |l: usize| (0..n as u32).filter(|&i| label[i as usize] == l).collect();
        seen.into_iter().map(|l| Mask::new(pixels(l))).collect()
    }

    #[test]
    fn it_agrees_with_the_definition_in_the_paper() {
        let mut sizes = Vec::new();
        for seed in 0..24 {
            let image = noise(7, 6, seed, 2 + seed as usize % 5);
            let how = Segmentation {
                sigma: [0.0, 0.6][seed as usize % 2],
                scale: [30.0, 120.0, 500.0][seed as usize % 3],
                // 1 and 4 of 42 pixels.
                min_area: [0.03, 0.1][seed as usize / 2 % 2],
                color_space: [ColorSpace::Rgb, ColorSpace::Lab][seed as usize / 4 % 2],
            };
            let fast = segment(&image, how);
            assert_eq!(fast, slow(&image, how), "seed {seed}");
            sizes.push(fast.len());
        }
        // A test of one region, or of every pixel its own, would show little.
        assert!(sizes.iter().any(|&n| n > 2 && n < 30), "{sizes:?}");
    }

    #[test]
    fn flat_shapes_on_a_flat_ground_are_found_exactly() {
        let mut image = RgbImage::filled(40, 30, [200, 190, 180]).unwrap();
        for y in 5..15 {
            for x in 8..20 {
                image.row_mut(y)[x * 3..][..3].copy_from_slice(&[20, 60, 120]);
            }
        }
        let how = Segmentation {
            sigma: 0.0,
            scale: 100.0,
            min_area: 0.009,
            color_space: ColorSpace::Rgb,
        };
        let mut sizes: Vec<usize> = segment(&image, how)
            .iter()
            .map(|m| m.pixels().len())
            .collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [120, 1080]);
    }
}
