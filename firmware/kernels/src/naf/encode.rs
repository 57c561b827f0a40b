//! Encodes an image with its own statistics: of all layers in turn, then the keys of the cells.

use std::sync::{Arc, Mutex, PoisonError};

use loftup_spec::naf::{Branch, CHANNELS, LAYERS, WIDTH, fits};

use super::{
    Jobs, Naf,
    blocks::{Blocks, TILE},
    encoded::{EncodedImage, Encodings},
    frame::{Area, Axis, Frame, Image, Patch},
    keys::write_key,
    pixels::rotate,
    statistics::{Affine, Statistics, Sums},
};
use crate::KernelError;

/// Number of rows per band of a stored map.
const BAND: usize = 16;

pub(super) fn encode(
    naf: &Arc<Naf>,
    image: Arc<Image>,
    (down, across): (usize, usize),
    jobs: Jobs<'_>,
) -> Result<EncodedImage, KernelError> {
    let mut encoded = EncodedImage::new(naf, image, (down, across), Statistics::default())?;
    let (height, width) = encoded.size();
    match height * width <= naf.kept_pixels {
        true => encoded.keep(jobs),
        false => encoded.only_statistics(jobs),
    }
    Ok(encoded)
}

impl EncodedImage {
    /// An image of which nothing has been computed.
    fn new(
        naf: &Arc<Naf>,
        image: Arc<Image>,
        (down, across): (usize, usize),
        statistics: Statistics,
    ) -> Result<Self, KernelError> {
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
        let rows = Axis::new(down, height, &naf.periods);
        let columns = Axis::new(across, width, &naf.periods);
        let frame = Frame {
            naf: naf.clone(),
            image,
            rows,
            columns,
            statistics,
        };
        Ok(Self {
            encodings: Encodings::Blocks(Blocks::new(frame.axes(), naf.kept_pixels)),
            frame,
        })
    }

    /// Encodes the next image of a video with the statistics of this one. Nothing is computed for the whole
    /// image: encodings and keys follow where [`EncodedImage::attend`] needs them. Both images share
    /// those of unchanged pixels.
    ///
    /// # Errors
    /// Same as [`Naf::encode`].
    pub fn encode_next(
        &self,
        image: impl Into<Arc<Image>>,
        grid: (usize, usize),
    ) -> Result<Self, KernelError> {
        let mut next = Self::new(
            &self.frame.naf,
            image.into(),
            grid,
            self.frame.statistics.clone(),
        )?;
        if let (Encodings::Blocks(blocks), Encodings::Blocks(last)) =
            (&mut next.encodings, &self.encodings)
            && (next.frame.image.size(), grid) == (self.size(), self.grid())
        {
            blocks.share(&next.frame, last, &self.frame.image);
        }
        Ok(next)
    }

    /// Whether outputs in `area` are those of `other` for the same values, because both share everything
    /// that they are computed from.
    pub fn shares(&self, other: &Self, area: Area) -> bool {
        match (&self.encodings, &other.encodings) {
            (Encodings::Blocks(blocks), Encodings::Blocks(others)) => {
                self.frame.check_area(area).is_ok() && blocks.shares(others, &self.frame, area)
            }
            _ => false,
        }
    }

    /// Computes the encodings of all pixels, layer by layer.
    fn keep(&mut self, jobs: Jobs<'_>) {
        let naf = self.frame.naf.clone();
        let values = self.frame.image.whole().pixels() * WIDTH;
        let mut map = naf.map(values);
        let mut other = naf.map(values);
        for layer in 0..=LAYERS {
            self.layer(Branch::Spatial, layer, &other, &mut map, jobs);
            std::mem::swap(&mut map, &mut other);
        }
        for layer in 0..=LAYERS {
            self.layer(Branch::Pointwise, layer, &[], &mut map, jobs);
        }
        let encodings = [map, other];
        let keys = self.keys(&encodings, jobs);
        self.encodings = Encodings::Whole { encodings, keys };
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
        let naf = self.frame.naf.clone();
        let layers = &naf.branches[branch as usize];
        let (whole, size) = (self.frame.image.whole(), self.frame.image.size());
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
                let norms = self.frame.statistics.of(branch);
                match layer.checked_sub(1) {
                    None => layers.first(&self.frame.image, area, buffers, band),
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
                rotate(naf.isa, self.frame.axes(), area, band);
            } else {
                *sums = Some(Sums::of(naf.isa, band));
            }
        });
        if !last {
            let sums = bands.into_iter().filter_map(|band| {
                let (_, sums) = band.into_inner().unwrap_or_else(PoisonError::into_inner);
                sums
            });
            self.frame.statistics.of_mut(branch)[layer] =
                Affine::new(layers.norm(layer), &added(sums));
        }
    }

    /// Computes the statistics of every layer, and for each of them recomputes all layers before it, tile
    /// by tile.
    fn only_statistics(&mut self, jobs: Jobs<'_>) {
        let naf = self.frame.naf.clone();
        let tiles = tiles(self.frame.image.size());
        for layer in 0..LAYERS {
            let sums: Vec<_> = tiles.iter().map(|_| Mutex::new(None)).collect();
            jobs(tiles.len(), &|i| {
                let found = naf.with_workspace(|workspace| {
                    Branch::ALL.map(|branch| {
                        let norms = self.frame.statistics.of(branch);
                        let buffers = &mut workspace.pixels;
                        buffers.compute(&naf, branch, (&self.frame.image, tiles[i]), norms, layer);
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
                self.frame.statistics.of_mut(branch)[layer] = Affine::new(norm, &added(sums));
            }
        }
    }

    /// Computes the keys of all cells from the encodings of all pixels.
    fn keys(&self, encodings: &[Vec<f32>; 2], jobs: Jobs<'_>) -> Vec<f32> {
        let (down, across) = self.grid();
        let patches = encodings.each_ref().map(|data| Patch {
            area: self.frame.image.whole(),
            data,
        });
        let mut keys = vec![0.0; down * across * CHANNELS];
        let rows: Vec<_> = keys.chunks_mut(across * CHANNELS).map(Mutex::new).collect();
        jobs(down, &|row| {
            let mut keys = rows[row].lock().unwrap_or_else(PoisonError::into_inner);
            let axes = self.frame.axes();
            for (column, key) in keys.chunks_exact_mut(CHANNELS).enumerate() {
                write_key(self.frame.naf.isa, patches, axes, (row, column), key);
            }
        });
        drop(rows);
        keys
    }
}

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
