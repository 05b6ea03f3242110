//! Where bytes are kept: a small ordered map from bytes to bytes.

use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::ops::Bound;

use bytes::Bytes;
use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::StoreError;
use super::disk::DiskBackend;

/// An ordered map of bytes. Kafka's rules sit above it, once.
pub(crate) trait Backend: Send {
    /// The value of a key.
    fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Sets a key, or removes it.
    fn put(&mut self, key: Bytes, value: Option<Bytes>);

    /// Sets a key of which the backend makes a copy, if it needs one.
    fn put_at(&mut self, key: &[u8], value: Option<Bytes>) {
        self.put(Bytes::copy_from_slice(key), value);
    }

    /// All pairs within bounds, in the order of their bytes.
    fn range(
        &mut self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError>;

    /// The number of keys.
    #[cfg(test)]
    fn entries(&mut self) -> Result<usize, StoreError>;

    /// The number of keys, where it is known without counting.
    fn known_entries(&self) -> Option<usize> {
        None
    }

    /// Forgets everything, at once and for good.
    fn clear(&mut self) -> Result<(), StoreError>;

    /// Bytes written since the last commit, which are in memory until then.
    fn uncommitted_bytes(&self) -> usize {
        0
    }

    /// Sets a key that is restored to the parts of a value, one behind the other, or removes it.
    fn restore(&mut self, key: &[u8], value: Option<[&[u8]; 2]>) {
        self.put(Bytes::copy_from_slice(key), value.map(|parts| Bytes::from(parts.concat())));
    }

    /// The store's share of the database, if that is what this is.
    fn disk(&mut self) -> Option<&mut DiskBackend> {
        None
    }
}

/// A backend in memory.
///
/// Looked up by hash, because that is what happens for every record. Keys are put in order when a range is first asked for,
/// and kept so from then on.
#[derive(Debug, Default)]
pub(crate) struct MemoryBackend {
    pairs: HashTable<Pair>,
    hasher: DefaultHashBuilder,
    order: Option<BTreeSet<Bytes>>,
}

/// A key and its value in one piece of memory: most are short, and there are many.
///
/// ```text
/// | length of the key: u32 | key ... | value ... |
/// ```
struct Pair(Box<[u8]>);

impl Pair {
    fn new(key: &[u8], [head, tail]: [&[u8]; 2]) -> Self {
        let length = u32::try_from(key.len()).expect("a key comes from a record, which is shorter");
        let mut bytes = Vec::with_capacity(KEY_LENGTH + key.len() + head.len() + tail.len());
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(head);
        bytes.extend_from_slice(tail);
        Self(bytes.into())
    }

    /// Where the value begins.
    fn middle(&self) -> usize {
        let length = self.0.first_chunk().copied().unwrap_or_default();
        KEY_LENGTH + u32::from_ne_bytes(length) as usize
    }

    fn key(&self) -> &[u8] {
        &self.0[KEY_LENGTH..self.middle()]
    }

    fn value(&self) -> &[u8] {
        &self.0[self.middle()..]
    }

    fn set(&mut self, [head, tail]: [&[u8]; 2]) {
        let middle = self.middle();
        // Most are as long as the one before.
        if self.0.len() - middle == head.len() + tail.len() {
            let (first, second) = self.0[middle..].split_at_mut(head.len());
            first.copy_from_slice(head);
            second.copy_from_slice(tail);
        } else {
            *self = Self::new(self.key(), [head, tail]);
        }
    }
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pair").field(&self.key()).field(&self.value()).finish()
    }
}

/// Bytes of a key's length.
const KEY_LENGTH: usize = size_of::<u32>();

impl MemoryBackend {
    fn find(&self, key: &[u8]) -> Option<&Pair> {
        self.pairs.find(self.hasher.hash_one(key), |pair| pair.key() == key)
    }
}

