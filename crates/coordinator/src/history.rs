//! Why a group rebalanced, for whoever asks later.
//!
//! Kafka tells this only in its log file. We keep the last rebalances of each group in memory and
//! show them with the group's description. The history is soft: it starts anew with the broker.

use std::collections::VecDeque;
use std::fmt;

use fleuve_protocol::Str;
use fleuve_types::TimestampMs;

use crate::error::GroupError;

/// Rebalances remembered per group.
pub const HISTORY_LENGTH: usize = 16;

/// Bytes kept of the reason that a client gives; Kafka's clients cut theirs at 255 characters.
const CLIENT_REASON_BYTES: usize = 255;

/// One rebalance: when it began, what set it off, and which generation it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebalance {
    /// When the group began to rebalance.
    pub at: TimestampMs,
    /// The generation that ended; of a consumer group its epoch.
    pub generation: i32,
    /// What set the rebalance off.
    pub cause: RebalanceCause,
    /// The member that set it off; none when several did, or none in particular.
    pub member: Option<Str>,
    /// The reason that the client gave, if it gave one.
    pub client_reason: Option<Str>,
}

/// What sets a rebalance off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebalanceCause {
    /// A member joined that the group did not have.
    MemberJoined,
    /// The leader joined again, as it does when topics change.
    LeaderRejoined,
    /// A member joined again with other subscriptions or assignors.
    MemberChanged,
    /// A static member came back while assignments were being handed out, or changed the assignor.
    StaticMemberReplaced,
    /// Members left on their own, or were removed by an administrator.
    MembersLeft,
    /// A member sent no heartbeat within its session timeout.
    HeartbeatExpired,
    /// Members did not give partitions or tasks up in time.
    RevocationExpired,
    /// Subscribed topics came, went or grew.
    TopicsChanged,
    /// What the assignment of a streams group depends on was set otherwise.
    ConfigsChanged,
    /// Members of the classic protocol did not rejoin a consumer group in time.
    JoinExpired,
    /// Members did not ask for their assignment in time.
    SyncExpired,
    /// A member of the consumer protocol joined a classic group, which became a consumer group.
    Upgraded,
    /// The last member of the consumer protocol left, and the group became a classic one.
    Downgraded,
    /// The assignment could not be written to the log.
    AssignmentNotStored(GroupError),
    /// The group was loaded with more members than `group.max.size` allows.
    OverCapacity,
}

impl fmt::Display for RebalanceCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MemberJoined => "a new member joined",
            Self::LeaderRejoined => "the leader rejoined",
            Self::MemberChanged => "a member changed its subscription or assignors",
            Self::StaticMemberReplaced => "a static member was replaced",
            Self::MembersLeft => "members left",
            Self::HeartbeatExpired => "a member's heartbeat expired",
            Self::RevocationExpired => "members did not give up in time what others are to have",
            Self::TopicsChanged => "subscribed topics changed",
            Self::ConfigsChanged => "the group's configuration changed",
            Self::JoinExpired => "classic members did not rejoin in time",
            Self::SyncExpired => "members did not sync in time",
            Self::Upgraded => "a member of the consumer protocol joined the classic group",
            Self::Downgraded => "only members of the classic protocol are left",
            Self::AssignmentNotStored(error) => {
                return write!(f, "the assignment could not be stored: {error}");
            }
            Self::OverCapacity => "the loaded group is over group.max.size",
        })
    }
}

/// The last rebalances of a group, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    entries: VecDeque<Rebalance>,
}

impl History {
    /// Remembers a rebalance, at the cost of the oldest when there are too many.
    pub(crate) fn push(&mut self, mut rebalance: Rebalance) {
        if let Some(reason) = &rebalance.client_reason
            && reason.len() > CLIENT_REASON_BYTES
        {
            let end = reason.floor_char_boundary(CLIENT_REASON_BYTES);
            rebalance.client_reason = Some(Str::copy_from(&reason[..end]));
        }
        if self.entries.len() == HISTORY_LENGTH {
            self.entries.pop_front();
        }
        self.entries.push_back(rebalance);
    }

    /// The remembered rebalances, oldest first.
    pub(crate) fn to_vec(&self) -> Vec<Rebalance> {
        self.entries.iter().cloned().collect()
    }
}
