//! Window stores: values by key and the window's start, dropped once their retention is over.
//!
//! ```text
//! changelog:  | key ... | start: i64 | sequence: u32 | -> value; the record's timestamp is the value's
//! ```
//!
//! In memory windows are kept by start or by key, see [`Held`]. A write older than the retention is refused, as by Kafka
//! Streams' in-memory store, and counted.
//!
//! On disk all that was flushed is in [`TimedRows`], and memory is the cache in front of it: it has what is not flushed
//! yet, and the newest windows as a whole, so that neither a new window nor a current one asks the disk. When the cache
//! is shrunk the oldest windows leave memory.

use std::any::Any;

use bytes::{BufMut, Bytes};

use self::held::{Held, Place};
use super::disk::DiskBackend;
use super::timed::{Noted, TimedRows, oldest};
use super::{AnyStore, Backend, Logged, Stamped, StoreError};
use crate::metrics::{StoreKind, StoreMetrics};
use crate::record::{Headers, Window, Windowed};
use crate::runtime::Origin;
use crate::serde::{Presence, SerdeOf};

mod by_key;
mod held;
mod reading;
#[cfg(test)]
mod tests;

/// A window store of one task.
pub(crate) struct WindowStore<K, V> {
    settings: WindowStoreSettings<K, V>,
    /// What is in memory.
    held: Held<Slot<V>>,
    /// What is on disk, if that is where the store is.
    rows: Option<TimedRows>,
    /// Windows that begin before this time may be on disk without being in memory.
    complete_from: i64,
    changelog: Vec<Logged>,
    /// The bytes of the key that is worked on.
    key: Vec<u8>,
    /// Where dirty slots stand.
    dirty: Vec<Place>,
    /// What a flush has yet to do: numbers of last writes and places, the next one last.
    due: Vec<(u64, Place)>,
    writes: u64,
    observed_ms: i64,
    reads: u64,
    puts: u64,
    /// Whatever is written, nothing is too old that is not so at this time.
    limit_ms: i64,
    sequence: u32,
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
    /// Whether it is asked for spans of a key's windows rather than for single windows. One with duplicates always is.
    pub(crate) by_key: bool,
    pub(crate) logged: bool,
    pub(crate) cached: bool,
    /// Whether windows are read once they have closed: then they are dropped between records only.
    pub(crate) on_close: bool,
}

struct Slot<V> {
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

impl<K: Clone + Send + 'static, V: Clone + Send + 'static> WindowStore<K, V> {
    pub(crate) fn new(mut settings: WindowStoreSettings<K, V>) -> Self {
        settings.by_key |= settings.duplicates;
        let held = if settings.by_key { Held::by_key() } else { Held::by_start(settings.size_ms) };
        Self {
            settings,
            held,
            rows: None,
            complete_from: i64::MIN,
            changelog: Vec::new(),
            key: Vec::new(),
            dirty: Vec::new(),
            due: Vec::new(),
            writes: 0,
            observed_ms: i64::MIN,
            reads: 0,
            puts: 0,
            limit_ms: i64::MAX,
            sequence: 0,
        }
    }

    /// The value of a key in the window that begins at `start_ms`.
    pub(crate) fn get(&mut self, key: &K, start_ms: i64) -> Result<Option<Stamped<V>>, StoreError> {
        self.reads += 1;
        self.write_key(key)?;
        self.load_unless_held(start_ms)
    }

    /// The value of the key whose bytes are in `self.key`.
    fn load_unless_held(&mut self, start_ms: i64) -> Result<Option<Stamped<V>>, StoreError> {
        if let Some(slot) = self.held.get(&self.key, start_ms, 0) {
            return Ok(Some(slot.value.clone()));
        }
        self.load(start_ms)
    }

