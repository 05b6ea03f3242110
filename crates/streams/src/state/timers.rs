//! Timers by key: times at which a processor wants to hear of a key again.
//!
//! ```text
//! changelog:  | time: i64 | key ... | -> empty; null once the timer has fired or was cancelled
//! ```

use std::any::Any;
use std::collections::BTreeMap;

use bytes::{BufMut, Bytes};

use super::{AnyStore, Logged, StoreError};
use crate::record::Headers;
use crate::serde::SerdeOf;

/// The timers of one task.
pub(crate) struct TimerStore<K> {
    name: String,
    topic: String,
    key: SerdeOf<K>,
    timers: BTreeMap<(i64, Bytes), K>,
    changelog: Vec<Logged>,
}

impl<K: Clone + Send + 'static> TimerStore<K> {
    pub(crate) fn new(name: String, topic: String, key: SerdeOf<K>) -> Self {
        Self { name, topic, key, timers: BTreeMap::new(), changelog: Vec::new() }
    }

    /// Sets a timer; it may be set already.
    pub(crate) fn set(&mut self, key: &K, at_ms: i64, now_ms: i64) -> Result<(), StoreError> {
        let place = self.place(key, at_ms)?;
        if self.timers.insert(place.clone(), key.clone()).is_none() {
            self.log(&place, Some(Bytes::new()), now_ms);
        }
        Ok(())
    }

    /// Cancels a timer, if it is set.
    pub(crate) fn cancel(&mut self, key: &K, at_ms: i64, now_ms: i64) -> Result<(), StoreError> {
        let place = self.place(key, at_ms)?;
        if self.timers.remove(&place).is_some() {
            self.log(&place, None, now_ms);
        }
        Ok(())
    }

    /// The time of the last timer.
    pub(crate) fn latest(&self) -> Option<i64> {
        self.timers.last_key_value().map(|((at_ms, _), _)| *at_ms)
    }

    /// Takes the first timer that is due at `until_ms`, at the event time `now_ms`.
    pub(crate) fn take_due(&mut self, until_ms: i64, now_ms: i64) -> Option<(i64, K)> {
        let first = self.timers.first_entry().filter(|first| first.key().0 <= until_ms)?;
        let (place, key) = first.remove_entry();
        self.log(&place, None, now_ms);
        Some((place.0, key))
    }

    fn place(&self, key: &K, at_ms: i64) -> Result<(i64, Bytes), StoreError> {
        let mut bytes = Vec::new();
        self.key.write(&self.topic, &mut Headers::default(), key, &mut bytes)?;
        Ok((at_ms, Bytes::from(bytes)))
    }

    fn log(&mut self, (at_ms, key): &(i64, Bytes), value: Option<Bytes>, timestamp: i64) {
        let mut logged = Vec::with_capacity(size_of::<i64>() + key.len());
        logged.put_i64(*at_ms);
        logged.extend_from_slice(key);
        self.changelog.push(Logged {
            key: Bytes::from(logged),
            value,
            timestamp,
            headers: Headers::default(),
        });
    }
}

impl<K: Clone + Send + 'static> AnyStore for TimerStore<K> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn take_changelog(&mut self) -> Vec<Logged> {
        std::mem::take(&mut self.changelog)
    }

    fn restore(&mut self, record: Logged) -> Result<(), StoreError> {
        let mut time = record.key;
        if time.len() < size_of::<i64>() {
            return Err(StoreError::Damaged {
                store: self.name.clone(),
                what: "a timer without its time",
            });
        }
        let key = time.split_off(size_of::<i64>());
        let mut at = [0; size_of::<i64>()];
        at.copy_from_slice(&time);
        let place = (i64::from_be_bytes(at), key.clone());
        if record.value.is_some() {
            let key = self.key.read(&self.topic, &Headers::default(), Some(key))?;
            self.timers.insert(place, key);
        } else {
            self.timers.remove(&place);
        }
        Ok(())
    }

    fn cached_bytes(&self) -> usize {
        0
    }
}
