//! Appending: offsets and epoch are put in place, everything else is written as it came.

use std::path::Path;

use bytes::Bytes;
use fleuve_protocol::records::{Batch, EndTransactionMarker, RecordIter, TimestampType, layout};
use fleuve_types::{LeaderEpoch, Offset, TimestampMs};

use super::examine::examine;
use super::partition_log::Log;
use crate::error::{AppendError, LogError};
use crate::names::{self, FileKind};
use crate::producers::{self, EpochRule, ProducerBatch, Staged, Strictness, TransactionCheck};
use crate::segment::{BatchFacts, Segment};
use crate::tail_cache::PlacedBatch;

/// Where batches come from, which decides how closely they are examined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client's produce request: every rule applies.
    Client,
    /// A coordinator of this process: control records are allowed, sequences are not checked.
    Coordinator,
    /// The leader of the partition: offsets and epochs are kept.
    Replication,
}

/// Batches to append, with what the log must know besides.
#[derive(Clone, Debug)]
pub struct Append {
    /// One or several whole batches, one after the other.
    pub records: Bytes,
    /// The epoch of the leader that appends; ignored for batches from a leader elsewhere, which
    /// carry theirs.
    pub leader_epoch: LeaderEpoch,
    /// Where the batches come from.
    pub origin: Origin,
    /// The size of the allocation that `records` is a slice of. The tail cache copies records that
    /// are a small part of a large frame, instead of keeping the frame in memory for them.
    pub frame_bytes: usize,
    /// Whether transactional batches must belong to a transaction that the coordinator knows of.
    pub transaction_check: TransactionCheck,
    /// Whether a marker must carry a higher epoch than the records that it decides about.
    pub marker_raises_epoch: bool,
}

/// What an append did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of the first record.
    pub first_offset: Offset,
    /// The offset of the last record.
    pub last_offset: Offset,
    /// The time that the records got, when the topic wants the log append time.
    pub log_append_time: Option<TimestampMs>,
    /// The first offset that can be read.
    pub log_start_offset: Offset,
    /// Whether the batch had been appended before; nothing was written then, and the offsets are
    /// those of the first time.
    pub is_duplicate: bool,
    /// How many records were written.
    pub record_count: u64,
    /// How many bytes were written.
    pub bytes: usize,
}

impl Append {
    /// Wraps what a client produced.
    pub fn from_client(records: Bytes, leader_epoch: LeaderEpoch) -> Self {
        let frame_bytes = records.len();
        Self {
            records,
            leader_epoch,
            origin: Origin::Client,
            frame_bytes,
            transaction_check: TransactionCheck::Waived,
            marker_raises_epoch: false,
        }
    }

    /// Wraps what a coordinator of this process writes.
    pub fn from_coordinator(records: Bytes, leader_epoch: LeaderEpoch) -> Self {
        Self { origin: Origin::Coordinator, ..Self::from_client(records, leader_epoch) }
    }

    /// Wraps what a follower fetched from its leader.
    pub fn from_leader(records: Bytes) -> Self {
        Self { origin: Origin::Replication, ..Self::from_client(records, LeaderEpoch::UNKNOWN) }
    }

    /// Tells the size of the frame that the records are a slice of.
    pub fn in_frame_of(self, frame_bytes: usize) -> Self {
        Self { frame_bytes, ..self }
    }

    /// Says what transactional batches must show.
    pub fn with_check(self, transaction_check: TransactionCheck) -> Self {
        Self { transaction_check, ..self }
    }

    /// Says that the records are a marker of version 2 of the protocol of transactions, which
    /// carries a higher epoch than the transaction.
    pub fn raising_epoch(self, marker_raises_epoch: bool) -> Self {
        Self { marker_raises_epoch, ..self }
    }
}

