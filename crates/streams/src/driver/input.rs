//! What a test puts in.

use std::sync::Arc;

use bytes::Bytes;

use super::TestDriver;
use crate::record::Headers;
use crate::runtime::{Outgoing, OutgoingTopic};
use crate::serde::{SerdeError, SerdeOf, StreamType};

/// Where a test puts records into a topic.
pub struct Input<'a> {
    driver: &'a mut TestDriver,
    topic: Arc<str>,
    timestamp: Option<i64>,
    partition: Option<i32>,
    headers: Headers,
}

/// What a test can send: every value with a usual representation, and `&str` as text.
pub trait TestData {
    /// The bytes in Kafka, or `None` for null.
    fn to_bytes(&self, topic: &str, headers: &mut Headers) -> Result<Option<Bytes>, SerdeError>;
}

impl<T: StreamType> TestData for T {
    fn to_bytes(&self, topic: &str, headers: &mut Headers) -> Result<Option<Bytes>, SerdeError> {
        SerdeOf::<T>::usual().to_bytes(topic, headers, self)
    }
}

impl TestData for str {
    fn to_bytes(&self, _: &str, _: &mut Headers) -> Result<Option<Bytes>, SerdeError> {
        Ok(Some(Bytes::copy_from_slice(self.as_bytes())))
    }
}

impl<'a> Input<'a> {
    pub(super) fn new(driver: &'a mut TestDriver, topic: &str) -> Self {
        Self {
            driver,
            topic: Arc::from(topic),
            timestamp: None,
            partition: None,
            headers: Headers::default(),
        }
    }

    /// Sets the timestamp of the following records; without it they get the driver's wall-clock time.
    pub fn at(mut self, timestamp: i64) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// Sends the following records to this partition.
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Adds a header to the following records.
    pub fn header(mut self, key: &str, value: impl Into<Bytes>) -> Self {
        self.headers.add(key, value);
        self
    }

    /// Sends a record and runs the topology until nothing moves.
    ///
    /// # Panics
    /// If the record cannot be written: the test is wrong.
    pub fn send<K: TestData + ?Sized, V: TestData + ?Sized>(self, key: &K, value: &V) -> Self {
        let mut headers = self.headers.clone();
        let bytes = key
            .to_bytes(&self.topic, &mut headers)
            .and_then(|key| Ok((key, value.to_bytes(&self.topic, &mut headers)?)));
        match bytes {
            Ok((key, value)) => self.send_bytes(key, value),
            Err(error) => panic!("{}: cannot write the test record: {error}", self.topic),
        }
    }

    /// Sends a record with this key and the null that deletes it from a table.
    ///
    /// # Panics
    /// If the key cannot be written: the test is wrong.
    pub fn delete<K: TestData + ?Sized>(self, key: &K) -> Self {
        self.send(key, &())
    }

    /// Sends bytes and runs the topology until nothing moves.
    pub fn send_bytes(self, key: Option<Bytes>, value: Option<Bytes>) -> Self {
        let outgoing = Outgoing {
            topic: OutgoingTopic { name: self.topic.clone(), partition: self.partition },
            key,
            value,
            timestamp: self.timestamp.unwrap_or(self.driver.now_ms),
            headers: self.headers.clone(),
            source: None,
        };
        self.driver.send(outgoing);
        self
    }
}
