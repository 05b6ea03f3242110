//! Collects the records of one decision about a consumer group.

use std::collections::BTreeSet;

use fleuve_protocol::Str;
use fleuve_protocol::messages::consumer_group_metadata_value::ConsumerGroupMetadataValue;
use fleuve_protocol::messages::consumer_group_regular_expression_value::ConsumerGroupRegularExpressionValue;
use fleuve_protocol::messages::consumer_group_target_assignment_member_value::{
    ConsumerGroupTargetAssignmentMemberValue, TopicPartition,
};
use fleuve_protocol::messages::consumer_group_target_assignment_metadata_value::ConsumerGroupTargetAssignmentMetadataValue;
use fleuve_types::TimestampMs;

use super::group::ConsumerGroup;
use super::member::{Member, Target};
use super::record::ConsumerRecord;
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
        self.push(ConsumerRecord::Epoch(Some(ConsumerGroupMetadataValue { epoch, metadata_hash })));
    }

    pub(super) fn topics_tombstone(&mut self) {
        self.push(ConsumerRecord::Topics(None));
    }

    pub(super) fn member(&mut self, id: &Str, member: &Member) {
        let value = Some(member.metadata());
        self.push(ConsumerRecord::Member { member: id.clone(), value });
    }

    pub(super) fn current(&mut self, id: &Str, member: &Member) {
        let value = Some(member.current());
        self.push(ConsumerRecord::Current { member: id.clone(), value });
    }

    pub(super) fn target(&mut self, id: &Str, target: &Target) {
        let topics = target.iter().map(|(topic_id, partitions)| TopicPartition {
            topic_id: *topic_id,
            partitions: partitions.iter().copied().collect(),
        });
        let value = ConsumerGroupTargetAssignmentMemberValue { topic_partitions: topics.collect() };
        self.push(ConsumerRecord::Target { member: id.clone(), value: Some(value) });
    }

    pub(super) fn target_epoch(&mut self, assignment_epoch: i32, now: TimestampMs) {
        let assignment_timestamp = now.0;
        self.push(ConsumerRecord::TargetEpoch(Some(ConsumerGroupTargetAssignmentMetadataValue {
            assignment_epoch,
            assignment_timestamp,
        })));
    }

    pub(super) fn regex(
        &mut self,
        regex: &Str,
        topics: &BTreeSet<Str>,
        version: i64,
        now: TimestampMs,
    ) {
        let value = ConsumerGroupRegularExpressionValue {
            topics: topics.iter().cloned().collect(),
            version,
            timestamp: now.0,
        };
        self.push(ConsumerRecord::Regex { regex: regex.clone(), value: Some(value) });
    }

    pub(super) fn regex_tombstone(&mut self, regex: &Str) {
        self.push(ConsumerRecord::Regex { regex: regex.clone(), value: None });
    }

    /// Forgets a member; whoever replays must see these in this order.
    pub(super) fn member_tombstones(&mut self, id: &Str) {
        self.push(ConsumerRecord::Current { member: id.clone(), value: None });
        self.push(ConsumerRecord::Target { member: id.clone(), value: None });
        self.push(ConsumerRecord::Member { member: id.clone(), value: None });
    }

    /// Forgets a group without members.
    pub(super) fn group_tombstones(&mut self, group: &ConsumerGroup) {
        self.push(ConsumerRecord::TargetEpoch(None));
        for regex in group.resolved.keys() {
            self.regex_tombstone(regex);
        }
        self.topics_tombstone();
        self.push(ConsumerRecord::Epoch(None));
    }

    fn push(&mut self, record: ConsumerRecord) {
        self.list.push(Record::Consumer { group: self.group.clone(), record });
    }
}

/// The tombstones of a group and its members.
pub(crate) fn all_tombstones(id: &Str, group: &ConsumerGroup) -> Vec<Record> {
    let mut records = Records::new(id);
    for member in group.members().keys() {
        records.member_tombstones(member);
    }
    records.group_tombstones(group);
    records.list
}

/// The tombstones of a group without members.
pub(crate) fn group_tombstones(id: &Str, group: &ConsumerGroup) -> Vec<Record> {
    let mut records = Records::new(id);
    records.group_tombstones(group);
    records.list
}
