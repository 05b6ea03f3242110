//! Session stores: values by key and session, dropped once their retention is over.
//!
//! ```text
//! changelog:  | key ... | end: i64 | start: i64 | -> value; the record's timestamp is that of the record that changed it
//! ```
//!
//! With a cache, sessions past their retention stay visible until the cache is shrunk, as with Kafka Streams: late
//! records then still find the sessions they extend.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::{BufMut, Bytes};

use super::disk::DiskBackend;
use super::{AnyStore, Logged, StoreError};
use crate::metrics::StoreMetrics;
use crate::record::{Headers, Window, Windowed};
use crate::runtime::Origin;
use crate::serde::{Presence, SerdeOf};

/// A session store of one task.
pub(crate) struct SessionStore<K, V> {
    settings: SessionStoreSettings<K, V>,
    sessions: BTreeMap<Place, Slot<K, V>>,
    /// The places by their ends, for expiry and for what has closed.
    by_end: BTreeSet<(i64, Bytes, i64)>,
    dirty: HashMap<Place, Dirty<K, V>>,
    writes: u64,
    changelog: Vec<Logged>,
    observed_ms: i64,
    /// The changelog keys of dropped sessions, if somebody asks for them.
    expired: Option<Vec<Bytes>>,
}

/// What a session store is made from.
pub(crate) struct SessionStoreSettings<K, V> {
    pub(crate) name: String,
    pub(crate) topic: String,
    pub(crate) key: SerdeOf<K>,
    pub(crate) value: SerdeOf<V>,
    pub(crate) retention_ms: i64,
    pub(crate) logged: bool,
    pub(crate) cached: bool,
    /// Whether sessions are read once they have closed: then they are dropped between records only.
    pub(crate) on_close: bool,
}

/// Key bytes, end and start.
type Place = (Bytes, i64, i64);

struct Slot<K, V> {
    key: K,
    value: V,
}

/// A session written since the last flush.
struct Dirty<K, V> {
    key: K,
    /// The value as last flushed.
    flushed: Option<V>,
    origin: Origin,
    written: u64,
}

/// A session flushed out of the cache.
pub(crate) struct FlushedSession<K, V> {
    pub(crate) key: Windowed<K>,
    pub(crate) old: Option<V>,
    pub(crate) new: Option<V>,
    pub(crate) origin: Origin,
}

impl<K: Clone + Send + 'static, V: Clone + Send + 'static> SessionStore<K, V> {
    pub(crate) fn new(settings: SessionStoreSettings<K, V>) -> Self {
        Self {
            settings,
            sessions: BTreeMap::new(),
            by_end: BTreeSet::new(),
            dirty: HashMap::new(),
            writes: 0,
            changelog: Vec::new(),
            observed_ms: -1,
            expired: None,
        }
    }

    /// The value of a session.
    pub(crate) fn get(&self, key: &K, window: Window) -> Result<Option<V>, StoreError> {
        let place = self.place(key, window)?;
        Ok(self.sessions.get(&place).map(|slot| slot.value.clone()))
    }

    /// The sessions of a key that end at `earliest_end` or later and begin at `latest_start` or earlier, by their ends.
    pub(crate) fn find(
        &self,
        key: &K,
        earliest_end: i64,
        latest_start: i64,
    ) -> Result<Vec<(Window, V)>, StoreError> {
        let key = self.key_bytes(key)?;
        let from = (key.clone(), earliest_end, i64::MIN);
        let to = (key, i64::MAX, i64::MAX);
        Ok(self
            .sessions
            .range(from..=to)
            .filter(|((_, _, start), _)| *start <= latest_start)
            .map(|((_, end, start), slot)| {
                (Window { start: *start, end: *end }, slot.value.clone())
            })
            .collect())
    }

