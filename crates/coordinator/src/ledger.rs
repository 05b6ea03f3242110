//! What the log says: the persistent state of a shard, and the only way to change it.
//!
//! [`Ledger::apply`] takes one record after the other, the same way whether it was just appended or
//! is being read at the start, so that the ledger is a function of the log alone. As in Kafka, a
//! group exists from its first record on, be it a group record or the offset of a consumer that
//! never joined, until a tombstone of the group.

use std::collections::BTreeMap;

use bytes::Bytes;
use fleuve_protocol::Str;
use fleuve_protocol::messages::group_metadata_value::{GroupMetadataValue, MemberMetadata};
use fleuve_protocol::messages::offset_commit_key::OffsetCommitKey;
use fleuve_protocol::messages::offset_commit_value::OffsetCommitValue;
use fleuve_types::{Offset, ProducerId, TimestampMs, Uuid};

use crate::consumer::{ConsumerGroup, ConsumerRecord};
use crate::offsets::PendingOffsets;
use crate::record::{NO_EXPIRY, Record};
use crate::share::{ShareGroup, ShareRecord};
use crate::streams::{StreamsGroup, StreamsRecord};

/// Groups and committed offsets as the log has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    /// Last record of each classic group; none for groups that only committed offsets.
    groups: BTreeMap<Str, Option<GroupMetadataValue>>,
    /// Consumer groups; none of them is also in `groups`.
    consumer_groups: BTreeMap<Str, ConsumerGroup>,
    /// Streams groups; none of them is also among the others.
    streams_groups: BTreeMap<Str, StreamsGroup>,
    /// Share groups; they commit no offsets.
    share_groups: BTreeMap<Str, ShareGroup>,
    offsets: BTreeMap<Str, TopicOffsets>,
    /// Offsets of transactions that have not ended.
    pending: PendingOffsets,
}

/// Offsets of one group, by topic and partition.
pub(crate) type TopicOffsets = BTreeMap<Str, BTreeMap<i32, CommittedOffset>>;

/// An offset that a group has committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The offset to go on reading from.
    pub offset: i64,
    /// Leader epoch of the last record that was read; -1 if not known.
    pub leader_epoch: i32,
    /// Text that the consumer wants to have back.
    pub metadata: Str,
    /// When the offset was committed.
    pub commit_timestamp: TimestampMs,
    /// When the offset ends, if the consumer asked for a time of its own.
    pub expire_timestamp: Option<TimestampMs>,
    /// Id of the topic; zero if not known.
    pub topic_id: Uuid,
    /// Where the record of the commit stands.
    pub record_offset: Offset,
}

impl Ledger {
    /// Takes in one record that stands at `offset`, written in the transaction of `producer` or
    /// outside of any.
    pub fn apply(&mut self, record: &Record, offset: Offset, producer: Option<ProducerId>) {
        match record {
            Record::Group { group, value: Some(value) } => {
                self.consumer_groups.remove(group);
                self.streams_groups.remove(group);
                self.groups.insert(group.detach(), Some(own(value)));
            }
            Record::Group { group, value: None } => {
                self.groups.remove(group);
            }
            Record::Offset { key, value: Some(value) } => {
                if !self.groups.contains_key(&key.group)
                    && !self.consumer_groups.contains_key(&key.group)
                    && !self.streams_groups.contains_key(&key.group)
                    && !self.share_groups.contains_key(&key.group)
                {
                    self.groups.insert(key.group.detach(), None);
                }
                let committed = CommittedOffset::new(value, offset);
                if let Some(producer) = producer {
                    let OffsetCommitKey { group, topic, partition } = key;
                    self.pending.put(producer, group, topic, *partition, committed);
                    return;
                }
                // Looking first spares the usual commit the copies of its names.
                let known =
                    self.offsets.get_mut(&key.group).and_then(|topics| topics.get_mut(&key.topic));
                match known {
                    Some(partitions) => {
                        partitions.insert(key.partition, committed);
                    }
                    None => {
                        let topics = self.offsets.entry(key.group.detach()).or_default();
                        let partitions = topics.entry(key.topic.detach()).or_default();
                        partitions.insert(key.partition, committed);
                    }
                }
            }
            Record::Offset { key, value: None } => {
                self.pending.remove(&key.group, &key.topic, key.partition);
                let Some(topics) = self.offsets.get_mut(&key.group) else { return };
                if let Some(partitions) = topics.get_mut(&key.topic) {
                    partitions.remove(&key.partition);
                    if partitions.is_empty() {
                        topics.remove(&key.topic);
                    }
                }
                if topics.is_empty() {
                    self.offsets.remove(&key.group);
                }
            }
            Record::Consumer { group, record } => self.apply_consumer(group, record),
            Record::Streams { group, record } => self.apply_streams(group, record),
            Record::Share { group, record } => self.apply_share(group, record),
        }
    }

    /// Takes in the marker that ends the transaction of `producer`.
    pub fn apply_marker(&mut self, producer: ProducerId, committed: bool) {
        let pending = self.pending.take(producer);
        if !committed {
            return;
        }
        for (group, topics) in pending {
            for (topic, partitions) in topics {
                for (partition, offset) in partitions {
                    let topics = self.offsets.entry(group.clone()).or_default();
                    let known = topics.entry(topic.clone()).or_default();
                    // A commit outside of the transaction may have come after this one.
                    let is_newer = known
                        .get(&partition)
                        .is_none_or(|known| known.record_offset < offset.record_offset);
                    if is_newer {
                        known.insert(partition, offset);
                    }
                }
            }
        }
    }

