//! The write-back cache in front of a backend: typed values by key bytes.
//!
//! It makes an update of a hot key cost a hash lookup and no serialization, and it coalesces what tables send
//! downstream: between two flushes each dirty key is forwarded once. Dirty keys are flushed in the order of their last
//! writes, as Kafka Streams' cache does.
//!
//! Entries stand in a row, and are found by a table of their places: a flush goes from place to place without looking
//! keys up. With exactly once it does so ten times a second.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::Stamped;
use crate::record::Headers;
use crate::runtime::Origin;

/// Values read or written since the cache was last emptied.
pub(crate) struct Cache<V> {
    entries: Vec<Entry<V>>,
    /// Where the entry of a key stands.
    places: HashTable<usize>,
    hasher: DefaultHashBuilder,
    /// The place that was found last: a write mostly follows a read of its key.
    last: usize,
    /// Places of dirty entries.
    dirty: Vec<usize>,
    /// What a flush has yet to do: numbers of last writes and places, the next one last.
    due: Vec<(u64, usize)>,
    /// Counts writes.
    writes: u64,
    bytes: usize,
}

/// One cached key.
pub(crate) struct Entry<V> {
    pub(crate) key: Box<[u8]>,
    /// The value; `None` is a deleted or absent key.
    pub(crate) value: Option<Stamped<V>>,
    /// The input record that wrote it last, if the backend does not have it yet.
    dirty: Option<Origin>,
    /// The number of its last write.
    written: u64,
}

/// What the backend does not have yet of a key.
pub(crate) struct Due<'a, V> {
    pub(crate) key: &'a [u8],
    pub(crate) value: Option<Stamped<V>>,
    pub(crate) origin: Origin,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            places: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            last: 0,
            dirty: Vec::new(),
            due: Vec::new(),
            writes: 0,
            bytes: 0,
        }
    }
}

impl<V> Cache<V> {
    pub(crate) fn get(&mut self, key: &[u8]) -> Option<&Entry<V>> {
        let place = self.find(key)?;
        Some(&self.entries[place])
    }

    /// Remembers what the backend has of a key that is not cached.
    pub(crate) fn fill(&mut self, key: &[u8], value: Option<Stamped<V>>) {
        self.insert(key, value);
    }

    /// Writes a key, because of a record with this time and headers made of the origin; the backend hears of it at the
    /// next flush.
    pub(crate) fn write(
        &mut self,
        key: &[u8],
        value: Option<Stamped<V>>,
        (origin, timestamp, headers): (&Origin, i64, &Headers),
    ) {
        let place = match self.find(key) {
            Some(place) => {
                self.entries[place].value = value;
                place
            }
            None => self.insert(key, value),
        };
        self.writes += 1;
        let entry = &mut self.entries[place];
        entry.written = self.writes;
        match &mut entry.dirty {
            Some(dirty) => dirty.follow(origin, timestamp, headers),
            None => {
                entry.dirty = Some(origin.at(timestamp, headers));
                self.dirty.push(place);
            }
        }
    }

    /// Begins to flush what is dirty now, behind what a flush before has left.
    pub(crate) fn begin_flush(&mut self) {
        let entries = &self.entries;
        self.due.extend(self.dirty.drain(..).map(|place| (entries[place].written, place)));
        self.due.sort_unstable_by(|one, other| other.cmp(one));
    }

    /// Whether a flush has been begun and not come to its end.
    pub(crate) fn is_flushing(&self) -> bool {
        !self.due.is_empty()
    }

    /// What is to be flushed next, which counts as clean from now on.
    pub(crate) fn next_due(&mut self) -> Option<Due<'_, V>>
    where
        V: Clone,
    {
        let (_, place) = self.due.pop()?;
        let entry = &mut self.entries[place];
        let origin = entry.dirty.take().expect("only a flush cleans entries, and each once");
        Some(Due { key: &entry.key, value: entry.value.clone(), origin })
    }

