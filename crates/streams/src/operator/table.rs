//! Operators on tables, and how the current value of a derived table is found.

use std::sync::Arc;

use super::source::TableEmit;
use crate::record::{Change, Data, Record};
use crate::runtime::{Cx, Down, Problem, StoreSlot};
use crate::serde::Marker;
use crate::state::{KvStore, Stamped, StoreError};

/// Looks up the current value of a table's key.
pub(crate) trait Getter<K, V>: Send {
    fn get(&mut self, key: &K, cx: &mut Cx) -> Result<Option<Stamped<V>>, StoreError>;

    /// What the key was at an event time, where the table knows that; otherwise what it is.
    fn get_as_of(
        &mut self,
        key: &K,
        _: i64,
        cx: &mut Cx,
    ) -> Result<Option<Stamped<V>>, StoreError> {
        self.get(key, cx)
    }
}

/// Looks into a store.
pub(crate) struct StoreGetter<K, V> {
    pub(crate) slot: StoreSlot<KvStore<K, V>>,
}

impl<K: Data, V: Data> Getter<K, V> for StoreGetter<K, V> {
    fn get(&mut self, key: &K, cx: &mut Cx) -> Result<Option<Stamped<V>>, StoreError> {
        cx.store(self.slot).0.get(key)
    }

    fn get_as_of(
        &mut self,
        key: &K,
        timestamp: i64,
        cx: &mut Cx,
    ) -> Result<Option<Stamped<V>>, StoreError> {
        let found = cx.store(self.slot).0.get_as_of(key, timestamp)?;
        Ok(found.map(|version| Stamped { value: version.value, timestamp: version.valid_from }))
    }
}

/// Looks into the parent and filters.
pub(crate) struct FilterGetter<K, V, F> {
    pub(crate) parent: Box<dyn Getter<K, V>>,
    pub(crate) predicate: F,
}

impl<K: Data, V: Data, F: FnMut(&K, &V) -> bool + Send> Getter<K, V> for FilterGetter<K, V, F> {
    fn get(&mut self, key: &K, cx: &mut Cx) -> Result<Option<Stamped<V>>, StoreError> {
        let value = self.parent.get(key, cx)?;
        Ok(value.filter(|stamped| (self.predicate)(key, &stamped.value)))
    }

    fn get_as_of(
        &mut self,
        key: &K,
        timestamp: i64,
        cx: &mut Cx,
    ) -> Result<Option<Stamped<V>>, StoreError> {
        let value = self.parent.get_as_of(key, timestamp, cx)?;
        Ok(value.filter(|stamped| (self.predicate)(key, &stamped.value)))
    }
}

/// Looks into the parent and maps.
pub(crate) struct MapGetter<K, V, F> {
    pub(crate) parent: Box<dyn Getter<K, V>>,
    pub(crate) mapper: F,
}

impl<K: Data, V: Data, W: Data, F: FnMut(&K, &V) -> W + Send> Getter<K, W> for MapGetter<K, V, F> {
    fn get(&mut self, key: &K, cx: &mut Cx) -> Result<Option<Stamped<W>>, StoreError> {
        let value = self.parent.get(key, cx)?;
        Ok(value.map(|stamped| Stamped {
            value: (self.mapper)(key, &stamped.value),
            timestamp: stamped.timestamp,
        }))
    }

    fn get_as_of(
        &mut self,
        key: &K,
        timestamp: i64,
        cx: &mut Cx,
    ) -> Result<Option<Stamped<W>>, StoreError> {
        let value = self.parent.get_as_of(key, timestamp, cx)?;
        Ok(value.map(|stamped| Stamped {
            value: (self.mapper)(key, &stamped.value),
            timestamp: stamped.timestamp,
        }))
    }
}

/// A filter. Without a store, a row that is filtered out is sent as a deletion, even if it was never there, because
/// nobody remembers.
pub(crate) struct TableFilter<K, V, F> {
    pub(crate) node: Arc<str>,
    pub(crate) predicate: F,
    /// Whether it filters a versioned table, whose every update counts.
    pub(crate) of_versions: bool,
    pub(crate) emit: TableEmit<K, V>,
}

impl<K: Data, V: Data, F> Down<K, Change<V>> for TableFilter<K, V, F>
where
    F: FnMut(&K, &V) -> bool + Send,
{
    fn push(&mut self, record: Record<K, Change<V>>, cx: &mut Cx) -> Result<(), Problem> {
        let key = &record.key;
        let new = record.value.new.filter(|value| (self.predicate)(key, value));
        let sends_old = self.emit.sends_old();
        let old = match (self.emit.slot, record.value.old) {
            (Some(slot), _) if sends_old => stored(&self.node, slot, key, cx)?,
            (None, Some(old)) if sends_old && (self.predicate)(key, &old) => Some(old),
            _ => None,
        };
        if !self.of_versions && sends_old && old.is_none() && new.is_none() {
            return Ok(());
        }
        let change = Change { old, new, is_latest: record.value.is_latest };
        let (key, timestamp, headers) = (record.key, record.timestamp, record.headers);
        self.emit.send(Record { key, value: change, timestamp, headers }, cx)
    }
}

/// The value in a table's own store.
pub(super) fn stored<K: Data, V: Data>(
    node: &Arc<str>,
    slot: StoreSlot<KvStore<K, V>>,
    key: &K,
    cx: &mut Cx,
) -> Result<Option<V>, Problem> {
    let value = cx.store(slot).0.get(key).map_err(|error| Problem::store(node, error))?;
    Ok(value.map(|stamped| stamped.value))
}

/// A map of values.
pub(crate) struct TableMap<K, V, W, F> {
    pub(crate) node: Arc<str>,
    pub(crate) mapper: F,
    pub(crate) emit: TableEmit<K, W>,
    pub(crate) input: Marker<V>,
}

impl<K: Data, V: Data, W: Data, F> Down<K, Change<V>> for TableMap<K, V, W, F>
where
    F: FnMut(&K, &V) -> W + Send,
{
    fn push(&mut self, record: Record<K, Change<V>>, cx: &mut Cx) -> Result<(), Problem> {
        let key = &record.key;
        let new = record.value.new.map(|value| (self.mapper)(key, &value));
        let old = match (self.emit.slot, record.value.old) {
            (Some(slot), _) if self.emit.sends_old() => stored(&self.node, slot, key, cx)?,
            (None, Some(old)) if self.emit.sends_old() => Some((self.mapper)(key, &old)),
            _ => None,
        };
        let change = Change { old, new, is_latest: record.value.is_latest };
        let (key, timestamp, headers) = (record.key, record.timestamp, record.headers);
        self.emit.send(Record { key, value: change, timestamp, headers }, cx)
    }
}

/// Takes a stream's records as updates of a table.
pub(crate) struct ToTable<K, V> {
    pub(crate) node: Arc<str>,
    pub(crate) emit: TableEmit<K, V>,
}

impl<K: Data, V: Data> Down<K, V> for ToTable<K, V> {
    fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        let timestamp = record.timestamp;
        let old = match self.emit.slot {
            Some(slot) if self.emit.sends_old() => cx
                .store(slot)
                .0
                .get(&record.key)
                .map_err(|error| Problem::store(&self.node, error))?
                .map(|old| old.value),
            _ => None,
        };
        let new = Stamped { value: record.value, timestamp };
        self.emit.update(record.key, old, Some(new), timestamp, record.headers, cx)
    }
}
