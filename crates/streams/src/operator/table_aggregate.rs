//! Regrouping of a table's rows, and their aggregation by addition and subtraction.

use std::sync::Arc;

use super::source::TableEmit;
use crate::error::Cause;
use crate::record::{Change, Data, Headers, Record};
use crate::runtime::{Cx, Down, Fan, Problem};
use crate::serde::{Marker, SerdeOf, StreamType};
use crate::state::Stamped;

/// Sends a row's change to its groups: one combined change if the group stays the same, otherwise first the old
/// value's removal and then the new value's arrival.
pub(crate) struct Regroup<K, V, L, W, F> {
    pub(crate) node: Arc<str>,
    pub(crate) selector: F,
    pub(crate) key: SerdeOf<L>,
    pub(crate) children: Fan<L, Change<W>>,
    pub(crate) input: Marker<(K, V)>,
}

impl<K: Data, V: Data, L: StreamType, W: StreamType, F> Down<K, Change<V>>
    for Regroup<K, V, L, W, F>
where
    F: FnMut(&K, &V) -> (L, W) + Send,
{
    fn push(&mut self, record: Record<K, Change<V>>, cx: &mut Cx) -> Result<(), Problem> {
        // Groups are made of newest rows (KIP-914).
        if !record.value.is_latest {
            return Ok(());
        }
        let key = &record.key;
        let mut group = |value: Option<V>| {
            value
                .map(|value| (self.selector)(key, &value))
                .filter(|(key, value)| !key.is_null() && !value.is_null())
        };
        let (old, new) = (group(record.value.old), group(record.value.new));
        let is_latest = record.value.is_latest;
        let send = |children: &mut Fan<L, Change<W>>, key: L, old, new, cx: &mut Cx| {
            children.push(
                Record {
                    key,
                    value: Change { old, new, is_latest },
                    timestamp: record.timestamp,
                    headers: record.headers.clone(),
                },
                cx,
            )
        };
        match (old, new) {
            (Some((old_key, old)), Some((new_key, new))) => {
                if same_bytes(&self.key, &old_key, &new_key)
                    .map_err(|cause| Problem::new(&self.node, cause))?
                {
                    return send(&mut self.children, new_key, Some(old), Some(new), cx);
                }
                send(&mut self.children, old_key, Some(old), None, cx)?;
                send(&mut self.children, new_key, None, Some(new), cx)
            }
            (Some((key, old)), None) => send(&mut self.children, key, Some(old), None, cx),
            (None, Some((key, new))) => send(&mut self.children, key, None, Some(new), cx),
            (None, None) => Ok(()),
        }
    }
}

/// Whether two keys are the same to a broker.
fn same_bytes<L: 'static>(serde: &SerdeOf<L>, a: &L, b: &L) -> Result<bool, Cause> {
    let bytes = |key| {
        serde
            .to_bytes("", &mut Headers::default(), key)
            .map_err(|error| Cause::Serialize(Arc::new(error)))
    };
    Ok(bytes(a)? == bytes(b)?)
}

/// Subtracts a row's old value from its group and adds the new one.
pub(crate) struct TableAggregate<K, V, A, F, G> {
    pub(crate) node: Arc<str>,
    pub(crate) add: F,
    pub(crate) subtract: G,
    pub(crate) emit: TableEmit<K, A>,
    pub(crate) input: Marker<V>,
}

impl<K: Data, V: Data, A: Data, F, G> Down<K, Change<V>> for TableAggregate<K, V, A, F, G>
where
    F: FnMut(&K, V, Option<A>) -> A + Send,
    G: FnMut(&K, V, A) -> A + Send,
{
    fn push(&mut self, record: Record<K, Change<V>>, cx: &mut Cx) -> Result<(), Problem> {
        let Some(slot) = self.emit.slot else {
            return Ok(());
        };
        let stored =
            cx.store(slot).0.get(&record.key).map_err(|error| Problem::store(&self.node, error))?;
        let mut timestamp = record.timestamp;
        let stored_time = stored.as_ref().map(|stored| stored.timestamp);
        let old = stored.map(|stored| stored.value);
        let kept = if self.emit.sends_old() { old.clone() } else { None };
        let rest = match (record.value.old, old) {
            (Some(leaving), Some(aggregate)) => {
                timestamp = timestamp.max(stored_time.unwrap_or(timestamp));
                Some((self.subtract)(&record.key, leaving, aggregate))
            }
            (_, old) => old,
        };
        let new = match record.value.new {
            Some(arriving) => {
                timestamp = timestamp.max(stored_time.unwrap_or(timestamp));
                Some((self.add)(&record.key, arriving, rest))
            }
            None => rest,
        };
        let new = new.map(|value| Stamped { value, timestamp });
        self.emit.update(record.key, kept, new, timestamp, record.headers, cx)
    }
}
