//! The driver's stand-in for the broker: topics as lists of records, and whose turn it is.

use std::sync::Arc;

use crate::runtime::{RawRecord, TaskId};

/// A topic of the driver's.
pub(super) struct Topic {
    pub(super) partitions: Vec<Vec<RawRecord>>,
    /// What a test has taken out already, per partition.
    pub(super) read: Vec<usize>,
    /// How many records are no longer there, per partition: those before the first one.
    pub(super) forgotten: Vec<i64>,
}

impl Topic {
    pub(super) fn new(partitions: i32) -> Self {
        let count = partitions.max(1) as usize;
        Self {
            partitions: vec![Vec::new(); count],
            read: vec![0; count],
            forgotten: vec![0; count],
        }
    }

    /// The partition that Kafka's default partitioner gives a key; records without one go to the first.
    pub(super) fn partition_for(&self, key: Option<&[u8]>) -> i32 {
        key.map_or(0, |key| {
            fleuve_client::producer::partition_for_key(key, self.partitions.len()) as i32
        })
    }
}

/// A task's queue of one topic.
pub(super) struct Waiting {
    pub(super) timestamp: i64,
    pub(super) id: TaskId,
    pub(super) topic: Arc<str>,
}

/// Queues with records, by the event time of the next one: a binary heap that treats equals exactly as Java's
/// `PriorityQueue` does.
#[derive(Default)]
pub(super) struct Turns(Vec<Waiting>);

impl Turns {
    pub(super) fn push(&mut self, waiting: Waiting) {
        self.0.push(waiting);
        let mut place = self.0.len() - 1;
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.0[place].timestamp >= self.0[parent].timestamp {
                break;
            }
            self.0.swap(place, parent);
            place = parent;
        }
    }

    pub(super) fn pop(&mut self) -> Option<Waiting> {
        let last = self.0.len().checked_sub(1)?;
        self.0.swap(0, last);
        let first = self.0.pop();
        let mut place = 0;
        while 2 * place + 1 < last {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            let right_is_less = right < last && self.0[left].timestamp > self.0[right].timestamp;
            let child = if right_is_less { right } else { left };
            if self.0[place].timestamp <= self.0[child].timestamp {
                break;
            }
            self.0.swap(place, child);
            place = child;
        }
        first
    }

    /// Forgets the queues of a task that is gone.
    pub(super) fn forget(&mut self, id: TaskId) {
        for waiting in std::mem::take(&mut self.0) {
            if waiting.id != id {
                self.push(waiting);
            }
        }
    }
}
