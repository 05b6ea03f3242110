//! A share group as the log has it: a function of its records.

use std::collections::{BTreeMap, BTreeSet};

use fleuve_protocol::Str;
use fleuve_protocol::messages::share_group_current_member_assignment_value::{
    self, ShareGroupCurrentMemberAssignmentValue,
};
use fleuve_protocol::messages::share_group_member_metadata_value::ShareGroupMemberMetadataValue;
use fleuve_protocol::messages::share_group_state_partition_metadata_value::{
    ShareGroupStatePartitionMetadataValue, TopicInfo, TopicPartitionsInfo,
};
use fleuve_types::Uuid;

use super::record::ShareRecord;
use crate::modern::{FIRST_EPOCH, LEAVING, NO_TARGET};

/// What share consumers are, wherever groups of all protocols stand side by side.
pub(crate) const PROTOCOL_TYPE: &str = "share";

/// Partitions by topic.
pub(crate) type Target = BTreeMap<Uuid, BTreeSet<i32>>;

/// What a share group is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShareGroupState {
    /// It has no members.
    Empty,
    /// It has members.
    Stable,
}

impl ShareGroupState {
    /// Kafka's name of the state.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Stable => "Stable",
        }
    }
}

/// A member of a share group.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ShareMember {
    pub(super) rack_id: Option<Str>,
    pub(super) client_id: Str,
    pub(super) client_host: Str,
    pub(super) topics: BTreeSet<Str>,
    pub(super) epoch: i32,
    pub(super) previous_epoch: i32,
    pub(super) assigned: Target,
}

/// A topic of which some share-partitions have a state.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct StateTopic {
    pub(super) name: Str,
    pub(super) partitions: BTreeSet<i32>,
}

/// Which share-partitions have a state, by topic.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct StatePartitions {
    pub(super) initializing: BTreeMap<Uuid, StateTopic>,
    pub(super) initialized: BTreeMap<Uuid, StateTopic>,
    pub(super) deleting: BTreeMap<Uuid, Str>,
}

/// The persistent state of a share group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ShareGroup {
    pub(super) epoch: i32,
    pub(super) metadata_hash: i64,
    pub(super) target_epoch: i32,
    pub(super) target_timestamp: i64,
    pub(super) targets: BTreeMap<Str, Target>,
    pub(super) members: BTreeMap<Str, ShareMember>,
    pub(super) states: StatePartitions,
}

impl Default for ShareGroup {
    fn default() -> Self {
        Self {
            epoch: FIRST_EPOCH,
            metadata_hash: 0,
            target_epoch: FIRST_EPOCH,
            target_timestamp: 0,
            targets: BTreeMap::new(),
            members: BTreeMap::new(),
            states: StatePartitions::default(),
        }
    }
}

impl ShareGroup {
    /// Takes in one record. The tombstone of the epoch, which ends the group, is the ledger's.
    pub(crate) fn apply(&mut self, record: &ShareRecord) {
        match record {
            ShareRecord::Epoch(Some(value)) => {
                self.epoch = value.epoch;
                self.metadata_hash = value.metadata_hash;
            }
            ShareRecord::Epoch(None) => {}
            ShareRecord::Member { member, value: Some(value) } => {
                self.members.entry(member.detach()).or_default().read_metadata(value);
            }
            ShareRecord::Member { member, value: None } => {
                self.members.remove(member);
            }
            ShareRecord::TargetEpoch(value) => {
                self.target_epoch =
                    value.as_ref().map_or(NO_TARGET, |value| value.assignment_epoch);
                self.target_timestamp =
                    value.as_ref().map_or(0, |value| value.assignment_timestamp);
            }
            ShareRecord::Target { member, value: Some(value) } => {
                let mut target = Target::new();
                for topic in &value.topic_partitions {
                    target.entry(topic.topic_id).or_default().extend(&topic.partitions);
                }
                self.targets.insert(member.detach(), target);
            }
            ShareRecord::Target { member, value: None } => {
                self.targets.remove(member);
            }
            ShareRecord::Current { member, value: Some(value) } => {
                self.members.entry(member.detach()).or_default().read_current(value);
            }
            ShareRecord::Current { member, value: None } => {
                if let Some(member) = self.members.get_mut(member) {
                    member.epoch = LEAVING;
                    member.previous_epoch = LEAVING;
                    member.assigned.clear();
                }
            }
            ShareRecord::StatePartitions(value) => {
                self.states = value.as_ref().map(StatePartitions::read).unwrap_or_default();
            }
        }
    }

    /// Whether it has members.
    pub(crate) fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    /// The members' ids.
    pub(crate) fn member_ids(&self) -> impl Iterator<Item = &Str> {
        self.members.keys()
    }

    /// What the group is doing.
    pub(crate) fn state(&self) -> ShareGroupState {
        if self.has_members() { ShareGroupState::Stable } else { ShareGroupState::Empty }
    }

