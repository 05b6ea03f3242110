//! The records of `__consumer_offsets` that this room writes and understands.
//!
//! ```text
//! key:    type i16 | message of that type, version 0
//! value:  version i16 | message in that version          (null: the thing is gone)
//!
//! type 0  offset of a group, as brokers before 0.9 wrote it (read, never written)
//! type 1  offset of a group      OffsetCommitKey, OffsetCommitValue
//! type 2  classic group          GroupMetadataKey, GroupMetadataValue
//! type 3 to 8, and 16: consumer groups, see ConsumerRecord
//! type 10 to 15: share groups, see ShareRecord
//! type 17, and 19 to 23: streams groups, see StreamsRecord
//! ```
//!
//! Others, which only a later broker can have written, are reported as unknown; the loader skips them,
//! as Kafka does with types that it does not know.

use bytes::Bytes;
use fleuve_protocol::messages::group_metadata_key::GroupMetadataKey;
use fleuve_protocol::messages::group_metadata_value::GroupMetadataValue;
use fleuve_protocol::messages::legacy_offset_commit_key::LegacyOffsetCommitKey;
use fleuve_protocol::messages::legacy_offset_commit_value::LegacyOffsetCommitValue;
use fleuve_protocol::messages::offset_commit_key::OffsetCommitKey;
use fleuve_protocol::messages::offset_commit_value::OffsetCommitValue;

use fleuve_protocol::{DecodeError, EncodeError, Message, Reader, Str, Writer};

use crate::consumer::ConsumerRecord;
use crate::share::ShareRecord;
use crate::streams::StreamsRecord;

const LEGACY_OFFSET_COMMIT: i16 = 0;
const OFFSET_COMMIT: i16 = 1;
const GROUP_METADATA: i16 = 2;

/// Every key type that we know has one version only.
pub(crate) const KEY_VERSION: i16 = 0;

/// The version Kafka 4.3 writes: the last one that older brokers can read.
const GROUP_METADATA_VERSION: i16 = 3;

/// The version Kafka 4.3 writes for offsets, the first to carry topic ids.
const OFFSET_COMMIT_VERSION: i16 = 4;

/// The only version with room for an expiry time of its own, which OffsetCommit v2 to v4 ask for.
const OFFSET_COMMIT_VERSION_WITH_EXPIRY: i16 = 1;

/// The expiry time of offsets that have none of their own.
pub(crate) const NO_EXPIRY: i64 = -1;

/// One record of `__consumer_offsets`; without a value it is a tombstone.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// State of a classic group at the end of a rebalance.
    Group {
        /// The group's id.
        group: Str,
        /// What is known of it, or `None` when it is gone.
        value: Option<GroupMetadataValue>,
    },
    /// Offset that a group committed for one partition.
    Offset {
        /// Group, topic and partition.
        key: OffsetCommitKey,
        /// The offset, or `None` when it is gone.
        value: Option<OffsetCommitValue>,
    },
    /// Part of a consumer group.
    Consumer {
        /// The group's id.
        group: Str,
        /// The part.
        record: ConsumerRecord,
    },
    /// Part of a streams group.
    Streams {
        /// The group's id.
        group: Str,
        /// The part.
        record: StreamsRecord,
    },
    /// Part of a share group.
    Share {
        /// The group's id.
        group: Str,
        /// The part.
        record: ShareRecord,
    },
}

/// Why bytes are not a record that we can apply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The key is of a type that belongs to no room of ours; loaders skip it.
    #[error("record type {0} is not known")]
    UnknownType(i16),
    /// Key or value is damaged.
    #[error(transparent)]
    Damaged(#[from] DecodeError),
}

