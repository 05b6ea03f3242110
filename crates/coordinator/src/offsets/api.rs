//! Requests and replies about committed offsets, freed of their wire versions.

use fleuve_protocol::Str;
use fleuve_types::{Offset, Uuid};

use crate::error::GroupError;
use crate::ledger::CommittedOffset;

/// OffsetCommit.
#[derive(Clone, Debug)]
pub struct CommitRequest {
    /// The group; may be empty, for old consumers that have none.
    pub group_id: Str,
    /// The generation or epoch that the member is in; negative for consumers that never joined.
    pub generation: i32,
    /// The member's id; empty for consumers that never joined.
    pub member_id: Str,
    /// `group.instance.id` of a static member.
    pub group_instance_id: Option<Str>,
    /// How long to keep the offsets, where versions 2 to 4 ask for a time of their own.
    pub retention_ms: Option<i64>,
    /// Versions 9 and later, which know the consumer protocol: a missing group may be called
    /// missing, and members of consumer groups may commit.
    pub knows_group_id_not_found: bool,
    /// What to commit.
    pub topics: Vec<CommitTopic>,
}

/// Offsets to commit for one topic.
#[derive(Clone, Debug)]
pub struct CommitTopic {
    /// The topic's name.
    pub name: Str,
    /// The topic's id; zero if the request came without it.
    pub topic_id: Uuid,
    /// The offsets.
    pub partitions: Vec<CommitPartition>,
}

/// An offset to commit.
#[derive(Clone, Debug)]
pub struct CommitPartition {
    /// The partition.
    pub partition: i32,
    /// The offset to go on reading from.
    pub offset: i64,
    /// Leader epoch of the last record that was read; -1 if not known.
    pub leader_epoch: i32,
    /// Text that the consumer wants to have back.
    pub metadata: Option<Str>,
}

/// What became of each partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicOutcomes {
    /// The topic's name.
    pub name: Str,
    /// The topic's id as the request gave it.
    pub topic_id: Uuid,
    /// Each partition's outcome, in the order of the request.
    pub partitions: Vec<(i32, Result<(), GroupError>)>,
}

/// OffsetFetch for one group.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    /// The group.
    pub group_id: Str,
    /// The member of a consumer group that asks; none if it does not say.
    pub member_id: Option<Str>,
    /// That member's epoch; negative if it does not say.
    pub member_epoch: i32,
    /// What to fetch; none for everything the group has.
    pub topics: Option<Vec<FetchTopic>>,
    /// Whether an offset that a transaction may be about to change is of no use.
    pub require_stable: bool,
}

/// Partitions of one topic to fetch the offsets of.
#[derive(Clone, Debug)]
pub struct FetchTopic {
    /// The topic's name.
    pub name: Str,
    /// The topic's id; zero if the request came without it. Offsets that were committed for
    /// another topic of the same name are not returned.
    pub topic_id: Uuid,
    /// The partitions.
    pub partitions: Vec<i32>,
}

/// Offsets of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedOffsets {
    /// By topic, in the order of the request.
    pub topics: Vec<FetchedTopic>,
    /// The offset that the high watermark of the log must reach before the reply leaves, so that
    /// nobody is told an offset that a crash takes back.
    pub after: Option<Offset>,
}

/// Offsets of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedTopic {
    /// The topic's name.
    pub name: Str,
    /// The topic's id as the request gave it.
    pub topic_id: Uuid,
    /// What is known of each partition.
    pub partitions: Vec<(i32, FetchedOffset)>,
}

/// What a group knows of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchedOffset {
    /// It has committed this.
    Committed(CommittedOffset),
    /// It has committed nothing.
    None,
    /// A transaction is open that has committed an offset, and the request does not want to know
    /// the one before: `UNSTABLE_OFFSET_COMMIT`.
    Unstable,
}

/// OffsetDelete.
#[derive(Clone, Debug)]
pub struct DeleteRequest {
    /// The group.
    pub group_id: Str,
    /// Topics and partitions whose offsets are to go.
    pub topics: Vec<(Str, Vec<i32>)>,
}

/// A topic that has been deleted from the cluster.
#[derive(Clone, Debug)]
pub struct DeletedTopic {
    /// The topic's name.
    pub name: Str,
    /// The topic's id.
    pub topic_id: Uuid,
}
