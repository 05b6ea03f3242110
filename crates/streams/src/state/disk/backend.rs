//! One store of one task in the database, with what was written since the last commit in front of it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use fjall::{AbstractTree, Keyspace, OwnedWriteBatch, PersistMode};

use super::Position;
use super::arrived::Arrived;
use super::keeping::{Rows, Share};
use super::memtables::Memtables;
use crate::state::backend::is_empty_range;
use crate::state::{Backend, StoreError};

/// A store's share of the database.
pub(crate) struct DiskBackend {
    memtables: Arc<Memtables>,
    keyspace: Keyspace,
    partition: u32,
    uncommitted: BTreeMap<Bytes, Option<Bytes>>,
    uncommitted_bytes: usize,
    /// What was restored behind all of that.
    arrived: Arrived,
    /// A key as it stands in the database.
    key: Vec<u8>,
}

/// Writes that become durable together.
pub(super) struct DiskBatch {
    memtables: Arc<Memtables>,
    batch: OwnedWriteBatch,
    bytes: u64,
}

impl DiskBatch {
    pub(super) fn new(memtables: &Arc<Memtables>) -> Self {
        Self { memtables: memtables.clone(), batch: memtables.database().batch(), bytes: 0 }
    }

    /// Adds a row as it stands in the database.
    pub(super) fn add(
        &mut self,
        keyspace: &Keyspace,
        key: fjall::Slice,
        value: Option<fjall::Slice>,
    ) {
        self.bytes += (key.len() + value.as_ref().map_or(0, |value| value.len()) + OVERHEAD) as u64;
        match value {
            Some(value) => self.batch.insert(keyspace, key, value),
            None => self.batch.remove(keyspace, key),
        }
    }

    /// Hands everything to the system: no crash of ours takes it back.
    pub(super) fn commit(self) -> Result<(), StoreError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.batch.durability(Some(PersistMode::Buffer)).commit()?;
        self.memtables.wrote(self.bytes)
    }
}

impl DiskBackend {
    pub(super) fn new(memtables: Arc<Memtables>, keyspace: Keyspace, partition: u32) -> Self {
        Self {
            memtables,
            keyspace,
            partition,
            uncommitted: BTreeMap::new(),
            uncommitted_bytes: 0,
            arrived: Arrived::default(),
            key: Vec::new(),
        }
    }

    /// The position that the data belong to.
    pub(crate) fn position(&self) -> Result<Option<Position>, StoreError> {
        let bytes = self.keyspace.get(position_key(self.partition))?;
        Ok(bytes.and_then(|bytes| Position::of_bytes(&bytes)))
    }

    /// Takes out what was written since the last commit, to be kept with this position.
    pub(super) fn take(&mut self, position: Option<Position>, logged: bool) -> Share {
        let bytes = self.uncommitted_bytes();
        let rows = if self.uncommitted.is_empty() {
            Rows::Arrived(std::mem::take(&mut self.arrived))
        } else {
            self.settle();
            Rows::Written(std::mem::take(&mut self.uncommitted))
        };
        self.uncommitted_bytes = 0;
        let (memtables, keyspace) = (self.memtables.clone(), self.keyspace.clone());
        Share { memtables, keyspace, partition: self.partition, position, rows, bytes, logged }
    }

    /// Makes what was restored ready to be asked for.
    fn settle(&mut self) {
        if self.arrived.is_empty() {
            return;
        }
        for (key, value) in std::mem::take(&mut self.arrived).into_sorted() {
            // Copies, because rows share large pieces of memory.
            let key = Bytes::copy_from_slice(&key[PREFIX..]);
            self.write(key, value.map(|value| Bytes::copy_from_slice(&value)));
        }
    }

    fn write(&mut self, key: Bytes, value: Option<Bytes>) {
        let size = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        self.uncommitted_bytes += key.len() + OVERHEAD + size(&value);
        let key_size = key.len() + OVERHEAD;
        if let Some(before) = self.uncommitted.insert(key, value) {
            self.uncommitted_bytes -= key_size + size(&before);
        }
    }

