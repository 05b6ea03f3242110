//! Operators that remember nothing.

use std::error::Error;
use std::marker::PhantomData;
use std::sync::Arc;

use super::guarded::{Attempt, Failure};
use crate::error::Cause;
use crate::record::{Data, Record};
use crate::runtime::{Cx, Down, Fan, Problem};
use crate::serde::Marker;

/// Passes on what the predicate accepts.
pub(crate) struct Filter<K, V, F> {
    pub(crate) predicate: F,
    pub(crate) children: Fan<K, V>,
}

impl<K: Data, V: Data, F> Down<K, V> for Filter<K, V, F>
where
    F: FnMut(&K, &V) -> bool + Send,
{
    fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        if (self.predicate)(&record.key, &record.value) {
            self.children.push(record, cx)
        } else {
            Ok(())
        }
    }
}

/// One record becomes one.
pub(crate) struct Map<K, V, L, W, F> {
    pub(crate) mapper: F,
    pub(crate) children: Fan<L, W>,
    pub(crate) input: Marker<(K, V)>,
}

impl<K: Data, V: Data, L: Data, W: Data, F> Down<K, V> for Map<K, V, L, W, F>
where
    F: FnMut(K, V) -> (L, W) + Send,
{
    fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        let (key, value) = (self.mapper)(record.key, record.value);
        let record = Record { key, value, timestamp: record.timestamp, headers: record.headers };
        self.children.push(record, cx)
    }
}

/// One record becomes any number, or an error, before any of them is sent.
pub(crate) struct TryMap<K, V, L, W, F, I> {
    pub(crate) mapper: F,
    pub(crate) children: Fan<L, W>,
    pub(crate) input: Marker<(K, V, I)>,
}

/// What a fallible operator of a program may return.
pub(crate) type UserError = Box<dyn Error + Send + Sync>;

impl<K: Data, V: Data, L: Data, W: Data, F, I> Attempt<K, V> for TryMap<K, V, L, W, F, I>
where
    F: FnMut(K, V) -> Result<I, UserError> + Send,
    I: IntoIterator<Item = (L, W)>,
{
    fn attempt(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Failure> {
        let Record { key, value, timestamp, headers } = record;
        let mapped = (self.mapper)(key, value)
            .map_err(|error| Failure::Here(Cause::User(Arc::from(error))))?;
        for (key, value) in mapped {
            self.children.push(Record { key, value, timestamp, headers: headers.clone() }, cx)?;
        }
        Ok(())
    }
}

/// One record becomes any number, sent in order.
pub(crate) struct FlatMap<K, V, L, W, F, I> {
    pub(crate) mapper: F,
    pub(crate) children: Fan<L, W>,
    pub(crate) input: Marker<(K, V, I)>,
}

impl<K: Data, V: Data, L: Data, W: Data, F, I> Down<K, V> for FlatMap<K, V, L, W, F, I>
where
    F: FnMut(K, V) -> I + Send,
    I: IntoIterator<Item = (L, W)>,
{
    fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        for (key, value) in (self.mapper)(record.key, record.value) {
            let record =
                Record { key, value, timestamp: record.timestamp, headers: record.headers.clone() };
            self.children.push(record, cx)?;
        }
        Ok(())
    }
}

/// One value becomes any number under the same key.
pub(crate) struct FlatMapValues<K, V, W, F, I> {
    pub(crate) mapper: F,
    pub(crate) children: Fan<K, W>,
    pub(crate) input: Marker<(V, I)>,
}

impl<K: Data, V: Data, W: Data, F, I> Down<K, V> for FlatMapValues<K, V, W, F, I>
where
    F: FnMut(&K, V) -> I + Send,
    I: IntoIterator<Item = W>,
{
    fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        for value in (self.mapper)(&record.key, record.value) {
            let record = Record {
                key: record.key.clone(),
                value,
                timestamp: record.timestamp,
                headers: record.headers.clone(),
            };
            self.children.push(record, cx)?;
        }
        Ok(())
    }
}

/// Lets the program look at each record, and passes it on.
pub(crate) struct Peek<K, V, F> {
    pub(crate) action: F,
    pub(crate) children: Fan<K, V>,
}

impl<K: Data, V: Data, F> Down<K, V> for Peek<K, V, F>
where
    F: FnMut(&Record<K, V>) + Send,
{
    fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        (self.action)(&record);
        self.children.push(record, cx)
    }
}

/// Passes everything on: merges, and the children of a split.
pub(crate) struct PassThrough<K, V> {
    pub(crate) children: Fan<K, V>,
}

impl<K: Data, V: Data> Down<K, V> for PassThrough<K, V> {
    fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        self.children.push(record, cx)
    }
}

/// Sends each record to the first child whose predicate accepts it.
pub(crate) struct Split<K, V> {
    pub(crate) predicates: Vec<Predicate<K, V>>,
    /// Whether one more child takes what no predicate accepts.
    pub(crate) has_default: bool,
    pub(crate) children: Fan<K, V>,
}

/// A condition on records.
pub(crate) type Predicate<K, V> = Box<dyn FnMut(&K, &V) -> bool + Send>;

impl<K: Data, V: Data> Down<K, V> for Split<K, V> {
    fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        let accepted =
            self.predicates.iter_mut().position(|accepts| accepts(&record.key, &record.value));
        match accepted {
            Some(child) => self.children.push_to(child, record, cx),
            None if self.has_default => {
                let default = self.predicates.len();
                self.children.push_to(default, record, cx)
            }
            None => {
                cx.drop_record("no branch");
                Ok(())
            }
        }
    }
}

/// The marker of an operator's input type.
pub(crate) const fn input<T>() -> Marker<T> {
    PhantomData
}
