//! What goes into a producer and what comes back.

use fleuve_types::TopicPartition;

pub use fleuve_protocol::records::Header;

/// A record to send; it borrows everything, because `send` copies it into a batch.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Where to.
    pub topic: &'a str,
    /// Which partition; `None` leaves it to the key, or to the producer.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers, in order; keys may repeat.
    pub headers: &'a [Header<'a>],
    /// Milliseconds since 1970; `None` is now.
    pub timestamp: Option<i64>,
}

impl<'a> Record<'a> {
    /// Makes an empty record for `topic`.
    pub fn new(topic: &'a str) -> Self {
        Self { topic, partition: None, key: None, value: None, headers: &[], timestamp: None }
    }

    /// Sets the key.
    pub fn key(self, key: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { key: Some(key.as_ref()), ..self }
    }

    /// Sets the value.
    pub fn value(self, value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { value: Some(value.as_ref()), ..self }
    }

    /// Sets the partition.
    pub fn partition(self, partition: i32) -> Self {
        Self { partition: Some(partition), ..self }
    }

    /// Sets the headers.
    pub fn headers(self, headers: &'a [Header<'a>]) -> Self {
        Self { headers, ..self }
    }

    /// Sets the timestamp in milliseconds since 1970.
    pub fn timestamp(self, timestamp: i64) -> Self {
        Self { timestamp: Some(timestamp), ..self }
    }

    /// Returns a size that the encoded record does not exceed.
    pub(super) fn size_bound(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len) + 10)
            .sum();
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len) + headers + OVERHEAD_MAX
    }
}

/// Length, attributes, timestamp and offset delta, key and value length and header count at their
/// longest.
const OVERHEAD_MAX: usize = 36;

/// Where a record ended up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordMetadata {
    /// The partition it was written to.
    pub partition: TopicPartition,
    /// Its offset; `None` when the broker did not say, as with acks=0.
    pub offset: Option<i64>,
    /// The time the broker gave it, when the topic uses append time.
    pub log_append_time: Option<i64>,
}
