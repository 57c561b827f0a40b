//! An encoded frame: computes the whole frame, a region, or points.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use loftup_bundle::Size;
use parking_lot::Mutex;

use crate::{
    Guidance, RuntimeError, SinkError,
    filter::{FilterFrame, FilterWorker},
    fused::{Asked, FusedHeads},
    guidance::TileInputs,
    heads::Head,
    plan_cache::{PooledSession, SessionPool},
    threads::on_threads,
    tiles::{Rect, Tiling},
    upsampler::{Keys, POINTS, Upsampler},
    words::{self, MomentMap},
};

/// A pixel of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Point {
    /// Column.
    pub x: usize,
    /// Row.
    pub y: usize,
}

/// A frame after the backbone (an image embedding, in SAM's terms). The cost of an output is
/// proportional to its area.
#[derive(Clone)]
pub struct EncodedFrame<'a> {
    pub(crate) upsampling: Upsampling<'a>,
    /// The head to apply to the features.
    pub(crate) head: Option<&'a Head>,
}

/// How features are upsampled to the resolution of the output.
#[derive(Clone)]
pub(crate) enum Upsampling<'a> {
    LoftUp(LoftUpFrame<'a>),
    Filter(Box<dyn FilterFrame>),
}

/// The keys and the guidance of a frame for LoftUp.
#[derive(Clone)]
pub(crate) struct LoftUpFrame<'a> {
    pub upsampler: &'a Upsampler,
    pub keys: Arc<Keys>,
    pub guidance: Arc<Guidance>,
    /// Whether to compute the test output of [`FusedHeads`].
    pub test: bool,
}

impl LoftUpFrame<'_> {
    /// Returns the outputs to request from the queries graph.
    fn asked<'b>(&self, head: Option<&'b Head>) -> Asked<'b> {
        match head {
            _ if self.test => Asked::Test,
            Some(head) if self.upsampler.fused_heads().is_some() => Asked::Head(head),
            _ => Asked::Features,
        }
    }
}

impl<'a> EncodedFrame<'a> {
    /// Applies a head: the output's channels are then the head's outputs.
    ///
    /// # Errors
    /// If the head expects a different number of channels, or is a text head that was not created by a
    /// [`Perceptor`](crate::Perceptor).
    pub fn with_head(mut self, head: &'a Head) -> Result<Self, RuntimeError> {
        let dim = self.features_dim();
        if head.dim() != dim {
            return Err(RuntimeError::HeadDim {
                found: head.dim(),
                expected: dim,
            });
        }
        match &mut self.upsampling {
            Upsampling::Filter(frame) => frame.set_head(head)?,
            Upsampling::LoftUp(_) if head.is_words() && head.norm.is_none() => {
                return Err(RuntimeError::WordsWithoutNorm);
            }
            Upsampling::LoftUp(_) => {}
        }
        self.head = Some(head);
        Ok(self)
    }

    /// Channels of the features.
    fn features_dim(&self) -> usize {
        match &self.upsampling {
            Upsampling::LoftUp(frame) => frame.upsampler.manifest.dim,
            Upsampling::Filter(frame) => frame.dim(),
        }
    }

    /// Longest side of a tile of the whole frame.
    pub(crate) fn frame_tile(&self) -> usize {
        match &self.upsampling {
            Upsampling::LoftUp(frame) => frame.upsampler.frame_tile(),
            Upsampling::Filter(frame) => frame.tile(),
        }
    }

    /// Longest side of a tile of a region.
    pub(crate) fn region_tile(&self) -> usize {
        match &self.upsampling {
            Upsampling::LoftUp(frame) => frame.upsampler.region_tile(),
            Upsampling::Filter(frame) => frame.tile(),
        }
    }

    /// Returns the session pool for `batch` tiles of `width x height`; `None` if no graph runs.
    fn pool(
        &self,
        batch: usize,
        width: usize,
        height: usize,
    ) -> Result<Option<Arc<SessionPool>>, RuntimeError> {
        match &self.upsampling {
            Upsampling::LoftUp(f) => {
                let asked = f.asked(self.head);
                let pool = (f.upsampler).plan(asked, batch, (width, height), f.keys.tokens)?;
                Ok(Some(pool))
            }
            Upsampling::Filter(_) => Ok(None),
        }
    }
}

