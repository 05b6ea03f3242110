//! Where bytes are kept: a small ordered map from bytes to bytes.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

/// An ordered map of bytes. Kafka's rules sit above it, once.
pub trait Backend: Send {
    /// The value of a key.
    fn get(&mut self, key: &[u8]) -> Option<Bytes>;

    /// Sets a key, or removes it.
    fn put(&mut self, key: Bytes, value: Option<Bytes>);

    /// All pairs within bounds, in the order of their bytes.
    fn range(&mut self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Vec<(Bytes, Bytes)>;

    /// The number of keys.
    fn len(&self) -> usize;

    /// Whether there is no key.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A backend in memory.
#[derive(Debug, Default)]
pub struct MemoryBackend {
    pairs: BTreeMap<Bytes, Bytes>,
}

impl Backend for MemoryBackend {
    fn get(&mut self, key: &[u8]) -> Option<Bytes> {
        self.pairs.get(key).cloned()
    }

    fn put(&mut self, key: Bytes, value: Option<Bytes>) {
        match value {
            Some(value) => self.pairs.insert(key, value),
            None => self.pairs.remove(&key),
        };
    }

    fn range(&mut self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Vec<(Bytes, Bytes)> {
        if is_empty_range(&from, &to) {
            return Vec::new();
        }
        self.pairs
            .range::<[u8], _>((from, to))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    fn len(&self) -> usize {
        self.pairs.len()
    }
}

/// Bounds that `BTreeMap::range` would refuse with a panic.
fn is_empty_range(from: &Bound<&[u8]>, to: &Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (
            Bound::Included(from) | Bound::Excluded(from),
            Bound::Included(to) | Bound::Excluded(to),
        ) => from >= to,
    }
}
