//! AddPartitionsToTxn and AddOffsetsToTxn: what belongs to a transaction, and whether it does.
//!
//! AddOffsetsToTxn adds the partition of `__consumer_offsets` that has the group's offsets.

use fleuve_protocol::Str;
use fleuve_types::TopicPartition;

use super::coordinator::TransactionCoordinator;
use super::error::TransactionError;
use super::metadata::{Producer, Transaction, Transition};
use super::state::{State, TransactionVersion};
use super::step::{Response, Step, Then};
use crate::step::{Now, Token};

/// One transaction of AddPartitionsToTxn, or AddOffsetsToTxn.
#[derive(Clone, Debug)]
pub struct AddPartitionsRequest {
    /// The transactional id.
    pub transactional_id: Str,
    /// Who asks.
    pub producer: Producer,
    /// The partitions.
    pub partitions: Vec<TopicPartition>,
    /// What the client speaks: version 2 if the partition's leader asks for it (AddPartitionsToTxn
    /// version 5), otherwise version 0.
    pub client_version: TransactionVersion,
    /// Whether the client understands `PRODUCER_FENCED` (version 2 and later).
    pub knows_producer_fenced: bool,
}

/// One transaction of an AddPartitionsToTxn that only verifies.
#[derive(Clone, Debug)]
pub struct VerifyPartitionsRequest {
    /// The transactional id.
    pub transactional_id: Str,
    /// Who writes.
    pub producer: Producer,
    /// The partitions to look for.
    pub partitions: Vec<TopicPartition>,
}

impl TransactionCoordinator {
    /// Handles AddPartitionsToTxn for one transaction, and AddOffsetsToTxn.
    ///
    /// The next transaction usually begins while the markers of the last one are being written.
    /// Rather than have the client come back later, the request waits for a while.
    pub fn handle_add_partitions(
        &mut self,
        now: Now,
        token: Token,
        request: &AddPartitionsRequest,
    ) -> Step {
        let mut step = Step::default();
        let is_pending = self.is_pending(&request.transactional_id);
        if !is_pending || !self.wait(now, token, request) {
            self.try_add_partitions(now, token, request, &mut step);
        }
        step
    }

    /// Adds the partitions, or says why not.
    pub(crate) fn try_add_partitions(
        &mut self,
        now: Now,
        token: Token,
        request: &AddPartitionsRequest,
        step: &mut Step,
    ) {
        let id = &request.transactional_id;
        match self.add_partitions(now, request) {
            Ok(Some(transition)) => {
                let then = Then::Reply { token, response: Response::AddPartitions(Ok(())) };
                self.write(id, transition, then, step);
            }
            Ok(None) => {
                step.reply(token, Response::AddPartitions(Ok(())), self.stored_end(id));
            }
            Err(error) => {
                let error = error.for_client(request.knows_producer_fenced);
                step.reply(token, Response::AddPartitions(Err(error)), None);
            }
        }
    }

    /// Handles AddPartitionsToTxn for one transaction whose partitions are only to be verified.
    pub fn handle_verify_partitions(
        &self,
        token: Token,
        request: &VerifyPartitionsRequest,
    ) -> Step {
        let mut step = Step::default();
        let outcome = self.verify(&request.transactional_id, request.producer).map(|known| {
            let is_part = |asked: &TopicPartition| known.partitions.contains(asked);
            request.partitions.iter().map(|asked| (asked.clone(), is_part(asked))).collect()
        });
        // What is found may still get lost; then nothing must have been written on its strength.
        let after = outcome.is_ok().then(|| self.stored_end(&request.transactional_id)).flatten();
        step.reply(token, Response::VerifyPartitions(outcome), after);
        step
    }

    /// The change that adds the partitions; none if all of them are there.
    fn add_partitions(
        &self,
        now: Now,
        request: &AddPartitionsRequest,
    ) -> Result<Option<Transition>, TransactionError> {
        let id = &request.transactional_id;
        let known = self.known(id)?;
        // This comes before the producer is looked at: while a producer id is replaced, the client
        // may have heard of the new one already.
        if self.is_pending(id) {
            return Err(TransactionError::ConcurrentTransactions);
        }
        check_producer(known, request.producer)?;
        check_open(known.state)?;
        let is_part = |asked: &TopicPartition| known.partitions.contains(asked);
        if known.state == State::Ongoing && request.partitions.iter().all(is_part) {
            return Ok(None);
        }
        let to = known.extended(&request.partitions, request.client_version, now.wall);
        Ok(Some(Transition { to, last_epoch: self.last_epoch(id) }))
    }

    /// The transaction that the producer writes in. A change under way does not matter: whoever
    /// verifies appends afterwards, and that is checked again.
    fn verify(&self, id: &str, producer: Producer) -> Result<&Transaction, TransactionError> {
        let known = self.known(id)?;
        check_producer(known, producer)?;
        check_open(known.state)?;
        Ok(known)
    }
}

fn check_producer(known: &Transaction, producer: Producer) -> Result<(), TransactionError> {
    if known.producer.id != producer.id {
        return Err(TransactionError::InvalidProducerIdMapping);
    }
    if known.producer.epoch != producer.epoch {
        return Err(TransactionError::ProducerFenced);
    }
    Ok(())
}

fn check_open(state: State) -> Result<(), TransactionError> {
    match state.decision() {
        Some(_) => Err(TransactionError::ConcurrentTransactions),
        None => Ok(()),
    }
}
