//! The upsampler: keys once per frame, queries tile by tile.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use loftup_bundle::{Bundle, Precision, Size};
use loftup_spec::{HALO, io, linspace};

use crate::{
    Features, RuntimeError,
    backend::{Backend, ShapeBounds, ShapeProfile},
    plans::{Plans, SessionPool, Shapes, Source},
    tiles::{Rect, Tiling},
};

/// Side of the tiles that an engine with profiles has one of its own for, beside that for larger
/// ones.
pub(crate) const SMALL_TILE: usize = 64;
/// Points that are computed in one run, each as a tile of one pixel.
pub(crate) const POINTS: usize = 64;

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// How the work is divided.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Division {
    pub threads: usize,
    /// Longest side of a tile; `None` chooses by the question.
    pub tile: Option<usize>,
}

/// An upsampler in an engine.
pub(crate) struct Upsampler {
    pub manifest: loftup_bundle::Upsampler,
    keys: Plans,
    queries: Plans,
    pub backend: Arc<dyn Backend>,
    pub division: Division,
    /// No two of a process have the same.
    pub id: u64,
}

impl Upsampler {
    pub fn new(
        bundle: &Arc<Bundle>,
        backend: &Arc<dyn Backend>,
        precision: Precision,
        manifest: loftup_bundle::Upsampler,
        division: Division,
    ) -> Result<Self, RuntimeError> {
        let files = manifest.graphs.get(&precision).ok_or_else(|| {
            bundle.lacks("upsampler graphs in this precision", "convert it again")
        })?;
        let pairs: Vec<String> = (0..manifest.layers)
            .flat_map(|i| [io::key(i), io::value(i)])
            .collect();
        let pixels = [io::GUIDANCE, io::COORDS, io::MASK].map(str::to_owned);
        let keys = Source {
            file: files.keys.clone(),
            precision,
            inputs: [io::FEATURES, io::GRID].map(str::to_owned).into(),
            outputs: pairs.clone(),
        };
        let queries = Source {
            file: files.queries.clone(),
            precision,
            inputs: pixels.into_iter().chain(pairs).collect(),
            outputs: vec![io::UPSAMPLED.into()],
        };
        Ok(Self {
            keys: Plans::new(bundle, backend, keys),
            queries: Plans::new(bundle, backend, queries),
            backend: backend.clone(),
            manifest,
            division,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// Keys and values of every layer.
    pub fn keys(&self, features: &Features) -> Result<Keys, RuntimeError> {
        let &Features {
            dim,
            height,
            width,
            ref data,
        } = features;
        if dim != self.manifest.dim {
            let found = vec![1, dim, height, width];
            return Err(RuntimeError::FeatureShape {
                found,
                dim: self.manifest.dim,
            });
        }
        let pool = self.keys_plan(height, width)?;
        let mut session = pool.session()?;
        let (rows, cols) = (linspace(-1.0, 1.0, height), linspace(-1.0, 1.0, width));
        let mut grid = Vec::with_capacity(2 * height * width);
        grid.extend(rows.iter().flat_map(|y| std::iter::repeat_n(*y, width)));
        grid.extend((0..height).flat_map(|_| &cols));
        session.set(0, data)?;
        session.set(1, &grid)?;
        if let Err(e) = session.run() {
            session.discard();
            return Err(e.into());
        }
        let tensors = (0..2 * self.manifest.layers)
            .map(|i| session.output(i).to_vec())
            .collect();
        Ok(Keys {
            tokens: height * width,
            tensors,
        })
    }

    /// The plan for the keys of a grid of `height x width` features.
    fn keys_plan(&self, height: usize, width: usize) -> Result<Arc<SessionPool>, RuntimeError> {
        let features = vec![1, self.manifest.dim, height, width];
        let shapes = vec![features, vec![2, height, width]];
        self.keys.get(&shapes, &[])
    }

    /// Compiles what a frame of this size, its regions and points need, from a grid of so many rows
    /// and columns of features.
    pub fn compile(&self, answer: Size, (rows, cols): (usize, usize)) -> Result<(), RuntimeError> {
        self.keys_plan(rows, cols)?;
        let (width, height) = Tiling::new(Rect::whole(answer), self.frame_tile()).shape();
        self.plan(1, width, height, rows * cols)?;
        Ok(())
    }

    /// Lets go of the compiled queries and their sessions.
    pub fn forget_plans(&self) {
        self.queries.clear();
    }

    /// Longest side of a tile of a frame.
    pub fn frame_tile(&self) -> usize {
        let side = || self.backend.tiling_hint().frame;
        self.division.tile.unwrap_or_else(side)
    }

    /// Longest side of a tile of a region.
    pub fn region_tile(&self) -> usize {
        let side = || self.backend.tiling_hint().region;
        self.division.tile.unwrap_or_else(side)
    }

    /// Shapes that the queries are asked for, all for the same number of tokens: points, tiles of
    /// regions, and tiles of frames. Of `shapes` only the keys and values are looked at.
    fn profiles(&self, shapes: &Shapes) -> Vec<ShapeProfile> {
        let profile = |tiles: usize, smallest: usize, largest: usize| {
            let tile = |count: usize, channels: usize, side: usize| {
                vec![count, channels, side + 2 * HALO, side + 2 * HALO]
            };
            let pixels = [3, 2, 1].map(|channels| ShapeBounds {
                min: tile(1, channels, smallest),
                opt: tile(tiles, channels, largest),
                max: tile(tiles, channels, largest),
            });
            let fixed = shapes.iter().skip(3).map(|s| ShapeBounds::fixed(s));
            ShapeProfile {
                inputs: pixels.into_iter().chain(fixed).collect(),
            }
        };
        let longest = self.frame_tile().max(self.region_tile());
        let mut profiles = vec![
            profile(POINTS, 1, 1),
            profile(1, 1, longest.min(SMALL_TILE)),
        ];
        if longest > SMALL_TILE {
            profiles.push(profile(1, 1, longest));
        }
        profiles
    }

    /// The plan for `count` tiles of `height x width` pixels.
    pub fn plan(
        &self,
        count: usize,
        width: usize,
        height: usize,
        tokens: usize,
    ) -> Result<Arc<SessionPool>, RuntimeError> {
        let m = &self.manifest;
        let tile = |channels| vec![count, channels, height + 2 * HALO, width + 2 * HALO];
        let mut shapes: Shapes = vec![tile(3), tile(2), tile(1)];
        for _ in 0..m.layers {
            shapes.push(vec![m.heads, m.head_width, tokens]);
            shapes.push(vec![m.heads, tokens, m.head_width]);
        }
        self.queries.get(&shapes, &self.profiles(&shapes))
    }
}

/// Keys and values of one frame.
pub(crate) struct Keys {
    pub tokens: usize,
    /// Key and value of each layer, in turn.
    pub tensors: Vec<Vec<f32>>,
}