impl EncodedFrame<'_> {
    /// Size of the output for the whole frame.
    pub fn size(&self) -> Size {
        match &self.upsampling {
            Upsampling::LoftUp(frame) => Size {
                width: frame.guidance.width(),
                height: frame.guidance.height(),
            },
            Upsampling::Filter(frame) => frame.size(),
        }
    }

    /// Number of channels of the output: the features' channels, or the head's outputs.
    pub fn dim(&self) -> usize {
        if let Upsampling::LoftUp(frame) = &self.upsampling
            && let (true, Some(fused)) = (frame.test, frame.upsampler.fused_heads())
        {
            return fused.test_dim();
        }
        self.head.map_or(self.features_dim(), Head::outputs)
    }

    /// Computes the whole frame. Tiles arrive in any order.
    ///
    /// # Errors
    /// The first failure of the engine or of `sink`; no tile follows it.
    pub fn frame(&self, sink: Sink<'_>) -> Result<(), RuntimeError> {
        let tiling = Tiling::new(self.whole(), self.frame_tile());
        self.tiles(&tiling, &all(&tiling), sink)
    }

    /// Computes a region, in coordinates of the whole frame. Tiles arrive in any order.
    ///
    /// # Errors
    /// Same as [`EncodedFrame::frame`], or if the region is empty or not within the frame.
    pub fn region(&self, rect: Rect, sink: Sink<'_>) -> Result<(), RuntimeError> {
        self.check_region(rect)?;
        let tiling = Tiling::new(rect, self.region_tile());
        self.tiles(&tiling, &all(&tiling), sink)
    }

    /// Checks a region.
    ///
    /// # Errors
    /// If the region is empty or not within the frame.
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

    /// Computes the output at points, `[points, channels]`, in the given order.
    ///
    /// # Errors
    /// If a point is outside the frame, or the engine fails.
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
        let pool = self.pool(batch, 1, 1)?;
        let output = Mutex::new(vec![0.0; points.len() * self.dim()]);
        let step = batch * self.dim();
        self.in_parallel(
            pool.as_deref(),
            points.len().div_ceil(batch),
            &|i, worker| {
                let chunk = &points[i * batch..points.len().min((i + 1) * batch)];
                // Pads the last batch.
                let filled = chunk.iter().chain(std::iter::repeat(&chunk[0])).take(batch);
                let values = worker.run(filled.map(|p| Rect {
                    x: p.x,
                    y: p.y,
                    width: 1,
                    height: 1,
                }))?;
                let mut output = output.lock();
                let wanted = chunk.len() * self.dim();
                output[i * step..][..wanted].copy_from_slice(&values[..wanted]);
                Ok(())
            },
        )?;
        Ok(output.into_inner())
    }

    /// The whole frame.
    pub(crate) fn whole(&self) -> Rect {
        Rect::whole(self.size())
    }

    /// Computes the tiles of `tiling` with indices `wanted`.
    pub(crate) fn tiles(
        &self,
        tiling: &Tiling,
        wanted: &[usize],
        sink: Sink<'_>,
    ) -> Result<(), RuntimeError> {
        let (width, height) = tiling.shape();
        let pool = self.pool(1, width, height)?;
        let sink = Mutex::new(sink);
        self.in_parallel(pool.as_deref(), wanted.len(), &|i, worker| {
            let tile = tiling.tile(wanted[i]);
            let values = worker.run([tile.compute].into_iter())?;
            let tile = TileFeatures {
                rect: tile.keep,
                group: tile.group,
                computed: tile.compute,
                dim: self.dim(),
                values,
            };
            let mut sink = sink.lock();
            (*sink)(&tile).map_err(RuntimeError::Sink)
        })
    }

    /// Calls `work` with 0 to `jobs - 1` on several threads. The first failure stops it.
    fn in_parallel(
        &self,
        pool: Option<&SessionPool>,
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
                    worker.discard();
                    return Err(e);
                }
            }
        };
        let threads = match &self.upsampling {
            Upsampling::LoftUp(frame) => {
                let sessions = frame.upsampler.backend.tiling_hint().sessions;
                frame.upsampler.options.threads.min(sessions)
            }
            Upsampling::Filter(frame) => frame.threads(),
        };
        on_threads(threads.min(jobs), run)
    }
}

/// Indices of all tiles.
fn all(tiling: &Tiling) -> Vec<usize> {
    (0..tiling.len()).collect()
}

/// Computes tiles in one thread.
pub(crate) enum Worker<'a> {
    LoftUp(QueriesWorker<'a>),
    Filter(Box<dyn FilterWorker + 'a>),
}

/// A session of the queries graph in which the keys of a frame are set.
pub(crate) struct QueriesWorker<'a> {
    session: PooledSession<'a>,
    guidance: &'a Guidance,
    moments: &'a MomentMap,
    inputs: TileInputs,
    rects: Vec<Rect>,
    fused: Option<&'a FusedHeads>,
    asked: Asked<'a>,
    applied: Applied<'a>,
}

