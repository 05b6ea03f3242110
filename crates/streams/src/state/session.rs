//! Session stores: values by key and session, dropped once their retention is over.
//!
//! ```text
//! changelog:  | key ... | end: i64 | start: i64 | -> value; the record's timestamp is that of the record that changed it
//! ```
//!
//! With a cache, sessions past their retention stay visible until the cache is shrunk, as with Kafka Streams: late
//! records then still find the sessions they extend.
//!
//! On disk all that was flushed is in [`TimedRows`], by the ends of sessions, and memory is the cache in front of it: it
//! has what is not flushed yet, and the newest sessions. When the cache is shrunk the oldest ones leave memory.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::{BufMut, Bytes};

use super::disk::DiskBackend;
use super::timed::{Noted, TimedRows, oldest};
use super::{AnyStore, Backend, Logged, StoreError};
use crate::metrics::{StoreKind, StoreMetrics};
use crate::record::{Headers, Window, Windowed};
use crate::runtime::Origin;
use crate::serde::{Presence, SerdeOf};

#[cfg(test)]
mod tests;

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
    reads: u64,
    puts: u64,
    /// Whatever is written, nothing is too old that is not so at this time.
    limit_ms: i64,
    /// What is on disk, if that is where the store is.
    rows: Option<TimedRows>,
    /// Sessions that end before this time may be on disk without being in memory.
    complete_from: i64,
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

/// Values with the sessions they belong to.
type Sessions<K, V> = Vec<(Windowed<K>, V)>;

impl<K: Clone + Send + 'static, V: Clone + Send + 'static> SessionStore<K, V> {
    pub(crate) fn new(settings: SessionStoreSettings<K, V>) -> Self {
        Self {
            settings,
            sessions: BTreeMap::new(),
            by_end: BTreeSet::new(),
            dirty: HashMap::new(),
            writes: 0,
            changelog: Vec::new(),
            observed_ms: BEGINNING,
            reads: 0,
            puts: 0,
            limit_ms: i64::MAX,
            rows: None,
            complete_from: i64::MIN,
        }
    }

    /// The value of a session.
    pub(crate) fn get(&mut self, key: &K, window: Window) -> Result<Option<V>, StoreError> {
        self.reads += 1;
        let place = self.place(key, window)?;
        self.value_at(&place)
    }

    fn value_at(&mut self, place: &Place) -> Result<Option<V>, StoreError> {
        if let Some(slot) = self.sessions.get(place) {
            return Ok(Some(slot.value.clone()));
        }
        let (key, end, start) = place;
        // What was removed and not flushed is on disk still.
        let is_lacking = *end < self.complete_from && !self.dirty.contains_key(place);
        let Some(rows) = self.rows.as_mut().filter(|_| is_lacking) else {
            return Ok(None);
        };
        let found = rows.get(key, *end, *start)?;
        found.map(|(_, value)| self.value(value)).transpose()
    }

    /// The sessions of a key that end at `earliest_end` or later and begin at `latest_start` or earlier, by their ends.
    pub(crate) fn find(
        &mut self,
        key: &K,
        earliest_end: i64,
        latest_start: i64,
    ) -> Result<Vec<(Window, V)>, StoreError> {
        self.reads += 1;
        let key = self.key_bytes(key)?;
        let mut found = Vec::new();
        let lacking_to = self.complete_from.saturating_sub(1);
        if let Some(rows) = &mut self.rows {
            for row in rows.of_key(&key, earliest_end, lacking_to, self.observed_ms)? {
                let place = (row.key, row.time, row.mark);
                if row.mark <= latest_start && !self.is_held(&place) {
                    let window = Window { start: row.mark, end: row.time };
                    found.push((window, self.value(row.value)?));
                }
            }
        }
        let on_disk = found.len();
        let from = (key.clone(), earliest_end, i64::MIN);
        let to = (key, i64::MAX, i64::MAX);
        let held =
            self.sessions.range(from..=to).filter(|((_, _, start), _)| *start <= latest_start);
        found.extend(held.map(|((_, end, start), slot)| {
            (Window { start: *start, end: *end }, slot.value.clone())
        }));
        if on_disk > 0 && on_disk < found.len() {
            found.sort_by_key(|(window, _)| (window.end, window.start));
        }
        Ok(found)
    }

