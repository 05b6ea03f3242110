//! What a window store has in memory: by start or by key, as records ask for it.
//!
//! By start, expiry cuts off whole windows, and a value costs little more than its key and itself. That is for windows of
//! which there are few at a time. By key, as [`SlotsByKey`] has it, a span of a key's windows is found without the
//! windows of others. That is for windows that begin wherever there is an event.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::by_key::SlotsByKey;
use crate::state::window_slots::{SlotPlace, WindowSlots};

/// Slots by key bytes and start, and by a number that tells duplicates apart.
pub(super) enum Held<S> {
    /// Without duplicates.
    ByStart {
        windows: BTreeMap<i64, WindowSlots<S>>,
        /// How many slots they have.
        count: usize,
        size_ms: i64,
    },
    ByKey(SlotsByKey<S>),
}

/// Where a slot stands, until another one is removed.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) start: i64,
    pub(super) number: u32,
    /// The key's place among those of the window, or of all.
    key: SlotPlace,
}

impl<S> Held<S> {
    pub(super) fn by_start(size_ms: i64) -> Self {
        Self::ByStart { windows: BTreeMap::new(), count: 0, size_ms }
    }

    pub(super) fn by_key() -> Self {
        Self::ByKey(SlotsByKey::default())
    }

    pub(super) fn get(&self, key: &[u8], start: i64, number: u32) -> Option<&S> {
        match self {
            Self::ByStart { windows, .. } => windows.get(&start)?.get(key),
            Self::ByKey(slots) => slots.get(key, start, number),
        }
    }

    pub(super) fn find(&mut self, key: &[u8], start: i64, number: u32) -> Option<(Place, &mut S)> {
        let key = match self {
            Self::ByStart { windows, .. } => windows.get(&start)?.find(key)?,
            Self::ByKey(slots) => SlotPlace(slots.place(key)?),
        };
        let place = Place { start, number, key };
        self.get_at(place).map(|(_, slot)| (place, slot))
    }

    /// The slot at a place, with its key.
    pub(super) fn get_at(&mut self, place: Place) -> Option<(&[u8], &mut S)> {
        let Place { start, number, key } = place;
        match self {
            Self::ByStart { windows, .. } => windows.get_mut(&start)?.get_at(key),
            Self::ByKey(slots) => slots.get_at(key.0, start, number),
        }
    }

    /// Sets a slot, in place of one of the same key, start and number.
    pub(super) fn insert(&mut self, key: &[u8], start: i64, number: u32, slot: S) -> Place {
        let (windows, count, size_ms) = match self {
            Self::ByStart { windows, count, size_ms } => (windows, count, *size_ms),
            Self::ByKey(slots) => {
                let key = SlotPlace(slots.insert(key, start, number, slot));
                return Place { start, number, key };
            }
        };
        let (window, is_new) = match windows.entry(start) {
            Entry::Occupied(window) => (window.into_mut(), false),
            Entry::Vacant(window) => (window.insert(WindowSlots::default()), true),
        };
        let before = window.len();
        let key = window.insert(key, slot);
        *count += window.len() - before;
        if is_new {
            // Hardly anything will be added to windows that have come to their end.
            let ended = ..=start.saturating_sub(size_ms);
            for (_, window) in windows.range_mut(ended).rev() {
                if !window.shrink() {
                    break;
                }
            }
        }
        Place { start, number, key }
    }

    pub(super) fn remove(&mut self, key: &[u8], start: i64, number: u32) {
        match self {
            Self::ByStart { windows, count, .. } => {
                if let Some(window) = windows.get_mut(&start) {
                    let before = window.len();
                    window.remove(key);
                    *count -= before - window.len();
                }
            }
            Self::ByKey(slots) => slots.remove(key, start, number),
        }
    }

    /// Removes all that begin before this time.
    pub(super) fn remove_before(&mut self, start: i64) {
        match self {
            Self::ByStart { windows, count, .. } => {
                if windows.first_key_value().is_some_and(|(first, _)| *first < start) {
                    let kept = windows.split_off(&start);
                    let dropped = std::mem::replace(windows, kept);
                    *count -= dropped.values().map(WindowSlots::len).sum::<usize>();
                }
            }
            Self::ByKey(slots) => slots.remove_before(start),
        }
    }

    pub(super) fn clear(&mut self) {
        match self {
            Self::ByStart { windows, count, .. } => {
                windows.clear();
                *count = 0;
            }
            Self::ByKey(slots) => *slots = SlotsByKey::default(),
        }
    }

    /// The slots of a key that begin within `from..=to`, by start and number.
    pub(super) fn of_key(&self, key: &[u8], from: i64, to: i64) -> impl Iterator<Item = (i64, &S)> {
        let (by_start, by_key) = match self {
            Self::ByStart { windows, .. } => {
                let within = windows.range(from..=to);
                let of_key = within.filter_map(|(start, window)| Some((*start, window.get(key)?)));
                (Some(of_key), None)
            }
            Self::ByKey(slots) => (None, Some(slots.of_key(key, from, to))),
        };
        by_start.into_iter().flatten().chain(by_key.into_iter().flatten())
    }

    /// The slots of these keys that begin within `from..=to`, by start, key and number.
    pub(super) fn sorted(
        &self,
        from: i64,
        to: i64,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Vec<(i64, &[u8], &S)> {
        match self {
            Self::ByStart { windows, .. } => {
                let of_window = |(start, window)| {
                    let (start, window): (&i64, &WindowSlots<S>) = (start, window);
                    window.sorted(&wanted).map(|(key, slot)| (*start, key, slot))
                };
                windows.range(from..=to).flat_map(of_window).collect()
            }
            Self::ByKey(slots) => slots.sorted(from, to, wanted),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::ByStart { count, .. } => *count,
            Self::ByKey(slots) => slots.len(),
        }
    }

    /// How many begin within `from..=to`.
    pub(super) fn count(&self, from: i64, to: i64) -> usize {
        match self {
            Self::ByStart { windows, .. } => {
                windows.range(from..=to).map(|(_, window)| window.len()).sum()
            }
            Self::ByKey(slots) => slots.count(from, to),
        }
    }

    /// Where the oldest window begins.
    pub(super) fn first(&self) -> Option<i64> {
        match self {
            Self::ByStart { windows, .. } => windows.first_key_value().map(|(start, _)| *start),
            Self::ByKey(slots) => slots.first(),
        }
    }

    /// Where the newest window begins.
    pub(super) fn last(&self) -> Option<i64> {
        match self {
            Self::ByStart { windows, .. } => windows.last_key_value().map(|(start, _)| *start),
            Self::ByKey(slots) => slots.last(),
        }
    }
}
