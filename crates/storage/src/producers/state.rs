//! All producers of a log, and which of their transactions are open.
//!
//! A transaction that has ended keeps counting as open until its marker is below the high watermark:
//! before that a consumer could be shown records whose fate may still be taken back.
//!
//! A change is staged first and committed after the append succeeded, so that a full disk leaves no
//! sequence behind that was never written.

use std::collections::{BTreeMap, HashMap};

use fleuve_protocol::records::EndTransactionMarker;
use fleuve_types::{Offset, ProducerEpoch, ProducerId, TimestampMs};

use super::entry::{
    CompletedTransaction, EpochRule, ProducerBatch, ProducerEntry, ProducerView, RecordedBatch,
    Strictness,
};
use crate::error::AppendError;
use crate::segment::AbortedTransaction;

/// The producers of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProducerState {
    producers: HashMap<i64, ProducerEntry>,
    /// First offset of each open transaction, with its producer.
    transactions: BTreeMap<i64, i64>,
    /// First offset of each transaction that has ended, with the offset of its marker, as long as
    /// that is not below the high watermark.
    undecided: BTreeMap<i64, i64>,
}

/// Changes not yet committed: the producers concerned, as they will be.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    producers: Vec<(i64, ProducerEntry)>,
    completed: Vec<CompletedTransaction>,
}

impl ProducerState {
    /// Takes the content of a snapshot, without producers that have been idle too long.
    pub(crate) fn from_snapshot(
        producers: HashMap<i64, ProducerEntry>,
        now_ms: i64,
        expiration_ms: i64,
    ) -> Self {
        let mut state = Self { producers, ..Self::default() };
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
        marker: Option<(EndTransactionMarker, EpochRule)>,
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
            None => entry.add(batch, strictness)?,
            Some((marker, rule)) => {
                let completed = entry.end_transaction(batch, marker, rule, strictness)?;
                staged.completed.extend(completed);
            }
        }
        Ok(())
    }

    /// Makes the staged changes hold, and returns the transactions that were aborted by them.
    pub(crate) fn commit(&mut self, staged: Staged) -> Vec<AbortedTransaction> {
        for completed in &staged.completed {
            self.undecided.insert(completed.first_offset, completed.marker_offset);
        }
        for (id, entry) in staged.producers {
            let begin = entry.transaction_begin;
            let before = self.producers.insert(id, entry).and_then(|entry| entry.transaction_begin);
            if before != begin {
                before.map(|begin| self.transactions.remove(&begin));
                begin.map(|begin| self.transactions.insert(begin, id));
            }
        }
        let aborted = staged.completed.iter().filter(|completed| !completed.committed);
        aborted.map(|completed| self.index_entry(completed)).collect()
    }

    /// Enters a batch found in the log, and returns the transaction that it aborts.
    pub(crate) fn replay(
        &mut self,
        batch: &ProducerBatch,
        marker: Option<EndTransactionMarker>,
    ) -> Option<AbortedTransaction> {
        let mut staged = Staged::default();
        let marker = marker.map(|marker| (marker, EpochRule::NotBelow));
        self.stage(&mut staged, batch, marker, Strictness::Nothing).ok()?;
        self.commit(staged).pop()
    }

    /// Checks that no later epoch of a batch's producer is known.
    pub(crate) fn check_epoch(&self, batch: &ProducerBatch) -> Result<(), AppendError> {
        let known = self.producers.get(&batch.producer_id);
        known.map_or(Ok(()), |known| known.check_epoch(batch.producer_id, batch.epoch))
    }

    /// Reports whether a producer has a transaction open in this epoch.
    pub(crate) fn has_open_transaction(&self, producer_id: i64, epoch: i16) -> bool {
        let known = self.producers.get(&producer_id);
        known.is_some_and(|known| known.transaction_begin.is_some() && known.epoch == epoch)
    }

    /// Reports whether batches of a producer are remembered.
    pub(crate) fn has_batches(&self, producer_id: i64) -> bool {
        self.producers.get(&producer_id).is_some_and(|known| !known.batches.is_empty())
    }

    /// Returns the first offset of the oldest transaction that is open, or ended by a marker that
    /// is not below the high watermark.
    pub(crate) fn first_unstable_offset(&self) -> Option<i64> {
        let first = |transactions: &BTreeMap<i64, i64>| transactions.keys().next().copied();
        let (open, undecided) = (first(&self.transactions), first(&self.undecided));
        open.into_iter().chain(undecided).min()
    }

    /// Takes note of the high watermark, and reports whether that has decided a transaction.
    pub(crate) fn note_high_watermark(&mut self, high_watermark: i64) -> bool {
        let before = self.undecided.len();
        self.undecided.retain(|_, marker_offset| *marker_offset >= high_watermark);
        self.undecided.len() < before
    }

    fn index_entry(&self, aborted: &CompletedTransaction) -> AbortedTransaction {
        let last_stable_offset =
            self.transactions.keys().next().copied().unwrap_or(aborted.marker_offset + 1);
        AbortedTransaction {
            producer_id: ProducerId(aborted.producer_id),
            first_offset: Offset(aborted.first_offset),
            last_offset: Offset(aborted.marker_offset),
            last_stable_offset: Offset(last_stable_offset),
        }
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
