//! Requests and replies of the classic protocol, freed of their wire versions.
//!
//! A handler translates: what a version lacks is filled in here with a stated meaning, and what
//! depends on the version arrives as a named flag.

use bytes::Bytes;
use fleuve_protocol::Str;

use crate::error::GroupError;

/// An assignor that a member supports, with the member's subscription in that assignor's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// Name of the assignor, such as `range`.
    pub name: Str,
    /// The member's subscription, opaque to the coordinator but for its topics.
    pub metadata: Bytes,
}

/// JoinGroup.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// The group to join.
    pub group_id: Str,
    /// The member's id; empty when it has none yet.
    pub member_id: Str,
    /// `group.instance.id` of a static member.
    pub group_instance_id: Option<Str>,
    /// Client id from the request header.
    pub client_id: Str,
    /// Where the request came from, as Kafka prints it: `/127.0.0.1`.
    pub client_host: Str,
    /// How long the member may be silent.
    pub session_timeout_ms: i32,
    /// How long the member may take to rejoin; negative (version 0) means the session timeout.
    pub rebalance_timeout_ms: i32,
    /// What the members are: `consumer`, `connect`, ...
    pub protocol_type: Str,
    /// Supported assignors, best first.
    pub protocols: Vec<Protocol>,
    /// Why the member joins, in its own words.
    pub reason: Option<Str>,
    /// Versions 4 and later: a dynamic member must join again with the id it is given first.
    pub requires_member_id: bool,
    /// Versions 9 and later: a returning leader can be told not to assign.
    pub can_skip_assignment: bool,
}

/// What a member learns when a new generation begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The member's id.
    pub member_id: Str,
    /// The generation that the member is now part of.
    pub generation: i32,
    /// The group's protocol type.
    pub protocol_type: Option<Str>,
    /// The assignor that all members support and most prefer.
    pub protocol_name: Option<Str>,
    /// The member that assigns.
    pub leader: Str,
    /// Whether the leader keeps the stored assignment instead of making one.
    pub skip_assignment: bool,
    /// All members with their subscriptions, for the leader only.
    pub members: Vec<JoinedMember>,
}

/// A member as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    /// The member's id.
    pub member_id: Str,
    /// `group.instance.id` of a static member.
    pub group_instance_id: Option<Str>,
    /// The subscription for the chosen assignor.
    pub metadata: Bytes,
}

/// Why a member cannot join, and under which id it should try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRefusal {
    /// What is wrong.
    pub error: GroupError,
    /// The member id to answer with; empty for none.
    pub member_id: Str,
}

impl JoinRefusal {
    /// A refusal that leaves the member without an id.
    pub(crate) fn without_id(error: GroupError) -> Self {
        Self { error, member_id: Str::EMPTY }
    }
}

/// SyncGroup.
#[derive(Clone, Debug)]
pub struct SyncRequest {
    /// The group.
    pub group_id: Str,
    /// The generation that the member joined.
    pub generation: i32,
    /// The member's id.
    pub member_id: Str,
    /// `group.instance.id` of a static member.
    pub group_instance_id: Option<Str>,
    /// The protocol type, from version 5 on.
    pub protocol_type: Option<Str>,
    /// The assignor, from version 5 on.
    pub protocol_name: Option<Str>,
    /// From the leader: each member's assignment.
    pub assignments: Vec<(Str, Bytes)>,
}

/// A member's share of the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// The group's protocol type.
    pub protocol_type: Option<Str>,
    /// The group's assignor.
    pub protocol_name: Option<Str>,
    /// The assignment, opaque to the coordinator.
    pub assignment: Bytes,
}

/// Heartbeat.
#[derive(Clone, Debug)]
pub struct HeartbeatRequest {
    /// The group.
    pub group_id: Str,
    /// The generation that the member believes current.
    pub generation: i32,
    /// The member's id.
    pub member_id: Str,
    /// `group.instance.id` of a static member.
    pub group_instance_id: Option<Str>,
}

/// LeaveGroup; versions before 3 have exactly one leaver.
#[derive(Clone, Debug)]
pub struct LeaveRequest {
    /// The group.
    pub group_id: Str,
    /// Who leaves.
    pub members: Vec<Leaver>,
}

/// A member that leaves, or that an administrator removes by its instance id alone.
#[derive(Clone, Debug)]
pub struct Leaver {
    /// The member's id; empty when only the instance id is known.
    pub member_id: Str,
    /// `group.instance.id` of a static member.
    pub group_instance_id: Option<Str>,
    /// Why the member leaves, in its own words.
    pub reason: Option<Str>,
}

/// What became of one leaver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaverOutcome {
    /// The member id of the request.
    pub member_id: Str,
    /// The instance id of the request.
    pub group_instance_id: Option<Str>,
    /// Whether the member has left.
    pub outcome: Result<(), GroupError>,
}
