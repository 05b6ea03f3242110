//! Window stores: values by key and the window's start, dropped once their retention is over.
//!
//! ```text
//! changelog:  | key ... | start: i64 | sequence: u32 | -> value; the record's timestamp is the value's
//! ```
//!
//! Windows are kept by start time, so that expiry cuts off whole windows and a lookup over a span of time touches
//! only the windows in it. A write older than the retention is refused, as by Kafka Streams' in-memory store, and
//! counted.

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};

use bytes::{BufMut, Bytes};

use super::disk::DiskBackend;
use super::window_slots::WindowSlots;
use super::{AnyStore, Logged, Stamped, StoreError};
use crate::metrics::StoreMetrics;
use crate::record::{Headers, Window, Windowed};
use crate::runtime::Origin;
use crate::serde::{Presence, SerdeOf};

/// A window store of one task.
pub(crate) struct WindowStore<K, V> {
    settings: WindowStoreSettings<K, V>,
    windows: BTreeMap<i64, WindowSlots<Slot<K, V>>>,
    changelog: Vec<Logged>,
    /// The bytes of the key that is worked on.
    key: Vec<u8>,
    dirty: Vec<(i64, WindowKey)>,
    writes: u64,
    observed_ms: i64,
    sequence: u32,
    /// The changelog keys of dropped windows, if somebody asks for them.
    expired: Option<Vec<Bytes>>,
}

/// What a window store is made from.
pub(crate) struct WindowStoreSettings<K, V> {
    pub(crate) name: String,
    pub(crate) topic: String,
    pub(crate) key: SerdeOf<K>,
    pub(crate) value: SerdeOf<V>,
    pub(crate) size_ms: i64,
    pub(crate) retention_ms: i64,
    /// Whether several values of one key and start are kept, as stream joins need.
    pub(crate) duplicates: bool,
    pub(crate) logged: bool,
    pub(crate) cached: bool,
    /// Whether windows are read once they have closed: then they are dropped between records only.
    pub(crate) on_close: bool,
}

/// Key bytes, and a number that tells duplicates apart.
type WindowKey = (Bytes, u32);

struct Slot<K, V> {
    key: K,
    value: Stamped<V>,
    dirty: Option<Box<Dirty<V>>>,
}

/// What a cached write remembers until the next flush.
struct Dirty<V> {
    /// The value as last flushed.
    flushed: Option<V>,
    origin: Origin,
    /// The number of the last write.
    written: u64,
}

/// A window flushed out of the cache.
pub(crate) struct FlushedWindow<K, V> {
    pub(crate) key: Windowed<K>,
    pub(crate) old: Option<V>,
    pub(crate) new: Stamped<V>,
    pub(crate) origin: Origin,
}

/// Values with the windows they belong to.
type Windows<K, V> = Vec<(Windowed<K>, Stamped<V>)>;

impl<K: Clone + Send + 'static, V: Clone + Send + 'static> WindowStore<K, V> {
    pub(crate) fn new(settings: WindowStoreSettings<K, V>) -> Self {
        Self {
            settings,
            windows: BTreeMap::new(),
            changelog: Vec::new(),
            key: Vec::new(),
            dirty: Vec::new(),
            writes: 0,
            observed_ms: i64::MIN,
            sequence: 0,
            expired: None,
        }
    }

    /// The value of a key in the window that begins at `start_ms`.
    pub(crate) fn get(&mut self, key: &K, start_ms: i64) -> Result<Option<Stamped<V>>, StoreError> {
        self.write_key(key)?;
        let window = self.windows.get(&start_ms);
        Ok(window.and_then(|window| window.get(&self.key, 0)).map(|slot| slot.value.clone()))
    }

    /// Sets the value of a key in a window. Returns whether the window was young enough to be kept.
    pub(crate) fn put(
        &mut self,
        key: &K,
        start_ms: i64,
        value: Stamped<V>,
        headers: &Headers,
        origin: &Origin,
    ) -> Result<bool, StoreError> {
        let sequence = if self.settings.duplicates {
            self.sequence = self.sequence.wrapping_add(1) & 0x7fff_ffff;
            self.sequence
        } else {
            0
        };
        self.write_key(key)?;
        if !self.settings.cached {
            // Logged even if it has expired, as by Kafka Streams, whose log sits in front of the store.
            // Events for a join are logged with their headers, aggregates are not.
            let headers =
                if self.settings.duplicates { headers.clone() } else { Headers::default() };
            let bytes = std::mem::take(&mut self.key);
            self.log(&bytes, start_ms, sequence, &value, headers)?;
            self.key = bytes;
            self.observe(start_ms);
        }
        let expired = start_ms <= self.observed_ms.saturating_sub(self.settings.retention_ms);
        if expired && !self.settings.cached && !self.settings.on_close {
            if let Some(dropped) = &mut self.expired {
                dropped.push(logged_key(&self.key, start_ms, sequence));
            }
            return Ok(false);
        }
        self.writes += 1;
        let written = self.writes;
        let window = self.windows.entry(start_ms).or_default();
        match window.get_mut(&self.key, sequence) {
            Some(slot) => {
                let timestamp = value.timestamp;
                let old = std::mem::replace(&mut slot.value, value).value;
                if self.settings.cached {
                    match &mut slot.dirty {
                        Some(dirty) => {
                            dirty.origin.follow(origin, timestamp, headers);
                            dirty.written = written;
                        }
                        None => {
                            let origin = origin.at(timestamp, headers);
                            slot.dirty =
                                Some(Box::new(Dirty { flushed: Some(old), origin, written }));
                            let bytes = Bytes::copy_from_slice(&self.key);
                            self.dirty.push((start_ms, (bytes, sequence)));
                        }
                    }
                }
            }
            None => {
                let bytes = Bytes::copy_from_slice(&self.key);
                let dirty = self.settings.cached.then(|| {
                    self.dirty.push((start_ms, (bytes.clone(), sequence)));
                    let origin = origin.at(value.timestamp, headers);
                    Box::new(Dirty { flushed: None, origin, written })
                });
                window.insert(bytes, sequence, Slot { key: key.clone(), value, dirty });
            }
        }
        Ok(true)
    }

