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

use fleuve_protocol::Str;
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

use crate::modern::group_records;

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

group_records! {
    StreamsRecord {
        of_group {
            Epoch = 17: StreamsGroupMetadataKey,
            TargetEpoch = 20: StreamsGroupTargetAssignmentMetadataKey,
            Topology = 23: StreamsGroupTopologyKey,
        }
        of_part {
            Member = 19: StreamsGroupMemberMetadataKey(member is member_id),
            Target = 21: StreamsGroupTargetAssignmentMemberKey(member is member_id),
            Current = 22: StreamsGroupCurrentMemberAssignmentKey(member is member_id),
        }
    }
}
