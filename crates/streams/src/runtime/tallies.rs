//! Counters and distributions of a program's own (Beam's metrics), shared by all tasks of an instance.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

/// A number that a program counts up.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

/// Values of which number, sum, lowest and highest are kept.
#[derive(Clone, Debug)]
pub struct Distribution(Arc<Values>);

#[derive(Debug)]
struct Values {
    count: AtomicU64,
    sum: AtomicI64,
    min: AtomicI64,
    max: AtomicI64,
}

/// What a distribution has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DistributionSummary {
    /// How many values.
    pub count: u64,
    /// Their sum.
    pub sum: i64,
    /// The lowest, or 0 without any.
    pub min: i64,
    /// The highest, or 0 without any.
    pub max: i64,
}

impl Counter {
    /// Adds to the counter.
    pub fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Distribution {
    /// Takes a value in.
    pub fn record(&self, value: i64) {
        let values = &self.0;
        values.count.fetch_add(1, Ordering::Relaxed);
        values.sum.fetch_add(value, Ordering::Relaxed);
        values.min.fetch_min(value, Ordering::Relaxed);
        values.max.fetch_max(value, Ordering::Relaxed);
    }

    /// What was seen so far.
    pub fn summary(&self) -> DistributionSummary {
        let values = &self.0;
        let count = values.count.load(Ordering::Relaxed);
        if count == 0 {
            return DistributionSummary::default();
        }
        DistributionSummary {
            count,
            sum: values.sum.load(Ordering::Relaxed),
            min: values.min.load(Ordering::Relaxed),
            max: values.max.load(Ordering::Relaxed),
        }
    }
}

impl Default for Distribution {
    fn default() -> Self {
        Self(Arc::new(Values {
            count: AtomicU64::new(0),
            sum: AtomicI64::new(0),
            min: AtomicI64::new(i64::MAX),
            max: AtomicI64::new(i64::MIN),
        }))
    }
}

/// All counters and distributions of an instance, by name.
#[derive(Clone, Default)]
pub(crate) struct Tallies(Arc<Mutex<Named>>);

#[derive(Default)]
struct Named {
    counters: BTreeMap<String, Counter>,
    distributions: BTreeMap<String, Distribution>,
}

impl Tallies {
    /// The counter of that name, which begins at 0.
    pub(crate) fn counter(&self, name: &str) -> Counter {
        let mut named = self.0.lock();
        match named.counters.get(name) {
            Some(counter) => counter.clone(),
            None => named.counters.entry(name.to_owned()).or_default().clone(),
        }
    }

    /// The distribution of that name.
    pub(crate) fn distribution(&self, name: &str) -> Distribution {
        let mut named = self.0.lock();
        match named.distributions.get(name) {
            Some(distribution) => distribution.clone(),
            None => named.distributions.entry(name.to_owned()).or_default().clone(),
        }
    }

    /// All counters, by name.
    pub(crate) fn counters(&self) -> BTreeMap<String, u64> {
        let named = self.0.lock();
        named.counters.iter().map(|(name, counter)| (name.clone(), counter.value())).collect()
    }

    /// All distributions, by name.
    pub(crate) fn distributions(&self) -> BTreeMap<String, DistributionSummary> {
        let named = self.0.lock();
        let all = named.distributions.iter();
        all.map(|(name, distribution)| (name.clone(), distribution.summary())).collect()
    }
}
