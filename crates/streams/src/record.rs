//! What flows between operators: records, their headers, and changes of a table.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// A key, a value, the time they are about, and headers.
#[derive(Clone, Debug, PartialEq)]
pub struct Record<K, V> {
    /// The key; tables and aggregations keep one state per key.
    pub key: K,
    /// The value.
    pub value: V,
    /// Event time in milliseconds since the epoch.
    pub timestamp: i64,
    /// Headers, in order, duplicates kept.
    pub headers: Headers,
}

impl<K, V> Record<K, V> {
    /// A record without headers.
    pub fn new(key: K, value: V, timestamp: i64) -> Self {
        Self { key, value, timestamp, headers: Headers::default() }
    }

    /// The same record with another value.
    pub fn with_value<W>(self, value: W) -> Record<K, W> {
        Record { key: self.key, value, timestamp: self.timestamp, headers: self.headers }
    }

    /// The same record with another key.
    pub fn with_key<L>(self, key: L) -> Record<L, V> {
        Record { key, value: self.value, timestamp: self.timestamp, headers: self.headers }
    }
}

/// Record headers: cheap to pass along, copied only by whoever changes shared ones.
#[derive(Clone, Default, PartialEq)]
pub struct Headers(Option<Arc<Vec<Header>>>);

/// One header.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// The header's key; it may occur several times.
    pub key: String,
    /// The header's value, or null.
    pub value: Option<Bytes>,
}

impl Headers {
    /// Appends a header, keeping any of the same key.
    pub fn add(&mut self, key: impl Into<String>, value: impl Into<Bytes>) {
        Arc::make_mut(self.0.get_or_insert_default())
            .push(Header { key: key.into(), value: Some(value.into()) });
    }

    /// Removes every header of that key.
    pub fn remove(&mut self, key: &str) {
        if let Some(headers) = &mut self.0
            && headers.iter().any(|header| header.key == key)
        {
            Arc::make_mut(headers).retain(|header| header.key != key);
        }
    }

    /// The value of the last header of that key.
    pub fn last(&self, key: &str) -> Option<&Bytes> {
        self.iter().rev().find(|header| header.key == key).and_then(|header| header.value.as_ref())
    }

    /// All headers, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Header> {
        self.0.as_deref().map_or(&[][..], Vec::as_slice).iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.iter().len() == 0
    }
}

impl FromIterator<Header> for Headers {
    fn from_iter<I: IntoIterator<Item = Header>>(headers: I) -> Self {
        let headers: Vec<Header> = headers.into_iter().collect();
        Self((!headers.is_empty()).then(|| Arc::new(headers)))
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// What an update did to one key of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Change<V> {
    /// The value before, where some downstream operator asked for it.
    pub old: Option<V>,
    /// The value now; `None` deletes the key.
    pub new: Option<V>,
    /// Whether this is the newest update of the key by event time. Only versioned stores know better than `true`.
    pub is_latest: bool,
}

impl<V> Change<V> {
    /// A change that is the newest of its key.
    pub fn new(new: Option<V>, old: Option<V>) -> Self {
        Self { old, new, is_latest: true }
    }
}

/// A key within a window.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Windowed<K> {
    /// The key that was grouped by.
    pub key: K,
    /// The window.
    pub window: Window,
}

/// A span of event time in milliseconds. Whether `end` belongs to it depends on the kind of window: it does for
/// session and sliding windows, and does not for tumbling and hopping ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window {
    /// First millisecond.
    pub start: i64,
    /// Last millisecond, or the one after it.
    pub end: i64,
}

/// Types that flow through a topology.
pub trait Data: Clone + Send + 'static {}

impl<T: Clone + Send + 'static> Data for T {}
