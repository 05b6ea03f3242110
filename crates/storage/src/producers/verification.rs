//! Transactions that are about to begin in a log, before their first batch (KIP-890).
//!
//! Whoever wants to append a transactional batch of a producer without an open transaction begins a
//! verification here, asks the coordinator, and appends with the guard it was given. A marker that
//! is appended in between takes the guard away: what the coordinator said was about the transaction
//! that has just ended.

use std::collections::HashMap;

use crate::error::AppendError;

use super::entry::ProducerBatch;

/// Names one verification; the append that it was made for has to bring it along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerificationGuard(u64);

/// Whether transactional batches must belong to a transaction that the coordinator knows of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransactionCheck {
    /// The caller knows better.
    #[default]
    Waived,
    /// They continue an open transaction, or begin one with this guard.
    Required(Option<VerificationGuard>),
}

/// Verifications under way, by producer.
#[derive(Debug, Default)]
pub(crate) struct Verifications {
    under_way: HashMap<i64, Verification>,
    last_guard: u64,
}

#[derive(Debug)]
struct Verification {
    guard: VerificationGuard,
    epoch: i16,
    /// The lowest sequence that anybody wanted to begin with: nothing may overtake it.
    lowest_sequence: i32,
    /// Whether the producer's epoch grows with each transaction (version 2 of the protocol).
    bumps_epoch: bool,
    begun_ms: i64,
}

impl Verifications {
    /// Begins a verification, or joins the one under way.
    pub(crate) fn begin(
        &mut self,
        producer_id: i64,
        epoch: i16,
        sequence: i32,
        bumps_epoch: bool,
        now_ms: i64,
    ) -> VerificationGuard {
        let last_guard = &mut self.last_guard;
        let verification = self.under_way.entry(producer_id).or_insert_with(|| {
            *last_guard += 1;
            let guard = VerificationGuard(*last_guard);
            Verification { guard, epoch, lowest_sequence: sequence, bumps_epoch, begun_ms: now_ms }
        });
        if epoch > verification.epoch {
            verification.epoch = epoch;
            verification.lowest_sequence = sequence;
            verification.bumps_epoch = bumps_epoch;
        } else if epoch == verification.epoch {
            verification.lowest_sequence = verification.lowest_sequence.min(sequence);
        }
        verification.guard
    }

    /// Says whether `batch` may begin a transaction with `guard`.
    pub(crate) fn check(
        &self,
        batch: &ProducerBatch,
        guard: Option<VerificationGuard>,
    ) -> Result<(), AppendError> {
        let verification = self.under_way.get(&batch.producer_id);
        let is_verified = verification.is_some_and(|known| Some(known.guard) == guard);
        match is_verified {
            true => Ok(()),
            false => Err(AppendError::NotInTransaction { producer_id: batch.producer_id.into() }),
        }
    }

    /// Says whether a client's batch may come first, as far as sequences tell.
    pub(crate) fn check_sequence(
        &self,
        batch: &ProducerBatch,
        has_batches: bool,
    ) -> Result<(), AppendError> {
        let Some(verification) = self.under_way.get(&batch.producer_id) else { return Ok(()) };
        let is_first = !verification.bumps_epoch || batch.first_sequence == 0 || has_batches;
        if is_first && batch.first_sequence <= verification.lowest_sequence {
            return Ok(());
        }
        Err(AppendError::OutOfOrderSequence {
            producer_id: batch.producer_id.into(),
            producer_epoch: batch.epoch.into(),
            sequence: batch.first_sequence,
            last_sequence: -1,
        })
    }

    /// Ends the verification of a producer, whose transaction has begun or ended.
    pub(crate) fn end(&mut self, producer_id: i64) {
        // Nearly always there is none.
        if !self.under_way.is_empty() {
            self.under_way.remove(&producer_id);
        }
    }

    /// Forgets verifications that were never followed by a batch.
    pub(crate) fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.under_way.retain(|_, known| now_ms.saturating_sub(known.begun_ms) < expiration_ms);
    }
}
