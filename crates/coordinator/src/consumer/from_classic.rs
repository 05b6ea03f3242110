//! A consumer group that takes the place of a classic group with members.
//!
//! Everyone keeps what the leader's last assignment gave, as current and as target assignment, and
//! the epochs go on from the generation. The member whose join brings this about makes the epoch
//! rise at once, so that heartbeats tell the others to join again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use fleuve_protocol::Str;
use fleuve_protocol::messages::consumer_group_member_metadata_value::{
    ClassicMemberMetadata, ClassicProtocol,
};
use fleuve_types::{TimestampMs, Uuid};

use super::group::ConsumerGroup;
use super::member::{Assigned, Member, Target};
use super::subscription::metadata_hash;
use super::write::Records;
use crate::classic::{ClassicGroup, Protocol, read_assignment, read_subscription};
use crate::modern::MemberState;
use crate::record::Record;
use crate::topics::TopicView;

/// The time of target assignments that leaders made.
const MADE_BY_A_LEADER: TimestampMs = TimestampMs(0);

/// What becomes of a classic group.
pub(crate) struct Upgraded {
    pub(crate) group: ConsumerGroup,
    /// The records that make it so.
    pub(crate) records: Vec<Record>,
}

impl Upgraded {
    /// Converts a group; none if its members are not what consumers should be, or if their assignor
    /// gave them something that ours would lose.
    pub(crate) fn from_classic_group(
        id: &Str,
        classic: &ClassicGroup,
        topics: &dyn TopicView,
    ) -> Option<Self> {
        let epoch = classic.generation();
        // A leader that gave a partition away twice must not do so here.
        let mut given = BTreeSet::new();
        let mut members: Vec<(&Str, Member)> = Vec::with_capacity(classic.members().len());
        for (id, member) in classic.members() {
            let subscription = read_subscription(classic.metadata_of(member)?)?;
            let assigned = read_assigned(&member.assignment, epoch, topics, &mut given)?;
            members.push((
                id,
                Member {
                    instance_id: member.group_instance_id.clone(),
                    rack_id: subscription.rack_id.as_ref().map(Str::detach),
                    client_id: member.client_id.clone(),
                    client_host: member.client_host.clone(),
                    topics: subscription.topics.iter().map(Str::detach).collect(),
                    rebalance_timeout_ms: member.rebalance_timeout_ms,
                    classic: Some(metadata(member.session_timeout_ms, &member.protocols)),
                    epoch,
                    previous_epoch: epoch,
                    state: MemberState::Stable,
                    assigned,
                    ..Member::default()
                },
            ));
        }
        let mut records = Records::new(id);
        for (id, member) in &members {
            records.member(id, member);
        }
        let all = members.iter().map(|(_, member)| member);
        records.epoch(epoch, metadata_hash(all, &BTreeMap::new(), topics));
        for (id, member) in &members {
            let target = member.assigned.iter();
            let target: Target =
                target.map(|(topic, all)| (*topic, all.keys().copied().collect())).collect();
            records.target(id, &target);
        }
        records.target_epoch(epoch, MADE_BY_A_LEADER);
        for (id, member) in &members {
            records.current(id, member);
        }
        let mut group = ConsumerGroup::default();
        for record in &records.list {
            if let Record::Consumer { record, .. } = record {
                group.apply(record);
            }
        }
        records.list.insert(0, Record::group_tombstone(id));
        Some(Self { group, records: records.list })
    }
}

/// What a member of the classic protocol says of itself beyond what other members say.
pub(super) fn metadata(session_timeout_ms: i32, protocols: &[Protocol]) -> ClassicMemberMetadata {
    let own = |protocol: &Protocol| ClassicProtocol {
        name: protocol.name.detach(),
        metadata: Bytes::copy_from_slice(&protocol.metadata),
    };
    ClassicMemberMetadata {
        session_timeout_ms,
        supported_protocols: protocols.iter().map(own).collect(),
    }
}

/// What a member has by the leader's word, of topics that exist; none if that cannot be read, or
/// not be kept.
fn read_assigned(
    assignment: &Bytes,
    epoch: i32,
    topics: &dyn TopicView,
    given: &mut BTreeSet<(Uuid, i32)>,
) -> Option<Assigned> {
    let mut assigned = Assigned::new();
    // So it is before the first assignment, and for those that the leader forgot.
    if assignment.is_empty() {
        return Some(assigned);
    }
    let read = read_assignment(assignment).filter(|read| !read.has_user_data)?;
    for (name, partitions) in read.partitions {
        let Some(topic) = topics.by_name(&name) else { continue };
        for partition in partitions {
            if partition >= 0 && given.insert((topic.id, partition)) {
                assigned.entry(topic.id).or_default().insert(partition, epoch);
            }
        }
    }
    Some(assigned)
}