impl Backend for MemoryBackend {
    fn known_entries(&self) -> Option<usize> {
        Some(self.pairs.len())
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.find(key).map(|pair| Bytes::copy_from_slice(pair.value())))
    }

    fn put(&mut self, key: Bytes, value: Option<Bytes>) {
        self.put_at(&key, value);
    }

    fn put_at(&mut self, key: &[u8], value: Option<Bytes>) {
        self.restore(key, value.as_deref().map(|value| [value, &[]]));
    }

    fn restore(&mut self, key: &[u8], value: Option<[&[u8]; 2]>) {
        let Self { pairs, hasher, order } = self;
        let found = pairs.entry(
            hasher.hash_one(key),
            |pair| pair.key() == key,
            |pair| hasher.hash_one(pair.key()),
        );
        match (found, value) {
            (Entry::Occupied(mut pair), Some(value)) => pair.get_mut().set(value),
            (Entry::Occupied(pair), None) => {
                pair.remove();
                if let Some(order) = order {
                    order.remove(key);
                }
            }
            (Entry::Vacant(place), Some(value)) => {
                place.insert(Pair::new(key, value));
                if let Some(order) = order {
                    order.insert(Bytes::copy_from_slice(key));
                }
            }
            (Entry::Vacant(_), None) => {}
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
        if self.order.is_none() {
            let keys = self.pairs.iter().map(|pair| Bytes::copy_from_slice(pair.key()));
            self.order = Some(keys.collect());
        }
        let keys = self.order.iter().flat_map(|order| order.range::<[u8], _>((from, to)));
        let pairs = keys.filter_map(|key| {
            let pair = self.find(key)?;
            Some((key.clone(), Bytes::copy_from_slice(pair.value())))
        });
        Ok(pairs.collect())
    }

    #[cfg(test)]
    fn entries(&mut self) -> Result<usize, StoreError> {
        Ok(self.pairs.len())
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        *self = Self::default();
        Ok(())
    }
}

/// The pairs within bounds among those whose keys begin with a byte, without that byte.
pub(super) fn range_behind(
    backend: &mut dyn Backend,
    first: u8,
    (from, to): (Bound<&[u8]>, Bound<&[u8]>),
) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
    let behind = |key: &[u8]| [&[first], key].concat();
    let from = match from.map(behind) {
        Bound::Unbounded => Bound::Included(vec![first]),
        bounded => bounded,
    };
    let to = match to.map(behind) {
        Bound::Unbounded => Bound::Excluded(vec![first + 1]),
        bounded => bounded,
    };
    let found = backend.range(from.as_ref().map(Vec::as_slice), to.as_ref().map(Vec::as_slice))?;
    Ok(found.into_iter().map(|(key, value)| (key.slice(1..), value)).collect())
}

/// Bounds that `BTreeMap::range` would refuse with a panic.
pub(super) fn is_empty_range(from: &Bound<&[u8]>, to: &Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (
            Bound::Included(from) | Bound::Excluded(from),
            Bound::Included(to) | Bound::Excluded(to),
        ) => from >= to,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::state::testing::random;

    /// Random writes, asked for one by one and in ranges, as an ordered map answers.
    #[test]
    fn pairs_in_memory_answer_as_an_ordered_map_does() {
        let (mut backend, mut model) = (MemoryBackend::default(), BTreeMap::new());
        let mut state = 7;
        for step in 0..5_000 {
            // Keys of several lengths, values longer and shorter than before, and empty ones of both.
            let key = vec![b'k'; random(&mut state, 60) as usize];
            let value = vec![step as u8; random(&mut state, 12) as usize];
            if random(&mut state, 4) == 0 {
                backend.put_at(&key, None);
                model.remove(&key);
            } else {
                let (head, tail) = value.split_at(value.len() / 3);
                match step % 2 {
                    0 => backend.put(Bytes::from(key.clone()), Some(Bytes::from(value.clone()))),
                    _ => backend.restore(&key, Some([head, tail])),
                }
                model.insert(key, value);
            }
            if step % 100 == 99 {
                let to = [b'k'; 40];
                let bounds = (Bound::Excluded(&b"kk"[..]), Bound::Included(&to[..]));
                let found = backend.range(bounds.0, bounds.1).expect("memory");
                let expected = model.range::<[u8], _>(bounds);
                assert!(
                    found
                        .iter()
                        .map(|(key, value)| (&key[..], &value[..]))
                        .eq(expected.map(|(key, value)| (&key[..], &value[..])))
                );
            }
        }
        assert_eq!(backend.known_entries(), Some(model.len()));
        for length in 0..60 {
            let key = vec![b'k'; length];
            let found = backend.get(&key).expect("memory");
            assert_eq!(found.as_deref(), model.get(&key).map(Vec::as_slice));
        }
    }
}
