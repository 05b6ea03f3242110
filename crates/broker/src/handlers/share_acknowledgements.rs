//! What ShareFetch and ShareAcknowledge have in common: members saying what became of records.
//!
//! Each partition is acknowledged by itself: all of its batches or none of them.

use std::sync::Arc;

use fleuve_coordinator::share::is_member_id;
use fleuve_coordinator::share_partition::{Acknowledge, AcknowledgeError, AcknowledgementBatch};
use fleuve_coordinator::share_state::ShareKey;
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::{ErrorCode, Str};
use fleuve_types::Uuid;

use super::{errors, permission};
use crate::node::Node;
use crate::request::Context;
use crate::share::{LiveError, SessionError, ShareTerms, StateError, Stored};

/// The version from which on records can be renewed (KIP-1222).
pub(super) const RENEW_FROM: i16 = 2;

/// A partition's batches as they came: first and last offset, and types.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) topic_id: Uuid,
    pub(super) partition: i32,
    pub(super) batches: Vec<(i64, i64, Vec<i8>)>,
}

/// What became of a partition's acknowledgements so far.
#[derive(Debug)]
pub(super) struct Acknowledged {
    pub(super) topic_id: Uuid,
    pub(super) partition: i32,
    outcome: Result<Option<Stored>, Refusal>,
}

/// An error code and what explains it.
pub(super) type Refusal = (ErrorCode, Option<Str>);

/// Who acknowledges, and under which terms.
pub(super) struct Sender<'a> {
    pub(super) context: &'a Context,
    pub(super) node: &'a Node,
    pub(super) group: &'a Str,
    pub(super) member: &'a Str,
    pub(super) terms: &'a ShareTerms,
    pub(super) may_renew: bool,
}

impl Sender<'_> {
    /// Takes in acknowledgements, partition by partition.
    pub(super) fn acknowledge(&self, sent: Vec<Sent>) -> Vec<Acknowledged> {
        let each = sent.into_iter().map(|sent| Acknowledged {
            topic_id: sent.topic_id,
            partition: sent.partition,
            outcome: self.acknowledge_partition(&sent),
        });
        each.collect()
    }

    fn acknowledge_partition(&self, sent: &Sent) -> Result<Option<Stored>, Refusal> {
        let topic = self.node.topics.by_id(&sent.topic_id);
        let topic = topic.ok_or((ErrorCode::UnknownTopicId, None))?;
        permission::topic(self.context, AclOperation::Read, &topic.name)
            .map_err(|code| (code, Some(Str::from(code.message()))))?;
        let batches = read(&sent.batches, self.may_renew)?;
        let shares = &self.node.shares;
        let key = ShareKey {
            group: self.group.clone(),
            topic_id: sent.topic_id,
            partition: sent.partition,
        };
        let unknown = (ErrorCode::UnknownTopicOrPartition, None);
        let live = shares.find(&key).ok_or(unknown)?;
        let now_ms = shares.now_ms();
        let outcome = live.acknowledge(&shares.states, self.member, &batches, (self.terms, now_ms));
        shares.put_aside_if_fenced(&live, &outcome);
        shares.plan(&live);
        outcome.map_err(|error| live_error(&error))
    }
}

impl Acknowledged {
    /// Waits until the acknowledgement survives a crash; then says what became of it.
    pub(super) async fn settled(self, node: &Arc<Node>) -> Result<(), Refusal> {
        match self.outcome? {
            None => Ok(()),
            Some(stored) => match node.shares.states.durable(&stored).await {
                Ok(()) => Ok(()),
                Err(error) => {
                    if stored_is_lost(error) {
                        // Machines have applied what may be gone; they begin anew from the log.
                        node.shares.retire_all();
                    }
                    Err(live_error(&error.into()))
                }
            },
        }
    }
}

fn stored_is_lost(error: StateError) -> bool {
    error == StateError::NotAvailable
}

/// Reads batches, which must be in order.
fn read(
    batches: &[(i64, i64, Vec<i8>)],
    may_renew: bool,
) -> Result<Vec<AcknowledgementBatch>, Refusal> {
    let mut read = Vec::with_capacity(batches.len());
    for (first, last, types) in batches {
        let types = types.iter().map(|code| match Acknowledge::from_code(*code) {
            Some(Acknowledge::Renew) if !may_renew => None,
            other => other,
        });
        let types: Option<Vec<Acknowledge>> = types.collect();
        let invalid = || (ErrorCode::InvalidRequest, Some(Str::from("Invalid acknowledge type.")));
        let types = types.ok_or_else(invalid)?;
        read.push(AcknowledgementBatch { first: *first, last: *last, types });
    }
    Ok(read)
}

/// The code for a share-partition that nothing could be done with.
pub(super) fn live_error(error: &LiveError) -> Refusal {
    let code = match error {
        LiveError::Uninitialized => ErrorCode::UnknownServerError,
        LiveError::Fenced => ErrorCode::NotLeaderOrFollower,
        LiveError::State(_) => ErrorCode::CoordinatorNotAvailable,
        LiveError::Log(error) => errors::read(error),
        LiveError::Refused(AcknowledgeError::InvalidRequest(_)) => ErrorCode::InvalidRequest,
        LiveError::Refused(AcknowledgeError::InvalidRecordState(_)) => {
            ErrorCode::InvalidRecordState
        }
    };
    (code, Some(Str::from(error.to_string())))
}

/// The code for a request that does not fit its session.
pub(super) fn session_error(error: SessionError) -> ErrorCode {
    match error {
        SessionError::NotFound => ErrorCode::ShareSessionNotFound,
        SessionError::WrongEpoch => ErrorCode::InvalidShareSessionEpoch,
        SessionError::LimitReached => ErrorCode::ShareSessionLimitReached,
        SessionError::Invalid => ErrorCode::InvalidRequest,
    }
}

/// Checks who sends a request, and whether it is served at all.
pub(super) fn check_sender(
    context: &Context,
    group: Option<Str>,
    member: Option<Str>,
) -> Result<(Str, Str), ErrorCode> {
    if !errors::has_share_protocol(context) {
        return Err(ErrorCode::UnsupportedVersion);
    }
    let group = group.ok_or(ErrorCode::InvalidRequest)?;
    permission::group(context, AclOperation::Read, &group)?;
    if group.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    let member = member.filter(|id| is_member_id(id)).ok_or(ErrorCode::InvalidRequest)?;
    Ok((group, member))
}