impl Record {
    /// Writes key and value as Kafka lays them out.
    pub fn encode(&self) -> Result<(Bytes, Option<Bytes>), EncodeError> {
        match self {
            Self::Group { group, value } => {
                let key = GroupMetadataKey { group: group.clone() };
                let value = match value {
                    Some(value) => Some(prefixed(GROUP_METADATA_VERSION, value)?),
                    None => None,
                };
                Ok((prefixed_key(GROUP_METADATA, &key)?, value))
            }
            Self::Offset { key, value } => {
                let value = match value {
                    Some(value) if value.expire_timestamp != NO_EXPIRY => {
                        Some(prefixed(OFFSET_COMMIT_VERSION_WITH_EXPIRY, value)?)
                    }
                    Some(value) => Some(prefixed(OFFSET_COMMIT_VERSION, value)?),
                    None => None,
                };
                Ok((prefixed_key(OFFSET_COMMIT, key)?, value))
            }
            Self::Consumer { group, record } => record.encode(group),
            Self::Streams { group, record } => record.encode(group),
            Self::Share { group, record } => record.encode(group),
        }
    }

    /// Reads key and value, in every version that Kafka ever wrote.
    pub fn decode(key: Bytes, value: Option<Bytes>) -> Result<Self, RecordError> {
        let mut key = Reader::new(key);
        match key.read_i16("record type")? {
            GROUP_METADATA => {
                let key = GroupMetadataKey::decode(&mut key, KEY_VERSION)?;
                Ok(Self::Group { group: key.group, value: value.map(unprefixed).transpose()? })
            }
            OFFSET_COMMIT => {
                let key = OffsetCommitKey::decode(&mut key, KEY_VERSION)?;
                Ok(Self::Offset { key, value: value.map(unprefixed).transpose()? })
            }
            LEGACY_OFFSET_COMMIT => {
                let LegacyOffsetCommitKey { group, topic, partition } =
                    LegacyOffsetCommitKey::decode(&mut key, KEY_VERSION)?;
                let value: Option<LegacyOffsetCommitValue> = value.map(unprefixed).transpose()?;
                let value = value.map(|legacy| OffsetCommitValue {
                    offset: legacy.offset,
                    metadata: legacy.metadata,
                    commit_timestamp: legacy.commit_timestamp,
                    ..OffsetCommitValue::default()
                });
                Ok(Self::Offset { key: OffsetCommitKey { group, topic, partition }, value })
            }
            kind @ 10..=15 => match ShareRecord::decode(kind, &mut key, value)? {
                Some((group, record)) => Ok(Self::Share { group, record }),
                None => Err(RecordError::UnknownType(kind)),
            },
            other => {
                if let Some((group, record)) =
                    ConsumerRecord::decode(other, &mut key, value.clone())?
                {
                    return Ok(Self::Consumer { group, record });
                }
                match StreamsRecord::decode(other, &mut key, value)? {
                    Some((group, record)) => Ok(Self::Streams { group, record }),
                    None => Err(RecordError::UnknownType(other)),
                }
            }
        }
    }

    /// Makes the tombstone of a committed offset.
    pub(crate) fn offset_tombstone(group: &Str, topic: &Str, partition: i32) -> Self {
        let key = OffsetCommitKey { group: group.clone(), topic: topic.clone(), partition };
        Self::Offset { key, value: None }
    }

    /// Makes the tombstone of a group.
    pub(crate) fn group_tombstone(group: &Str) -> Self {
        Self::Group { group: group.clone(), value: None }
    }
}

pub(crate) fn prefixed_key(kind: i16, key: &impl Message) -> Result<Bytes, EncodeError> {
    let mut writer = Writer::new();
    writer.write_i16(kind);
    key.encode(&mut writer, KEY_VERSION)?;
    Ok(writer.into_bytes())
}

pub(crate) fn prefixed(version: i16, value: &impl Message) -> Result<Bytes, EncodeError> {
    let mut writer = Writer::new();
    writer.write_i16(version);
    value.encode(&mut writer, version)?;
    Ok(writer.into_bytes())
}

pub(crate) fn unprefixed<M: Message>(value: Bytes) -> Result<M, DecodeError> {
    let mut reader = Reader::new(value);
    let version = reader.read_i16("record value version")?;
    M::decode(&mut reader, version)
}
