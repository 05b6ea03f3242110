//! One store of one task in the database, with what was written since the last commit in front of it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use fjall::{AbstractTree, Keyspace, OwnedWriteBatch, PersistMode};

use super::Position;
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
    /// A key as it stands in the database.
    key: Vec<u8>,
}

/// Writes that become durable together.
pub struct DiskBatch {
    memtables: Arc<Memtables>,
    batch: OwnedWriteBatch,
    bytes: u64,
}

impl DiskBatch {
    fn new(memtables: &Arc<Memtables>) -> Self {
        Self { memtables: memtables.clone(), batch: memtables.database().batch(), bytes: 0 }
    }

    /// Hands everything to the system: no crash of ours takes it back.
    pub(crate) fn commit(self) -> Result<(), StoreError> {
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
            key: Vec::new(),
        }
    }

    /// The position that the data belong to.
    pub(crate) fn position(&self) -> Result<Option<Position>, StoreError> {
        let bytes = self.keyspace.get(position_key(self.partition))?;
        Ok(bytes.and_then(|bytes| Position::of_bytes(&bytes)))
    }

    /// Adds the position to a batch.
    pub(crate) fn set_position(&self, batch: &mut DiskBatch, position: Position) {
        let key = position_key(self.partition);
        batch.batch.insert(&self.keyspace, key.to_vec(), position.to_bytes());
    }

    /// A batch for this store and its neighbours.
    pub(crate) fn batch(&self) -> DiskBatch {
        DiskBatch::new(&self.memtables)
    }

    /// Removes the keys within `from..to` for good, whatever was committed: files with nothing else in them as a whole,
    /// the rest key by key. Only for what nobody asks for any more, not even after a crash.
    pub(crate) fn drop_range(&mut self, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        if is_empty_range(&bounds.0, &bounds.1) {
            return Ok(());
        }
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
        self.remove_range(&from, &to)
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

    /// A second way to the same data, for what is read and written besides it.
    pub(crate) fn share(&self) -> Self {
        Self::new(self.memtables.clone(), self.keyspace.clone(), self.partition)
    }
}

impl Backend for DiskBackend {
    fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if let Some(value) = self.uncommitted.get(key) {
            return Ok(value.clone());
        }
        self.key.clear();
        self.key.put_u32(self.partition);
        self.key.put_u8(DATA);
        self.key.extend_from_slice(key);
        // A copy, because what the database gives keeps its whole block in memory.
        Ok(self.keyspace.get(&self.key)?.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn put(&mut self, key: Bytes, value: Option<Bytes>) {
        let size = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        self.uncommitted_bytes += key.len() + OVERHEAD + size(&value);
        let key_size = key.len() + OVERHEAD;
        if let Some(before) = self.uncommitted.insert(key, value) {
            self.uncommitted_bytes -= key_size + size(&before);
        }
    }

    fn range(
        &mut self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        if is_empty_range(&from, &to) {
            return Ok(Vec::new());
        }
        let start = from.map(|key| data_key(self.partition, key));
        let start = match start {
            Bound::Unbounded => Bound::Included(data_key(self.partition, &[])),
            bounded => bounded,
        };
        let end = match to.map(|key| data_key(self.partition, key)) {
            Bound::Unbounded => Bound::Excluded(end_key(self.partition)),
            bounded => bounded,
        };
        let mut pairs = Vec::new();
        let mut newer = self.uncommitted.range::<[u8], _>((from, to)).peekable();
        for guard in self.keyspace.range((start, end)) {
            let (key, value) = guard.into_inner()?;
            let key = Bytes::from(key).slice(PREFIX..);
            // What was written since stands before, or instead.
            while let Some((new, value)) = newer.next_if(|(new, _)| **new < key) {
                pairs.extend(value.clone().map(|value| (new.clone(), value)));
            }
            match newer.next_if(|(new, _)| **new == key) {
                Some((_, value)) => pairs.extend(value.clone().map(|value| (key, value))),
                None => pairs.push((key, Bytes::from(value))),
            }
        }
        for (new, value) in newer {
            pairs.extend(value.clone().map(|value| (new.clone(), value)));
        }
        Ok(pairs)
    }

    fn entries(&mut self) -> Result<usize, StoreError> {
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
        // The position goes first: a crash on the way leaves data without one, which nobody believes.
        self.remove_range(&position_key(self.partition), &end_key(self.partition))
    }

    fn uncommitted_bytes(&self) -> usize {
        self.uncommitted_bytes
    }

    fn ingest(&mut self) -> Result<(), StoreError> {
        if self.uncommitted_bytes < INGESTED_MIN {
            return Ok(());
        }
        self.uncommitted_bytes = 0;
        let mut ingestion = self.keyspace.start_ingestion()?;
        for (key, value) in std::mem::take(&mut self.uncommitted) {
            let key = fjall::Slice::from(data_key(self.partition, &key));
            match value {
                Some(value) => ingestion.write(key, value)?,
                None => ingestion.write_tombstone(key)?,
            }
        }
        Ok(ingestion.finish()?)
    }

    fn commit_into(&mut self, batch: &mut DiskBatch) {
        self.uncommitted_bytes = 0;
        for (key, value) in std::mem::take(&mut self.uncommitted) {
            let key = fjall::Slice::from(data_key(self.partition, &key));
            batch.bytes += (key.len() + value.as_ref().map_or(0, Bytes::len) + OVERHEAD) as u64;
            match value {
                Some(value) => batch.batch.insert(&self.keyspace, key, value),
                None => batch.batch.remove(&self.keyspace, key),
            }
        }
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

fn position_key(partition: u32) -> [u8; PREFIX] {
    let [a, b, c, d] = partition.to_be_bytes();
    [a, b, c, d, POSITION]
}

fn data_key(partition: u32, key: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX + key.len());
    out.put_u32(partition);
    out.put_u8(DATA);
    out.put_slice(key);
    out.freeze()
}

/// Behind all keys of a partition.
fn end_key(partition: u32) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX);
    out.put_u32(partition);
    out.put_u8(DATA + 1);
    out.freeze()
}

/// Bytes of partition and kind in front of a key.
const PREFIX: usize = size_of::<u32>() + 1;
const POSITION: u8 = 0;
const DATA: u8 = 1;
/// What an uncommitted entry costs besides its bytes, roughly.
const OVERHEAD: usize = 96;
/// Less than this is not worth a table of its own.
const INGESTED_MIN: usize = 1 << 20;
/// Keys removed with one batch.
const CLEARED_AT_ONCE: usize = 10_000;
