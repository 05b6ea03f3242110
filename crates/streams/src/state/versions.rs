//! The versions of a versioned key-value store (KIP-889): what each key was at any time within the history.
//!
//! ```text
//! | 0: u8 | key ... |                                        ->  | valid from: i64 | value ... |, the latest value
//! | 1: u8 | length: u32 | key ... | valid from: i64 |        ->  | valid to: i64 | present: u8 | value ... |
//! | 2: u8 | valid to: i64 | length: u32 | key ... | valid from: i64 |  ->  empty, by which versions expire
//! | 3: u8 |                                                  ->  | stream time: i64 |
//! ```
//!
//! Times in keys have their sign turned, so that they sort. A key whose latest version is a deletion has no latest
//! value: the version before tells when it ended, or, if there was none, a version that ends when it begins. What has
//! ended before the history begins is dropped; the latest value never is.

use std::ops::Bound;

use bytes::{Buf, BufMut, Bytes};

use super::{Backend, StoreError};

/// What a write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It is the newest of its key.
    Latest,
    /// It was valid until this time already when it came.
    Until(i64),
    /// It was older than the history, and is not kept.
    Refused,
}

/// A value with the time in which it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version<V> {
    /// The value.
    pub value: V,
    /// The event time that it holds from.
    pub valid_from: i64,
    /// The event time that it does not hold any more; `None` for the latest.
    pub valid_to: Option<i64>,
}

/// What is known besides the versions themselves.
pub(super) struct Versions {
    history_ms: i64,
    /// The highest event time of all writes; `None` until it is read from the backend.
    observed_ms: Option<i64>,
}

/// A version in the history.
struct Past {
    valid_from: i64,
    valid_to: i64,
    value: Option<Bytes>,
}

impl Versions {
    pub(super) fn new(history_ms: i64) -> Self {
        Self { history_ms, observed_ms: None }
    }

    /// Forgets what was read from the backend, which is another one now or empty.
    pub(super) fn reset(&mut self) {
        self.observed_ms = None;
    }

    /// Writes a version, or a deletion.
    pub(super) fn put(
        &mut self,
        backend: &mut dyn Backend,
        key: &[u8],
        value: Option<&[u8]>,
        timestamp: i64,
    ) -> Result<Placed, StoreError> {
        let observed = self.observed(backend)?;
        if timestamp < observed.saturating_sub(self.history_ms) {
            return Ok(Placed::Refused);
        }
        if timestamp > observed {
            self.observed_ms = Some(timestamp);
            backend.put(
                Bytes::from_static(&[TIME]),
                Some(Bytes::copy_from_slice(&timestamp.to_be_bytes())),
            );
            self.expire(backend)?;
        }
        let latest = latest(backend, key)?;
        if let Some((latest_from, latest_value)) = &latest
            && timestamp >= *latest_from
        {
            if timestamp > *latest_from {
                let past = Past {
                    valid_from: *latest_from,
                    valid_to: timestamp,
                    value: Some(latest_value.clone()),
                };
                insert(backend, key, &past)?;
            }
            set_latest(backend, key, value, timestamp);
            return Ok(Placed::Latest);
        }
        if let Some(mut held) = past_at(backend, key, timestamp)?
            && timestamp < held.valid_to
        {
            let until = held.valid_to;
            if held.valid_from < timestamp {
                held.valid_to = timestamp;
                insert(backend, key, &held)?;
            }
            insert(backend, key, &past(timestamp, until, value))?;
            return Ok(Placed::Until(until));
        }
        let next = next_past(backend, key, timestamp)?;
        let until = match (next, latest) {
            (Some(next), Some((latest_from, _))) => Some(next.min(latest_from)),
            (next, latest) => next.or(latest.map(|(latest_from, _)| latest_from)),
        };
        match (until, value) {
            (Some(until), value) => insert(backend, key, &past(timestamp, until, value))?,
            (None, Some(_)) => set_latest(backend, key, value, timestamp),
            // Nobody needs a second mark of the time when the key ended.
            (None, None) if ends_at(backend, key, timestamp)? => {}
            (None, None) => insert(backend, key, &past(timestamp, timestamp, None))?,
        }
        Ok(until.map_or(Placed::Latest, Placed::Until))
    }

