//! The upsampler: keys once per frame, queries tile by tile.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use loftup_bundle::{Bundle, Precision, Size};
use loftup_spec::{HALO, io, linspace};

use crate::{
    ExecutionOptions, Features, RuntimeError,
    backend::{Backend, ShapeBounds, ShapeProfile},
    fused::{Asked, FusedHeads},
    plan_cache::{PlanCache, SessionPool, Shapes, Source},
    tiles::{Rect, Tiling},
    words::MomentMap,
};

/// Maximum side of tiles in the small optimization profile; larger tiles use another profile.
pub(crate) const SMALL_TILE: usize = 64;
/// Number of points per run, each a tile of one pixel.
pub(crate) const POINTS: usize = 64;

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// An upsampler loaded into an engine.
pub(crate) struct Upsampler {
    pub manifest: loftup_bundle::Upsampler,
    keys: PlanCache,
    queries: Queries,
    pub backend: Arc<dyn Backend>,
    pub options: ExecutionOptions,
    /// Unique in the process.
    pub id: u64,
}

/// The queries graph.
enum Queries {
    /// The bundle's graph, without a head.
    Plain(PlanCache),
    WithHeads(Box<FusedHeads>),
}

impl Upsampler {
    pub fn new(
        bundle: &Arc<Bundle>,
        backend: &Arc<dyn Backend>,
        precision: Precision,
        manifest: loftup_bundle::Upsampler,
        options: ExecutionOptions,
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
            head: false,
            precision,
            inputs: [io::FEATURES, io::GRID].map(str::to_owned).into(),
            outputs: pairs.clone(),
        };
        let queries = Source {
            file: files.queries.clone(),
            head: false,
            precision,
            inputs: pixels.into_iter().chain(pairs).collect(),
            outputs: vec![io::UPSAMPLED.into()],
        };
        Ok(Self {
            keys: PlanCache::new(bundle, backend, keys),
            queries: match backend.fuses_heads() {
                true => Queries::WithHeads(
                    FusedHeads::new(bundle, backend, &queries, manifest.dim).into(),
                ),
                false => Queries::Plain(PlanCache::new(bundle, backend, queries)),
            },
            backend: backend.clone(),
            manifest,
            options,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// Computes the keys and values of every layer.
    pub fn keys(&self, features: &Features) -> Result<Keys, RuntimeError> {
        let &Features {
            dim,
            height,
            width,
            ref tokens,
        } = features;
        if dim != self.manifest.dim {
            let found = vec![1, dim, height, width];
            return Err(RuntimeError::FeatureShape {
                found,
                dim: self.manifest.dim,
            });
        }
        let pool = self.keys_plan(height * width)?;
        let (rows, cols) = (linspace(-1.0, 1.0, height), linspace(-1.0, 1.0, width));
        let mut grid = Vec::with_capacity(2 * height * width);
        grid.extend(rows.iter().flat_map(|y| std::iter::repeat_n(*y, width)));
        grid.extend((0..height).flat_map(|_| &cols));
        let session = pool.run(&[tokens, &grid])?;
        let tensors = (0..2 * self.manifest.layers)
            .map(|i| session.output(i).to_vec())
            .collect();
        Ok(Keys {
            tokens: height * width,
            tensors,
            moments: MomentMap::of(features),
        })
    }

    /// Returns the plan of the keys graph for this many tokens.
    fn keys_plan(&self, tokens: usize) -> Result<Arc<SessionPool>, RuntimeError> {
        let shapes = vec![vec![1, tokens, self.manifest.dim], vec![2, tokens]];
        self.keys.get(&shapes, &[])
    }

    /// Compiles for an output of this size from features of `(rows, columns)`.
    pub fn compile(&self, output: Size, (rows, cols): (usize, usize)) -> Result<(), RuntimeError> {
        self.keys_plan(rows * cols)?;
        let (width, height) = Tiling::new(Rect::whole(output), self.frame_tile()).shape();
        self.plan(Asked::Features, 1, (width, height), rows * cols)?;
        Ok(())
    }

    /// The queries graph with a head, if the engine runs heads.
    pub fn fused_heads(&self) -> Option<&FusedHeads> {
        match &self.queries {
            Queries::Plain(_) => None,
            Queries::WithHeads(fused) => Some(fused),
        }
    }

    /// Drops the compiled queries and their sessions.
    pub fn clear_plans(&self) {
        match &self.queries {
            Queries::Plain(plans) => plans.clear(),
            Queries::WithHeads(fused) => fused.clear(),
        }
    }

    /// Longest side of a tile of a frame.
    pub fn frame_tile(&self) -> usize {
        let side = || self.backend.tiling_hint().frame;
        self.options.tile.unwrap_or_else(side)
    }

    /// Longest side of a tile of a region.
    pub fn region_tile(&self) -> usize {
        let side = || self.backend.tiling_hint().region;
        self.options.tile.unwrap_or_else(side)
    }

    /// Returns the optimization profiles of the queries graph for one number of tokens: for points, region
    /// tiles, and frame tiles. Only the keys and values of `shapes` are used.
    fn profiles(&self, shapes: &Shapes) -> Vec<ShapeProfile> {
        let profile = |tiles: usize, min: usize, max: usize| {
            let tile = |count: usize, channels: usize, side: usize| {
                vec![count, channels, side + 2 * HALO, side + 2 * HALO]
            };
            let pixels = [3, 2, 1].map(|channels| ShapeBounds {
                min: tile(1, channels, min),
                opt: tile(tiles, channels, max),
                max: tile(tiles, channels, max),
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

    /// Returns the plan for `count` tiles of `(width, height)` pixels. Without [`Upsampler::fused_heads`],
    /// it always computes features, whatever `asked` is.
    pub fn plan(
        &self,
        asked: Asked<'_>,
        count: usize,
        (width, height): (usize, usize),
        tokens: usize,
    ) -> Result<Arc<SessionPool>, RuntimeError> {
        let m = &self.manifest;
        let tile = |channels| vec![count, channels, height + 2 * HALO, width + 2 * HALO];
        let mut shapes: Shapes = vec![tile(3), tile(2), tile(1)];
        for _ in 0..m.layers {
            shapes.push(vec![m.heads, m.head_width, tokens]);
            shapes.push(vec![m.heads, tokens, m.head_width]);
        }
        let profiles = self.profiles(&shapes);
        match &self.queries {
            Queries::Plain(plans) => plans.get(&shapes, &profiles),
            Queries::WithHeads(fused) => fused.plan(asked, shapes, profiles),
        }
    }
}

/// Keys and values of one frame.
pub(crate) struct Keys {
    pub tokens: usize,
    /// Key and value of each layer, alternating.
    pub tensors: Vec<Vec<f32>>,
    /// Mean and deviation of the tokens, which the channel norm removes from the keys.
    pub moments: MomentMap,
}
