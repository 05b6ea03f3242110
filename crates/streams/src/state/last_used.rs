//! Which keys of a store were used last: those that a store of so many keys keeps.
//!
//! A key is used by a write and by a read that finds it; going through all of them uses none. What a restoration writes
//! counts as used in the order of the changelog.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::{Backend, StoreError};

/// The keys of a store, in the order of their last uses.
pub(super) struct LastUsed {
    keys_max: usize,
    /// Keys by the number of their last use.
    order: BTreeMap<u64, Bytes>,
    /// The number of each key's last use.
    uses: HashMap<Bytes, u64>,
    count: u64,
}

impl LastUsed {
    pub(super) fn new(keys_max: usize) -> Self {
        Self { keys_max, order: BTreeMap::new(), uses: HashMap::new(), count: 0 }
    }

    /// Forgets the keys: the backend is empty.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.keys_max);
    }

    pub(super) fn get(
        &mut self,
        backend: &mut dyn Backend,
        key: &[u8],
    ) -> Result<Option<Bytes>, StoreError> {
        let found = backend.get(key)?;
        if found.is_some() {
            self.touch(key);
        }
        Ok(found)
    }

    /// Writes or deletes a key. Returns the one that had to make room for it.
    pub(super) fn put(
        &mut self,
        backend: &mut dyn Backend,
        key: &[u8],
        stored: Option<Bytes>,
    ) -> Option<Bytes> {
        if stored.is_some() {
            self.touch(key);
        } else if let Some(place) = self.uses.remove(key) {
            self.order.remove(&place);
        }
        backend.put_at(key, stored);
        if self.uses.len() <= self.keys_max {
            return None;
        }
        let (_, evicted) = self.order.pop_first()?;
        self.uses.remove(&evicted);
        backend.put_at(&evicted, None);
        Some(evicted)
    }

    /// Makes a key the one used last.
    fn touch(&mut self, key: &[u8]) {
        self.count += 1;
        let known = self.uses.get_mut(key).and_then(|place| {
            let before = std::mem::replace(place, self.count);
            self.order.remove(&before)
        });
        let key = known.unwrap_or_else(|| {
            let key = Bytes::copy_from_slice(key);
            self.uses.insert(key.clone(), self.count);
            key
        });
        self.order.insert(self.count, key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::MemoryBackend;
    use crate::state::testing::random;

    /// Random reads and writes, as a list answers that is put in order at each of them.
    #[test]
    fn keys_leave_in_the_order_of_their_last_uses() {
        let (mut store, mut backend) = (LastUsed::new(5), MemoryBackend::default());
        let mut model: Vec<(u8, u8)> = Vec::new();
        let mut state = 3;
        for step in 0..5_000_u32 {
            let (key, value) = (random(&mut state, 9) as u8, step as u8);
            let place = model.iter().position(|(known, _)| *known == key);
            let held = place.map(|place| model.remove(place));
            match random(&mut state, 4) {
                0 => {
                    let found = store.get(&mut backend, &[key]).expect("memory");
                    assert_eq!(
                        found.as_deref(),
                        held.map(|(_, value)| [value]).as_ref().map(|v| &v[..])
                    );
                    model.extend(held);
                }
                1 => assert_eq!(store.put(&mut backend, &[key], None), None),
                _ => {
                    model.push((key, value));
                    let expected = (model.len() > 5).then(|| model.remove(0));
                    let evicted = store.put(&mut backend, &[key], Some(Bytes::from(vec![value])));
                    assert_eq!(
                        evicted.as_deref(),
                        expected.map(|(key, _)| [key]).as_ref().map(|k| &k[..])
                    );
                }
            }
            assert_eq!(backend.known_entries(), Some(model.len()));
        }
    }
}
