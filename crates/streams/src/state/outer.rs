//! Events of a stream join that wait for a partner.
//!
//! ```text
//! changelog:  | timestamp: i64 | side: u8, 1 = left | key ... |  ->  | 1: u8 | count: i32 | each: length: i32, side: u8, value ... |
//! ```

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};

use super::{AnyStore, Logged, StoreError};
use crate::dsl::JoinWindows;
use crate::record::Headers;
use crate::serde::SerdeOf;

/// One of two.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Either<L, Q> {
    Left(L),
    Right(Q),
}

/// The store, ordered by time, then side (right before left), then key.
pub(crate) struct OuterStore<K, L, Q> {
    settings: Arc<OuterStoreSettings<K, L, Q>>,
    events: BTreeMap<(i64, bool, Bytes), Waiting<K, L, Q>>,
    changelog: Vec<Logged>,
    tracker: Tracker,
}

/// What the store is made from.
pub(crate) struct OuterStoreSettings<K, L, Q> {
    pub(crate) name: String,
    pub(crate) topic: String,
    pub(crate) key: SerdeOf<K>,
    pub(crate) left: SerdeOf<L>,
    pub(crate) right: SerdeOf<Q>,
}

struct Waiting<K, L, Q> {
    key: K,
    events: Vec<Either<L, Q>>,
}

/// Events without a partner, with their keys and times.
pub(crate) type Closed<K, L, Q> = Vec<(K, i64, Either<L, Q>)>;

/// The times that both sides of a join share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tracker {
    /// The highest event time of either side.
    pub(crate) stream_time: i64,
    /// No waiting event is older.
    pub(crate) min_time: i64,
    /// Wall-clock time before which the store is not searched again.
    pub(crate) next_emit_ms: i64,
}

