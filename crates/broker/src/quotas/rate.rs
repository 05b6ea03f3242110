//! Rates over a sliding window, and buckets of tokens, as Kafka's metrics compute them.
//!
//! A window is cut into samples. An event goes into the newest sample, which is closed when it has
//! lasted its time; samples whose last event has left the window are forgotten. The rate divides
//! by the time since the oldest sample began, but at least by the window without its last sample,
//! so that the first events after silence do not look like a flood.

/// How a window is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Samples that are kept.
    pub(crate) samples: usize,
    /// How long each lasts.
    pub(crate) sample_ms: i64,
}

impl Window {
    /// How long it is as a whole.
    pub(crate) fn length_ms(&self) -> i64 {
        self.samples as i64 * self.sample_ms
    }
}

/// How fast something has grown of late.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rate {
    /// One more than the window has: the oldest may reach into it from before.
    samples: Vec<Sample>,
    current: usize,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    began_ms: i64,
    last_ms: i64,
    sum: f64,
    events: u64,
}

impl Sample {
    fn new(now_ms: i64) -> Self {
        Self { began_ms: now_ms, last_ms: now_ms, sum: 0.0, events: 0 }
    }
}

impl Rate {
    /// Counts an event; a negative amount takes one back.
    pub(crate) fn record(&mut self, window: &Window, amount: f64, now_ms: i64) {
        let is_over = |sample: &Sample| now_ms - sample.began_ms >= window.sample_ms;
        if self.samples.is_empty() {
            self.samples.push(Sample::new(now_ms));
        } else if is_over(&self.samples[self.current]) {
            self.current = (self.current + 1) % (window.samples + 1);
            match self.samples.get_mut(self.current) {
                Some(oldest) => *oldest = Sample::new(now_ms),
                None => self.samples.push(Sample::new(now_ms)),
            }
        }
        let sample = &mut self.samples[self.current];
        sample.sum += amount;
        sample.events += 1;
        sample.last_ms = now_ms;
    }

    /// The amount per second.
    pub(crate) fn per_second(&mut self, window: &Window, now_ms: i64) -> f64 {
        let span_ms = self.span_ms(window, now_ms);
        self.sum() / (span_ms as f64 / 1000.0)
    }

    /// The amount per event, 0 without events.
    pub(crate) fn mean(&mut self, window: &Window, now_ms: i64) -> f64 {
        self.forget(window, now_ms);
        let events: u64 = self.samples.iter().map(|sample| sample.events).sum();
        if events == 0 { 0.0 } else { self.sum() / events as f64 }
    }

    /// The time that the rate is measured over.
    pub(crate) fn span_ms(&mut self, window: &Window, now_ms: i64) -> i64 {
        self.forget(window, now_ms);
        let oldest = self.samples.iter().map(|sample| sample.began_ms).min();
        let elapsed_ms = now_ms - oldest.unwrap_or(now_ms);
        let whole = elapsed_ms / window.sample_ms;
        let missing = (window.samples as i64 - 1 - whole).max(0);
        (elapsed_ms + missing * window.sample_ms).max(1)
    }

    /// Reports whether nothing has happened within the window.
    pub(crate) fn is_silent(&self, window: &Window, now_ms: i64) -> bool {
        self.samples.iter().all(|sample| now_ms - sample.last_ms >= window.length_ms())
    }

    fn sum(&self) -> f64 {
        self.samples.iter().map(|sample| sample.sum).sum()
    }

    fn forget(&mut self, window: &Window, now_ms: i64) {
        for sample in &mut self.samples {
            if now_ms - sample.last_ms >= window.length_ms() {
                *sample = Sample::new(now_ms);
            }
        }
    }
}

/// Permits that come in at a steady pace and are kept up to a window's worth (KIP-599).
///
/// It may be overdrawn once; nothing more is given until the debt is paid.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TokenBucket {
    /// Tokens as of then; a bucket begins full.
    state: Option<(f64, i64)>,
}

impl TokenBucket {
    /// Tokens left, below zero for a debt.
    pub(crate) fn left(&mut self, window: &Window, per_second: f64, now_ms: i64) -> f64 {
        let most = window.length_ms() as f64 / 1000.0 * per_second;
        let tokens = match self.state {
            None => most,
            Some((tokens, then_ms)) => {
                let gained = per_second * (now_ms - then_ms) as f64 / 1000.0;
                (tokens + gained).min(most)
            }
        };
        self.state = Some((tokens, now_ms));
        tokens
    }

    /// Takes tokens out, whether or not they are there.
    pub(crate) fn take(&mut self, window: &Window, per_second: f64, tokens: f64, now_ms: i64) {
        let left = self.left(window, per_second, now_ms) - tokens;
        self.state = Some((left, now_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window { samples: 11, sample_ms: 1000 };

    #[test]
    fn the_first_events_are_spread_over_the_window_without_its_last_sample() {
        let mut rate = Rate::default();
        rate.record(&WINDOW, 5000.0, 70_000);
        assert_eq!(rate.span_ms(&WINDOW, 70_000), 10_000);
        assert_eq!(rate.per_second(&WINDOW, 70_000), 500.0);
        assert_eq!(rate.span_ms(&WINDOW, 70_400), 10_400);
        assert_eq!(rate.span_ms(&WINDOW, 71_000), 10_000);
    }

    #[test]
    fn a_steady_stream_has_its_rate() {
        let mut rate = Rate::default();
        for step in 0..600 {
            rate.record(&WINDOW, 100.0, step * 100);
        }
        let measured = rate.per_second(&WINDOW, 60_000);
        assert!((measured - 1000.0).abs() < 100.0, "{measured}");
        assert!(rate.samples.len() <= WINDOW.samples + 1);
    }

    #[test]
    fn what_left_the_window_no_longer_counts() {
        let mut rate = Rate::default();
        rate.record(&WINDOW, 5000.0, 0);
        assert!(!rate.is_silent(&WINDOW, 10_999));
        assert!(rate.per_second(&WINDOW, 10_999) > 0.0);
        assert!(rate.is_silent(&WINDOW, 11_000));
        assert_eq!(rate.per_second(&WINDOW, 11_000), 0.0);
    }

    #[test]
    fn an_amount_can_be_taken_back() {
        let mut rate = Rate::default();
        rate.record(&WINDOW, 700.0, 0);
        rate.record(&WINDOW, -700.0, 0);
        assert_eq!(rate.per_second(&WINDOW, 1), 0.0);
        assert_eq!(rate.mean(&WINDOW, 1), 0.0);
    }

    #[test]
    fn a_bucket_begins_full_can_be_overdrawn_and_pays_back() {
        let window = Window { samples: 10, sample_ms: 1000 };
        let mut bucket = TokenBucket::default();
        assert_eq!(bucket.left(&window, 5.0, 1_000_000), 50.0);
        bucket.take(&window, 5.0, 60.0, 1_000_000);
        assert_eq!(bucket.left(&window, 5.0, 1_000_000), -10.0);
        assert_eq!(bucket.left(&window, 5.0, 1_002_000), 0.0);
        assert_eq!(bucket.left(&window, 5.0, 2_000_000), 50.0);
    }
}
