//! What the machine wants done: replies to give and records to append.
//!
//! A handler returns a [`Step`]. The driver carries out its effects, appends each of its writes to
//! the log, in order, and hands every write back with its fate; that yields the next step.

use bytes::Bytes;
use fleuve_protocol::Str;
use fleuve_types::{Offset, TimestampMs, Uuid};

use crate::classic::{JoinRefusal, Joined, LeaverOutcome, Protocol, Synced};
use crate::consumer::ConsumerHeartbeatReply;
use crate::error::GroupError;
use crate::modern::Aftermath;
use crate::offsets::TopicOutcomes;
use crate::record::Record;
use crate::share::{ShareAlteration, ShareHeartbeatReply, ShareOffsetsDeletion};
use crate::streams::StreamsHeartbeatReply;
use crate::transaction::Producer;

/// The two times of a moment: one that is written down and one that deadlines are measured by.
///
/// Kafka too stamps records with the wall clock and runs its timers by a clock that cannot jump;
/// otherwise an adjusted clock would expire every member at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall clock.
    pub wall: TimestampMs,
    /// Monotonic clock in milliseconds, from an arbitrary beginning.
    pub monotonic_ms: i64,
}

impl Now {
    /// Reads both clocks.
    pub fn read(clock: &dyn fleuve_os::Clock) -> Self {
        let monotonic_ms = i64::try_from(clock.monotonic().as_millis()).unwrap_or(i64::MAX);
        Self { wall: TimestampMs(clock.wall_ms()), monotonic_ms }
    }
}

/// Names a request that waits for its reply; the driver chooses it and never uses it twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// The outcome of one call on the machine.
#[derive(Debug, Default)]
#[must_use = "effects must be carried out and writes appended"]
pub struct Step {
    /// What to do at once.
    pub effects: Vec<Effect>,
    /// What to append, in this order, each as one batch.
    pub writes: Vec<Write>,
}

/// Something that the driver does for the machine.
#[derive(Debug)]
pub enum Effect {
    /// Give a waiting request its answer.
    Reply {
        /// The request.
        token: Token,
        /// The answer.
        response: Response,
        /// The offset that the high watermark of the log must reach before the answer leaves;
        /// none when it tells nothing that a crash could take back.
        after: Option<Offset>,
    },
    /// Begin the states of share-partitions in `__share_group_state`, of those that have none, wait
    /// until they are durable, and tell [`crate::GroupCoordinator::handle_shares_initialized`].
    ///
    /// It may be asked for the same more than once.
    InitializeShares {
        /// The group.
        group: Str,
        /// The epoch of the states.
        state_epoch: i32,
        /// The partitions by topic.
        partitions: Vec<(Uuid, Vec<i32>)>,
    },
    /// Delete the states of topics that an administrator had begun to delete, and tell
    /// [`crate::GroupCoordinator::handle_shares_deleted`].
    DeleteShares {
        /// The group.
        group: Str,
        /// The topics.
        topics: Vec<Uuid>,
    },
    /// A member of a share group is gone: whatever it has acquired is to be given back.
    ShareMemberGone {
        /// The group.
        group: Str,
        /// The member.
        member: Str,
    },
}

/// Answers to the requests that carry a token.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// To JoinGroup.
    Join(Result<Joined, JoinRefusal>),
    /// To SyncGroup.
    Sync(Result<Synced, GroupError>),
    /// To Heartbeat.
    Heartbeat(Result<(), GroupError>),
    /// To LeaveGroup, one outcome per leaver in the order of the request.
    Leave(Result<Vec<LeaverOutcome>, GroupError>),
    /// To ConsumerGroupHeartbeat.
    ConsumerHeartbeat(Result<ConsumerHeartbeatReply, GroupError>),
    /// To StreamsGroupHeartbeat.
    StreamsHeartbeat(Result<Box<StreamsHeartbeatReply>, GroupError>),
    /// To ShareGroupHeartbeat.
    ShareHeartbeat(Result<ShareHeartbeatReply, GroupError>),
    /// To the first half of AlterShareGroupOffsets.
    ShareAlter(Result<ShareAlteration, GroupError>),
    /// To the first half of DeleteShareGroupOffsets.
    ShareOffsetsDelete(Result<ShareOffsetsDeletion, GroupError>),
    /// To OffsetCommit, in the order of the request.
    OffsetCommit(Result<Vec<TopicOutcomes>, GroupError>),
    /// To OffsetDelete, in the order of the request.
    OffsetDelete(Result<Vec<TopicOutcomes>, GroupError>),
    /// To DeleteGroups, one outcome per group in the order of the request.
    DeleteGroups(Vec<(Str, Result<(), GroupError>)>),
}

