//! The upsampler: keys once per frame, queries tile by tile.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use loftup_models::{
    bundle::{self, Bundle, Precision, Size},
    loftup::{HALO, io, linspace},
};

use crate::{
    Features, Guidance, RuntimeError, SinkError,
    backend::{Backend, ShapeBounds, ShapeProfile},
    guidance::TileInputs,
    heads::Head,
    plans::{Lease, Plans, Pool, Shapes},
    tiles::{Rect, Tiling},
};

/// Side of the tiles that an engine with profiles has one of its own for, beside that for larger
/// ones.
const SMALL_TILE: usize = 64;
/// Points that are computed in one run, each as a tile of one pixel.
const POINTS: usize = 64;

/// A pixel of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Point {
    /// Column.
    pub x: usize,
    /// Row.
    pub y: usize,
}

/// How the work is divided.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Division {
    pub threads: usize,
    /// Longest side of a tile; `None` chooses by the question.
    pub tile: Option<usize>,
}

/// An upsampler in an engine.
pub(crate) struct Upsampler {
    pub manifest: bundle::Upsampler,
    keys: Plans,
    queries: Plans,
    backend: Arc<dyn Backend>,
    division: Division,
}

impl Upsampler {
    pub fn new(
        bundle: &Arc<Bundle>,
        backend: &Arc<dyn Backend>,
        precision: Precision,
        manifest: bundle::Upsampler,
        division: Division,
    ) -> Result<Self, RuntimeError> {
        let files = manifest.graphs.get(&precision).ok_or_else(|| {
            bundle.lacks("upsampler graphs in this precision", "convert it again")
        })?;
        let pairs = (0..manifest.layers)
            .flat_map(|i| [io::key(i), io::value(i)])
            .collect();
        Ok(Self {
            keys: Plans::new(bundle, backend, &files.keys, precision, pairs),
            queries: Plans::new(
                bundle,
                backend,
                &files.queries,
                precision,
                vec![io::UPSAMPLED.into()],
            ),
            backend: backend.clone(),
            manifest,
            division,
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
    fn keys_plan(&self, height: usize, width: usize) -> Result<Arc<Pool>, RuntimeError> {
        let shapes = vec![
            (
                io::FEATURES.into(),
                vec![1, self.manifest.dim, height, width],
            ),
            (io::GRID.into(), vec![2, height, width]),
        ];
        self.keys.get(&shapes, &[])
    }

    /// Compiles what a frame of this size, its regions and points need, from a grid of so many rows
    /// and columns of features.
    pub fn compile(&self, answer: Size, (rows, cols): (usize, usize)) -> Result<(), RuntimeError> {
        self.keys_plan(rows, cols)?;
        let whole = Rect {
            x: 0,
            y: 0,
            width: answer.width,
            height: answer.height,
        };
        let (width, height) = Tiling::new(whole, self.frame_tile()).shape();
        self.plan(1, width, height, rows * cols)?;
        Ok(())
    }

    /// Longest side of a tile of a frame.
    fn frame_tile(&self) -> usize {
        let side = || self.backend.granularity().frame;
        self.division.tile.unwrap_or_else(side)
    }

    /// Longest side of a tile of a region.
    fn region_tile(&self) -> usize {
        let side = || self.backend.granularity().region;
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
                smallest: tile(1, channels, smallest),
                usual: tile(tiles, channels, largest),
                largest: tile(tiles, channels, largest),
            });
            let fixed = shapes.iter().skip(3).map(|(_, s)| ShapeBounds::fixed(s));
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
    fn plan(
        &self,
        count: usize,
        width: usize,
        height: usize,
        tokens: usize,
    ) -> Result<Arc<Pool>, RuntimeError> {
        let m = &self.manifest;
        let tile = |channels| vec![count, channels, height + 2 * HALO, width + 2 * HALO];
        let mut shapes: Shapes = vec![
            (io::GUIDANCE.into(), tile(3)),
            (io::COORDS.into(), tile(2)),
            (io::MASK.into(), tile(1)),
        ];
        for i in 0..m.layers {
            shapes.push((io::key(i), vec![m.heads, m.head_width, tokens]));
            shapes.push((io::value(i), vec![m.heads, tokens, m.head_width]));
        }
        self.queries.get(&shapes, &self.profiles(&shapes))
    }
}

/// Keys and values of one frame.
pub(crate) struct Keys {
    tokens: usize,
    /// Key and value of each layer, in turn.
    tensors: Vec<Vec<f32>>,
}

/// A frame that can be asked: the backbone's part is done, every answer costs in proportion to
/// its area.
pub struct View<'a> {
    pub(crate) upsampler: &'a Upsampler,
    pub(crate) keys: Keys,
    pub(crate) guidance: Guidance,
    /// What the features are turned into before they are answered.
    pub(crate) head: Option<&'a Head>,
}

impl View<'_> {
    /// Size of the whole answer.
    pub fn size(&self) -> Size {
        Size {
            width: self.guidance.width(),
            height: self.guidance.height(),
        }
    }

