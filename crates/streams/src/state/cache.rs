//! The write-back cache in front of a backend: typed values by key bytes.
//!
//! It makes an update of a hot key cost a hash lookup and no serialization, and it coalesces what tables send
//! downstream: between two flushes each dirty key is forwarded once. Dirty keys are flushed in the order of their last
//! writes, as Kafka Streams' cache does.

use bytes::Bytes;
use hashbrown::HashMap;

use super::Stamped;
use crate::record::Headers;
use crate::runtime::Origin;

/// Values read or written since the cache was last emptied.
pub(crate) struct Cache<V> {
    entries: HashMap<Bytes, Entry<V>>,
    dirty: Vec<Bytes>,
    /// Counts writes.
    writes: u64,
    bytes: usize,
}

/// One cached key.
pub(crate) struct Entry<V> {
    /// The value; `None` is a deleted or absent key.
    pub(crate) value: Option<Stamped<V>>,
    /// The input record that wrote it last, if the backend does not have it yet.
    pub(crate) dirty: Option<Box<Origin>>,
    /// The number of its last write.
    written: u64,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), dirty: Vec::new(), writes: 0, bytes: 0 }
    }
}

impl<V> Cache<V> {
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Entry<V>> {
        self.entries.get(key)
    }

    /// Remembers what the backend has.
    pub(crate) fn fill(&mut self, key: Bytes, value: Option<Stamped<V>>) {
        self.bytes += Self::size(&key);
        self.entries.insert(key, Entry { value, dirty: None, written: 0 });
    }

    /// Writes a key, because of a record with this time and headers made of the origin; the backend hears of it at the
    /// next flush.
    pub(crate) fn write(
        &mut self,
        key: &[u8],
        value: Option<Stamped<V>>,
        (origin, timestamp, headers): (&Origin, i64, &Headers),
    ) {
        self.writes += 1;
        let written = self.writes;
        if let Some(entry) = self.entries.get_mut(key) {
            entry.value = value;
            entry.written = written;
            match &mut entry.dirty {
                Some(dirty) => dirty.follow(origin, timestamp, headers),
                None => {
                    entry.dirty = Some(Box::new(origin.at(timestamp, headers)));
                    self.dirty.push(Bytes::copy_from_slice(key));
                }
            }
            return;
        }
        let key = Bytes::copy_from_slice(key);
        self.bytes += Self::size(&key);
        self.dirty.push(key.clone());
        let dirty = Some(Box::new(origin.at(timestamp, headers)));
        self.entries.insert(key, Entry { value, dirty, written });
    }

    /// The dirty keys by their last writes; the caller cleans them.
    pub(crate) fn take_dirty(&mut self) -> Vec<Bytes> {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_by_cached_key(|key| self.entries.get(key).map(|entry| entry.written));
        dirty
    }

    /// Takes the mark off a key and gives what it holds.
    pub(crate) fn clean(&mut self, key: &[u8]) -> Option<(&Option<Stamped<V>>, Box<Origin>)> {
        let entry = self.entries.get_mut(key)?;
        let origin = entry.dirty.take()?;
        Some((&entry.value, origin))
    }

    /// All cached keys with their values, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Bytes, &Entry<V>)> {
        self.entries.iter()
    }

    /// Forgets clean entries. Called after a flush, when the budget is used up.
    pub(crate) fn forget_clean(&mut self) {
        self.entries.retain(|_, entry| entry.dirty.is_some());
        self.bytes = self.entries.keys().map(Self::size).sum();
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What an entry costs, without the heap behind a value, which only its type knows.
    fn size(key: &Bytes) -> usize {
        key.len() + size_of::<Bytes>() + size_of::<Entry<V>>() + size_of::<Origin>()
    }
}
