//! The records a task has not processed yet: one queue per input partition, the lowest event time first.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::record::Headers;
use crate::topology::NodeId;

/// A record as it came from a topic.
#[derive(Clone, Debug, PartialEq)]
pub struct RawRecord {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp in milliseconds.
    pub timestamp: i64,
    /// The key's bytes.
    pub key: Option<Bytes>,
    /// The value's bytes.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Headers,
}

/// All queues of a task.
#[derive(Default)]
pub(crate) struct Queues {
    queues: Vec<Queue>,
}

/// The queue of one topic.
pub(crate) struct Queue {
    pub(crate) topic: Arc<str>,
    pub(crate) source: NodeId,
    /// Records with the event time that the source's extractor gave them.
    records: VecDeque<(i64, RawRecord)>,
    /// The highest event time processed from this partition.
    pub(crate) partition_time: i64,
    /// The offset after the last processed record, if any was processed since the last commit.
    pub(crate) position: Option<i64>,
    /// The offset of the last processed record, if any ever was, by this task or those before it.
    pub(crate) seen: Option<i64>,
}

impl Queues {
    pub(crate) fn open(&mut self, topic: Arc<str>, source: NodeId) {
        self.queues.push(Queue {
            topic,
            source,
            records: VecDeque::new(),
            partition_time: UNKNOWN_TIME,
            position: None,
            seen: None,
        });
    }

    pub(crate) fn find(&mut self, topic: &str) -> Option<&mut Queue> {
        self.queues.iter_mut().find(|queue| &*queue.topic == topic)
    }

    /// The queue whose head has the lowest event time; among equals the first.
    pub(crate) fn next(&mut self) -> Option<&mut Queue> {
        self.queues
            .iter_mut()
            .filter(|queue| !queue.records.is_empty())
            .min_by_key(|queue| queue.records.front().map(|(timestamp, _)| *timestamp))
    }

    /// Topics without a record to look at.
    pub(crate) fn empty_topics(&self) -> impl Iterator<Item = &Arc<str>> {
        self.queues.iter().filter(|queue| queue.records.is_empty()).map(|queue| &queue.topic)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Queue> {
        self.queues.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Queue> {
        self.queues.iter_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.queues.iter().map(|queue| queue.records.len()).sum()
    }
}

impl Queue {
    pub(crate) fn push(&mut self, timestamp: i64, record: RawRecord) {
        self.records.push_back((timestamp, record));
    }

    pub(crate) fn pop(&mut self) -> Option<(i64, RawRecord)> {
        let (timestamp, record) = self.records.pop_front()?;
        self.partition_time = self.partition_time.max(timestamp);
        self.position = Some(record.offset + 1);
        self.seen = Some(record.offset);
        Some((timestamp, record))
    }

    pub(crate) fn next_timestamp(&self) -> Option<i64> {
        self.records.front().map(|(timestamp, _)| *timestamp)
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }
}

/// Event time before any record.
pub(crate) const UNKNOWN_TIME: i64 = -1;
