//! Auto-tuning of tile size and thread count by a short benchmark, with a cache on disk.
//!
//! The best tile size depends on a machine's caches and memory; whether one thread per core pays off
//! depends on what the cores share. The benchmark runs tiles of a synthetic image through the
//! bundle's upsampler with each thread count and compares the CPU time per pixel, which other
//! programs hardly affect.
//!
//! It runs only on request: outputs for different tile sizes differ by rounding, about 1e-5 for
//! features near 1, and if two sizes are about equally fast, two benchmarks can disagree. With the
//! result cached, a machine computes the same bits in every run.

mod cache;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

pub use self::cache::{TuningCache, TuningKey};
use crate::{
    ColorRange, EncodedFrame, Guidance, Perceptor, RuntimeError,
    backend::{TilingHint, kernel_isa},
    cpu_time,
    encoded_frame::{LoftUpFrame, Upsampling, Worker},
    fused::Asked,
    plan_cache::SessionPool,
    threads::on_threads,
    tiles::Rect,
    upsampler::{Keys, Upsampler},
    words::MomentMap,
};

/// Tile sizes to try. None is larger than the default for regions, so memory use does not grow.
const TILES: [usize; 3] = [32, 48, 64];
/// Number of tokens of the synthetic features: as for a 224x224 image with patch size 14.
const TOKENS: usize = 256;
/// Side of the synthetic image: the largest tile with its halo fits into it.
const SIDE: usize = 128;
/// Row and column at which tiles start.
const START: usize = 32;
/// Time limit. A measurement that would probably exceed it is not started.
const BUDGET: Duration = Duration::from_millis(1100);
/// Minimum speedup for choosing a larger tile, which takes more memory.
const LARGER_TILE_PAYS: f64 = 1.02;
/// Minimum speedup for choosing fewer threads.
const FEWER_THREADS_PAY: f64 = 1.05;

/// The best tile size and thread count of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Longest side of a tile, in pixels.
    pub tile: usize,
    /// Threads that compute tiles.
    pub threads: usize,
}

impl Perceptor {
    /// The fastest tile size and thread count for this bundle on this machine, from `cache` or
    /// measured in at most about a second and cached. `None` without an upsampler, on an engine other
    /// than the CPU, or if the machine is too slow or too busy to finish in a second.
    ///
    /// If the cached file is damaged or from another machine, or the cache cannot be written, the
    /// benchmark runs again.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn tuning(&self, cache: &TuningCache) -> Result<Option<Tuning>, RuntimeError> {
        let Some(upsampler) = &self.upsampler else {
            return Ok(None);
        };
        if upsampler.backend.tiling_hint() != TilingHint::CPU {
            return Ok(None);
        }
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let m = &upsampler.manifest;
        let key = TuningKey {
            processor: cache::processor(),
            cores,
            instructions: format!("{} {}", kernel_isa(), upsampler.backend.describe()),
            upsampler: format!("{} channels, {} layers, {} heads", m.dim, m.layers, m.heads),
            version: env!("CARGO_PKG_VERSION").into(),
        };
        cache.get_or_measure(&key, || measure(upsampler, cores))
    }
}

/// The best setting, if there is time to find it.
fn measure(upsampler: &Upsampler, cores: usize) -> Result<Option<Tuning>, RuntimeError> {
    let start = Instant::now();
    let view = made_up(upsampler);
    let mut pace = Pace::default();
    let mut try_out = |tile: usize, threads: usize| -> Result<Option<f64>, RuntimeError> {
        let pool = upsampler.plan(Asked::Features, 1, (tile, tile), TOKENS)?;
        if pace.seconds(tile * tile) + start.elapsed().as_secs_f64() > BUDGET.as_secs_f64() {
            return Ok(None);
        }
        let began = Instant::now();
        let seconds = processor_seconds(&view, &pool, tile, threads)?;
        pace.note(tile * tile, began.elapsed());
        let speed = (threads * tile * tile) as f64 / seconds.max(1e-9);
        log::debug!("tuning: tiles of {tile} on {threads} threads: {speed:.0} pixels a second");
        Ok(Some(speed))
    };
    // Warm-up.
    try_out(TILES[0], 1)?;
    let mut speeds = Vec::new();
    for tile in TILES {
        if let Some(speed) = try_out(tile, cores)? {
            speeds.push((tile, speed));
        }
    }
    let mut best = best_tile(&speeds).map(|(tile, speed)| {
        let threads = cores;
        (Tuning { tile, threads }, speed)
    });
    if let Some((of_all, speed)) = best.filter(|_| cores > 1) {
        let threads = cores.div_ceil(2);
        if let Some(with_half) = try_out(of_all.tile, threads)?
            && with_half > speed * FEWER_THREADS_PAY
        {
            best = Some((Tuning { threads, ..of_all }, with_half));
        }
    }
    drop(view);
    // Frees the sessions of tile sizes that may not be used again.
    upsampler.clear_plans();
    let elapsed = start.elapsed().as_secs_f64();
    match best {
        Some((Tuning { tile, threads }, _)) => {
            log::info!("measured in {elapsed:.1} s: tiles of {tile} on {threads} threads");
        }
        None => log::info!(
            "no time to measure tiles of several sizes within a second, on this machine or with what else it does now: nothing is tuned"
        ),
    }
    Ok(best.map(|(tuning, _)| tuning))
}