    /// The latest value with its time.
    pub(super) fn latest(
        &self,
        backend: &mut dyn Backend,
        key: &[u8],
    ) -> Result<Option<(i64, Bytes)>, StoreError> {
        latest(backend, key)
    }

    /// What a key was at a time.
    pub(super) fn as_of(
        &mut self,
        backend: &mut dyn Backend,
        key: &[u8],
        timestamp: i64,
    ) -> Result<Option<Version<Bytes>>, StoreError> {
        if let Some((valid_from, value)) = latest(backend, key)?
            && valid_from <= timestamp
        {
            return Ok(Some(Version { value, valid_from, valid_to: None }));
        }
        if timestamp < self.observed(backend)?.saturating_sub(self.history_ms) {
            return Ok(None);
        }
        let held = past_at(backend, key, timestamp)?.filter(|held| timestamp < held.valid_to);
        Ok(held.and_then(|held| {
            let (valid_from, valid_to) = (held.valid_from, Some(held.valid_to));
            Some(Version { value: held.value?, valid_from, valid_to })
        }))
    }

    /// The values of a key that held at some time within `from..=to`, oldest first.
    pub(super) fn between(
        &mut self,
        backend: &mut dyn Backend,
        key: &[u8],
        from: i64,
        to: i64,
    ) -> Result<Vec<Version<Bytes>>, StoreError> {
        let mut found = Vec::new();
        if to >= self.observed(backend)?.saturating_sub(self.history_ms) {
            let end = past_key(key, to);
            let begin = past_key(key, i64::MIN);
            for (key, value) in
                backend.range(Bound::Included(&begin[..]), Bound::Included(&end[..]))?
            {
                let past = read_past(&key, value)?;
                if let Some(value) = past.value.filter(|_| past.valid_to > from) {
                    let (valid_from, valid_to) = (past.valid_from, Some(past.valid_to));
                    found.push(Version { value, valid_from, valid_to });
                }
            }
        }
        if let Some((valid_from, value)) = latest(backend, key)?
            && valid_from <= to
        {
            found.push(Version { value, valid_from, valid_to: None });
        }
        Ok(found)
    }

    fn observed(&mut self, backend: &mut dyn Backend) -> Result<i64, StoreError> {
        if let Some(observed) = self.observed_ms {
            return Ok(observed);
        }
        let stored = backend.get(&[TIME])?;
        let observed = stored.and_then(|mut bytes| bytes.try_get_i64().ok()).unwrap_or(-1);
        self.observed_ms = Some(observed);
        Ok(observed)
    }

    /// Drops what ended before the history begins.
    fn expire(&mut self, backend: &mut dyn Backend) -> Result<(), StoreError> {
        let begins = self.observed(backend)?.saturating_sub(self.history_ms);
        let mut end = vec![ENDS];
        end.put_u64(sortable(begins));
        for (mark, _) in backend.range(Bound::Included(&[ENDS][..]), Bound::Excluded(&end[..]))? {
            let mut past = vec![PAST];
            past.extend_from_slice(&mark[1 + TIME_SIZE..]);
            backend.put(Bytes::from(past), None);
            backend.put(mark, None);
        }
        Ok(())
    }
}

fn past(valid_from: i64, valid_to: i64, value: Option<&[u8]>) -> Past {
    Past { valid_from, valid_to, value: value.map(Bytes::copy_from_slice) }
}

fn latest(backend: &mut dyn Backend, key: &[u8]) -> Result<Option<(i64, Bytes)>, StoreError> {
    match backend.get(&latest_key(key))? {
        Some(mut stored) => {
            let valid_from = stored.try_get_i64().map_err(|_| damaged())?;
            Ok(Some((valid_from, stored)))
        }
        None => Ok(None),
    }
}

fn set_latest(backend: &mut dyn Backend, key: &[u8], value: Option<&[u8]>, valid_from: i64) {
    let stored = value.map(|value| {
        let mut stored = Vec::with_capacity(TIME_SIZE + value.len());
        stored.put_i64(valid_from);
        stored.extend_from_slice(value);
        Bytes::from(stored)
    });
    backend.put(Bytes::from(latest_key(key)), stored);
}

