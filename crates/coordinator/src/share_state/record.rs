//! The records of `__share_group_state`.
//!
//! ```text
//! key:    type i16 | group, topic id, partition       value:  version i16 | message
//!
//! type 0  ShareSnapshot: all of the state             (null: the share-partition is gone)
//! type 1  ShareUpdate: what changed since the snapshot
//! ```

use bytes::Bytes;
use fleuve_protocol::messages::share_snapshot_key::ShareSnapshotKey;
use fleuve_protocol::messages::share_snapshot_value::{self, ShareSnapshotValue};
use fleuve_protocol::messages::share_update_key::ShareUpdateKey;
use fleuve_protocol::messages::share_update_value::{self, ShareUpdateValue};
use fleuve_protocol::{EncodeError, Message, Reader};

use super::state::{ShareKey, ShareState};
use crate::record::{KEY_VERSION, RecordError, prefixed, prefixed_key, unprefixed};
use crate::share_partition::{RecordState, StoredBatch};

const SNAPSHOT: i16 = 0;
const UPDATE: i16 = 1;

/// Both values have one version so far.
const VALUE_VERSION: i16 = 0;

/// What changed about a share-partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The epoch of the snapshot that this is an update to.
    pub snapshot_epoch: i32,
    /// The leader epoch; -1 for as before.
    pub leader_epoch: i32,
    /// The start; -1 for as before.
    pub start_offset: i64,
    /// Offsets from the start on that are done with; -1 if not known.
    pub delivery_complete_count: i32,
    /// New states, in order.
    pub batches: Vec<StoredBatch>,
}

/// One record of `__share_group_state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShareStateRecord {
    /// All that is known; none if the share-partition is gone.
    Snapshot {
        /// The share-partition.
        key: ShareKey,
        /// Its state.
        state: Option<ShareState>,
    },
    /// What changed; none if compaction or an older broker left a tombstone.
    Update {
        /// The share-partition.
        key: ShareKey,
        /// The change.
        update: Option<Update>,
    },
}

impl ShareStateRecord {
    /// The share-partition it is about.
    pub fn key(&self) -> &ShareKey {
        match self {
            Self::Snapshot { key, .. } | Self::Update { key, .. } => key,
        }
    }

    /// Writes key and value as Kafka lays them out.
    pub fn encode(&self) -> Result<(Bytes, Option<Bytes>), EncodeError> {
        match self {
            Self::Snapshot { key: ShareKey { group, topic_id, partition }, state } => {
                let key = ShareSnapshotKey {
                    group_id: group.clone(),
                    topic_id: *topic_id,
                    partition: *partition,
                };
                let value = state.as_ref().map(|state| prefixed(VALUE_VERSION, &snapshot(state)));
                Ok((prefixed_key(SNAPSHOT, &key)?, value.transpose()?))
            }
            Self::Update { key: ShareKey { group, topic_id, partition }, update } => {
                let key = ShareUpdateKey {
                    group_id: group.clone(),
                    topic_id: *topic_id,
                    partition: *partition,
                };
                let value =
                    update.as_ref().map(|update| prefixed(VALUE_VERSION, &to_value(update)));
                Ok((prefixed_key(UPDATE, &key)?, value.transpose()?))
            }
        }
    }

    /// Reads key and value.
    pub fn decode(key: Bytes, value: Option<Bytes>) -> Result<Self, RecordError> {
        let mut key = Reader::new(key);
        match key.read_i16("record type")? {
            SNAPSHOT => {
                let key = ShareSnapshotKey::decode(&mut key, KEY_VERSION)?;
                let value: Option<ShareSnapshotValue> = value.map(unprefixed).transpose()?;
                let state = value.map(|value| ShareState {
                    snapshot_epoch: value.snapshot_epoch,
                    state_epoch: value.state_epoch,
                    leader_epoch: value.leader_epoch,
                    start_offset: value.start_offset,
                    delivery_complete_count: value.delivery_complete_count,
                    created_ms: value.create_timestamp,
                    written_ms: value.write_timestamp,
                    batches: read_batches(value.state_batches.iter().map(|batch| {
                        (
                            batch.first_offset,
                            batch.last_offset,
                            batch.delivery_state,
                            batch.delivery_count,
                        )
                    })),
                });
                let key = ShareKey {
                    group: key.group_id,
                    topic_id: key.topic_id,
                    partition: key.partition,
                };
                Ok(Self::Snapshot { key, state })
            }
            UPDATE => {
                let key = ShareUpdateKey::decode(&mut key, KEY_VERSION)?;
                let value: Option<ShareUpdateValue> = value.map(unprefixed).transpose()?;
                let update = value.map(|value| Update {
                    snapshot_epoch: value.snapshot_epoch,
                    leader_epoch: value.leader_epoch,
                    start_offset: value.start_offset,
                    delivery_complete_count: value.delivery_complete_count,
                    batches: read_batches(value.state_batches.iter().map(|batch| {
                        (
                            batch.first_offset,
                            batch.last_offset,
                            batch.delivery_state,
                            batch.delivery_count,
                        )
                    })),
                });
                let key = ShareKey {
                    group: key.group_id,
                    topic_id: key.topic_id,
                    partition: key.partition,
                };
                Ok(Self::Update { key, update })
            }
            other => Err(RecordError::UnknownType(other)),
        }
    }
}

/// States that we do not know, which only a later broker can have written, count as available:
/// better delivered once too often than never.
fn read_batches(batches: impl Iterator<Item = (i64, i64, i8, i16)>) -> Vec<StoredBatch> {
    let read = batches.map(|(first, last, state, delivery_count)| StoredBatch {
        first,
        last,
        state: RecordState::from_code(state).unwrap_or(RecordState::Available),
        delivery_count,
    });
    read.collect()
}

fn snapshot(state: &ShareState) -> ShareSnapshotValue {
    let batches = state.batches.iter().map(|batch| share_snapshot_value::StateBatch {
        first_offset: batch.first,
        last_offset: batch.last,
        delivery_state: batch.state.code(),
        delivery_count: batch.delivery_count,
    });
    ShareSnapshotValue {
        snapshot_epoch: state.snapshot_epoch,
        state_epoch: state.state_epoch,
        leader_epoch: state.leader_epoch,
        start_offset: state.start_offset,
        delivery_complete_count: state.delivery_complete_count,
        create_timestamp: state.created_ms,
        write_timestamp: state.written_ms,
        state_batches: batches.collect(),
    }
}

fn to_value(update: &Update) -> ShareUpdateValue {
    let batches = update.batches.iter().map(|batch| share_update_value::StateBatch {
        first_offset: batch.first,
        last_offset: batch.last,
        delivery_state: batch.state.code(),
        delivery_count: batch.delivery_count,
    });
    ShareUpdateValue {
        snapshot_epoch: update.snapshot_epoch,
        leader_epoch: update.leader_epoch,
        start_offset: update.start_offset,
        delivery_complete_count: update.delivery_complete_count,
        state_batches: batches.collect(),
    }
}
