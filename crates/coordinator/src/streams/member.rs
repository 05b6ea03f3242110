//! A member of a streams group: what it said of itself, and what it has.

use std::collections::BTreeMap;

use fleuve_protocol::Str;
use fleuve_protocol::messages::streams_group_current_member_assignment_value::{
    StreamsGroupCurrentMemberAssignmentValue, TaskIds,
};
use fleuve_protocol::messages::streams_group_member_metadata_value::{
    Endpoint, KeyValue, StreamsGroupMemberMetadataValue,
};

use super::tasks::{Assigned, Tasks, TasksWithEpochs};
use crate::modern::{JOINING, MemberState};

/// What the first state of a member is written as.
const FIRST_STATE: i8 = 1;

/// A member, as the log has it. A member is what Kafka Streams calls a thread.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Member {
    pub(crate) instance_id: Option<Str>,
    pub(crate) rack_id: Option<Str>,
    pub(crate) client_id: Str,
    pub(crate) client_host: Str,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) topology_epoch: i32,
    /// The process that it is a thread of; threads of one process share their state directory.
    pub(crate) process_id: Str,
    /// Where its process answers queries about its state.
    pub(crate) endpoint: Option<(Str, u16)>,
    pub(crate) client_tags: BTreeMap<Str, Str>,
    pub(crate) epoch: i32,
    pub(crate) previous_epoch: i32,
    pub(crate) state: MemberState,
    pub(crate) assigned: Assigned,
    /// Tasks that the member must give up, and may still have.
    pub(crate) revoking: Assigned,
}

impl Default for Member {
    fn default() -> Self {
        Self {
            instance_id: None,
            rack_id: None,
            client_id: Str::EMPTY,
            client_host: Str::EMPTY,
            rebalance_timeout_ms: -1,
            topology_epoch: -1,
            process_id: Str::EMPTY,
            endpoint: None,
            client_tags: BTreeMap::new(),
            epoch: JOINING,
            previous_epoch: 0,
            state: MemberState::Stable,
            assigned: Assigned::default(),
            revoking: Assigned::default(),
        }
    }
}

impl Member {
    /// Whether the member has what it is to have in that epoch.
    pub(crate) fn is_reconciled_to(&self, target_epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == target_epoch
    }

    /// The epoch in which the member got an active task that it has or is giving up.
    pub(crate) fn assignment_epoch(&self, subtopology: &str, partition: i32) -> Option<i32> {
        let in_set = |set: &Assigned| set.active.get(subtopology)?.get(&partition).copied();
        in_set(&self.assigned).or_else(|| in_set(&self.revoking))
    }

    /// Moves to another epoch, remembering the one before.
    pub(super) fn enter(&mut self, epoch: i32) {
        self.previous_epoch = std::mem::replace(&mut self.epoch, epoch);
    }

    /// Takes over what the member said of itself.
    pub(super) fn read_metadata(&mut self, value: &StreamsGroupMemberMetadataValue) {
        let detached = |text: &Option<Str>| text.as_ref().map(Str::detach);
        self.instance_id = detached(&value.instance_id);
        self.rack_id = detached(&value.rack_id);
        self.client_id = value.client_id.detach();
        self.client_host = value.client_host.detach();
        self.rebalance_timeout_ms = value.rebalance_timeout_ms;
        self.topology_epoch = value.topology_epoch;
        self.process_id = value.process_id.detach();
        self.endpoint =
            value.user_endpoint.as_ref().map(|Endpoint { host, port }| (host.detach(), *port));
        let tags = value.client_tags.iter();
        self.client_tags =
            tags.map(|KeyValue { key, value }| (key.detach(), value.detach())).collect();
    }

    /// What the member said of itself, to be written.
    pub(super) fn metadata(&self) -> StreamsGroupMemberMetadataValue {
        let endpoint = self.endpoint.clone();
        let tags = self.client_tags.iter();
        StreamsGroupMemberMetadataValue {
            instance_id: self.instance_id.clone(),
            rack_id: self.rack_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            topology_epoch: self.topology_epoch,
            process_id: self.process_id.clone(),
            user_endpoint: endpoint.map(|(host, port)| Endpoint { host, port }),
            client_tags: tags
                .map(|(key, value)| KeyValue { key: key.clone(), value: value.clone() })
                .collect(),
        }
    }

    /// Takes over what the member has.
    pub(super) fn read_current(&mut self, value: &StreamsGroupCurrentMemberAssignmentValue) {
        self.epoch = value.member_epoch;
        self.previous_epoch = value.previous_member_epoch;
        self.state = MemberState::from_code(value.state, FIRST_STATE);
        self.assigned = Assigned {
            active: read_with_epochs(&value.active_tasks, value.member_epoch),
            standby: read(&value.standby_tasks),
            warmup: read(&value.warmup_tasks),
        };
        self.revoking = Assigned {
            active: read_with_epochs(&value.active_tasks_pending_revocation, value.member_epoch),
            standby: read(&value.standby_tasks_pending_revocation),
            warmup: read(&value.warmup_tasks_pending_revocation),
        };
    }

    /// What the member has, to be written.
    pub(super) fn current(&self) -> StreamsGroupCurrentMemberAssignmentValue {
        StreamsGroupCurrentMemberAssignmentValue {
            member_epoch: self.epoch,
            previous_member_epoch: self.previous_epoch,
            state: self.state.code(FIRST_STATE),
            active_tasks: write_with_epochs(&self.assigned.active),
            standby_tasks: write(&self.assigned.standby),
            warmup_tasks: write(&self.assigned.warmup),
            active_tasks_pending_revocation: write_with_epochs(&self.revoking.active),
            standby_tasks_pending_revocation: write(&self.revoking.standby),
            warmup_tasks_pending_revocation: write(&self.revoking.warmup),
        }
    }
}

/// Brokers before 4.3 wrote no epochs; then the tasks count as got in the member's epoch.
fn read_with_epochs(tasks: &[TaskIds], member_epoch: i32) -> TasksWithEpochs {
    let mut read = TasksWithEpochs::new();
    for task in tasks {
        let epochs = task.assignment_epochs.as_deref().unwrap_or_default();
        let epochs = Some(epochs).filter(|epochs| epochs.len() == task.partitions.len());
        let partitions = read.entry(task.subtopology_id.detach()).or_default();
        partitions.extend(task.partitions.iter().enumerate().map(|(index, partition)| {
            (*partition, epochs.map_or(member_epoch, |epochs| epochs[index]))
        }));
    }
    read
}

fn read(tasks: &[TaskIds]) -> Tasks {
    let mut read = Tasks::new();
    for task in tasks {
        read.entry(task.subtopology_id.detach()).or_default().extend(&task.partitions);
    }
    read
}

fn write_with_epochs(tasks: &TasksWithEpochs) -> Vec<TaskIds> {
    let tasks = tasks.iter().map(|(subtopology, partitions)| TaskIds {
        subtopology_id: subtopology.clone(),
        partitions: partitions.keys().copied().collect(),
        assignment_epochs: Some(partitions.values().copied().collect()),
    });
    tasks.collect()
}

fn write(tasks: &Tasks) -> Vec<TaskIds> {
    let tasks = tasks.iter().map(|(subtopology, partitions)| TaskIds {
        subtopology_id: subtopology.clone(),
        partitions: partitions.iter().copied().collect(),
        assignment_epochs: None,
    });
    tasks.collect()
}
