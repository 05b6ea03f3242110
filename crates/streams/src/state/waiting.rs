//! Events that wait for a table to come to their time, in a join of a stream with a versioned table (KIP-923).
//!
//! ```text
//! changelog:  | 0: u8 | timestamp: i64 | key ... | sequence: u32 |  ->  as a suppressed change, with the event as new value
//! ```

use std::any::Any;
use std::collections::BTreeMap;

use bytes::{BufMut, Bytes};

use super::suppress::{read_logged, write_logged};
use super::{AnyStore, Logged, StoreError};
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
    events: BTreeMap<(i64, Bytes, u32), (Bytes, Origin)>,
    changelog: Vec<Logged>,
    /// The highest event time put so far.
    observed_ms: i64,
    sequence: u32,
}

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
        let value = self.value.to_bytes(&self.topic, headers, value)?.unwrap_or_default();
        let place = (timestamp, Bytes::from(bytes), self.sequence);
        let logged = write_logged(0, None, None, Some(&value), &context);
        self.log(&place, Some(logged));
        self.events.insert(place, (value, context));
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
        let Some(first) = self.events.first_entry().filter(|first| first.key().0 <= due) else {
            return Ok(None);
        };
        let (place, (value, context)) = first.remove_entry();
        self.log(&place, None);
        let key = self.key.read(&self.topic, &context.headers, Some(place.1))?;
        let value = self.value.read(&self.topic, &context.headers, Some(value))?;
        Ok(Some((key, value, context)))
    }

    fn log(&mut self, (timestamp, key, sequence): &(i64, Bytes, u32), value: Option<Bytes>) {
        let mut logged = Vec::with_capacity(key.len() + HEAD + TAIL);
        logged.put_u8(TIME_FIRST);
        logged.put_i64(*timestamp);
        logged.extend_from_slice(key);
        logged.put_u32(*sequence);
        self.changelog.push(Logged {
            key: Bytes::from(logged),
            value,
            timestamp: NOW,
            headers: Headers::default(),
        });
    }
}

/// Keys that begin with the time; others, of an index, do not occur in changelogs.
const TIME_FIRST: u8 = 0;
/// Bytes in front of the key, and behind it.
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
        let tail = head.split_off(head.len() - TAIL);
        let key = head.split_off(HEAD);
        let time = head[1..].first_chunk().ok_or_else(|| damaged("its time"))?;
        let time = i64::from_be_bytes(*time);
        let sequence = tail.first_chunk().ok_or_else(|| damaged("its sequence"))?;
        let place = (time, key, u32::from_be_bytes(*sequence));
        self.observed_ms = self.observed_ms.max(time);
        self.sequence = self.sequence.max(place.2);
        match record.value {
            Some(value) => {
                let (new, context) = read_logged(&self.name, value)?;
                let new = new.ok_or_else(|| damaged("an event without its value"))?;
                self.events.insert(place, (new, context));
            }
            None => {
                self.events.remove(&place);
            }
        }
        Ok(())
    }

    fn cached_bytes(&self) -> usize {
        0
    }
}