    /// All sessions that end within `from..=to`, by end, key bytes and start.
    pub(crate) fn find_ended(&self, from: i64, to: i64) -> Vec<(Windowed<K>, V)> {
        if from > to {
            return Vec::new();
        }
        let bounds = (from, Bytes::new(), i64::MIN)..;
        self.by_end
            .range(bounds)
            .take_while(|(end, _, _)| *end <= to)
            .filter_map(|(end, key, start)| {
                let slot = self.sessions.get(&(key.clone(), *end, *start))?;
                let window = Window { start: *start, end: *end };
                Some((Windowed { key: slot.key.clone(), window }, slot.value.clone()))
            })
            .collect()
    }

    /// Sets or removes a session, because of a record with this time and these headers.
    pub(crate) fn put(
        &mut self,
        key: &K,
        window: Window,
        value: Option<V>,
        timestamp: i64,
        headers: &Headers,
        origin: &Origin,
    ) -> Result<(), StoreError> {
        let place = self.place(key, window)?;
        if !self.settings.cached {
            self.log(&place, value.as_ref(), timestamp)?;
            self.observe(window.end);
            if self.is_expired(window.end) && !self.settings.on_close {
                if let Some(dropped) = &mut self.expired {
                    dropped.push(logged_key(&place));
                }
                return Ok(());
            }
            self.set(place, key, value);
            return Ok(());
        }
        let flushed = self.set(place.clone(), key, value);
        self.writes += 1;
        let written = self.writes;
        let origin = Origin { timestamp, headers: headers.clone(), ..origin.clone() };
        match self.dirty.get_mut(&place) {
            Some(dirty) => {
                dirty.origin = origin;
                dirty.written = written;
            }
            None => {
                self.dirty.insert(place, Dirty { key: key.clone(), flushed, origin, written });
            }
        }
        Ok(())
    }

    /// Logs dirty sessions and gives them to the caller, in the order of their last writes.
    pub(crate) fn flush(&mut self) -> Result<Vec<FlushedSession<K, V>>, StoreError> {
        let mut dirty: Vec<(Place, Dirty<K, V>)> = self.dirty.drain().collect();
        dirty.sort_by_key(|(_, dirty)| dirty.written);
        let mut flushed = Vec::new();
        for (place, dirty) in dirty {
            let new = self.sessions.get(&place).map(|slot| slot.value.clone());
            let old = dirty.flushed.filter(|_| !self.is_expired(place.1));
            // Began and was absorbed since the last flush: nobody has seen the session.
            if new.is_none() && old.is_none() {
                continue;
            }
            self.log(&place, new.as_ref(), dirty.origin.timestamp)?;
            self.observe(place.1);
            flushed.push(FlushedSession {
                key: Windowed { key: dirty.key, window: Window { start: place.2, end: place.1 } },
                old,
                new,
                origin: dirty.origin,
            });
        }
        Ok(flushed)
    }

    fn set(&mut self, place: Place, key: &K, value: Option<V>) -> Option<V> {
        let (bytes, end, start) = place.clone();
        match value {
            Some(value) => {
                self.by_end.insert((end, bytes, start));
                self.sessions.insert(place, Slot { key: key.clone(), value })
            }
            None => {
                self.by_end.remove(&(end, bytes, start));
                self.sessions.remove(&place)
            }
        }
        .map(|slot| slot.value)
    }

    fn observe(&mut self, end: i64) {
        if end > self.observed_ms {
            self.observed_ms = end;
            if !self.settings.cached && !self.settings.on_close {
                self.expire();
            }
        }
    }

    fn is_expired(&self, end: i64) -> bool {
        end <= self.observed_ms.saturating_sub(self.settings.retention_ms)
    }

    /// Drops sessions past the retention.
    fn expire(&mut self) {
        while let Some((end, key, start)) = self.by_end.first() {
            let place = (key.clone(), *end, *start);
            if !self.is_expired(place.1) || self.dirty.contains_key(&place) {
                return;
            }
            self.by_end.pop_first();
            self.sessions.remove(&place);
            if let Some(dropped) = &mut self.expired {
                dropped.push(logged_key(&place));
            }
        }
    }

