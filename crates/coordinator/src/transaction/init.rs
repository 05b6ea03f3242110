//! InitProducerId with a transactional id: who the producer is, and who it no longer is.

use fleuve_protocol::Str;
use fleuve_types::ProducerEpoch;

use super::coordinator::TransactionCoordinator;
use super::error::TransactionError;
use super::metadata::{NO_EPOCH, Producer, Transaction, Transition};
use super::state::State;
use super::step::{Response, Step, Then};
use crate::step::{Now, Token};

/// InitProducerId with a transactional id, versions 0 to 5.
#[derive(Clone, Debug)]
pub struct InitRequest {
    /// The transactional id.
    pub transactional_id: Str,
    /// How long transactions may stay open.
    pub timeout_ms: i32,
    /// Who the producer believes to be, if it goes on after an error (version 3 and later).
    pub expected: Option<Producer>,
    /// Whether the client understands `PRODUCER_FENCED` (version 4 and later).
    pub knows_producer_fenced: bool,
}

/// What an InitProducerId leads to.
enum Initialisation {
    /// The producer is who it is told to be as soon as this is stored.
    Store(Transition),
    /// An open transaction has to be aborted first.
    Fence(Transition),
}

impl TransactionCoordinator {
    /// Handles InitProducerId with a transactional id.
    pub fn handle_init_producer_id(
        &mut self,
        now: Now,
        token: Token,
        request: &InitRequest,
    ) -> Step {
        let mut step = Step::default();
        match self.initialise(now, request) {
            Ok(Initialisation::Store(transition)) => {
                let response = Response::InitProducerId(Ok(transition.to.producer));
                let then = Then::Reply { token, response };
                self.write(&request.transactional_id, transition, then, &mut step);
            }
            Ok(Initialisation::Fence(transition)) => {
                // The client tries again and finds the transaction aborted. The epoch that shut
                // out the producer before it is given to nobody.
                let concurrent = Err(TransactionError::ConcurrentTransactions);
                let then =
                    Then::Deliver { reply: Some((token, Response::InitProducerId(concurrent))) };
                self.write(&request.transactional_id, transition, then, &mut step);
            }
            Err(error) => {
                let error = error.for_client(request.knows_producer_fenced);
                step.reply(token, Response::InitProducerId(Err(error)), None);
            }
        }
        step
    }

    fn initialise(
        &self,
        now: Now,
        request: &InitRequest,
    ) -> Result<Initialisation, TransactionError> {
        let id = &request.transactional_id;
        if id.is_empty() {
            return Err(TransactionError::EmptyTransactionalId);
        }
        if !(1..=self.settings.max_timeout_ms).contains(&request.timeout_ms) {
            return Err(TransactionError::InvalidTimeout);
        }
        self.check_serving()?;
        if self.is_pending(id) {
            return Err(TransactionError::ConcurrentTransactions);
        }
        let Some(known) = self.ledger.get(id) else {
            // A producer whose id has expired is given another one, whoever it believes to be.
            let producer_id = self.new_producer_id()?;
            let to = Transaction::first(producer_id, request.timeout_ms, now.wall);
            return Ok(Initialisation::Store(Transition { to, last_epoch: NO_EPOCH }));
        };
        if request.expected.is_some_and(|expected| !may_be(expected, known)) {
            return Err(TransactionError::ProducerFenced);
        }
        match known.state {
            State::Ongoing => self.fenced(now, known).map(Initialisation::Fence),
            State::Empty | State::CompleteCommit | State::CompleteAbort => {
                let (producer, last_epoch) = self.next_producer(id, known, request.expected)?;
                let to = known.initialised(producer, request.timeout_ms, now.wall);
                Ok(Initialisation::Store(Transition { to, last_epoch }))
            }
            State::PrepareCommit | State::PrepareAbort | State::Dead | State::PrepareEpochFence => {
                Err(TransactionError::ConcurrentTransactions)
            }
        }
    }

    /// Who the producer becomes, and which epoch it had before.
    fn next_producer(
        &self,
        id: &Str,
        known: &Transaction,
        expected: Option<Producer>,
    ) -> Result<(Producer, ProducerEpoch), TransactionError> {
        let current = known.producer;
        let last_epoch = self.last_epoch(id);
        let remembered = match expected {
            // A new incarnation; nothing that the one before it sends may pass for a repetition.
            None => NO_EPOCH,
            Some(expected) if expected.epoch == current.epoch => current.epoch,
            // The reply to this very request was lost. Nobody else can have come in between, as
            // that would have forgotten the last epoch. Kafka answers UNKNOWN_SERVER_ERROR if the
            // current epoch is the last one; we see no reason to.
            Some(expected) if expected.epoch == last_epoch => return Ok((current, last_epoch)),
            Some(_) => return Err(TransactionError::ProducerFenced),
        };
        let producer = match current.is_exhausted() {
            true => Producer { id: self.new_producer_id()?, epoch: ProducerEpoch(0) },
            false => current.raised(),
        };
        Ok((producer, remembered))
    }
}

/// Whether a producer may take itself for the one that uses the id, as far as ids tell.
fn may_be(expected: Producer, known: &Transaction) -> bool {
    expected.id == known.producer.id
        // It may not have heard that it was given a new id, its epochs being used up.
        || (expected.id == known.previous_producer_id && expected.is_exhausted())
}
