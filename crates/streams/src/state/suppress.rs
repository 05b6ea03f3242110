//! The buffer of suppressed changes, by buffer time and key.
//!
//! ```text
//! changelog:  key -> | context | prior | old | new | buffer time: i64 |, with the header v = 3
//! context:    | timestamp: i64 | offset: i64 | topic: i32 length ... | partition: i32 |
//!             | count: i32 | each header: key: i32 length ..., value: i32 length (-1: null) ... |
//! values:     | length: i32 (-1: null; for old, -2: the same as prior) | ... |
//! ```
//!
//! `prior` is the value before the first of the changes that wait for a key: what lookups downstream still see.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};

use super::{AnyStore, Logged, StoreError};
use crate::metrics::{StoreKind, StoreMetrics};
use crate::record::{Change, Header, Headers};
use crate::runtime::Origin;
use crate::serde::{SerdeError, SerdeOf};
use crate::topology::java_hash_order;

/// A buffer of one task.
pub(crate) struct ChangeBuffer<K, V> {
    settings: Arc<ChangeBufferSettings<K, V>>,
    times: HashMap<Bytes, i64>,
    waiting: BTreeMap<(i64, Bytes), Waiting>,
    bytes: u64,
    /// Keys changed since the changelog was last taken, in that order.
    dirty: Vec<Bytes>,
}

/// What a buffer is made from.
pub(crate) struct ChangeBufferSettings<K, V> {
    pub(crate) name: String,
    pub(crate) topic: String,
    pub(crate) key: SerdeOf<K>,
    pub(crate) value: SerdeOf<V>,
    pub(crate) logged: bool,
}

/// A change that waits.
struct Waiting {
    prior: Option<Bytes>,
    old: Option<Bytes>,
    new: Option<Bytes>,
    context: Origin,
}

/// A change that leaves the buffer, with the record it came from.
pub(crate) struct Evicted<K, V> {
    pub(crate) key: K,
    pub(crate) change: Change<V>,
    pub(crate) context: Origin,
}

impl<K: 'static, V: 'static> ChangeBuffer<K, V> {
    pub(crate) fn new(settings: Arc<ChangeBufferSettings<K, V>>) -> Self {
        Self {
            settings,
            times: HashMap::new(),
            waiting: BTreeMap::new(),
            bytes: 0,
            dirty: Vec::new(),
        }
    }

    /// Buffers a change. A key that waits already keeps its time.
    pub(crate) fn put(
        &mut self,
        time: i64,
        key: &K,
        change: &Change<V>,
        context: Origin,
    ) -> Result<(), StoreError> {
        let topic = &self.settings.topic;
        let headers = &mut Headers::default();
        let mut bytes = Vec::new();
        self.settings.key.write(topic, headers, key, &mut bytes)?;
        let key = Bytes::from(bytes);
        let mut value = |value: &Option<V>| match value {
            Some(value) => self.settings.value.to_bytes(topic, headers, value),
            None => Ok(None),
        };
        let (old, new) = (value(&change.old)?, value(&change.new)?);
        let prior = match self.times.get(&key) {
            Some(time) => {
                self.waiting.get(&(*time, key.clone())).and_then(|waiting| waiting.prior.clone())
            }
            None => old.clone(),
        };
        self.insert(time, key.clone(), Waiting { prior, old, new, context });
        self.touch(key);
        Ok(())
    }

    /// The lowest buffer time.
    pub(crate) fn min_time(&self) -> Option<i64> {
        self.waiting.first_key_value().map(|((time, _), _)| *time)
    }

    /// How many keys wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The bytes that wait, counted as Kafka Streams counts them.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The change with the lowest buffer time.
    pub(crate) fn first(&self) -> Result<Option<Evicted<K, V>>, StoreError> {
        let Some(((_, key), waiting)) = self.waiting.first_key_value() else {
            return Ok(None);
        };
        let topic = &self.settings.topic;
        let headers = &waiting.context.headers;
        let read = |bytes: Option<Bytes>| match bytes {
            Some(bytes) => self.settings.value.read(topic, headers, Some(bytes)).map(Some),
            None => Ok::<_, SerdeError>(None),
        };
        Ok(Some(Evicted {
            key: self.settings.key.read(topic, headers, Some(key.clone()))?,
            change: Change::new(read(waiting.new.clone())?, read(waiting.old.clone())?),
            context: waiting.context.clone(),
        }))
    }

