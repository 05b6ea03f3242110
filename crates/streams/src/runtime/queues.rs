//! The records a task has not processed yet: one queue per input partition, the lowest event time first.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::metrics::{Spread, record_bytes};
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

/// What the broker still has of a partition that the task reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lag {
    /// The task does not read the partition: its topic has fewer of them.
    NotRead,
    /// Nothing was fetched yet.
    Unknown,
    /// So many records, as far as the last answer told.
    Known(i64),
}

/// All queues of a task.
#[derive(Default)]
pub(crate) struct Queues {
    queues: Vec<Queue>,
    /// Records that were processed although some queue had none, after it was waited for.
    pub(crate) enforced: u64,
}

/// The queue of one topic.
pub(crate) struct Queue {
    pub(crate) topic: Arc<str>,
    pub(crate) source: NodeId,
    /// Whether it is still to be read to its end before those of which this is not said.
    pub(crate) bootstraps: bool,
    /// Whether it is a repartition topic, in which other tasks may tell event time.
    internal: bool,
    /// Records with the event time that the source's extractor gave them.
    records: VecDeque<(i64, RawRecord)>,
    /// The highest event time processed from this partition.
    pub(crate) partition_time: i64,
    /// The offset after the last processed record, if any was processed since the last commit.
    pub(crate) position: Option<i64>,
    /// The offset of the last processed record, if any ever was, by this task or those before it.
    pub(crate) seen: Option<i64>,
    /// Up to where the partition is known to have been read, with or without records.
    pub(crate) noted: i64,
    /// Until when the task waits for a record, once the partition is known to have no more.
    idle_until_ms: Option<i64>,
    /// Records processed.
    pub(crate) processed: u64,
    /// Bytes of these.
    pub(crate) processed_bytes: u64,
    /// From a record's timestamp to its processing, in milliseconds.
    pub(crate) e2e_latency: Spread,
}

impl Queues {
    /// Adds a queue. One that bootstraps is read to its end before those that do not.
    pub(crate) fn open(&mut self, topic: Arc<str>, source: NodeId, bootstraps: bool) {
        self.queues.push(Queue {
            topic,
            source,
            bootstraps,
            internal: false,
            records: VecDeque::new(),
            partition_time: UNKNOWN_TIME,
            position: None,
            seen: None,
            noted: 0,
            idle_until_ms: None,
            processed: 0,
            processed_bytes: 0,
            e2e_latency: Spread::default(),
        });
    }

    /// Says whether the queue that was opened last is of a repartition topic.
    pub(crate) fn last_is_internal(&mut self, internal: bool) {
        if let Some(queue) = self.queues.last_mut() {
            queue.internal = internal;
        }
    }

    /// Forgets the queues of which this is not said.
    pub(crate) fn retain(&mut self, keeps: impl FnMut(&Queue) -> bool) {
        self.queues.retain(keeps);
    }

    pub(crate) fn find(&mut self, topic: &str) -> Option<&mut Queue> {
        self.queues.iter_mut().find(|queue| &*queue.topic == topic)
    }

    /// Whether some queue is to be read to its end before others.
    pub(crate) fn is_bootstrapping(&self) -> bool {
        self.queues.iter().any(|queue| queue.bootstraps)
    }

    /// The queue whose head has the lowest event time; among equals the first.
    pub(crate) fn next(&mut self) -> Option<&mut Queue> {
        let bootstrapping = self.is_bootstrapping();
        self.queues
            .iter_mut()
            .filter(|queue| !queue.records.is_empty() && queue.bootstraps == bootstrapping)
            .min_by_key(|queue| queue.records.front().map(|(timestamp, _)| *timestamp))
    }

