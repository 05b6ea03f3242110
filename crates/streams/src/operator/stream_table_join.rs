//! A stream's record looks up a table.

use std::sync::Arc;

use super::table::Getter;
use crate::record::{Data, Record};
use crate::runtime::{Cx, Down, Fan, GlobalReader, Problem};
use crate::serde::{Marker, StreamType};

/// Joins each record with the table's current value of its key.
pub(crate) struct StreamTableJoin<K, V, W, R, F> {
    pub(crate) node: Arc<str>,
    /// Whether records without a row are sent too.
    pub(crate) left: bool,
    pub(crate) joiner: F,
    pub(crate) table: Box<dyn Getter<K, W>>,
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
        let row = if record.key.is_null() {
            None
        } else {
            self.table.get(&record.key, cx).map_err(|error| Problem::store(&self.node, error))?
        };
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
    F: FnMut(&V, Option<&W>) -> R + Send,
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
        let value = (self.joiner)(&record.value, row.as_ref().map(|row| &row.value));
        self.children.push(record.with_value(value), cx)
    }
}