    /// Removes the change with the lowest buffer time.
    pub(crate) fn remove_first(&mut self) {
        if let Some(((_, key), waiting)) = self.waiting.pop_first() {
            self.times.remove(&key);
            self.bytes -= size(&key, &waiting);
            self.touch(key);
        }
    }

    /// What a key was before its buffered changes: `None` if it has none, `Some(None)` if it did not exist.
    pub(crate) fn prior(&self, key: &K) -> Result<Option<Option<V>>, StoreError> {
        let topic = &self.settings.topic;
        let mut bytes = Vec::new();
        self.settings.key.write(topic, &mut Headers::default(), key, &mut bytes)?;
        let key = Bytes::from(bytes);
        let Some(time) = self.times.get(&key) else {
            return Ok(None);
        };
        let prior = self.waiting.get(&(*time, key)).and_then(|waiting| waiting.prior.clone());
        Ok(Some(match prior {
            Some(bytes) => {
                Some(self.settings.value.read(topic, &Headers::default(), Some(bytes))?)
            }
            None => None,
        }))
    }

    fn insert(&mut self, time: i64, key: Bytes, waiting: Waiting) {
        let time = *self.times.entry(key.clone()).or_insert(time);
        self.bytes += size(&key, &waiting);
        if let Some(before) = self.waiting.insert((time, key.clone()), waiting) {
            self.bytes -= size(&key, &before);
        }
    }

    fn touch(&mut self, key: Bytes) {
        if self.settings.logged && !self.dirty.contains(&key) {
            self.dirty.push(key);
        }
    }
}

/// The size of a buffered change, as Kafka Streams estimates it.
fn size(key: &Bytes, waiting: &Waiting) -> u64 {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let old = if waiting.old == waiting.prior { 0 } else { length(&waiting.old) };
    let context = &waiting.context;
    let headers: usize = context
        .headers
        .iter()
        .map(|header| header.key.encode_utf16().count() + length(&header.value))
        .sum();
    let fixed = 3 * size_of::<i64>() + size_of::<i32>();
    let topic = context.topic.encode_utf16().count();
    (fixed + key.len() + length(&waiting.prior) + old + length(&waiting.new) + topic + headers)
        as u64
}

fn read_waiting(store: &str, bytes: Bytes) -> Result<(i64, Waiting), StoreError> {
    let mut reader = Reader { store, bytes };
    let (timestamp, offset) = (reader.long()?, reader.long()?);
    let topic = String::from_utf8_lossy(&reader.required()?).into_owned();
    let partition = reader.int()?;
    let count = reader.int()?;
    let mut headers = Vec::new();
    for _ in 0..count.max(0) {
        let key = String::from_utf8_lossy(&reader.required()?).into_owned();
        headers.push(Header { key, value: reader.nullable()? });
    }
    let prior = reader.nullable()?;
    let old = match reader.int()? {
        SAME_AS_PRIOR => prior.clone(),
        length => reader.sized(length)?,
    };
    let new = reader.nullable()?;
    let time = reader.long()?;
    let context = Origin {
        topic: Arc::from(topic),
        partition,
        offset,
        timestamp,
        headers: headers.into_iter().collect(),
    };
    Ok((time, Waiting { prior, old, new, context }))
}

/// A buffered change as it is logged.
pub(super) fn write_logged(
    time: i64,
    prior: Option<&Bytes>,
    old: Option<&Bytes>,
    new: Option<&Bytes>,
    context: &Origin,
) -> Bytes {
    let mut out = Vec::new();
    out.put_i64(context.timestamp);
    out.put_i64(context.offset);
    write_value(&mut out, Some(context.topic.as_bytes()));
    out.put_i32(context.partition);
    out.put_i32(context.headers.iter().len() as i32);
    for header in context.headers.iter() {
        write_value(&mut out, Some(header.key.as_bytes()));
        write_value(&mut out, header.value.as_deref());
    }
    write_value(&mut out, prior.map(|value| &value[..]));
    match old {
        Some(_) if old == prior => out.put_i32(SAME_AS_PRIOR),
        old => write_value(&mut out, old.map(|value| &value[..])),
    }
    write_value(&mut out, new.map(|value| &value[..]));
    out.put_i64(time);
    Bytes::from(out)
}

