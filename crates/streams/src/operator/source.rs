//! Sources: bytes become records, and records of a table's topic become changes.

use std::sync::Arc;

use bytes::Bytes;

use super::guarded::{Attempt, Failure};
use crate::dsl::Extractor;
use crate::error::Cause;
use crate::record::{Change, Data, Record};
use crate::runtime::{
    Assembly, Cx, Down, Fan, Flusher, Problem, RawRecord, SourceEntry, StoreSlot,
};
use crate::serde::SerdeOf;
use crate::state::{KvStore, Placed, Stamped};
use crate::topology::NodeId;

/// Reads a topic.
pub(crate) struct Source {
    pub(crate) extractor: Option<Extractor>,
    /// Takes keys and values as bytes.
    pub(crate) decode: Box<dyn Down<RawPart, RawPart>>,
}

/// A key or a value as it came.
pub(crate) type RawPart = Option<Bytes>;

impl SourceEntry for Source {
    fn timestamp(&self, record: &RawRecord, partition_time: i64) -> i64 {
        match &self.extractor {
            Some(extractor) => extractor(record, partition_time),
            None => record.timestamp,
        }
    }

    fn push(&mut self, raw: RawRecord, cx: &mut Cx) -> Result<(), Problem> {
        let RawRecord { key, value, headers, .. } = raw;
        self.decode.push(Record { key, value, timestamp: cx.origin().timestamp, headers }, cx)
    }
}

/// Turns bytes into keys and values.
pub(crate) struct Decode<K, V> {
    pub(crate) key: SerdeOf<K>,
    pub(crate) value: SerdeOf<V>,
    pub(crate) children: Fan<K, V>,
}

impl<K: Data, V: Data> Attempt<RawPart, RawPart> for Decode<K, V> {
    fn attempt(&mut self, record: Record<RawPart, RawPart>, cx: &mut Cx) -> Result<(), Failure> {
        let Record { key, value, timestamp, headers } = record;
        let has_null = key.is_none() || value.is_none();
        let topic = &cx.origin().topic;
        let read = self.key.read(topic, &headers, key).and_then(|key| {
            let value = self.value.read(topic, &headers, value)?;
            Ok((key, value))
        });
        match read {
            Ok((key, value)) => {
                Ok(self.children.push(Record { key, value, timestamp, headers }, cx)?)
            }
            // The program chose types that cannot be null, and so asked for these records to be left out.
            Err(_) if has_null => {
                cx.drop_record("null key or value");
                Ok(())
            }
            Err(error) => Err(Failure::Here(Cause::Deserialize(Arc::new(error)))),
        }
    }
}

/// Turns the records of a table's topic into changes, through the table's store if it has one.
pub(crate) struct TableSource<K, V> {
    node: Arc<str>,
    emit: TableEmit<K, V>,
}

impl<K: Data, V: Data> TableSource<K, V> {
    pub(crate) fn new(assembly: &mut Assembly<'_>, id: NodeId) -> Self {
        Self { node: assembly.name(id), emit: TableEmit::new(assembly, id) }
    }
}

impl<K: Data, V: Data> Down<K, Option<V>> for TableSource<K, V> {
    fn push(&mut self, record: Record<K, Option<V>>, cx: &mut Cx) -> Result<(), Problem> {
        let timestamp = record.timestamp;
        let Some(slot) = self.emit.slot else {
            let change = Change::new(record.value, None);
            return self.emit.forward(
                Record { key: record.key, value: change, timestamp, headers: record.headers },
                cx,
            );
        };
        let (store, _) = cx.store(slot);
        let old = store.get(&record.key).map_err(|error| Problem::store(&self.node, error))?;
        if let Some(old) = &old
            && old.timestamp > timestamp
        {
            // Applied all the same: a table follows its topic's order, not event time.
            tracing::debug!(node = %self.node, "table update out of order");
        }
        let new = record.value;
        self.emit.update(
            record.key,
            old.map(|old| old.value),
            new.map(|value| Stamped { value, timestamp }),
            timestamp,
            record.headers,
            cx,
        )
    }
}

/// The end of every node that makes a table: writes the store, and sends the change on, at once or at the next flush.
pub(crate) struct TableEmit<K, V> {
    node: Arc<str>,
    pub(crate) slot: Option<StoreSlot<KvStore<K, V>>>,
    sends_old: bool,
    /// Whether updates out of order are told from the newest ones.
    of_versions: bool,
    /// `None` where the flusher owns the children.
    children: Option<Fan<K, Change<V>>>,
}

