//! Encodes an image: statistics of the normalizations, encodings of the pixels, keys of the cells.

use std::sync::{Arc, Mutex, PoisonError};

use loftup_spec::naf::{Branch, CHANNELS, HEAD_WIDTH, LAYERS, WIDTH, fits};

use super::{
    Jobs, Naf,
    frame::{Area, Axis, EncodedImage, Image, Patch},
    pixels::rotate,
    statistics::{Affine, Sums},
};
use crate::{
    KernelError,
    simd::{Simd, SimdOp, dispatch},
};

/// Number of rows per band of a stored map.
const BAND: usize = 16;
/// Side of a tile of an image whose encodings are not stored, in pixels.
const TILE: usize = 64;

pub(super) fn encode(
    naf: &Arc<Naf>,
    image: Arc<Image>,
    (down, across): (usize, usize),
    jobs: Jobs<'_>,
) -> Result<EncodedImage, KernelError> {
    let (height, width) = image.size();
    if image.data.len() != 3 * height * width {
        return Err(KernelError::Size {
            what: "the image",
            expected: 3 * height * width,
            found: image.data.len(),
        });
    }
    if !fits(down, height) || !fits(across, width) {
        return Err(KernelError::Grid {
            grid: (down, across),
            image: (height, width),
        });
    }
    let mut encoded = EncodedImage {
        naf: naf.clone(),
        rows: Axis::new(down, height, &naf.periods),
        columns: Axis::new(across, width, &naf.periods),
        norms: std::array::from_fn(|_| [Affine::IDENTITY; LAYERS]),
        kept: None,
        keys: vec![0.0; down * across * CHANNELS],
        image,
    };
    if height * width <= naf.kept_pixels {
        encoded.keep(jobs);
    } else {
        encoded.only_statistics(jobs);
    }
    encoded.compute_keys(jobs);
    Ok(encoded)
}

impl EncodedImage {
    /// Computes the encodings of all pixels, layer by layer.
    fn keep(&mut self, jobs: Jobs<'_>) {
        let naf = self.naf.clone();
        let values = self.image.whole().pixels() * WIDTH;
        let mut map = naf.map(values);
        let mut other = naf.map(values);
        for layer in 0..=LAYERS {
            self.layer(Branch::Spatial, layer, &other, &mut map, jobs);
            std::mem::swap(&mut map, &mut other);
        }
        for layer in 0..=LAYERS {
            self.layer(Branch::Pointwise, layer, &[], &mut map, jobs);
        }
        self.kept = Some([map, other]);
    }

    /// Computes the first convolution (0) or layer `layer - 1` for the whole image from `input`; in
    /// place if the branch has 1x1 convolutions. Then computes the statistics for the next one.
    fn layer(
        &mut self,
        branch: Branch,
        layer: usize,
        input: &[f32],
        map: &mut [f32],
        jobs: Jobs<'_>,
    ) {
        let naf = self.naf.clone();
        let layers = &naf.branches[branch as usize];
        let (whole, size) = (self.image.whole(), self.image.size());
        let last = layer == LAYERS;
        let bands: Vec<_> = map
            .chunks_mut(BAND * whole.width * WIDTH)
            .map(|band| Mutex::new((band, None)))
            .collect();
        jobs(bands.len(), &|i| {
            let mut held = bands[i].lock().unwrap_or_else(PoisonError::into_inner);
            let (band, sums) = &mut *held;
            let area = Area {
                y: i * BAND,
                height: band.len() / WIDTH / whole.width,
                ..whole
            };
            naf.with_workspace(|workspace| {
                let buffers = &mut workspace.pixels.layers;
                let norms = &self.norms[branch as usize];
                match layer.checked_sub(1) {
                    None => layers.first(&self.image, area, buffers, band),
                    Some(i) if layers.is_spatial() => {
                        let from = Patch {
                            area: whole,
                            data: input,
                        };
                        layers.spatial(i, &norms[i], (from, area), size, buffers, band);
                    }
                    Some(i) => layers.pointwise(i, &norms[i], buffers, band),
                }
            });
            if last {
                rotate(naf.isa, (&self.rows, &self.columns), area, band);
            } else {
                *sums = Some(Sums::of(naf.isa, band));
            }
        });
        if !last {
            let sums = bands.into_iter().filter_map(|band| {
                let (_, sums) = band.into_inner().unwrap_or_else(PoisonError::into_inner);
                sums
            });
            self.norms[branch as usize][layer] = Affine::new(layers.norm(layer), &added(sums));
        }
    }

