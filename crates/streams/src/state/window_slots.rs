//! The values of one window by key, as a window store keeps them.
//!
//! Looked up by hash, because that is what happens for every record; in the order of keys only where all of a window
//! is asked for, which sorts it then.
//!
//! There are as many of them as keys times windows, so that every word counts: keys stand in a row, each with its values
//! and no spare room around it, and are found by a table of their places.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

/// Slots by key bytes, and by a number that tells duplicates of a key apart.
pub(super) struct WindowSlots<S> {
    keys: Vec<OfKey<S>>,
    /// Where each key stands.
    places: HashTable<u32>,
    hasher: DefaultHashBuilder,
    count: usize,
}

/// Where the slots of a key stand, until a key is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotPlace(u32);

struct OfKey<S> {
    key: Box<[u8]>,
    slots: Numbered<S>,
}

/// Slots with their numbers, which ascend. Only stores of joins have more than one of a key.
enum Numbered<S> {
    One(u32, S),
    Many(Vec<(u32, S)>),
}

impl<S> Default for WindowSlots<S> {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            places: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            count: 0,
        }
    }
}

impl<S> WindowSlots<S> {
    /// Where the slots of a key stand.
    pub(super) fn find(&self, key: &[u8]) -> Option<SlotPlace> {
        let hash = self.hasher.hash_one(key);
        self.places.find(hash, |place| *self.at(*place).key == *key).copied().map(SlotPlace)
    }

    pub(super) fn get(&self, key: &[u8], number: u32) -> Option<&S> {
        let SlotPlace(place) = self.find(key)?;
        self.at(place).slots.get(number)
    }

    /// The slot of a number at a place, with its key.
    pub(super) fn get_at(
        &mut self,
        SlotPlace(place): SlotPlace,
        number: u32,
    ) -> Option<(&[u8], &mut S)> {
        let of_key = self.keys.get_mut(place as usize)?;
        Some((&of_key.key, of_key.slots.get_mut(number)?))
    }

    /// Sets a slot, in place of one of the same key and number.
    pub(super) fn insert(&mut self, key: &[u8], number: u32, slot: S) -> SlotPlace {
        if let Some(place) = self.find(key) {
            self.count += usize::from(self.keys[place.0 as usize].slots.insert(number, slot));
            return place;
        }
        let place = u32::try_from(self.keys.len()).expect("so many keys do not fit into memory");
        if self.keys.is_empty() {
            // In a store of a join it will be the only one.
            self.keys.reserve_exact(1);
        }
        self.keys.push(OfKey { key: key.into(), slots: Numbered::One(number, slot) });
        self.count += 1;
        let Self { keys, hasher, .. } = self;
        let hash_of = |place: &u32| hasher.hash_one(&*keys[*place as usize].key);
        self.places.insert_unique(hasher.hash_one(key), place, hash_of);
        SlotPlace(place)
    }

    /// Removes a slot. The places of other keys change.
    pub(super) fn remove(&mut self, key: &[u8], number: u32) {
        let Some(SlotPlace(place)) = self.find(key) else {
            return;
        };
        match &mut self.keys[place as usize].slots {
            Numbered::One(only, _) if *only == number => {}
            Numbered::One(..) => return,
            Numbered::Many(slots) => {
                if let Ok(at) = slots.binary_search_by_key(&number, |(number, _)| *number) {
                    slots.remove(at);
                    self.count -= 1;
                }
                return;
            }
        }
        self.unlist(key, place);
        let last = (self.keys.len() - 1) as u32;
        if last != place {
            let hash = self.hasher.hash_one(&*self.keys[last as usize].key);
            if let Some(moved) = self.places.find_mut(hash, |found| *found == last) {
                *moved = place;
            }
        }
        self.keys.swap_remove(place as usize);
        self.count -= 1;
    }

    fn unlist(&mut self, key: &[u8], place: u32) {
        let hash = self.hasher.hash_one(key);
        if let Ok(found) = self.places.find_entry(hash, |found| *found == place) {
            found.remove();
        }
    }

    /// The slots of a key by their numbers.
    pub(super) fn of_key(&self, key: &[u8]) -> impl Iterator<Item = &S> {
        let of_key = self.find(key).map(|SlotPlace(place)| self.at(place));
        of_key.into_iter().flat_map(|of_key| of_key.slots.iter()).map(|(_, slot)| slot)
    }

