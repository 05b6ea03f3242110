//! Rates out of totals that are looked at now and then.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Remembers totals, so that the next look gives a rate over the last half to full minute.
#[derive(Debug, Default)]
pub(crate) struct Rates(HashMap<String, Anchors>);

#[derive(Clone, Copy, Debug)]
struct Anchors {
    older: (Instant, u64),
    newer: (Instant, u64),
}

impl Rates {
    /// The rate per second of a total, since it was looked at half a minute to a minute ago or, if that is longer, last.
    pub(crate) fn rate(&mut self, name: &str, total: u64, now: Instant) -> f64 {
        let Some(anchors) = self.0.get_mut(name) else {
            self.0.insert(name.to_owned(), Anchors { older: (now, total), newer: (now, total) });
            return 0.0;
        };
        if now.duration_since(anchors.newer.0) >= PART {
            anchors.older = anchors.newer;
            anchors.newer = (now, total);
        }
        let (since, before) = anchors.older;
        let seconds = now.duration_since(since).as_secs_f64();
        // A task that came anew began at 0 again.
        if seconds > 0.0 { total.saturating_sub(before) as f64 / seconds } else { 0.0 }
    }

    /// Forgets what was not looked at any more.
    pub(crate) fn forget(&mut self, now: Instant) {
        self.0.retain(|_, anchors| now.duration_since(anchors.newer.0) < 4 * PART);
    }
}

/// How far apart remembered totals are.
const PART: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_covers_half_a_minute_to_a_minute() {
        let (mut rates, begun) = (Rates::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(rates.rate("a", 100, begun), 0.0);
        assert_eq!(rates.rate("a", 150, at(10)), 5.0);
        assert_eq!(rates.rate("a", 400, at(30)), 10.0);
        assert_eq!(rates.rate("a", 700, at(60)), 10.0);
        assert_eq!(rates.rate("a", 700, at(90)), 0.0);
        assert_eq!(rates.rate("a", 5, at(100)), 0.0);
    }
}
