//! What is known of one share-partition.

use fleuve_protocol::Str;
use fleuve_types::Uuid;

use crate::share_partition::StoredBatch;

/// Stands for a start that the group's `share.auto.offset.reset` has yet to say.
pub const UNINITIALIZED_START: i64 = -1;

/// Stands for "as before" in updates.
pub(super) const UNCHANGED: i64 = -1;

/// Names a share-partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareKey {
    /// The group.
    pub group: Str,
    /// The topic.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: i32,
}

impl ShareKey {
    /// The name that says which partition of `__share_group_state` the state is in; FindCoordinator
    /// asks by it.
    pub fn coordinator_key(&self) -> String {
        format!("{}:{}:{}", self.group, self.topic_id, self.partition)
    }

    /// A copy that keeps no frame alive.
    pub fn detach(&self) -> Self {
        Self { group: self.group.detach(), ..*self }
    }
}

/// The state of a share-partition, as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareState {
    /// Grows with every snapshot.
    pub snapshot_epoch: i32,
    /// Grows whenever an administrator sets the start; it is the group's epoch then.
    pub state_epoch: i32,
    /// The leader epoch of the partition when its leader last looked.
    pub leader_epoch: i32,
    /// The start (SPSO), or [`UNINITIALIZED_START`].
    pub start_offset: i64,
    /// Offsets from the start on that are done with; -1 if an older broker wrote it.
    pub delivery_complete_count: i32,
    /// When the state was created.
    pub created_ms: i64,
    /// When the last snapshot was written.
    pub written_ms: i64,
    /// States from the start on, in order and without overlaps.
    pub batches: Vec<StoredBatch>,
}

/// Lays `newer` over `older` and drops what lies before `start`.
///
/// Where both say something, the newer one holds. Kafka's rule is another, the higher delivery
/// count and then the higher state, which comes to the same: counts never fall, and nothing comes
/// back from a terminal state.
pub(super) fn merge(older: &[StoredBatch], newer: &[StoredBatch], start: i64) -> Vec<StoredBatch> {
    let mut merged: Vec<StoredBatch> = Vec::with_capacity(older.len() + newer.len());
    // Newer batches may overlap each other in what other brokers wrote, so each is laid on alone.
    merged.extend_from_slice(older);
    for batch in newer {
        if batch.first > batch.last {
            continue;
        }
        let from = merged.partition_point(|known| known.last < batch.first);
        let to = merged.partition_point(|known| known.first <= batch.last);
        let mut put = Vec::with_capacity(3);
        if let Some(head) = merged[from..to].first().filter(|head| head.first < batch.first) {
            put.push(StoredBatch { last: batch.first - 1, ..*head });
        }
        put.push(*batch);
        if let Some(tail) = merged[from..to].last().filter(|tail| tail.last > batch.last) {
            put.push(StoredBatch { first: batch.last + 1, ..*tail });
        }
        merged.splice(from..to, put);
    }
    let mut kept: Vec<StoredBatch> = Vec::with_capacity(merged.len());
    for batch in merged.into_iter().filter(|batch| batch.last >= start) {
        let first = batch.first.max(start);
        match kept.last_mut() {
            Some(previous)
                if previous.last + 1 == first
                    && previous.state == batch.state
                    && previous.delivery_count == batch.delivery_count =>
            {
                previous.last = batch.last;
            }
            _ => kept.push(StoredBatch { first, ..batch }),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share_partition::RecordState;

    fn batch(first: i64, last: i64, state: RecordState) -> StoredBatch {
        StoredBatch { first, last, state, delivery_count: 1 }
    }

    #[test]
    fn newer_batches_are_laid_over_older_ones() {
        use RecordState::{Acknowledged, Archived, Available};
        let older = [batch(0, 9, Available), batch(20, 29, Available)];
        let newer = [batch(3, 4, Acknowledged), batch(8, 21, Archived)];
        let merged = merge(&older, &newer, 2);
        let expected = [
            batch(2, 2, Available),
            batch(3, 4, Acknowledged),
            batch(5, 7, Available),
            batch(8, 21, Archived),
            batch(22, 29, Available),
        ];
        assert_eq!(merged, expected);
    }

    #[test]
    fn neighbours_that_are_alike_become_one() {
        use RecordState::Acknowledged;
        let merged = merge(&[batch(0, 4, Acknowledged)], &[batch(5, 9, Acknowledged)], 0);
        assert_eq!(merged, [batch(0, 9, Acknowledged)]);
    }
}