/// The fastest tile size; a larger one only if it is clearly faster than the smaller ones. `None`
/// unless all were measured.
fn best_tile(speeds: &[(usize, f64)]) -> Option<(usize, f64)> {
    let (first, rest) = speeds.split_first()?;
    (speeds.len() == TILES.len()).then(|| {
        rest.iter().fold(*first, |best, candidate| {
            match candidate.1 > best.1 * LARGER_TILE_PAYS {
                true => *candidate,
                false => best,
            }
        })
    })
}

/// Time per pixel.
#[derive(Default)]
struct Pace {
    pixels: usize,
    elapsed: Duration,
}

impl Pace {
    fn note(&mut self, pixels: usize, elapsed: Duration) {
        (self.pixels, self.elapsed) = (pixels, elapsed);
    }

    /// Estimated seconds for this many pixels.
    fn seconds(&self, pixels: usize) -> f64 {
        self.elapsed.as_secs_f64() * pixels as f64 / self.pixels.max(1) as f64
    }
}

/// A frame of noise over a gradient, in 256 levels. Speed does not depend on the content.
fn made_up(upsampler: &Upsampler) -> EncodedFrame<'_> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    let image: Vec<f32> = (0..3 * SIDE * SIDE)
        .map(|i| {
            let slope = (i % SIDE + i / SIDE % SIDE) as f32 / (2 * SIDE) as f32;
            ((0.8 * slope + 0.2 * noise()) * 255.0).round() / 255.0
        })
        .collect();
    let m = &upsampler.manifest;
    let each = m.heads * m.head_width * TOKENS;
    let mut tensors = Vec::with_capacity(2 * m.layers);
    for _ in 0..2 * m.layers {
        tensors.push((0..each).map(|_| noise() - 0.5).collect());
    }
    let guidance = Guidance::new(&image, SIDE, SIDE, ColorRange::PerImage);
    EncodedFrame {
        upsampling: Upsampling::LoftUp(LoftUpFrame {
            upsampler,
            keys: Arc::new(Keys {
                tokens: TOKENS,
                tensors,
                moments: MomentMap::default(),
            }),
            guidance: Arc::new(guidance),
            test: false,
        }),
        head: None,
    }
}

/// Returns the mean CPU time per tile of a thread while this many threads do the same work.
fn processor_seconds(
    view: &EncodedFrame<'_>,
    pool: &SessionPool,
    tile: usize,
    threads: usize,
) -> Result<f64, RuntimeError> {
    let rect = Rect {
        x: START,
        y: START,
        width: tile,
        height: tile,
    };
    let times = Mutex::new(Vec::new());
    let work = || -> Result<(), RuntimeError> {
        let mut worker = Worker::new(Some(pool), view)?;
        let start = cpu_time::thread();
        worker.run([rect].into_iter())?;
        let seconds = (cpu_time::thread() - start).as_secs_f64();
        times.lock().push(seconds);
        Ok(())
    };
    on_threads(threads, work)?;
    let times = times.into_inner();
    Ok(times.iter().sum::<f64>() / times.len().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_tile_has_to_be_clearly_faster() {
        let best = |speeds: &[f64]| {
            let speeds: Vec<_> = TILES.into_iter().zip(speeds.iter().copied()).collect();
            best_tile(&speeds).map(|(tile, _)| tile)
        };
        assert_eq!(best(&[100.0, 101.0, 101.9]), Some(32));
        assert_eq!(best(&[100.0, 103.0, 104.0]), Some(48));
        assert_eq!(best(&[100.0, 101.0, 105.0]), Some(64));
        assert_eq!(best(&[100.0, 90.0, 80.0]), Some(32));
        assert_eq!(best(&[100.0, 110.0]), None, "no time for the third");
        assert_eq!(best(&[]), None);
    }
}