    /// The slots of these keys with their keys, by key and number.
    pub(super) fn sorted(
        &self,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> impl Iterator<Item = (&[u8], &S)> {
        let mut keys: Vec<&OfKey<S>> =
            self.keys.iter().filter(|of_key| wanted(&of_key.key)).collect();
        keys.sort_unstable_by_key(|of_key| &of_key.key);
        keys.into_iter()
            .flat_map(|of_key| of_key.slots.iter().map(move |(_, slot)| (&*of_key.key, slot)))
    }

    pub(super) fn len(&self) -> usize {
        self.count
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

impl<S> Numbered<S> {
    fn get(&self, number: u32) -> Option<&S> {
        match self {
            Self::One(only, slot) => (*only == number).then_some(slot),
            Self::Many(slots) => {
                let at = slots.binary_search_by_key(&number, |(number, _)| *number).ok()?;
                Some(&slots[at].1)
            }
        }
    }

    fn get_mut(&mut self, number: u32) -> Option<&mut S> {
        match self {
            Self::One(only, slot) => (*only == number).then_some(slot),
            Self::Many(slots) => {
                let at = slots.binary_search_by_key(&number, |(number, _)| *number).ok()?;
                Some(&mut slots[at].1)
            }
        }
    }

    /// Sets the slot of a number. Returns whether there was none.
    fn insert(&mut self, number: u32, slot: S) -> bool {
        if let Some(old) = self.get_mut(number) {
            *old = slot;
            return false;
        }
        let mut slots = match std::mem::replace(self, Self::Many(Vec::new())) {
            Self::One(only, old) => vec![(only, old)],
            Self::Many(slots) => slots,
        };
        let at = slots.partition_point(|(other, _)| *other < number);
        slots.insert(at, (number, slot));
        *self = Self::Many(slots);
        true
    }

    fn iter(&self) -> impl Iterator<Item = (u32, &S)> {
        let (one, many) = match self {
            Self::One(number, slot) => (Some((*number, slot)), &[][..]),
            Self::Many(slots) => (None, &slots[..]),
        };
        one.into_iter().chain(many.iter().map(|(number, slot)| (*number, slot)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The slot of a key and number.
    fn at<'a, S>(slots: &'a mut WindowSlots<S>, key: &[u8], number: u32) -> Option<&'a mut S> {
        let place = slots.find(key)?;
        let (found, slot) = slots.get_at(place, number)?;
        assert_eq!(found, key);
        Some(slot)
    }

    #[test]
    fn slots_of_a_key_stand_by_number_and_keys_by_their_bytes() {
        let mut slots = WindowSlots::default();
        for (name, number, value) in
            [("b", 3, "b3"), ("a", 0, "a0"), ("b", 1, "b1"), ("b", 2, "b2")]
        {
            slots.insert(name.as_bytes(), number, value);
        }
        let all: Vec<&str> = slots.sorted(|_| true).map(|(_, slot)| *slot).collect();
        assert_eq!(all, ["a0", "b1", "b2", "b3"]);
        let before_b: Vec<&[u8]> =
            slots.sorted(|key| key < &b"b"[..]).map(|(key, _)| key).collect();
        assert_eq!(before_b, [b"a"]);
        assert_eq!(slots.of_key(b"b").copied().collect::<Vec<_>>(), ["b1", "b2", "b3"]);
        assert_eq!((slots.get(b"b", 2), slots.get(b"b", 4), slots.len()), (Some(&"b2"), None, 4));
        *at(&mut slots, b"b", 2).expect("there") = "new";
        assert_eq!(slots.get(b"b", 2), Some(&"new"));
    }

    #[test]
    fn a_slot_is_replaced_and_removed_by_its_number() {
        let mut slots = WindowSlots::default();
        slots.insert(b"a", 0, 1);
        slots.insert(b"a", 0, 2);
        assert_eq!((slots.get(b"a", 0), slots.len()), (Some(&2), 1));
        slots.insert(b"a", 5, 3);
        slots.remove(b"a", 0);
        slots.remove(b"a", 7);
        assert_eq!((slots.get(b"a", 0), slots.get(b"a", 5), slots.len()), (None, Some(&3), 1));
        slots.insert(b"b", 0, 4);
        slots.remove(b"b", 0);
        assert_eq!((slots.of_key(b"b").count(), slots.len()), (0, 1));
    }

    #[test]
    fn keys_are_found_after_others_were_removed_and_room_given_back() {
        let mut slots = WindowSlots::default();
        let key = |number: usize| format!("key-{number}").into_bytes();
        for number in 0..1_000 {
            slots.insert(&key(number), 0, number);
        }
        for number in (0..1_000).step_by(3) {
            slots.remove(&key(number), 0);
        }
        assert!(slots.shrink());
        assert!(!slots.shrink(), "there is no more");
        slots.insert(&key(0), 0, 7);
        for number in 0..1_000 {
            let expected = if number == 0 { Some(7) } else { (number % 3 > 0).then_some(number) };
            assert_eq!(at(&mut slots, &key(number), 0).copied(), expected, "{number}");
        }
        assert_eq!(slots.len(), 1_000 - 334 + 1);
    }
}
