//! Latencies in buckets of 2%: small, exact enough, and never growing.

use std::time::Duration;

/// Counts durations in logarithmic buckets.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    sum: Duration,
    max: Duration,
}

/// Buckets per doubling: neighbours differ by 2.2%.
const PER_DOUBLING: f64 = 32.0;
/// From a microsecond up to more than an hour.
const BUCKETS: usize = 32 * 33;

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, sum: Duration::ZERO, max: Duration::ZERO }
    }

    /// Counts one duration.
    pub(crate) fn record(&mut self, duration: Duration) {
        let micros = (duration.as_nanos() as f64 / 1000.0).max(1.0);
        let bucket = (micros.log2() * PER_DOUBLING) as usize;
        self.counts[bucket.min(BUCKETS - 1)] += 1;
        self.total += 1;
        self.sum += duration;
        self.max = self.max.max(duration);
    }

    /// Returns how many durations were counted.
    pub(crate) fn count(&self) -> u64 {
        self.total
    }

    /// Returns the longest.
    pub(crate) fn max(&self) -> Duration {
        self.max
    }

    /// Returns the mean.
    pub(crate) fn mean(&self) -> Duration {
        self.sum.checked_div(self.total.min(u64::from(u32::MAX)) as u32).unwrap_or_default()
    }

    /// Returns the duration that `fraction` of all do not exceed, at most 2.2% too long.
    pub(crate) fn quantile(&self, fraction: f64) -> Duration {
        let wanted = (self.total as f64 * fraction).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && *count > 0 {
                let micros = ((bucket + 1) as f64 / PER_DOUBLING).exp2();
                return Duration::from_nanos((micros * 1000.0) as u64).min(self.max);
            }
        }
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_bucket_of_the_truth() {
        let mut histogram = Histogram::new();
        for micros in 1..=10_000 {
            histogram.record(Duration::from_micros(micros));
        }
        for (fraction, micros) in [(0.5, 5_000.0), (0.99, 9_900.0), (0.999, 9_990.0)] {
            let quantile = histogram.quantile(fraction).as_nanos() as f64 / 1000.0;
            assert!(quantile >= micros && quantile <= micros * 1.023, "{fraction}: {quantile}");
        }
        assert_eq!(histogram.quantile(1.0), Duration::from_millis(10));
        assert_eq!(histogram.mean(), Duration::from_nanos(5_000_500));
        assert_eq!(Histogram::new().quantile(0.99), Duration::ZERO);
    }
}
