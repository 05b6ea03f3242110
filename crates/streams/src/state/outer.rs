//! Events of a stream join that wait for a partner.
//!
//! ```text
//! changelog:  | timestamp: i64 | side: u8, 1 = left | key ... |  ->  list, see `list.rs`
//! ```
//!
//! In memory they are typed, in a map. On disk they are the rows of a [`TimeQueue`], whose keys have what those of the
//! changelog have.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes};

use super::disk::DiskBackend;
use super::queue::{TimeQueue, Walk, key_of, parts_of};
use super::{AnyStore, Backend, Logged, StoreError};
use crate::dsl::JoinWindows;
use crate::record::Headers;
use crate::serde::SerdeOf;

mod list;
#[cfg(test)]
mod tests;

/// One of two.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Either<L, Q> {
    Left(L),
    Right(Q),
}

/// The store, ordered by time, then side (right before left), then key.
pub(crate) struct OuterStore<K, L, Q> {
    settings: Arc<OuterStoreSettings<K, L, Q>>,
    /// What is in memory, if that is where the store is.
    events: BTreeMap<Place, Waiting<K, L, Q>>,
    /// What is on disk, if that is where it is.
    rows: Option<TimeQueue>,
    changelog: Vec<Logged>,
    tracker: Tracker,
    /// Whether the tracker knows the first event's time: not after a restoration.
    knows_first: bool,
}

/// What the store is made from.
pub(crate) struct OuterStoreSettings<K, L, Q> {
    pub(crate) name: String,
    pub(crate) topic: String,
    pub(crate) key: SerdeOf<K>,
    pub(crate) left: SerdeOf<L>,
    pub(crate) right: SerdeOf<Q>,
}

/// Where events stand: their time, whether they are left ones, their key.
type Place = (i64, bool, Bytes);

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

/// A search for events that need not wait any longer, in steps: there may be more of them than there is memory for.
#[derive(Default)]
pub(crate) struct Search {
    /// For events whose window has closed; without, for all.
    windows: Option<JoinWindows>,
    walk: Walk,
    left_open: bool,
    right_open: bool,
    begun: bool,
    ended: bool,
}

impl Search {
    /// For events whose window has closed.
    pub(crate) fn for_closed(windows: JoinWindows) -> Self {
        Self { windows: Some(windows), ..Self::default() }
    }

    /// For all events.
    pub(crate) fn for_all() -> Self {
        Self::default()
    }

    /// Whether events are to be taken that it has come to, so many of one time, side and key.
    fn takes(&mut self, timestamp: i64, is_left: bool, count: u32, tracker: &mut Tracker) -> bool {
        let Some(windows) = self.windows else {
            return true;
        };
        tracker.min_time = timestamp;
        if self.left_open && self.right_open {
            self.ended = true;
            return false;
        }
        let look_back = if is_left { windows.after_ms } else { windows.before_ms };
        if timestamp + look_back + windows.grace_ms < tracker.stream_time {
            return true;
        }
        if is_left {
            self.left_open = true;
        } else {
            self.right_open = true;
        }
        // One step per event, not per key: where the search ends decides when the next one begins.
        self.ended = self.left_open && self.right_open && count > 1;
        false
    }
}