impl Response {
    /// The answer to give instead when the records it stood for were not stored.
    fn not_stored(self, error: GroupError) -> Self {
        match self {
            Self::Join(_) => Self::Join(Err(JoinRefusal::without_id(error))),
            Self::Sync(_) => Self::Sync(Err(error)),
            Self::Heartbeat(_) => Self::Heartbeat(Err(error)),
            Self::Leave(_) => Self::Leave(Err(error)),
            Self::ConsumerHeartbeat(_) => Self::ConsumerHeartbeat(Err(error)),
            Self::StreamsHeartbeat(_) => Self::StreamsHeartbeat(Err(error)),
            Self::ShareHeartbeat(_) => Self::ShareHeartbeat(Err(error)),
            Self::ShareAlter(_) => Self::ShareAlter(Err(error)),
            Self::ShareOffsetsDelete(_) => Self::ShareOffsetsDelete(Err(error)),
            Self::OffsetCommit(_) => Self::OffsetCommit(Err(error)),
            Self::OffsetDelete(_) => Self::OffsetDelete(Err(error)),
            Self::DeleteGroups(outcomes) => Self::DeleteGroups(
                outcomes
                    .into_iter()
                    .map(|(group, outcome)| (group, outcome.and(Err(error))))
                    .collect(),
            ),
        }
    }
}

/// Records to append as one batch, together with what the machine wants to do afterwards.
///
/// The driver gives it back to [`crate::GroupCoordinator::handle_appended`] or
/// [`crate::GroupCoordinator::handle_append_failed`] before it makes any other call.
#[derive(Debug)]
#[must_use = "a write must be handed back with its fate"]
pub struct Write {
    pub(crate) records: Vec<Record>,
    /// In whose transaction they are to be written.
    pub(crate) producer: Option<Producer>,
    pub(crate) then: Then,
}

impl Write {
    /// The records, never empty.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Who writes them in a transaction; none if they belong to no transaction.
    pub fn producer(&self) -> Option<Producer> {
        self.producer
    }
}

/// What follows when the fate of a write is known.
#[derive(Debug)]
pub(crate) enum Then {
    /// Nothing: should the write be lost, the older state that comes back does no harm.
    Nothing,
    /// The request that caused the write gets its answer.
    Reply { token: Token, response: Response },
    /// The group now exists; if the write failed, it never did.
    CreateGroup { group: Str },
    /// The group becomes stable with the leader's assignment, or rebalances anew.
    InstallAssignment {
        group: Str,
        generation: i32,
        leader: Str,
        /// One entry per member.
        assignments: Vec<(Str, Bytes)>,
    },
    /// The static member's new incarnation gets its answer, or gives way to the old one again.
    FinishReplacement(Box<Replacement>),
    /// A group of a modern protocol has moved on.
    Modern(Box<Aftermath>),
}

/// A static member that came back under a new member id without a rebalance.
#[derive(Debug)]
pub(crate) struct Replacement {
    pub(crate) group: Str,
    pub(crate) instance_id: Str,
    pub(crate) old_member_id: Str,
    pub(crate) new_member_id: Str,
    pub(crate) old_protocols: Vec<Protocol>,
    pub(crate) old_rebalance_timeout_ms: i32,
    pub(crate) old_session_timeout_ms: i32,
    /// The leader before the replacement; clients that cannot skip the assignment are told this
    /// one, so that a returning leader does not believe it has to assign anew.
    pub(crate) old_leader: Option<Str>,
    pub(crate) can_skip_assignment: bool,
}

impl Step {
    /// Answers at once.
    pub(crate) fn reply(&mut self, token: Token, response: Response) {
        self.effects.push(Effect::Reply { token, response, after: None });
    }

    /// Answers when the log is durable up to `after`.
    pub(crate) fn reply_after(&mut self, token: Token, response: Response, after: Option<Offset>) {
        self.effects.push(Effect::Reply { token, response, after });
    }

    /// Asks for `records` to be appended.
    pub(crate) fn write(&mut self, records: Vec<Record>, then: Then) {
        debug_assert!(!records.is_empty(), "a write without records has no offset to wait for");
        self.writes.push(Write { records, producer: None, then });
    }

    /// Asks for `records` to be appended before `response` is given; with no records it is given
    /// at once.
    pub(crate) fn write_then_reply(
        &mut self,
        records: Vec<Record>,
        token: Token,
        response: Response,
    ) {
        if records.is_empty() {
            self.reply(token, response);
        } else {
            self.write(records, Then::Reply { token, response });
        }
    }

    /// Asks for `records` to be appended in the transaction of `producer` before `response` is
    /// given; with no records it is given at once.
    pub(crate) fn write_in_transaction(
        &mut self,
        producer: Producer,
        records: Vec<Record>,
        token: Token,
        response: Response,
    ) {
        if records.is_empty() {
            return self.reply(token, response);
        }
        let then = Then::Reply { token, response };
        self.writes.push(Write { records, producer: Some(producer), then });
    }

    /// Answers the request of a write that failed.
    pub(crate) fn reply_not_stored(&mut self, token: Token, response: Response, error: GroupError) {
        self.reply(token, response.not_stored(error));
    }
}
