//! The records of a consumer group (KIP-848).
//!
//! ```text
//! type 3   group epoch and hash of the subscribed topics     ConsumerGroupMetadata
//! type 4   subscribed topics, written before Kafka 4.1       ConsumerGroupPartitionMetadata
//! type 5   a member's subscription                           ConsumerGroupMemberMetadata
//! type 6   epoch of the target assignment                    ConsumerGroupTargetAssignmentMetadata
//! type 7   a member's target assignment                      ConsumerGroupTargetAssignmentMember
//! type 8   a member's epoch, state and current assignment    ConsumerGroupCurrentMemberAssignment
//! type 16  topics that a regular expression matches          ConsumerGroupRegularExpression
//! ```

use bytes::Bytes;
use fleuve_protocol::messages::consumer_group_current_member_assignment_key::ConsumerGroupCurrentMemberAssignmentKey;
use fleuve_protocol::messages::consumer_group_current_member_assignment_value::ConsumerGroupCurrentMemberAssignmentValue;
use fleuve_protocol::messages::consumer_group_member_metadata_key::ConsumerGroupMemberMetadataKey;
use fleuve_protocol::messages::consumer_group_member_metadata_value::ConsumerGroupMemberMetadataValue;
use fleuve_protocol::messages::consumer_group_metadata_key::ConsumerGroupMetadataKey;
use fleuve_protocol::messages::consumer_group_metadata_value::ConsumerGroupMetadataValue;
use fleuve_protocol::messages::consumer_group_partition_metadata_key::ConsumerGroupPartitionMetadataKey;
use fleuve_protocol::messages::consumer_group_partition_metadata_value::ConsumerGroupPartitionMetadataValue;
use fleuve_protocol::messages::consumer_group_regular_expression_key::ConsumerGroupRegularExpressionKey;
use fleuve_protocol::messages::consumer_group_regular_expression_value::ConsumerGroupRegularExpressionValue;
use fleuve_protocol::messages::consumer_group_target_assignment_member_key::ConsumerGroupTargetAssignmentMemberKey;
use fleuve_protocol::messages::consumer_group_target_assignment_member_value::ConsumerGroupTargetAssignmentMemberValue;
use fleuve_protocol::messages::consumer_group_target_assignment_metadata_key::ConsumerGroupTargetAssignmentMetadataKey;
use fleuve_protocol::messages::consumer_group_target_assignment_metadata_value::ConsumerGroupTargetAssignmentMetadataValue;
use fleuve_protocol::{DecodeError, EncodeError, Message, Reader, Str};

use crate::record::{KEY_VERSION, prefixed, prefixed_key, unprefixed};

const METADATA: i16 = 3;
const PARTITION_METADATA: i16 = 4;
const MEMBER_METADATA: i16 = 5;
const TARGET_METADATA: i16 = 6;
const TARGET_MEMBER: i16 = 7;
const CURRENT_ASSIGNMENT: i16 = 8;
const REGULAR_EXPRESSION: i16 = 16;

/// Every value has one version so far.
const VALUE_VERSION: i16 = 0;

/// One record of a consumer group; without a value it is a tombstone.
#[derive(Clone, Debug, PartialEq)]
pub enum ConsumerRecord {
    /// The group's epoch; its tombstone ends the group.
    Epoch(Option<ConsumerGroupMetadataValue>),
    /// The subscribed topics as old brokers kept them; never written with a value.
    Topics(Option<ConsumerGroupPartitionMetadataValue>),
    /// What a member said of itself.
    Member {
        /// The member's id.
        member: Str,
        /// Its subscription.
        value: Option<ConsumerGroupMemberMetadataValue>,
    },
    /// The epoch of the target assignment.
    TargetEpoch(Option<ConsumerGroupTargetAssignmentMetadataValue>),
    /// What a member is to have in the end.
    Target {
        /// The member's id.
        member: Str,
        /// The partitions.
        value: Option<ConsumerGroupTargetAssignmentMemberValue>,
    },
    /// What a member has now.
    Current {
        /// The member's id.
        member: Str,
        /// Its epoch, state and partitions.
        value: Option<ConsumerGroupCurrentMemberAssignmentValue>,
    },
    /// What a regular expression matches.
    Regex {
        /// The expression.
        regex: Str,
        /// The topics.
        value: Option<ConsumerGroupRegularExpressionValue>,
    },
}

