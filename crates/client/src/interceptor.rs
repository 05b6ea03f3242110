//! Looking at records on their way, and changing them.
//!
//! Interceptors run in the order they are named, on the way in and on the way back. Without any,
//! records take their way at no cost.
//!
//! ```
//! use std::sync::Arc;
//! use fleuve_client::ProducerConfig;
//! use fleuve_client::interceptor::{Interceptors, OutgoingRecord, ProducerInterceptor};
//!
//! /// Writes into every record where it comes from.
//! struct Origin(String);
//!
//! impl ProducerInterceptor for Origin {
//!     fn on_send(&self, record: &mut OutgoingRecord) {
//!         record.headers.push(("origin".to_owned(), Some(self.0.clone().into_bytes())));
//!     }
//! }
//!
//! let origin: Arc<dyn ProducerInterceptor> = Arc::new(Origin("billing".to_owned()));
//! let config = ProducerConfig {
//!     interceptors: Interceptors::from(vec![origin]),
//!     ..ProducerConfig::default()
//! };
//! assert!(!config.interceptors.is_empty());
//! ```

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use fleuve_types::TopicPartition;

use crate::consumer::Records;
use crate::error::Error;
use crate::producer::RecordMetadata;

/// A record that interceptors may change before it is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutgoingRecord {
    /// Where to.
    pub topic: String,
    /// Which partition; `None` leaves it to the key, or to the producer.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// The headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since 1970; `None` is now.
    pub timestamp: Option<i64>,
}

/// Is told of a producer's records.
pub trait ProducerInterceptor: Send + Sync + 'static {
    /// Is called with every record before its partition is chosen.
    fn on_send(&self, record: &mut OutgoingRecord) {
        let _ = record;
    }

    /// Is called with every record that was acknowledged or failed, on the producer's task.
    fn on_acknowledgement(
        &self,
        partition: &TopicPartition,
        result: Result<&RecordMetadata, &Error>,
    ) {
        let _ = (partition, result);
    }
}

/// Is told of a consumer's records.
///
/// Fetched records are shared bytes, so that they can be looked at and not changed.
pub trait ConsumerInterceptor: Send + Sync + 'static {
    /// Is called with what a poll is about to give.
    fn on_consume(&self, records: &Records) {
        let _ = records;
    }

    /// Is called with offsets that were committed.
    fn on_commit(&self, offsets: &HashMap<TopicPartition, i64>) {
        let _ = offsets;
    }
}

/// Interceptors in the order in which they are called.
pub struct Interceptors<T: ?Sized>(Vec<Arc<T>>);

impl<T: ?Sized> Interceptors<T> {
    /// Adds one behind the others.
    pub fn push(&mut self, interceptor: Arc<T>) {
        self.0.push(interceptor);
    }

    /// Reports whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Arc<T>> {
        self.0.iter()
    }
}

impl<T: ?Sized> Default for Interceptors<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: ?Sized> Clone for Interceptors<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: ?Sized> fmt::Debug for Interceptors<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} interceptors", self.0.len())
    }
}

impl<T: ?Sized> From<Vec<Arc<T>>> for Interceptors<T> {
    fn from(interceptors: Vec<Arc<T>>) -> Self {
        Self(interceptors)
    }
}