impl Log {
    /// Appends batches and returns the offsets they got. After an error the log is as it was.
    pub fn append(&mut self, append: Append) -> Result<Appended, AppendError> {
        self.check_writable()?;
        let now_ms = self.environment.clock.wall_ms();
        let mut batches = examine(&append, &self.config, now_ms)?;
        self.place(&mut batches, &append)?;

        let staged = match self.stage_producers(&batches, &append)? {
            Examined::New(staged) => staged,
            Examined::Duplicate { first_offset, last_offset, timestamp } => {
                return Ok(Appended {
                    first_offset,
                    last_offset,
                    log_append_time: self.log_append_time(timestamp),
                    log_start_offset: Offset(self.log_start),
                    is_duplicate: true,
                    record_count: 0,
                    bytes: 0,
                });
            }
        };
        let first = batches.first().ok_or(AppendError::Empty)?.header;
        let last = batches.last().ok_or(AppendError::Empty)?.header;
        let max_timestamp = batches.iter().map(|batch| batch.header.max_timestamp).max();
        let max_timestamp = max_timestamp.unwrap_or_default();
        let bytes = batches.iter().map(|batch| batch.bytes.len()).sum();
        self.roll_if_needed(bytes, last.last_offset().0, max_timestamp.0, now_ms)
            .inspect_err(|error| self.fail_unless_full(error))?;

        let placed: Vec<PlacedBatch> = batches.iter().map(place_in_header).collect();
        let environment = &self.environment;
        let segment = self.segments.last_mut().expect("a log always has a segment");
        let file = match segment.append(environment, &placed) {
            Ok(file) => file,
            Err(error) => {
                self.fail_unless_full(&error);
                return Err(error.into());
            }
        };
        for batch in &batches {
            let facts = BatchFacts {
                size: batch.bytes.len(),
                last_offset: batch.header.last_offset().0,
                max_timestamp: batch.header.max_timestamp.0,
            };
            segment.enter(environment, facts, self.config.index_interval_bytes);
        }
        self.durability.add_file(&environment.open_files, file);
        let aborted = self.producers.commit(staged);
        let indexed = aborted
            .into_iter()
            .try_for_each(|entry| segment.transaction_index().push(environment, entry));
        if let Err(error) = indexed.map_err(LogError::from) {
            // The marker is in the log and its entry is not: whoever reads on would take aborted
            // records for committed ones.
            self.fail_unless_full(&error);
            return Err(error.into());
        }
        for batch in batches.iter().filter(|batch| batch.header.attributes.is_transactional()) {
            self.verifications.end(batch.header.producer_id.0);
        }
        for batch in &batches {
            let (epoch, offset) = (batch.header.leader_epoch.0, batch.header.base_offset.0);
            self.durability.epochs_changed |= self.epochs.assign(epoch, offset);
        }
        environment.tail_cache.push(&mut self.tail, &placed, append.frame_bytes);
        self.next_offset = last.next_offset().0;
        Ok(Appended {
            first_offset: first.base_offset,
            last_offset: last.last_offset(),
            log_append_time: self.log_append_time(max_timestamp),
            log_start_offset: Offset(self.log_start),
            is_duplicate: false,
            record_count: batches.iter().map(|batch| batch.header.count.max(0) as u64).sum(),
            bytes,
        })
    }

    /// Begins a new segment, unless the active one is empty.
    pub fn roll(&mut self) -> Result<(), LogError> {
        self.check_writable()?;
        if self.active_size()? == 0 {
            return Ok(());
        }
        self.roll_active().inspect_err(|error| self.fail_unless_full(error))
    }

    /// Gives the batches their offsets and epoch, or checks those they have.
    fn place(&self, batches: &mut [Batch], append: &Append) -> Result<(), AppendError> {
        let mut next_offset = self.next_offset;
        for batch in batches {
            let header = &mut batch.header;
            if append.origin == Origin::Replication {
                // Gaps are fine: the leader's log may have been compacted.
                if header.base_offset.0 < next_offset {
                    return Err(AppendError::OffsetsOutOfOrder {
                        offset: header.base_offset,
                        log_end: Offset(next_offset),
                    });
                }
            } else {
                header.base_offset = Offset(next_offset);
                header.leader_epoch = append.leader_epoch;
            }
            next_offset = header.next_offset().0;
        }
        Ok(())
    }

    fn stage_producers(&self, batches: &[Batch], append: &Append) -> Result<Examined, AppendError> {
        let origin = append.origin;
        let rule = match append.marker_raises_epoch {
            false => EpochRule::NotBelow,
            true => EpochRule::Above,
        };
        let strictness = match origin {
            Origin::Client => Strictness::EpochAndSequence,
            Origin::Coordinator => Strictness::Epoch,
            Origin::Replication => Strictness::Nothing,
        };
        let mut staged = Staged::default();
        for batch in batches.iter().filter(|batch| batch.header.has_producer()) {
            let facts = ProducerBatch::of(&batch.header);
            if origin == Origin::Client
                && let Some(known) = self.producers.duplicate_of(&facts)
            {
                return Ok(Examined::Duplicate {
                    first_offset: Offset(known.first_offset()),
                    last_offset: Offset(known.last_offset),
                    timestamp: TimestampMs(known.timestamp),
                });
            }
            let marker = match batch.header.attributes.is_control() {
                false => None,
                true => match marker_of(batch) {
                    Some(marker) => Some((marker, rule)),
                    // Control records that end no transaction concern no producer.
                    None => continue,
                },
            };
            if marker.is_none() {
                self.check_transaction(&facts, append)?;
            }
            self.producers.stage(&mut staged, &facts, marker, strictness)?;
        }
        Ok(Examined::New(staged))
    }

    /// Checks that a batch of records belongs to a transaction that the coordinator knows of.
    fn check_transaction(&self, batch: &ProducerBatch, append: &Append) -> Result<(), AppendError> {
        let TransactionCheck::Required(guard) = append.transaction_check else { return Ok(()) };
        let Self { producers, verifications, .. } = self;
        if batch.is_transactional && !producers.has_open_transaction(batch.producer_id, batch.epoch)
        {
            // A marker that fences the producer takes the guard away, too. The epoch comes first:
            // a producer recovers from being fenced, and not from having no transaction.
            producers.check_epoch(batch)?;
            verifications.check(batch, guard)?;
        }
        if append.origin == Origin::Client {
            verifications.check_sequence(batch, producers.has_batches(batch.producer_id))?;
        }
        Ok(())
    }

