//! Why connections have ended: each is counted, and of those to blame on their peers some are told.

use std::time::{Duration, Instant};

use fleuve_http::{Exposition, Kind};
use parking_lot::Mutex;

use super::Counter;
use crate::connection::CloseReason;

/// Warnings a second about peers; more are only counted, so that strangers cannot fill the disk
/// with what is written about them.
const TOLD_A_SECOND: u32 = 10;

/// How many connections have ended, by reason.
#[derive(Debug, Default)]
pub(crate) struct Endings {
    counters: [Counter; CloseReason::NAMES.len()],
    telling: Mutex<Telling>,
}

/// What was written of late.
#[derive(Debug, Default)]
struct Telling {
    since: Option<Instant>,
    told: u32,
    left_out: u64,
}

impl Endings {
    /// Decides whether one more is told; if so, returns how many were not since the last.
    pub(crate) fn tell(&self, now: Instant) -> Option<u64> {
        let mut telling = self.telling.lock();
        let is_over = |since| now.saturating_duration_since(since) >= Duration::from_secs(1);
        if telling.since.is_none_or(is_over) {
            (telling.since, telling.told) = (Some(now), 0);
        }
        if telling.told == TOLD_A_SECOND {
            telling.left_out += 1;
            return None;
        }
        telling.told += 1;
        Some(std::mem::take(&mut telling.left_out))
    }

    /// Counts one.
    pub(crate) fn count(&self, reason: &CloseReason) {
        let known = CloseReason::NAMES.iter().position(|name| *name == reason.name());
        if let Some(counter) = known.and_then(|index| self.counters.get(index)) {
            counter.add(1);
        }
    }

    /// Adds the family.
    pub(crate) fn write(&self, page: &mut Exposition) {
        let help = "Connections ended, by what ended them.";
        page.family("fleuve_connections_closed_total", Kind::Counter, help);
        for (name, counter) in CloseReason::NAMES.iter().zip(&self.counters) {
            page.sample(&[("reason", name)], counter.get() as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_fill_no_disk_with_warnings_about_them() {
        let (endings, begun) = (Endings::default(), Instant::now());
        let told = |ms| -> Vec<u64> {
            let now = begun + Duration::from_millis(ms);
            (0..1000).filter_map(|_| endings.tell(now)).collect()
        };
        assert_eq!(told(0), [0; 10]);
        assert_eq!(told(999), [0; 0]);
        assert_eq!(told(1000), [1990, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
