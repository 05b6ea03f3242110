//! The values of one window by key, as a window store keeps them.
//!
//! Looked up by hash, because that is what happens for every record; in the order of keys only where all of a window
//! is asked for, which sorts it then.
//!
//! There are as many of them as keys times windows, so that every word counts: keys stand in a row, each with its value
//! and no spare room around it, and are found by a table of their places.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

/// Slots by key bytes.
pub(super) struct WindowSlots<S> {
    keys: Vec<OfKey<S>>,
    /// Where each key stands.
    places: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

/// Where the slot of a key stands, until a key is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotPlace(pub(super) u32);

struct OfKey<S> {
    key: Box<[u8]>,
    slot: S,
}

impl<S> Default for WindowSlots<S> {
    fn default() -> Self {
        Self { keys: Vec::new(), places: HashTable::new(), hasher: DefaultHashBuilder::default() }
    }
}

impl<S> WindowSlots<S> {
    /// Where the slot of a key stands.
    pub(super) fn find(&self, key: &[u8]) -> Option<SlotPlace> {
        let hash = self.hasher.hash_one(key);
        self.places.find(hash, |place| *self.at(*place).key == *key).copied().map(SlotPlace)
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&S> {
        let SlotPlace(place) = self.find(key)?;
        Some(&self.at(place).slot)
    }

    /// The slot at a place, with its key.
    pub(super) fn get_at(&mut self, SlotPlace(place): SlotPlace) -> Option<(&[u8], &mut S)> {
        let of_key = self.keys.get_mut(place as usize)?;
        Some((&of_key.key, &mut of_key.slot))
    }

    /// Sets a slot, in place of one of the same key.
    pub(super) fn insert(&mut self, key: &[u8], slot: S) -> SlotPlace {
        if let Some(place) = self.find(key) {
            self.keys[place.0 as usize].slot = slot;
            return place;
        }
        let place = u32::try_from(self.keys.len()).expect("so many keys do not fit into memory");
        self.keys.push(OfKey { key: key.into(), slot });
        let Self { keys, hasher, .. } = self;
        let hash_of = |place: &u32| hasher.hash_one(&*keys[*place as usize].key);
        self.places.insert_unique(hasher.hash_one(key), place, hash_of);
        SlotPlace(place)
    }

    /// Removes a slot. The places of other keys change.
    pub(super) fn remove(&mut self, key: &[u8]) {
        let Some(SlotPlace(place)) = self.find(key) else {
            return;
        };
        self.unlist(key, place);
        let last = (self.keys.len() - 1) as u32;
        if last != place {
            let hash = self.hasher.hash_one(&*self.keys[last as usize].key);
            if let Some(moved) = self.places.find_mut(hash, |found| *found == last) {
                *moved = place;
            }
        }
        self.keys.swap_remove(place as usize);
    }

    fn unlist(&mut self, key: &[u8], place: u32) {
        let hash = self.hasher.hash_one(key);
        if let Ok(found) = self.places.find_entry(hash, |found| *found == place) {
            found.remove();
        }
    }

    /// The slots of these keys with their keys, by key.
    pub(super) fn sorted(
        &self,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> impl Iterator<Item = (&[u8], &S)> {
        let mut keys: Vec<&OfKey<S>> =
            self.keys.iter().filter(|of_key| wanted(&of_key.key)).collect();
        keys.sort_unstable_by_key(|of_key| &of_key.key);
        keys.into_iter().map(|of_key| (&*of_key.key, &of_key.slot))
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Gives back the room for more keys, because there will hardly be any. Returns whether there was any.
    pub(super) fn shrink(&mut self) -> bool {
        if self.keys.len() == self.keys.capacity() {
            return false;
        }
        self.keys.shrink_to_fit();
        let Self { keys, hasher, .. } = self;
        self.places.shrink_to_fit(|place| hasher.hash_one(&*keys[*place as usize].key));
        true
    }

    fn at(&self, place: u32) -> &OfKey<S> {
        &self.keys[place as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The slot of a key.
    fn at<'a, S>(slots: &'a mut WindowSlots<S>, key: &[u8]) -> Option<&'a mut S> {
        let place = slots.find(key)?;
        let (found, slot) = slots.get_at(place)?;
        assert_eq!(found, key);
        Some(slot)
    }

    #[test]
    fn keys_stand_by_their_bytes_each_with_its_newest_value() {
        let mut slots = WindowSlots::default();
        for (name, value) in [("b", "b0"), ("a", "a0"), ("c", "c0"), ("b", "b1")] {
            slots.insert(name.as_bytes(), value);
        }
        let all: Vec<&str> = slots.sorted(|_| true).map(|(_, slot)| *slot).collect();
        assert_eq!(all, ["a0", "b1", "c0"]);
        let before_b: Vec<&[u8]> =
            slots.sorted(|key| key < &b"b"[..]).map(|(key, _)| key).collect();
        assert_eq!(before_b, [b"a"]);
        assert_eq!((slots.get(b"b"), slots.get(b"d"), slots.len()), (Some(&"b1"), None, 3));
        *at(&mut slots, b"b").expect("there") = "new";
        assert_eq!(slots.get(b"b"), Some(&"new"));
        slots.remove(b"b");
        slots.remove(b"d");
        assert_eq!((slots.get(b"b"), slots.get(b"c"), slots.len()), (None, Some(&"c0"), 2));
    }

    #[test]
    fn keys_are_found_after_others_were_removed_and_room_given_back() {
        let mut slots = WindowSlots::default();
        let key = |number: usize| format!("key-{number}").into_bytes();
        for number in 0..1_000 {
            slots.insert(&key(number), number);
        }
        for number in (0..1_000).step_by(3) {
            slots.remove(&key(number));
        }
        assert!(slots.shrink());
        assert!(!slots.shrink(), "there is no more");
        slots.insert(&key(0), 7);
        for number in 0..1_000 {
            let expected = if number == 0 { Some(7) } else { (number % 3 > 0).then_some(number) };
            assert_eq!(at(&mut slots, &key(number)).copied(), expected, "{number}");
        }
        assert_eq!(slots.len(), 1_000 - 334 + 1);
    }
}
