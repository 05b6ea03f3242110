//! Requests and replies of the consumer protocol, freed of their wire versions.

use std::fmt;
use std::sync::Arc;

use fleuve_protocol::Str;
use fleuve_types::Uuid;

use super::group::ConsumerState;
use crate::history::Rebalance;

/// ConsumerGroupHeartbeat: a member joins, lives on, says what changed, or leaves.
#[derive(Clone, Debug)]
pub struct ConsumerHeartbeatRequest {
    /// The group.
    pub group_id: Str,
    /// The member's id; may be empty where [`Self::may_lack_member_id`].
    pub member_id: Str,
    /// The member's epoch: 0 joins, -1 leaves, -2 leaves as a static member that will come back.
    pub member_epoch: i32,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<Str>,
    /// `client.rack`.
    pub rack_id: Option<Str>,
    /// How long the member may take to give partitions up; negative for as before.
    pub rebalance_timeout_ms: i32,
    /// Topics by name; none for as before.
    pub subscribed_topic_names: Option<Vec<Str>>,
    /// A regular expression for names of topics; none for as before, empty for no longer any.
    pub subscribed_topic_regex: Option<Str>,
    /// The assignor that the member wants; none for as before.
    pub server_assignor: Option<Str>,
    /// What the member has; none for as before.
    pub owned: Option<Vec<(Uuid, Vec<i32>)>>,
    /// Client id from the request header.
    pub client_id: Str,
    /// Where the request came from, as Kafka prints it: `/127.0.0.1`.
    pub client_host: Str,
    /// Version 0: a member without an id is given one when it joins.
    pub may_lack_member_id: bool,
    /// The topics that regular expressions may match.
    pub visible_topics: VisibleTopics,
}

/// Which topics a member may know of; by default all.
#[derive(Clone, Default)]
pub struct VisibleTopics(Option<Arc<IsVisible>>);

type IsVisible = dyn Fn(&str) -> bool + Send + Sync;

impl VisibleTopics {
    /// Those of which `is_visible` says so.
    pub fn only(is_visible: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(is_visible)))
    }

    pub(super) fn contain(&self, topic: &str) -> bool {
        self.0.as_ref().is_none_or(|is_visible| is_visible(topic))
    }
}

impl fmt::Debug for VisibleTopics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "some topics" } else { "all topics" })
    }
}

/// The answer to ConsumerGroupHeartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerHeartbeatReply {
    /// The member's id.
    pub member_id: Str,
    /// The member's epoch from now on.
    pub member_epoch: i32,
    /// How often to send heartbeats; zero for those who leave.
    pub heartbeat_interval_ms: i32,
    /// What the member is to have; none for as before.
    pub assignment: Option<Vec<(Uuid, Vec<i32>)>>,
}

/// A consumer group in detail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerDescription {
    /// The group's id.
    pub group_id: Str,
    /// Its state.
    pub state: ConsumerState,
    /// Grows whenever members, subscriptions or topics change.
    pub epoch: i32,
    /// The epoch that the target assignment was made for.
    pub assignment_epoch: i32,
    /// The assignor in use.
    pub assignor: Str,
    /// The members by id.
    pub members: Vec<ConsumerMemberDescription>,
    /// The last rebalances, oldest first. An extra of ours.
    pub rebalances: Vec<Rebalance>,
}

/// A member of a described consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerMemberDescription {
    /// The member's id.
    pub member_id: Str,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<Str>,
    /// `client.rack`.
    pub rack_id: Option<Str>,
    /// Its epoch.
    pub member_epoch: i32,
    /// The client id it sent last.
    pub client_id: Str,
    /// Where it sent from.
    pub client_host: Str,
    /// Topics that it is subscribed to by name.
    pub topics: Vec<Str>,
    /// Its regular expression.
    pub regex: Option<Str>,
    /// What it has, and what it has yet to give up.
    pub assignment: Vec<TopicPartitions>,
    /// What it is to have in the end.
    pub target: Vec<TopicPartitions>,
    /// Whether it uses the classic protocol.
    pub is_classic: bool,
}

/// Partitions of a topic that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPartitions {
    /// The topic's id.
    pub topic_id: Uuid,
    /// The topic's name.
    pub topic: Str,
    /// The partitions.
    pub partitions: Vec<i32>,
}