/// An optional head and its buffers.
struct Applied<'a> {
    head: Option<&'a Head>,
    scratch: Vec<f32>,
    /// One pixel in the backbone's space.
    feature: Vec<f32>,
}

impl Applied<'_> {
    /// Returns the output for features `[n, d]` of the pixels in `place`.
    fn to<'b>(&'b mut self, features: &'b [f32], place: (&[Rect], Size, &MomentMap)) -> &'b [f32] {
        let Some(head) = self.head else {
            return features;
        };
        self.scratch.clear();
        match &head.norm {
            Some(norm) if head.is_words() => {
                let head_and_norm = (head.linear(), norm);
                let (feature, out) = (&mut self.feature, &mut self.scratch);
                words::upsampled_similarities(head_and_norm, features, place, feature, out);
                words::decide(head.kind(), out, 0);
            }
            _ => head.apply(features, &mut self.scratch),
        }
        &self.scratch
    }
}

impl<'a> Worker<'a> {
    /// Creates a worker for `frame`; `pool` holds sessions for the shape of its tiles.
    pub fn new(
        pool: Option<&'a SessionPool>,
        frame: &'a EncodedFrame<'_>,
    ) -> Result<Self, RuntimeError> {
        match (&frame.upsampling, pool) {
            (Upsampling::LoftUp(f), Some(pool)) => {
                let mut session = pool.session()?;
                for (i, tensor) in f.keys.tensors.iter().enumerate() {
                    session.set(3 + i, tensor)?;
                }
                let fused = f.upsampler.fused_heads();
                let asked = f.asked(frame.head);
                if let Some(fused) = fused {
                    fused.set(&mut *session, asked)?;
                }
                Ok(Self::LoftUp(QueriesWorker {
                    session,
                    fused,
                    asked,
                    guidance: &f.guidance,
                    moments: &f.keys.moments,
                    inputs: TileInputs::default(),
                    rects: Vec::new(),
                    applied: Applied {
                        head: frame.head,
                        scratch: Vec::new(),
                        feature: Vec::new(),
                    },
                }))
            }
            (Upsampling::LoftUp(_), None) => unreachable!("LoftUp runs a graph"),
            (Upsampling::Filter(f), _) => Ok(Self::Filter(f.worker(frame.head))),
        }
    }

    /// Returns the output for the given tiles, `[pixels, channels]`.
    pub fn run(&mut self, mut tiles: impl Iterator<Item = Rect>) -> Result<&[f32], RuntimeError> {
        match self {
            Self::LoftUp(worker) => worker.run(tiles),
            Self::Filter(worker) => worker.run(&mut tiles),
        }
    }

    /// Drops the session after a failure instead of returning it to the pool.
    fn discard(self) {
        if let Self::LoftUp(worker) = self {
            worker.session.discard();
        }
    }
}

impl QueriesWorker<'_> {
    fn run(&mut self, tiles: impl Iterator<Item = Rect>) -> Result<&[f32], RuntimeError> {
        self.inputs.clear();
        self.rects.clear();
        for rect in tiles {
            self.guidance.cut(rect, &mut self.inputs);
            self.rects.push(rect);
        }
        self.session.set(0, &self.inputs.colors)?;
        self.session.set(1, &self.inputs.coords)?;
        self.session.set(2, &self.inputs.mask)?;
        self.session.run()?;
        let size = Size {
            width: self.guidance.width(),
            height: self.guidance.height(),
        };
        let place = (&self.rects[..], size, self.moments);
        Ok(match self.fused {
            Some(fused) => {
                let scratch = &mut self.applied.scratch;
                fused.outputs(&*self.session, self.asked, place, scratch)
            }
            None => self.applied.to(self.session.output(0), place),
        })
    }
}

/// Receives the tiles of an output as they are computed, one at a time.
pub type Sink<'a> = &'a mut (dyn FnMut(&TileFeatures<'_>) -> Result<(), SinkError> + Send);

/// One tile of an output.
#[derive(Debug, Clone, Copy)]
pub struct TileFeatures<'a> {
    /// The tile's position in the whole frame. No pixel is delivered twice.
    pub rect: Rect,
    /// The group of neighboring tiles it belongs to. The tiles of a group are delivered close together,
    /// so that a sink can collect them into longer rows.
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

    /// The rows of the tile, each with the index of its first pixel in `rect`, which contains the tile.
    pub fn rows_in(&self, rect: Rect) -> impl Iterator<Item = (usize, &[f32])> {
        let (x, y) = (self.rect.x - rect.x, self.rect.y - rect.y);
        (0..self.rect.height).map(move |row| ((y + row) * rect.width + x, self.row(row)))
    }
}
