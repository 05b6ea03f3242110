//! Key-value stores, timestamped as those of the DSL.
//!
//! ```text
//! store:      key -> | timestamp: i64 | value ... |
//! changelog:  key -> | value ... |, the record's timestamp being the value's
//! ```

use std::any::Any;
use std::ops::{Bound, RangeBounds};

use bytes::{BufMut, Bytes, BytesMut};

use super::cache::Cache;
use super::disk::DiskBackend;
use super::{AnyStore, Backend, Logged, Stamped, StoreError};
use crate::metrics::StoreMetrics;
use crate::record::Headers;
use crate::runtime::Origin;
use crate::serde::{Presence, SerdeOf};

/// A key-value store of one task.
pub(crate) struct KvStore<K, V> {
    settings: KvStoreSettings<K, V>,
    backend: Box<dyn Backend>,
    cache: Cache<V>,
    changelog: Vec<Logged>,
    key: Vec<u8>,
    /// Reads that the cache answered, and those that it did not.
    hits: u64,
    misses: u64,
}

/// What a key-value store is made from.
pub(crate) struct KvStoreSettings<K, V> {
    pub(crate) name: String,
    /// The changelog topic, which serdes are told.
    pub(crate) topic: String,
    pub(crate) key: SerdeOf<K>,
    pub(crate) value: SerdeOf<V>,
    pub(crate) logged: bool,
    pub(crate) cached: bool,
    /// Whether records are logged with the headers of what caused them.
    pub(crate) logs_headers: bool,
}

/// A key flushed out of the cache.
pub(crate) struct Flushed<K, V> {
    pub(crate) key: K,
    pub(crate) old: Option<V>,
    pub(crate) new: Option<Stamped<V>>,
    pub(crate) origin: Box<Origin>,
}

impl<K: Clone + Send + 'static, V: Clone + Send + 'static> KvStore<K, V> {
    pub(crate) fn new(settings: KvStoreSettings<K, V>, backend: Box<dyn Backend>) -> Self {
        Self {
            settings,
            backend,
            cache: Cache::default(),
            changelog: Vec::new(),
            key: Vec::new(),
            hits: 0,
            misses: 0,
        }
    }

    pub(crate) fn get(&mut self, key: &K) -> Result<Option<Stamped<V>>, StoreError> {
        self.write_key(key)?;
        if let Some(entry) = self.cache.get(&self.key) {
            self.hits += 1;
            return Ok(entry.value.clone());
        }
        let value = match self.backend.get(&self.key)? {
            Some(bytes) => Some(self.decode(bytes)?),
            None => None,
        };
        if self.settings.cached {
            self.misses += 1;
            self.cache.fill(Bytes::copy_from_slice(&self.key), value.clone());
        }
        Ok(value)
    }

    /// Sets a key, or removes it, because of a record with this time.
    pub(crate) fn put(
        &mut self,
        key: &K,
        value: Option<Stamped<V>>,
        timestamp: i64,
        headers: &Headers,
        origin: &Origin,
    ) -> Result<(), StoreError> {
        self.write_key(key)?;
        if self.settings.cached {
            // Operators before may have given the record another time or headers than its input record has.
            self.cache.write(&self.key, value, (origin, timestamp, headers));
            return Ok(());
        }
        let timestamp = value.as_ref().map_or(timestamp, |value| value.timestamp);
        let key = Bytes::copy_from_slice(&self.key);
        let headers = if self.settings.logs_headers { headers.clone() } else { Headers::default() };
        self.write_through(key, value.as_ref(), timestamp, headers)
    }

    /// Writes dirty keys through and gives them to the caller, old values only if asked for.
    pub(crate) fn flush(&mut self, old_wanted: bool) -> Result<Vec<Flushed<K, V>>, StoreError> {
        let mut flushed = Vec::new();
        for key in self.cache.take_dirty() {
            let Some((value, origin)) = self.cache.clean(&key) else {
                continue;
            };
            let new = value.clone();
            // What the backend has is asked for only where somebody wants to know.
            let old = if old_wanted || new.is_none() { self.backend.get(&key)? } else { None };
            if old.is_none() && new.is_none() {
                // Written and removed again since the last flush: nobody has seen the key.
                continue;
            }
            let old = match old {
                Some(bytes) if old_wanted => Some(self.decode(bytes)?.value),
                _ => None,
            };
            let timestamp = new.as_ref().map_or(origin.timestamp, |value| value.timestamp);
            self.write_through(key.clone(), new.as_ref(), timestamp, Headers::default())?;
            flushed.push(Flushed {
                key: self.settings.key.read(
                    &self.settings.topic,
                    &Headers::default(),
                    Some(key),
                )?,
                old,
                new,
                origin,
            });
        }
        Ok(flushed)
    }

    /// All pairs in the order of their key bytes.
    pub(crate) fn all(&mut self) -> Result<Vec<(K, Stamped<V>)>, StoreError> {
        self.between(Bound::Unbounded, Bound::Unbounded)
    }

