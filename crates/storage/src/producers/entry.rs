//! One producer: its epoch, its last five batches, its open transaction.
//!
//! The rules are Kafka's (`ProducerAppendInfo`, `ProducerStateEntry`), because clients rely on each
//! of them:
//!
//! - An epoch below the known one is refused.
//! - Within an epoch a batch must begin with the sequence after the last one; sequences wrap from
//!   `i32::MAX` to 0.
//! - A new epoch must begin with sequence 0.
//! - A producer that the log knows nothing of may begin with any sequence: what was known may have
//!   been deleted with the records, and refusing would stop the producer for ever.
//! - A batch whose epoch, first and last sequence equal one of the last five is a duplicate.

use std::collections::VecDeque;

use fleuve_protocol::records::{BatchHeader, EndTransactionMarker};
use fleuve_types::{Offset, ProducerEpoch, ProducerId, TimestampMs};

use crate::error::AppendError;

/// How many batches of a producer are remembered: as many as a client may have in flight.
const BATCHES_MAX: usize = 5;

const NO_EPOCH: i16 = -1;
const NO_SEQUENCE: i32 = -1;

/// A batch as the producer rules see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProducerBatch {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) first_sequence: i32,
    pub(crate) last_sequence: i32,
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) is_transactional: bool,
}

impl ProducerBatch {
    /// Takes what matters from a header whose offsets are those in the log.
    pub(crate) fn of(header: &BatchHeader) -> Self {
        Self {
            producer_id: header.producer_id.0,
            epoch: header.producer_epoch.0,
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset: header.base_offset.0,
            last_offset: header.last_offset().0,
            max_timestamp: header.max_timestamp.0,
            is_transactional: header.attributes.is_transactional(),
        }
    }
}

/// How closely a batch is examined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// Epoch and sequence: the batch comes from a client.
    EpochAndSequence,
    /// The epoch: the batch comes from a coordinator in this process.
    Epoch,
    /// Nothing: the batch has been accepted before, by the leader or by ourselves.
    Nothing,
}

/// How the epoch of a marker must compare with that of its producer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum EpochRule {
    /// It is no lower: the marker carries the epoch of the records.
    #[default]
    NotBelow,
    /// It is above: version 2 of the protocol raises the epoch with each transaction, so that a
    /// late marker cannot end the next one. Only a marker of a transaction that has ended already
    /// may be repeated, and a transaction in the largest epoch, which should not have been begun,
    /// may be ended in it, because it could never be otherwise.
    Above,
}

/// A transaction that a marker has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CompletedTransaction {
    pub(crate) producer_id: i64,
    pub(crate) first_offset: i64,
    pub(crate) marker_offset: i64,
    pub(crate) committed: bool,
}

/// A batch that a producer's entry remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordedBatch {
    pub(crate) last_sequence: i32,
    pub(crate) last_offset: i64,
    pub(crate) offset_delta: i32,
    pub(crate) timestamp: i64,
}

impl RecordedBatch {
    pub(crate) fn first_sequence(&self) -> i32 {
        if self.last_sequence < 0 {
            return NO_SEQUENCE;
        }
        // Sequences count modulo 2^31, which is what the mask takes.
        self.last_sequence.wrapping_sub(self.offset_delta) & i32::MAX
    }

    pub(crate) fn first_offset(&self) -> i64 {
        self.last_offset.saturating_sub(i64::from(self.offset_delta))
    }
}

/// What a log knows of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProducerEntry {
    pub(crate) epoch: i16,
    pub(crate) coordinator_epoch: i32,
    pub(crate) last_timestamp: i64,
    pub(crate) transaction_begin: Option<i64>,
    pub(crate) batches: VecDeque<RecordedBatch>,
}

impl Default for ProducerEntry {
    fn default() -> Self {
        Self {
            epoch: NO_EPOCH,
            coordinator_epoch: -1,
            last_timestamp: -1,
            transaction_begin: None,
            batches: VecDeque::new(),
        }
    }
}

impl ProducerEntry {
    pub(crate) fn last_sequence(&self) -> i32 {
        self.batches.back().map_or(NO_SEQUENCE, |batch| batch.last_sequence)
    }

    /// Returns the remembered batch that `batch` repeats.
    pub(crate) fn duplicate_of(&self, batch: &ProducerBatch) -> Option<RecordedBatch> {
        if batch.epoch != self.epoch {
            return None;
        }
        self.batches.iter().copied().find(|known| {
            known.last_sequence == batch.last_sequence
                && known.first_sequence() == batch.first_sequence
        })
    }