    /// Gives the keys within `from..to` up for good, whatever was committed: they leave the disk some time later. Only
    /// for what nobody asks for any more, not even after a crash. A later call with the same `from` takes its place.
    pub(crate) fn drop_range(&mut self, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        if is_empty_range(&bounds.0, &bounds.1) {
            return Ok(());
        }
        self.settle();
        let dead: Vec<Bytes> =
            self.uncommitted.range::<[u8], _>(bounds).map(|(key, _)| key.clone()).collect();
        for key in dead {
            if let Some(value) = self.uncommitted.remove(&key) {
                let size = value.as_ref().map_or(0, Bytes::len);
                self.uncommitted_bytes -= key.len() + OVERHEAD + size;
            }
        }
        let (from, to) = (data_key(self.partition, from), data_key(self.partition, to));
        self.keyspace.tree.drop_range(&from[..]..&to[..]).map_err(fjall::Error::from)?;
        self.memtables.dead().add(self.keyspace.name(), self.partition, from, to);
        Ok(())
    }

    /// Merges everything that the keyspace has.
    #[cfg(test)]
    pub(crate) fn merge(&self) {
        self.keyspace.rotate_memtable_and_wait().expect("a working disk");
        self.keyspace.major_compact().expect("a working disk");
    }

    /// Removes keys of the database, so many at once.
    fn remove_range(&self, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        let mut batch = DiskBatch::new(&self.memtables);
        for guard in self.keyspace.range(from..to) {
            batch.batch.remove(&self.keyspace, guard.key()?);
            if batch.batch.len() >= CLEARED_AT_ONCE {
                std::mem::replace(&mut batch, DiskBatch::new(&self.memtables)).commit()?;
            }
        }
        batch.commit()
    }

    /// The first pairs within bounds that have so many bytes together, at least one, and whether these are all.
    pub(crate) fn page(
        &mut self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        bytes_max: usize,
    ) -> Result<(Vec<(Bytes, Bytes)>, bool), StoreError> {
        if is_empty_range(&from, &to) {
            return Ok((Vec::new(), true));
        }
        self.settle();
        let (mut pairs, mut bytes) = (Vec::new(), 0_usize);
        let mut newer = self.uncommitted.range::<[u8], _>((from, to)).peekable();
        let mut older = self.keyspace.range(self.data_range(from, to));
        let mut stored = None;
        loop {
            if bytes >= bytes_max {
                return Ok((pairs, false));
            }
            if stored.is_none() {
                stored = match older.next() {
                    Some(guard) => {
                        let (key, value) = guard.into_inner()?;
                        Some((Bytes::from(key).slice(PREFIX..), Bytes::from(value)))
                    }
                    None => None,
                };
            }
            // What was written since stands before, or instead.
            let pair = match &stored {
                Some((key, _)) => match newer.next_if(|(new, _)| **new <= *key) {
                    Some((new, value)) => {
                        if *new == *key {
                            stored = None;
                        }
                        value.clone().map(|value| (new.clone(), value))
                    }
                    None => stored.take(),
                },
                None => match newer.next() {
                    Some((new, value)) => value.clone().map(|value| (new.clone(), value)),
                    None => return Ok((pairs, true)),
                },
            };
            if let Some((key, value)) = pair {
                bytes = bytes.saturating_add(key.len() + value.len());
                pairs.push((key, value));
            }
        }
    }

    /// The last key within `from..to`.
    pub(crate) fn last_key(&mut self, from: &[u8], to: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        self.settle();
        let mut newer = self.uncommitted.range::<[u8], _>(bounds).rev();
        let newest = newer.find(|(_, value)| value.is_some()).map(|(key, _)| key);
        for guard in self.keyspace.range(self.data_range(bounds.0, bounds.1)).rev() {
            let key = Bytes::from(guard.key()?).slice(PREFIX..);
            if !matches!(self.uncommitted.get(&key), Some(None)) {
                return Ok(newest.max(Some(&key)).map(|key| Bytes::copy_from_slice(key)));
            }
        }
        Ok(newest.cloned())
    }

