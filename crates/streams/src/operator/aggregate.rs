//! Aggregation of a stream by key.

use std::sync::Arc;

use super::source::TableEmit;
use crate::record::{Data, Record};
use crate::runtime::{Cx, Down, Problem};
use crate::serde::{Marker, StreamType};
use crate::state::Stamped;

/// What an aggregate begins with; a reduction begins with nothing.
pub(crate) type Initial<A> = Box<dyn FnMut() -> Option<A> + Send>;

/// Folds each record into its key's aggregate. The aggregate's time is the highest of all its records.
pub(crate) struct Aggregate<K, V, A, F> {
    pub(crate) node: Arc<str>,
    pub(crate) aggregator: F,
    /// Told as the old value of a key's first change, as Kafka Streams does without a cache.
    pub(crate) initial: Initial<A>,
    pub(crate) emit: TableEmit<K, A>,
    pub(crate) input: Marker<V>,
}

impl<K: StreamType, V: StreamType, A: Data, F> Down<K, V> for Aggregate<K, V, A, F>
where
    F: FnMut(&K, V, Option<A>) -> Option<A> + Send,
{
    fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        if record.key.is_null() || record.value.is_null() {
            cx.drop_record("null key or value");
            return Ok(());
        }
        let Some(slot) = self.emit.slot else {
            return Ok(());
        };
        let (store, _) = cx.store(slot);
        let old = store.get(&record.key).map_err(|error| Problem::store(&self.node, error))?;
        let timestamp =
            old.as_ref().map_or(record.timestamp, |old| old.timestamp.max(record.timestamp));
        let old = old.map(|old| old.value);
        let kept =
            if self.emit.sends_old() { old.clone().or_else(&mut self.initial) } else { None };
        let new = (self.aggregator)(&record.key, record.value, old)
            .map(|value| Stamped { value, timestamp });
        self.emit.update(record.key, kept, new, timestamp, record.headers, cx)
    }
}