    /// Computes the statistics of every layer, and for each of them recomputes all layers before it, tile
    /// by tile.
    fn only_statistics(&mut self, jobs: Jobs<'_>) {
        let naf = self.naf.clone();
        let tiles = tiles(self.image.size());
        for layer in 0..LAYERS {
            let sums: Vec<_> = tiles.iter().map(|_| Mutex::new(None)).collect();
            jobs(tiles.len(), &|i| {
                let found = naf.with_workspace(|workspace| {
                    Branch::ALL.map(|branch| {
                        let norms = &self.norms[branch as usize];
                        let buffers = &mut workspace.pixels;
                        buffers.compute(&naf, branch, (&self.image, tiles[i]), norms, layer);
                        Sums::of(naf.isa, &buffers.encodings[branch as usize])
                    })
                });
                *sums[i].lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
            });
            let sums: Vec<_> = sums
                .into_iter()
                .filter_map(|s| s.into_inner().unwrap_or_else(PoisonError::into_inner))
                .collect();
            for branch in Branch::ALL {
                let sums = sums.iter().map(|both| both[branch as usize].clone());
                let norm = naf.branches[branch as usize].norm(layer);
                self.norms[branch as usize][layer] = Affine::new(norm, &added(sums));
            }
        }
    }

    /// Computes the keys: the means of the encodings of each cell, times the scale of the attention.
    fn compute_keys(&mut self, jobs: Jobs<'_>) {
        let naf = self.naf.clone();
        let (down, across) = self.grid();
        // If encodings have to be computed for this, several cells at once share their halo.
        let side = |cells: usize, pixels: usize| match self.kept {
            Some(_) => 1,
            None => (TILE * cells / pixels).clamp(1, cells),
        };
        let block = (
            side(down, self.image.height),
            match self.kept {
                Some(_) => across,
                None => side(across, self.image.width),
            },
        );
        let blocks_across = across.div_ceil(block.1);
        let keys = Mutex::new(std::mem::take(&mut self.keys));
        jobs(down.div_ceil(block.0) * blocks_across, &|i| {
            let first = (i / blocks_across * block.0, i % blocks_across * block.1);
            let last = (
                (first.0 + block.0).min(down) - 1,
                (first.1 + block.1).min(across) - 1,
            );
            let (top, left) = (self.rows.pooled(first.0).0, self.columns.pooled(first.1).0);
            let area = Area {
                x: left,
                y: top,
                width: self.columns.pooled(last.1).1 - left,
                height: self.rows.pooled(last.0).1 - top,
            };
            naf.with_workspace(|workspace| {
                let patches = self.patches(area, &mut workspace.pixels);
                for row in first.0..=last.0 {
                    for column in first.1..=last.1 {
                        let (y, x) = (self.rows.pooled(row), self.columns.pooled(column));
                        let key = patches.map(|patch| dispatch(naf.isa, Mean { patch, y, x }));
                        let mut keys = keys.lock().unwrap_or_else(PoisonError::into_inner);
                        let to = &mut keys[(row * across + column) * CHANNELS..][..CHANNELS];
                        for (to, from) in to.iter_mut().zip(key.as_flattened()) {
                            *to = from * SCALE;
                        }
                    }
                }
            });
        });
        self.keys = keys.into_inner().unwrap_or_else(PoisonError::into_inner);
    }

    /// Returns rotated encodings of both branches, for at least the pixels of `area`.
    pub(super) fn patches<'a>(
        &'a self,
        area: Area,
        buffers: &'a mut super::pixels::Buffers,
    ) -> [Patch<'a>; 2] {
        match &self.kept {
            Some(kept) => kept.each_ref().map(|data| Patch {
                area: self.image.whole(),
                data,
            }),
            None => {
                let axes = (&self.rows, &self.columns);
                buffers.encode(&self.naf, (&self.image, area), &self.norms, axes);
                buffers
                    .encodings
                    .each_ref()
                    .map(|data| Patch { area, data })
            }
        }
    }
}

/// One over the square root of the head width.
const SCALE: f32 = 0.125;
const _: () = assert!(HEAD_WIDTH == 64);

fn added(sums: impl Iterator<Item = Sums>) -> Sums {
    sums.fold(Sums::zero(), |all, sums| all.merged(&sums))
}

/// The tiles of an image.
fn tiles((height, width): (usize, usize)) -> Vec<Area> {
    let starts = |n: usize| (0..n).step_by(TILE);
    starts(height)
        .flat_map(|y| {
            starts(width).map(move |x| Area {
                x,
                y,
                width: TILE.min(width - x),
                height: TILE.min(height - y),
            })
        })
        .collect()
}

/// The mean encoding over rows `y.0..y.1` and columns `x.0..x.1`.
struct Mean<'a> {
    patch: Patch<'a>,
    y: (usize, usize),
    x: (usize, usize),
}

impl SimdOp for Mean<'_> {
    type Output = [f32; WIDTH];

    #[inline(always)]
    fn eval<S: Simd>(self) -> [f32; WIDTH] {
        let mut sum = [0f32; WIDTH];
        let width = self.x.1 - self.x.0;
        for y in self.y.0..self.y.1 {
            for pixel in self.patch.row(y, self.x.0, width).as_chunks::<WIDTH>().0 {
                for (sum, x) in sum.iter_mut().zip(pixel) {
                    *sum += x;
                }
            }
        }
        let over = 1.0 / (width * (self.y.1 - self.y.0)) as f32;
        sum.map(|sum| sum * over)
    }
}