    /// All cached keys with their values, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry<V>> {
        self.entries.iter()
    }

    /// Forgets clean entries. Called after a flush, when the budget is used up.
    pub(crate) fn forget_clean(&mut self) {
        self.entries.retain(|entry| entry.dirty.is_some());
        self.places.clear();
        self.dirty.clear();
        self.due.clear();
        self.bytes = 0;
        for (place, entry) in self.entries.iter().enumerate() {
            let hash = self.hasher.hash_one(&entry.key[..]);
            let hash_of = |place: &usize| self.hasher.hash_one(&self.entries[*place].key[..]);
            self.places.insert_unique(hash, place, hash_of);
            self.dirty.push(place);
            self.bytes += Self::size(&entry.key);
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn find(&mut self, key: &[u8]) -> Option<usize> {
        if self.entries.get(self.last).is_some_and(|entry| *entry.key == *key) {
            return Some(self.last);
        }
        let entries = &self.entries;
        let hash = self.hasher.hash_one(key);
        self.last = *self.places.find(hash, |place| *entries[*place].key == *key)?;
        Some(self.last)
    }

    /// Adds a key that is not there, and returns its place.
    fn insert(&mut self, key: &[u8], value: Option<Stamped<V>>) -> usize {
        let hash = self.hasher.hash_one(key);
        let place = self.entries.len();
        self.bytes += Self::size(key);
        self.entries.push(Entry { key: key.into(), value, dirty: None, written: 0 });
        let (entries, hasher) = (&self.entries, &self.hasher);
        let hash_of = |place: &usize| hasher.hash_one(&entries[*place].key[..]);
        self.places.insert_unique(hash, place, hash_of);
        self.last = place;
        place
    }

    /// What an entry costs, without the heap behind a value, which only its type knows.
    fn size(key: &[u8]) -> usize {
        key.len() + size_of::<Entry<V>>() + 2 * size_of::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn origin(offset: i64) -> Origin {
        Origin {
            topic: Arc::from("in"),
            partition: 0,
            offset,
            timestamp: offset,
            headers: Headers::default(),
        }
    }

    fn write(cache: &mut Cache<i64>, key: &str, value: i64) {
        let stamped = Stamped { value, timestamp: value };
        cache.write(key.as_bytes(), Some(stamped), (&origin(value), value, &Headers::default()));
    }

    /// Keys, values and offsets of what is due, up to so many.
    fn due(cache: &mut Cache<i64>, limit: usize) -> Vec<(Box<[u8]>, i64, i64)> {
        let shown = std::iter::from_fn(|| {
            let due = cache.next_due()?;
            let value = due.value.map_or(0, |stamped| stamped.value);
            Some((due.key.into(), value, due.origin.offset))
        });
        shown.take(limit).collect()
    }

    fn key(text: &str) -> Box<[u8]> {
        text.as_bytes().into()
    }

    #[test]
    fn dirty_keys_are_flushed_once_in_the_order_of_their_last_writes() {
        let mut cache = Cache::default();
        for (name, value) in [("a", 1), ("b", 2), ("c", 3), ("a", 4), ("b", 5)] {
            write(&mut cache, name, value);
        }
        cache.begin_flush();
        assert_eq!(due(&mut cache, 9), [(key("c"), 3, 3), (key("a"), 4, 4), (key("b"), 5, 5)]);
        assert!(!cache.is_flushing());
        cache.begin_flush();
        assert!(!cache.is_flushing(), "nothing was written since");
        write(&mut cache, "c", 6);
        cache.begin_flush();
        assert_eq!(due(&mut cache, 9), [(key("c"), 6, 6)]);
    }

    #[test]
    fn what_is_written_during_a_flush_waits_for_the_next_one() {
        let mut cache = Cache::default();
        write(&mut cache, "a", 1);
        write(&mut cache, "b", 2);
        cache.begin_flush();
        assert_eq!(due(&mut cache, 1), [(key("a"), 1, 1)]);
        write(&mut cache, "a", 3);
        assert!(cache.is_flushing());
        assert_eq!(due(&mut cache, 9), [(key("b"), 2, 2)]);
        cache.begin_flush();
        assert_eq!(due(&mut cache, 9), [(key("a"), 3, 3)]);
    }

    #[test]
    fn clean_keys_are_forgotten_and_dirty_ones_found_again() {
        let mut cache = Cache::default();
        for number in 0..100 {
            write(&mut cache, &format!("key-{number}"), number);
        }
        cache.begin_flush();
        assert_eq!(due(&mut cache, 200).len(), 100);
        let full = cache.bytes();
        write(&mut cache, "key-70", 170);
        write(&mut cache, "new", 171);
        cache.forget_clean();
        assert_eq!((cache.iter().count(), cache.bytes() < full / 10), (2, true));
        assert!(cache.get(b"key-3").is_none());
        let found = |cache: &mut Cache<i64>, key: &str| {
            let entry = cache.get(key.as_bytes())?;
            entry.value.as_ref().map(|stamped| stamped.value)
        };
        assert_eq!(found(&mut cache, "key-70"), Some(170));
        assert_eq!(found(&mut cache, "new"), Some(171));
        cache.begin_flush();
        assert_eq!(due(&mut cache, 9).len(), 2);
    }
}
