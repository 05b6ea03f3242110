//! Events that wait for a table to come to their time, in a join of a stream with a versioned table (KIP-923).
//!
//! ```text
//! changelog:  | 0: u8 | timestamp: i64 | key ... | sequence: u32 |  ->  as a suppressed change, with the event as new value
//! on disk:    a row of a queue, with key and sequence behind the time and the same value; beside rows it notes
//!             | observed: i64 | sequence: u32 |
//! ```

use std::any::Any;
use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes};

use super::disk::DiskBackend;
use super::queue::{TimeQueue, key_of, parts_of};
use super::suppress::{read_logged, write_logged};
use super::{AnyStore, Backend, Logged, StoreError};
use crate::record::Headers;
use crate::runtime::Origin;
use crate::serde::SerdeOf;

/// A buffer of one task, by time, key bytes and arrival.
pub(crate) struct EventBuffer<K, V> {
    name: String,
    topic: String,
    key: SerdeOf<K>,
    value: SerdeOf<V>,
    grace_ms: i64,
    /// What is in memory, if that is where the store is.
    events: BTreeMap<Place, (Bytes, Origin)>,
    /// What is on disk, if that is where it is.
    rows: Option<TimeQueue>,
    changelog: Vec<Logged>,
    /// The highest event time put so far.
    observed_ms: i64,
    sequence: u32,
}

/// A time, and a key with its number of arrival behind it: ordered as on disk, and as in Kafka Streams.
type Place = (i64, Bytes);

impl<K: Clone + Send + 'static, V: Clone + Send + 'static> EventBuffer<K, V> {
    pub(crate) fn new(
        name: String,
        topic: String,
        key: SerdeOf<K>,
        value: SerdeOf<V>,
        grace_ms: i64,
    ) -> Self {
        Self {
            name,
            topic,
            key,
            value,
            grace_ms,
            events: BTreeMap::new(),
            rows: None,
            changelog: Vec::new(),
            observed_ms: -1,
            sequence: 0,
        }
    }

    /// Keeps an event that comes at this event time, unless it is so late that it need not wait. Returns whether it was
    /// kept.
    pub(crate) fn put(
        &mut self,
        key: &K,
        value: &V,
        context: Origin,
        time_ms: i64,
    ) -> Result<bool, StoreError> {
        let timestamp = context.timestamp;
        if self.observed_ms.saturating_sub(self.grace_ms) > timestamp {
            return Ok(false);
        }
        self.sequence = self.sequence.wrapping_add(1) & 0x7fff_ffff;
        let headers = &mut context.headers.clone();
        let mut bytes = Vec::new();
        self.key.write(&self.topic, headers, key, &mut bytes)?;
        bytes.put_u32(self.sequence);
        let value = self.value.to_bytes(&self.topic, headers, value)?.unwrap_or_default();
        let place = (timestamp, Bytes::from(bytes));
        let logged = write_logged(0, None, None, Some(&value), &context);
        self.log(&place, Some(logged.clone()));
        match &mut self.rows {
            Some(rows) => rows.put(key_of(place.0, &[&place.1]), Some(logged)),
            None => {
                self.events.insert(place, (value, context));
            }
        }
        self.observed_ms = self.observed_ms.max(time_ms);
        Ok(true)
    }

    /// Event time has come to `time_ms` without an event.
    pub(crate) fn advance(&mut self, time_ms: i64) {
        self.observed_ms = self.observed_ms.max(time_ms);
    }

    /// Removes and gives the first event that has waited long enough.
    pub(crate) fn take_due(&mut self) -> Result<Option<(K, V, Origin)>, StoreError> {
        let due = self.observed_ms.saturating_sub(self.grace_ms);
        let (place, (value, context)) = match &mut self.rows {
            Some(rows) => {
                let first = rows.first()?.map(|(row, logged)| (parts_of(&row), row, logged));
                let Some((place, row, logged)) = first.filter(|((time, _), ..)| *time <= due)
                else {
                    return Ok(None);
                };
                rows.put(row, None);
                (place, read_event(&self.name, logged)?)
            }
            None => {
                let first = self.events.first_entry();
                let Some(first) = first.filter(|first| first.key().0 <= due) else {
                    return Ok(None);
                };
                first.remove_entry()
            }
        };
        self.log(&place, None);
        let key = place.1.slice(..place.1.len().saturating_sub(TAIL));
        let key = self.key.read(&self.topic, &context.headers, Some(key))?;
        let value = self.value.read(&self.topic, &context.headers, Some(value))?;
        Ok(Some((key, value, context)))
    }