    /// Channels of the answer: those of the features, or the outputs of the head.
    pub fn dim(&self) -> usize {
        self.head.map_or(self.upsampler.manifest.dim, Head::outputs)
    }

    /// The whole frame, tile by tile in any order.
    ///
    /// # Errors
    /// The first failure of the engine or of `sink`; no tile follows it.
    pub fn frame(&self, sink: Sink<'_>) -> Result<(), RuntimeError> {
        let Size { width, height } = self.size();
        self.tiles(
            Rect {
                x: 0,
                y: 0,
                width,
                height,
            },
            self.upsampler.frame_tile(),
            sink,
        )
    }

    /// A part of the frame, tile by tile in any order, in coordinates of the whole frame.
    ///
    /// # Errors
    /// As [`View::frame`], and where the region is empty or reaches outside.
    pub fn region(&self, rect: Rect, sink: Sink<'_>) -> Result<(), RuntimeError> {
        self.check_region(rect)?;
        self.tiles(rect, self.upsampler.region_tile(), sink)
    }

    /// Whether a region can be asked for.
    ///
    /// # Errors
    /// Where it is empty or reaches outside the answer.
    pub fn check_region(&self, rect: Rect) -> Result<(), RuntimeError> {
        let size = self.size();
        if rect.width == 0 || rect.height == 0 {
            return Err(RuntimeError::EmptyRegion(rect));
        }
        let inside = |start: usize, len: usize, end: usize| {
            start.checked_add(len).is_some_and(|stop| stop <= end)
        };
        if !inside(rect.x, rect.width, size.width) || !inside(rect.y, rect.height, size.height) {
            return Err(RuntimeError::RegionOutside { rect, size });
        }
        Ok(())
    }

