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

use fleuve_protocol::Str;
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

use crate::modern::group_records;

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

group_records! {
    ConsumerRecord {
        of_group {
            Epoch = 3: ConsumerGroupMetadataKey,
            Topics = 4: ConsumerGroupPartitionMetadataKey,
            TargetEpoch = 6: ConsumerGroupTargetAssignmentMetadataKey,
        }
        of_part {
            Member = 5: ConsumerGroupMemberMetadataKey(member is member_id),
            Target = 7: ConsumerGroupTargetAssignmentMemberKey(member is member_id),
            Current = 8: ConsumerGroupCurrentMemberAssignmentKey(member is member_id),
            Regex = 16: ConsumerGroupRegularExpressionKey(regex is regular_expression),
        }
    }
}
