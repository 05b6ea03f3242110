//! A node's records.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::Emission;
use super::spread::Part;

/// What a node of a task has taken in and sent: counted by one thread, read by any.
///
/// Only the task's thread counts. So these are no atomic additions, which would cost ten times as much.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) node: Arc<str>,
    records: AtomicU64,
    /// What the node sent because time had come, where it does so.
    emitted: OnceLock<(Emission, AtomicU64)>,
    /// Where a node passes nothing on: how old records were when they came.
    ages: Option<Ages>,
}

/// From the timestamps of records to their arrival, in milliseconds, since it was last taken.
#[derive(Debug, Default)]
struct Ages {
    count: AtomicU64,
    sum: AtomicI64,
    min: AtomicI64,
    max: AtomicI64,
}

impl Tally {
    /// The tally of a node, which is the last on its way or is not.
    pub(crate) fn new(node: Arc<str>, is_last: bool) -> Self {
        let ages = is_last.then(Ages::default);
        Self { node, records: AtomicU64::new(0), emitted: OnceLock::new(), ages }
    }

    /// Counts a record.
    #[inline]
    pub(crate) fn count(&self, now_ms: i64, timestamp: i64) {
        add(&self.records);
        if let Some(ages) = &self.ages {
            ages.add(now_ms.saturating_sub(timestamp));
        }
    }

    /// Says that the node sends something because time has come.
    pub(crate) fn emits(&self, what: Emission) {
        self.emitted.get_or_init(|| (what, AtomicU64::new(0)));
    }

    /// Counts what the node sent because time had come.
    pub(crate) fn count_emitted(&self) {
        if let Some((_, count)) = self.emitted.get() {
            add(count);
        }
    }

    pub(crate) fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    pub(crate) fn emitted(&self) -> Option<(Emission, u64)> {
        let (what, count) = self.emitted.get()?;
        Some((*what, count.load(Ordering::Relaxed)))
    }

    /// Whether the node passes nothing on.
    pub(crate) fn is_last(&self) -> bool {
        self.ages.is_some()
    }

    /// How old records were since the last call. Only on the task's thread.
    pub(crate) fn take_ages(&self) -> Part {
        let Some(ages) = &self.ages else {
            return Part::default();
        };
        Part {
            count: ages.count.swap(0, Ordering::Relaxed),
            sum: ages.sum.swap(0, Ordering::Relaxed),
            min: ages.min.load(Ordering::Relaxed),
            max: ages.max.load(Ordering::Relaxed),
        }
    }
}

impl Ages {
    #[inline]
    fn add(&self, age_ms: i64) {
        let count = self.count.load(Ordering::Relaxed);
        let sum = self.sum.load(Ordering::Relaxed);
        if count == 0 || age_ms < self.min.load(Ordering::Relaxed) {
            self.min.store(age_ms, Ordering::Relaxed);
        }
        if count == 0 || age_ms > self.max.load(Ordering::Relaxed) {
            self.max.store(age_ms, Ordering::Relaxed);
        }
        self.sum.store(sum.saturating_add(age_ms), Ordering::Relaxed);
        self.count.store(count + 1, Ordering::Relaxed);
    }
}

#[inline]
fn add(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_those_since_the_last_look() {
        let tally = Tally::new(Arc::from("sink"), true);
        for timestamp in [90, 70, 80] {
            tally.count(100, timestamp);
        }
        let part = tally.take_ages();
        assert_eq!((part.count, part.sum, part.min, part.max), (3, 60, 10, 30));
        tally.count(100, 50);
        let part = tally.take_ages();
        assert_eq!((part.count, part.sum, part.min, part.max), (1, 50, 50, 50));
        assert_eq!((tally.take_ages().count, tally.records()), (0, 4));
    }
}
