//! All producers of a log, and which of their transactions are open.
//!
//! A change is staged first and committed after the append succeeded, so that a full disk leaves no
//! sequence behind that was never written.

use std::collections::{BTreeMap, HashMap};

use fleuve_protocol::records::EndTransactionMarker;
use fleuve_types::{Offset, ProducerEpoch, ProducerId, TimestampMs};

use super::entry::{ProducerBatch, ProducerEntry, ProducerView, RecordedBatch, Strictness};
use crate::error::AppendError;

/// The producers of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProducerState {
    producers: HashMap<i64, ProducerEntry>,
    /// First offset of each open transaction, with its producer.
    transactions: BTreeMap<i64, i64>,
}

/// Changes not yet committed: the producers concerned, as they will be.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    producers: Vec<(i64, ProducerEntry)>,
}

impl ProducerState {
    /// Takes the content of a snapshot, without producers that have been idle too long.
    pub(crate) fn from_snapshot(
        producers: HashMap<i64, ProducerEntry>,
        now_ms: i64,
        expiration_ms: i64,
    ) -> Self {
        let mut state = Self { producers, transactions: BTreeMap::new() };
        state.expire(now_ms, expiration_ms);
        for (id, entry) in &state.producers {
            if let Some(begin) = entry.transaction_begin {
                state.transactions.insert(begin, *id);
            }
        }
        state
    }

    pub(crate) fn producers(&self) -> &HashMap<i64, ProducerEntry> {
        &self.producers
    }

    /// Returns the remembered batch that `batch` repeats.
    pub(crate) fn duplicate_of(&self, batch: &ProducerBatch) -> Option<RecordedBatch> {
        self.producers.get(&batch.producer_id)?.duplicate_of(batch)
    }

    /// Stages a batch: of records, or the marker that ends a transaction.
    pub(crate) fn stage(
        &self,
        staged: &mut Staged,
        batch: &ProducerBatch,
        marker: Option<EndTransactionMarker>,
        strictness: Strictness,
    ) -> Result<(), AppendError> {
        let index = match staged.producers.iter().position(|(id, _)| *id == batch.producer_id) {
            Some(index) => index,
            None => {
                let known = self.producers.get(&batch.producer_id).cloned().unwrap_or_default();
                staged.producers.push((batch.producer_id, known));
                staged.producers.len() - 1
            }
        };
        let entry = &mut staged.producers[index].1;
        match marker {
            None => entry.add(batch, strictness),
            Some(marker) => entry.end_transaction(batch, marker, strictness),
        }
    }

    /// Makes the staged changes hold.
    pub(crate) fn commit(&mut self, staged: Staged) {
        for (id, entry) in staged.producers {
            let begin = entry.transaction_begin;
            let before = self.producers.insert(id, entry).and_then(|entry| entry.transaction_begin);
            if before != begin {
                before.map(|begin| self.transactions.remove(&begin));
                begin.map(|begin| self.transactions.insert(begin, id));
            }
        }
    }

    /// Enters a batch found in the log.
    pub(crate) fn replay(&mut self, batch: &ProducerBatch, marker: Option<EndTransactionMarker>) {
        let mut staged = Staged::default();
        if self.stage(&mut staged, batch, marker, Strictness::Nothing).is_ok() {
            self.commit(staged);
        }
    }

    /// Returns the first offset of the oldest open transaction.
    pub(crate) fn first_unstable_offset(&self) -> Option<i64> {
        self.transactions.first_key_value().map(|(begin, _)| *begin)
    }

    /// Forgets producers that were idle for `expiration_ms` and have no open transaction.
    pub(crate) fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.producers.retain(|_, entry| {
            entry.transaction_begin.is_some()
                || now_ms.saturating_sub(entry.last_timestamp) < expiration_ms
        });
    }

    pub(crate) fn views(&self) -> impl Iterator<Item = ProducerView> + '_ {
        self.producers.iter().map(|(id, entry)| ProducerView {
            producer_id: ProducerId(*id),
            producer_epoch: ProducerEpoch(entry.epoch),
            last_sequence: entry.last_sequence(),
            last_timestamp: TimestampMs(entry.last_timestamp),
            coordinator_epoch: entry.coordinator_epoch,
            transaction_begin: entry.transaction_begin.map(Offset),
        })
    }
}
