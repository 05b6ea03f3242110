//! Collects the records of one decision about a share group.

use fleuve_protocol::Str;
use fleuve_protocol::messages::share_group_metadata_value::ShareGroupMetadataValue;
use fleuve_protocol::messages::share_group_target_assignment_member_value::{
    ShareGroupTargetAssignmentMemberValue, TopicPartition,
};
use fleuve_protocol::messages::share_group_target_assignment_metadata_value::ShareGroupTargetAssignmentMetadataValue;
use fleuve_types::TimestampMs;

use super::group::{ShareMember, StatePartitions, Target};
use super::record::ShareRecord;
use crate::record::Record;

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

    pub(super) fn epoch(&mut self, epoch: i32, metadata_hash: i64) {
        self.push(ShareRecord::Epoch(Some(ShareGroupMetadataValue { epoch, metadata_hash })));
    }

    pub(super) fn member(&mut self, id: &Str, member: &ShareMember) {
        let value = Some(member.metadata());
        self.push(ShareRecord::Member { member: id.clone(), value });
    }

    pub(super) fn current(&mut self, id: &Str, member: &ShareMember) {
        let value = Some(member.current());
        self.push(ShareRecord::Current { member: id.clone(), value });
    }

    pub(super) fn target(&mut self, id: &Str, target: &Target) {
        let topics = target.iter().map(|(topic_id, partitions)| TopicPartition {
            topic_id: *topic_id,
            partitions: partitions.iter().copied().collect(),
        });
        let value = ShareGroupTargetAssignmentMemberValue { topic_partitions: topics.collect() };
        self.push(ShareRecord::Target { member: id.clone(), value: Some(value) });
    }

    pub(super) fn target_epoch(&mut self, assignment_epoch: i32, now: TimestampMs) {
        let assignment_timestamp = now.0;
        self.push(ShareRecord::TargetEpoch(Some(ShareGroupTargetAssignmentMetadataValue {
            assignment_epoch,
            assignment_timestamp,
        })));
    }

    pub(super) fn states(&mut self, states: &StatePartitions) {
        self.push(ShareRecord::StatePartitions(Some(states.value())));
    }

    /// Forgets a member; whoever replays must see these in this order.
    pub(super) fn member_tombstones(&mut self, id: &Str) {
        self.push(ShareRecord::Current { member: id.clone(), value: None });
        self.push(ShareRecord::Target { member: id.clone(), value: None });
        self.push(ShareRecord::Member { member: id.clone(), value: None });
    }

    fn push(&mut self, record: ShareRecord) {
        self.list.push(Record::Share { group: self.group.clone(), record });
    }
}

/// The tombstones of a group without members.
pub(crate) fn group_tombstones(id: &Str) -> Vec<Record> {
    let mut records = Records::new(id);
    records.push(ShareRecord::TargetEpoch(None));
    records.push(ShareRecord::StatePartitions(None));
    records.push(ShareRecord::Epoch(None));
    records.list
}