    /// Examines a batch of records and enters it.
    pub(crate) fn add(
        &mut self,
        batch: &ProducerBatch,
        strictness: Strictness,
    ) -> Result<(), AppendError> {
        if strictness != Strictness::Nothing {
            self.check_epoch(batch.producer_id, batch.epoch)?;
        }
        if strictness == Strictness::EpochAndSequence {
            self.check_sequence(batch)?;
        }
        if self.transaction_begin.is_some()
            && !batch.is_transactional
            && strictness != Strictness::Nothing
        {
            let producer_id = ProducerId(batch.producer_id);
            return Err(AppendError::InvalidTransactionState { producer_id });
        }
        self.enter_epoch(batch.epoch);
        if self.batches.len() == BATCHES_MAX {
            self.batches.pop_front();
        }
        self.batches.push_back(RecordedBatch {
            last_sequence: batch.last_sequence,
            last_offset: batch.last_offset,
            offset_delta: (batch.last_offset - batch.base_offset) as i32,
            timestamp: batch.max_timestamp,
        });
        self.last_timestamp = batch.max_timestamp;
        if batch.is_transactional && self.transaction_begin.is_none() {
            self.transaction_begin = Some(batch.base_offset);
        }
        Ok(())
    }

    /// Examines the marker that ends a transaction and enters it; returns the transaction, unless
    /// there was none.
    pub(crate) fn end_transaction(
        &mut self,
        batch: &ProducerBatch,
        marker: EndTransactionMarker,
        rule: EpochRule,
        strictness: Strictness,
    ) -> Result<Option<CompletedTransaction>, AppendError> {
        if strictness != Strictness::Nothing {
            self.check_epoch(batch.producer_id, batch.epoch)?;
            let is_late = rule == EpochRule::Above
                && batch.epoch == self.epoch
                && batch.epoch != i16::MAX
                && self.transaction_begin.is_some();
            if is_late {
                return Err(self.invalid_epoch(batch.producer_id, batch.epoch));
            }
            if self.coordinator_epoch > marker.coordinator_epoch {
                return Err(AppendError::TransactionCoordinatorFenced {
                    coordinator_epoch: marker.coordinator_epoch,
                    current: self.coordinator_epoch,
                });
            }
        }
        self.enter_epoch(batch.epoch);
        self.coordinator_epoch = marker.coordinator_epoch;
        self.last_timestamp = batch.max_timestamp;
        Ok(self.transaction_begin.take().map(|first_offset| CompletedTransaction {
            producer_id: batch.producer_id,
            first_offset,
            marker_offset: batch.base_offset,
            committed: marker.committed,
        }))
    }

    fn enter_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.batches.clear();
        }
    }

    /// Checks that no later epoch of the producer is known.
    pub(crate) fn check_epoch(&self, producer_id: i64, epoch: i16) -> Result<(), AppendError> {
        if epoch >= self.epoch { Ok(()) } else { Err(self.invalid_epoch(producer_id, epoch)) }
    }

    fn invalid_epoch(&self, producer_id: i64, epoch: i16) -> AppendError {
        AppendError::InvalidProducerEpoch {
            producer_id: ProducerId(producer_id),
            producer_epoch: ProducerEpoch(epoch),
            current: ProducerEpoch(self.epoch),
        }
    }

    fn check_sequence(&self, batch: &ProducerBatch) -> Result<(), AppendError> {
        let last_sequence = self.last_sequence();
        let in_order = if self.epoch == NO_EPOCH {
            true
        } else if batch.epoch != self.epoch {
            batch.first_sequence == 0
        } else {
            i64::from(batch.first_sequence) == i64::from(last_sequence) + 1
                || (batch.first_sequence == 0 && last_sequence == i32::MAX)
        };
        if in_order {
            return Ok(());
        }
        Err(AppendError::OutOfOrderSequence {
            producer_id: ProducerId(batch.producer_id),
            producer_epoch: ProducerEpoch(batch.epoch),
            sequence: batch.first_sequence,
            last_sequence,
        })
    }
}

/// What DescribeProducers tells of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerView {
    /// The producer.
    pub producer_id: ProducerId,
    /// Its latest epoch.
    pub producer_epoch: ProducerEpoch,
    /// The last sequence it sent, −1 for none.
    pub last_sequence: i32,
    /// The time of its last batch.
    pub last_timestamp: TimestampMs,
    /// The epoch of the coordinator that ended its last transaction, −1 for none.
    pub coordinator_epoch: i32,
    /// Where its open transaction began.
    pub transaction_begin: Option<Offset>,
}

#[cfg(test)]
mod tests {
    use fleuve_protocol::records::sequence_plus;

    use super::*;

    fn batch(epoch: i16, first_sequence: i32, count: i32, base_offset: i64) -> ProducerBatch {
        ProducerBatch {
            producer_id: 7,
            epoch,
            first_sequence,
            last_sequence: sequence_plus(first_sequence, count - 1),
            base_offset,
            last_offset: base_offset + i64::from(count) - 1,
            max_timestamp: 1,
            is_transactional: false,
        }
    }

    fn add(entry: &mut ProducerEntry, batch: ProducerBatch) -> Result<(), AppendError> {
        entry.add(&batch, Strictness::EpochAndSequence)
    }