    /// Reads from disk what memory may lack, the key's bytes being in `self.key`. A cache remembers it.
    fn load(&mut self, start_ms: i64) -> Result<Option<Stamped<V>>, StoreError> {
        let is_lacking = start_ms < self.complete_from;
        let Some(rows) = self.rows.as_mut().filter(|_| is_lacking) else {
            return Ok(None);
        };
        let Some((timestamp, bytes)) = rows.get(&self.key, start_ms, 0)? else {
            return Ok(None);
        };
        let value = self.stamped(timestamp, bytes)?;
        if self.settings.cached {
            self.held.insert(&self.key, start_ms, 0, Slot { value: value.clone(), dirty: None });
        }
        Ok(Some(value))
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
        self.puts += 1;
        let sequence = if self.settings.duplicates {
            self.sequence = self.sequence.wrapping_add(1) & 0x7fff_ffff;
            self.sequence
        } else {
            0
        };
        self.write_key(key)?;
        if self.settings.cached {
            self.put_cached(start_ms, sequence, value, (headers, origin))?;
            return Ok(true);
        }
        // Logged even if it has expired, as by Kafka Streams, whose log sits in front of the store.
        // Events for a join are logged with their headers, aggregates are not.
        let headers = if self.settings.duplicates { headers.clone() } else { Headers::default() };
        let stored = self.log(start_ms, sequence, &value, headers)?;
        self.observe(start_ms);
        if start_ms < self.oldest() && !self.settings.on_close {
            return Ok(false);
        }
        if let Some(rows) = &mut self.rows {
            let row = stored.as_ref().map(|bytes| (value.timestamp, &bytes[..]));
            rows.put(&self.key, start_ms, i64::from(sequence), row);
            return Ok(true);
        }
        self.held.insert(&self.key, start_ms, sequence, Slot { value, dirty: None });
        Ok(true)
    }

    /// Writes to the cache only, for the key whose bytes are in `self.key`.
    fn put_cached(
        &mut self,
        start_ms: i64,
        sequence: u32,
        value: Stamped<V>,
        (headers, origin): (&Headers, &Origin),
    ) -> Result<(), StoreError> {
        self.writes += 1;
        let written = self.writes;
        if start_ms < self.complete_from {
            // What is on disk is what was flushed before.
            self.load_unless_held(start_ms)?;
        }
        let timestamp = value.timestamp;
        let Some((place, slot)) = self.held.find(&self.key, start_ms, sequence) else {
            let origin = origin.at(timestamp, headers);
            let dirty = Some(Box::new(Dirty { flushed: None, origin, written }));
            let place = self.held.insert(&self.key, start_ms, sequence, Slot { value, dirty });
            self.dirty.push(place);
            return Ok(());
        };
        let old = std::mem::replace(&mut slot.value, value).value;
        match &mut slot.dirty {
            Some(dirty) => {
                dirty.origin.follow(origin, timestamp, headers);
                dirty.written = written;
            }
            None => {
                let origin = origin.at(timestamp, headers);
                slot.dirty = Some(Box::new(Dirty { flushed: Some(old), origin, written }));
                self.dirty.push(place);
            }
        }
        Ok(())
    }

    /// Begins to flush what is dirty now, behind what a flush before has left.
    pub(crate) fn begin_flush(&mut self) {
        let held = &mut self.held;
        self.due.extend(self.dirty.drain(..).filter_map(|place| {
            let (_, slot) = held.get_at(place)?;
            Some((slot.dirty.as_ref()?.written, place))
        }));
        self.due.sort_unstable_by_key(|(written, _)| std::cmp::Reverse(*written));
    }

    /// Whether a flush has been begun and not come to its end.
    pub(crate) fn is_flushing(&self) -> bool {
        !self.due.is_empty()
    }