    /// The values of a key in windows that begin within `from_ms..=to_ms`, by start.
    pub(crate) fn fetch(
        &mut self,
        key: &K,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<(i64, Stamped<V>)>, StoreError> {
        if from_ms > to_ms {
            return Ok(Vec::new());
        }
        self.write_key(key)?;
        let mut found = Vec::new();
        for (start, window) in self.windows.range(from_ms..=to_ms) {
            found.extend(window.of_key(&self.key).map(|slot| (*start, slot.value.clone())));
        }
        Ok(found)
    }

    /// Every key in windows that begin within `from_ms..=to_ms`, by start and key bytes.
    pub(crate) fn fetch_all(&self, from_ms: i64, to_ms: i64) -> Vec<(Windowed<K>, Stamped<V>)> {
        if from_ms > to_ms {
            return Vec::new();
        }
        self.windows
            .range(from_ms..=to_ms)
            .flat_map(|(start, window)| {
                window.sorted(|_| true).map(|slot| {
                    let key = Windowed { key: slot.key.clone(), window: self.window(*start) };
                    (key, slot.value.clone())
                })
            })
            .collect()
    }

    /// Keys whose bytes are within those of these, in windows that begin within `from_ms..=to_ms`, by start and key
    /// bytes.
    pub(crate) fn fetch_between(
        &self,
        keys: (Bound<&K>, Bound<&K>),
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Windows<K, V>, StoreError> {
        let bytes = |key: Bound<&K>| -> Result<Bound<Bytes>, StoreError> {
            Ok(match key {
                Bound::Included(key) => Bound::Included(self.key_bytes(key)?),
                Bound::Excluded(key) => Bound::Excluded(self.key_bytes(key)?),
                Bound::Unbounded => Bound::Unbounded,
            })
        };
        let keys = (bytes(keys.0)?, bytes(keys.1)?);
        if from_ms > to_ms {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for (start, window) in self.windows.range(from_ms..=to_ms) {
            found.extend(window.sorted(|key| keys.contains(key)).map(|slot| {
                let key = Windowed { key: slot.key.clone(), window: self.window(*start) };
                (key, slot.value.clone())
            }));
        }
        Ok(found)
    }

    /// Logs dirty windows and gives them to the caller, in the order of their last writes.
    pub(crate) fn flush(&mut self) -> Result<Vec<FlushedWindow<K, V>>, StoreError> {
        let mut flushed = Vec::new();
        let mut dirty: Vec<(u64, i64, WindowKey)> = std::mem::take(&mut self.dirty)
            .into_iter()
            .filter_map(|(start, key)| {
                let written = self.windows.get(&start)?.get(&key.0, key.1)?.dirty.as_ref()?.written;
                Some((written, start, key))
            })
            .collect();
        dirty.sort_unstable_by_key(|(written, ..)| *written);
        for (_, start, key) in dirty {
            let window = self.windows.get_mut(&start);
            let Some(slot) = window.and_then(|window| window.get_mut(&key.0, key.1)) else {
                continue;
            };
            let Some(dirty) = slot.dirty.take() else {
                continue;
            };
            let (plain_key, value) = (slot.key.clone(), slot.value.clone());
            self.log(&key.0, start, key.1, &value, Headers::default())?;
            self.observe(start);
            flushed.push(FlushedWindow {
                key: Windowed { key: plain_key, window: self.window(start) },
                old: dirty.flushed,
                new: value,
                origin: dirty.origin,
            });
        }
        Ok(flushed)
    }

    /// The window that begins at this time.
    pub(crate) fn window(&self, start: i64) -> Window {
        Window { start, end: start.saturating_add(self.settings.size_ms) }
    }

    fn observe(&mut self, start_ms: i64) {
        if start_ms > self.observed_ms {
            self.observed_ms = start_ms;
            if !self.settings.cached && !self.settings.on_close {
                self.expire();
            }
        }
    }

    /// Drops windows older than the retention. With a cache only when that is shrunk: until then they stay visible, as
    /// with Kafka Streams.
    fn expire(&mut self) {
        let oldest = self.observed_ms.saturating_sub(self.settings.retention_ms).saturating_add(1);
        if self.windows.first_key_value().is_some_and(|(start, _)| *start < oldest) {
            let kept = self.windows.split_off(&oldest);
            let dropped = std::mem::replace(&mut self.windows, kept);
            if let Some(expired) = &mut self.expired {
                for (start, window) in dropped {
                    let keys = window.into_keys();
                    expired.extend(keys.map(|(key, sequence)| logged_key(&key, start, sequence)));
                }
            }
        }
    }

    fn key_bytes(&self, key: &K) -> Result<Bytes, StoreError> {
        let (topic, mut headers) = (&self.settings.topic, Headers::default());
        Ok(self.settings.key.to_bytes(topic, &mut headers, key)?.unwrap_or_default())
    }

    /// Leaves the key's bytes in `self.key`.
    fn write_key(&mut self, key: &K) -> Result<(), StoreError> {
        self.key.clear();
        let (topic, mut headers) = (&self.settings.topic, Headers::default());
        self.settings.key.write(topic, &mut headers, key, &mut self.key)?;
        Ok(())
    }

    fn log(
        &mut self,
        key: &[u8],
        start_ms: i64,
        sequence: u32,
        value: &Stamped<V>,
        headers: Headers,
    ) -> Result<(), StoreError> {
        if !self.settings.logged {
            return Ok(());
        }
        let mut bytes = Vec::new();
        let presence = self.settings.value.write(
            &self.settings.topic,
            &mut Headers::default(),
            &value.value,
            &mut bytes,
        )?;
        self.changelog.push(Logged {
            key: logged_key(key, start_ms, sequence),
            value: (presence == Presence::Present).then(|| Bytes::from(bytes)),
            timestamp: value.timestamp,
            headers,
        });
        Ok(())
    }

    fn damaged(&self, what: &'static str) -> StoreError {
        StoreError::Damaged { store: self.settings.name.clone(), what }
    }
}

/// A window's key in the changelog.
fn logged_key(key: &[u8], start_ms: i64, sequence: u32) -> Bytes {
    let mut logged = Vec::with_capacity(key.len() + SUFFIX);
    logged.extend_from_slice(key);
    logged.put_i64(start_ms);
    logged.put_u32(sequence);
    Bytes::from(logged)
}

/// Bytes of start and sequence behind the key in a changelog.
const SUFFIX: usize = size_of::<i64>() + size_of::<u32>();

impl<K: Clone + Send + 'static, V: Clone + Send + 'static> AnyStore for WindowStore<K, V> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn take_changelog(&mut self) -> Vec<Logged> {
        if self.settings.on_close && !self.settings.cached {
            self.expire();
        }
        std::mem::take(&mut self.changelog)
    }

    fn restore(&mut self, record: Logged) -> Result<(), StoreError> {
        let mut key = record.key;
        let Some(length) = key.len().checked_sub(SUFFIX) else {
            return Err(self.damaged("a key shorter than its window"));
        };
        let suffix = key.split_off(length);
        let (start, sequence) = suffix.split_at(size_of::<i64>());
        let start = i64::from_be_bytes(start.try_into().map_err(|_| self.damaged("its start"))?);
        let sequence =
            u32::from_be_bytes(sequence.try_into().map_err(|_| self.damaged("its sequence"))?);
        self.observe(start);
        self.sequence = self.sequence.max(sequence);
        let headers = Headers::default();
        // A copy, because the key is a slice of all that was fetched with it.
        let key = Bytes::copy_from_slice(&key);
        match record.value {
            Some(value) => {
                let slot = Slot {
                    key: self.settings.key.read(
                        &self.settings.topic,
                        &headers,
                        Some(key.clone()),
                    )?,
                    value: Stamped {
                        value: self.settings.value.read(
                            &self.settings.topic,
                            &headers,
                            Some(value),
                        )?,
                        timestamp: record.timestamp,
                    },
                    dirty: None,
                };
                self.windows.entry(start).or_default().insert(key, sequence, slot);
            }
            None => {
                if let Some(window) = self.windows.get_mut(&start) {
                    window.remove(&key, sequence);
                }
            }
        }
        self.expire();
        Ok(())
    }

    fn figures(&self) -> StoreMetrics {
        let entries = self.windows.values().map(|window| window.len() as u64).sum();
        StoreMetrics { entries: Some(entries), ..StoreMetrics::default() }
    }

    fn shrink_cache(&mut self) {
        self.expire();
    }

    fn cached_bytes(&self) -> usize {
        // What has expired is only kept because there is room.
        let oldest = self.observed_ms.saturating_sub(self.settings.retention_ms).saturating_add(1);
        let expired: usize = self.windows.range(..oldest).map(|(_, window)| window.len()).sum();
        (self.dirty.len() + expired) * (size_of::<Slot<K, V>>() + 64)
    }
    fn move_to(&mut self, disk: DiskBackend) -> Option<DiskBackend> {
        self.expired = Some(Vec::new());
        Some(disk)
    }

    fn take_expired(&mut self) -> Vec<Bytes> {
        self.expired.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
