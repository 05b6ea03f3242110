//! Requests and replies of the share group protocol, freed of their wire versions.

use fleuve_protocol::Str;
use fleuve_types::Uuid;

use super::group::ShareGroupState;
use crate::consumer::TopicPartitions;
use crate::error::GroupError;
use crate::history::Rebalance;

/// ShareGroupHeartbeat: a member joins, lives on, says what changed, or leaves.
#[derive(Clone, Debug)]
pub struct ShareHeartbeatRequest {
    /// The group.
    pub group_id: Str,
    /// The member's id, which it made itself.
    pub member_id: Str,
    /// The member's epoch: 0 joins, -1 leaves.
    pub member_epoch: i32,
    /// `client.rack`.
    pub rack_id: Option<Str>,
    /// Topics by name; none for as before.
    pub subscribed_topic_names: Option<Vec<Str>>,
    /// Client id from the request header.
    pub client_id: Str,
    /// Where the request came from, as Kafka prints it: `/127.0.0.1`.
    pub client_host: Str,
}

/// The answer to ShareGroupHeartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareHeartbeatReply {
    /// The member's id.
    pub member_id: Str,
    /// The member's epoch from now on.
    pub member_epoch: i32,
    /// How soon to send the next heartbeat; zero for those who leave.
    pub heartbeat_interval_ms: i32,
    /// What the member is to read; none for as before.
    pub assignment: Option<Vec<(Uuid, Vec<i32>)>>,
}

/// A share group in detail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareDescription {
    /// The group's id.
    pub group_id: Str,
    /// Its state.
    pub state: ShareGroupState,
    /// Grows whenever members, subscriptions or topics change.
    pub epoch: i32,
    /// The epoch that the target assignment was made for.
    pub assignment_epoch: i32,
    /// The assignor; there is only one.
    pub assignor: &'static str,
    /// The members by id.
    pub members: Vec<ShareMemberDescription>,
    /// The last rebalances, oldest first. An extra of ours.
    pub rebalances: Vec<Rebalance>,
}

/// A member of a described share group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareMemberDescription {
    /// The member's id.
    pub member_id: Str,
    /// `client.rack`.
    pub rack_id: Option<Str>,
    /// Its epoch.
    pub member_epoch: i32,
    /// The client id it sent last.
    pub client_id: Str,
    /// Where it sent from.
    pub client_host: Str,
    /// Topics that it is subscribed to.
    pub topics: Vec<Str>,
    /// What it reads.
    pub assignment: Vec<TopicPartitions>,
}

/// A partition that a share group has, or is to have, a state of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShareGroupPartition {
    /// The topic.
    pub topic_id: Uuid,
    /// The topic's name.
    pub topic: Str,
    /// The partition.
    pub partition: i32,
}

/// The first half of AlterShareGroupOffsets: the group's epoch has risen to fence whoever is still at
/// the old offsets, and these partitions may be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareAlteration {
    /// The epoch that the states must be given.
    pub state_epoch: i32,
    /// One entry per topic in the order of the request.
    pub topics: Vec<ShareAlterationTopic>,
}

/// A topic whose offsets are to be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareAlterationTopic {
    /// Its name.
    pub topic: Str,
    /// Its id; zero if there is no such topic.
    pub topic_id: Uuid,
    /// Each partition with its new start, or why it cannot be set.
    pub partitions: Vec<(i32, Result<i64, GroupError>)>,
}

/// The first half of DeleteShareGroupOffsets: for each topic its id, and the partitions whose state
/// is to be deleted, or why that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareOffsetsDeletion {
    /// One entry per topic in the order of the request.
    pub topics: Vec<(Str, Uuid, Result<Vec<i32>, GroupError>)>,
}