    /// Bounds as they stand in the database.
    fn data_range(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> (Bound<Bytes>, Bound<Bytes>) {
        let start = match from.map(|key| data_key(self.partition, key)) {
            Bound::Unbounded => Bound::Included(data_key(self.partition, &[])),
            bounded => bounded,
        };
        let end = match to.map(|key| data_key(self.partition, key)) {
            Bound::Unbounded => Bound::Excluded(end_key(self.partition)),
            bounded => bounded,
        };
        (start, end)
    }

    /// A second way to the same data, for what is read and written besides it.
    pub(crate) fn share(&self) -> Self {
        Self::new(self.memtables.clone(), self.keyspace.clone(), self.partition)
    }
}

impl Backend for DiskBackend {
    fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.settle();
        if let Some(value) = self.uncommitted.get(key) {
            return Ok(value.clone());
        }
        self.key.clear();
        put_data_key(&mut self.key, self.partition, key);
        // A copy, because what the database gives keeps its whole block in memory.
        Ok(self.keyspace.get(&self.key)?.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn put(&mut self, key: Bytes, value: Option<Bytes>) {
        if self.arrived.is_empty() {
            self.write(key, value);
        } else {
            self.restore(&key, value.as_deref().map(|value| [value, &[]]));
        }
    }

    fn restore(&mut self, key: &[u8], value: Option<[&[u8]; 2]>) {
        self.arrived.push(self.partition, key, value);
    }

    fn disk(&mut self) -> Option<&mut DiskBackend> {
        Some(self)
    }

    fn range(
        &mut self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        Ok(self.page(from, to, usize::MAX)?.0)
    }

    #[cfg(test)]
    fn entries(&mut self) -> Result<usize, StoreError> {
        self.settle();
        let mut entries = 0;
        for guard in self.keyspace.range(data_key(self.partition, &[])..end_key(self.partition)) {
            let key = Bytes::from(guard.key()?);
            if !self.uncommitted.contains_key(&key[PREFIX..]) {
                entries += 1;
            }
        }
        Ok(entries + self.uncommitted.values().filter(|value| value.is_some()).count())
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        self.uncommitted.clear();
        self.uncommitted_bytes = 0;
        self.arrived = Arrived::default();
        self.memtables.dead().forget(self.keyspace.name(), self.partition);
        // The position goes first: a crash on the way leaves data without one, which nobody believes.
        self.remove_range(&position_key(self.partition), &end_key(self.partition))
    }

    fn uncommitted_bytes(&self) -> usize {
        self.uncommitted_bytes + self.arrived.bytes()
    }
}

/// The partitions that have something in a keyspace.
pub(super) fn partitions(keyspace: &Keyspace) -> Result<Vec<u32>, StoreError> {
    let mut found = Vec::new();
    let mut next = Some(0_u32);
    while let Some(from) = next {
        let Some(guard) = keyspace.range(position_key(from).to_vec()..).next() else {
            break;
        };
        let key = guard.key()?;
        let Some(prefix) = key.first_chunk::<4>() else {
            break;
        };
        let partition = u32::from_be_bytes(*prefix);
        found.push(partition);
        next = partition.checked_add(1);
    }
    Ok(found)
}

/// Whether a key of the database is that of a position.
pub(super) fn is_position(key: &[u8]) -> bool {
    key.len() == PREFIX && key.last() == Some(&POSITION)
}

pub(super) fn position_key(partition: u32) -> [u8; PREFIX] {
    let [a, b, c, d] = partition.to_be_bytes();
    [a, b, c, d, POSITION]
}

fn data_key(partition: u32, key: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(PREFIX + key.len());
    put_data_key(&mut out, partition, key);
    Bytes::from(out)
}

/// Appends a key as it stands in the database.
pub(super) fn put_data_key(out: &mut Vec<u8>, partition: u32, key: &[u8]) {
    out.put_u32(partition);
    out.put_u8(DATA);
    out.put_slice(key);
}

/// Behind all keys of a partition.
fn end_key(partition: u32) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX);
    out.put_u32(partition);
    out.put_u8(DATA + 1);
    out.freeze()
}

/// Bytes of partition and kind in front of a key.
pub(super) const PREFIX: usize = size_of::<u32>() + 1;
const POSITION: u8 = 0;
const DATA: u8 = 1;
/// What an uncommitted entry costs besides its bytes, roughly.
const OVERHEAD: usize = 96;
/// Keys removed with one batch.
const CLEARED_AT_ONCE: usize = 10_000;
