//! What clients count, under the names of Kafka's clients, and how brokers get to know of it.
//!
//! Counters are raised per batch, request or poll, never per record, so that they cost nothing.
//! [`crate::Producer::metrics`] and [`crate::Consumer::metrics`] give a snapshot; `telemetry` pushes
//! the same to brokers that subscribe to it (KIP-714), as `otlp` writes it.
//!
//! Averages and maxima are over the life of the client: there are no sampling windows.
//!
//! ```no_run
//! # fn example(producer: &fleuve_client::Producer) {
//! for metric in producer.metrics() {
//!     println!("{} {} {:?}: {}", metric.group, metric.name, metric.tags, metric.value);
//! }
//! # }
//! ```
//!
//! Pushing is on as in Kafka, and happens only where brokers ask for it;
//! [`crate::ClientConfig::metrics_push`] switches it off.

mod otlp;
pub(crate) mod telemetry;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One measured value.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// The name, as Kafka's clients have it.
    pub name: &'static str,
    /// The group, as `producer-metrics`.
    pub group: &'static str,
    /// What it is about beside the client: topic and partition, if anything.
    pub tags: Vec<(&'static str, String)>,
    /// The value.
    pub value: f64,
}

impl Metric {
    pub(crate) fn new(group: &'static str, name: &'static str, value: f64) -> Self {
        Self { name, group, tags: Vec::new(), value }
    }

    /// Reports whether the value only grows.
    pub fn is_total(&self) -> bool {
        self.name.ends_with("-total")
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Total(AtomicU64);

impl Total {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> f64 {
        self.0.load(Ordering::Relaxed) as f64
    }
}

/// How often something was, its average and its maximum.
#[derive(Debug, Default)]
pub(crate) struct Spread {
    count: AtomicU64,
    sum: AtomicU64,
    max: AtomicU64,
}

impl Spread {
    pub(crate) fn add(&self, value: u64) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
        self.max.fetch_max(value, Ordering::Relaxed);
    }

    /// Adds a time, in microseconds.
    pub(crate) fn add_time(&self, time: Duration) {
        self.add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    pub(crate) fn count(&self) -> f64 {
        self.count.load(Ordering::Relaxed) as f64
    }

    /// Returns the average; NaN without any, as in Kafka.
    pub(crate) fn average(&self) -> f64 {
        self.sum.load(Ordering::Relaxed) as f64 / self.count()
    }

    /// Returns the maximum; NaN without any.
    pub(crate) fn max(&self) -> f64 {
        let max = self.max.load(Ordering::Relaxed) as f64;
        if self.count() > 0.0 { max } else { f64::NAN }
    }

    /// Returns average and maximum of times, in milliseconds.
    pub(crate) fn times_ms(&self) -> (f64, f64) {
        (self.average() / 1000.0, self.max() / 1000.0)
    }
}

/// Counters per topic.
#[derive(Debug)]
pub(crate) struct ByTopic<T>(Mutex<BTreeMap<Arc<str>, T>>);

impl<T> Default for ByTopic<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Default> ByTopic<T> {
    /// Lets `count` raise those of `topic`.
    pub(crate) fn with(&self, topic: &Arc<str>, count: impl FnOnce(&T)) {
        let mut topics = self.lock();
        // Looked for first, so that a known name is not counted up for nothing.
        match topics.get(topic) {
            Some(counters) => count(counters),
            None => count(topics.entry(topic.clone()).or_default()),
        }
    }

    /// Shows those of every topic, by name.
    pub(crate) fn each(&self, mut show: impl FnMut(&str, &T)) {
        self.lock().iter().for_each(|(topic, counters)| show(topic, counters));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, T>> {
        // Counters are whole whoever panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that a client can be measured.
pub(crate) trait Measured: Send + Sync + 'static {
    /// Returns its metrics now.
    fn metrics(&self) -> Vec<Metric>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_and_maxima_are_of_what_was_added() {
        let spread = Spread::default();
        assert!(spread.average().is_nan() && spread.max().is_nan());
        for time in [Duration::from_millis(1), Duration::from_millis(4)] {
            spread.add_time(time);
        }
        assert_eq!(spread.times_ms(), (2.5, 4.0));
        assert_eq!(spread.count(), 2.0);
    }
}
