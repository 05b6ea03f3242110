//! What time does: transactions that are open for too long are aborted, and transactional ids
//! that nobody uses are forgotten.

use fleuve_protocol::Str;
use fleuve_types::ProducerEpoch;

use super::coordinator::TransactionCoordinator;
use super::metadata::NO_EPOCH;
use super::record::Record;
use super::state::State;
use super::step::{Step, Then, Write};
use crate::coordinator::RECORDS_PER_WRITE;
use crate::step::Now;

/// Most bytes of ids in one write of tombstones, so that it fits into every topic's largest batch
/// that the records of the same ids fitted into.
const EXPIRED_ID_BYTES_PER_WRITE: usize = 16 * 1024;

impl TransactionCoordinator {
    pub(crate) fn schedule_abort_check(&mut self, now: Now) {
        let interval_ms = self.settings.abort_timed_out_interval_ms.max(1);
        self.abort_check_ms = Some(now.monotonic_ms.saturating_add(interval_ms));
    }

    pub(crate) fn schedule_expiry_check(&mut self, now: Now) {
        let interval_ms = self.settings.remove_expired_interval_ms.max(1);
        self.expiry_check_ms = Some(now.monotonic_ms.saturating_add(interval_ms));
    }

    /// Aborts the transactions whose time is up, and shuts out their producers.
    pub(crate) fn abort_timed_out(&mut self, now: Now, step: &mut Step) {
        let is_due = |at_ms: i64| at_ms < now.monotonic_ms;
        let due: Vec<Str> = self
            .progress
            .iter()
            .filter(|(_, known)| {
                known.pending.is_none() && known.times_out_at_ms.is_some_and(is_due)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            let Some(known) = self.ledger.get(&id) else { continue };
            if known.state != State::Ongoing {
                continue;
            }
            match self.fenced(now, known) {
                Ok(transition) => {
                    tracing::info!(transactional_id = %id, "transaction timed out and is aborted");
                    self.write(&id, transition, Then::Deliver { reply: None }, step);
                }
                // The next check will try again.
                Err(error) => {
                    tracing::warn!(transactional_id = %id, %error, "timed-out transaction stays");
                }
            }
        }
    }

    /// Removes the transactional ids that have not been used for too long.
    pub(crate) fn expire_ids(&mut self, now: Now, step: &mut Step) {
        let newest = now.wall.0.saturating_sub(self.settings.id_expiration_ms);
        let expired: Vec<Str> = self
            .ledger
            .transactions()
            .filter(|(id, known)| {
                known.state.may_expire()
                    && known.last_update_timestamp.0 <= newest
                    && !self.is_pending(id)
            })
            .map(|(id, _)| id.clone())
            .collect();
        let mut records = Vec::new();
        let mut bytes = 0;
        for id in expired {
            if records.len() == RECORDS_PER_WRITE
                || (bytes + id.len() > EXPIRED_ID_BYTES_PER_WRITE && !records.is_empty())
            {
                step.writes.push(tombstones(std::mem::take(&mut records)));
                bytes = 0;
            }
            bytes += id.len();
            self.progress.entry(id.clone()).or_default().pending = Some(State::Dead);
            records.push(Record::tombstone(id));
        }
        if !records.is_empty() {
            step.writes.push(tombstones(records));
        }
    }

    /// The epoch before the last raise.
    pub(crate) fn last_epoch(&self, id: &str) -> ProducerEpoch {
        self.progress.get(id).map_or(NO_EPOCH, |progress| progress.last_epoch)
    }
}

fn tombstones(records: Vec<Record>) -> Write {
    Write { records, last_epoch: NO_EPOCH, then: Then::Expire }
}