    fn place(&self, key: &K, window: Window) -> Result<Place, StoreError> {
        Ok((self.key_bytes(key)?, window.end, window.start))
    }

    fn key_bytes(&self, key: &K) -> Result<Bytes, StoreError> {
        let mut out = Vec::new();
        self.settings.key.write(&self.settings.topic, &mut Headers::default(), key, &mut out)?;
        Ok(Bytes::from(out))
    }

    fn log(&mut self, place: &Place, value: Option<&V>, timestamp: i64) -> Result<(), StoreError> {
        if !self.settings.logged {
            return Ok(());
        }
        let value = match value {
            Some(value) => {
                let mut bytes = Vec::new();
                let presence = self.settings.value.write(
                    &self.settings.topic,
                    &mut Headers::default(),
                    value,
                    &mut bytes,
                )?;
                (presence == Presence::Present).then(|| Bytes::from(bytes))
            }
            None => None,
        };
        self.changelog.push(Logged {
            key: logged_key(place),
            value,
            timestamp,
            headers: Headers::default(),
        });
        Ok(())
    }
}

/// A session's key in the changelog.
fn logged_key((key, end, start): &Place) -> Bytes {
    let mut logged = Vec::with_capacity(key.len() + SUFFIX);
    logged.extend_from_slice(key);
    logged.put_i64(*end);
    logged.put_i64(*start);
    Bytes::from(logged)
}

/// Bytes of end and start behind the key in a changelog.
const SUFFIX: usize = 2 * size_of::<i64>();

impl<K: Clone + Send + 'static, V: Clone + Send + 'static> AnyStore for SessionStore<K, V> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn take_changelog(&mut self) -> Vec<Logged> {
        if self.settings.on_close {
            self.expire();
        }
        std::mem::take(&mut self.changelog)
    }

    fn restore(&mut self, record: Logged) -> Result<(), StoreError> {
        let damaged = |what| StoreError::Damaged { store: self.settings.name.clone(), what };
        let mut key = record.key;
        let Some(length) = key.len().checked_sub(SUFFIX) else {
            return Err(damaged("a key shorter than its session"));
        };
        let suffix = key.split_off(length);
        let (end, start) = suffix.split_at(size_of::<i64>());
        let end = i64::from_be_bytes(end.try_into().map_err(|_| damaged("its end"))?);
        let start = i64::from_be_bytes(start.try_into().map_err(|_| damaged("its start"))?);
        // A copy, because the key is a slice of all that was fetched with it.
        let key = Bytes::copy_from_slice(&key);
        let (topic, headers) = (&self.settings.topic, Headers::default());
        let plain = self.settings.key.read(topic, &headers, Some(key.clone()))?;
        let value = match record.value {
            Some(value) => Some(self.settings.value.read(topic, &headers, Some(value))?),
            None => None,
        };
        self.observed_ms = self.observed_ms.max(end);
        self.set((key, end, start), &plain, value);
        self.expire();
        Ok(())
    }

    fn figures(&self) -> StoreMetrics {
        StoreMetrics { entries: Some(self.sessions.len() as u64), ..StoreMetrics::default() }
    }

    fn shrink_cache(&mut self) {
        self.expire();
    }

    fn cached_bytes(&self) -> usize {
        // What has expired is only kept because there is room.
        let live = self.observed_ms.saturating_sub(self.settings.retention_ms).saturating_add(1);
        let expired = self.by_end.range(..(live, Bytes::new(), i64::MIN)).count();
        (self.dirty.len() + expired) * (size_of::<Dirty<K, V>>() + size_of::<Place>() + 64)
    }
    fn move_to(&mut self, disk: DiskBackend) -> Option<DiskBackend> {
        self.expired = Some(Vec::new());
        Some(disk)
    }

    fn take_expired(&mut self) -> Vec<Bytes> {
        self.expired.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
