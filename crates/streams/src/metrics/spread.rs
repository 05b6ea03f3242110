//! Average, least and greatest of what was measured lately.

/// Measurements of the last half to full minute.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spread {
    began_ms: i64,
    now: Part,
    before: Part,
    /// When the part before began.
    before_ms: i64,
}

/// Some measurements, taken together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Part {
    pub(crate) count: u64,
    pub(crate) sum: i64,
    pub(crate) min: i64,
    pub(crate) max: i64,
}

impl Part {
    /// So many measurements of which only the sum is known: each counts as their average.
    pub(crate) fn of_sum(count: u64, sum: i64) -> Self {
        let each = i64::try_from(count).map_or(0, |count| sum.checked_div(count).unwrap_or(0));
        Self { count, sum, min: each, max: each }
    }

    #[inline]
    fn add(&mut self, other: Self) {
        let first = self.count == 0;
        self.min = if first { other.min } else { self.min.min(other.min) };
        self.max = if first { other.max } else { self.max.max(other.max) };
        self.count += other.count;
        // Ages of records that claim to be from 1970 add up to more than there is room for.
        self.sum = self.sum.saturating_add(other.sum);
    }
}

/// Measurements of the last half to full minute, taken together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many there were.
    pub count: u64,
    /// Their sum.
    pub sum: i64,
    /// The least, or 0 without any.
    pub min: i64,
    /// The greatest, or 0 without any.
    pub max: i64,
    /// The time they cover, in milliseconds.
    pub span_ms: i64,
}

impl Summary {
    /// Their average, or 0 without any.
    pub fn average(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }

    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        if self.count == 0 || other.count == 0 {
            return if self.count == 0 { other } else { self };
        }
        Self {
            count: self.count + other.count,
            sum: self.sum.saturating_add(other.sum),
            min: self.min.min(other.min),
            max: self.max.max(other.max),
            span_ms: self.span_ms.max(other.span_ms),
        }
    }
}

impl Spread {
    #[inline]
    pub(crate) fn record(&mut self, now_ms: i64, value: i64) {
        self.record_part(now_ms, Part { count: 1, sum: value, min: value, max: value });
    }

    /// Takes in several measurements at once, if there are any.
    #[inline]
    pub(crate) fn record_part(&mut self, now_ms: i64, part: Part) {
        if part.count == 0 {
            return;
        }
        if now_ms - self.began_ms >= PART_MS {
            self.before = self.now;
            self.before_ms = if self.now.count == 0 { now_ms } else { self.began_ms };
            self.now = Part::default();
            self.began_ms = now_ms;
        }
        self.now.add(part);
    }

    pub(crate) fn summary(&self, now_ms: i64) -> Summary {
        let parts = [self.before, self.now];
        let filled = || parts.iter().filter(|part| part.count > 0);
        let from = if self.before.count > 0 { self.before_ms } else { self.began_ms };
        Summary {
            count: filled().map(|part| part.count).sum(),
            sum: filled().fold(0, |sum, part| sum.saturating_add(part.sum)),
            min: filled().map(|part| part.min).min().unwrap_or(0),
            max: filled().map(|part| part.max).max().unwrap_or(0),
            span_ms: if filled().next().is_some() { (now_ms - from).max(1) } else { 0 },
        }
    }
}

/// Measurements are forgotten in parts of this length, Kafka's `metrics.sample.window.ms`.
const PART_MS: i64 = 30_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_a_minute_is_forgotten() {
        let mut spread = Spread::default();
        assert_eq!(spread.summary(5), Summary::default());
        spread.record(100_000, 7);
        spread.record(110_000, 1);
        let both = Summary { count: 2, sum: 8, min: 1, max: 7, span_ms: 20_000 };
        assert_eq!(spread.summary(120_000), both);
        spread.record(130_000, 4);
        assert_eq!(spread.summary(130_000).count, 3);
        spread.record(160_000, 5);
        let later = spread.summary(161_000);
        assert_eq!((later.min, later.max, later.span_ms), (4, 5, 31_000));
    }

    #[test]
    fn sums_of_many_count_each_as_their_average() {
        let mut spread = Spread::default();
        spread.record_part(100_000, Part::of_sum(4, 8));
        spread.record_part(100_001, Part::of_sum(0, 0));
        spread.record_part(100_002, Part::of_sum(1, 7));
        let both = spread.summary(100_003);
        assert_eq!((both.count, both.sum, both.min, both.max), (5, 15, 2, 7));
        assert_eq!(both.average(), 3.0);
        assert_eq!(both.and(Summary::default()), both);
        assert_eq!(both.and(both).count, 10);
    }

    #[test]
    fn records_from_long_ago_do_not_overflow() {
        let mut spread = Spread::default();
        for _ in 0..3 {
            spread.record(100_000, i64::MAX / 2);
        }
        assert_eq!(spread.summary(100_000).sum, i64::MAX);
    }
}