    #[test]
    fn sequences_continue_within_an_epoch_and_begin_anew_with_the_next() {
        let mut entry = ProducerEntry::default();
        add(&mut entry, batch(3, 41, 2, 0)).expect("an unknown producer begins anywhere");
        let gap = add(&mut entry, batch(3, 44, 1, 2));
        assert!(matches!(
            gap,
            Err(AppendError::OutOfOrderSequence { sequence: 44, last_sequence: 42, .. })
        ));
        assert!(add(&mut entry, batch(3, 42, 1, 2)).is_err());
        add(&mut entry, batch(3, 43, 1, 2)).unwrap();
        assert!(add(&mut entry, batch(4, 44, 1, 3)).is_err(), "a new epoch begins with 0");
        add(&mut entry, batch(4, 0, 1, 3)).unwrap();
        let old = add(&mut entry, batch(3, 44, 1, 4));
        assert!(
            matches!(old, Err(AppendError::InvalidProducerEpoch { current, .. }) if current.0 == 4)
        );
    }

    #[test]
    fn sequences_wrap() {
        let mut entry = ProducerEntry::default();
        add(&mut entry, batch(0, i32::MAX - 1, 4, 0)).unwrap();
        assert_eq!(entry.last_sequence(), 1);
        assert_eq!(entry.batches[0].first_sequence(), i32::MAX - 1);
        add(&mut entry, batch(0, 2, i32::MAX - 1, 4)).unwrap();
        assert_eq!(entry.last_sequence(), i32::MAX);
        assert_eq!(entry.batches[1].first_sequence(), 2);
        add(&mut entry, batch(0, 0, 1, 1 << 32)).expect("0 follows the largest");
    }

    #[test]
    fn the_last_five_batches_are_recognised() {
        let mut entry = ProducerEntry::default();
        for number in 0..7 {
            add(&mut entry, batch(0, number * 10, 10, i64::from(number) * 10)).unwrap();
        }
        let found = |first, count| {
            entry.duplicate_of(&batch(0, first, count, 999)).map(|known| known.first_offset())
        };
        assert_eq!(found(60, 10), Some(60));
        assert_eq!(found(20, 10), Some(20));
        assert_eq!(found(10, 10), None, "the sixth last is forgotten");
        assert_eq!(found(60, 9), None);
        assert_eq!(entry.duplicate_of(&batch(1, 60, 10, 0)), None, "another epoch");
    }

    #[test]
    fn transactions_open_and_end() {
        let mut entry = ProducerEntry::default();
        let open = ProducerBatch { is_transactional: true, ..batch(0, 0, 2, 10) };
        add(&mut entry, open).unwrap();
        assert_eq!(entry.transaction_begin, Some(10));
        let outside = add(&mut entry, batch(0, 2, 1, 12));
        assert!(matches!(outside, Err(AppendError::InvalidTransactionState { .. })));
        let marker =
            |coordinator_epoch| EndTransactionMarker { committed: true, coordinator_epoch };
        let end = batch(1, -1, 1, 12);
        let ended = entry.end_transaction(&end, marker(5), EpochRule::Above, Strictness::Epoch);
        let ended = ended.unwrap().expect("it was open");
        assert_eq!((ended.first_offset, ended.marker_offset, ended.committed), (10, 12, true));
        assert_eq!((entry.transaction_begin, entry.epoch), (None, 1));
        assert!(entry.batches.is_empty(), "the marker raised the epoch");
        let zombie = entry.end_transaction(&end, marker(4), EpochRule::NotBelow, Strictness::Epoch);
        assert!(matches!(zombie, Err(AppendError::TransactionCoordinatorFenced { .. })));
    }

    #[test]
    fn a_late_marker_of_version_2_ends_nothing_but_may_be_repeated() {
        let mut entry = ProducerEntry::default();
        let marker = EndTransactionMarker { committed: false, coordinator_epoch: 5 };
        let end = |entry: &mut ProducerEntry, epoch, rule| {
            entry.end_transaction(&batch(epoch, -1, 1, 12), marker, rule, Strictness::Epoch)
        };
        assert_eq!(end(&mut entry, 1, EpochRule::Above).unwrap(), None, "of nothing");
        assert_eq!(end(&mut entry, 1, EpochRule::Above).unwrap(), None, "repeated");
        let open = ProducerBatch { is_transactional: true, ..batch(1, 0, 2, 13) };
        add(&mut entry, open).unwrap();
        let late = end(&mut entry, 1, EpochRule::Above);
        assert!(matches!(late, Err(AppendError::InvalidProducerEpoch { .. })), "{late:?}");
        assert_eq!(entry.transaction_begin, Some(13));
        assert!(end(&mut entry, 1, EpochRule::NotBelow).unwrap().is_some(), "as version 0 does");
    }

    #[test]
    fn a_transaction_in_the_largest_epoch_can_be_ended() {
        let mut entry = ProducerEntry::default();
        let open = ProducerBatch { is_transactional: true, ..batch(i16::MAX, 0, 2, 10) };
        add(&mut entry, open).unwrap();
        let marker = EndTransactionMarker { committed: false, coordinator_epoch: 5 };
        let end = batch(i16::MAX, -1, 1, 12);
        let ended = entry.end_transaction(&end, marker, EpochRule::Above, Strictness::Epoch);
        assert!(ended.unwrap().is_some());
    }
}
