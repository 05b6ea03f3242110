//! EndTxn, and the two other ways in which a transaction's end is decided: a new producer shuts
//! out the old one, and a transaction has been open for too long.
//!
//! In version 2 (KIP-890) the end raises the producer's epoch, so that a repeated request names
//! the epoch before the current one:
//!
//! | state | abort, repeated | abort | commit, repeated | commit |
//! |---|---|---|---|---|
//! | Empty | fenced | aborts | fenced | invalid |
//! | CompleteAbort | answered again | aborts | invalid | invalid |
//! | CompleteCommit | invalid | aborts | answered again | invalid |
//!
//! In versions 0 and 1 it names the same epoch, must want the same as the first one, and an end
//! without a beginning is invalid.

use fleuve_protocol::Str;
use fleuve_types::ProducerId;

use super::coordinator::TransactionCoordinator;
use super::error::TransactionError;
use super::metadata::{LAST_CLIENT_EPOCH, NO_EPOCH, Producer, Transaction, Transition};
use super::state::{Decision, State, TransactionVersion};
use super::step::{Response, Step, Then};
use crate::step::{Now, Token};

/// EndTxn.
#[derive(Clone, Debug)]
pub struct EndRequest {
    /// The transactional id.
    pub transactional_id: Str,
    /// Who asks.
    pub producer: Producer,
    /// How the transaction shall end.
    pub decision: Decision,
    /// What the client speaks: version 2 from EndTxn version 5 on, otherwise version 0.
    pub client_version: TransactionVersion,
    /// Whether the client understands `PRODUCER_FENCED` (version 2 and later).
    pub knows_producer_fenced: bool,
}

/// What an EndTxn leads to.
enum End {
    /// The decision is to be stored.
    Decide(Transition),
    /// All is done already; this is the answer that got lost.
    Repeated(Option<Producer>),
}

impl TransactionCoordinator {
    /// Handles EndTxn. The answer comes when the decision is durable; markers follow.
    pub fn handle_end_transaction(&mut self, now: Now, token: Token, request: &EndRequest) -> Step {
        let mut step = Step::default();
        let id = &request.transactional_id;
        let outcome = match request.client_version.bumps_epoch() {
            true => self.end_with_epoch_bump(now, request),
            false => self.end_without_epoch_bump(now, request),
        };
        match outcome {
            Ok(End::Decide(transition)) => {
                // Who the producer will be when all is done.
                let stored = transition.to.clone().stored_in(self.settings.cluster_version);
                let done = stored.completed(request.decision, now.wall).producer;
                let producer = request.client_version.bumps_epoch().then_some(done);
                let response = Response::EndTransaction(Ok(producer));
                let then = Then::Deliver { reply: Some((token, response)) };
                self.write(id, transition, then, &mut step);
            }
            Ok(End::Repeated(producer)) => {
                let response = Response::EndTransaction(Ok(producer));
                step.reply(token, response, self.stored_end(id));
            }
            Err(error) => {
                let error = error.for_client(request.knows_producer_fenced);
                step.reply(token, Response::EndTransaction(Err(error)), None);
            }
        }
        step
    }

    /// The abort that shuts out the producer of an open transaction.
    ///
    /// The epoch is raised by the record alone. Kafka's version 0 raises it in memory first and
    /// remembers if that could not be stored; its version 2 does as we do.
    pub(crate) fn fenced(
        &self,
        now: Now,
        known: &Transaction,
    ) -> Result<Transition, TransactionError> {
        let cluster = self.settings.cluster_version;
        if cluster.bumps_epoch() {
            return self.decide(now, known, Decision::Abort);
        }
        let raised = Transaction { producer: known.producer.raised(), ..known.clone() };
        let (version, next) = (TransactionVersion::V0, ProducerId::NONE);
        let to = raised.decided(Decision::Abort, version, next, now.wall);
        Ok(Transition { to, last_epoch: NO_EPOCH })
    }

