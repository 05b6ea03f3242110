//! The image of a store that lives in memory: its changelog as compaction would leave it.
//!
//! ```text
//! changelog key  ->  | timestamp: i64 | count: u32 | each header: key: u32 length ..., value: u32 length + 1 (0: null) ... | value ... |
//! ```

use std::ops::Bound;

use bytes::{Buf, BufMut, Bytes};

use super::DiskBackend;
use crate::record::Header;
use crate::state::{Backend, Logged, StoreError};

/// What a new task fills such a store from.
pub(crate) struct Image {
    store: String,
    pub(crate) backend: DiskBackend,
}

impl Image {
    pub(crate) fn new(store: &str, backend: DiskBackend) -> Self {
        Self { store: store.to_owned(), backend }
    }

    /// Follows a record of the changelog.
    pub(crate) fn put(&mut self, record: &Logged) {
        let value = record.value.as_ref().map(|value| {
            let mut out = Vec::with_capacity(HEAD + value.len());
            out.put_i64(record.timestamp);
            out.put_u32(record.headers.iter().len() as u32);
            for header in record.headers.iter() {
                out.put_u32(header.key.len() as u32);
                out.put_slice(header.key.as_bytes());
                let value = header.value.as_deref();
                out.put_u32(value.map_or(0, |value| value.len() as u32 + 1));
                out.put_slice(value.unwrap_or_default());
            }
            out.put_slice(value);
            Bytes::from(out)
        });
        self.backend.put(record.key.clone(), value);
    }

    /// Everything, as changelog records.
    pub(crate) fn records(&mut self) -> Result<Vec<Logged>, StoreError> {
        let pairs = self.backend.range(Bound::Unbounded, Bound::Unbounded)?;
        pairs
            .into_iter()
            .map(|(key, bytes)| {
                record(key, bytes).ok_or_else(|| StoreError::Damaged {
                    store: self.store.clone(),
                    what: "a record of its image",
                })
            })
            .collect()
    }
}

fn record(key: Bytes, mut bytes: Bytes) -> Option<Logged> {
    let timestamp = bytes.try_get_i64().ok()?;
    let count = bytes.try_get_u32().ok()?;
    let mut headers = Vec::new();
    for _ in 0..count {
        let length = bytes.try_get_u32().ok()? as usize;
        if length > bytes.len() {
            return None;
        }
        let key = String::from_utf8(bytes.split_to(length).to_vec()).ok()?;
        let value = match bytes.try_get_u32().ok()?.checked_sub(1) {
            Some(length) if length as usize <= bytes.len() => Some(bytes.split_to(length as usize)),
            Some(_) => return None,
            None => None,
        };
        headers.push(Header { key, value });
    }
    Some(Logged { key, value: Some(bytes), timestamp, headers: headers.into_iter().collect() })
}

/// Bytes of timestamp and count.
const HEAD: usize = size_of::<i64>() + size_of::<u32>();
