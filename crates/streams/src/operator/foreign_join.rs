//! Joins of tables by a foreign key: left rows subscribe to right keys, in a topic partitioned by those, and the right
//! side answers into a topic partitioned as the left table.

use std::sync::Arc;

use bytes::Bytes;

use super::table::Getter;
use crate::error::Cause;
use crate::record::{Change, Data, Headers, Record};
use crate::runtime::{Cx, Down, Fan, Problem, StoreSlot};
use crate::serde::foreign::{Hash, Instruction, Response, Subscription, murmur3};
use crate::serde::{Marker, SerdeError, SerdeOf, StreamType};
use crate::state::{KvStore, Stamped, StoreError};

/// The store of subscriptions, by foreign key and primary key.
///
/// ```text
/// key:  | length: i32 | foreign key ... | primary key ... |
/// ```
pub(crate) type Subscriptions<K> = KvStore<Bytes, Subscription<K>>;

/// Turns changes of the left table into subscriptions.
pub(crate) struct Subscribe<K, V, L, F> {
    pub(crate) node: Arc<str>,
    pub(crate) extract: F,
    pub(crate) left: bool,
    pub(crate) foreign_key: SerdeOf<L>,
    pub(crate) value: SerdeOf<V>,
    pub(crate) children: Fan<Option<L>, Subscription<K>>,
}

impl<K: Data, V: Data, L: Data, F> Down<K, Change<V>> for Subscribe<K, V, L, F>
where
    F: FnMut(&K, &V) -> Option<L> + Send,
{
    fn push(&mut self, record: Record<K, Change<V>>, cx: &mut Cx) -> Result<(), Problem> {
        let change = &record.value;
        if !change.is_latest {
            cx.drop_record("out of order");
            return Ok(());
        }
        if change.old.is_none() && change.new.is_none() {
            return Ok(());
        }
        let old = change.old.as_ref().and_then(|value| (self.extract)(&record.key, value));
        let new = change.new.as_ref().and_then(|value| (self.extract)(&record.key, value));
        let hash = self
            .hash(change.new.as_ref())
            .map_err(|error| Problem::new(&self.node, Cause::Serialize(Arc::new(error))))?;
        let changed = match (&old, &new) {
            (Some(old), Some(new)) => self
                .differ(old, new)
                .map_err(|error| Problem::new(&self.node, Cause::Serialize(Arc::new(error))))?,
            (old, _) => old.is_some(),
        };
        if self.left {
            if changed {
                self.send(&record, old, hash, Instruction::Delete, cx)?;
            }
            return self.send(&record, new, hash, Instruction::Answer, cx);
        }
        let has_row = change.new.is_some();
        match (old, new) {
            (old, Some(new)) if changed => {
                self.send(&record, old, hash, Instruction::Delete, cx)?;
                self.send(&record, Some(new), hash, Instruction::Answer, cx)
            }
            (_, Some(new)) => self.send(&record, Some(new), hash, Instruction::AnswerIfFound, cx),
            (old, None) => {
                if has_row {
                    cx.drop_record("null foreign key");
                }
                match old {
                    Some(old) => {
                        self.send(&record, Some(old), hash, Instruction::DeleteAndAnswer, cx)
                    }
                    None => Ok(()),
                }
            }
        }
    }
}

impl<K: Data, V: Data, L: Data, F> Subscribe<K, V, L, F> {
    fn hash(&self, value: Option<&V>) -> Result<Option<Hash>, SerdeError> {
        hash(&self.value, value)
    }

    fn differ(&self, one: &L, other: &L) -> Result<bool, SerdeError> {
        let bytes = |key| self.foreign_key.to_bytes("", &mut Headers::default(), key);
        Ok(bytes(one)? != bytes(other)?)
    }

    fn send(
        &mut self,
        record: &Record<K, Change<V>>,
        key: Option<L>,
        hash: Option<Hash>,
        instruction: Instruction,
        cx: &mut Cx,
    ) -> Result<(), Problem> {
        let partition = Some(cx.partition());
        let value = Subscription { hash, instruction, key: record.key.clone(), partition };
        let (timestamp, headers) = (record.timestamp, record.headers.clone());
        self.children.push(Record { key, value, timestamp, headers }, cx)
    }
}

fn hash<V: 'static>(serde: &SerdeOf<V>, value: Option<&V>) -> Result<Option<Hash>, SerdeError> {
    let Some(value) = value else {
        return Ok(None);
    };
    let bytes = serde.to_bytes("", &mut Headers::default(), value)?;
    Ok(Some(murmur3(&bytes.unwrap_or_default())))
}

/// The bytes under which the subscriptions of a foreign key stand.
fn prefix<L: 'static>(serde: &SerdeOf<L>, key: &L) -> Result<Vec<u8>, SerdeError> {
    let mut bytes = vec![0; size_of::<i32>()];
    serde.write("", &mut Headers::default(), key, &mut bytes)?;
    let length = (bytes.len() - size_of::<i32>()) as i32;
    bytes[..size_of::<i32>()].copy_from_slice(&length.to_be_bytes());
    Ok(bytes)
}

/// Keeps subscriptions.
pub(crate) struct Receive<K, L> {
    pub(crate) node: Arc<str>,
    pub(crate) slot: StoreSlot<Subscriptions<K>>,
    pub(crate) primary_key: SerdeOf<K>,
    pub(crate) foreign_key: SerdeOf<L>,
    pub(crate) children: Fan<Option<L>, Subscription<K>>,
}