impl<K: Clone + Send + 'static, L: Clone + Send + 'static, Q: Clone + Send + 'static>
    OuterStore<K, L, Q>
{
    pub(crate) fn new(settings: Arc<OuterStoreSettings<K, L, Q>>) -> Self {
        Self {
            settings,
            events: BTreeMap::new(),
            rows: None,
            changelog: Vec::new(),
            tracker: Tracker { stream_time: -1, min_time: i64::MAX, next_emit_ms: 0 },
            knows_first: true,
        }
    }

    pub(crate) fn tracker(&mut self) -> Result<&mut Tracker, StoreError> {
        if !self.knows_first {
            let first = match &mut self.rows {
                Some(rows) => rows.first()?.map(|(key, _)| parts_of(&key).0),
                None => self.events.first_key_value().map(|(place, _)| place.0),
            };
            self.tracker.min_time = first.unwrap_or(i64::MAX);
            self.knows_first = true;
        }
        Ok(&mut self.tracker)
    }

    pub(crate) fn add(
        &mut self,
        key: &K,
        timestamp: i64,
        is_left: bool,
        event: Either<L, Q>,
    ) -> Result<(), StoreError> {
        self.tracker.min_time = self.tracker.min_time.min(timestamp);
        let place = (timestamp, is_left, self.settings.key_bytes(key)?);
        let list = match &mut self.rows {
            Some(rows) => {
                let at = row_key(&place);
                let list = match rows.get(&at)? {
                    Some(before) => self.settings.longer_list(&before, &event)?,
                    None => self.settings.list(&[event])?,
                };
                rows.put(at, Some(list.clone()));
                list
            }
            None => {
                let waiting = self.events.entry(place.clone());
                let waiting =
                    waiting.or_insert_with(|| Waiting { key: key.clone(), events: Vec::new() });
                waiting.events.push(event);
                self.settings.list(&waiting.events)?
            }
        };
        self.changelog.push(logged(&place, Some(list), timestamp));
        Ok(())
    }

    /// Removes the events of a key, time and side, if there are any, because of a record with the time `now`.
    pub(crate) fn remove(
        &mut self,
        key: &K,
        timestamp: i64,
        is_left: bool,
        now: i64,
    ) -> Result<(), StoreError> {
        let place = (timestamp, is_left, self.settings.key_bytes(key)?);
        let found = match &mut self.rows {
            Some(rows) => {
                let at = row_key(&place);
                let found = rows.get(&at)?.is_some();
                if found {
                    rows.put(at, None);
                }
                found
            }
            None => self.events.remove(&place).is_some(),
        };
        if found {
            self.changelog.push(logged(&place, None, now));
        }
        Ok(())
    }

    /// Removes and gives the next events of a search, in order; none at its end.
    pub(crate) fn take_next(&mut self, search: &mut Search) -> Result<Closed<K, L, Q>, StoreError> {
        if !std::mem::replace(&mut search.begun, true) {
            self.tracker.min_time = i64::MAX;
            self.knows_first = true;
        }
        let taken = match &mut self.rows {
            Some(_) => self.take_from_disk(search)?,
            None => self.take_from_memory(search),
        };
        let latest = self.tracker.stream_time;
        let mut closed = Vec::new();
        for (place, key, events) in taken {
            let now = if search.windows.is_some() { latest } else { latest.max(place.0) };
            self.changelog.push(logged(&place, None, now));
            closed.extend(events.into_iter().map(|event| (key.clone(), place.0, event)));
        }
        Ok(closed)
    }

    /// All at once: they are in memory anyway.
    fn take_from_memory(&mut self, search: &mut Search) -> Taken<K, L, Q> {
        let mut places = Vec::new();
        for (place, waiting) in &self.events {
            if search.ended {
                break;
            }
            let count = waiting.events.len() as u32;
            if search.takes(place.0, place.1, count, &mut self.tracker) {
                places.push(place.clone());
            }
        }
        search.ended = true;
        let removed = places.into_iter().filter_map(|place| {
            let Waiting { key, events } = self.events.remove(&place)?;
            Some((place, key, events))
        });
        removed.collect()
    }

    fn take_from_disk(&mut self, search: &mut Search) -> Result<Taken<K, L, Q>, StoreError> {
        let mut taken = Vec::new();
        let Some(rows) = &mut self.rows else {
            return Ok(taken);
        };
        while !search.ended && taken.len() < TAKEN_AT_ONCE {
            let Some((at, list)) = rows.next(&mut search.walk)? else {
                search.ended = true;
                break;
            };
            let (timestamp, rest) = parts_of(&at);
            let is_left = rest.first() == Some(&LEFT);
            if !search.takes(timestamp, is_left, list::count(&list), &mut self.tracker) {
                continue;
            }
            // A copy: what the database gives keeps its whole block in memory.
            rows.put(Bytes::copy_from_slice(&at), None);
            let key = Bytes::copy_from_slice(rest.get(1..).unwrap_or_default());
            let place = (timestamp, is_left, key.clone());
            taken.push((place, self.settings.read_key(key)?, self.settings.unlist(list)?));
        }
        Ok(taken)
    }
}

/// Places that are empty now, and what stood there.
type Taken<K, L, Q> = Vec<(Place, K, Vec<Either<L, Q>>)>;

/// A change of what stands at a place, as it is logged.
fn logged((time, is_left, key): &Place, value: Option<Bytes>, timestamp: i64) -> Logged {
    let mut logged = Vec::with_capacity(PREFIX + key.len());
    logged.put_i64(*time);
    logged.put_u8(u8::from(*is_left));
    logged.extend_from_slice(key);
    Logged { key: Bytes::from(logged), value, timestamp, headers: Headers::default() }
}

fn row_key((time, is_left, key): &Place) -> Bytes {
    key_of(*time, &[&[u8::from(*is_left)], key])
}

/// Bytes of time and side in front of the key.
const PREFIX: usize = size_of::<i64>() + 1;
/// The side of left events.
const LEFT: u8 = 1;
/// Places that a step of a search takes on disk.
const TAKEN_AT_ONCE: usize = 500;

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
        let time = head.first_chunk().copied().map_or(0, i64::from_be_bytes);
        let place = (time, head[PREFIX - 1] == LEFT, key.clone());
        self.knows_first = false;
        if let Some(rows) = &mut self.rows {
            rows.restore(&row_key(&place), record.value.as_deref());
            return Ok(());
        }
        match record.value {
            Some(list) => {
                let key = self.settings.read_key(key)?;
                let events = self.settings.unlist(list)?;
                self.events.insert(place, Waiting { key, events });
            }
            None => {
                self.events.remove(&place);
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
        self.rows = Some(TimeQueue::new(disk));
        self.knows_first = false;
        Ok(None)
    }

    fn backend(&mut self) -> Option<&mut dyn Backend> {
        self.rows.as_mut().map(TimeQueue::backend)
    }

    fn reset(&mut self) {
        self.events.clear();
        if let Some(rows) = &mut self.rows {
            rows.reset();
        }
        self.tracker.min_time = i64::MAX;
        self.knows_first = true;
    }
}
