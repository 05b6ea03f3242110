//! Joins of two tables: each side looks up the other's current value, and the two results meet in the merge.

use std::sync::Arc;

use super::source::TableEmit;
use super::table::Getter;
use crate::record::{Change, Data, Record};
use crate::runtime::{Assembly, Cx, Down, Fan, Problem};
use crate::state::{Stamped, StoreError};
use crate::topology::NodeId;

/// One side of a join of tables.
pub(crate) struct JoinSide<K, V, W, R> {
    pub(crate) node: Arc<str>,
    pub(crate) other: Other<K, W>,
    pub(crate) keeps: Keeps,
    pub(crate) join: SideJoin<V, W, R>,
    pub(crate) sends_old: bool,
    pub(crate) children: Fan<K, Change<R>>,
}

/// Puts this side's value and the other's together.
pub(crate) type SideJoin<V, W, R> = Box<dyn FnMut(Option<&V>, Option<&W>) -> R + Send>;

/// The other table.
pub(crate) struct Other<K, W>(pub(crate) Box<dyn Getter<K, W>>);

/// Which side's rows have a result without the other side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keeps {
    pub(crate) this: bool,
    pub(crate) other: bool,
}

impl<K: Data, V: Data, W: Data, R: Data> Down<K, Change<V>> for JoinSide<K, V, W, R> {
    fn push(&mut self, record: Record<K, Change<V>>, cx: &mut Cx) -> Result<(), Problem> {
        let other =
            self.other.0.get(&record.key, cx).map_err(|error| Problem::store(&self.node, error))?;
        let change = record.value;
        // An update out of order of a versioned table: its result is not the newest (KIP-914).
        if !change.is_latest {
            cx.drop_record("out of order");
            return Ok(());
        }
        let mut timestamp = record.timestamp;
        match &other {
            Some(other) => timestamp = timestamp.max(other.timestamp),
            // Nothing was joined and nothing is: not even a deletion is worth sending.
            None if !self.keeps.this || (change.new.is_none() && change.old.is_none()) => {
                return Ok(());
            }
            None => {}
        }
        let other = other.as_ref().map(|other| &other.value);
        let keeps = self.keeps;
        let join = &mut self.join;
        let mut result = |value: Option<&V>| match (value, other) {
            (Some(_), Some(_)) => Some(join(value, other)),
            (Some(_), None) if keeps.this => Some(join(value, other)),
            (None, Some(_)) if keeps.other => Some(join(value, other)),
            _ => None,
        };
        let new = result(change.new.as_ref());
        let old = if self.sends_old { result(change.old.as_ref()) } else { None };
        self.children.push(
            Record {
                key: record.key,
                value: Change { old, new, is_latest: change.is_latest },
                timestamp,
                headers: record.headers,
            },
            cx,
        )
    }
}

/// Where both sides of a join meet: keeps the result, if it has a store.
pub(crate) struct JoinMerge<K, R> {
    emit: TableEmit<K, R>,
}

impl<K: Data, R: Data> JoinMerge<K, R> {
    pub(crate) fn new(assembly: &mut Assembly<'_>, id: NodeId) -> Self {
        Self { emit: TableEmit::new(assembly, id) }
    }
}

impl<K: Data, R: Data> Down<K, Change<R>> for JoinMerge<K, R> {
    fn push(&mut self, record: Record<K, Change<R>>, cx: &mut Cx) -> Result<(), Problem> {
        let timestamp = record.timestamp;
        let new = record.value.new.map(|value| Stamped { value, timestamp });
        self.emit.update(record.key, record.value.old, new, timestamp, record.headers, cx)
    }
}

/// The current result of a join that has no store.
pub(crate) struct JoinGetter<K, V, W, F> {
    pub(crate) left: Box<dyn Getter<K, V>>,
    pub(crate) right: Box<dyn Getter<K, W>>,
    pub(crate) left_outer: bool,
    pub(crate) right_outer: bool,
    pub(crate) join: F,
}

impl<K: Data, V: Data, W: Data, R: Data> Getter<K, R>
    for JoinGetter<K, V, W, Arc<dyn Fn(Option<&V>, Option<&W>) -> R + Send + Sync>>
{
    fn get(&mut self, key: &K, cx: &mut Cx) -> Result<Option<Stamped<R>>, StoreError> {
        let left = self.left.get(key, cx)?;
        let right = self.right.get(key, cx)?;
        let exists = match (&left, &right) {
            (Some(_), Some(_)) => true,
            (Some(_), None) => self.left_outer,
            (None, Some(_)) => self.right_outer,
            (None, None) => false,
        };
        if !exists {
            return Ok(None);
        }
        let timestamp = left
            .iter()
            .map(|left| left.timestamp)
            .chain(right.iter().map(|right| right.timestamp))
            .max()
            .unwrap_or_default();
        let value = (self.join)(
            left.as_ref().map(|left| &left.value),
            right.as_ref().map(|right| &right.value),
        );
        Ok(Some(Stamped { value, timestamp }))
    }
}