    /// All sessions that end within `from..=to`, by end, key bytes and start.
    pub(crate) fn find_ended(&mut self, from: i64, to: i64) -> Result<Sessions<K, V>, StoreError> {
        if from > to {
            return Ok(Vec::new());
        }
        let lacking_to = to.min(self.complete_from.saturating_sub(1));
        let rows = match &mut self.rows {
            Some(rows) => rows.all(from, lacking_to, self.observed_ms)?,
            None => Vec::new(),
        };
        let mut found = Vec::new();
        for row in rows {
            let place = (row.key, row.time, row.mark);
            if !self.is_held(&place) {
                let (topic, headers) = (&self.settings.topic, Headers::default());
                let key = self.settings.key.read(topic, &headers, Some(place.0.clone()))?;
                let window = Window { start: place.2, end: place.1 };
                found.push((place, (Windowed { key, window }, self.value(row.value)?)));
            }
        }
        let on_disk = found.len();
        let bounds = (from, Bytes::new(), i64::MIN)..;
        let held = self.by_end.range(bounds).take_while(|(end, _, _)| *end <= to);
        found.extend(held.filter_map(|(end, key, start)| {
            let place = (key.clone(), *end, *start);
            let slot = self.sessions.get(&place)?;
            let window = Window { start: *start, end: *end };
            Some((place, (Windowed { key: slot.key.clone(), window }, slot.value.clone())))
        }));
        if on_disk > 0 && on_disk < found.len() {
            found.sort_by(|((one, end, start), _), ((other, its_end, its_start), _)| {
                (end, one, start).cmp(&(its_end, other, its_start))
            });
        }
        Ok(found.into_iter().map(|(_, found)| found).collect())
    }

