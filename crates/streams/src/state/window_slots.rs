//! The values of one window by key, as a window store keeps them.
//!
//! Looked up by hash, because that is what happens for every record; in the order of keys only where all of a window
//! is asked for, which sorts it then.

use bytes::Bytes;
use hashbrown::HashMap;

/// Slots by key bytes, and by a number that tells duplicates of a key apart.
pub(super) struct WindowSlots<S> {
    keys: HashMap<Bytes, OfKey<S>>,
    count: usize,
}

/// Slots with their numbers, which ascend. Only stores of joins have more than one of a key.
enum OfKey<S> {
    One(u32, S),
    Many(Vec<(u32, S)>),
}

impl<S> Default for WindowSlots<S> {
    fn default() -> Self {
        Self { keys: HashMap::new(), count: 0 }
    }
}

impl<S> WindowSlots<S> {
    pub(super) fn get(&self, key: &[u8], number: u32) -> Option<&S> {
        match self.keys.get(key)? {
            OfKey::One(only, slot) => (*only == number).then_some(slot),
            OfKey::Many(slots) => {
                let at = slots.binary_search_by_key(&number, |(number, _)| *number).ok()?;
                Some(&slots[at].1)
            }
        }
    }

    pub(super) fn get_mut(&mut self, key: &[u8], number: u32) -> Option<&mut S> {
        match self.keys.get_mut(key)? {
            OfKey::One(only, slot) => (*only == number).then_some(slot),
            OfKey::Many(slots) => {
                let at = slots.binary_search_by_key(&number, |(number, _)| *number).ok()?;
                Some(&mut slots[at].1)
            }
        }
    }

    /// Sets a slot, in place of one of the same key and number.
    pub(super) fn insert(&mut self, key: Bytes, number: u32, slot: S) {
        let Some(of_key) = self.keys.get_mut(&key) else {
            self.keys.insert(key, OfKey::One(number, slot));
            self.count += 1;
            return;
        };
        let mut slots = match std::mem::replace(of_key, OfKey::Many(Vec::new())) {
            OfKey::One(only, old) => vec![(only, old)],
            OfKey::Many(slots) => slots,
        };
        match slots.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(at) => slots[at].1 = slot,
            Err(at) => {
                slots.insert(at, (number, slot));
                self.count += 1;
            }
        }
        *of_key = match slots.pop() {
            Some((only, slot)) if slots.is_empty() => OfKey::One(only, slot),
            Some(last) => {
                slots.push(last);
                OfKey::Many(slots)
            }
            None => OfKey::Many(slots),
        };
    }

    pub(super) fn remove(&mut self, key: &[u8], number: u32) {
        let Some(of_key) = self.keys.get_mut(key) else {
            return;
        };
        let is_last = match of_key {
            OfKey::One(only, _) => *only == number,
            OfKey::Many(slots) => {
                if let Ok(at) = slots.binary_search_by_key(&number, |(number, _)| *number) {
                    slots.remove(at);
                    self.count -= 1;
                }
                false
            }
        };
        if is_last {
            self.keys.remove(key);
            self.count -= 1;
        }
    }

    /// The slots of a key by their numbers.
    pub(super) fn of_key(&self, key: &[u8]) -> impl Iterator<Item = &S> {
        self.keys.get(key).into_iter().flat_map(OfKey::slots).map(|(_, slot)| slot)
    }

    /// The slots of these keys with their keys, by key and number.
    pub(super) fn sorted(
        &self,
        wanted: impl Fn(&Bytes) -> bool,
    ) -> impl Iterator<Item = (&Bytes, &S)> {
        let mut keys: Vec<(&Bytes, &OfKey<S>)> =
            self.keys.iter().filter(|(key, _)| wanted(key)).collect();
        keys.sort_unstable_by_key(|(key, _)| *key);
        keys.into_iter().flat_map(|(key, of_key)| of_key.slots().map(move |(_, slot)| (key, slot)))
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }
}

impl<S> OfKey<S> {
    fn slots(&self) -> impl Iterator<Item = (u32, &S)> {
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

    fn key(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn slots_of_a_key_stand_by_number_and_keys_by_their_bytes() {
        let mut slots = WindowSlots::default();
        for (name, number, value) in
            [("b", 3, "b3"), ("a", 0, "a0"), ("b", 1, "b1"), ("b", 2, "b2")]
        {
            slots.insert(key(name), number, value);
        }
        let all: Vec<&str> = slots.sorted(|_| true).map(|(_, slot)| *slot).collect();
        assert_eq!(all, ["a0", "b1", "b2", "b3"]);
        let before_b: Vec<&Bytes> = slots.sorted(|key| key < "b").map(|(key, _)| key).collect();
        assert_eq!(before_b, [&key("a")]);
        assert_eq!(slots.of_key(b"b").copied().collect::<Vec<_>>(), ["b1", "b2", "b3"]);
        assert_eq!((slots.get(b"b", 2), slots.get(b"b", 4), slots.len()), (Some(&"b2"), None, 4));
    }

    #[test]
    fn a_slot_is_replaced_and_removed_by_its_number() {
        let mut slots = WindowSlots::default();
        slots.insert(key("a"), 0, 1);
        slots.insert(key("a"), 0, 2);
        assert_eq!((slots.get(b"a", 0), slots.len()), (Some(&2), 1));
        slots.insert(key("a"), 5, 3);
        slots.remove(b"a", 0);
        slots.remove(b"a", 7);
        assert_eq!((slots.get(b"a", 0), slots.get(b"a", 5), slots.len()), (None, Some(&3), 1));
        slots.insert(key("b"), 0, 4);
        slots.remove(b"b", 0);
        assert_eq!((slots.of_key(b"b").count(), slots.len()), (0, 1));
    }
}