impl ConsumerRecord {
    /// Reads a record whose key is of type `kind`; none if that is not a consumer group's.
    pub(crate) fn decode(
        kind: i16,
        key: &mut Reader,
        value: Option<Bytes>,
    ) -> Result<Option<(Str, Self)>, DecodeError> {
        let read = match kind {
            METADATA => {
                let key = ConsumerGroupMetadataKey::decode(key, KEY_VERSION)?;
                (key.group_id, Self::Epoch(value.map(unprefixed).transpose()?))
            }
            PARTITION_METADATA => {
                let key = ConsumerGroupPartitionMetadataKey::decode(key, KEY_VERSION)?;
                (key.group_id, Self::Topics(value.map(unprefixed).transpose()?))
            }
            MEMBER_METADATA => {
                let key = ConsumerGroupMemberMetadataKey::decode(key, KEY_VERSION)?;
                let value = value.map(unprefixed).transpose()?;
                (key.group_id, Self::Member { member: key.member_id, value })
            }
            TARGET_METADATA => {
                let key = ConsumerGroupTargetAssignmentMetadataKey::decode(key, KEY_VERSION)?;
                (key.group_id, Self::TargetEpoch(value.map(unprefixed).transpose()?))
            }
            TARGET_MEMBER => {
                let key = ConsumerGroupTargetAssignmentMemberKey::decode(key, KEY_VERSION)?;
                let value = value.map(unprefixed).transpose()?;
                (key.group_id, Self::Target { member: key.member_id, value })
            }
            CURRENT_ASSIGNMENT => {
                let key = ConsumerGroupCurrentMemberAssignmentKey::decode(key, KEY_VERSION)?;
                let value = value.map(unprefixed).transpose()?;
                (key.group_id, Self::Current { member: key.member_id, value })
            }
            REGULAR_EXPRESSION => {
                let key = ConsumerGroupRegularExpressionKey::decode(key, KEY_VERSION)?;
                let value = value.map(unprefixed).transpose()?;
                (key.group_id, Self::Regex { regex: key.regular_expression, value })
            }
            _ => return Ok(None),
        };
        Ok(Some(read))
    }

    /// Whether it has no value.
    pub(crate) fn is_tombstone(&self) -> bool {
        match self {
            Self::Epoch(value) => value.is_none(),
            Self::Topics(value) => value.is_none(),
            Self::Member { value, .. } => value.is_none(),
            Self::TargetEpoch(value) => value.is_none(),
            Self::Target { value, .. } => value.is_none(),
            Self::Current { value, .. } => value.is_none(),
            Self::Regex { value, .. } => value.is_none(),
        }
    }

    /// Writes key and value; the value is none for tombstones.
    pub(crate) fn encode(&self, group: &Str) -> Result<(Bytes, Option<Bytes>), EncodeError> {
        let group_id = group.clone();
        match self {
            Self::Epoch(value) => {
                let key = ConsumerGroupMetadataKey { group_id };
                Ok((prefixed_key(METADATA, &key)?, encode_value(value)?))
            }
            Self::Topics(value) => {
                let key = ConsumerGroupPartitionMetadataKey { group_id };
                Ok((prefixed_key(PARTITION_METADATA, &key)?, encode_value(value)?))
            }
            Self::Member { member, value } => {
                let member_id = member.clone();
                let key = ConsumerGroupMemberMetadataKey { group_id, member_id };
                Ok((prefixed_key(MEMBER_METADATA, &key)?, encode_value(value)?))
            }
            Self::TargetEpoch(value) => {
                let key = ConsumerGroupTargetAssignmentMetadataKey { group_id };
                Ok((prefixed_key(TARGET_METADATA, &key)?, encode_value(value)?))
            }
            Self::Target { member, value } => {
                let member_id = member.clone();
                let key = ConsumerGroupTargetAssignmentMemberKey { group_id, member_id };
                Ok((prefixed_key(TARGET_MEMBER, &key)?, encode_value(value)?))
            }
            Self::Current { member, value } => {
                let member_id = member.clone();
                let key = ConsumerGroupCurrentMemberAssignmentKey { group_id, member_id };
                Ok((prefixed_key(CURRENT_ASSIGNMENT, &key)?, encode_value(value)?))
            }
            Self::Regex { regex, value } => {
                let regular_expression = regex.clone();
                let key = ConsumerGroupRegularExpressionKey { group_id, regular_expression };
                Ok((prefixed_key(REGULAR_EXPRESSION, &key)?, encode_value(value)?))
            }
        }
    }
}

fn encode_value(value: &Option<impl Message>) -> Result<Option<Bytes>, EncodeError> {
    value.as_ref().map(|value| prefixed(VALUE_VERSION, value)).transpose()
}