    /// The answer at some points, `[points, channels]`, in their order.
    ///
    /// # Errors
    /// Where a point is outside the answer, or the engine fails.
    pub fn points(&self, points: &[Point]) -> Result<Vec<f32>, RuntimeError> {
        let size = self.size();
        if let Some(index) = points
            .iter()
            .position(|p| p.x >= size.width || p.y >= size.height)
        {
            let Point { x, y } = points[index];
            return Err(RuntimeError::PointOutside { index, x, y, size });
        }
        if points.is_empty() {
            return Ok(Vec::new());
        }
        let batch = points.len().next_power_of_two().min(POINTS);
        let pool = self.upsampler.plan(batch, 1, 1, self.keys.tokens)?;
        let answer = Mutex::new(vec![0.0; points.len() * self.dim()]);
        let step = batch * self.dim();
        self.in_parallel(&pool, points.len().div_ceil(batch), &|i, worker| {
            let chunk = &points[i * batch..points.len().min((i + 1) * batch)];
            // The last run is filled up with a point that is computed anyway.
            let filled = chunk.iter().chain(std::iter::repeat(&chunk[0])).take(batch);
            let output = worker.run(filled.map(|p| Rect {
                x: p.x,
                y: p.y,
                width: 1,
                height: 1,
            }))?;
            let mut answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
            let wanted = chunk.len() * self.dim();
            answer[i * step..][..wanted].copy_from_slice(&output[..wanted]);
            Ok(())
        })?;
        Ok(answer.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn tiles(&self, rect: Rect, side: usize, sink: Sink<'_>) -> Result<(), RuntimeError> {
        let tiling = Tiling::new(rect, side);
        let (width, height) = tiling.shape();
        let pool = self.upsampler.plan(1, width, height, self.keys.tokens)?;
        let sink = Mutex::new(sink);
        self.in_parallel(&pool, tiling.len(), &|i, worker| {
            let tile = tiling.tile(i);
            let values = worker.run([tile.compute].into_iter())?;
            let tile = TileFeatures {
                rect: tile.keep,
                group: tile.group,
                computed: tile.compute,
                dim: self.dim(),
                values,
            };
            let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
            (*sink)(&tile).map_err(RuntimeError::Sink)
        })
    }

    /// Calls `work` with 0 to `jobs - 1`, divided among threads as they get free. The first
    /// failure ends it.
    fn in_parallel(
        &self,
        pool: &Pool,
        jobs: usize,
        work: &(dyn Fn(usize, &mut Worker<'_>) -> Result<(), RuntimeError> + Sync),
    ) -> Result<(), RuntimeError> {
        let next = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        let run = || {
            let mut worker = Worker::new(pool, self)?;
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= jobs || failed.load(Ordering::Relaxed) {
                    return Ok(());
                }
                if let Err(e) = work(i, &mut worker) {
                    failed.store(true, Ordering::Relaxed);
                    worker.session.discard();
                    return Err(e);
                }
            }
        };
        let sessions = self.upsampler.backend.granularity().sessions;
        let threads = self.upsampler.division.threads.min(jobs).min(sessions);
        if threads <= 1 {
            return run();
        }
        thread::scope(|scope| {
            // Where the system gives no more threads, those that are there do the work.
            let others: Vec<_> = (1..threads)
                .map_while(|_| thread::Builder::new().spawn_scoped(scope, run).ok())
                .collect();
            let mut result = run();
            for other in others {
                match other.join() {
                    Ok(r) => result = result.and(r),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            result
        })
    }
}

/// A session of the queries graph with the keys of a frame in it.
struct Worker<'a> {
    session: Lease<'a>,
    guidance: &'a Guidance,
    inputs: TileInputs,
    applied: Applied<'a>,
}

/// A head at work, or none.
pub(crate) struct Applied<'a> {
    pub head: Option<&'a Head>,
    pub scratch: Vec<f32>,
}

impl<'a> Worker<'a> {
    fn new(pool: &'a Pool, view: &'a View<'_>) -> Result<Self, RuntimeError> {
        let mut session = pool.session()?;
        for (i, tensor) in view.keys.tensors.iter().enumerate() {
            session.set(3 + i, tensor)?;
        }
        Ok(Self {
            session,
            guidance: &view.guidance,
            inputs: TileInputs::default(),
            applied: Applied {
                head: view.head,
                scratch: Vec::new(),
            },
        })
    }

    /// What is answered for the given tiles, `[pixels, channels]`.
    fn run(&mut self, tiles: impl Iterator<Item = Rect>) -> Result<&[f32], RuntimeError> {
        self.inputs.clear();
        for rect in tiles {
            self.guidance.cut(rect, &mut self.inputs);
        }
        self.session.set(0, &self.inputs.colours)?;
        self.session.set(1, &self.inputs.coords)?;
        self.session.set(2, &self.inputs.mask)?;
        self.session.run()?;
        Ok(self.applied.to(self.session.output(0)))
    }
}

/// Takes the tiles of an answer as they get ready, one at a time.
pub type Sink<'a> = &'a mut (dyn FnMut(&TileFeatures<'_>) -> Result<(), SinkError> + Send);

/// Features of a part of the answer.
#[derive(Debug, Clone, Copy)]
pub struct TileFeatures<'a> {
    /// Where it lies in the whole answer. No pixel is delivered twice.
    pub rect: Rect,
    /// The run of neighbouring tiles that it belongs to: they are delivered close together, so
    /// that a sink can collect a few of them into longer rows.
    pub group: Rect,
    computed: Rect,
    dim: usize,
    values: &'a [f32],
}

impl TileFeatures<'_> {
    /// Row `y` of the tile, from 0: `[rect.width, d]`.
    pub fn row(&self, y: usize) -> &[f32] {
        let y = y + self.rect.y - self.computed.y;
        let x = self.rect.x - self.computed.x;
        &self.values[(y * self.computed.width + x) * self.dim..][..self.rect.width * self.dim]
    }

    /// Channels of a pixel.
    pub fn dim(&self) -> usize {
        self.dim
    }
}
