//! Times, counted in buckets of a fixed number.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Buckets for each doubling: a quantile is too high by 1/16 at most.
const PARTS: usize = 16;
/// From 2^36 microseconds on, 19 hours, all times are the same.
const DOUBLINGS: usize = 33;
const BUCKETS: usize = PARTS * DOUBLINGS;

/// Counts of times in microseconds. Recording is one atomic addition; nothing is allocated.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
    max_us: AtomicU64,
}

/// Some quantiles, in microseconds, each the upper end of its bucket: not below the true value,
/// and above it by 1/16 at most. The greatest is exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quantiles {
    /// Times recorded.
    pub count: u64,
    /// Median.
    pub p50_us: u64,
    /// 90th percentile.
    pub p90_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// Greatest.
    pub max_us: u64,
}

/// Counts at some moment, to look at what came after it.
#[derive(Debug, Clone)]
pub struct Mark([u64; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            sum_us: AtomicU64::new(0),
            max_us: AtomicU64::new(0),
        }
    }
}

impl Default for Mark {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

fn bucket(us: u64) -> usize {
    if us < PARTS as u64 {
        return us as usize;
    }
    let doubling = us.ilog2() as usize - 3;
    let part = (us >> (us.ilog2() - 4)) as usize & (PARTS - 1);
    (doubling * PARTS + part).min(BUCKETS - 1)
}

/// The greatest time of a bucket.
fn upper(bucket: usize) -> u64 {
    let (doubling, part) = (bucket / PARTS, (bucket % PARTS) as u64);
    match doubling {
        0 => part,
        _ => ((PARTS as u64 + part + 1) << (doubling - 1)) - 1,
    }
}

impl Histogram {
    /// Counts a time.
    pub fn record(&self, us: u64) {
        self.buckets[bucket(us)].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
        self.max_us.fetch_max(us, Relaxed);
    }

    /// Sum of all times.
    pub fn sum_us(&self) -> u64 {
        self.sum_us.load(Relaxed)
    }

    /// Quantiles of all times.
    pub fn quantiles(&self) -> Quantiles {
        self.quantiles_since(&Mark::default())
    }

    /// Quantiles of the times recorded since `mark`; the greatest is then that of its bucket.
    pub fn quantiles_since(&self, mark: &Mark) -> Quantiles {
        let mut counts = [0; BUCKETS];
        for ((count, bucket), before) in counts.iter_mut().zip(&self.buckets).zip(&mark.0) {
            *count = bucket.load(Relaxed).saturating_sub(*before);
        }
        let count: u64 = counts.iter().sum();
        let max_us = self.max_us.load(Relaxed);
        let at = |rank: u64| {
            let mut seen = 0;
            let place = counts.iter().position(|n| {
                seen += n;
                seen >= rank.max(1)
            });
            place.map_or(0, |b| upper(b).min(max_us))
        };
        if count == 0 {
            return Quantiles::default();
        }
        Quantiles {
            count,
            p50_us: at((count * 50).div_ceil(100)),
            p90_us: at((count * 90).div_ceil(100)),
            p99_us: at((count * 99).div_ceil(100)),
            max_us: at(count),
        }
    }

    /// Writes the present counts into `mark`.
    pub fn mark(&self, mark: &mut Mark) {
        for (count, bucket) in mark.0.iter_mut().zip(&self.buckets) {
            *count = bucket.load(Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_in_its_bucket_and_buckets_are_narrow() {
        let mut times: Vec<u64> = (0..5000).collect();
        times.extend((13..36).flat_map(|e| [(1 << e) - 1, 1 << e, (1 << e) + (1 << (e - 1))]));
        for us in times {
            let b = bucket(us);
            assert!(us <= upper(b), "{us} above bucket {b}");
            assert!(b == 0 || us > upper(b - 1), "{us} below bucket {b}");
            assert!(upper(b) - us <= us / 16 + 1, "{us}: {}", upper(b));
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_agree_with_sorting() {
        let histogram = Histogram::default();
        let mut times: Vec<u64> = (0..1000u64).map(|i| (i * 7919) % 90_001).collect();
        times.iter().for_each(|t| histogram.record(*t));
        times.sort_unstable();
        let q = histogram.quantiles();
        for (found, rank) in [(q.p50_us, 500), (q.p90_us, 900), (q.p99_us, 990)] {
            let exact = times[rank - 1];
            assert!(
                (exact..=exact + exact / 16 + 1).contains(&found),
                "{found} for {exact}"
            );
        }
        assert_eq!((q.count, q.max_us), (1000, times[999]));
        assert_eq!(histogram.sum_us(), times.iter().sum::<u64>());
    }

    #[test]
    fn a_mark_hides_what_came_before() {
        let histogram = Histogram::default();
        let mut mark = Mark::default();
        histogram.record(80_000);
        histogram.mark(&mut mark);
        assert_eq!(histogram.quantiles_since(&mark), Quantiles::default());
        histogram.record(10);
        assert_eq!(histogram.quantiles_since(&mark).max_us, 10);
        assert_eq!(histogram.quantiles_since(&mark).count, 1);
    }
}
