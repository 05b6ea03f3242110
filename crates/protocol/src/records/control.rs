//! Control records: what brokers write into a log for each other and for consumers' libraries.
//!
//! ```text
//! key                       version 2, type 2
//! value of abort, commit    version 2, coordinator epoch 4
//! ```
//!
//! The values of the other types are generated messages, see `messages::leader_change_message` and
//! its neighbours.

use bytes::Bytes;
use fleuve_types::{Offset, ProducerEpoch, ProducerId, TimestampMs};
use thiserror::Error;

use super::{BatchBuilder, BatchOptions, BatchProducer, NewRecord, Record};

/// The kind of a control record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ControlRecordType {
    /// The producer's transaction ends here and is void.
    Abort,
    /// The producer's transaction ends here and holds.
    Commit,
    /// A metadata quorum has a new leader.
    LeaderChange,
    /// First record of a metadata snapshot.
    SnapshotHeader,
    /// Last record of a metadata snapshot.
    SnapshotFooter,
    /// The version of the quorum's protocol.
    KraftVersion,
    /// The voters of the quorum.
    KraftVoters,
    /// A type from the future, to be skipped.
    Unknown(i16),
}

impl ControlRecordType {
    /// The type with this number.
    pub fn from_id(id: i16) -> Self {
        match id {
            0 => Self::Abort,
            1 => Self::Commit,
            2 => Self::LeaderChange,
            3 => Self::SnapshotHeader,
            4 => Self::SnapshotFooter,
            5 => Self::KraftVersion,
            6 => Self::KraftVoters,
            id => Self::Unknown(id),
        }
    }

    /// The number in a record's key.
    pub fn id(self) -> i16 {
        match self {
            Self::Abort => 0,
            Self::Commit => 1,
            Self::LeaderChange => 2,
            Self::SnapshotHeader => 3,
            Self::SnapshotFooter => 4,
            Self::KraftVersion => 5,
            Self::KraftVoters => 6,
            Self::Unknown(id) => id,
        }
    }

    /// The type of a control record, from its key.
    pub fn of(record: &Record<'_>) -> Result<Self, ControlRecordError> {
        let key = record.key.unwrap_or_default();
        let Some((version, [high, low, ..])) = key.split_first_chunk::<2>() else {
            return Err(ControlRecordError::ShortKey { size: key.len() });
        };
        check_version(*version)?;
        Ok(Self::from_id(i16::from_be_bytes([*high, *low])))
    }

    /// The key of a record of this type.
    pub fn key(self) -> [u8; 4] {
        let [high, low] = self.id().to_be_bytes();
        [0, 0, high, low]
    }
}

/// The end of a transaction in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndTransactionMarker {
    /// Whether the transaction holds.
    pub committed: bool,
    /// Epoch of the coordinator that ended it, so that an old one cannot end a newer transaction.
    pub coordinator_epoch: i32,
}

impl EndTransactionMarker {
    /// Reads the marker from a control record, `None` if the record is of another type.
    pub fn of(record: &Record<'_>) -> Result<Option<Self>, ControlRecordError> {
        let committed = match ControlRecordType::of(record)? {
            ControlRecordType::Abort => false,
            ControlRecordType::Commit => true,
            _ => return Ok(None),
        };
        let value = record.value.unwrap_or_default();
        let Some((version, [e0, e1, e2, e3, ..])) = value.split_first_chunk::<2>() else {
            return Err(ControlRecordError::ShortMarker { size: value.len() });
        };
        check_version(*version)?;
        let coordinator_epoch = i32::from_be_bytes([*e0, *e1, *e2, *e3]);
        Ok(Some(Self { committed, coordinator_epoch }))
    }

    /// The control batch that carries the marker to a partition.
    pub fn to_batch(
        self,
        producer_id: ProducerId,
        producer_epoch: ProducerEpoch,
        timestamp: TimestampMs,
    ) -> Bytes {
        let (control_type, [e0, e1, e2, e3]) = match self.committed {
            false => (ControlRecordType::Abort, self.coordinator_epoch.to_be_bytes()),
            true => (ControlRecordType::Commit, self.coordinator_epoch.to_be_bytes()),
        };
        let options = BatchOptions {
            base_offset: Offset(0),
            producer: Some(BatchProducer {
                id: producer_id,
                epoch: producer_epoch,
                base_sequence: -1,
            }),
            transactional: true,
            ..BatchOptions::default()
        };
        control_batch(options, control_type, &[0, 0, e0, e1, e2, e3], timestamp)
    }
}

/// A batch with a single control record.
pub fn control_batch(
    options: BatchOptions,
    control_type: ControlRecordType,
    value: &[u8],
    timestamp: TimestampMs,
) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions { control: true, ..options });
    builder
        .append(&NewRecord {
            timestamp,
            key: Some(&control_type.key()),
            value: Some(value),
            headers: &[],
        })
        .expect("control records are far smaller than a batch may be");
    builder.finish()
}

/// Why a record is not a control record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ControlRecordError {
    /// The key has no room for version and type.
    #[error("control record has a key of {size} bytes, 4 are needed")]
    ShortKey {
        /// Size of the key.
        size: usize,
    },
    /// The value of a transaction marker has no room for version and epoch.
    #[error("transaction marker has {size} bytes, 6 are needed")]
    ShortMarker {
        /// Size of the value.
        size: usize,
    },
    /// A version is negative.
    #[error("control record has version {version}")]
    NegativeVersion {
        /// The version.
        version: i16,
    },
}

/// Versions only ever add fields, so newer ones are read as far as we know them.
fn check_version(version: [u8; 2]) -> Result<(), ControlRecordError> {
    let version = i16::from_be_bytes(version);
    if version < 0 {
        return Err(ControlRecordError::NegativeVersion { version });
    }
    Ok(())
}
