//! A stream's record looks up a table.

use std::sync::Arc;

use super::table::Getter;
use crate::record::{Data, Record};
use crate::runtime::{Cx, Down, Fan, GlobalReader, Origin, Problem, StoreSlot, Timed};
use crate::serde::{Marker, StreamType};
use crate::state::EventBuffer;

/// Joins each record with the table's current value of its key.
pub(crate) struct StreamTableJoin<K, V, W, R, F> {
    pub(crate) node: Arc<str>,
    /// Whether records without a row are sent too.
    pub(crate) left: bool,
    pub(crate) joiner: F,
    pub(crate) table: Box<dyn Getter<K, W>>,
    /// Whether the table knows what a row was at an event's time.
    pub(crate) versioned: bool,
    /// How long events wait for the table.
    pub(crate) grace_ms: i64,
    /// Where they wait, if they do.
    pub(crate) waiting: Option<StoreSlot<EventBuffer<K, V>>>,
    pub(crate) children: Fan<K, R>,
    pub(crate) result: Marker<V>,
}

impl<K: StreamType, V: StreamType, W: Data, R: Data, F> Down<K, V>
    for StreamTableJoin<K, V, W, R, F>
where
    F: FnMut(&K, &V, Option<&W>) -> R + Send,
{
    fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        if record.value.is_null() || (record.key.is_null() && !self.left) {
            cx.drop_record("null key or value");
            return Ok(());
        }
        let Some(waiting) = self.waiting.filter(|_| !record.key.is_null()) else {
            return self.join(record, cx);
        };
        let event_time = cx.event_time_ms(record.timestamp);
        let (buffer, origin) = cx.store(waiting);
        let (timestamp, headers) = (record.timestamp, record.headers.clone());
        let context = Origin { timestamp, headers, ..origin.clone() };
        let kept = buffer
            .put(&record.key, &record.value, context, event_time)
            .map_err(|error| Problem::store(&self.node, error))?;
        if !kept {
            return self.join(record, cx);
        }
        self.join_due(waiting, cx)
    }
}

impl<K: StreamType, V: StreamType, W: Data, R: Data, F> Timed for StreamTableJoin<K, V, W, R, F>
where
    F: FnMut(&K, &V, Option<&W>) -> R + Send,
{
    fn advance(&mut self, time_ms: i64, cx: &mut Cx) -> Result<(), Problem> {
        let Some(waiting) = self.waiting else {
            return Ok(());
        };
        cx.store(waiting).0.advance(time_ms);
        self.join_due(waiting, cx)
    }

    fn holds_back_ms(&self) -> i64 {
        self.grace_ms
    }
}

impl<K: StreamType, V: StreamType, W: Data, R: Data, F> StreamTableJoin<K, V, W, R, F>
where
    F: FnMut(&K, &V, Option<&W>) -> R + Send,
{
    /// Joins the events that have waited long enough.
    fn join_due(
        &mut self,
        waiting: StoreSlot<EventBuffer<K, V>>,
        cx: &mut Cx,
    ) -> Result<(), Problem> {
        while let Some((key, value, context)) =
            cx.store(waiting).0.take_due().map_err(|error| Problem::store(&self.node, error))?
        {
            let (timestamp, headers) = (context.timestamp, context.headers.clone());
            let current = std::mem::replace(&mut cx.origin, context);
            let joined = self.join(Record { key, value, timestamp, headers }, cx);
            cx.origin = current;
            joined?;
        }
        Ok(())
    }

    fn join(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        let row = if record.key.is_null() {
            Ok(None)
        } else if self.versioned {
            self.table.get_as_of(&record.key, record.timestamp, cx)
        } else {
            self.table.get(&record.key, cx)
        };
        let row = row.map_err(|error| Problem::store(&self.node, error))?;
        if row.is_none() && !self.left {
            return Ok(());
        }
        let row = row.as_ref().map(|row| &row.value);
        let value = (self.joiner)(&record.key, &record.value, row);
        self.children.push(record.with_value(value), cx)
    }
}

/// Joins each record with a global table's current value of a key that is chosen per record.
pub(crate) struct GlobalJoin<K, V, L, W, R, S, F> {
    pub(crate) node: Arc<str>,
    /// Whether records without a row are sent too.
    pub(crate) left: bool,
    pub(crate) select: S,
    pub(crate) joiner: F,
    pub(crate) table: GlobalReader<L, W>,
    pub(crate) children: Fan<K, R>,
    pub(crate) result: Marker<V>,
}

impl<K: StreamType, V: StreamType, L: Data, W: Data, R: Data, S, F> Down<K, V>
    for GlobalJoin<K, V, L, W, R, S, F>
where
    S: FnMut(&K, &V) -> Option<L> + Send,
    F: FnMut(&K, &V, Option<&W>) -> R + Send,
{
    fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        if record.value.is_null() {
            cx.drop_record("null key or value");
            return Ok(());
        }
        let key = (self.select)(&record.key, &record.value);
        let row = match key {
            Some(key) => self.table.get(&key).map_err(|error| Problem::store(&self.node, error))?,
            None if self.left => None,
            None => {
                cx.drop_record("null key or value");
                return Ok(());
            }
        };
        if row.is_none() && !self.left {
            return Ok(());
        }
        let row = row.as_ref().map(|row| &row.value);
        let value = (self.joiner)(&record.key, &record.value, row);
        self.children.push(record.with_value(value), cx)
    }
}
