//! For each key of the uncompacted part of a log, the offset of its last record.
//!
//! Keys are kept as 128-bit hashes, 24 bytes with their offset, so memory does not depend on their
//! length. Two keys with one hash would cost the older of them its value, so collisions must not
//! only be unlikely but out of reach of whoever chooses the keys: Kafka uses MD5, for which
//! collisions can be computed by anybody; here it is SipHash-2-4 with 128 bits under a secret drawn
//! for each compaction. Among the five million keys that 128 MB hold, the chance of a collision is
//! below 10⁻²⁵.
//!
//! The table is open addressing with linear probing. How many records there are bounds how large it
//! can become. If that is well below the limit the table begins small and doubles, because many
//! records often have few keys, and a small table stays in the processor's caches; otherwise it is
//! made in full at once, so that no copy of it ever exceeds the limit.

use std::hash::Hasher;

use fleuve_os::Random;
use siphasher::sip128::{Hash128, Hasher128, SipHasher24};

/// Bytes of one key and its offset.
pub(super) const ENTRY_BYTES: usize = size_of::<Entry>();

/// Places of a table that may grow.
const PLACES_INITIAL: usize = 1024;
/// A table may grow up to one part in this many of the limit: the old and the new one exist
/// together for a moment, and the new one is twice the old.
const GROWTH_SHARE: usize = 2;

const VACANT: Entry = Entry { hash: [0; 2], offset: -1 };

/// The last offset of each key.
#[derive(Debug)]
pub(super) struct OffsetMap {
    entries: Vec<Entry>,
    count: usize,
    count_max: usize,
    /// How many places there may be.
    places_max: usize,
    secret: (u64, u64),
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: [u64; 2],
    /// Negative in a vacant place.
    offset: i64,
}

/// How large a map may become.
#[derive(Clone, Copy, Debug)]
pub(super) struct MapLimits {
    /// Bytes of the table.
    pub(super) bytes: usize,
    /// Share of its places that may be taken.
    pub(super) load_factor: f64,
}

impl OffsetMap {
    /// Makes a map for up to `keys` different keys, or as many as the limits allow.
    pub(super) fn new(keys: u64, limits: MapLimits, random: &dyn Random) -> Self {
        let load_factor = limits.load_factor.clamp(0.01, 0.99);
        let places_max = (limits.bytes / ENTRY_BYTES).max(1);
        let wanted = (keys as f64 / load_factor) as usize;
        // One place more stays vacant, where every search ends.
        let places = wanted.saturating_add(1).min(places_max);
        let count_max = ((places as f64 * load_factor) as usize).min(places - 1);
        let initial = match places <= places_max / GROWTH_SHARE {
            true => places.min(PLACES_INITIAL),
            false => places,
        };
        Self {
            entries: vec![VACANT; initial],
            count: 0,
            count_max: if places < places_max { keys as usize } else { count_max },
            places_max: places,
            secret: (random.next_u64(), random.next_u64()),
        }
    }

    /// Notes the offset of a record with `key`; reports whether there was room for it.
    pub(super) fn put(&mut self, key: &[u8], offset: i64) -> bool {
        // As in Kafka a full map takes no more, even of keys that it knows: the records that count
        // must be a prefix of the log.
        if self.count >= self.count_max {
            return false;
        }
        if self.count >= self.entries.len() / 2 && self.entries.len() < self.places_max {
            self.grow();
        }
        let hash = self.hash(key);
        let place = self.place_of(hash);
        let entry = &mut self.entries[place];
        self.count += usize::from(entry.offset < 0);
        *entry = Entry { hash, offset };
        true
    }

    /// Returns the offset of the last record with `key`.
    pub(super) fn get(&self, key: &[u8]) -> Option<i64> {
        let entry = &self.entries[self.place_of(self.hash(key))];
        (entry.offset >= 0).then_some(entry.offset)
    }

    /// Returns how many keys there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Returns the memory that the table takes.
    pub(super) fn bytes(&self) -> usize {
        self.entries.len() * ENTRY_BYTES
    }

    fn grow(&mut self) {
        let places = (2 * self.entries.len()).min(self.places_max);
        let entries = std::mem::replace(&mut self.entries, vec![VACANT; places]);
        for entry in entries.into_iter().filter(|entry| entry.offset >= 0) {
            let place = self.place_of(entry.hash);
            self.entries[place] = entry;
        }
    }

    /// Finds the place where `hash` is, or the vacant one where it would go.
    fn place_of(&self, hash: [u64; 2]) -> usize {
        let places = self.entries.len();
        let mut place = ((u128::from(hash[0]) * places as u128) >> 64) as usize;
        loop {
            let entry = &self.entries[place];
            if entry.offset < 0 || entry.hash == hash {
                return place;
            }
            place = if place + 1 == places { 0 } else { place + 1 };
        }
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        let mut hasher = SipHasher24::new_with_keys(self.secret.0, self.secret.1);
        hasher.write(key);
        let Hash128 { h1, h2 } = hasher.finish128();
        [h1, h2]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use fleuve_sim::SimRandom;

    use super::*;

    fn map(keys: u64, bytes: usize) -> OffsetMap {
        let limits = MapLimits { bytes, load_factor: 0.9 };
        OffsetMap::new(keys, limits, &SimRandom::seeded(7))
    }

    #[test]
    fn the_last_offset_of_each_key_is_found() {
        let mut map = map(1000, 1 << 20);
        let mut expected = HashMap::new();
        for offset in 0..1000 {
            let key = format!("key {}", offset * 7919 % 333);
            assert!(map.put(key.as_bytes(), offset));
            expected.insert(key, offset);
        }
        assert_eq!(map.len(), 333);
        for (key, offset) in &expected {
            assert_eq!(map.get(key.as_bytes()), Some(*offset), "{key}");
        }
        assert_eq!(map.get(b"another"), None);
        assert_eq!(map.get(b""), None);
    }

    #[test]
    fn memory_follows_the_records_up_to_the_limit() {
        assert!(map(10, 1 << 20).bytes() < 20 * ENTRY_BYTES);
        let mut few = map(36_000, 80_100 * ENTRY_BYTES);
        assert!((0..36_000_i64).all(|offset| few.put(&(offset % 7).to_be_bytes(), offset)));
        assert!(few.bytes() <= PLACES_INITIAL * ENTRY_BYTES);
        let mut many = map(36_000, 80_100 * ENTRY_BYTES);
        assert!((0..36_000_i64).all(|offset| many.put(&offset.to_be_bytes(), offset)));
        assert!((0..36_000_i64).all(|offset| many.get(&offset.to_be_bytes()) == Some(offset)));
        assert!(many.bytes() <= 40_050 * ENTRY_BYTES);
        let mut full = map(1 << 40, 100 * ENTRY_BYTES);
        assert_eq!(full.bytes(), 100 * ENTRY_BYTES);
        let taken = (0..200_i64).take_while(|offset| full.put(&offset.to_be_bytes(), *offset));
        assert_eq!(taken.count(), 90);
        assert!(!full.put(&5_i64.to_be_bytes(), 300), "known keys are refused as well");
        assert_eq!(full.get(&5_i64.to_be_bytes()), Some(5));
        assert_eq!(full.get(b"unknown"), None, "a search ends in a full map");
    }

    #[test]
    fn a_map_without_room_takes_nothing() {
        let mut empty = map(5, 0);
        assert!(!empty.put(b"key", 1));
        assert_eq!(empty.get(b"key"), None);
    }
}