    /// EndTxn of versions 0 to 4.
    fn end_without_epoch_bump(
        &self,
        now: Now,
        request: &EndRequest,
    ) -> Result<End, TransactionError> {
        let id = &request.transactional_id;
        let known = self.known(id)?;
        if known.producer.id != request.producer.id {
            return Err(TransactionError::InvalidProducerIdMapping);
        }
        if known.producer.epoch != request.producer.epoch {
            return Err(TransactionError::ProducerFenced);
        }
        if self.is_pending(id) {
            return Err(TransactionError::ConcurrentTransactions);
        }
        if known.state == State::Ongoing {
            let next = ProducerId::NONE;
            let to = known.decided(request.decision, TransactionVersion::V0, next, now.wall);
            return Ok(End::Decide(Transition { to, last_epoch: self.last_epoch(id) }));
        }
        if known.state == request.decision.completed() {
            return Ok(End::Repeated(None));
        }
        Err(unfinished_or_invalid(known.state, request.decision))
    }

    /// EndTxn from version 5 on.
    fn end_with_epoch_bump(&self, now: Now, request: &EndRequest) -> Result<End, TransactionError> {
        let id = &request.transactional_id;
        let known = self.known(id)?;
        let (asking, current) = (request.producer, known.producer);
        // Only what version 2 has ended tells by its epoch who ended it. Kafka does not ask, and so
        // takes a producer that was shut out for the one of version 0 that came after it.
        let may_repeat = known.client_version.bumps_epoch();
        // The answer to the first request was lost, and with it the new epoch, ...
        let is_after_bump =
            may_repeat && i32::from(current.epoch.0) == i32::from(asking.epoch.0) + 1;
        // ... or even the new producer id.
        let is_after_replacement = may_repeat
            && known.previous_producer_id == asking.id
            && current.id != asking.id
            && asking.epoch == LAST_CLIENT_EPOCH
            && current.epoch.0 == 0;
        // This comes first: while a producer id is replaced, the client may have heard of the new
        // one already.
        if self.is_pending(id) {
            return Err(TransactionError::ConcurrentTransactions);
        }
        if current.id != asking.id && !is_after_replacement {
            return Err(TransactionError::InvalidProducerIdMapping);
        }
        let is_repeated = is_after_bump || is_after_replacement;
        let is_valid = match known.state {
            State::PrepareCommit | State::PrepareAbort => is_after_bump,
            State::CompleteCommit | State::CompleteAbort => {
                is_repeated || asking.epoch == current.epoch
            }
            State::Empty | State::Ongoing | State::Dead | State::PrepareEpochFence => {
                asking.epoch == current.epoch
            }
        };
        if !is_valid {
            return Err(TransactionError::ProducerFenced);
        }
        let decision = request.decision;
        match known.state {
            State::Ongoing => self.decide(now, known, decision).map(End::Decide),
            State::CompleteCommit | State::CompleteAbort if is_repeated => {
                match known.state == decision.completed() {
                    true => Ok(End::Repeated(Some(current))),
                    false => Err(TransactionError::InvalidState),
                }
            }
            State::Empty | State::CompleteCommit | State::CompleteAbort
                if decision == Decision::Abort =>
            {
                self.decide(now, known, Decision::Abort).map(End::Decide)
            }
            state => Err(unfinished_or_invalid(state, decision)),
        }
    }

    /// The change that decides a transaction's end by version 2.
    fn decide(
        &self,
        now: Now,
        known: &Transaction,
        decision: Decision,
    ) -> Result<Transition, TransactionError> {
        let next_producer_id = match known.producer.is_exhausted() {
            true => self.new_producer_id()?,
            false => ProducerId::NONE,
        };
        let to = known.decided(decision, TransactionVersion::V2, next_producer_id, now.wall);
        Ok(Transition { to, last_epoch: known.producer.epoch })
    }
}

/// What to say to an end that does not fit the state.
fn unfinished_or_invalid(state: State, decision: Decision) -> TransactionError {
    match state == decision.prepared() {
        true => TransactionError::ConcurrentTransactions,
        false => TransactionError::InvalidState,
    }
}
