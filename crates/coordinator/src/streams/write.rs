//! Collects the records of one decision about a streams group.

use std::collections::BTreeMap;

use fleuve_protocol::Str;
use fleuve_protocol::messages::streams_group_metadata_value::{
    LastAssignmentConfig, StreamsGroupMetadataValue,
};
use fleuve_protocol::messages::streams_group_target_assignment_member_value::{
    StreamsGroupTargetAssignmentMemberValue, TaskIds,
};
use fleuve_protocol::messages::streams_group_target_assignment_metadata_value::StreamsGroupTargetAssignmentMetadataValue;
use fleuve_protocol::messages::streams_group_topology_value::StreamsGroupTopologyValue;
use fleuve_types::TimestampMs;

use super::member::Member;
use super::record::StreamsRecord;
use super::tasks::{Target, Tasks};
use crate::record::Record;

/// What a group's record says.
pub(super) struct Epoch<'a> {
    pub(super) epoch: i32,
    pub(super) metadata_hash: i64,
    pub(super) validated_epoch: i32,
    pub(super) assignment_configs: &'a BTreeMap<Str, Str>,
}

/// The records so far.
pub(super) struct Records<'a> {
    group: &'a Str,
    pub(super) list: Vec<Record>,
}

impl<'a> Records<'a> {
    /// Begins a decision about `group`.
    pub(super) fn new(group: &'a Str) -> Self {
        Self { group, list: Vec::new() }
    }

    pub(super) fn epoch(&mut self, epoch: &Epoch<'_>) {
        let configs = epoch
            .assignment_configs
            .iter()
            .map(|(key, value)| LastAssignmentConfig { key: key.clone(), value: value.clone() });
        self.push(StreamsRecord::Epoch(Some(StreamsGroupMetadataValue {
            epoch: epoch.epoch,
            metadata_hash: epoch.metadata_hash,
            validated_topology_epoch: epoch.validated_epoch,
            last_assignment_configs: Some(configs.collect()),
        })));
    }

    pub(super) fn topology(&mut self, topology: StreamsGroupTopologyValue) {
        self.push(StreamsRecord::Topology(Some(topology)));
    }

    pub(super) fn member(&mut self, id: &Str, member: &Member) {
        let value = Some(member.metadata());
        self.push(StreamsRecord::Member { member: id.clone(), value });
    }

    pub(super) fn current(&mut self, id: &Str, member: &Member) {
        let value = Some(member.current());
        self.push(StreamsRecord::Current { member: id.clone(), value });
    }

    pub(super) fn target(&mut self, id: &Str, target: &Target) {
        let value = StreamsGroupTargetAssignmentMemberValue {
            active_tasks: write(&target.active),
            standby_tasks: write(&target.standby),
            warmup_tasks: write(&target.warmup),
        };
        self.push(StreamsRecord::Target { member: id.clone(), value: Some(value) });
    }

    pub(super) fn target_epoch(&mut self, assignment_epoch: i32, now: TimestampMs) {
        let assignment_timestamp = now.0;
        self.push(StreamsRecord::TargetEpoch(Some(StreamsGroupTargetAssignmentMetadataValue {
            assignment_epoch,
            assignment_timestamp,
        })));
    }

    /// Forgets a member; whoever replays must see these in this order.
    pub(super) fn member_tombstones(&mut self, id: &Str) {
        self.push(StreamsRecord::Current { member: id.clone(), value: None });
        self.push(StreamsRecord::Target { member: id.clone(), value: None });
        self.push(StreamsRecord::Member { member: id.clone(), value: None });
    }

    fn push(&mut self, record: StreamsRecord) {
        self.list.push(Record::Streams { group: self.group.clone(), record });
    }
}

/// The tombstones of a group without members.
///
/// The topology goes before the epoch, whose tombstone ends the group: after that there would be
/// nothing left for it to belong to.
pub(crate) fn group_tombstones(id: &Str) -> Vec<Record> {
    let mut records = Records::new(id);
    records.push(StreamsRecord::TargetEpoch(None));
    records.push(StreamsRecord::Topology(None));
    records.push(StreamsRecord::Epoch(None));
    records.list
}

fn write(tasks: &Tasks) -> Vec<TaskIds> {
    let tasks = tasks.iter().map(|(subtopology, partitions)| TaskIds {
        subtopology_id: subtopology.clone(),
        partitions: partitions.iter().copied().collect(),
    });
    tasks.collect()
}