    /// Offsets of transactions that have not ended.
    pub(crate) fn pending(&self) -> &PendingOffsets {
        &self.pending
    }

    /// A consumer group.
    pub(crate) fn consumer_group(&self, group: &str) -> Option<&ConsumerGroup> {
        self.consumer_groups.get(group)
    }

    /// Every consumer group.
    pub(crate) fn consumer_groups(&self) -> impl Iterator<Item = (&Str, &ConsumerGroup)> {
        self.consumer_groups.iter()
    }

    /// A streams group.
    pub(crate) fn streams_group(&self, group: &str) -> Option<&StreamsGroup> {
        self.streams_groups.get(group)
    }

    /// Every streams group.
    pub(crate) fn streams_groups(&self) -> impl Iterator<Item = (&Str, &StreamsGroup)> {
        self.streams_groups.iter()
    }

    /// A share group.
    pub(crate) fn share_group(&self, group: &str) -> Option<&ShareGroup> {
        self.share_groups.get(group)
    }

    /// Every share group.
    pub(crate) fn share_groups(&self) -> impl Iterator<Item = (&Str, &ShareGroup)> {
        self.share_groups.iter()
    }

    /// Whether the log has a record of a classic group, and not only offsets of it.
    pub(crate) fn has_classic_record(&self, group: &str) -> bool {
        self.groups.get(group).is_some_and(Option::is_some)
    }

    /// Every classic group, with its last record if it has one.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&Str, Option<&GroupMetadataValue>)> {
        self.groups.iter().map(|(group, value)| (group, value.as_ref()))
    }

    /// The offsets that a group has committed.
    pub(crate) fn offsets_of(&self, group: &str) -> Option<&TopicOffsets> {
        self.offsets.get(group)
    }

    /// Every group's offsets.
    pub(crate) fn all_offsets(&self) -> impl Iterator<Item = (&Str, &TopicOffsets)> {
        self.offsets.iter()
    }

    fn apply_consumer(&mut self, group: &Str, record: &ConsumerRecord) {
        if *record == ConsumerRecord::Epoch(None) {
            self.consumer_groups.remove(group);
            return;
        }
        if let Some(known) = self.consumer_groups.get_mut(group) {
            known.apply(record);
            return;
        }
        // What compaction left of a group that is gone.
        if record.is_tombstone() {
            return;
        }
        // It may exist already as the owner of offsets, which has no record of its own.
        self.groups.remove(group);
        self.streams_groups.remove(group);
        let mut created = ConsumerGroup::default();
        created.apply(record);
        self.consumer_groups.insert(group.detach(), created);
    }

    fn apply_streams(&mut self, group: &Str, record: &StreamsRecord) {
        if *record == StreamsRecord::Epoch(None) {
            self.streams_groups.remove(group);
            return;
        }
        if let Some(known) = self.streams_groups.get_mut(group) {
            known.apply(record);
            return;
        }
        // What compaction left of a group that is gone.
        if record.is_tombstone() {
            return;
        }
        self.groups.remove(group);
        self.consumer_groups.remove(group);
        let mut created = StreamsGroup::default();
        created.apply(record);
        self.streams_groups.insert(group.detach(), created);
    }

    fn apply_share(&mut self, group: &Str, record: &ShareRecord) {
        if *record == ShareRecord::Epoch(None) {
            self.share_groups.remove(group);
            return;
        }
        if let Some(known) = self.share_groups.get_mut(group) {
            known.apply(record);
            return;
        }
        // What compaction left of a group that is gone.
        if record.is_tombstone() {
            return;
        }
        let mut created = ShareGroup::default();
        created.apply(record);
        self.share_groups.insert(group.detach(), created);
    }

    /// Number of offsets in the ledger.
    pub fn offset_count(&self) -> usize {
        self.offsets.values().flat_map(BTreeMap::values).map(BTreeMap::len).sum()
    }
}

impl CommittedOffset {
    fn new(value: &OffsetCommitValue, record_offset: Offset) -> Self {
        Self {
            offset: value.offset,
            leader_epoch: value.leader_epoch,
            metadata: value.metadata.detach(),
            commit_timestamp: TimestampMs(value.commit_timestamp),
            expire_timestamp: Some(TimestampMs(value.expire_timestamp))
                .filter(|at| at.0 != NO_EXPIRY),
            topic_id: value.topic_id,
            record_offset,
        }
    }
}

/// Copies a record's value out of the segment or frame it came in, which would stay in memory
/// otherwise.
fn own(value: &GroupMetadataValue) -> GroupMetadataValue {
    let own_bytes = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
    let own_member = |member: &MemberMetadata| MemberMetadata {
        member_id: member.member_id.detach(),
        group_instance_id: member.group_instance_id.as_ref().map(Str::detach),
        client_id: member.client_id.detach(),
        client_host: member.client_host.detach(),
        rebalance_timeout: member.rebalance_timeout,
        session_timeout: member.session_timeout,
        subscription: own_bytes(&member.subscription),
        assignment: own_bytes(&member.assignment),
    };
    GroupMetadataValue {
        protocol_type: value.protocol_type.detach(),
        generation: value.generation,
        protocol: value.protocol.as_ref().map(Str::detach),
        leader: value.leader.as_ref().map(Str::detach),
        current_state_timestamp: value.current_state_timestamp,
        members: value.members.iter().map(own_member).collect(),
    }
}
