//! What compaction leaves of one batch.
//!
//! The rules are those of Kafka's `Cleaner` and `MemoryRecords.filterTo`:
//!
//! - A record stays if no later record of its key is known. Records without a key cannot be
//!   compacted and go.
//! - A tombstone (a record without a value) stays until its batch's *delete horizon*. The first
//!   compaction that meets it sets the horizon to `delete.retention.ms` from now: a bit in the
//!   attributes, and the time itself in place of the base timestamp. A later one, after that time,
//!   takes the tombstone away. Markers of transactions go the same way, once none of their
//!   transaction's batches is left.
//! - Offsets stay, and a batch keeps its first and last offset, its epoch and its producer's
//!   sequences. A batch without records stays, empty, if it is the last of a producer that is still
//!   active, whose sequence would be forgotten otherwise, or the last of this compaction.
//! - Unlike Kafka, every segment written keeps its last offset, if need be by an empty batch of no
//!   producer: so no gap ever opens between two segments, and after a crash the new segment tells
//!   by its end which old ones it replaces. That is at most 61 bytes for a segment, until the next
//!   compaction.
//! - A batch that loses nothing is copied as it is. Otherwise it is written anew, compressed by the
//!   codec it had.

use std::collections::HashMap;

use bytes::Bytes;
use fleuve_protocol::records::{
    Batch, BatchBuilder, BatchError, BatchHeader, BatchOptions, Decompressor, RecordIter,
    emptied_batch,
};
use fleuve_types::{ProducerEpoch, ProducerId, TimestampMs};

use super::job::CleanStats;
use super::offset_map::OffsetMap;
use super::transactions::{DirtySurvey, MarkerKeeper};

/// The last thing that the log knows of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LastRecord {
    /// The last offset of its last batch of records; `None` when a marker raised the epoch since.
    pub(super) offset: Option<i64>,
    pub(super) epoch: i16,
}

/// What decides about records, the same for all batches of a compaction.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    pub(super) map: &'a OffsetMap,
    /// The last offset that the map speaks for.
    pub(super) mapped_to: i64,
    pub(super) survey: &'a DirtySurvey,
    /// Where the compaction ends, exclusively.
    pub(super) end: i64,
    pub(super) last_records: &'a HashMap<i64, LastRecord>,
    pub(super) now_ms: i64,
    pub(super) delete_retention_ms: i64,
}

/// What becomes of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Drop,
    Keep,
    Replace(Bytes),
}

/// Decides about batches, one after the other in the order of the log.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) markers: MarkerKeeper,
    pub(super) stats: CleanStats,
    decompressor: Decompressor,
    builder: BatchBuilder,
    /// Of each record of the batch at hand, whether it stays.
    kept: Vec<bool>,
}

/// Why a batch could not be filtered.
pub(super) type Fault = String;

impl Filter {
    pub(super) fn new(decompressor: Decompressor) -> Self {
        Self {
            markers: MarkerKeeper::default(),
            stats: CleanStats::default(),
            decompressor,
            builder: BatchBuilder::new(BatchOptions::default()),
            kept: Vec::new(),
        }
    }

    /// Decides about a batch; `is_last_of_segment` tells whether the segment being written ends
    /// with it.
    pub(super) fn judge(
        &mut self,
        rules: &Rules<'_>,
        batch: &Batch,
        is_last_of_segment: bool,
    ) -> Result<Verdict, Fault> {
        let header = &batch.header;
        let is_control = header.attributes.is_control();
        let is_superfluous = if is_control {
            self.markers.meet_control(batch)?
        } else {
            self.markers.meet_records(header);
            rules.survey.is_aborted(header)
        };
        let drops_all = is_superfluous && (!is_control || rules.has_expired(batch));
        let emptied = || {
            if rules.ends_producer(batch) || header.next_offset().0 == rules.end {
                Verdict::Replace(emptied_batch(header))
            } else if is_last_of_segment {
                Verdict::Replace(end_of_segment(header))
            } else {
                Verdict::Drop
            }
        };
        self.stats.records_read += u64::from(header.count.unsigned_abs());
        if drops_all {
            return Ok(emptied());
        }
        let records = batch.records(&mut self.decompressor).map_err(fault)?;
        let mut has_tombstones = false;
        self.kept.clear();
        for record in RecordIter::new(header, &records) {
            let record = record.map_err(fault)?;
            let stays = is_control
                || match record.key {
                    Some(key) => rules.keeps(batch, record.offset.0, key, record.value.is_some()),
                    None if record.offset.0 > rules.mapped_to => true,
                    None => {
                        self.stats.keyless_records += 1;
                        false
                    }
                };
            has_tombstones |= stays && record.value.is_none();
            self.kept.push(stays);
        }
        let kept = self.kept.iter().filter(|stays| **stays).count();
        self.stats.records_kept += kept as u64;
        if kept == 0 {
            return Ok(emptied());
        }
        let gets_horizon =
            (has_tombstones || (is_control && is_superfluous)) && header.delete_horizon().is_none();
        if kept == self.kept.len() && !gets_horizon {
            return Ok(Verdict::Keep);
        }
        let mut options = BatchOptions::of(header).map_err(fault)?;
        if gets_horizon {
            let horizon_ms = rules.now_ms.saturating_add(rules.delete_retention_ms);
            options.delete_horizon = Some(TimestampMs(horizon_ms));
        }
        self.rewrite(batch, &records, options).map(Verdict::Replace)
    }

    fn rewrite(
        &mut self,
        batch: &Batch,
        records: &[u8],
        options: BatchOptions,
    ) -> Result<Bytes, Fault> {
        let builder = &mut self.builder;
        *builder.options_mut() = options;
        for (record, stays) in RecordIter::new(&batch.header, records).zip(&self.kept) {
            if *stays {
                let record = record.map_err(fault)?;
                builder.append_kept(&record).map_err(|error| error.to_string())?;
            }
        }
        builder.keep_last_offset(batch.header.last_offset());
        Ok(builder.finish())
    }
}

impl Rules<'_> {
    /// Reports whether the time of the batch's tombstones and markers is over.
    fn has_expired(&self, batch: &Batch) -> bool {
        batch.header.delete_horizon().is_some_and(|horizon| horizon.0 <= self.now_ms)
    }

    fn keeps(&self, batch: &Batch, offset: i64, key: &[u8], has_value: bool) -> bool {
        if offset > self.mapped_to {
            return true;
        }
        let is_latest = self.map.get(key).is_none_or(|latest| offset >= latest);
        is_latest && (has_value || !self.has_expired(batch))
    }

    /// Reports whether the batch is the last thing known of its producer: of one whose epoch a
    /// marker raised, the marker.
    fn ends_producer(&self, batch: &Batch) -> bool {
        let header = &batch.header;
        if !header.has_producer() {
            return false;
        }
        match self.last_records.get(&header.producer_id.0) {
            None => false,
            Some(LastRecord { offset: Some(offset), .. }) => header.last_offset().0 == *offset,
            Some(LastRecord { offset: None, epoch }) => {
                header.attributes.is_control() && header.producer_epoch.0 == *epoch
            }
        }
    }
}

/// The batch that says nothing but where a segment ends: no producer and no transaction, which
/// would keep a marker alive.
fn end_of_segment(header: &BatchHeader) -> Bytes {
    emptied_batch(&BatchHeader {
        attributes: header.attributes.with_control(false).with_transactional(false),
        producer_id: ProducerId::NONE,
        producer_epoch: ProducerEpoch(-1),
        base_sequence: -1,
        ..*header
    })
}

fn fault(error: BatchError) -> Fault {
    error.to_string()
}