    /// Whether there is a record whose turn it is for sure, by the rules of `max.task.idle.ms`: an empty queue is
    /// waited for while its partition has records at the broker, and so much longer as `idle_max_ms` says. Without
    /// that nothing is waited for.
    pub(crate) fn is_ready(
        &mut self,
        idle_max_ms: Option<i64>,
        now_ms: i64,
        lag: impl Fn(&Arc<str>) -> Lag,
    ) -> bool {
        for queue in self.queues.iter_mut().filter(|queue| queue.records.is_empty()) {
            if queue.bootstraps && matches!(lag(&queue.topic), Lag::NotRead | Lag::Known(0)) {
                queue.bootstraps = false;
            }
        }
        if self.is_bootstrapping() {
            let mut queues = self.queues.iter();
            return queues.any(|queue| queue.bootstraps && !queue.records.is_empty());
        }
        let Some(idle_max_ms) = idle_max_ms else {
            return self.len() > 0;
        };
        let (mut queued, mut enforced) = (false, false);
        for queue in &mut self.queues {
            if !queue.records.is_empty() {
                queue.idle_until_ms = None;
                queued = true;
                continue;
            }
            match lag(&queue.topic) {
                Lag::NotRead => {}
                Lag::Known(0) => {
                    let until = queue.idle_until_ms.get_or_insert(now_ms + idle_max_ms);
                    if now_ms < *until {
                        return false;
                    }
                    enforced = true;
                }
                Lag::Known(_) | Lag::Unknown => {
                    queue.idle_until_ms = None;
                    return false;
                }
            }
        }
        self.enforced += u64::from(queued && enforced);
        queued
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

    /// Takes the next record to be processed, and counts it.
    pub(crate) fn take(&mut self, now_ms: i64) -> Option<(i64, RawRecord)> {
        let (timestamp, record) = self.pop()?;
        self.processed += 1;
        let (key, value) = (record.key.as_ref(), record.value.as_ref());
        self.processed_bytes += record_bytes(&self.topic, key, value, &record.headers);
        self.e2e_latency.record(now_ms, now_ms - timestamp);
        Some((timestamp, record))
    }

    /// Takes the next record if it is no data, but tells a time.
    pub(crate) fn take_watermark(&mut self) -> Option<RawRecord> {
        let (_, next) = self.records.front().filter(|_| self.internal)?;
        if !next.is_watermark() {
            return None;
        }
        self.pop().map(|(_, record)| record)
    }

    fn pop(&mut self) -> Option<(i64, RawRecord)> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn record(topic: &str) -> RawRecord {
        RawRecord {
            topic: Arc::from(topic),
            partition: 0,
            offset: 0,
            timestamp: 5,
            key: None,
            value: None,
            headers: Headers::default(),
        }
    }

    /// Two queues, of which `left` has a record.
    fn queues() -> Queues {
        let mut queues = Queues::default();
        queues.open(Arc::from("left"), 0, false);
        queues.open(Arc::from("right"), 1, false);
        queues.find("left").expect("open").push(5, record("left"));
        queues
    }

    #[test]
    fn without_idling_nothing_is_waited_for() {
        let mut queues = queues();
        assert!(queues.is_ready(None, 0, |_| Lag::Known(7)));
        queues.next().expect("a record").pop();
        assert!(!queues.is_ready(None, 0, |_| Lag::Known(0)), "there is nothing to process");
    }

    #[test]
    fn records_known_to_be_at_the_broker_are_waited_for() {
        let mut queues = queues();
        for lag in [Lag::Unknown, Lag::Known(1)] {
            assert!(!queues.is_ready(Some(0), 1_000, |_| lag), "{lag:?}");
        }
        for lag in [Lag::Known(0), Lag::NotRead] {
            assert!(queues.is_ready(Some(0), 1_000, |_| lag), "{lag:?}");
        }
    }

    #[test]
    fn a_queue_that_bootstraps_is_read_to_its_end_before_others() {
        let mut queues = queues();
        queues.open(Arc::from("first"), 2, true);
        for lag in [Lag::Unknown, Lag::Known(2)] {
            assert!(!queues.is_ready(None, 0, |_| lag), "{lag:?}");
            assert!(queues.next().is_none());
        }
        queues.find("first").expect("open").push(99, record("first"));
        assert!(queues.is_ready(None, 0, |_| Lag::Known(0)));
        let next = queues.next().expect("a record");
        assert_eq!(&*next.topic, "first");
        next.pop();
        assert!(!queues.is_ready(None, 0, |_| Lag::Known(1)), "the last one is not there yet");
        assert!(queues.is_ready(None, 0, |_| Lag::Known(0)));
        assert_eq!(queues.next().map(|queue| &*queue.topic), Some("left"));
        // From then on it is as any other.
        assert!(queues.is_ready(None, 0, |_| Lag::Known(1)));
    }

    #[test]
    fn a_partition_without_more_is_waited_for_a_while() {
        let mut queues = queues();
        assert!(!queues.is_ready(Some(100), 1_000, |_| Lag::Known(0)), "the wait begins");
        assert!(!queues.is_ready(Some(100), 1_099, |_| Lag::Known(0)));
        assert_eq!(queues.enforced, 0);
        assert!(queues.is_ready(Some(100), 1_100, |_| Lag::Known(0)));
        assert_eq!(queues.enforced, 1);
        // What arrives at the broker meanwhile is waited for, and then the wait begins anew.
        assert!(!queues.is_ready(Some(100), 1_101, |_| Lag::Known(1)));
        assert!(!queues.is_ready(Some(100), 1_102, |_| Lag::Known(0)));
        assert!(queues.is_ready(Some(100), 1_202, |_| Lag::Known(0)));
        // A record ends it at once.
        queues.find("right").expect("open").push(4, record("right"));
        assert!(queues.is_ready(Some(100), 1_203, |_| Lag::Unknown));
    }
}
