//! Timers by key: times at which a processor wants to hear of a key again.
//!
//! ```text
//! changelog:  | time: i64 | key ... | -> empty; null once the timer has fired or was cancelled
//! ```
//!
//! On disk a timer is a row of a [`TimeQueue`].

use std::any::Any;
use std::collections::BTreeMap;

use bytes::{BufMut, Bytes};

use super::disk::DiskBackend;
use super::queue::{TimeQueue, key_of, parts_of};
use super::{AnyStore, Backend, Logged, StoreError};
use crate::record::Headers;
use crate::serde::SerdeOf;

/// The timers of one task.
pub(crate) struct TimerStore<K> {
    name: String,
    topic: String,
    key: SerdeOf<K>,
    /// What is in memory, if that is where the store is.
    timers: BTreeMap<(i64, Bytes), K>,
    /// What is on disk, if that is where it is.
    rows: Option<TimeQueue>,
    changelog: Vec<Logged>,
}

impl<K: Clone + Send + 'static> TimerStore<K> {
    pub(crate) fn new(name: String, topic: String, key: SerdeOf<K>) -> Self {
        let (timers, changelog) = (BTreeMap::new(), Vec::new());
        Self { name, topic, key, timers, rows: None, changelog }
    }

    /// Sets a timer; it may be set already.
    pub(crate) fn set(&mut self, key: &K, at_ms: i64, now_ms: i64) -> Result<(), StoreError> {
        let place = self.place(key, at_ms)?;
        let is_new = match &mut self.rows {
            Some(rows) => {
                let row = key_of(at_ms, &[&place.1]);
                let is_new = rows.get(&row)?.is_none();
                if is_new {
                    rows.put(row, Some(Bytes::new()));
                }
                is_new
            }
            None => self.timers.insert(place.clone(), key.clone()).is_none(),
        };
        if is_new {
            self.log(&place, Some(Bytes::new()), now_ms);
        }
        Ok(())
    }

    /// Cancels a timer, if it is set.
    pub(crate) fn cancel(&mut self, key: &K, at_ms: i64, now_ms: i64) -> Result<(), StoreError> {
        let place = self.place(key, at_ms)?;
        let was_set = match &mut self.rows {
            Some(rows) => {
                let row = key_of(at_ms, &[&place.1]);
                let was_set = rows.get(&row)?.is_some();
                if was_set {
                    rows.put(row, None);
                }
                was_set
            }
            None => self.timers.remove(&place).is_some(),
        };
        if was_set {
            self.log(&place, None, now_ms);
        }
        Ok(())
    }

    /// The time of the last timer.
    pub(crate) fn latest(&mut self) -> Result<Option<i64>, StoreError> {
        match &mut self.rows {
            Some(rows) => Ok(rows.last_key()?.map(|row| parts_of(&row).0)),
            None => Ok(self.timers.last_key_value().map(|((at_ms, _), _)| *at_ms)),
        }
    }

    /// Takes the first timer that is due at `until_ms`, at the event time `now_ms`.
    pub(crate) fn take_due(
        &mut self,
        until_ms: i64,
        now_ms: i64,
    ) -> Result<Option<(i64, K)>, StoreError> {
        let (place, key) = match &mut self.rows {
            Some(rows) => {
                let first = rows.first()?.map(|(row, _)| (parts_of(&row), row));
                let Some((place, row)) = first.filter(|((at_ms, _), _)| *at_ms <= until_ms) else {
                    return Ok(None);
                };
                rows.put(row, None);
                let key = self.read_key(place.1.clone())?;
                (place, key)
            }
            None => {
                let first = self.timers.first_entry();
                let Some(first) = first.filter(|first| first.key().0 <= until_ms) else {
                    return Ok(None);
                };
                first.remove_entry()
            }
        };
        self.log(&place, None, now_ms);
        Ok(Some((place.0, key)))
    }

    fn place(&self, key: &K, at_ms: i64) -> Result<(i64, Bytes), StoreError> {
        let mut bytes = Vec::new();
        self.key.write(&self.topic, &mut Headers::default(), key, &mut bytes)?;
        Ok((at_ms, Bytes::from(bytes)))
    }

    fn read_key(&self, key: Bytes) -> Result<K, StoreError> {
        Ok(self.key.read(&self.topic, &Headers::default(), Some(key))?)
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
        let at_ms = time.first_chunk().copied().map_or(0, i64::from_be_bytes);
        if let Some(rows) = &mut self.rows {
            rows.restore(&key_of(at_ms, &[&key]), record.value.as_deref());
            return Ok(());
        }
        let place = (at_ms, key.clone());
        if record.value.is_some() {
            let key = self.read_key(key)?;
            self.timers.insert(place, key);
        } else {
            self.timers.remove(&place);
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
        self.rows = Some(TimeQueue::new(disk));
        Ok(None)
    }

    fn backend(&mut self) -> Option<&mut dyn Backend> {
        self.rows.as_mut().map(TimeQueue::backend)
    }

    fn reset(&mut self) {
        self.timers.clear();
        if let Some(rows) = &mut self.rows {
            rows.reset();
        }
    }
}
