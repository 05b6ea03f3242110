//! Deadlines and growing pauses between attempts.

mod alarm;

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleuve_os::{OsRandom, Random};
use tokio::time::Instant;

pub(crate) use alarm::Alarm;

/// A pause that doubles up to a limit, with Kafka's jitter of a fifth either way.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest: longest.max(first), failures: 0 }
    }

    /// Returns the next pause, longer than the last one.
    pub(crate) fn next_pause(&mut self) -> Duration {
        let factor = 1u32 << self.failures.min(16);
        self.failures += 1;
        let pause = self.first.saturating_mul(factor).min(self.longest);
        pause.mul_f64(0.8 + 0.4 * random_fraction())
    }

    /// Starts over after a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A point in time after which a call gives up, with the time it began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    began: Instant,
    at: Instant,
}

impl Deadline {
    pub(crate) fn after(duration: Duration) -> Self {
        let began = Instant::now();
        Self { began, at: began + duration }
    }

    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.at
    }

    pub(crate) fn remaining(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Sleeps for `pause`, but not past the deadline.
    pub(crate) async fn sleep(&self, pause: Duration) {
        tokio::time::sleep(pause.min(self.remaining())).await;
    }
}

/// Draws a number for jitter and for choosing among equals; not for secrets.
///
/// SplitMix64, begun anew by each thread: a producer draws once for each batch, and asking the
/// system would take as long as putting a record into it.
pub(crate) fn random_u64() -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    thread_local! {
        static COUNTER: Cell<u64> = Cell::new(OsRandom.next_u64());
    }
    let mut number = COUNTER.get().wrapping_add(STEP);
    COUNTER.set(number);
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Returns the time of day in milliseconds since 1970, for timestamps of records.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Draws a number between 0 and 1.
pub(crate) fn random_fraction() -> f64 {
    (random_u64() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn draws_differ_and_their_bits_are_even() {
        let drawn: HashSet<u64> = (0..1000).map(|_| random_u64()).collect();
        assert_eq!(drawn.len(), 1000);
        for bit in 0..64 {
            let ones = drawn.iter().filter(|number| *number >> bit & 1 == 1).count();
            // Nine standard deviations either way.
            assert!((350..650).contains(&ones), "bit {bit} is set {ones} times of 1000");
        }
    }

    #[test]
    fn pauses_grow_to_the_limit_and_start_over() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let pauses: Vec<_> = (0..6).map(|_| backoff.next_pause().as_millis()).collect();
        for (pause, middle) in pauses.iter().zip([100, 200, 400, 800, 1000, 1000]) {
            assert!((middle * 8 / 10..=middle * 12 / 10).contains(pause), "{pauses:?}");
        }
        backoff.reset();
        assert!(backoff.next_pause() <= Duration::from_millis(120));
    }
}
