//! The records of a streams group (KIP-1071).
//!
//! ```text
//! type 17  group epoch, hash of the topics, validated topology   StreamsGroupMetadata
//! type 19  what a member said of itself                          StreamsGroupMemberMetadata
//! type 20  epoch of the target assignment                        StreamsGroupTargetAssignmentMetadata
//! type 21  a member's target assignment                          StreamsGroupTargetAssignmentMember
//! type 22  a member's epoch, state and current tasks             StreamsGroupCurrentMemberAssignment
//! type 23  the topology                                          StreamsGroupTopology
//! ```

use bytes::Bytes;
use fleuve_protocol::messages::streams_group_current_member_assignment_key::StreamsGroupCurrentMemberAssignmentKey;
use fleuve_protocol::messages::streams_group_current_member_assignment_value::StreamsGroupCurrentMemberAssignmentValue;
use fleuve_protocol::messages::streams_group_member_metadata_key::StreamsGroupMemberMetadataKey;
use fleuve_protocol::messages::streams_group_member_metadata_value::StreamsGroupMemberMetadataValue;
use fleuve_protocol::messages::streams_group_metadata_key::StreamsGroupMetadataKey;
use fleuve_protocol::messages::streams_group_metadata_value::StreamsGroupMetadataValue;
use fleuve_protocol::messages::streams_group_target_assignment_member_key::StreamsGroupTargetAssignmentMemberKey;
use fleuve_protocol::messages::streams_group_target_assignment_member_value::StreamsGroupTargetAssignmentMemberValue;
use fleuve_protocol::messages::streams_group_target_assignment_metadata_key::StreamsGroupTargetAssignmentMetadataKey;
use fleuve_protocol::messages::streams_group_target_assignment_metadata_value::StreamsGroupTargetAssignmentMetadataValue;
use fleuve_protocol::messages::streams_group_topology_key::StreamsGroupTopologyKey;
use fleuve_protocol::messages::streams_group_topology_value::StreamsGroupTopologyValue;
use fleuve_protocol::{DecodeError, EncodeError, Message, Reader, Str};

use crate::record::{KEY_VERSION, prefixed, prefixed_key, unprefixed};

const METADATA: i16 = 17;
const MEMBER_METADATA: i16 = 19;
const TARGET_METADATA: i16 = 20;
const TARGET_MEMBER: i16 = 21;
const CURRENT_ASSIGNMENT: i16 = 22;
const TOPOLOGY: i16 = 23;

/// Every value has one version so far.
const VALUE_VERSION: i16 = 0;

/// One record of a streams group; without a value it is a tombstone.
#[derive(Clone, Debug, PartialEq)]
pub enum StreamsRecord {
    /// The group's epoch; its tombstone ends the group.
    Epoch(Option<StreamsGroupMetadataValue>),
    /// What a member said of itself.
    Member {
        /// The member's id.
        member: Str,
        /// Its process, topology and endpoint.
        value: Option<StreamsGroupMemberMetadataValue>,
    },
    /// The epoch of the target assignment.
    TargetEpoch(Option<StreamsGroupTargetAssignmentMetadataValue>),
    /// What a member is to have in the end.
    Target {
        /// The member's id.
        member: Str,
        /// The tasks.
        value: Option<StreamsGroupTargetAssignmentMemberValue>,
    },
    /// What a member has now.
    Current {
        /// The member's id.
        member: Str,
        /// Its epoch, state and tasks.
        value: Option<StreamsGroupCurrentMemberAssignmentValue>,
    },
    /// The topology.
    Topology(Option<StreamsGroupTopologyValue>),
}

impl StreamsRecord {
    /// Reads a record whose key is of type `kind`; none if that is not a streams group's.
    pub(crate) fn decode(
        kind: i16,
        key: &mut Reader,
        value: Option<Bytes>,
    ) -> Result<Option<(Str, Self)>, DecodeError> {
        let read = match kind {
            METADATA => {
                let key = StreamsGroupMetadataKey::decode(key, KEY_VERSION)?;
                (key.group_id, Self::Epoch(value.map(unprefixed).transpose()?))
            }
            MEMBER_METADATA => {
                let key = StreamsGroupMemberMetadataKey::decode(key, KEY_VERSION)?;
                let value = value.map(unprefixed).transpose()?;
                (key.group_id, Self::Member { member: key.member_id, value })
            }
            TARGET_METADATA => {
                let key = StreamsGroupTargetAssignmentMetadataKey::decode(key, KEY_VERSION)?;
                (key.group_id, Self::TargetEpoch(value.map(unprefixed).transpose()?))
            }
            TARGET_MEMBER => {
                let key = StreamsGroupTargetAssignmentMemberKey::decode(key, KEY_VERSION)?;
                let value = value.map(unprefixed).transpose()?;
                (key.group_id, Self::Target { member: key.member_id, value })
            }
            CURRENT_ASSIGNMENT => {
                let key = StreamsGroupCurrentMemberAssignmentKey::decode(key, KEY_VERSION)?;
                let value = value.map(unprefixed).transpose()?;
                (key.group_id, Self::Current { member: key.member_id, value })
            }
            TOPOLOGY => {
                let key = StreamsGroupTopologyKey::decode(key, KEY_VERSION)?;
                (key.group_id, Self::Topology(value.map(unprefixed).transpose()?))
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
            Self::Topology(value) => value.is_none(),
        }
    }

    /// Writes key and value; the value is none for tombstones.
    pub(crate) fn encode(&self, group: &Str) -> Result<(Bytes, Option<Bytes>), EncodeError> {
        let group_id = group.clone();
        match self {
            Self::Epoch(value) => {
                let key = StreamsGroupMetadataKey { group_id };
                Ok((prefixed_key(METADATA, &key)?, encode_value(value)?))
            }
            Self::Member { member, value } => {
                let key = StreamsGroupMemberMetadataKey { group_id, member_id: member.clone() };
                Ok((prefixed_key(MEMBER_METADATA, &key)?, encode_value(value)?))
            }
            Self::TargetEpoch(value) => {
                let key = StreamsGroupTargetAssignmentMetadataKey { group_id };
                Ok((prefixed_key(TARGET_METADATA, &key)?, encode_value(value)?))
            }
            Self::Target { member, value } => {
                let key =
                    StreamsGroupTargetAssignmentMemberKey { group_id, member_id: member.clone() };
                Ok((prefixed_key(TARGET_MEMBER, &key)?, encode_value(value)?))
            }
            Self::Current { member, value } => {
                let key =
                    StreamsGroupCurrentMemberAssignmentKey { group_id, member_id: member.clone() };
                Ok((prefixed_key(CURRENT_ASSIGNMENT, &key)?, encode_value(value)?))
            }
            Self::Topology(value) => {
                let key = StreamsGroupTopologyKey { group_id };
                Ok((prefixed_key(TOPOLOGY, &key)?, encode_value(value)?))
            }
        }
    }
}

fn encode_value(value: &Option<impl Message>) -> Result<Option<Bytes>, EncodeError> {
    value.as_ref().map(|value| prefixed(VALUE_VERSION, value)).transpose()
}