/// Writes a version into the history, instead of one that began at the same time.
fn insert(backend: &mut dyn Backend, key: &[u8], past: &Past) -> Result<(), StoreError> {
    let place = past_key(key, past.valid_from);
    if let Some(before) = backend.get(&place)? {
        let before = read_past(&place, before)?;
        backend.put(Bytes::from(end_mark(&place, before.valid_to)), None);
    }
    let value = past.value.as_deref();
    let mut stored = Vec::with_capacity(TIME_SIZE + 1 + value.map_or(0, <[u8]>::len));
    stored.put_i64(past.valid_to);
    stored.put_u8(u8::from(value.is_some()));
    stored.extend_from_slice(value.unwrap_or_default());
    backend.put(Bytes::from(end_mark(&place, past.valid_to)), Some(Bytes::new()));
    backend.put(Bytes::from(place), Some(Bytes::from(stored)));
    Ok(())
}

/// The newest version in the history that began at a time or before.
fn past_at(
    backend: &mut dyn Backend,
    key: &[u8],
    timestamp: i64,
) -> Result<Option<Past>, StoreError> {
    let (begin, end) = (past_key(key, i64::MIN), past_key(key, timestamp));
    let found = backend.range(Bound::Included(&begin[..]), Bound::Included(&end[..]))?;
    found.into_iter().next_back().map(|(key, value)| read_past(&key, value)).transpose()
}

/// When the first version in the history begins that begins after a time.
fn next_past(
    backend: &mut dyn Backend,
    key: &[u8],
    timestamp: i64,
) -> Result<Option<i64>, StoreError> {
    let (begin, end) = (past_key(key, timestamp), past_key(key, i64::MAX));
    let found = backend.range(Bound::Excluded(&begin[..]), Bound::Included(&end[..]))?;
    Ok(found.first().map(|(key, _)| began(key)))
}

/// Whether a version in the history ends at this time.
fn ends_at(backend: &mut dyn Backend, key: &[u8], timestamp: i64) -> Result<bool, StoreError> {
    Ok(past_at(backend, key, timestamp)?.is_some_and(|past| past.valid_to == timestamp))
}

fn read_past(place: &[u8], mut stored: Bytes) -> Result<Past, StoreError> {
    let valid_to = stored.try_get_i64().map_err(|_| damaged())?;
    let present = stored.try_get_u8().map_err(|_| damaged())?;
    let value = (present != 0).then_some(stored);
    Ok(Past { valid_from: began(place), valid_to, value })
}

/// The time at the end of a place in the history.
fn began(place: &[u8]) -> i64 {
    let time = place.last_chunk().copied().unwrap_or_default();
    (u64::from_be_bytes(time) ^ SIGN) as i64
}

fn latest_key(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + key.len());
    out.push(LATEST);
    out.extend_from_slice(key);
    out
}

fn past_key(key: &[u8], valid_from: i64) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + size_of::<u32>() + key.len() + TIME_SIZE);
    out.push(PAST);
    out.put_u32(key.len() as u32);
    out.extend_from_slice(key);
    out.put_u64(sortable(valid_from));
    out
}

fn end_mark(place: &[u8], valid_to: i64) -> Vec<u8> {
    let mut out = Vec::with_capacity(place.len() + TIME_SIZE);
    out.push(ENDS);
    out.put_u64(sortable(valid_to));
    out.extend_from_slice(&place[1..]);
    out
}

fn sortable(time: i64) -> u64 {
    time as u64 ^ SIGN
}

fn damaged() -> StoreError {
    StoreError::Damaged { store: "with versions".to_owned(), what: "a version cut short" }
}

/// In front of the keys of latest values.
pub(super) const LATEST: u8 = 0;
const PAST: u8 = 1;
const ENDS: u8 = 2;
const TIME: u8 = 3;
const TIME_SIZE: usize = size_of::<i64>();
const SIGN: u64 = 1 << 63;
