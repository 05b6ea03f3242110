//! What waits for its time, on disk: rows in the order of time, the first of them in memory too.
//!
//! ```text
//! | 0: u8 | time: i64 | rest ... |   ->  value ...   the time's sign is turned, so that it sorts
//! | 1: u8 |                          ->  what the store notes besides its rows
//! ```
//!
//! Rows come in anywhere, most of them near the end, and leave at the front. In the database a row that has left is a mark
//! until tables are merged, and whoever searched from the beginning would step over all marks for each row that is
//! first. So memory has the front: all rows before some key, up to so many bytes. The next rows are read from where it ends,
//! and nothing is stepped over twice.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::{BufMut, Bytes};

use super::disk::DiskBackend;
use super::{Backend, StoreError};

#[cfg(test)]
mod tests;

/// The rows of one store.
pub(super) struct TimeQueue {
    disk: DiskBackend,
    front: BTreeMap<Bytes, Bytes>,
    front_bytes: usize,
    /// Rows from this key on may be on disk alone. `None`: all rows are in front.
    beyond: Option<Bytes>,
    /// No row stands behind this key; `None` while that is not known. It means nothing while all rows are in front.
    last: Option<Bytes>,
    /// What was last noted besides rows.
    noted: Option<Bytes>,
}

/// A way through rows, from the first one on. Rows that it has passed may be removed meanwhile.
#[derive(Default)]
pub(super) struct Walk {
    /// The row that was given last.
    at: Option<Bytes>,
    /// Rows behind it, of those that are not in front.
    page: VecDeque<(Bytes, Bytes)>,
}

/// The key of a row.
pub(super) fn key_of(time: i64, rest: &[&[u8]]) -> Bytes {
    let length: usize = rest.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(HEAD + length);
    out.push(ROW);
    out.put_u64(time as u64 ^ SIGN);
    for part in rest {
        out.extend_from_slice(part);
    }
    Bytes::from(out)
}

/// The time of a row, and what its key has behind that.
pub(super) fn parts_of(key: &Bytes) -> (i64, Bytes) {
    let time = key.get(1..HEAD).and_then(<[u8]>::first_chunk);
    let time = time.map_or(0, |time| (u64::from_be_bytes(*time) ^ SIGN) as i64);
    (time, key.slice(HEAD.min(key.len())..))
}

impl TimeQueue {
    /// The rows that the disk has.
    pub(super) fn new(disk: DiskBackend) -> Self {
        Self {
            disk,
            front: BTreeMap::new(),
            front_bytes: 0,
            beyond: Some(Bytes::new()),
            last: None,
            noted: None,
        }
    }

    /// Where the rows are.
    pub(super) fn backend(&mut self) -> &mut dyn Backend {
        &mut self.disk
    }

    /// Forgets what it knows of the disk, which is empty now.
    pub(super) fn reset(&mut self) {
        self.front.clear();
        self.front_bytes = 0;
        self.beyond = None;
        self.last = None;
        self.noted = None;
    }