    /// Whether memory knows more of a session than the disk.
    fn is_held(&self, place: &Place) -> bool {
        self.sessions.contains_key(place) || self.dirty.contains_key(place)
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
        self.puts += 1;
        let place = self.place(key, window)?;
        if !self.settings.cached {
            let stored = self.log(&place, value.as_ref(), timestamp)?;
            self.observe(window.end);
            if self.is_expired(window.end) && !self.settings.on_close {
                return Ok(());
            }
            match &mut self.rows {
                Some(rows) => put_row(rows, &place, timestamp, stored.as_deref()),
                None => {
                    self.set(place, key, value);
                }
            }
            return Ok(());
        }
        // What is on disk is what was flushed before.
        let on_disk = if window.end < self.complete_from { self.value_at(&place)? } else { None };
        let flushed = self.set(place.clone(), key, value).or(on_disk);
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
            let timestamp = dirty.origin.timestamp;
            let stored = self.log(&place, new.as_ref(), timestamp)?;
            self.observe(place.1);
            if let Some(rows) = &mut self.rows {
                put_row(rows, &place, timestamp, stored.as_deref());
            }
            flushed.push(FlushedSession {
                key: Windowed { key: dirty.key, window: Window { start: place.2, end: place.1 } },
                old,
                new,
                origin: dirty.origin,
            });
        }
        Ok(flushed)
    }

    /// Where memory is complete while nothing is on disk. Without a cache nothing is kept in memory.
    fn complete_at_first(&self) -> i64 {
        if self.settings.cached || self.rows.is_none() { i64::MIN } else { i64::MAX }
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

    fn is_expired(&self, end: i64) -> bool {
        end < self.oldest()
    }

    /// The first end that is not too old.
    fn oldest(&self) -> i64 {
        oldest(self.observed_ms.min(self.limit_ms), self.settings.retention_ms)
    }

    /// Drops sessions past the retention.
    fn expire(&mut self) {
        let oldest = self.oldest();
        if let Some(rows) = &mut self.rows {
            rows.live_from(oldest);
        }
        while let Some((end, key, start)) = self.by_end.first() {
            let place = (key.clone(), *end, *start);
            if !self.is_expired(place.1) || self.dirty.contains_key(&place) {
                return;
            }
            self.by_end.pop_first();
            self.sessions.remove(&place);
        }
    }

    /// Lets go of the older half of what is in memory and on disk, too.
    fn let_go(&mut self) {
        // What was not flushed is nowhere else.
        if self.rows.is_none() || !self.dirty.is_empty() {
            return;
        }
        let kept = self.sessions.len() / 2;
        while let Some((end, _, _)) = self.by_end.first()
            && (self.sessions.len() > kept || *end < self.complete_from)
            && let Some((end, key, start)) = self.by_end.pop_first()
        {
            self.sessions.remove(&(key, end, start));
            // Those that end at the same time go with it.
            self.complete_from = self.complete_from.max(end.saturating_add(1));
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

    /// Logs a session. Returns the value's bytes, if it has any.
    fn log(
        &mut self,
        place: &Place,
        value: Option<&V>,
        timestamp: i64,
    ) -> Result<Option<Bytes>, StoreError> {
        if !self.settings.logged && self.rows.is_none() {
            return Ok(None);
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
        if self.settings.logged {
            self.changelog.push(Logged {
                key: logged_key(place),
                value: value.clone(),
                timestamp,
                headers: Headers::default(),
            });
        }
        Ok(value)
    }

    fn value(&self, bytes: Bytes) -> Result<V, StoreError> {
        let (topic, headers) = (&self.settings.topic, Headers::default());
        Ok(self.settings.value.read(topic, &headers, Some(bytes))?)
    }
}

fn put_row(rows: &mut TimedRows, (key, end, start): &Place, timestamp: i64, value: Option<&[u8]>) {
    rows.put(key, *end, *start, value.map(|value| (timestamp, value)));
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

    fn limit_time(&mut self, time_ms: i64) {
        self.limit_ms = time_ms;
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
        let place = (Bytes::copy_from_slice(&key), end, start);
        self.observed_ms = self.observed_ms.max(end);
        if let Some(rows) = &mut self.rows {
            put_row(rows, &place, record.timestamp, record.value.as_deref());
            self.by_end.remove(&(end, place.0.clone(), start));
            self.sessions.remove(&place);
            self.complete_from = self.complete_from.max(end.saturating_add(1));
        } else {
            let (topic, headers) = (&self.settings.topic, Headers::default());
            let plain = self.settings.key.read(topic, &headers, Some(place.0.clone()))?;
            let value = record.value.map(|value| self.value(value)).transpose()?;
            self.set(place, &plain, value);
        }
        self.expire();
        Ok(())
    }

    fn figures(&self) -> StoreMetrics {
        let entries = self.rows.is_none().then_some(self.sessions.len() as u64);
        StoreMetrics {
            kind: StoreKind::Session,
            entries,
            reads: Some(self.reads),
            writes: Some(self.puts),
            ..StoreMetrics::default()
        }
    }

    fn shrink_cache(&mut self) {
        self.expire();
        self.let_go();
    }

    fn cached_bytes(&self) -> usize {
        let held = match self.rows {
            Some(_) => self.sessions.len(),
            None => {
                // What has expired is only kept because there is room.
                let live = self.oldest();
                self.by_end.range(..(live, Bytes::new(), i64::MIN)).count()
            }
        };
        (self.dirty.len() + held) * (size_of::<Dirty<K, V>>() + size_of::<Place>() + 64)
    }

    fn move_to(&mut self, disk: DiskBackend) -> Result<Option<DiskBackend>, StoreError> {
        let by_time = self.settings.on_close;
        let rows =
            self.rows.insert(TimedRows::new(disk, self.settings.retention_ms, by_time, true));
        let noted = rows.noted()?;
        self.complete_from = self.complete_at_first();
        if let Some(Noted { observed_ms, .. }) = noted {
            self.observed_ms = observed_ms;
            self.complete_from = self.complete_from.max(observed_ms.saturating_add(1));
        }
        self.expire();
        Ok(None)
    }

    fn backend(&mut self) -> Option<&mut dyn Backend> {
        self.rows.as_mut().map(TimedRows::backend)
    }

    fn reset(&mut self) {
        self.sessions.clear();
        self.by_end.clear();
        self.observed_ms = BEGINNING;
        self.complete_from = self.complete_at_first();
        if let Some(rows) = &mut self.rows {
            rows.reset();
        }
    }

    fn before_commit(&mut self) {
        if let Some(rows) = &mut self.rows {
            rows.note(Noted { observed_ms: self.observed_ms, sequence: 0 });
        }
    }

    fn after_commit(&mut self) -> Result<(), StoreError> {
        self.rows.as_mut().map_or(Ok(()), TimedRows::drop_dead)
    }
}

/// Stream time before the first session.
const BEGINNING: i64 = -1;