impl<K: Clone + Send + 'static, L: Clone + Send + 'static, Q: Clone + Send + 'static>
    OuterStore<K, L, Q>
{
    pub(crate) fn new(settings: Arc<OuterStoreSettings<K, L, Q>>) -> Self {
        Self {
            settings,
            events: BTreeMap::new(),
            changelog: Vec::new(),
            tracker: Tracker { stream_time: -1, min_time: i64::MAX, next_emit_ms: 0 },
        }
    }

    pub(crate) fn tracker(&mut self) -> &mut Tracker {
        &mut self.tracker
    }

    pub(crate) fn add(
        &mut self,
        key: &K,
        timestamp: i64,
        is_left: bool,
        event: Either<L, Q>,
    ) -> Result<(), StoreError> {
        self.tracker.min_time = self.tracker.min_time.min(timestamp);
        let place = (timestamp, is_left, self.key_bytes(key)?);
        self.events
            .entry(place.clone())
            .or_insert_with(|| Waiting { key: key.clone(), events: Vec::new() })
            .events
            .push(event);
        self.log(&place, timestamp)
    }

    /// Removes the events of a key, time and side, if there are any, because of a record with the time `now`.
    pub(crate) fn remove(
        &mut self,
        key: &K,
        timestamp: i64,
        is_left: bool,
        now: i64,
    ) -> Result<(), StoreError> {
        let place = (timestamp, is_left, self.key_bytes(key)?);
        if self.events.remove(&place).is_some() {
            self.log(&place, now)?;
        }
        Ok(())
    }

    /// Removes and gives all events, in order.
    pub(crate) fn take_all(&mut self) -> Result<Closed<K, L, Q>, StoreError> {
        self.tracker.min_time = i64::MAX;
        let mut taken = Vec::new();
        for (place, waiting) in std::mem::take(&mut self.events) {
            let now = self.tracker.stream_time.max(place.0);
            self.log(&place, now)?;
            let events = waiting.events.into_iter();
            taken.extend(events.map(|event| (waiting.key.clone(), place.0, event)));
        }
        Ok(taken)
    }

    /// Removes and gives the events whose window has closed, in order.
    pub(crate) fn take_closed(
        &mut self,
        windows: JoinWindows,
    ) -> Result<Closed<K, L, Q>, StoreError> {
        self.tracker.min_time = i64::MAX;
        let (mut left_open, mut right_open) = (false, false);
        let mut closed = Vec::new();
        // One step per event, not per key: where the search stops decides when the next one begins.
        let each = self
            .events
            .iter()
            .flat_map(|(place, waiting)| waiting.events.iter().map(move |_| place));
        for place in each {
            let (timestamp, is_left, _) = place;
            self.tracker.min_time = *timestamp;
            if left_open && right_open {
                break;
            }
            let look_back = if *is_left { windows.after_ms } else { windows.before_ms };
            if timestamp + look_back + windows.grace_ms >= self.tracker.stream_time {
                if *is_left {
                    left_open = true;
                } else {
                    right_open = true;
                }
                continue;
            }
            if closed.last() != Some(place) {
                closed.push(place.clone());
            }
        }
        let mut taken = Vec::new();
        for place in closed {
            if let Some(waiting) = self.events.remove(&place) {
                let events = waiting.events.into_iter();
                taken.extend(events.map(|event| (waiting.key.clone(), place.0, event)));
            }
            let now = self.tracker.stream_time;
            self.log(&place, now)?;
        }
        Ok(taken)
    }

    fn key_bytes(&self, key: &K) -> Result<Bytes, StoreError> {
        let mut out = Vec::new();
        self.settings.key.write(&self.settings.topic, &mut Headers::default(), key, &mut out)?;
        Ok(Bytes::from(out))
    }

    fn log(&mut self, place: &(i64, bool, Bytes), timestamp: i64) -> Result<(), StoreError> {
        let (time, is_left, key) = place;
        let mut logged = Vec::with_capacity(PREFIX + key.len());
        logged.put_i64(*time);
        logged.put_u8(u8::from(*is_left));
        logged.extend_from_slice(key);
        let value = match self.events.get(place) {
            Some(waiting) => Some(self.list(&waiting.events)?),
            None => None,
        };
        self.changelog.push(Logged {
            key: Bytes::from(logged),
            value,
            timestamp,
            headers: Headers::default(),
        });
        Ok(())
    }

    fn list(&self, events: &[Either<L, Q>]) -> Result<Bytes, StoreError> {
        let (topic, headers) = (&self.settings.topic, &mut Headers::default());
        let mut out = vec![VARIABLE_SIZE];
        out.put_i32(events.len() as i32);
        for event in events {
            let mut one = Vec::new();
            match event {
                Either::Left(left) => {
                    one.push(1);
                    self.settings.left.write(topic, headers, left, &mut one)?;
                }
                Either::Right(right) => {
                    one.push(0);
                    self.settings.right.write(topic, headers, right, &mut one)?;
                }
            }
            out.put_i32(one.len() as i32);
            out.extend_from_slice(&one);
        }
        Ok(Bytes::from(out))
    }

    fn unlist(&self, mut bytes: Bytes) -> Result<Vec<Either<L, Q>>, StoreError> {
        let (topic, headers) = (&self.settings.topic, &Headers::default());
        let damaged = |what| StoreError::Damaged { store: self.settings.name.clone(), what };
        if bytes.len() < 1 + LENGTH || bytes[0] != VARIABLE_SIZE {
            return Err(damaged("the head of a list"));
        }
        // The count says nothing that the lengths do not say.
        bytes.advance(1 + LENGTH);
        let mut events = Vec::new();
        while !bytes.is_empty() {
            if bytes.len() < LENGTH {
                return Err(damaged("an event's length"));
            }
            let mut length = [0; LENGTH];
            length.copy_from_slice(&bytes.split_to(LENGTH));
            let length = usize::try_from(i32::from_be_bytes(length))
                .map_err(|_| damaged("a negative length"))?;
            if length == 0 || length > bytes.len() {
                return Err(damaged("an event longer than its list"));
            }
            let mut event = bytes.split_to(length);
            let value = event.split_off(1);
            events.push(if event[0] == 1 {
                Either::Left(self.settings.left.read(topic, headers, Some(value))?)
            } else {
                Either::Right(self.settings.right.read(topic, headers, Some(value))?)
            });
        }
        Ok(events)
    }
}

/// Bytes of time and side in front of the key.
const PREFIX: usize = size_of::<i64>() + 1;
/// Marks a list whose entries carry their lengths.
const VARIABLE_SIZE: u8 = 1;
/// Bytes of an event's length.
const LENGTH: usize = size_of::<i32>();

impl<K: Clone + Send + 'static, L: Clone + Send + 'static, Q: Clone + Send + 'static> AnyStore
    for OuterStore<K, L, Q>
{
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn take_changelog(&mut self) -> Vec<Logged> {
        std::mem::take(&mut self.changelog)
    }

    fn restore(&mut self, record: Logged) -> Result<(), StoreError> {
        let mut head = record.key;
        if head.len() < PREFIX {
            return Err(StoreError::Damaged {
                store: self.settings.name.clone(),
                what: "a key shorter than its time and side",
            });
        }
        let key = head.split_off(PREFIX);
        let mut time = [0; size_of::<i64>()];
        time.copy_from_slice(&head[..size_of::<i64>()]);
        let time = i64::from_be_bytes(time);
        let place = (time, head[PREFIX - 1] == 1, key.clone());
        match record.value {
            Some(list) => {
                let waiting = Waiting {
                    key: self.settings.key.read(
                        &self.settings.topic,
                        &Headers::default(),
                        Some(key),
                    )?,
                    events: self.unlist(list)?,
                };
                self.tracker.min_time = self.tracker.min_time.min(time);
                self.events.insert(place, waiting);
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
