//! The machine for one partition of `__share_group_state`.

use std::collections::BTreeMap;

use bytes::Bytes;
use fleuve_protocol::Str;
use fleuve_types::{Offset, TimestampMs, Uuid};

use super::record::{ShareStateRecord, Update};
use super::state::{ShareKey, ShareState, UNCHANGED, UNINITIALIZED_START, merge};
use crate::record::RecordError;
use crate::share_partition::StoredBatch;

/// What an operator may set about the state of share groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareStateSettings {
    /// `share.coordinator.snapshot.update.records.per.snapshot`.
    pub updates_per_snapshot: u32,
    /// `share.coordinator.cold.partition.snapshot.interval.ms`.
    pub cold_after_ms: i64,
}

impl Default for ShareStateSettings {
    fn default() -> Self {
        Self { updates_per_snapshot: 500, cold_after_ms: 300_000 }
    }
}

/// Why a request about the state of a share-partition is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShareStateError {
    /// The state was never initialised: `INVALID_REQUEST`.
    #[error("the state of the share-partition was never initialised")]
    Uninitialized,
    /// Another leader has looked since: `FENCED_LEADER_EPOCH`.
    #[error("the leader epoch is older than the last one")]
    FencedLeaderEpoch,
    /// The state was set anew since: `FENCED_STATE_EPOCH`.
    #[error("the state epoch is older than the last one")]
    FencedStateEpoch,
}

/// The outline of a share-partition's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The start, or [`UNINITIALIZED_START`].
    pub start_offset: i64,
    /// Grows whenever an administrator sets the start.
    pub state_epoch: i32,
    /// The leader epoch of the partition when its leader last looked.
    pub leader_epoch: i32,
    /// Offsets from the start on that are done with; -1 if not known.
    pub delivery_complete_count: i32,
}

/// What a leader wants written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The epoch of the state that this is about; -1 for any.
    pub state_epoch: i32,
    /// The leader's epoch; -1 for as before.
    pub leader_epoch: i32,
    /// The start; -1 for as before.
    pub start_offset: i64,
    /// Offsets from the start on that are done with; -1 if not known.
    pub delivery_complete_count: i32,
    /// New states, in order.
    pub batches: Vec<StoredBatch>,
}

/// A share-partition and where its state stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    state: ShareState,
    updates: u32,
    snapshot_at: Offset,
}

/// Keeps the states of share-partitions whose log is one partition of `__share_group_state`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShareCoordinator {
    settings: ShareStateSettings,
    entries: BTreeMap<ShareKey, Entry>,
    next_offset: Offset,
}

