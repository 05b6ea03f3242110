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

use fleuve_protocol::Str;
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

use crate::modern::group_records;

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

group_records! {
    ShareRecord {
        of_group {
            Epoch = 11: ShareGroupMetadataKey,
            TargetEpoch = 12: ShareGroupTargetAssignmentMetadataKey,
            StatePartitions = 15: ShareGroupStatePartitionMetadataKey,
        }
        of_part {
            Member = 10: ShareGroupMemberMetadataKey(member is member_id),
            Target = 13: ShareGroupTargetAssignmentMemberKey(member is member_id),
            Current = 14: ShareGroupCurrentMemberAssignmentKey(member is member_id),
        }
    }
}
