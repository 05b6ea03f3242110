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

#[derive(Clone, Copy, Debug, Default)]
struct Part {
    count: u64,
    sum: i64,
    min: i64,
    max: i64,
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
}

impl Spread {
    #[inline]
    pub(crate) fn record(&mut self, now_ms: i64, value: i64) {
        if now_ms - self.began_ms >= PART_MS {
            self.before = self.now;
            self.before_ms = if self.now.count == 0 { now_ms } else { self.began_ms };
            self.now = Part::default();
            self.began_ms = now_ms;
        }
        let part = &mut self.now;
        part.min = if part.count == 0 { value } else { part.min.min(value) };
        part.max = if part.count == 0 { value } else { part.max.max(value) };
        part.count += 1;
        part.sum += value;
    }

    pub(crate) fn summary(&self, now_ms: i64) -> Summary {
        let parts = [self.before, self.now];
        let filled = || parts.iter().filter(|part| part.count > 0);
        let from = if self.before.count > 0 { self.before_ms } else { self.began_ms };
        Summary {
            count: filled().map(|part| part.count).sum(),
            sum: filled().map(|part| part.sum).sum(),
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
}
