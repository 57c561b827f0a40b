//! Latency from capture to publication, with quantiles.

use hdrhistogram::Histogram;
use parking_lot::Mutex;

/// Maximum recorded latency, one hour; longer latencies count as this.
const MAX_US: u64 = 3_600_000_000;
/// Two significant digits: quantiles are at most 1 % above the exact value.
const SIGNIFICANT_DIGITS: u8 = 2;

/// Quantiles in microseconds. Never below the exact value, and at most 1 % above it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quantiles {
    /// Number of recorded values.
    pub count: u64,
    /// Median.
    pub p50_us: u64,
    /// 90th percentile.
    pub p90_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// Maximum.
    pub max_us: u64,
}

/// Records latencies since the start and over a window that the caller restarts. Recording does
/// not allocate.
#[derive(Debug)]
pub struct LatencyRecorder {
    total: Mutex<Histogram<u64>>,
    window: Mutex<Histogram<u64>>,
}

impl Default for LatencyRecorder {
    fn default() -> Self {
        let histogram = || {
            let histogram = Histogram::new_with_bounds(1, MAX_US, SIGNIFICANT_DIGITS);
            Mutex::new(histogram.expect("the bounds are valid constants"))
        };
        Self {
            total: histogram(),
            window: histogram(),
        }
    }
}

impl LatencyRecorder {
    /// Records one latency.
    pub fn record(&self, us: u64) {
        for histogram in [&self.total, &self.window] {
            histogram.lock().saturating_record(us);
        }
    }

    /// Quantiles since the start.
    pub fn quantiles(&self) -> Quantiles {
        quantiles(&self.total.lock())
    }

    /// Quantiles of the current window.
    pub fn window(&self) -> Quantiles {
        quantiles(&self.window.lock())
    }

    /// Starts a new window.
    pub fn restart_window(&self) {
        self.window.lock().reset();
    }
}

fn quantiles(histogram: &Histogram<u64>) -> Quantiles {
    Quantiles {
        count: histogram.len(),
        p50_us: histogram.value_at_quantile(0.5),
        p90_us: histogram.value_at_quantile(0.9),
        p99_us: histogram.value_at_quantile(0.99),
        max_us: histogram.max(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_match_sorted_values() {
        let recorder = LatencyRecorder::default();
        let mut times: Vec<u64> = (0..1000u64).map(|i| (i * 7919) % 90_001).collect();
        times.iter().for_each(|t| recorder.record(*t));
        times.sort_unstable();
        let q = recorder.quantiles();
        for (found, rank) in [
            (q.p50_us, 500),
            (q.p90_us, 900),
            (q.p99_us, 990),
            (q.max_us, 1000),
        ] {
            let exact = times[rank - 1];
            // 1 % is what two significant digits guarantee; 1 us for values below 100.
            assert!(
                (exact..=exact + exact / 100 + 1).contains(&found),
                "{found} for {exact}"
            );
        }
        assert_eq!(q.count, 1000);
    }

    #[test]
    fn a_new_window_excludes_earlier_values() {
        let recorder = LatencyRecorder::default();
        recorder.record(80_000);
        recorder.restart_window();
        assert_eq!(recorder.window(), Quantiles::default());
        recorder.record(10);
        assert_eq!((recorder.window().max_us, recorder.window().count), (10, 1));
        assert_eq!(recorder.quantiles().count, 2);
    }

    #[test]
    fn values_above_the_range_are_clamped() {
        let recorder = LatencyRecorder::default();
        recorder.record(u64::MAX);
        let q = recorder.quantiles();
        assert_eq!(q.count, 1);
        assert!(q.max_us >= MAX_US, "{}", q.max_us);
    }
}