    /// The value of a row.
    pub(super) fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if self.beyond.as_ref().is_none_or(|beyond| key < &beyond[..]) {
            return Ok(self.front.get(key).cloned());
        }
        // Most rows that are asked for are new, and stand behind all others.
        let last = match &mut self.last {
            Some(last) => last,
            unknown => {
                let last = self.disk.last_key(&[ROW], &[ROW + 1])?;
                unknown.insert(last.unwrap_or_default())
            }
        };
        if key > &last[..] { Ok(None) } else { self.disk.get(key) }
    }

    /// Writes a row, or removes it.
    pub(super) fn put(&mut self, key: Bytes, value: Option<Bytes>) {
        if self.beyond.as_ref().is_none_or(|beyond| key < *beyond) {
            match value.clone() {
                Some(value) => self.hold(key.clone(), value),
                None => self.let_go(&key),
            }
            if self.front_bytes > FRONT_BYTES {
                self.cut(FRONT_BYTES / 2);
            }
        } else if value.is_some()
            && let Some(last) = self.last.as_mut().filter(|last| **last < key)
        {
            *last = key.clone();
        }
        self.disk.put(key, value);
    }

    /// The same for a row that is restored, before anybody asks for it.
    pub(super) fn restore(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.front.clear();
        self.front_bytes = 0;
        self.beyond = Some(Bytes::new());
        self.last = None;
        self.disk.restore(key, value.map(|value| [value, &[]]));
    }

    /// The first row.
    pub(super) fn first(&mut self) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        loop {
            if let Some((key, value)) = self.front.first_key_value() {
                return Ok(Some((key.clone(), value.clone())));
            }
            if !self.read_on()? {
                return Ok(None);
            }
        }
    }

    /// The last row's key.
    pub(super) fn last_key(&mut self) -> Result<Option<Bytes>, StoreError> {
        match self.beyond {
            Some(_) => self.disk.last_key(&[ROW], &[ROW + 1]),
            None => Ok(self.front.last_key_value().map(|(key, _)| key.clone())),
        }
    }

    /// The next row on the way.
    pub(super) fn next(&mut self, walk: &mut Walk) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        loop {
            if let Some(row) = walk.page.pop_front() {
                walk.at = Some(row.0.clone());
                return Ok(Some(row));
            }
            let from = walk.at.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            if let Some((key, value)) = self.front.range::<[u8], _>((from, Bound::Unbounded)).next()
            {
                walk.at = Some(key.clone());
                return Ok(Some((key.clone(), value.clone())));
            }
            let Some(beyond) = &self.beyond else {
                return Ok(None);
            };
            let is_beyond = walk.at.as_ref().is_some_and(|at| at >= beyond);
            if !is_beyond && self.front_bytes < FRONT_BYTES / 2 {
                self.read_on()?;
                continue;
            }
            // Too much to be kept.
            let from = if is_beyond { from } else { Bound::Included(&beyond[..]) };
            let (page, _) = self.disk.page(from, Bound::Excluded(&[ROW + 1][..]), PAGE_BYTES)?;
            if page.is_empty() {
                return Ok(None);
            }
            walk.page.extend(page);
        }
    }

    /// Reads rows behind the front into it. Returns whether there may be any.
    fn read_on(&mut self) -> Result<bool, StoreError> {
        let Some(beyond) = &self.beyond else {
            return Ok(false);
        };
        let from = Bound::Included(if beyond.is_empty() { &[ROW][..] } else { &beyond[..] });
        let (page, is_all) = self.disk.page(from, Bound::Excluded(&[ROW + 1][..]), PAGE_BYTES)?;
        let last = page.last().filter(|_| !is_all);
        // The first key behind that one.
        self.beyond = last.map(|(last, _)| Bytes::from([&last[..], &[0]].concat()));
        for (key, value) in page {
            // Copies, because what the database gives keeps its whole block in memory.
            self.hold(Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value));
        }
        Ok(true)
    }

    fn hold(&mut self, key: Bytes, value: Bytes) {
        self.front_bytes += key.len() + value.len() + HELD_BYTES;
        let key_length = key.len();
        if let Some(before) = self.front.insert(key, value) {
            self.front_bytes -= key_length + before.len() + HELD_BYTES;
        }
    }

    fn let_go(&mut self, key: &[u8]) {
        if let Some(before) = self.front.remove(key) {
            self.front_bytes -= key.len() + before.len() + HELD_BYTES;
        }
    }

    /// Leaves so many bytes of the front in memory.
    fn cut(&mut self, most: usize) {
        while self.front_bytes > most
            && let Some((key, value)) = self.front.pop_last()
        {
            self.front_bytes -= key.len() + value.len() + HELD_BYTES;
            if self.beyond.is_none() {
                self.last = Some(key.clone());
            }
            self.beyond = Some(key);
        }
    }

    /// Bytes that are in memory besides what waits for a commit, and that a shrunk cache would give back: without a little
    /// of it each row would be looked for on disk, also where a program wants no caches.
    pub(super) fn cached_bytes(&self) -> usize {
        self.front_bytes.saturating_sub(KEPT_BYTES)
    }

    /// Gives back half of that memory.
    pub(super) fn shrink(&mut self) {
        self.cut(self.front_bytes / 2);
    }

    /// What was noted when rows were last committed, if anything.
    pub(super) fn noted(&mut self) -> Result<Option<Bytes>, StoreError> {
        self.noted = self.disk.get(&[NOTED])?;
        Ok(self.noted.clone())
    }

    /// Says what the next commit is to note.
    pub(super) fn note(&mut self, noted: Bytes) {
        if self.noted.as_ref() != Some(&noted) {
            self.noted = Some(noted.clone());
            self.disk.put(Bytes::from_static(&[NOTED]), Some(noted));
        }
    }
}

const ROW: u8 = 0;
const NOTED: u8 = 1;
/// Bytes in front of what a row's key has besides its time.
const HEAD: usize = 1 + size_of::<u64>();
const SIGN: u64 = 1 << 63;
/// The most that is in front.
const FRONT_BYTES: usize = 512 << 10;
/// So much of that does not count.
const KEPT_BYTES: usize = 128 << 10;
/// How much is read at once.
const PAGE_BYTES: usize = 32 << 10;
/// What a row in memory costs besides its bytes, roughly.
const HELD_BYTES: usize = 96;
