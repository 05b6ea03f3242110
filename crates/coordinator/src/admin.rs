//! What administrators ask about groups: ListGroups and DescribeGroups.

use std::collections::BTreeMap;

use bytes::Bytes;
use fleuve_protocol::Str;
use fleuve_types::TimestampMs;

use crate::classic::State;
use crate::consumer::{self, ConsumerState};
use crate::coordinator::{Group, GroupCoordinator};
use crate::error::GroupError;
use crate::history::Rebalance;
use crate::share::{self, ShareGroupState};
use crate::streams::{self, StreamsState};

/// The name of the classic protocol where Kafka names the types of groups.
pub const CLASSIC_GROUP_TYPE: &str = "classic";

/// The name of the consumer protocol where Kafka names the types of groups.
pub const CONSUMER_GROUP_TYPE: &str = "consumer";

/// The name of the streams protocol where Kafka names the types of groups.
pub const STREAMS_GROUP_TYPE: &str = "streams";

/// The name of the share group protocol where Kafka names the types of groups.
pub const SHARE_GROUP_TYPE: &str = "share";

/// The state of a group, whatever its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// Of a classic group.
    Classic(State),
    /// Of a consumer group.
    Consumer(ConsumerState),
    /// Of a streams group.
    Streams(StreamsState),
    /// Of a share group.
    Share(ShareGroupState),
}

impl GroupState {
    /// Kafka's name of the state.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classic(state) => state.name(),
            Self::Consumer(state) => state.name(),
            Self::Streams(state) => state.name(),
            Self::Share(state) => state.name(),
        }
    }
}

/// Which groups to list; an empty list allows everything.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    /// Names of states, in any case.
    pub states: Vec<Str>,
    /// Names of group types, in any case.
    pub types: Vec<Str>,
}

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The group's id.
    pub group_id: Str,
    /// What its members are; empty if it never had any.
    pub protocol_type: Str,
    /// Its state.
    pub state: GroupState,
    /// Its type, such as [`CLASSIC_GROUP_TYPE`].
    pub group_type: &'static str,
}

/// A group in detail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The group's id.
    pub group_id: Str,
    /// Its state.
    pub state: State,
    /// When it entered its state, if that is known.
    pub state_since: Option<TimestampMs>,
    /// What its members are; empty if it never had any.
    pub protocol_type: Str,
    /// The assignor, while the group is stable.
    pub protocol_name: Option<Str>,
    /// The current generation.
    pub generation: i32,
    /// The member that assigns.
    pub leader: Option<Str>,
    /// The members, by id.
    pub members: Vec<MemberDescription>,
    /// Assignors that members support, with the number of these members.
    pub supported_protocols: BTreeMap<Str, usize>,
    /// The last rebalances, oldest first. An extra of ours.
    pub rebalances: Vec<Rebalance>,
}

/// A member of a described group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberDescription {
    /// The member's id.
    pub member_id: Str,
    /// `group.instance.id` of a static member.
    pub group_instance_id: Option<Str>,
    /// The client id it joined with.
    pub client_id: Str,
    /// Where it joined from.
    pub client_host: Str,
    /// Its subscription, while the group is stable.
    pub metadata: Bytes,
    /// Its assignment.
    pub assignment: Bytes,
}

impl GroupCoordinator {
    /// Lists the groups that the filter allows, by id.
    pub fn list_groups(&self, filter: &ListFilter) -> Result<Vec<Listing>, GroupError> {
        self.check_serving()?;
        let allows = |names: &[Str], name: &str| {
            names.is_empty()
                || names.iter().any(|allowed| allowed.trim().eq_ignore_ascii_case(name))
        };
        let listings = self.groups.iter().map(|(id, group)| match group {
            Group::Classic(group) => Listing {
                group_id: id.clone(),
                protocol_type: group.protocol_type().cloned().unwrap_or(Str::EMPTY),
                state: GroupState::Classic(group.state()),
                group_type: CLASSIC_GROUP_TYPE,
            },
            Group::Consumer(_) => Listing {
                group_id: id.clone(),
                protocol_type: consumer::PROTOCOL_TYPE.into(),
                state: GroupState::Consumer(
                    self.ledger()
                        .consumer_group(id)
                        .map_or(ConsumerState::Empty, |group| group.state()),
                ),
                group_type: CONSUMER_GROUP_TYPE,
            },
            Group::Streams(_) => Listing {
                group_id: id.clone(),
                protocol_type: streams::PROTOCOL_TYPE.into(),
                state: GroupState::Streams(
                    self.ledger()
                        .streams_group(id)
                        .map_or(StreamsState::Empty, |group| group.state()),
                ),
                group_type: STREAMS_GROUP_TYPE,
            },
            Group::Share(_) => Listing {
                group_id: id.clone(),
                protocol_type: share::PROTOCOL_TYPE.into(),
                state: GroupState::Share(
                    self.ledger()
                        .share_group(id)
                        .map_or(ShareGroupState::Empty, |group| group.state()),
                ),
                group_type: SHARE_GROUP_TYPE,
            },
        });
        let is_allowed = |listing: &Listing| {
            allows(&filter.types, listing.group_type)
                && allows(&filter.states, listing.state.name())
        };
        Ok(listings.filter(is_allowed).collect())
    }

    /// Describes a classic group.
    ///
    /// For [`GroupError::GroupIdNotFound`] versions of DescribeGroups before 6 answer with a group
    /// in state `Dead` and no error.
    pub fn describe_group(&self, group_id: &str) -> Result<Description, GroupError> {
        self.check_serving()?;
        match self.groups.get(group_id) {
            Some(Group::Classic(group)) => Ok(group.describe()),
            Some(Group::Consumer(_) | Group::Share(_) | Group::Streams(_)) | None => {
                Err(GroupError::GroupIdNotFound)
            }
        }
    }

    /// Counts the classic groups in each state, for metrics.
    pub fn groups_by_state(&self) -> Vec<(State, usize)> {
        let states =
            [State::Empty, State::PreparingRebalance, State::CompletingRebalance, State::Stable];
        let count = |state| {
            let is_in_state =
                |group: &&Group| matches!(group, Group::Classic(group) if group.state() == state);
            (state, self.groups.values().filter(is_in_state).count())
        };
        states.into_iter().map(count).collect()
    }
}