impl ShareCoordinator {
    /// Makes a machine that knows nothing yet.
    pub fn new(settings: ShareStateSettings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// Takes in a record of the log: the only way in which the state changes.
    pub fn apply(&mut self, record: &ShareStateRecord, offset: Offset) {
        self.next_offset = offset.plus(1);
        match record {
            ShareStateRecord::Snapshot { key, state: Some(state) } => {
                let entry = Entry { state: state.clone(), updates: 0, snapshot_at: offset };
                match self.entries.get_mut(key) {
                    Some(known) => *known = entry,
                    None => {
                        self.entries.insert(key.detach(), entry);
                    }
                }
            }
            ShareStateRecord::Snapshot { key, state: None } => {
                self.entries.remove(key);
            }
            ShareStateRecord::Update { key, update: Some(update) } => {
                // Without its snapshot, or for an older one, an update means nothing.
                let Some(entry) = self.entries.get_mut(key) else { return };
                if entry.state.snapshot_epoch != update.snapshot_epoch {
                    return;
                }
                entry.updates = entry.updates.saturating_add(1);
                entry.state.take_in(update);
            }
            ShareStateRecord::Update { update: None, .. } => {}
        }
    }

    /// Takes in key and value of a record while loading; says whether the record was one of ours.
    pub fn replay(
        &mut self,
        key: Bytes,
        value: Option<Bytes>,
        offset: Offset,
    ) -> Result<bool, RecordError> {
        match ShareStateRecord::decode(key, value) {
            Ok(record) => {
                self.apply(&record, offset);
                Ok(true)
            }
            Err(RecordError::UnknownType(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Decides to begin a state, or to begin it anew at another start.
    pub fn initialize(
        &self,
        key: &ShareKey,
        state_epoch: i32,
        start_offset: i64,
        now: TimestampMs,
    ) -> Result<ShareStateRecord, ShareStateError> {
        let known = self.entries.get(key).map(|entry| &entry.state);
        if known.is_some_and(|known| known.state_epoch > state_epoch) {
            return Err(ShareStateError::FencedStateEpoch);
        }
        let state = ShareState {
            snapshot_epoch: known.map_or(0, |known| known.snapshot_epoch.saturating_add(1)),
            state_epoch,
            leader_epoch: known.map_or(0, |known| known.leader_epoch),
            start_offset: start_offset.max(UNINITIALIZED_START),
            delivery_complete_count: if start_offset < 0 { -1 } else { 0 },
            created_ms: now.0,
            written_ms: now.0,
            batches: Vec::new(),
        };
        Ok(ShareStateRecord::Snapshot { key: key.clone(), state: Some(state) })
    }

    /// Decides on what a leader wants written.
    pub fn write(
        &self,
        key: &ShareKey,
        written: &Written,
        now: TimestampMs,
    ) -> Result<ShareStateRecord, ShareStateError> {
        let entry = self.entries.get(key).ok_or(ShareStateError::Uninitialized)?;
        let known = &entry.state;
        if written.leader_epoch >= 0 && written.leader_epoch < known.leader_epoch {
            return Err(ShareStateError::FencedLeaderEpoch);
        }
        if written.state_epoch >= 0 && written.state_epoch < known.state_epoch {
            return Err(ShareStateError::FencedStateEpoch);
        }
        let update = Update {
            snapshot_epoch: known.snapshot_epoch,
            leader_epoch: written.leader_epoch,
            start_offset: written.start_offset,
            delivery_complete_count: written.delivery_complete_count,
            batches: merge(&[], &written.batches, written.start_offset),
        };
        // A state that is set anew needs all of the record; an update has no room for its epoch.
        let is_new_epoch = written.state_epoch > known.state_epoch;
        if entry.updates < self.settings.updates_per_snapshot && !is_new_epoch {
            return Ok(ShareStateRecord::Update { key: key.clone(), update: Some(update) });
        }
        let mut state = known.clone();
        state.state_epoch = state.state_epoch.max(written.state_epoch);
        state.take_in(&update);
        Ok(snapshot_of(key, state, now))
    }

    /// Reads a state, and decides to note the leader's epoch if it is new.
    pub fn read(
        &self,
        key: &ShareKey,
        leader_epoch: i32,
        now: TimestampMs,
    ) -> Result<(&ShareState, Option<ShareStateRecord>), ShareStateError> {
        let entry = self.entries.get(key).ok_or(ShareStateError::Uninitialized)?;
        let state = &entry.state;
        if leader_epoch < 0 || leader_epoch == state.leader_epoch {
            return Ok((state, None));
        }
        if leader_epoch < state.leader_epoch {
            return Err(ShareStateError::FencedLeaderEpoch);
        }
        let written = Written {
            state_epoch: state.state_epoch,
            leader_epoch,
            start_offset: UNCHANGED,
            delivery_complete_count: state.delivery_complete_count,
            batches: Vec::new(),
        };
        Ok((state, Some(self.write(key, &written, now)?)))
    }

    /// The outline of a state.
    pub fn summary(&self, key: &ShareKey) -> Option<Summary> {
        let state = &self.entries.get(key)?.state;
        Some(Summary {
            start_offset: state.start_offset,
            state_epoch: state.state_epoch,
            leader_epoch: state.leader_epoch,
            delivery_complete_count: state.delivery_complete_count,
        })
    }

    /// Decides to forget a state; nothing if there is none.
    pub fn delete(&self, key: &ShareKey) -> Option<ShareStateRecord> {
        let known = self.entries.contains_key(key);
        known.then(|| ShareStateRecord::Snapshot { key: key.clone(), state: None })
    }

    /// Decides to forget the states of a topic that is gone.
    pub fn forget_topic(&self, topic_id: Uuid) -> Vec<ShareStateRecord> {
        let of_topic = self.entries.keys().filter(|key| key.topic_id == topic_id);
        of_topic.map(|key| ShareStateRecord::Snapshot { key: key.clone(), state: None }).collect()
    }

    /// Decides on new snapshots of states whose last one is old, although they are at the latest
    /// record: they keep the log from being deleted.
    pub fn cold_snapshots(&self, now: TimestampMs) -> Vec<ShareStateRecord> {
        let cold = self.entries.iter().filter(|(_, entry)| {
            now.0.saturating_sub(entry.state.written_ms) >= self.settings.cold_after_ms
                // Nothing is gained where the snapshot is among the last records anyway.
                && entry.snapshot_at.0 + (self.entries.len() as i64) < self.next_offset.0
        });
        cold.map(|(key, entry)| snapshot_of(key, entry.state.clone(), now)).collect()
    }

    /// The offset below which no record is needed any more.
    pub fn redundant_below(&self) -> Offset {
        let oldest = self.entries.values().map(|entry| entry.snapshot_at).min();
        oldest.unwrap_or(self.next_offset)
    }

    /// The groups that have states here; for checks.
    pub fn groups(&self) -> impl Iterator<Item = &Str> {
        self.entries.keys().map(|key| &key.group)
    }
}

impl ShareState {
    fn take_in(&mut self, update: &Update) {
        if update.start_offset != UNCHANGED {
            self.start_offset = update.start_offset;
        }
        if update.leader_epoch >= 0 {
            self.leader_epoch = update.leader_epoch;
        }
        self.delivery_complete_count = update.delivery_complete_count;
        self.batches = merge(&self.batches, &update.batches, self.start_offset);
    }
}

fn snapshot_of(key: &ShareKey, mut state: ShareState, now: TimestampMs) -> ShareStateRecord {
    state.snapshot_epoch = state.snapshot_epoch.saturating_add(1);
    state.written_ms = now.0;
    ShareStateRecord::Snapshot { key: key.clone(), state: Some(state) }
}
