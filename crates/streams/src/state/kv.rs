//! Key-value stores, timestamped as those of the DSL.
//!
//! ```text
//! store:      key -> | timestamp: i64 | value ... |, unless it keeps versions or forgets by time
//! changelog:  key -> | value ... |, the record's timestamp being the value's
//! ```

use std::any::Any;
use std::ops::{Bound, RangeBounds};

use bytes::{BufMut, Bytes};

use super::backend::range_behind;
use super::cache::{Cache, Due};
use super::disk::DiskBackend;
use super::expiry::{self, Expiry};
use super::last_used::LastUsed;
use super::versions::{self, Versions};
use super::{AnyStore, Backend, Logged, Placed, Stamped, StoreError, Version};
use crate::metrics::StoreMetrics;
use crate::record::Headers;
use crate::runtime::Origin;
use crate::serde::{Presence, SerdeOf};

/// A key-value store of one task.
pub(crate) struct KvStore<K, V> {
    settings: KvStoreSettings<K, V>,
    keeping: Keeping,
    /// Rows that have expired and that nobody was told of yet.
    expired: Vec<(K, Stamped<V>)>,
    backend: Box<dyn Backend>,
    cache: Cache<V>,
    changelog: Vec<Logged>,
    key: Vec<u8>,
    /// Reads that the cache answered, and those that it did not.
    reads: u64,
    writes: u64,
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
    pub(crate) kept: Kept,
}

/// What a key-value store keeps of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kept {
    /// The newest value.
    #[default]
    Newest,
    /// All values of so many milliseconds (KIP-889).
    Versions(i64),
    /// The newest value, for so many milliseconds.
    ForTime(i64),
    /// The newest value of so many keys, those used last.
    OfKeys {
        /// How many.
        most: usize,
        /// Whether the changelog is told of keys that had to go.
        logs_evicted: bool,
    },
}

impl Kept {
    /// Whether such a store can have a cache.
    pub(crate) fn may_be_cached(self) -> bool {
        matches!(self, Self::Newest | Self::OfKeys { .. })
    }
}

/// How they are kept.
enum Keeping {
    Newest,
    Versions(Versions),
    ForTime(Expiry),
    OfKeys(LastUsed),
}

/// A key flushed out of the cache.
pub(crate) struct Flushed<K, V> {
    pub(crate) key: K,
    pub(crate) old: Option<V>,
    pub(crate) new: Option<Stamped<V>>,
    pub(crate) origin: Origin,
}

impl<K: Clone + Send + 'static, V: Clone + Send + 'static> KvStore<K, V> {
    pub(crate) fn new(settings: KvStoreSettings<K, V>, backend: Box<dyn Backend>) -> Self {
        let keeping = match settings.kept {
            Kept::Newest => Keeping::Newest,
            Kept::Versions(history_ms) => Keeping::Versions(Versions::new(history_ms)),
            Kept::ForTime(ttl_ms) => Keeping::ForTime(Expiry::new(ttl_ms)),
            Kept::OfKeys { most, .. } => Keeping::OfKeys(LastUsed::new(most)),
        };
        Self {
            settings,
            keeping,
            expired: Vec::new(),
            backend,
            cache: Cache::default(),
            changelog: Vec::new(),
            key: Vec::new(),
            reads: 0,
            writes: 0,
            hits: 0,
            misses: 0,
        }
    }

