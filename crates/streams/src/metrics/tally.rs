//! A node's records.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many records a node of a task has taken in: counted by one thread, read by any.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) node: Arc<str>,
    records: AtomicU64,
}

impl Tally {
    pub(crate) fn new(node: Arc<str>) -> Self {
        Self { node, records: AtomicU64::new(0) }
    }

    /// Counts a record. Only the task's thread does: so this is no atomic addition, which would cost ten times as much.
    #[inline]
    pub(crate) fn count(&self) {
        self.records.store(self.records.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(crate) fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }
}