    fn log(&mut self, (timestamp, rest): &Place, value: Option<Bytes>) {
        let mut logged = Vec::with_capacity(rest.len() + HEAD);
        logged.put_u8(TIME_FIRST);
        logged.put_i64(*timestamp);
        logged.extend_from_slice(rest);
        self.changelog.push(Logged {
            key: Bytes::from(logged),
            value,
            timestamp: NOW,
            headers: Headers::default(),
        });
    }
}

/// An event from what was logged of it.
fn read_event(store: &str, logged: Bytes) -> Result<(Bytes, Origin), StoreError> {
    let (new, context) = read_logged(store, logged)?;
    let what = "an event without its value";
    let new = new.ok_or_else(|| StoreError::Damaged { store: store.to_owned(), what })?;
    Ok((new, context))
}

/// Keys that begin with the time; others, of an index, do not occur in changelogs.
const TIME_FIRST: u8 = 0;
/// Bytes in front of the key and behind it, in the changelog.
const HEAD: usize = 1 + size_of::<i64>();
const TAIL: usize = size_of::<u32>();
/// Events are logged with the time when they are written.
const NOW: i64 = -1;

impl<K: Clone + Send + 'static, V: Clone + Send + 'static> AnyStore for EventBuffer<K, V> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn take_changelog(&mut self) -> Vec<Logged> {
        std::mem::take(&mut self.changelog)
    }

    fn restore(&mut self, record: Logged) -> Result<(), StoreError> {
        let damaged = |what| StoreError::Damaged { store: self.name.clone(), what };
        if record.key.len() < HEAD + TAIL {
            return Err(damaged("a key shorter than its time and sequence"));
        }
        let mut head = record.key;
        let rest = head.split_off(HEAD);
        let time = head[1..].first_chunk().ok_or_else(|| damaged("its time"))?;
        let time = i64::from_be_bytes(*time);
        let sequence = rest.last_chunk().ok_or_else(|| damaged("its sequence"))?;
        self.observed_ms = self.observed_ms.max(time);
        self.sequence = self.sequence.max(u32::from_be_bytes(*sequence));
        if let Some(rows) = &mut self.rows {
            rows.restore(&key_of(time, &[&rest]), record.value.as_deref());
            return Ok(());
        }
        match record.value {
            Some(value) => {
                let event = read_event(&self.name, value)?;
                self.events.insert((time, rest), event);
            }
            None => {
                self.events.remove(&(time, rest));
            }
        }
        Ok(())
    }

    fn cached_bytes(&self) -> usize {
        self.rows.as_ref().map_or(0, TimeQueue::cached_bytes)
    }

    fn shrink_cache(&mut self) {
        if let Some(rows) = &mut self.rows {
            rows.shrink();
        }
    }

    fn move_to(&mut self, disk: DiskBackend) -> Result<Option<DiskBackend>, StoreError> {
        let rows = self.rows.insert(TimeQueue::new(disk));
        if let Some(mut noted) = rows.noted()? {
            self.observed_ms = noted.try_get_i64().unwrap_or(self.observed_ms);
            self.sequence = noted.try_get_u32().unwrap_or(self.sequence);
        }
        Ok(None)
    }

    fn backend(&mut self) -> Option<&mut dyn Backend> {
        self.rows.as_mut().map(TimeQueue::backend)
    }

    fn reset(&mut self) {
        self.events.clear();
        self.observed_ms = -1;
        self.sequence = 0;
        if let Some(rows) = &mut self.rows {
            rows.reset();
        }
    }

    fn before_commit(&mut self) {
        if let Some(rows) = &mut self.rows {
            let mut noted = Vec::with_capacity(size_of::<i64>() + size_of::<u32>());
            noted.put_i64(self.observed_ms);
            noted.put_u32(self.sequence);
            rows.note(Bytes::from(noted));
        }
    }
}
