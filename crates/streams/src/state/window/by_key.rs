//! Values of windows by key and start, for stores that are asked for spans of a key's windows.
//!
//! A join and a sliding window ask so for every record, and have a start for nearly every record: by start they would
//! step over those of all keys. So a key stands here once, with its values by start behind it, and finding those within
//! a span takes what is found, and a search.
//!
//! ```text
//! places:  hash of a key -> its place      keys:   place -> key, | start, number, value | ...
//!                                          order:  | start, place, number | ..., the oldest first
//! ```
//!
//! Both are in the same order for a key, so that what expires is the first of the order and the first of its key.

use std::collections::{BTreeSet, VecDeque};
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

/// Slots by key bytes and start, and by a number that tells duplicates apart.
pub(super) struct SlotsByKey<S> {
    keys: Vec<Option<OfKey<S>>>,
    /// Where `keys` has nothing.
    free: Vec<u32>,
    places: HashTable<u32>,
    hasher: DefaultHashBuilder,
    order: BTreeSet<(i64, u32, u32)>,
}

struct OfKey<S> {
    key: Box<[u8]>,
    /// By start and number; there is one at least.
    rows: VecDeque<Row<S>>,
}

struct Row<S> {
    start: i64,
    number: u32,
    slot: S,
}

impl<S> Default for SlotsByKey<S> {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            free: Vec::new(),
            places: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            order: BTreeSet::new(),
        }
    }
}

impl<S> SlotsByKey<S> {
    /// Where the slots of a key stand, as long as there are any.
    pub(super) fn place(&self, key: &[u8]) -> Option<u32> {
        let is_it = |place: &u32| self.at(*place).is_some_and(|of_key| *of_key.key == *key);
        self.places.find(self.hasher.hash_one(key), is_it).copied()
    }

    pub(super) fn get(&self, key: &[u8], start: i64, number: u32) -> Option<&S> {
        let of_key = self.at(self.place(key)?)?;
        let at = of_key.find(start, number).ok()?;
        Some(&of_key.rows[at].slot)
    }

    /// The slot at a place, with its key.
    pub(super) fn get_at(
        &mut self,
        place: u32,
        start: i64,
        number: u32,
    ) -> Option<(&[u8], &mut S)> {
        let of_key = self.keys.get_mut(place as usize)?.as_mut()?;
        let at = of_key.find(start, number).ok()?;
        Some((&of_key.key, &mut of_key.rows[at].slot))
    }

    /// Sets a slot, in place of one of the same key, start and number. Returns the key's place.
    pub(super) fn insert(&mut self, key: &[u8], start: i64, number: u32, slot: S) -> u32 {
        let place = self.place(key).unwrap_or_else(|| self.add(key));
        let Some(of_key) = &mut self.keys[place as usize] else {
            return place;
        };
        match of_key.find(start, number) {
            Ok(at) => of_key.rows[at].slot = slot,
            Err(at) => {
                of_key.rows.insert(at, Row { start, number, slot });
                self.order.insert((start, place, number));
            }
        }
        place
    }

    pub(super) fn remove(&mut self, key: &[u8], start: i64, number: u32) {
        if let Some(place) = self.place(key)
            && self.order.remove(&(start, place, number))
        {
            self.remove_at(place, start, number);
        }
    }

    /// Removes all that begin before this time.
    pub(super) fn remove_before(&mut self, start: i64) {
        while let Some((first, place, number)) = self.order.first().copied()
            && first < start
        {
            self.order.pop_first();
            self.remove_at(place, first, number);
        }
    }

    /// The slots of a key that begin within `from..=to`, by start and number.
    pub(super) fn of_key(&self, key: &[u8], from: i64, to: i64) -> impl Iterator<Item = (i64, &S)> {
        let of_key = self.place(key).and_then(|place| self.at(place));
        let within = of_key.into_iter().flat_map(move |OfKey { rows, .. }| {
            let first = rows.partition_point(|row| row.start < from);
            rows.range(first..).take_while(move |row| row.start <= to)
        });
        within.map(|row| (row.start, &row.slot))
    }

