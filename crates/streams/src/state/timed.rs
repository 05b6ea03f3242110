//! Rows by time: what window and session stores have on disk.
//!
//! ```text
//! | 0: u8 | segment: i64 | key ... | time: i64 | mark: i64 |   ->  | timestamp: i64 | value ... |
//! | 1: u8 | time: i64 | mark: i64 | key ... |                  ->  empty, where rows are asked for by time alone
//! | 2: u8 |                                                    ->  | observed: i64 | sequence: u32 |
//! ```
//!
//! A row's time is the start of its window or the end of its session, its mark what tells apart rows of one key and
//! time. The sign of numbers is turned in keys, so that they sort.
//!
//! A segment is a span of time, as in Kafka Streams: a key's rows within it are neighbours, so that what a key has
//! within a span of time is one range of each segment that the span touches; and a segment whose time is over goes as
//! one range, most of it as whole files. Nobody is shown dead rows, so that they may be there a while longer.
//!
//! Where keys are asked for what they have, memory knows which keys a segment may have: of segments that began after the
//! store was opened, because nobody else writes them. A key is then looked for only where it is.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::{Buf, BufMut, Bytes};

use super::disk::DiskBackend;
use super::key_filter::KeyFilter;
use super::{Backend, StoreError};

/// The rows of one store, on disk.
pub(super) struct TimedRows {
    disk: DiskBackend,
    segment_ms: i64,
    /// Whether there is an index by time.
    by_time: bool,
    /// Rows before this time are dead.
    live_from: i64,
    /// The segment before which nothing is left, as far as this process has seen to it.
    dropped_before: Option<i64>,
    /// What was last written besides rows.
    noted: Option<Noted>,
    keys: Option<Keys>,
}

/// The keys of the newest segments.
#[derive(Default)]
struct Keys {
    /// The first segment of which all keys are known; none before it is clear what was there at first.
    known_from: Option<i64>,
    of_segments: BTreeMap<i64, KeyFilter>,
}

/// What a store knows besides its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Noted {
    /// The highest time of all writes.
    pub(super) observed_ms: i64,
    /// The last number that was given to a duplicate.
    pub(super) sequence: u32,
}

/// A row as it was found.
pub(super) struct TimedRow {
    pub(super) key: Bytes,
    pub(super) time: i64,
    pub(super) mark: i64,
    pub(super) timestamp: i64,
    pub(super) value: Bytes,
}

/// The first time that is not too old.
pub(super) fn oldest(observed_ms: i64, retention_ms: i64) -> i64 {
    observed_ms.saturating_sub(retention_ms).saturating_add(1)
}

impl TimedRows {
    /// The rows of a store that keeps them for so long, with an index by time if it asks for all of a time, and with
    /// the keys of segments in memory if it asks for all of a key.
    pub(super) fn new(disk: DiskBackend, retention_ms: i64, by_time: bool, by_key: bool) -> Self {
        Self {
            disk,
            // As Kafka Streams cuts them.
            segment_ms: (retention_ms / 2).max(SEGMENT_MS_MIN),
            by_time,
            live_from: i64::MIN,
            dropped_before: None,
            noted: None,
            keys: by_key.then(Keys::default),
        }
    }

    /// What was noted when the rows were last committed, if there are any.
    pub(super) fn noted(&mut self) -> Result<Option<Noted>, StoreError> {
        let Some(mut bytes) = self.disk.get(&[NOTED])? else {
            // What a crash has left without it is restored once more.
            self.know_keys_from(i64::MIN);
            return Ok(None);
        };
        if bytes.len() == size_of::<i64>() + size_of::<u32>() {
            let noted = Noted { observed_ms: bytes.get_i64(), sequence: bytes.get_u32() };
            self.noted = Some(noted);
            self.know_keys_from(self.segment_of(noted.observed_ms).saturating_add(1));
        }
        Ok(self.noted)
    }

    fn know_keys_from(&mut self, segment: i64) {
        if let Some(keys) = &mut self.keys {
            *keys = Keys { known_from: Some(segment), of_segments: BTreeMap::new() };
        }
    }

    /// Says what the next commit is to note.
    pub(super) fn note(&mut self, noted: Noted) {
        if self.noted == Some(noted) {
            return;
        }
        self.noted = Some(noted);
        let mut bytes = Vec::with_capacity(size_of::<i64>() + size_of::<u32>());
        bytes.put_i64(noted.observed_ms);
        bytes.put_u32(noted.sequence);
        self.disk.put(Bytes::from_static(&[NOTED]), Some(Bytes::from(bytes)));
    }

