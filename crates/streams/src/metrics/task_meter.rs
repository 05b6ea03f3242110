//! Where a task's time goes, and how its stores' caches do.

use std::time::Duration;

use super::spread::Part;
use super::{Spread, StoreMetrics, Summary};

/// The numbers of a task that it does not count anyway, taken by its thread.
#[derive(Debug, Default)]
pub(crate) struct TaskMeter {
    process: Spread,
    lateness: Spread,
    punctuate: Spread,
    punctuations: u64,
    /// Punctuations of which the thread has not heard.
    fresh: Part,
    /// Of the nodes that pass nothing on, by their place among the task's tallies.
    ages: Vec<Spread>,
    stores: Vec<StoreWatch>,
}

/// What is remembered of a store from one look to the next.
#[derive(Debug, Default)]
struct StoreWatch {
    hits: u64,
    misses: u64,
    hit_ratio: Spread,
    buffered: Spread,
    buffered_bytes: Spread,
}

/// What a task's meter knows of the time that processing takes.
pub(crate) struct TaskTimes {
    pub(crate) process: Summary,
    pub(crate) lateness: Summary,
    pub(crate) punctuate: Summary,
    pub(crate) punctuations: u64,
}

impl TaskMeter {
    /// Counts records that were processed at a stretch.
    pub(crate) fn processed(&mut self, now_ms: i64, took: Duration, records: usize) {
        self.process.record_part(now_ms, Part::of_sum(records as u64, took.as_nanos() as i64));
    }

    /// Counts how far a record is behind event time.
    #[inline]
    pub(crate) fn late(&mut self, now_ms: i64, late_ms: i64) {
        self.lateness.record(now_ms, late_ms.max(0));
    }

    pub(crate) fn punctuated(&mut self, now_ms: i64, took: Duration) {
        let took_ns = took.as_nanos() as i64;
        self.punctuations += 1;
        self.punctuate.record(now_ms, took_ns);
        self.fresh = Part::of_sum(self.fresh.count + 1, self.fresh.sum.saturating_add(took_ns));
    }

    /// The punctuations since the last call.
    pub(crate) fn take_punctuations(&mut self) -> Part {
        std::mem::take(&mut self.fresh)
    }

    pub(crate) fn times(&self, now_ms: i64) -> TaskTimes {
        TaskTimes {
            process: self.process.summary(now_ms),
            lateness: self.lateness.summary(now_ms),
            punctuate: self.punctuate.summary(now_ms),
            punctuations: self.punctuations,
        }
    }

    /// How old the records of the node at this place were lately.
    pub(crate) fn ages(&mut self, now_ms: i64, place: usize, fresh: Part) -> Summary {
        let spread = slot(&mut self.ages, place);
        spread.record_part(now_ms, fresh);
        spread.summary(now_ms)
    }

    /// Adds to a store's figures how they were lately, as far as looks at them tell.
    pub(crate) fn watch(&mut self, now_ms: i64, place: usize, figures: &mut StoreMetrics) {
        let watch = slot(&mut self.stores, place);
        let hits = figures.cache_hits.saturating_sub(watch.hits);
        let reads = hits + figures.cache_misses.saturating_sub(watch.misses);
        (watch.hits, watch.misses) = (figures.cache_hits, figures.cache_misses);
        if let Some(ratio) = (hits * MILLION).checked_div(reads) {
            watch.hit_ratio.record(now_ms, ratio as i64);
        }
        if let Some((count, bytes)) = figures.buffered {
            watch.buffered.record(now_ms, count as i64);
            watch.buffered_bytes.record(now_ms, bytes as i64);
        }
        figures.hit_ratio = watch.hit_ratio.summary(now_ms);
        figures.buffered_count = watch.buffered.summary(now_ms);
        figures.buffered_bytes = watch.buffered_bytes.summary(now_ms);
    }
}

fn slot<T: Default>(slots: &mut Vec<T>, place: usize) -> &mut T {
    if slots.len() <= place {
        slots.resize_with(place + 1, T::default);
    }
    &mut slots[place]
}

/// Ratios are kept in whole numbers of so many parts.
pub(crate) const MILLION: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn looked(meter: &mut TaskMeter, hits: u64, misses: u64) -> Summary {
        let mut figures =
            StoreMetrics { cache_hits: hits, cache_misses: misses, ..Default::default() };
        meter.watch(100_000, 0, &mut figures);
        figures.hit_ratio
    }

    #[test]
    fn the_hit_ratio_is_that_of_each_look() {
        let mut meter = TaskMeter::default();
        assert_eq!(looked(&mut meter, 0, 0).count, 0);
        looked(&mut meter, 1, 3);
        looked(&mut meter, 1, 3);
        let ratio = looked(&mut meter, 4, 4);
        assert_eq!((ratio.count, ratio.min, ratio.max), (2, 250_000, 750_000));
    }

    #[test]
    fn punctuations_are_told_once() {
        let mut meter = TaskMeter::default();
        meter.punctuated(100_000, Duration::from_nanos(10));
        meter.punctuated(100_000, Duration::from_nanos(30));
        let fresh = meter.take_punctuations();
        assert_eq!((fresh.count, fresh.sum, meter.take_punctuations().count), (2, 40, 0));
        assert_eq!(meter.times(100_000).punctuations, 2);
    }
}