    /// Logs the next dirty window and gives it to the caller, in the order of their last writes.
    pub(crate) fn flush_next(&mut self) -> Result<Option<FlushedWindow<K, V>>, StoreError> {
        while let Some((_, place)) = self.due.pop() {
            let Place { start, number: sequence, .. } = place;
            let Some((key, slot)) = self.held.get_at(place) else {
                continue;
            };
            let Some(dirty) = slot.dirty.take() else {
                continue;
            };
            let value = slot.value.clone();
            self.key.clear();
            self.key.extend_from_slice(key);
            let stored = self.log(start, sequence, &value, Headers::default())?;
            self.observe(start);
            if let Some(rows) = &mut self.rows {
                let row = stored.as_ref().map(|bytes| (value.timestamp, &bytes[..]));
                rows.put(&self.key, start, i64::from(sequence), row);
            }
            let key = self.typed_key(&self.key)?;
            return Ok(Some(FlushedWindow {
                key: Windowed { key, window: self.window(start) },
                old: dirty.flushed,
                new: value,
                origin: dirty.origin,
            }));
        }
        Ok(None)
    }

    /// The window that begins at this time.
    pub(crate) fn window(&self, start: i64) -> Window {
        Window { start, end: start.saturating_add(self.settings.size_ms) }
    }

    fn observe(&mut self, start_ms: i64) {
        if start_ms > self.observed_ms {
            self.observed_ms = start_ms;
            let oldest = self.oldest();
            if self.settings.on_close {
                return;
            }
            if !self.settings.cached {
                self.expire();
            } else if let Some(rows) = &mut self.rows {
                // What memory has stays visible until it is shrunk.
                rows.live_from(oldest);
            }
        }
    }

    /// The first start that is not too old.
    fn oldest(&self) -> i64 {
        oldest(self.observed_ms.min(self.limit_ms), self.settings.retention_ms)
    }

    /// Drops windows older than the retention. With a cache only when that is shrunk: until then they stay visible, as
    /// with Kafka Streams.
    fn expire(&mut self) {
        let oldest = self.oldest();
        if let Some(rows) = &mut self.rows {
            rows.live_from(oldest);
        }
        self.held.remove_before(oldest);
    }

    /// Lets go of what is in memory and on disk, too, the oldest windows first, until so much is left. The newest window
    /// is written to now: it stays, unless it is most of that.
    fn let_go(&mut self, most: usize) {
        let Some(newest) = self.held.last().filter(|_| self.rows.is_some()) else {
            return;
        };
        let is_spared = self.held.count(newest, newest) <= most / 2 * 3;
        let end = if is_spared { newest } else { newest.saturating_add(1) };
        while self.held.len() > most {
            let Some(start) = self.held.first().filter(|start| *start < end) else {
                break;
            };
            self.held.remove_before(start + 1);
            self.complete_from = self.complete_from.max(start + 1);
        }
    }

    /// Where memory is complete while nothing is on disk. Without a cache nothing is kept in memory.
    fn complete_at_first(&self) -> i64 {
        if self.settings.cached || self.rows.is_none() { i64::MIN } else { i64::MAX }
    }