    fn log_append_time(&self, timestamp: TimestampMs) -> Option<TimestampMs> {
        (self.config.message_timestamp_type == TimestampType::LogAppendTime).then_some(timestamp)
    }

    fn active_size(&mut self) -> Result<u64, LogError> {
        let environment = &self.environment;
        let segment = self.segments.last_mut().expect("a log always has a segment");
        Ok(segment.size(environment)?)
    }

    /// Begins a new segment when `bytes` more, up to `last_offset`, do not belong into this one.
    fn roll_if_needed(
        &mut self,
        bytes: usize,
        last_offset: i64,
        max_timestamp: i64,
        now_ms: i64,
    ) -> Result<(), LogError> {
        let size = self.active_size()?;
        let environment = &self.environment;
        let segment = self.segments.last_mut().expect("a log always has a segment");
        if size == 0 && segment.can_hold(last_offset) {
            return Ok(());
        }
        let config = &self.config;
        let is_due = size + bytes as u64 > u64::from(config.segment_bytes)
            || !segment.can_hold(last_offset)
            || segment.age_ms(environment, now_ms, max_timestamp)?
                > config.roll_ms().saturating_sub(segment.roll_jitter_ms)
            || segment.has_full_index(environment, config.segment_index_bytes)?;
        if is_due { self.roll_active() } else { Ok(()) }
    }

    /// Begins a new segment. Everything that can fail comes before the first change in memory.
    fn roll_active(&mut self) -> Result<(), LogError> {
        let environment = self.environment.clone();
        let indexes = self.active().finish_indexes(&environment)?;
        self.finish_transaction_index()?;
        self.write_snapshot()?;
        // Whether or not this process asked for any: one that was killed may have left space behind.
        self.active().give_back_space(&environment)?;
        let mut segment = self.begin_segment(self.next_offset)?;
        segment.roll_jitter_ms = self.draw_roll_jitter();
        for file in self.durability.files.drain(..).chain(indexes).collect::<Vec<_>>() {
            self.durability.add_closed_file(file.path());
        }
        self.durability.add_directory(&self.directory);
        if self.active().base_offset() == segment.base_offset() {
            // An empty segment whose base is too far from the offsets to come, or whose index was
            // full: its files have just been made anew.
            self.segments.pop();
        }
        self.segments.push(segment);
        Ok(())
    }

    /// Makes an empty segment, with its disk space if that is to be reserved.
    pub(super) fn begin_segment(&self, base_offset: i64) -> Result<Segment, LogError> {
        let mut segment = Segment::create(&self.environment, &self.directory, base_offset)?;
        if self.config.preallocate {
            let file = segment.file(&self.environment)?;
            file.allocate(0, u64::from(self.config.segment_bytes))?;
        }
        Ok(segment)
    }

    /// Writes down which transactions were aborted in the active segment.
    pub(super) fn finish_transaction_index(&mut self) -> Result<(), LogError> {
        let environment = self.environment.clone();
        let path = self.active().finish_transaction_index(&environment)?.map(Path::to_owned);
        if let Some(path) = path {
            self.durability.add_closed_file(&path);
            self.durability.add_directory(&self.directory);
        }
        Ok(())
    }

    pub(super) fn draw_roll_jitter(&self) -> i64 {
        let jitter_ms = self.config.segment_jitter_ms.min(self.config.roll_ms());
        match u64::try_from(jitter_ms) {
            Ok(bound) if bound > 0 => self.environment.random.below(bound) as i64,
            _ => 0,
        }
    }

    /// Writes what is known of the producers to the file for the current end of the log.
    pub(super) fn write_snapshot(&mut self) -> Result<(), LogError> {
        // Without records there is nothing to know.
        if self.snapshot_offset.unwrap_or(self.log_start) >= self.next_offset {
            return Ok(());
        }
        let path = names::file_path(&self.directory, self.next_offset, FileKind::ProducerSnapshot);
        let disk = &self.environment.disk;
        let file = disk.open(&path, fleuve_os::OpenMode::Create)?;
        file.set_len(0)?;
        file.write_at(&producers::encode(self.producers.producers()), 0)?;
        self.durability.add_closed_file(&path);
        self.durability.add_directory(&self.directory);
        self.snapshot_offset = Some(self.next_offset);
        Ok(())
    }
}

enum Examined {
    New(Staged),
    Duplicate { first_offset: Offset, last_offset: Offset, timestamp: TimestampMs },
}

fn place_in_header(batch: &Batch) -> PlacedBatch {
    PlacedBatch {
        header: batch.header.to_bytes(),
        body: batch.bytes.slice(layout::HEADER_SIZE..),
        base_offset: batch.header.base_offset.0,
        next_offset: batch.header.next_offset().0,
    }
}

/// Returns the transaction marker that a control batch holds.
pub(super) fn marker_of(batch: &Batch) -> Option<EndTransactionMarker> {
    let record = RecordIter::new(&batch.header, &batch.bytes[layout::HEADER_SIZE..]).next()?;
    EndTransactionMarker::of(&record.ok()?).ok()?
}