    /// Whether the log says that the share-partition has a state.
    pub(crate) fn has_state(&self, topic_id: Uuid, partition: i32) -> bool {
        let topic = self.states.initialized.get(&topic_id);
        topic.is_some_and(|topic| topic.partitions.contains(&partition))
    }

    /// Partitions whose state is yet to begin.
    pub(crate) fn initializing(&self) -> Vec<(Uuid, Vec<i32>)> {
        listed(&self.states.initializing)
    }

    /// Topics whose states are yet to be deleted.
    pub(crate) fn deleting(&self) -> Vec<Uuid> {
        self.states.deleting.keys().copied().collect()
    }

    pub(crate) fn epoch(&self) -> i32 {
        self.epoch
    }
}

fn listed(topics: &BTreeMap<Uuid, StateTopic>) -> Vec<(Uuid, Vec<i32>)> {
    topics.iter().map(|(id, topic)| (*id, topic.partitions.iter().copied().collect())).collect()
}

impl ShareMember {
    fn read_metadata(&mut self, value: &ShareGroupMemberMetadataValue) {
        self.rack_id = value.rack_id.as_ref().map(Str::detach);
        self.client_id = value.client_id.detach();
        self.client_host = value.client_host.detach();
        self.topics = value.subscribed_topic_names.iter().map(Str::detach).collect();
    }

    pub(super) fn metadata(&self) -> ShareGroupMemberMetadataValue {
        ShareGroupMemberMetadataValue {
            rack_id: self.rack_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            subscribed_topic_names: self.topics.iter().cloned().collect(),
        }
    }

    fn read_current(&mut self, value: &ShareGroupCurrentMemberAssignmentValue) {
        self.epoch = value.member_epoch;
        self.previous_epoch = value.previous_member_epoch;
        self.assigned.clear();
        for topic in &value.assigned_partitions {
            self.assigned.entry(topic.topic_id).or_default().extend(&topic.partitions);
        }
    }

    pub(super) fn current(&self) -> ShareGroupCurrentMemberAssignmentValue {
        let topics = self.assigned.iter().map(|(topic_id, partitions)| {
            share_group_current_member_assignment_value::TopicPartitions {
                topic_id: *topic_id,
                partitions: partitions.iter().copied().collect(),
            }
        });
        ShareGroupCurrentMemberAssignmentValue {
            member_epoch: self.epoch,
            previous_member_epoch: self.previous_epoch,
            // Members of share groups are always stable.
            state: 0,
            assigned_partitions: topics.collect(),
        }
    }
}

impl StatePartitions {
    fn read(value: &ShareGroupStatePartitionMetadataValue) -> Self {
        let read = |topics: &[TopicPartitionsInfo]| {
            let mut by_id: BTreeMap<Uuid, StateTopic> = BTreeMap::new();
            for topic in topics {
                let state = by_id.entry(topic.topic_id).or_default();
                state.name = topic.topic_name.detach();
                state.partitions.extend(&topic.partitions);
            }
            by_id
        };
        let deleting = value.deleting_topics.iter();
        Self {
            initializing: read(&value.initializing_topics),
            initialized: read(&value.initialized_topics),
            deleting: deleting.map(|topic| (topic.topic_id, topic.topic_name.detach())).collect(),
        }
    }

    pub(super) fn value(&self) -> ShareGroupStatePartitionMetadataValue {
        let write = |topics: &BTreeMap<Uuid, StateTopic>| {
            let topics = topics.iter().filter(|(_, topic)| !topic.partitions.is_empty());
            let infos = topics.map(|(id, topic)| TopicPartitionsInfo {
                topic_id: *id,
                topic_name: topic.name.clone(),
                partitions: topic.partitions.iter().copied().collect(),
            });
            infos.collect()
        };
        let deleting = self.deleting.iter();
        ShareGroupStatePartitionMetadataValue {
            initializing_topics: write(&self.initializing),
            initialized_topics: write(&self.initialized),
            deleting_topics: deleting
                .map(|(id, name)| TopicInfo { topic_id: *id, topic_name: name.clone() })
                .collect(),
        }
    }

    /// Notes that partitions have a state from now on.
    pub(super) fn initialize(&mut self, topic_id: Uuid, name: &Str, partitions: &[i32]) {
        if let Some(topic) = self.initializing.get_mut(&topic_id) {
            partitions.iter().for_each(|partition| {
                topic.partitions.remove(partition);
            });
            if topic.partitions.is_empty() {
                self.initializing.remove(&topic_id);
            }
        }
        let topic = self.initialized.entry(topic_id).or_default();
        topic.name = name.clone();
        topic.partitions.extend(partitions);
    }

    /// Forgets a topic; says whether anything was known of it.
    pub(super) fn forget(&mut self, topic_id: Uuid) -> bool {
        let was_initializing = self.initializing.remove(&topic_id).is_some();
        let was_initialized = self.initialized.remove(&topic_id).is_some();
        let was_deleting = self.deleting.remove(&topic_id).is_some();
        was_initializing || was_initialized || was_deleting
    }
}