impl<K: Data, V: Data> TableEmit<K, V> {
    pub(crate) fn new(assembly: &mut Assembly<'_>, id: NodeId) -> Self {
        let node = assembly.name(id);
        let sends_old = assembly.node(id).sends_old;
        let of_versions = assembly.plan.is_versioned(id);
        let children = assembly.children(id);
        let Some(store) = assembly.node(id).table_store.clone() else {
            return Self { node, slot: None, sends_old, of_versions, children: Some(children) };
        };
        let slot = assembly.store(&store);
        let children = if assembly.plan.stores[&store].cached {
            let flusher = TableFlusher { node: node.clone(), slot, sends_old, children };
            assembly.add_flusher(&store, Box::new(flusher));
            None
        } else {
            Some(children)
        };
        Self { node, slot: Some(slot), sends_old, of_versions, children }
    }

    /// Whether children see old values.
    pub(crate) fn sends_old(&self) -> bool {
        self.sends_old
    }

    /// Writes the new value to the store, if there is one, and sends the change.
    pub(crate) fn update(
        &mut self,
        key: K,
        old: Option<V>,
        new: Option<Stamped<V>>,
        timestamp: i64,
        headers: crate::record::Headers,
        cx: &mut Cx,
    ) -> Result<(), Problem> {
        let mut is_latest = true;
        let mut expired = Vec::new();
        if let Some(slot) = self.slot {
            let (store, origin) = cx.store(slot);
            let placed = store
                .put(&key, new.clone(), timestamp, &headers, origin)
                .map_err(|error| Problem::store(&self.node, error))?;
            match placed {
                Placed::Latest => {}
                Placed::Until(_) => is_latest = false,
                Placed::Refused => {
                    cx.drop_record("older than the store keeps");
                    return Ok(());
                }
            }
            expired = cx.store(slot).0.take_expired_rows();
        }
        let old = if self.sends_old { old } else { None };
        let value = Change { old, new: new.map(|new| new.value), is_latest };
        if expired.is_empty() {
            return self.forward(Record { key, value, timestamp, headers }, cx);
        }
        self.forward(Record { key, value, timestamp, headers: headers.clone() }, cx)?;
        // The update has moved stream time on, and with it the end of these rows has come.
        for (key, row) in expired {
            let old = self.sends_old.then_some(row.value);
            let value = Change::new(None, old);
            let timestamp = timestamp.max(row.timestamp);
            self.forward(Record { key, value, timestamp, headers: headers.clone() }, cx)?;
        }
        Ok(())
    }

    /// Sends a change on, through the store if there is one.
    pub(crate) fn send(
        &mut self,
        mut record: Record<K, Change<V>>,
        cx: &mut Cx,
    ) -> Result<(), Problem> {
        if self.slot.is_none() {
            record.value.is_latest |= !self.of_versions;
            return self.forward(record, cx);
        }
        let timestamp = record.timestamp;
        let new = record.value.new.map(|value| Stamped { value, timestamp });
        self.update(record.key, record.value.old, new, timestamp, record.headers, cx)
    }

    /// Sends a change, unless the flusher will.
    pub(crate) fn forward(
        &mut self,
        record: Record<K, Change<V>>,
        cx: &mut Cx,
    ) -> Result<(), Problem> {
        match &mut self.children {
            Some(children) => children.push(record, cx),
            None => Ok(()),
        }
    }
}

/// Sends the changes of a cached table at each flush.
struct TableFlusher<K, V> {
    node: Arc<str>,
    slot: StoreSlot<KvStore<K, V>>,
    sends_old: bool,
    children: Fan<K, Change<V>>,
}

impl<K: Data, V: Data> Flusher for TableFlusher<K, V> {
    fn flush(&mut self, limit: usize, cx: &mut Cx) -> Result<bool, Problem> {
        let (store, _) = cx.store(self.slot);
        // Part by part, what is written meanwhile waits for the next flush.
        if limit == usize::MAX || !store.is_flushing() {
            store.begin_flush();
        }
        for _ in 0..limit {
            let (store, _) = cx.store(self.slot);
            let flushed = store.flush_next(self.sends_old);
            let Some(change) = flushed.map_err(|error| Problem::store(&self.node, error))? else {
                return Ok(false);
            };
            let headers = change.origin.headers.clone();
            let timestamp =
                change.new.as_ref().map_or(change.origin.timestamp, |new| new.timestamp);
            cx.origin = change.origin;
            let record = Record {
                key: change.key,
                value: Change::new(change.new.map(|new| new.value), change.old),
                timestamp,
                headers,
            };
            self.children.push(record, cx)?;
        }
        Ok(cx.store(self.slot).0.is_flushing())
    }
}
