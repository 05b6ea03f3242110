//! Where bytes are kept: a small ordered map from bytes to bytes.

use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;
use hashbrown::HashMap;

use super::StoreError;
use super::disk::DiskBackend;

/// An ordered map of bytes. Kafka's rules sit above it, once.
pub(crate) trait Backend: Send {
    /// The value of a key.
    fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Sets a key, or removes it.
    fn put(&mut self, key: Bytes, value: Option<Bytes>);

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
    pairs: HashMap<Bytes, Bytes>,
    order: Option<BTreeSet<Bytes>>,
}

impl Backend for MemoryBackend {
    fn known_entries(&self) -> Option<usize> {
        Some(self.pairs.len())
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.pairs.get(key).cloned())
    }

    fn put(&mut self, key: Bytes, value: Option<Bytes>) {
        match (value, &mut self.order) {
            (Some(value), None) => {
                self.pairs.insert(key, value);
            }
            (Some(value), Some(order)) => {
                if self.pairs.insert(key.clone(), value).is_none() {
                    order.insert(key);
                }
            }
            (None, order) => {
                self.pairs.remove(&key);
                if let Some(order) = order {
                    order.remove(&key);
                }
            }
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
        let order = self.order.get_or_insert_with(|| self.pairs.keys().cloned().collect());
        let keys = order.range::<[u8], _>((from, to));
        Ok(keys.filter_map(|key| Some((key.clone(), self.pairs.get(key)?.clone()))).collect())
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