impl<K: Data, L: Data> Down<Option<L>, Subscription<K>> for Receive<K, L> {
    fn push(
        &mut self,
        record: Record<Option<L>, Subscription<K>>,
        cx: &mut Cx,
    ) -> Result<(), Problem> {
        let instruction = record.value.instruction;
        match &record.key {
            Some(key) => {
                let key = prefix(&self.foreign_key, key)
                    .and_then(|mut bytes| {
                        let headers = &mut Headers::default();
                        self.primary_key.write("", headers, &record.value.key, &mut bytes)?;
                        Ok(Bytes::from(bytes))
                    })
                    .map_err(|error| Problem::new(&self.node, Cause::Serialize(Arc::new(error))))?;
                let keeps =
                    !matches!(instruction, Instruction::Delete | Instruction::DeleteAndAnswer);
                let timestamp = record.timestamp;
                let value = keeps.then(|| Stamped { value: record.value.clone(), timestamp });
                let (store, origin) = cx.store(self.slot);
                store
                    .put(&key, value, timestamp, &record.headers, origin)
                    .map_err(|error| Problem::store(&self.node, error))?;
            }
            None if instruction != Instruction::Answer => {
                cx.drop_record("null foreign key");
                return Ok(());
            }
            None => {}
        }
        self.children.push(record, cx)
    }
}

/// Answers a subscription from the right table.
pub(crate) struct Answer<K, L, W> {
    pub(crate) node: Arc<str>,
    pub(crate) right: Box<dyn Getter<L, W>>,
    pub(crate) children: Fan<K, Response<W>>,
}

impl<K: Data, L: Data, W: Data> Down<Option<L>, Subscription<K>> for Answer<K, L, W> {
    fn push(
        &mut self,
        record: Record<Option<L>, Subscription<K>>,
        cx: &mut Cx,
    ) -> Result<(), Problem> {
        let found = match &record.key {
            Some(key) => {
                self.right.get(key, cx).map_err(|error| Problem::store(&self.node, error))?
            }
            None => None,
        };
        let timestamp =
            found.as_ref().map_or(record.timestamp, |found| found.timestamp.max(record.timestamp));
        let value = found.map(|found| found.value);
        let value = match record.value.instruction {
            Instruction::Delete => return Ok(()),
            Instruction::AnswerIfFound if value.is_none() => return Ok(()),
            Instruction::DeleteAndAnswer => None,
            Instruction::Answer | Instruction::AnswerIfFound => value,
        };
        let Subscription { hash, key, partition, .. } = record.value;
        let response = Response { hash, value, partition };
        self.children.push(Record { key, value: response, timestamp, headers: record.headers }, cx)
    }
}

/// Tells all subscribers of a right row about its change.
pub(crate) struct Notify<K, L, W> {
    pub(crate) node: Arc<str>,
    pub(crate) slot: StoreSlot<Subscriptions<K>>,
    pub(crate) foreign_key: SerdeOf<L>,
    pub(crate) children: Fan<K, Response<W>>,
}

impl<K: Data, L: StreamType, W: Data> Down<L, Change<W>> for Notify<K, L, W> {
    fn push(&mut self, record: Record<L, Change<W>>, cx: &mut Cx) -> Result<(), Problem> {
        if record.key.is_null() {
            cx.drop_record("null key");
            return Ok(());
        }
        if !record.value.is_latest {
            cx.drop_record("out of order");
            return Ok(());
        }
        let prefix = prefix(&self.foreign_key, &record.key)
            .map_err(|error| Problem::new(&self.node, Cause::Serialize(Arc::new(error))))?;
        let subscribers = cx
            .store(self.slot)
            .0
            .with_prefix(&prefix)
            .map_err(|error| Problem::store(&self.node, error))?;
        for (_, Stamped { value: Subscription { hash, key, partition, .. }, .. }) in subscribers {
            let value = Response { hash, value: record.value.new.clone(), partition };
            let (timestamp, headers) = (record.timestamp, record.headers.clone());
            self.children.push(Record { key, value, timestamp, headers }, cx)?;
        }
        Ok(())
    }
}

/// Joins an answer with the left row, unless that has changed since it asked.
pub(crate) struct Resolve<K, V, W, R, F> {
    pub(crate) node: Arc<str>,
    pub(crate) left: bool,
    pub(crate) join: F,
    pub(crate) rows: Box<dyn Getter<K, V>>,
    pub(crate) value: SerdeOf<V>,
    pub(crate) children: Fan<K, Option<R>>,
    pub(crate) input: Marker<W>,
}

impl<K: Data, V: Data, W: Data, R: Data, F> Down<K, Response<W>> for Resolve<K, V, W, R, F>
where
    F: FnMut(&V, Option<&W>) -> R + Send,
{
    fn push(&mut self, record: Record<K, Response<W>>, cx: &mut Cx) -> Result<(), Problem> {
        let row =
            self.rows.get(&record.key, cx).map_err(|error| Problem::store(&self.node, error))?;
        let row = row.map(|row| row.value);
        let current = hash(&self.value, row.as_ref())
            .map_err(|error| Problem::store(&self.node, StoreError::Serde(error)))?;
        if current != record.value.hash {
            cx.drop_record("outdated answer");
            return Ok(());
        }
        let result = match (&row, &record.value.value) {
            (Some(row), Some(found)) => Some((self.join)(row, Some(found))),
            (Some(row), None) if self.left => Some((self.join)(row, None)),
            _ => None,
        };
        self.children.push(record.with_value(result), cx)
    }
}