    /// The slots of these keys that begin within `from..=to`, by start, key and number.
    pub(super) fn sorted(
        &self,
        from: i64,
        to: i64,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Vec<(i64, &[u8], &S)> {
        let within = self.order.range((from, 0, 0)..=(to, u32::MAX, u32::MAX));
        let found = within.filter_map(|(start, place, number)| {
            let of_key = self.at(*place).filter(|of_key| wanted(&of_key.key))?;
            let at = of_key.find(*start, *number).ok()?;
            Some((*start, &*of_key.key, &of_key.rows[at].slot))
        });
        let mut found: Vec<_> = found.collect();
        // Stable, because numbers stand in order.
        found.sort_by_key(|(start, key, _)| (*start, *key));
        found
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn first(&self) -> Option<i64> {
        self.order.first().map(|(start, ..)| *start)
    }

    pub(super) fn last(&self) -> Option<i64> {
        self.order.last().map(|(start, ..)| *start)
    }

    /// How many begin within `from..=to`.
    pub(super) fn count(&self, from: i64, to: i64) -> usize {
        self.order.range((from, 0, 0)..=(to, u32::MAX, u32::MAX)).count()
    }

    fn at(&self, place: u32) -> Option<&OfKey<S>> {
        self.keys.get(place as usize)?.as_ref()
    }

    /// Finds a place for a key that has none.
    fn add(&mut self, key: &[u8]) -> u32 {
        // Most keys of a join have one event.
        let of_key = Some(OfKey { key: key.into(), rows: VecDeque::with_capacity(1) });
        let place = match self.free.pop() {
            Some(place) => {
                self.keys[place as usize] = of_key;
                place
            }
            None => {
                self.keys.push(of_key);
                u32::try_from(self.keys.len() - 1).expect("so many keys do not fit into memory")
            }
        };
        let Self { keys, places, hasher, .. } = self;
        places.insert_unique(hasher.hash_one(key), place, |place| {
            hasher.hash_one(keys[*place as usize].as_ref().map_or(&[][..], |of_key| &of_key.key))
        });
        place
    }

    /// Removes what the order does not have any more.
    fn remove_at(&mut self, place: u32, start: i64, number: u32) {
        let Some(of_key) = &mut self.keys[place as usize] else {
            return;
        };
        if let Ok(at) = of_key.find(start, number) {
            of_key.rows.remove(at);
        }
        let (left, room) = (of_key.rows.len(), of_key.rows.capacity());
        if left > 0 {
            if left < room / 4 {
                of_key.rows.shrink_to(left * 2);
            }
            return;
        }
        let hash = self.hasher.hash_one(&*of_key.key);
        if let Ok(found) = self.places.find_entry(hash, |found| *found == place) {
            found.remove();
        }
        self.keys[place as usize] = None;
        self.free.push(place);
    }
}

impl<S> OfKey<S> {
    /// Where a row is, or where it would be.
    fn find(&self, start: i64, number: u32) -> Result<usize, usize> {
        self.rows.binary_search_by_key(&(start, number), |row| (row.start, row.number))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Model = BTreeMap<(i64, Vec<u8>, u32), u32>;

    #[derive(Clone, Debug)]
    enum Step {
        Insert { key: u8, start: i64, number: u32 },
        Remove { key: u8, start: i64, number: u32 },
        Expire { before: i64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        let place = || (0_u8..6, -20_i64..20, 0_u32..3);
        prop_oneof![
            8 => place().prop_map(|(key, start, number)| Step::Insert { key, start, number }),
            2 => place().prop_map(|(key, start, number)| Step::Remove { key, start, number }),
            1 => (-20_i64..20).prop_map(|before| Step::Expire { before }),
        ]
    }

    /// Some keys begin like others.
    fn key_of(key: u8) -> Vec<u8> {
        vec![b'k'; usize::from(key)]
    }

    fn check(slots: &SlotsByKey<u32>, model: &Model, (from, to): (i64, i64)) {
        assert_eq!(slots.len(), model.len());
        assert_eq!(slots.first(), model.keys().next().map(|(start, ..)| *start));
        assert_eq!(slots.last(), model.keys().next_back().map(|(start, ..)| *start));
        let within = || model.iter().filter(|((start, ..), _)| (from..=to).contains(start));
        assert_eq!(slots.count(from, to), within().count());
        for key in (0..6).map(key_of) {
            let expected = within().filter(|((_, of, _), _)| *of == key);
            let expected: Vec<_> = expected.map(|((start, ..), value)| (*start, value)).collect();
            assert_eq!(slots.of_key(&key, from, to).collect::<Vec<_>>(), expected);
            assert_eq!(
                slots.place(&key).is_some(),
                model.keys().any(|(_, of, _)| *of == key),
                "nothing is left of a key that has nothing"
            );
        }
        let wanted = |key: &[u8]| key.len() != 2;
        let expected = within().filter(|((_, key, _), _)| wanted(key));
        let expected: Vec<_> =
            expected.map(|((start, key, _), value)| (*start, &key[..], value)).collect();
        assert_eq!(slots.sorted(from, to, wanted), expected);
    }

    proptest! {
        #[test]
        fn slots_are_those_of_an_ordered_map(
            steps in prop::collection::vec((step(), -25_i64..25, 0_i64..30), 1..120),
        ) {
            let (mut slots, mut model) = (SlotsByKey::default(), Model::new());
            for (value, (step, from, length)) in (0..).zip(steps) {
                match step {
                    Step::Insert { key, start, number } => {
                        let key = key_of(key);
                        let place = slots.insert(&key, start, number, value);
                        prop_assert_eq!(slots.place(&key), Some(place));
                        let found = slots.get_at(place, start, number);
                        prop_assert_eq!(found, Some((&key[..], &mut { value })));
                        model.insert((start, key, number), value);
                    }
                    Step::Remove { key, start, number } => {
                        let key = key_of(key);
                        slots.remove(&key, start, number);
                        model.remove(&(start, key.clone(), number));
                        prop_assert_eq!(slots.get(&key, start, number), None);
                    }
                    Step::Expire { before } => {
                        slots.remove_before(before);
                        model.retain(|(start, ..), _| *start >= before);
                    }
                }
                for ((start, key, number), value) in &model {
                    prop_assert_eq!(slots.get(key, *start, *number), Some(value));
                }
                check(&slots, &model, (from, from + length));
            }
            slots.remove_before(i64::MAX);
            prop_assert_eq!((slots.len(), slots.places.len()), (0, 0));
            prop_assert_eq!(slots.free.len(), slots.keys.len());
        }
    }

    #[test]
    fn keys_that_come_and_go_take_the_room_of_those_before_them() {
        let mut slots = SlotsByKey::default();
        for start in 0..10_000_i64 {
            slots.remove_before(start - 99);
            slots.insert(format!("key-{start}").as_bytes(), start, 0, ());
        }
        assert_eq!((slots.len(), slots.first(), slots.last()), (100, Some(9_900), Some(9_999)));
        assert!(slots.keys.len() <= 101, "{} places", slots.keys.len());
        assert!(slots.places.capacity() < 1_000, "{} places", slots.places.capacity());
    }

    #[test]
    fn a_key_gives_back_the_room_of_what_expired() {
        let mut slots = SlotsByKey::default();
        for start in 0..10_000 {
            slots.insert(b"a", start, 0, start);
        }
        slots.remove_before(9_990);
        let room = slots.at(0).map(|of_key| of_key.rows.capacity());
        assert!(room.is_some_and(|room| room < 100), "{room:?}");
        let left: Vec<i64> = slots.of_key(b"a", 0, 9_994).map(|(_, slot)| *slot).collect();
        assert_eq!(left, [9_990, 9_991, 9_992, 9_993, 9_994]);
    }
}