/// The new value of a logged change, and the record it came from.
pub(super) fn read_logged(
    store: &str,
    bytes: Bytes,
) -> Result<(Option<Bytes>, Origin), StoreError> {
    let (_, waiting) = read_waiting(store, bytes)?;
    Ok((waiting.new, waiting.context))
}

fn write_value(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        Some(value) => {
            out.put_i32(value.len() as i32);
            out.extend_from_slice(value);
        }
        None => out.put_i32(NULL),
    }
}

/// Reads a changelog value, whose lengths are not to be trusted.
struct Reader<'a> {
    store: &'a str,
    bytes: Bytes,
}

impl Reader<'_> {
    fn long(&mut self) -> Result<i64, StoreError> {
        self.bytes.try_get_i64().map_err(|_| self.damaged("a buffered change cut short"))
    }

    fn int(&mut self) -> Result<i32, StoreError> {
        self.bytes.try_get_i32().map_err(|_| self.damaged("a buffered change cut short"))
    }

    fn sized(&mut self, length: i32) -> Result<Option<Bytes>, StoreError> {
        if length == NULL {
            return Ok(None);
        }
        match usize::try_from(length) {
            Ok(length) if length <= self.bytes.len() => Ok(Some(self.bytes.split_to(length))),
            _ => Err(self.damaged("a value longer than its record")),
        }
    }

    fn nullable(&mut self) -> Result<Option<Bytes>, StoreError> {
        let length = self.int()?;
        self.sized(length)
    }

    fn required(&mut self) -> Result<Bytes, StoreError> {
        self.nullable()?.ok_or_else(|| self.damaged("null where text is needed"))
    }

    fn damaged(&self, what: &'static str) -> StoreError {
        StoreError::Damaged { store: self.store.to_owned(), what }
    }
}

/// The length of a null.
const NULL: i32 = -1;
/// In place of the old value's length.
const SAME_AS_PRIOR: i32 = -2;
/// The header that tells the version of the layout, and its value.
const VERSION: (&str, &[u8]) = ("v", &[3]);

impl<K: Send + 'static, V: Send + 'static> AnyStore for ChangeBuffer<K, V> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn take_changelog(&mut self) -> Vec<Logged> {
        let dirty = std::mem::take(&mut self.dirty);
        // Kafka Streams writes them in the order of a hash set.
        let hash = |key: &Bytes| {
            key.iter()
                .fold(1_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(*byte as i8 as u32))
        };
        java_hash_order(dirty, hash)
            .into_iter()
            .map(|key| {
                let waiting = self
                    .times
                    .get(&key)
                    .and_then(|time| Some((*time, self.waiting.get(&(*time, key.clone()))?)));
                let mut headers = Headers::default();
                if waiting.is_some() {
                    headers.add(VERSION.0, VERSION.1);
                }
                Logged {
                    key,
                    value: waiting.map(|(time, waiting)| {
                        let (prior, old) = (waiting.prior.as_ref(), waiting.old.as_ref());
                        write_logged(time, prior, old, waiting.new.as_ref(), &waiting.context)
                    }),
                    timestamp: NOW,
                    headers,
                }
            })
            .collect()
    }

    fn restore(&mut self, record: Logged) -> Result<(), StoreError> {
        match record.value {
            Some(value) => {
                if record.headers.last(VERSION.0).is_none_or(|version| version != VERSION.1) {
                    return Err(StoreError::Damaged {
                        store: self.settings.name.clone(),
                        what: "a buffered change in another layout than version 3",
                    });
                }
                let (time, waiting) = read_waiting(&self.settings.name, value)?;
                self.insert(time, record.key, waiting);
            }
            None => {
                if let Some(time) = self.times.remove(&record.key)
                    && let Some(waiting) = self.waiting.remove(&(time, record.key.clone()))
                {
                    self.bytes -= size(&record.key, &waiting);
                }
            }
        }
        Ok(())
    }

    fn cached_bytes(&self) -> usize {
        0
    }

    fn figures(&self) -> StoreMetrics {
        StoreMetrics {
            kind: StoreKind::Suppression,
            buffered: Some((self.len() as u64, self.bytes())),
            ..StoreMetrics::default()
        }
    }
}

/// Changes are logged with the time when they are written.
const NOW: i64 = -1;
