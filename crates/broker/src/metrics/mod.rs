//! Counters of the broker, under the names people already chart.
//!
//! The hot path adds to plain atomics; names, labels and quantiles are made when somebody asks
//! for the page. The dialect is the one that Strimzi's exporter rules give Kafka's MBeans. Every
//! name stands in `docs/metrics.md`.

mod authentications;
mod distribution;
mod endings;
mod requests;
mod topics;

use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use authentications::Authentications;
pub(crate) use distribution::Distribution;
pub(crate) use endings::Endings;
pub(crate) use requests::{Called, Receipt, RequestCounters, write_requests};
pub(crate) use topics::{TopicCounters, write_topics};

/// A counter that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Begins at zero.
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds `amount`.
    #[inline]
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Returns the sum so far.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
