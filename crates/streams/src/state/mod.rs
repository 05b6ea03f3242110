//! State stores: what tasks remember.
//!
//! A store is typed towards its operators and bytes towards its backend. Every write is also a record for the
//! store's changelog, collected here and sent by the task. Key bytes follow Kafka Streams' layouts, so that a
//! changelog can be taken over from it.

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use disk::DiskBackend;

use crate::metrics::StoreMetrics;
use crate::record::Headers;

mod backend;
mod cache;
pub(crate) mod disk;
mod expiry;
mod key_filter;
mod kv;
mod last_used;
mod outer;
mod queue;
mod session;
mod suppress;
#[cfg(test)]
mod testing;
mod timed;
mod timers;
mod versions;
mod waiting;
mod window;
mod window_slots;

pub(crate) use backend::{Backend, MemoryBackend};
pub use disk::StateSnapshot;
pub(crate) use kv::{Kept, KvStore, KvStoreSettings};
pub(crate) use outer::{Either, OuterStore, OuterStoreSettings, Search, Tracker};
pub(crate) use session::{SessionStore, SessionStoreSettings};
pub(crate) use suppress::{ChangeBuffer, ChangeBufferSettings, Evicted};
pub(crate) use timers::TimerStore;
pub use versions::{Placed, Version};
pub(crate) use waiting::EventBuffer;
pub(crate) use window::{WindowStore, WindowStoreSettings};

/// A value with the event time of its last update.
#[derive(Clone, Debug, PartialEq)]
pub struct Stamped<V> {
    /// The value.
    pub value: V,
    /// Event time in milliseconds.
    pub timestamp: i64,
}

/// A store that failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A key or value that cannot be written or read.
    #[error("{0}")]
    Serde(#[from] crate::serde::SerdeError),
    /// Bytes in the store or its changelog that it cannot have written.
    #[error("the state of `{store}` is damaged: {what}")]
    Damaged {
        /// The store.
        store: String,
        /// What was found.
        what: &'static str,
    },
    /// The database on disk failed.
    #[error("the state directory failed: {0}")]
    Disk(Arc<fjall::Error>),
    /// A transformer of values, asked for a row, returned an error.
    #[error("{0}")]
    Transformer(Arc<dyn std::error::Error + Send + Sync>),
    /// Another instance uses the directory.
    #[error("the state directory {} is used by another instance; give each its own", .0.display())]
    Locked(PathBuf),
}

impl StoreError {
    pub(crate) fn disk(error: fjall::Error) -> Self {
        Self::Disk(Arc::new(error))
    }
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        Self::disk(error.into())
    }
}

impl From<fjall::Error> for StoreError {
    fn from(error: fjall::Error) -> Self {
        Self::disk(error)
    }
}

/// Where a store keeps its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreType {
    /// In memory: restored from the changelog whenever a task begins.
    Memory,
    /// On disk: after a restart only what the changelog has beyond it is restored.
    Disk,
}

/// One record of a changelog.
#[derive(Clone, Debug, PartialEq)]
pub struct Logged {
    /// The key's bytes.
    pub key: Bytes,
    /// The value's bytes; `None` deletes.
    pub value: Option<Bytes>,
    /// The record's timestamp; -1 for the time when it is written.
    pub timestamp: i64,
    /// The record's headers.
    pub headers: Headers,
}

/// What a task asks of any store.
pub(crate) trait AnyStore: Any + Send {
    fn as_any(&mut self) -> &mut dyn Any;

    /// The changelog records written since the last call.
    fn take_changelog(&mut self) -> Vec<Logged>;

    /// Applies a record of the changelog, without logging it again.
    fn restore(&mut self, record: Logged) -> Result<(), StoreError>;

    /// Event time has come to `time_ms`, whatever is written: nothing newer makes anything too old to be kept. Not said
    /// where event time is that of the newest record.
    fn limit_time(&mut self, _time_ms: i64) {}

    /// Forgets what the cache holds beyond the store. Only after a flush.
    fn shrink_cache(&mut self) {}

    /// Bytes that the cache holds, approximately.
    fn cached_bytes(&self) -> usize;

    /// Moves into a backend on disk, before anything is written. A store that keeps its data in typed maps gives it
    /// back: its image is kept there.
    fn move_to(&mut self, disk: DiskBackend) -> Result<Option<DiskBackend>, StoreError> {
        Ok(Some(disk))
    }

    /// The backend, if the store's data are there.
    fn backend(&mut self) -> Option<&mut dyn Backend> {
        None
    }

    /// Forgets what it knows of its backend's contents, which have been cleared.
    fn reset(&mut self) {}

    /// Writes to the backend what belongs to the data that it is about to commit.
    fn before_commit(&mut self) {}

    /// Drops from the disk what the commit has left behind.
    fn after_commit(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// What else it knows about its size and its cache.
    fn figures(&self) -> StoreMetrics {
        StoreMetrics::default()
    }
}
