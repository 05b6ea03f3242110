//! The join of a stream with itself, from one store.
//!
//! Sends what a join of two streams that happen to be the same would send, in the same order: pairs of the event with
//! earlier arrivals, then of earlier arrivals with the event, and where it belongs by time, the event with itself.

use std::sync::Arc;

use super::stream_join::Reach;
use crate::record::{Data, Record};
use crate::runtime::{Cx, Down, Fan, Problem, StoreSlot};
use crate::serde::StreamType;
use crate::state::WindowStore;

/// A stream that meets itself.
pub(crate) struct SelfJoin<K, V, R> {
    pub(crate) node: Arc<str>,
    pub(crate) reach: Reach,
    /// How long events are kept.
    pub(crate) retention_ms: i64,
    pub(crate) slot: StoreSlot<WindowStore<K, V>>,
    /// The highest event time this operator saw.
    pub(crate) observed_ms: i64,
    pub(crate) join: SelfPair<K, V, R>,
    pub(crate) children: Fan<K, R>,
}

/// Puts two events of the stream together, the left one first.
pub(crate) type SelfPair<K, V, R> = Box<dyn FnMut(&K, &V, &V) -> R + Send>;

impl<K: StreamType, V: StreamType, R: Data> Down<K, V> for SelfJoin<K, V, R> {
    fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        if record.key.is_null() || record.value.is_null() {
            cx.drop_record("null key or value");
            return Ok(());
        }
        let timestamp = record.timestamp;
        let with_itself = (self.join)(&record.key, &record.value, &record.value);
        self.observed_ms = self.observed_ms.max(timestamp);
        // An event that is too old to be kept would not have met itself.
        let kept = timestamp > self.observed_ms.saturating_sub(self.retention_ms) + 1;
        let mut with_itself = Some(with_itself).filter(|_| kept);
        let Reach { before_ms, after_ms } = self.reach;
        for (at, other) in self.partners(&record, before_ms, after_ms, cx)? {
            let result = (self.join)(&record.key, &record.value, &other);
            self.send(&record, result, timestamp.max(at), cx)?;
        }
        for (at, other) in self.partners(&record, after_ms, before_ms, cx)? {
            if timestamp < at
                && let Some(result) = with_itself.take()
            {
                self.send(&record, result, timestamp, cx)?;
            }
            let result = (self.join)(&record.key, &other, &record.value);
            self.send(&record, result, timestamp.max(at), cx)?;
        }
        match with_itself {
            Some(result) => self.send(&record, result, timestamp, cx),
            None => Ok(()),
        }
    }
}

impl<K: StreamType, V: StreamType, R: Data> SelfJoin<K, V, R> {
    /// The events that are there, by time.
    fn partners(
        &self,
        record: &Record<K, V>,
        before_ms: i64,
        after_ms: i64,
        cx: &mut Cx,
    ) -> Result<Vec<(i64, V)>, Problem> {
        let from = record.timestamp.saturating_sub(before_ms).max(0);
        let to = record.timestamp.saturating_add(after_ms).max(0);
        let found = cx
            .store(self.slot)
            .0
            .fetch(&record.key, from, to)
            .map_err(|error| Problem::store(&self.node, error))?;
        Ok(found.into_iter().map(|(at, stamped)| (at, stamped.value)).collect())
    }

    fn send(
        &mut self,
        record: &Record<K, V>,
        value: R,
        timestamp: i64,
        cx: &mut Cx,
    ) -> Result<(), Problem> {
        let (key, headers) = (record.key.clone(), record.headers.clone());
        self.children.push(Record { key, value, timestamp, headers }, cx)
    }
}
