//! Requests and replies of the streams protocol, freed of their wire versions.

use std::collections::BTreeMap;

use fleuve_protocol::Str;
use fleuve_protocol::messages::streams_group_topology_value::StreamsGroupTopologyValue;

use super::configure::{InternalTopic, StreamsStatus};
use super::group::StreamsState;
use super::tasks::{Roles, TaskList};
use crate::history::Rebalance;

/// StreamsGroupHeartbeat: a member joins, lives on, says what changed, or leaves.
#[derive(Clone, Debug)]
pub struct StreamsHeartbeatRequest {
    /// The group, which is `application.id`.
    pub group_id: Str,
    /// The member's id, which it makes itself.
    pub member_id: Str,
    /// The member's epoch: 0 joins, -1 leaves.
    pub member_epoch: i32,
    /// `group.instance.id`; static members are not supported yet, by Kafka neither.
    pub instance_id: Option<Str>,
    /// `client.rack`.
    pub rack_id: Option<Str>,
    /// How long the member may take to give tasks up; -1 for as before.
    pub rebalance_timeout_ms: i32,
    /// The topology, when joining.
    pub topology: Option<StreamsGroupTopologyValue>,
    /// What the member has, role by role; none for as before.
    pub owned: Roles<Option<TaskList>>,
    /// The process that the member is a thread of; none for as before.
    pub process_id: Option<Str>,
    /// Host and port where its process answers queries; none for as before.
    pub user_endpoint: Option<(Str, u16)>,
    /// Tags of the client; none for as before.
    pub client_tags: Option<BTreeMap<Str, Str>>,
    /// Whether the request tells positions in changelogs, which nobody reads yet.
    pub tells_task_offsets: bool,
    /// Whether all members are to stop.
    pub shutdown_application: bool,
    /// The endpoints that the member knows of.
    pub endpoint_information_epoch: i32,
    /// Client id from the request header.
    pub client_id: Str,
    /// Where the request came from, as Kafka prints it: `/127.0.0.1`.
    pub client_host: Str,
}

/// The answer to StreamsGroupHeartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamsHeartbeatReply {
    /// The member's id.
    pub member_id: Str,
    /// The member's epoch from now on.
    pub member_epoch: i32,
    /// How often to send heartbeats; zero for those who leave.
    pub heartbeat_interval_ms: i32,
    /// What the member should know beside its tasks.
    pub statuses: Vec<StreamsStatus>,
    /// What the member is to have; none for as before.
    pub tasks: Option<Roles<TaskList>>,
    /// Grows when processes come to answer queries about other partitions.
    pub endpoint_information_epoch: i32,
    /// Which process answers queries about which partitions; none for as before.
    pub endpoints: Option<Vec<EndpointPartitions>>,
    /// Internal topics that the driver is asked to create. Not part of the answer on the wire.
    pub missing_topics: Vec<InternalTopic>,
}

/// What a process can be asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPartitions {
    /// The process's host.
    pub host: Str,
    /// The process's port.
    pub port: u16,
    /// Topics and partitions of its active tasks.
    pub active: Vec<(Str, Vec<i32>)>,
    /// Topics and partitions of its copies.
    pub standby: Vec<(Str, Vec<i32>)>,
}

/// A streams group in detail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamsDescription {
    /// The group's id.
    pub group_id: Str,
    /// Its state.
    pub state: StreamsState,
    /// Grows whenever members, topology, topics or settings change.
    pub epoch: i32,
    /// The epoch that the target assignment was made for.
    pub assignment_epoch: i32,
    /// Its topology; none for a group that lost it.
    pub topology: Option<TopologyDescription>,
    /// The members by id.
    pub members: Vec<StreamsMemberDescription>,
    /// The last rebalances, oldest first. An extra of ours.
    pub rebalances: Vec<Rebalance>,
}

/// A described topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopologyDescription {
    /// Its epoch.
    pub epoch: i32,
    /// Its subtopologies by id.
    pub subtopologies: Vec<SubtopologyDescription>,
}

/// A described subtopology. Numbers of partitions are zero where they are not decided yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubtopologyDescription {
    /// Its id.
    pub id: Str,
    /// Topics that it reads.
    pub source_topics: Vec<Str>,
    /// Repartition topics that it writes to.
    pub repartition_sink_topics: Vec<Str>,
    /// Repartition topics that it reads.
    pub repartition_source_topics: Vec<InternalTopic>,
    /// Changelogs of its state.
    pub changelog_topics: Vec<InternalTopic>,
}

/// A member of a described streams group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamsMemberDescription {
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
    /// The epoch of the topology that it runs.
    pub topology_epoch: i32,
    /// The process that it is a thread of.
    pub process_id: Str,
    /// Where its process answers queries.
    pub user_endpoint: Option<(Str, u16)>,
    /// Tags of the client.
    pub client_tags: Vec<(Str, Str)>,
    /// What it has.
    pub assignment: Roles<TaskList>,
    /// What it is to have in the end.
    pub target: Roles<TaskList>,
}