    /// Forgets what it knows of the disk, which is empty now.
    pub(super) fn reset(&mut self) {
        self.live_from = i64::MIN;
        self.dropped_before = None;
        self.noted = None;
        self.know_keys_from(i64::MIN);
    }

    /// Where the rows are.
    pub(super) fn backend(&mut self) -> &mut dyn Backend {
        &mut self.disk
    }

    /// Lets rows before this time be dead.
    pub(super) fn live_from(&mut self, time: i64) {
        if time <= self.live_from {
            return;
        }
        self.live_from = time;
        let live = self.segment_of(time);
        if let Some(keys) = &mut self.keys {
            while keys.of_segments.first_key_value().is_some_and(|(segment, _)| *segment < live) {
                keys.of_segments.pop_first();
            }
        }
    }

    /// The timestamp and value of a row.
    pub(super) fn get(
        &mut self,
        key: &[u8],
        time: i64,
        mark: i64,
    ) -> Result<Option<(i64, Bytes)>, StoreError> {
        if time < self.live_from {
            return Ok(None);
        }
        let found = self.disk.get(&self.row_key(key, time, mark))?;
        Ok(found.and_then(stamped))
    }

    /// Writes a row, or removes it. One that would be dead is not written.
    pub(super) fn put(&mut self, key: &[u8], time: i64, mark: i64, row: Option<(i64, &[u8])>) {
        if time < self.live_from {
            return;
        }
        let stored = row.map(|(timestamp, value)| {
            let mut stored = Vec::with_capacity(size_of::<i64>() + value.len());
            stored.put_i64(timestamp);
            stored.extend_from_slice(value);
            Bytes::from(stored)
        });
        if self.by_time {
            let mark_only = stored.as_ref().map(|_| Bytes::new());
            self.disk.put(Bytes::from(index_key(key, time, mark)), mark_only);
        }
        if stored.is_some() {
            self.note_key(key, time);
        }
        self.disk.put(Bytes::from(self.row_key(key, time, mark)), stored);
    }

    /// The same for a row that is restored, before anybody asks for it.
    pub(super) fn restore(&mut self, key: &[u8], time: i64, mark: i64, row: Option<(i64, &[u8])>) {
        if time < self.live_from {
            return;
        }
        if self.by_time {
            self.disk.restore(&index_key(key, time, mark), row.map(|_| [&[][..], &[]]));
        }
        if row.is_some() {
            self.note_key(key, time);
        }
        let stamp = row.map(|(timestamp, _)| timestamp.to_be_bytes()).unwrap_or_default();
        let stored = row.map(|(_, value)| [&stamp[..], value]);
        self.disk.restore(&self.row_key(key, time, mark), stored);
    }

    /// The rows of a key within `from..=to`, by time and mark.
    pub(super) fn of_key(
        &mut self,
        key: &[u8],
        from: i64,
        to: i64,
        observed_ms: i64,
    ) -> Result<Vec<TimedRow>, StoreError> {
        let (from, to) = (from.max(self.live_from), to.min(observed_ms));
        let mut rows = Vec::new();
        if from > to {
            return Ok(rows);
        }
        let length = 1 + size_of::<i64>() + key.len() + SUFFIX;
        for segment in self.segment_of(from)..=self.segment_of(to) {
            if !self.may_have(segment, key) {
                continue;
            }
            let first = row_key(segment, key, from, i64::MIN);
            let last = row_key(segment, key, to, i64::MAX);
            let found = self.disk.range(Bound::Included(&first), Bound::Included(&last))?;
            // Longer keys that begin like this one lie in between.
            let of_key = found.into_iter().filter(|(found, _)| found.len() == length);
            rows.extend(of_key.filter_map(|(key, value)| row(&key, value)));
        }
        Ok(rows)
    }

    /// All rows within `from..=to`, by time, key and mark.
    pub(super) fn all(
        &mut self,
        from: i64,
        to: i64,
        observed_ms: i64,
    ) -> Result<Vec<TimedRow>, StoreError> {
        let (from, to) = (from.max(self.live_from), to.min(observed_ms));
        if from > to {
            return Ok(Vec::new());
        }
        let mut rows = if self.by_time {
            self.by_index(from, to)?
        } else {
            let first = segment_key(self.segment_of(from));
            let behind = match self.segment_of(to).checked_add(1) {
                Some(next) => segment_key(next),
                None => vec![ROW + 1],
            };
            let found = self.disk.range(Bound::Included(&first), Bound::Excluded(&behind))?;
            let rows = found.into_iter().filter_map(|(key, value)| row(&key, value));
            rows.filter(|row| (from..=to).contains(&row.time)).collect::<Vec<_>>()
        };
        rows.sort_unstable_by(|one, other| {
            (one.time, &one.key, one.mark).cmp(&(other.time, &other.key, other.mark))
        });
        Ok(rows)
    }