    /// The pairs whose key bytes are within those of these keys, in their order.
    pub(crate) fn between(
        &mut self,
        from: Bound<&K>,
        to: Bound<&K>,
    ) -> Result<Vec<(K, Stamped<V>)>, StoreError> {
        let (from, to) = (self.bound(from)?, self.bound(to)?);
        let bounds = (from.as_ref().map(Vec::as_slice), to.as_ref().map(Vec::as_slice));
        let mut pairs: std::collections::BTreeMap<Bytes, Option<Stamped<V>>> = Default::default();
        for (key, bytes) in self.backend.range(bounds.0, bounds.1)? {
            let value = self.decode(bytes)?;
            pairs.insert(key, Some(value));
        }
        for (key, entry) in self.cache.iter() {
            if RangeBounds::<[u8]>::contains(&bounds, &key[..]) {
                pairs.insert(key.clone(), entry.value.clone());
            }
        }
        pairs
            .into_iter()
            .filter_map(|(key, value)| value.map(|value| (key, value)))
            .map(|(key, value)| {
                let key =
                    self.settings.key.read(&self.settings.topic, &Headers::default(), Some(key))?;
                Ok((key, value))
            })
            .collect()
    }

    /// The pairs whose key begins with these bytes, in the order of their key bytes. Only for stores without a cache.
    pub(crate) fn with_prefix(
        &mut self,
        prefix: &[u8],
    ) -> Result<Vec<(K, Stamped<V>)>, StoreError> {
        let mut end = prefix.to_vec();
        while end.last() == Some(&u8::MAX) {
            end.pop();
        }
        let end = match end.last_mut() {
            Some(last) => {
                *last += 1;
                Bound::Excluded(&end[..])
            }
            None => Bound::Unbounded,
        };
        let found = self.backend.range(Bound::Included(prefix), end)?;
        found
            .into_iter()
            .map(|(key, bytes)| {
                let (topic, headers) = (&self.settings.topic, Headers::default());
                Ok((self.settings.key.read(topic, &headers, Some(key))?, self.decode(bytes)?))
            })
            .collect()
    }

    fn bound(&mut self, key: Bound<&K>) -> Result<Bound<Vec<u8>>, StoreError> {
        if let Bound::Included(key) | Bound::Excluded(key) = key {
            self.write_key(key)?;
        }
        Ok(key.map(|_| self.key.clone()))
    }

    fn write_key(&mut self, key: &K) -> Result<(), StoreError> {
        self.key.clear();
        self.settings.key.write(
            &self.settings.topic,
            &mut Headers::default(),
            key,
            &mut self.key,
        )?;
        Ok(())
    }

    fn write_through(
        &mut self,
        key: Bytes,
        value: Option<&Stamped<V>>,
        timestamp: i64,
        headers: Headers,
    ) -> Result<(), StoreError> {
        let stored = match value {
            Some(stamped) => self.encode(stamped)?,
            None => None,
        };
        if self.settings.logged {
            self.changelog.push(Logged {
                key: key.clone(),
                value: stored.as_ref().map(|bytes| bytes.slice(STAMP..)),
                timestamp,
                headers,
            });
        }
        self.backend.put(key, stored);
        Ok(())
    }

    fn encode(&self, stamped: &Stamped<V>) -> Result<Option<Bytes>, StoreError> {
        let mut out = Vec::with_capacity(STAMP + 16);
        out.put_i64(stamped.timestamp);
        let presence = self.settings.value.write(
            &self.settings.topic,
            &mut Headers::default(),
            &stamped.value,
            &mut out,
        )?;
        Ok((presence == Presence::Present).then(|| Bytes::from(out)))
    }

    fn decode(&self, mut bytes: Bytes) -> Result<Stamped<V>, StoreError> {
        if bytes.len() < STAMP {
            return Err(StoreError::Damaged {
                store: self.settings.name.clone(),
                what: "a value shorter than its timestamp",
            });
        }
        let mut stamp = [0; STAMP];
        stamp.copy_from_slice(&bytes.split_to(STAMP));
        Ok(Stamped {
            timestamp: i64::from_be_bytes(stamp),
            value: self.settings.value.read(
                &self.settings.topic,
                &Headers::default(),
                Some(bytes),
            )?,
        })
    }
}

/// Bytes of the timestamp in front of a stored value.
const STAMP: usize = size_of::<i64>();

impl<K: Clone + Send + 'static, V: Clone + Send + 'static> AnyStore for KvStore<K, V> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn take_changelog(&mut self) -> Vec<Logged> {
        std::mem::take(&mut self.changelog)
    }

    fn restore(&mut self, record: Logged) -> Result<(), StoreError> {
        let stored = record.value.map(|value| {
            let mut stored = BytesMut::with_capacity(STAMP + value.len());
            stored.put_i64(record.timestamp);
            stored.extend_from_slice(&value);
            stored.freeze()
        });
        self.backend.put(record.key, stored);
        Ok(())
    }

    fn shrink_cache(&mut self) {
        self.cache.forget_clean();
    }

    fn cached_bytes(&self) -> usize {
        self.cache.bytes()
    }

    fn move_to(&mut self, disk: DiskBackend) -> Option<DiskBackend> {
        self.backend = Box::new(disk);
        None
    }

    fn backend(&mut self) -> Option<&mut dyn Backend> {
        Some(&mut *self.backend)
    }

    fn figures(&self) -> StoreMetrics {
        StoreMetrics {
            entries: self.backend.known_entries().map(|entries| entries as u64),
            cache_hits: self.hits,
            cache_misses: self.misses,
            ..StoreMetrics::default()
        }
    }
}
