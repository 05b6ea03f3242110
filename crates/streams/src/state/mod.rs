//! State stores: what tasks remember.
//!
//! A store is typed towards its operators and bytes towards its backend. Every write is also a record for the
//! store's changelog, collected here and sent by the task. Key bytes follow Kafka Streams' layouts, so that a
//! changelog can be taken over from it.

use std::any::Any;

use bytes::Bytes;

use crate::record::Headers;

mod backend;
mod cache;
mod kv;
mod outer;
mod session;
mod suppress;
mod timers;
mod window;

pub use backend::{Backend, MemoryBackend};
pub(crate) use kv::{KvStore, KvStoreSettings};
pub(crate) use outer::{Either, OuterStore, OuterStoreSettings};
pub(crate) use session::{SessionStore, SessionStoreSettings};
pub(crate) use suppress::{ChangeBuffer, ChangeBufferSettings, Evicted};
pub(crate) use timers::TimerStore;
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

    /// Forgets what the cache holds beyond the store. Only after a flush.
    fn shrink_cache(&mut self) {}

    /// Bytes that the cache holds, approximately.
    fn cached_bytes(&self) -> usize;
}