    fn by_index(&mut self, from: i64, to: i64) -> Result<Vec<TimedRow>, StoreError> {
        let first = index_key(&[], from, i64::MIN);
        let behind = match to.checked_add(1) {
            Some(next) => index_key(&[], next, i64::MIN),
            None => vec![INDEX + 1],
        };
        let found = self.disk.range(Bound::Included(&first), Bound::Excluded(&behind))?;
        let mut rows = Vec::with_capacity(found.len());
        for (entry, _) in found {
            let mut numbers = &entry[1..];
            if numbers.len() < SUFFIX {
                continue;
            }
            let (time, mark) = (unsorted(numbers.get_u64()), unsorted(numbers.get_u64()));
            let key = entry.slice(1 + SUFFIX..);
            if let Some((timestamp, value)) = self.get(&key, time, mark)? {
                rows.push(TimedRow { key, time, mark, timestamp, value });
            }
        }
        Ok(rows)
    }

    /// Drops segments that are dead as a whole. Only after a commit: a crash must not find rows gone that are not dead
    /// in what was committed.
    pub(super) fn drop_dead(&mut self) -> Result<(), StoreError> {
        let live = self.segment_of(self.live_from);
        if self.live_from == i64::MIN || self.dropped_before.is_some_and(|before| before >= live) {
            return Ok(());
        }
        self.disk.drop_range(&[ROW], &segment_key(live))?;
        if self.by_time {
            let begin = live.saturating_mul(self.segment_ms);
            self.disk.drop_range(&[INDEX], &index_key(&[], begin, i64::MIN))?;
        }
        self.dropped_before = Some(live);
        Ok(())
    }

    fn note_key(&mut self, key: &[u8], time: i64) {
        let segment = self.segment_of(time);
        if let Some(keys) = &mut self.keys
            && keys.known_from.is_some_and(|from| segment >= from)
        {
            keys.of_segments.entry(segment).or_insert_with(KeyFilter::new).insert(key);
        }
    }

    /// Whether a segment may have rows of a key.
    fn may_have(&self, segment: i64, key: &[u8]) -> bool {
        match &self.keys {
            Some(keys) if keys.known_from.is_some_and(|from| segment >= from) => {
                keys.of_segments.get(&segment).is_some_and(|filter| filter.may_have(key))
            }
            _ => true,
        }
    }

    fn segment_of(&self, time: i64) -> i64 {
        time.div_euclid(self.segment_ms)
    }

    fn row_key(&self, key: &[u8], time: i64, mark: i64) -> Vec<u8> {
        row_key(self.segment_of(time), key, time, mark)
    }
}

fn segment_key(segment: i64) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + size_of::<i64>());
    out.push(ROW);
    out.put_u64(sorted(segment));
    out
}

fn row_key(segment: i64, key: &[u8], time: i64, mark: i64) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + size_of::<i64>() + key.len() + SUFFIX);
    out.push(ROW);
    out.put_u64(sorted(segment));
    out.extend_from_slice(key);
    out.put_u64(sorted(time));
    out.put_u64(sorted(mark));
    out
}

fn index_key(key: &[u8], time: i64, mark: i64) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + SUFFIX + key.len());
    out.push(INDEX);
    out.put_u64(sorted(time));
    out.put_u64(sorted(mark));
    out.extend_from_slice(key);
    out
}

/// A row from its bytes; `None` if no store can have written them.
fn row(key: &Bytes, value: Bytes) -> Option<TimedRow> {
    let end = key.len().checked_sub(SUFFIX)?;
    let (timestamp, value) = stamped(value)?;
    let mut numbers = &key[end..];
    let (time, mark) = (unsorted(numbers.get_u64()), unsorted(numbers.get_u64()));
    // A copy: what the database gives keeps its whole block in memory.
    let key = Bytes::copy_from_slice(key.get(1 + size_of::<i64>()..end)?);
    Some(TimedRow { key, time, mark, timestamp, value })
}

fn stamped(mut stored: Bytes) -> Option<(i64, Bytes)> {
    let timestamp = stored.try_get_i64().ok()?;
    Some((timestamp, stored))
}

fn sorted(number: i64) -> u64 {
    number as u64 ^ (1 << 63)
}

fn unsorted(number: u64) -> i64 {
    (number ^ (1 << 63)) as i64
}

/// Bytes of time and mark.
const SUFFIX: usize = 2 * size_of::<i64>();
/// Segments are no shorter than in Kafka Streams.
const SEGMENT_MS_MIN: i64 = 60_000;
const ROW: u8 = 0;
const INDEX: u8 = 1;
const NOTED: u8 = 2;
