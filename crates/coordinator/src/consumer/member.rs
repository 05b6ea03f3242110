//! A member of a consumer group: what it said of itself, and what it has.

use std::collections::{BTreeMap, BTreeSet};

use fleuve_protocol::Str;
use fleuve_protocol::messages::consumer_group_current_member_assignment_value::{
    ConsumerGroupCurrentMemberAssignmentValue, TopicPartitions,
};
use fleuve_protocol::messages::consumer_group_member_metadata_value::{
    ClassicMemberMetadata, ClassicProtocol, ConsumerGroupMemberMetadataValue,
};
use fleuve_types::Uuid;

use crate::modern::{JOINING, MemberState};

/// Partitions by topic, each with the epoch in which the member got it.
pub(crate) type Assigned = BTreeMap<Uuid, BTreeMap<i32, i32>>;

/// Partitions by topic.
pub(crate) type Target = BTreeMap<Uuid, BTreeSet<i32>>;

/// What the first state of a member is written as.
const FIRST_STATE: i8 = 0;

/// A member, as the log has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Member {
    pub(crate) instance_id: Option<Str>,
    pub(crate) rack_id: Option<Str>,
    pub(crate) client_id: Str,
    pub(crate) client_host: Str,
    pub(crate) topics: BTreeSet<Str>,
    /// A regular expression for names of topics; an empty one is as good as none.
    pub(crate) regex: Option<Str>,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) assignor: Option<Str>,
    /// Set for members of the classic protocol.
    pub(crate) classic: Option<ClassicMemberMetadata>,
    pub(crate) epoch: i32,
    pub(crate) previous_epoch: i32,
    pub(crate) state: MemberState,
    pub(crate) assigned: Assigned,
    /// Partitions that the member must give up, and may still have.
    pub(crate) revoking: Assigned,
}

impl Default for Member {
    fn default() -> Self {
        Self {
            instance_id: None,
            rack_id: None,
            client_id: Str::EMPTY,
            client_host: Str::EMPTY,
            topics: BTreeSet::new(),
            regex: None,
            rebalance_timeout_ms: -1,
            assignor: None,
            classic: None,
            epoch: JOINING,
            previous_epoch: -1,
            state: MemberState::Stable,
            assigned: Assigned::new(),
            revoking: Assigned::new(),
        }
    }
}

impl Member {
    /// The regular expression, if there is one to speak of.
    pub(crate) fn regex(&self) -> Option<&Str> {
        self.regex.as_ref().filter(|regex| !regex.is_empty())
    }

    /// Whether the member has what it is to have in that epoch.
    pub(crate) fn is_reconciled_to(&self, target_epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == target_epoch
    }

    /// The epoch in which the member got a partition that it has or is giving up.
    pub(crate) fn assignment_epoch(&self, topic: Uuid, partition: i32) -> Option<i32> {
        let in_set = |set: &Assigned| set.get(&topic)?.get(&partition).copied();
        in_set(&self.assigned).or_else(|| in_set(&self.revoking))
    }

    /// Moves to another epoch, remembering the one before.
    pub(super) fn enter(&mut self, epoch: i32) {
        self.previous_epoch = std::mem::replace(&mut self.epoch, epoch);
    }

    /// Takes over what the member said of itself.
    pub(super) fn read_metadata(&mut self, value: &ConsumerGroupMemberMetadataValue) {
        let detached = |text: &Option<Str>| text.as_ref().map(Str::detach);
        self.instance_id = detached(&value.instance_id);
        self.rack_id = detached(&value.rack_id);
        self.client_id = value.client_id.detach();
        self.client_host = value.client_host.detach();
        self.topics = value.subscribed_topic_names.iter().map(Str::detach).collect();
        self.regex = detached(&value.subscribed_topic_regex);
        self.rebalance_timeout_ms = value.rebalance_timeout_ms;
        self.assignor = detached(&value.server_assignor);
        self.classic = value.classic_member_metadata.as_ref().map(|classic| {
            let own = |protocol: &ClassicProtocol| ClassicProtocol {
                name: protocol.name.detach(),
                metadata: bytes::Bytes::copy_from_slice(&protocol.metadata),
            };
            ClassicMemberMetadata {
                session_timeout_ms: classic.session_timeout_ms,
                supported_protocols: classic.supported_protocols.iter().map(own).collect(),
            }
        });
    }

    /// What the member said of itself, to be written.
    pub(super) fn metadata(&self) -> ConsumerGroupMemberMetadataValue {
        ConsumerGroupMemberMetadataValue {
            instance_id: self.instance_id.clone(),
            rack_id: self.rack_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            subscribed_topic_names: self.topics.iter().cloned().collect(),
            subscribed_topic_regex: self.regex.clone(),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            server_assignor: self.assignor.clone(),
            classic_member_metadata: self.classic.clone(),
        }
    }

    /// Takes over what the member has.
    pub(super) fn read_current(&mut self, value: &ConsumerGroupCurrentMemberAssignmentValue) {
        self.epoch = value.member_epoch;
        self.previous_epoch = value.previous_member_epoch;
        self.state = MemberState::from_code(value.state, FIRST_STATE);
        self.assigned = read_partitions(&value.assigned_partitions, value.member_epoch);
        self.revoking = read_partitions(&value.partitions_pending_revocation, value.member_epoch);
    }

    /// What the member has, to be written.
    pub(super) fn current(&self) -> ConsumerGroupCurrentMemberAssignmentValue {
        ConsumerGroupCurrentMemberAssignmentValue {
            member_epoch: self.epoch,
            previous_member_epoch: self.previous_epoch,
            state: self.state.code(FIRST_STATE),
            assigned_partitions: write_partitions(&self.assigned),
            partitions_pending_revocation: write_partitions(&self.revoking),
        }
    }
}

/// Brokers before 4.3 wrote no epochs; then the partitions count as got in the member's epoch,
/// or before all epochs if it was away.
fn read_partitions(topics: &[TopicPartitions], member_epoch: i32) -> Assigned {
    let mut assigned = Assigned::new();
    for topic in topics {
        let epochs = topic.assignment_epochs.as_deref().unwrap_or_default();
        let epochs = Some(epochs).filter(|epochs| epochs.len() == topic.partitions.len());
        let partitions = assigned.entry(topic.topic_id).or_default();
        partitions.extend(topic.partitions.iter().enumerate().map(|(index, partition)| {
            (*partition, epochs.map_or(member_epoch.max(0), |epochs| epochs[index]))
        }));
    }
    assigned
}

fn write_partitions(assigned: &Assigned) -> Vec<TopicPartitions> {
    let topics = assigned.iter().map(|(topic_id, partitions)| TopicPartitions {
        topic_id: *topic_id,
        partitions: partitions.keys().copied().collect(),
        assignment_epochs: Some(partitions.values().copied().collect()),
    });
    topics.collect()
}
