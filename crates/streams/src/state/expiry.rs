//! The rows of a store that forgets by time: each until its time to live is over, by stream time.
//!
//! ```text
//! | 0: u8 | key ... |                    ->  | timestamp: i64 | value ... |
//! | 2: u8 | timestamp: i64 | key ... |   ->  empty, by which rows expire; the time's sign is turned, so that it sorts
//! | 3: u8 |                              ->  | stream time: i64 |
//! ```
//!
//! Rows expire when another write moves stream time on, and are logged as deleted then: so the store is at every
//! offset of its changelog what a restoration up to there makes it.

use std::ops::Bound;

use bytes::{Buf, BufMut, Bytes};

use super::{Backend, Placed, StoreError};

/// What is known besides the rows themselves.
pub(super) struct Expiry {
    ttl_ms: i64,
    /// The highest event time of all writes; `None` until it is read from the backend.
    observed_ms: Option<i64>,
}

/// A row that has expired, as it was stored.
pub(super) struct Expired {
    pub(super) key: Bytes,
    pub(super) stored: Bytes,
}

impl Expiry {
    pub(super) fn new(ttl_ms: i64) -> Self {
        Self { ttl_ms, observed_ms: None }
    }

    /// Forgets what was read from the backend, which is another one now or empty.
    pub(super) fn reset(&mut self) {
        self.observed_ms = None;
    }

    pub(super) fn get(
        &self,
        backend: &mut dyn Backend,
        key: &[u8],
    ) -> Result<Option<Bytes>, StoreError> {
        backend.get(&row(key))
    }

    /// Writes a row, unless it is dead already, or deletes one.
    pub(super) fn put(
        &mut self,
        backend: &mut dyn Backend,
        key: &[u8],
        stored: Option<Bytes>,
        timestamp: i64,
    ) -> Result<Placed, StoreError> {
        let dies = timestamp.saturating_add(self.ttl_ms);
        if stored.is_some() && dies <= self.observed(backend)? {
            return Ok(Placed::Refused);
        }
        self.restore(backend, key, stored, timestamp)?;
        Ok(Placed::Latest)
    }

    /// Writes or deletes a row whatever its time: the changelog says when rows expire.
    pub(super) fn restore(
        &mut self,
        backend: &mut dyn Backend,
        key: &[u8],
        stored: Option<Bytes>,
        timestamp: i64,
    ) -> Result<(), StoreError> {
        if timestamp > self.observed(backend)? {
            self.observed_ms = Some(timestamp);
            let time = Bytes::copy_from_slice(&timestamp.to_be_bytes());
            backend.put(Bytes::from_static(&[TIME]), Some(time));
        }
        let place = row(key);
        if let Some(before) = backend.get(&place)? {
            backend.put(mark(time_of(&before), key), None);
        }
        if let Some(stored) = &stored {
            backend.put(mark(time_of(stored), key), Some(Bytes::new()));
        }
        backend.put(Bytes::from(place), stored);
        Ok(())
    }

    /// Removes and gives the rows whose time is over, oldest first.
    pub(super) fn take_expired(
        &mut self,
        backend: &mut dyn Backend,
    ) -> Result<Vec<Expired>, StoreError> {
        // A row lives while its time plus its time to live is above stream time.
        let Some(dead) = self.observed(backend)?.checked_sub(self.ttl_ms) else {
            return Ok(Vec::new());
        };
        let mut end = vec![MARK];
        end.put_u64(sortable(dead.saturating_add(1)));
        let mut expired = Vec::new();
        for (mark, _) in backend.range(Bound::Included(&[MARK][..]), Bound::Excluded(&end[..]))? {
            let key = mark.slice(1 + size_of::<i64>()..);
            let place = row(&key);
            if let Some(stored) = backend.get(&place)? {
                backend.put(Bytes::from(place), None);
                expired.push(Expired { key, stored });
            }
            backend.put(mark, None);
        }
        Ok(expired)
    }

    /// The highest event time so far.
    pub(super) fn observed(&mut self, backend: &mut dyn Backend) -> Result<i64, StoreError> {
        if let Some(observed) = self.observed_ms {
            return Ok(observed);
        }
        let stored = backend.get(&[TIME])?;
        let observed = stored.and_then(|mut bytes| bytes.try_get_i64().ok()).unwrap_or(i64::MIN);
        self.observed_ms = Some(observed);
        Ok(observed)
    }
}

fn row(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + key.len());
    out.push(ROW);
    out.extend_from_slice(key);
    out
}

fn mark(timestamp: i64, key: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(1 + size_of::<i64>() + key.len());
    out.push(MARK);
    out.put_u64(sortable(timestamp));
    out.extend_from_slice(key);
    Bytes::from(out)
}

/// The time in front of a stored value.
fn time_of(stored: &[u8]) -> i64 {
    stored.first_chunk().map_or(0, |time| i64::from_be_bytes(*time))
}

fn sortable(time: i64) -> u64 {
    time as u64 ^ (1 << 63)
}

/// In front of the keys of rows.
pub(super) const ROW: u8 = 0;
const MARK: u8 = 2;
const TIME: u8 = 3;
