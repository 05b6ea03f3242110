//! Durations as a distribution that costs an addition to record.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleuve_http::Exposition;

/// Durations in buckets whose width is an eighth of their size.
///
/// That bounds the error of a quantile to 12 %, in half a kilobyte per factor of 256.
#[derive(Debug)]
pub(crate) struct Distribution {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

/// Buckets per doubling.
const STEPS: usize = 8;
/// Microseconds up to 2^36, which are 19 hours.
const BUCKETS: usize = 37 * STEPS;

impl Default for Distribution {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS], sum_us: AtomicU64::new(0) }
    }
}

impl Distribution {
    /// Counts one duration.
    #[inline]
    pub(crate) fn record(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(us)].fetch_add(1, Ordering::Relaxed);
        if us > 0 {
            self.sum_us.fetch_add(us, Ordering::Relaxed);
        }
    }

    /// How many durations were counted, and their sum in milliseconds.
    pub(crate) fn totals(&self) -> (u64, f64) {
        let count = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum();
        (count, self.sum_us.load(Ordering::Relaxed) as f64 / 1000.0)
    }

    /// Adds quantiles, sum and count in milliseconds to the open family.
    pub(crate) fn write(&self, page: &mut Exposition, labels: &[(&str, &str)]) {
        const QUANTILES: [(f64, &str); 6] = [
            (0.50, "0.50"),
            (0.75, "0.75"),
            (0.95, "0.95"),
            (0.98, "0.98"),
            (0.99, "0.99"),
            (0.999, "0.999"),
        ];
        let counts: Vec<u64> = self.buckets.iter().map(|b| b.load(Ordering::Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        let mut with_quantile = labels.to_vec();
        with_quantile.push(("quantile", ""));
        for (quantile, text) in QUANTILES {
            let rank = (quantile * total as f64).ceil() as u64;
            let mut seen = 0;
            let index = counts.iter().position(|count| {
                seen += count;
                seen >= rank && seen > 0
            });
            let ms = index.map_or(0.0, |index| lower_bound(index + 1) as f64 / 1000.0);
            with_quantile[labels.len()].1 = text;
            page.sample(&with_quantile, ms);
        }
        page.suffixed("_sum", labels, self.sum_us.load(Ordering::Relaxed) as f64 / 1000.0);
        page.suffixed("_count", labels, total as f64);
    }
}

/// Finds the bucket: the power of two, and the eighth within it.
#[inline]
fn bucket(us: u64) -> usize {
    if us < STEPS as u64 {
        return us as usize;
    }
    let power = us.ilog2() as usize;
    let eighth = (us >> (power - 3)) as usize & (STEPS - 1);
    ((power - 2) * STEPS + eighth).min(BUCKETS - 1)
}

/// The smallest duration of a bucket in microseconds.
fn lower_bound(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    ((STEPS + bucket % STEPS) as u64) << (bucket / STEPS - 1)
}

#[cfg(test)]
mod tests {
    use fleuve_http::Kind;

    use super::*;

    #[test]
    fn buckets_are_ordered_and_narrow() {
        for us in (0..100_000).chain([1 << 30, u64::MAX]) {
            let index = bucket(us);
            assert!(lower_bound(index) <= us, "{us}");
            if index + 1 < BUCKETS {
                assert!(us < lower_bound(index + 1), "{us}");
                assert!(lower_bound(index + 1) - lower_bound(index) <= (us / 8).max(1), "{us}");
            }
        }
    }

    #[test]
    fn quantiles_come_from_what_was_recorded() {
        let distribution = Distribution::default();
        for ms in 1..=1000 {
            distribution.record(Duration::from_millis(ms));
        }
        let mut page = Exposition::new();
        page.family("t", Kind::Summary, "");
        distribution.write(&mut page, &[("request", "Fetch")]);
        let text = page.into_text();
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.starts_with(name)).expect("present");
            line.rsplit(' ').next().expect("a value").parse().expect("a number")
        };
        let median = value("t{request=\"Fetch\",quantile=\"0.50\"}");
        assert!((500.0..=570.0).contains(&median), "{median}");
        let tail = value("t{request=\"Fetch\",quantile=\"0.999\"}");
        assert!((999.0..=1130.0).contains(&tail), "{tail}");
        assert_eq!(value("t_count"), 1000.0);
        assert_eq!(value("t_sum"), 500_500.0);
    }
}