    fn typed_key(&self, bytes: &[u8]) -> Result<K, StoreError> {
        let (topic, headers) = (&self.settings.topic, Headers::default());
        Ok(self.settings.key.read(topic, &headers, Some(Bytes::copy_from_slice(bytes)))?)
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

    /// Logs a value for the key whose bytes are in `self.key`. Returns the value's bytes where the disk wants them;
    /// `None` is what has no bytes, and so is not there.
    fn log(
        &mut self,
        start_ms: i64,
        sequence: u32,
        value: &Stamped<V>,
        headers: Headers,
    ) -> Result<Option<Bytes>, StoreError> {
        if !self.settings.logged && self.rows.is_none() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let presence = self.settings.value.write(
            &self.settings.topic,
            &mut Headers::default(),
            &value.value,
            &mut bytes,
        )?;
        let bytes = (presence == Presence::Present).then(|| Bytes::from(bytes));
        if self.settings.logged {
            self.changelog.push(Logged {
                key: logged_key(&self.key, start_ms, sequence),
                value: bytes.clone(),
                timestamp: value.timestamp,
                headers,
            });
        }
        Ok(bytes)
    }

    fn stamped(&self, timestamp: i64, value: Bytes) -> Result<Stamped<V>, StoreError> {
        let (topic, headers) = (&self.settings.topic, Headers::default());
        Ok(Stamped { timestamp, value: self.settings.value.read(topic, &headers, Some(value))? })
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

/// What a slot costs with its key beside itself.
const HELD_BYTES: usize = 64;

/// Bytes of start and sequence behind the key in a changelog.
const SUFFIX: usize = size_of::<i64>() + size_of::<u32>();

impl<K: Clone + Send + 'static, V: Clone + Send + 'static> AnyStore for WindowStore<K, V> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn limit_time(&mut self, time_ms: i64) {
        self.limit_ms = time_ms;
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
        self.held.remove(&key, start, sequence);
        if let Some(rows) = &mut self.rows {
            let row = record.value.as_ref().map(|value| (record.timestamp, &value[..]));
            rows.restore(&key, start, i64::from(sequence), row);
            self.complete_from = self.complete_from.max(start.saturating_add(1));
        } else if let Some(value) = record.value {
            let value = self.stamped(record.timestamp, value)?;
            self.held.insert(&key, start, sequence, Slot { value, dirty: None });
        }
        self.expire();
        Ok(())
    }

    fn figures(&self) -> StoreMetrics {
        let entries = self.rows.is_none().then_some(self.held.len() as u64);
        StoreMetrics {
            kind: StoreKind::Window,
            entries,
            reads: Some(self.reads),
            writes: Some(self.puts),
            ..StoreMetrics::default()
        }
    }

    fn shrink_cache(&mut self) {
        // What was not flushed is nowhere else.
        if self.dirty.is_empty() && self.due.is_empty() {
            let half = self.held.len() / 2;
            self.expire();
            self.let_go(half);
        }
    }

    fn cached_bytes(&self) -> usize {
        let held = match self.rows {
            Some(_) => self.held.len(),
            None => {
                // What has expired is only kept because there is room.
                let last = self.oldest().checked_sub(1);
                last.map_or(0, |last| self.held.count(i64::MIN, last))
            }
        };
        let dirty = self.dirty.len() + self.due.len();
        held * (size_of::<Slot<V>>() + HELD_BYTES)
            + dirty * (size_of::<Dirty<V>>() + 2 * size_of::<Place>())
    }

    fn move_to(&mut self, disk: DiskBackend) -> Result<Option<DiskBackend>, StoreError> {
        let WindowStoreSettings { retention_ms, on_close, by_key, .. } = self.settings;
        let rows = self.rows.insert(TimedRows::new(disk, retention_ms, on_close, by_key));
        let noted = rows.noted()?;
        self.complete_from = self.complete_at_first();
        if let Some(Noted { observed_ms, sequence }) = noted {
            self.observed_ms = observed_ms;
            self.sequence = sequence;
            self.complete_from = self.complete_from.max(observed_ms.saturating_add(1));
        }
        self.expire();
        Ok(None)
    }

    fn backend(&mut self) -> Option<&mut dyn Backend> {
        self.rows.as_mut().map(TimedRows::backend)
    }

    fn reset(&mut self) {
        self.held.clear();
        self.observed_ms = i64::MIN;
        self.sequence = 0;
        self.complete_from = self.complete_at_first();
        if let Some(rows) = &mut self.rows {
            rows.reset();
        }
    }

    fn before_commit(&mut self) {
        if let Some(rows) = &mut self.rows {
            rows.note(Noted { observed_ms: self.observed_ms, sequence: self.sequence });
        }
    }

    fn after_commit(&mut self) -> Result<(), StoreError> {
        self.rows.as_mut().map_or(Ok(()), TimedRows::drop_dead)
    }
}
