//! The records of a share group in `__consumer_offsets` (KIP-932).
//!
//! ```text
//! type 10  a member's subscription                        ShareGroupMemberMetadata
//! type 11  group epoch and hash of the subscribed topics  ShareGroupMetadata
//! type 12  epoch of the target assignment                 ShareGroupTargetAssignmentMetadata
//! type 13  a member's target assignment                   ShareGroupTargetAssignmentMember
//! type 14  a member's epoch and current assignment        ShareGroupCurrentMemberAssignment
//! type 15  which share-partitions have a state            ShareGroupStatePartitionMetadata
//! ```

use bytes::Bytes;
use fleuve_protocol::messages::share_group_current_member_assignment_key::ShareGroupCurrentMemberAssignmentKey;
use fleuve_protocol::messages::share_group_current_member_assignment_value::ShareGroupCurrentMemberAssignmentValue;
use fleuve_protocol::messages::share_group_member_metadata_key::ShareGroupMemberMetadataKey;
use fleuve_protocol::messages::share_group_member_metadata_value::ShareGroupMemberMetadataValue;
use fleuve_protocol::messages::share_group_metadata_key::ShareGroupMetadataKey;
use fleuve_protocol::messages::share_group_metadata_value::ShareGroupMetadataValue;
use fleuve_protocol::messages::share_group_state_partition_metadata_key::ShareGroupStatePartitionMetadataKey;
use fleuve_protocol::messages::share_group_state_partition_metadata_value::ShareGroupStatePartitionMetadataValue;
use fleuve_protocol::messages::share_group_target_assignment_member_key::ShareGroupTargetAssignmentMemberKey;
use fleuve_protocol::messages::share_group_target_assignment_member_value::ShareGroupTargetAssignmentMemberValue;
use fleuve_protocol::messages::share_group_target_assignment_metadata_key::ShareGroupTargetAssignmentMetadataKey;
use fleuve_protocol::messages::share_group_target_assignment_metadata_value::ShareGroupTargetAssignmentMetadataValue;
use fleuve_protocol::{DecodeError, EncodeError, Message, Reader, Str};

use crate::record::{KEY_VERSION, prefixed, prefixed_key, unprefixed};

const MEMBER_METADATA: i16 = 10;
const METADATA: i16 = 11;
const TARGET_METADATA: i16 = 12;
const TARGET_MEMBER: i16 = 13;
const CURRENT_ASSIGNMENT: i16 = 14;
const STATE_PARTITIONS: i16 = 15;

/// Every value has one version so far.
const VALUE_VERSION: i16 = 0;

/// One record of a share group; without a value it is a tombstone.
#[derive(Clone, Debug, PartialEq)]
pub enum ShareRecord {
    /// The group's epoch; its tombstone ends the group.
    Epoch(Option<ShareGroupMetadataValue>),
    /// What a member said of itself.
    Member {
        /// The member's id.
        member: Str,
        /// Its subscription.
        value: Option<ShareGroupMemberMetadataValue>,
    },
    /// The epoch of the target assignment.
    TargetEpoch(Option<ShareGroupTargetAssignmentMetadataValue>),
    /// What a member is to have.
    Target {
        /// The member's id.
        member: Str,
        /// The partitions.
        value: Option<ShareGroupTargetAssignmentMemberValue>,
    },
    /// What a member has.
    Current {
        /// The member's id.
        member: Str,
        /// Its epoch and partitions.
        value: Option<ShareGroupCurrentMemberAssignmentValue>,
    },
    /// Which share-partitions have a state in `__share_group_state`.
    StatePartitions(Option<ShareGroupStatePartitionMetadataValue>),
}

impl ShareRecord {
    /// Reads a record whose key is of type `kind`; none if that is not a share group's.
    pub(crate) fn decode(
        kind: i16,
        key: &mut Reader,
        value: Option<Bytes>,
    ) -> Result<Option<(Str, Self)>, DecodeError> {
        let read = match kind {
            MEMBER_METADATA => {
                let key = ShareGroupMemberMetadataKey::decode(key, KEY_VERSION)?;
                let value = value.map(unprefixed).transpose()?;
                (key.group_id, Self::Member { member: key.member_id, value })
            }
            METADATA => {
                let key = ShareGroupMetadataKey::decode(key, KEY_VERSION)?;
                (key.group_id, Self::Epoch(value.map(unprefixed).transpose()?))
            }
            TARGET_METADATA => {
                let key = ShareGroupTargetAssignmentMetadataKey::decode(key, KEY_VERSION)?;
                (key.group_id, Self::TargetEpoch(value.map(unprefixed).transpose()?))
            }
            TARGET_MEMBER => {
                let key = ShareGroupTargetAssignmentMemberKey::decode(key, KEY_VERSION)?;
                let value = value.map(unprefixed).transpose()?;
                (key.group_id, Self::Target { member: key.member_id, value })
            }
            CURRENT_ASSIGNMENT => {
                let key = ShareGroupCurrentMemberAssignmentKey::decode(key, KEY_VERSION)?;
                let value = value.map(unprefixed).transpose()?;
                (key.group_id, Self::Current { member: key.member_id, value })
            }
            STATE_PARTITIONS => {
                let key = ShareGroupStatePartitionMetadataKey::decode(key, KEY_VERSION)?;
                (key.group_id, Self::StatePartitions(value.map(unprefixed).transpose()?))
            }
            _ => return Ok(None),
        };
        Ok(Some(read))
    }

    /// Whether it has no value.
    pub(crate) fn is_tombstone(&self) -> bool {
        match self {
            Self::Epoch(value) => value.is_none(),
            Self::Member { value, .. } => value.is_none(),
            Self::TargetEpoch(value) => value.is_none(),
            Self::Target { value, .. } => value.is_none(),
            Self::Current { value, .. } => value.is_none(),
            Self::StatePartitions(value) => value.is_none(),
        }
    }

    /// Writes key and value; the value is none for tombstones.
    pub(crate) fn encode(&self, group: &Str) -> Result<(Bytes, Option<Bytes>), EncodeError> {
        let group_id = group.clone();
        match self {
            Self::Member { member, value } => {
                let member_id = member.clone();
                let key = ShareGroupMemberMetadataKey { group_id, member_id };
                Ok((prefixed_key(MEMBER_METADATA, &key)?, encode_value(value)?))
            }
            Self::Epoch(value) => {
                let key = ShareGroupMetadataKey { group_id };
                Ok((prefixed_key(METADATA, &key)?, encode_value(value)?))
            }
            Self::TargetEpoch(value) => {
                let key = ShareGroupTargetAssignmentMetadataKey { group_id };
                Ok((prefixed_key(TARGET_METADATA, &key)?, encode_value(value)?))
            }
            Self::Target { member, value } => {
                let member_id = member.clone();
                let key = ShareGroupTargetAssignmentMemberKey { group_id, member_id };
                Ok((prefixed_key(TARGET_MEMBER, &key)?, encode_value(value)?))
            }
            Self::Current { member, value } => {
                let member_id = member.clone();
                let key = ShareGroupCurrentMemberAssignmentKey { group_id, member_id };
                Ok((prefixed_key(CURRENT_ASSIGNMENT, &key)?, encode_value(value)?))
            }
            Self::StatePartitions(value) => {
                let key = ShareGroupStatePartitionMetadataKey { group_id };
                Ok((prefixed_key(STATE_PARTITIONS, &key)?, encode_value(value)?))
            }
        }
    }
}

fn encode_value(value: &Option<impl Message>) -> Result<Option<Bytes>, EncodeError> {
    value.as_ref().map(|value| prefixed(VALUE_VERSION, value)).transpose()
}
