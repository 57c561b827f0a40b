//! An encoded frame: computes the whole frame, a region, or points.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use loftup_bundle::Size;
use parking_lot::Mutex;

use crate::{
    Guidance, RuntimeError, SinkError,
    guidance::TileInputs,
    heads::Head,
    plan_cache::{PooledSession, SessionPool},
    threads::on_threads,
    tiles::{Rect, Tiling},
    upsampler::{Keys, POINTS, Upsampler},
};

/// A pixel of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Point {
    /// Column.
    pub x: usize,
    /// Row.
    pub y: usize,
}

/// A frame after the backbone (an image embedding, in SAM's terms). Each output costs in proportion
/// to its area.
pub struct EncodedFrame<'a> {
    pub(crate) upsampler: &'a Upsampler,
    pub(crate) keys: Arc<Keys>,
    pub(crate) guidance: Arc<Guidance>,
    /// Applied to the features.
    pub(crate) head: Option<&'a Head>,
}

impl<'a> EncodedFrame<'a> {
    /// Applies a head: the output's channels are then the head's outputs.
    ///
    /// # Errors
    /// Where the head takes another number of channels.
    pub fn with_head(mut self, head: &'a Head) -> Result<Self, RuntimeError> {
        let dim = self.upsampler.manifest.dim;
        if head.dim() != dim {
            return Err(RuntimeError::HeadDim {
                found: head.dim(),
                expected: dim,
            });
        }
        self.head = Some(head);
        Ok(self)
    }
}

impl EncodedFrame<'_> {
    /// Size of the output for the whole frame.
    pub fn size(&self) -> Size {
        Size {
            width: self.guidance.width(),
            height: self.guidance.height(),
        }
    }

    /// Channels of the output: those of the features, or the outputs of the head.
    pub fn dim(&self) -> usize {
        self.head.map_or(self.upsampler.manifest.dim, Head::outputs)
    }

    /// Computes the whole frame, tile by tile in any order.
    ///
    /// # Errors
    /// The first failure of the engine or of `sink`; no tile follows it.
    pub fn frame(&self, sink: Sink<'_>) -> Result<(), RuntimeError> {
        let tiling = Tiling::new(self.whole(), self.upsampler.frame_tile());
        self.tiles(&tiling, &all(&tiling), sink)
    }

    /// Computes a region, tile by tile in any order, in coordinates of the whole frame.
    ///
    /// # Errors
    /// As [`EncodedFrame::frame`], and where the region is empty or not within the frame.
    pub fn region(&self, rect: Rect, sink: Sink<'_>) -> Result<(), RuntimeError> {
        self.check_region(rect)?;
        let tiling = Tiling::new(rect, self.upsampler.region_tile());
        self.tiles(&tiling, &all(&tiling), sink)
    }

    /// Checks a region.
    ///
    /// # Errors
    /// Where it is empty or not within the frame.
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

    /// Computes points: `[points, channels]`, in their order.
    ///
    /// # Errors
    /// Where a point is outside the frame, or the engine fails.
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
        let output = Mutex::new(vec![0.0; points.len() * self.dim()]);
        let step = batch * self.dim();
        self.in_parallel(&pool, points.len().div_ceil(batch), &|i, worker| {
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
        })?;
        Ok(output.into_inner())
    }

    /// The whole frame.
    pub(crate) fn whole(&self) -> Rect {
        Rect::whole(self.size())
    }

    /// Computes the tiles of `tiling` with the indices `wanted`.
    pub(crate) fn tiles(
        &self,
        tiling: &Tiling,
        wanted: &[usize],
        sink: Sink<'_>,
    ) -> Result<(), RuntimeError> {
        let (width, height) = tiling.shape();
        let pool = self.upsampler.plan(1, width, height, self.keys.tokens)?;
        let sink = Mutex::new(sink);
        self.in_parallel(&pool, wanted.len(), &|i, worker| {
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
        pool: &SessionPool,
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
        let sessions = self.upsampler.backend.tiling_hint().sessions;
        let threads = self.upsampler.options.threads.min(jobs).min(sessions);
        on_threads(threads, run)
    }
}

/// Indices of all tiles.
fn all(tiling: &Tiling) -> Vec<usize> {
    (0..tiling.len()).collect()
}

/// A session of the queries graph with the keys of a frame set.
pub(crate) struct Worker<'a> {
    session: PooledSession<'a>,
    guidance: &'a Guidance,
    inputs: TileInputs,
    applied: Applied<'a>,
}

/// An optional head and its buffer.
struct Applied<'a> {
    head: Option<&'a Head>,
    scratch: Vec<f32>,
}

impl Applied<'_> {
    /// The output for features `[n, d]`.
    fn to<'b>(&'b mut self, features: &'b [f32]) -> &'b [f32] {
        let Some(head) = self.head else {
            return features;
        };
        self.scratch.clear();
        head.apply(features, &mut self.scratch);
        &self.scratch
    }
}

impl<'a> Worker<'a> {
    pub fn new(pool: &'a SessionPool, frame: &'a EncodedFrame<'_>) -> Result<Self, RuntimeError> {
        let mut session = pool.session()?;
        for (i, tensor) in frame.keys.tensors.iter().enumerate() {
            session.set(3 + i, tensor)?;
        }
        Ok(Self {
            session,
            guidance: &frame.guidance,
            inputs: TileInputs::default(),
            applied: Applied {
                head: frame.head,
                scratch: Vec::new(),
            },
        })
    }

    /// The output for the given tiles, `[pixels, channels]`.
    pub fn run(&mut self, tiles: impl Iterator<Item = Rect>) -> Result<&[f32], RuntimeError> {
        self.inputs.clear();
        for rect in tiles {
            self.guidance.cut(rect, &mut self.inputs);
        }
        self.session.set(0, &self.inputs.colors)?;
        self.session.set(1, &self.inputs.coords)?;
        self.session.set(2, &self.inputs.mask)?;
        self.session.run()?;
        Ok(self.applied.to(self.session.output(0)))
    }
}

/// Receives the tiles of an output as they are computed, one at a time.
pub type Sink<'a> = &'a mut (dyn FnMut(&TileFeatures<'_>) -> Result<(), SinkError> + Send);

/// One tile of an output.
#[derive(Debug, Clone, Copy)]
pub struct TileFeatures<'a> {
    /// Its pixels in the whole frame. No pixel is delivered twice.
    pub rect: Rect,
    /// The run of neighboring tiles it belongs to: these are delivered close together, so that a
    /// sink can collect them into longer rows.
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