    pub(crate) fn get(&mut self, key: &K) -> Result<Option<Stamped<V>>, StoreError> {
        self.reads += 1;
        self.write_key(key)?;
        if let Some(entry) = self.cache.get(&self.key) {
            self.hits += 1;
            return Ok(entry.value.clone());
        }
        let stored = match &mut self.keeping {
            Keeping::Newest => self.backend.get(&self.key)?,
            Keeping::OfKeys(keys) => keys.get(&mut *self.backend, &self.key)?,
            Keeping::Versions(versions) => {
                let latest = versions.latest(&mut *self.backend, &self.key)?;
                return latest.map(|(time, value)| self.stamped(time, value)).transpose();
            }
            Keeping::ForTime(expiry) => expiry.get(&mut *self.backend, &self.key)?,
        };
        let value = match stored {
            Some(bytes) => Some(self.decode(bytes)?),
            None => None,
        };
        if self.settings.cached {
            self.misses += 1;
            self.cache.fill(&self.key, value.clone());
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
    ) -> Result<Placed, StoreError> {
        self.writes += 1;
        self.write_key(key)?;
        if self.settings.cached {
            // Operators before may have given the record another time or headers than its input record has.
            self.cache.write(&self.key, value, (origin, timestamp, headers));
            return Ok(Placed::Latest);
        }
        let timestamp = value.as_ref().map_or(timestamp, |value| value.timestamp);
        let headers = if self.settings.logs_headers { headers.clone() } else { Headers::default() };
        self.write_through(value.as_ref(), timestamp, headers)
    }

    /// Whether it knows more of a key than its newest value.
    pub(crate) fn keeps_versions(&self) -> bool {
        matches!(self.keeping, Keeping::Versions(_))
    }

    /// What a key was at an event time. A store without versions only knows what it is.
    pub(crate) fn get_as_of(
        &mut self,
        key: &K,
        timestamp: i64,
    ) -> Result<Option<Version<V>>, StoreError> {
        self.write_key(key)?;
        let Keeping::Versions(versions) = &mut self.keeping else {
            let newest = self.get(key)?;
            return Ok(newest.map(|newest| Version {
                value: newest.value,
                valid_from: newest.timestamp,
                valid_to: None,
            }));
        };
        let found = versions.as_of(&mut *self.backend, &self.key, timestamp)?;
        found.map(|version| self.version(version)).transpose()
    }

    /// The values of a key that held at some time within `from_ms..=to_ms`, oldest first.
    pub(crate) fn versions(
        &mut self,
        key: &K,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<Version<V>>, StoreError> {
        self.write_key(key)?;
        let Keeping::Versions(versions) = &mut self.keeping else {
            return Ok(self.get_as_of(key, to_ms)?.into_iter().collect());
        };
        let found = versions.between(&mut *self.backend, &self.key, from_ms, to_ms)?;
        found.into_iter().map(|version| self.version(version)).collect()
    }

    /// The rows that have expired since the last call, oldest first.
    pub(crate) fn take_expired_rows(&mut self) -> Vec<(K, Stamped<V>)> {
        std::mem::take(&mut self.expired)
    }

    fn version(&self, version: Version<Bytes>) -> Result<Version<V>, StoreError> {
        Ok(Version {
            value: self.stamped(version.valid_from, version.value)?.value,
            valid_from: version.valid_from,
            valid_to: version.valid_to,
        })
    }

    /// Begins to flush what is dirty now.
    pub(crate) fn begin_flush(&mut self) {
        self.cache.begin_flush();
    }

    /// Whether a flush has been begun and not come to its end.
    pub(crate) fn is_flushing(&self) -> bool {
        self.cache.is_flushing()
    }

    /// Writes the next dirty key through and gives it to the caller, the old value only if asked for.
    pub(crate) fn flush_next(
        &mut self,
        old_wanted: bool,
    ) -> Result<Option<Flushed<K, V>>, StoreError> {
        while let Some(Due { key, value: new, origin }) = self.cache.next_due() {
            // What the backend has is asked for only where somebody wants to know.
            let old = match &mut self.keeping {
                _ if !old_wanted && new.is_some() => None,
                Keeping::OfKeys(keys) => keys.get(&mut *self.backend, key)?,
                _ => self.backend.get(key)?,
            };
            self.key.clear();
            self.key.extend_from_slice(key);
            if old.is_none() && new.is_none() {
                // Written and removed again since the last flush: nobody has seen the key.
                continue;
            }
            let old = match old {
                Some(bytes) if old_wanted => Some(self.decode(bytes)?.value),
                _ => None,
            };
            let timestamp = new.as_ref().map_or(origin.timestamp, |value| value.timestamp);
            self.write_through(new.as_ref(), timestamp, Headers::default())?;
            let (topic, headers) = (&self.settings.topic, Headers::default());
            let key = Bytes::copy_from_slice(&self.key);
            let key = self.settings.key.read(topic, &headers, Some(key))?;
            return Ok(Some(Flushed { key, old, new, origin }));
        }
        Ok(None)
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
        let backend = &mut *self.backend;
        let stored = match &self.keeping {
            Keeping::Newest | Keeping::OfKeys(_) => backend.range(bounds.0, bounds.1)?,
            Keeping::Versions(_) => range_behind(backend, versions::LATEST, bounds)?,
            Keeping::ForTime(_) => range_behind(backend, expiry::ROW, bounds)?,
        };
        for (key, bytes) in stored {
            let value = self.decode(bytes)?;
            pairs.insert(key, Some(value));
        }
        for entry in self.cache.iter() {
            if RangeBounds::<[u8]>::contains(&bounds, &entry.key[..]) {
                pairs.insert(Bytes::copy_from_slice(&entry.key), entry.value.clone());
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

    /// Writes the key whose bytes are in `self.key` to the backend and to the changelog.
    fn write_through(
        &mut self,
        value: Option<&Stamped<V>>,
        timestamp: i64,
        headers: Headers,
    ) -> Result<Placed, StoreError> {
        let stored = match value {
            Some(stamped) => self.encode(stamped)?,
            None => None,
        };
        let plain = stored.as_ref().map(|bytes| bytes.slice(STAMP..));
        let (backend, key, kept) = (&mut *self.backend, &self.key[..], self.settings.kept);
        let placed = match &mut self.keeping {
            Keeping::Newest => {
                backend.put_at(key, stored);
                Placed::Latest
            }
            Keeping::Versions(versions) => {
                versions.put(backend, key, plain.as_deref(), timestamp)?
            }
            Keeping::ForTime(expiry) => {
                let placed = expiry.put(backend, key, stored, timestamp)?;
                if placed == Placed::Refused {
                    return Ok(placed);
                }
                placed
            }
            Keeping::OfKeys(keys) => {
                let evicted = keys.put(backend, key, stored);
                let logs_evicted = matches!(kept, Kept::OfKeys { logs_evicted: true, .. });
                if let Some(key) = evicted.filter(|_| self.settings.logged && logs_evicted) {
                    let headers = Headers::default();
                    self.changelog.push(Logged { key, value: None, timestamp, headers });
                }
                Placed::Latest
            }
        };
        if self.settings.logged {
            // What is too old is logged all the same where Kafka Streams does it.
            let key = Bytes::copy_from_slice(key);
            self.changelog.push(Logged { key, value: plain, timestamp, headers });
        }
        self.expire()?;
        Ok(placed)
    }

    /// Deletes the rows whose time is over.
    fn expire(&mut self) -> Result<(), StoreError> {
        let Keeping::ForTime(expiry) = &mut self.keeping else {
            return Ok(());
        };
        let expired = expiry.take_expired(&mut *self.backend)?;
        let now = expiry.observed(&mut *self.backend)?;
        for row in expired {
            if self.settings.logged {
                self.changelog.push(Logged {
                    key: row.key.clone(),
                    value: None,
                    timestamp: now,
                    headers: Headers::default(),
                });
            }
            let (topic, headers) = (&self.settings.topic, Headers::default());
            let key = self.settings.key.read(topic, &headers, Some(row.key))?;
            let value = self.decode(row.stored)?;
            self.expired.push((key, value));
        }
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
        self.stamped(i64::from_be_bytes(stamp), bytes)
    }

    fn stamped(&self, timestamp: i64, value: Bytes) -> Result<Stamped<V>, StoreError> {
        let (topic, headers) = (&self.settings.topic, Headers::default());
        Ok(Stamped { timestamp, value: self.settings.value.read(topic, &headers, Some(value))? })
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
        let backend = &mut *self.backend;
        if let Keeping::Versions(versions) = &mut self.keeping {
            versions.put(backend, &record.key, record.value.as_deref(), record.timestamp)?;
            return Ok(());
        }
        let stamp = record.timestamp.to_be_bytes();
        let stored = record.value.as_deref().map(|value| [&stamp[..], value]);
        match &mut self.keeping {
            Keeping::ForTime(expiry) => {
                let stored = stored.map(|parts| Bytes::from(parts.concat()));
                expiry.restore(backend, &record.key, stored, record.timestamp)?;
            }
            Keeping::OfKeys(keys) => {
                let stored = stored.map(|parts| Bytes::from(parts.concat()));
                keys.put(backend, &record.key, stored);
            }
            _ => backend.restore(&record.key, stored),
        }
        Ok(())
    }

    fn shrink_cache(&mut self) {
        self.cache.forget_clean();
    }

    fn cached_bytes(&self) -> usize {
        self.cache.bytes()
    }

    fn move_to(&mut self, disk: DiskBackend) -> Result<Option<DiskBackend>, StoreError> {
        self.backend = Box::new(disk);
        self.reset();
        Ok(None)
    }

    fn backend(&mut self) -> Option<&mut dyn Backend> {
        Some(&mut *self.backend)
    }

    fn figures(&self) -> StoreMetrics {
        StoreMetrics {
            entries: self.backend.known_entries().map(|entries| entries as u64),
            reads: Some(self.reads),
            writes: Some(self.writes),
            cache_hits: self.hits,
            cache_misses: self.misses,
            ..StoreMetrics::default()
        }
    }

    fn reset(&mut self) {
        match &mut self.keeping {
            Keeping::Newest => {}
            Keeping::Versions(versions) => versions.reset(),
            Keeping::ForTime(expiry) => expiry.reset(),
            Keeping::OfKeys(keys) => keys.reset(),
        }
    }
}
