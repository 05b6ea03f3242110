//! One segment: a file of batches and the sparse indexes into it.
//!
//! Invariants:
//!
//! - The first `size` bytes of the file are whole batches with ascending offsets; what stands
//!   behind them (after a write that failed half way) is cut before the next append.
//! - Index entries are hints, see [`super::lookup`].

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fleuve_os::{DiskResult, File};

use crate::environment::{Doomed, Environment, FileHandle};
use crate::error::LogError;
use crate::index::{Entry, Index, OffsetEntry, TimeEntry};
use crate::names::{self, FileKind};
use crate::scan::{Found, LOOKUP_WINDOW, Scan, ScanError};
use crate::tail_cache::PlacedBatch;

use super::steps::Steps;
use super::transaction_index::{AbortedTransaction, TransactionIndex};

/// The timestamp of an empty segment, or of records without one.
pub(crate) const NO_TIMESTAMP: i64 = -1;

/// A segment that has grown to this size gets disk space ahead of its writes: space for each block
/// on its own costs a tenth of what writing it costs.
const AHEAD_FROM_BYTES: u64 = 8 << 20;
/// Ahead is one part in this many of what the segment holds,
const AHEAD_SHARE: u64 = 8;
/// and no more than this.
const AHEAD_BYTES_MAX: u64 = 32 << 20;

/// A file of batches with its indexes.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(super) base_offset: i64,
    pub(super) directory: PathBuf,
    pub(super) log: FileHandle,
    pub(super) offset_index: Index<OffsetEntry>,
    pub(super) time_index: Index<TimeEntry>,
    /// None as long as no marker in the segment has aborted a transaction.
    pub(super) transaction_index: Option<Box<TransactionIndex>>,
    /// Bytes of whole batches; `None` until the file was looked at.
    pub(super) size: Option<u64>,
    /// Whether bytes of a failed write may follow them.
    pub(super) has_torn_tail: bool,
    /// Up to where disk space was asked for ahead; `u64::MAX` once there was none.
    reserved: u64,
    pub(super) newest: Option<Newest>,
    pub(super) bytes_since_index_entry: u64,
    /// When the segment was made or emptied, for rolling segments without timestamps.
    pub(super) created_ms: i64,
    /// Timestamp of the first batch, for rolling by time; `None` until read.
    pub(super) first_timestamp: Option<i64>,
    /// What `segment.jitter.ms` drew for this segment.
    pub(crate) roll_jitter_ms: i64,
    /// Where its readers go on, once there have been some.
    pub(super) steps: Option<Arc<Steps>>,
}

/// The largest timestamp of a segment and the last offset of the first batch that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Newest {
    pub(crate) timestamp: i64,
    pub(crate) offset: i64,
}

/// What one append tells the segment about a batch besides its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchFacts {
    pub(crate) size: usize,
    pub(crate) last_offset: i64,
    pub(crate) max_timestamp: i64,
}

impl Segment {
    /// Makes an empty segment with its files.
    pub(crate) fn create(
        environment: &Environment,
        directory: &Path,
        base_offset: i64,
    ) -> DiskResult<Self> {
        Self::at(environment, directory, base_offset).emptied(environment)
    }

    /// Makes an empty segment whose files have `suffix` behind their names, for compaction.
    pub(crate) fn create_beside(
        environment: &Environment,
        directory: &Path,
        base_offset: i64,
        suffix: &str,
    ) -> DiskResult<Self> {
        Self::named(environment, directory, base_offset, suffix).emptied(environment)
    }

    fn emptied(self, environment: &Environment) -> DiskResult<Self> {
        let mut segment = self;
        segment.offset_index.reset(environment)?;
        segment.time_index.reset(environment)?;
        segment.log.create(environment)?.set_len(0)?;
        segment.size = Some(0);
        segment.newest = Some(segment.no_newest());
        Ok(segment)
    }

    /// Names a segment that exists on disk; nothing is opened yet.
    pub(crate) fn at(environment: &Environment, directory: &Path, base_offset: i64) -> Self {
        Self::named(environment, directory, base_offset, "")
    }

    fn named(environment: &Environment, directory: &Path, base_offset: i64, suffix: &str) -> Self {
        let path =
            |kind| names::with_suffix(&names::file_path(directory, base_offset, kind), suffix);
        Self {
            base_offset,
            directory: directory.to_owned(),
            log: FileHandle::new(path(FileKind::Log)),
            offset_index: Index::at(&path(FileKind::OffsetIndex)),
            time_index: Index::at(&path(FileKind::TimeIndex)),
            transaction_index: None,
            size: None,
            has_torn_tail: false,
            reserved: 0,
            newest: None,
            bytes_since_index_entry: 0,
            created_ms: environment.clock.wall_ms(),
            first_timestamp: None,
            roll_jitter_ms: 0,
            steps: None,
        }
    }

    pub(crate) fn base_offset(&self) -> i64 {
        self.base_offset
    }

    pub(crate) fn log_path(&self) -> &Path {
        self.log.path()
    }

    pub(crate) fn size(&mut self, environment: &Environment) -> DiskResult<u64> {
        if let Some(size) = self.size {
            return Ok(size);
        }
        let size = self.log.open(environment)?.len()?;
        self.size = Some(size);
        Ok(size)
    }

    /// Opens the file of batches.
    pub(crate) fn file(&mut self, environment: &Environment) -> DiskResult<Arc<dyn File>> {
        self.log.open(environment)
    }

    /// Where reads note their ends.
    pub(crate) fn steps(&mut self) -> Arc<Steps> {
        Arc::clone(self.steps.get_or_insert_default())
    }

    /// Reports whether offsets up to `last_offset` can be expressed relative to the base.
    pub(crate) fn can_hold(&self, last_offset: i64) -> bool {
        i32::try_from(last_offset.saturating_sub(self.base_offset)).is_ok()
    }

    /// Reports whether an index has reached `index_bytes_max`.
    ///
    /// One place of the time index stays free for the entry that every segment gets when it is
    /// rolled.
    pub(crate) fn has_full_index(
        &mut self,
        environment: &Environment,
        index_bytes_max: u32,
    ) -> DiskResult<bool> {
        let room = |entry_size: usize| u64::from(index_bytes_max) / entry_size as u64;
        Ok(self.offset_index.len(environment)? >= room(OffsetEntry::SIZE)
            || self.time_index.len(environment)? + 1 >= room(TimeEntry::SIZE))
    }

    /// Returns the timestamp of the first batch; `None` when there is none.
    pub(crate) fn first_timestamp(
        &mut self,
        environment: &Environment,
    ) -> Result<Option<i64>, LogError> {
        if self.first_timestamp.is_none() && self.size(environment)? > 0 {
            let file = self.log.open(environment)?;
            let first = Scan::new(&file, 0, self.size(environment)?, LOOKUP_WINDOW).next();
            let first = first.map_err(|error| error.in_file(&file))?;
            self.first_timestamp = first.map(|first| first.header.max_timestamp.0);
        }
        Ok(self.first_timestamp)
    }

    /// Returns how long the segment has been collecting records at a record time of `timestamp`.
    pub(crate) fn age_ms(
        &mut self,
        environment: &Environment,
        now_ms: i64,
        timestamp: i64,
    ) -> Result<i64, LogError> {
        Ok(match self.first_timestamp(environment)? {
            Some(first) if first >= 0 => timestamp.saturating_sub(first),
            _ => now_ms.saturating_sub(self.created_ms),
        })
    }

    /// Writes `batches` behind what is there, with one call, and returns the file, whose data now
    /// waits for a sync. After an error the segment is as it was.
    pub(crate) fn append(
        &mut self,
        environment: &Environment,
        batches: &[PlacedBatch],
    ) -> Result<Arc<dyn File>, LogError> {
        let file = self.log.open(environment)?;
        let size = self.size(environment)?;
        // Entering the batches needs it, and may not fail any more then.
        self.newest(environment)?;
        if self.has_torn_tail {
            file.set_len(size)?;
            self.has_torn_tail = false;
        }
        self.reserve_ahead(&*file, size, batches.iter().map(|batch| batch.size() as u64).sum());
        let written = match batches {
            // Nearly every append is one batch; two slices need no allocation.
            [batch] => file
                .write_vectored_at(&[IoSlice::new(&batch.header), IoSlice::new(&batch.body)], size),
            batches => {
                let slices: Vec<IoSlice<'_>> = batches
                    .iter()
                    .flat_map(|batch| [IoSlice::new(&batch.header), IoSlice::new(&batch.body)])
                    .collect();
                file.write_vectored_at(&slices, size)
            }
        };
        if let Err(error) = written {
            // A full disk may have taken a part. Should cutting fail as well, the next append
            // tries again: with a shorter write on top, the rest could pass for batches.
            self.has_torn_tail = file.set_len(size).is_err();
            self.reserved = 0;
            return Err(error.into());
        }
        Ok(file)
    }

    /// Asks for the space of the next writes at once. Only a hint: without it each write finds
    /// its own, or fails by itself.
    fn reserve_ahead(&mut self, file: &dyn File, size: u64, bytes: u64) {
        if size < AHEAD_FROM_BYTES || size + bytes <= self.reserved {
            return;
        }
        let ahead = bytes + (size / AHEAD_SHARE).min(AHEAD_BYTES_MAX);
        self.reserved = match file.allocate(size, ahead) {
            Ok(()) => size + ahead,
            Err(error) => {
                tracing::debug!(%error, "no space ahead of the writes");
                u64::MAX
            }
        };
    }

    /// Reports whether space behind the end was asked for.
    pub(crate) fn has_space_ahead(&self) -> bool {
        self.reserved > 0
    }

    /// Gives back the space behind the end, once nothing more is to be written.
    pub(crate) fn give_back_space(&mut self, environment: &Environment) -> DiskResult<()> {
        let size = self.size(environment)?;
        self.log.open(environment)?.set_len(size)?;
        self.reserved = 0;
        Ok(())
    }

    /// Enters a batch that stands at the end into size, newest timestamp and indexes.
    pub(crate) fn enter(
        &mut self,
        environment: &Environment,
        facts: BatchFacts,
        index_interval_bytes: u32,
    ) {
        let position = self.size.unwrap_or(0);
        let mut newest = self.newest.unwrap_or(self.no_newest());
        if facts.max_timestamp > newest.timestamp {
            newest = Newest { timestamp: facts.max_timestamp, offset: facts.last_offset };
        }
        self.newest = Some(newest);
        if position == 0 {
            self.first_timestamp = Some(facts.max_timestamp);
        }
        if self.bytes_since_index_entry > u64::from(index_interval_bytes) {
            let relative_offset = self.relative(facts.last_offset);
            let position = position as u32;
            self.offset_index.push(environment, OffsetEntry { relative_offset, position });
            self.enter_newest(environment);
            self.bytes_since_index_entry = 0;
        }
        self.bytes_since_index_entry += facts.size as u64;
        self.size = Some(position + facts.size as u64);
    }

    /// Writes all index entries, with one for the newest timestamp, and returns the index files,
    /// whose data now waits for a sync. Done when a segment is rolled, checkpointed or closed.
    pub(crate) fn finish_indexes(
        &mut self,
        environment: &Environment,
    ) -> DiskResult<[Arc<dyn File>; 2]> {
        self.time_index.len(environment)?;
        self.enter_newest(environment);
        Ok([self.offset_index.write(environment)?, self.time_index.write(environment)?])
    }

    /// Cuts the segment in front of the batch that holds `offset`, durably.
    pub(crate) fn truncate(
        &mut self,
        environment: &Environment,
        offset: i64,
    ) -> Result<(), LogError> {
        if let Some(found) = self.find(environment, offset)? {
            self.cut(environment, found.position, found.header.base_offset.0)?;
            self.newest = None;
            self.newest = Some(self.find_newest(environment)?);
        }
        Ok(())
    }

    /// Cuts the file at `position`, where the batch that begins at `offset` was, and the indexes
    /// with it.
    pub(crate) fn cut(
        &mut self,
        environment: &Environment,
        position: u64,
        offset: i64,
    ) -> DiskResult<()> {
        self.truncate_indexes(environment, offset)?;
        self.truncate_transaction_index(environment, offset)?;
        let file = self.log.open(environment)?;
        file.set_len(position)?;
        // Otherwise a crash could bring back the old bytes beneath what is appended next.
        file.sync_all()?;
        self.size = Some(position);
        self.has_torn_tail = false;
        self.reserved = 0;
        self.steps = None;
        if position == 0 {
            self.created_ms = environment.clock.wall_ms();
            self.first_timestamp = None;
        }
        Ok(())
    }

    /// Drops the index entries for `offset` and later ones.
    pub(crate) fn truncate_indexes(
        &mut self,
        environment: &Environment,
        offset: i64,
    ) -> DiskResult<()> {
        let relative = offset - self.base_offset;
        self.offset_index
            .truncate(environment, |entry| i64::from(entry.relative_offset) < relative)?;
        self.time_index
            .truncate(environment, |entry| i64::from(entry.relative_offset) < relative)?;
        self.bytes_since_index_entry = 0;
        Ok(())
    }

    /// Drops the aborted transactions whose markers stand at `offset` or behind it.
    pub(crate) fn truncate_transaction_index(
        &mut self,
        environment: &Environment,
        offset: i64,
    ) -> DiskResult<()> {
        if let Some(index) = &mut self.transaction_index {
            index.truncate(environment, offset)?;
        }
        Ok(())
    }

    /// Takes note that the segment has an index of aborted transactions, and returns it.
    pub(crate) fn transaction_index(&mut self) -> &mut TransactionIndex {
        self.transaction_index.get_or_insert_with(|| {
            let path =
                names::file_path(&self.directory, self.base_offset, FileKind::TransactionIndex);
            Box::new(TransactionIndex::at(path))
        })
    }

    /// Reports whether a marker in the segment may have aborted a transaction.
    pub(crate) fn has_transaction_index(&self) -> bool {
        self.transaction_index.is_some()
    }

    /// Writes down which transactions were aborted and returns the file, which now waits for a
    /// sync; `None` when there are none.
    pub(crate) fn finish_transaction_index(
        &mut self,
        environment: &Environment,
    ) -> DiskResult<Option<&Path>> {
        match &mut self.transaction_index {
            None => Ok(None),
            Some(index) => {
                index.write(environment)?;
                Ok(Some(index.path()))
            }
        }
    }

    /// Adds the aborted transactions to `found` that reach into the records from `offset` to before
    /// `end`, as far as their markers lie in this segment; reports whether that is all of them.
    pub(crate) fn collect_aborted(
        &mut self,
        environment: &Environment,
        offset: i64,
        end: i64,
        found: &mut Vec<AbortedTransaction>,
    ) -> DiskResult<bool> {
        match &mut self.transaction_index {
            None => Ok(false),
            Some(index) => index.collect(environment, offset, end, found),
        }
    }

    /// Gets ready to be told of all batches from the last trustworthy index entry before `offset`
    /// on by [`Segment::enter`]; returns the position of the first.
    pub(crate) fn begin_recovery(
        &mut self,
        environment: &Environment,
        offset: i64,
    ) -> Result<u64, LogError> {
        // Those before it were, and must stay: what is written now may be lost once more.
        self.truncate_transaction_index(environment, offset)?;
        // Entries from `offset` on were never synced.
        let position = match self.position_before(environment, offset - 1) {
            Ok(position) => position,
            // Damage where recovery is about to look is its business, not a reason to stop.
            Err(LogError::Damaged { .. }) => 0,
            Err(error) => return Err(error),
        };
        let file = self.log.open(environment)?;
        let end = self.size(environment)?;
        let first = Scan::new(&file, position, end, LOOKUP_WINDOW).next();
        let (position, first_offset) = match first {
            Ok(Some(found)) if position > 0 => (position, found.header.base_offset.0),
            Ok(_) | Err(ScanError::NoBatch { .. }) => (0, self.base_offset),
            Err(error) => return Err(error.in_file(&file)),
        };
        self.truncate_indexes(environment, first_offset)?;
        // Entries come in pairs. More of one kind than the intervals allow, or none at all of the
        // other, shows an index that the crash took: begin anew.
        let newest = match (position, self.time_index.last(environment)?) {
            (0, _) | (_, None) => None,
            (_, Some(_)) => match self.time_entry_if_valid(environment) {
                Err(LogError::Damaged { .. }) => None,
                entry => entry?,
            },
        };
        self.newest = Some(newest.unwrap_or(self.no_newest()));
        let position = if newest.is_some() { position } else { 0 };
        if position == 0 {
            self.truncate_indexes(environment, self.base_offset)?;
            self.first_timestamp = None;
        }
        self.size = Some(position);
        Ok(position)
    }

    /// Renames the files for deletion after `delay_ms`, and closes them.
    pub(crate) fn delete(&mut self, environment: &Environment, delay_ms: i64) -> DiskResult<()> {
        self.close(environment);
        let due_ms = environment.clock.wall_ms().saturating_add(delay_ms);
        for kind in FileKind::OF_SEGMENT {
            let path = names::file_path(&self.directory, self.base_offset, kind);
            let doomed = names::with_suffix(&path, names::DELETED_SUFFIX);
            match environment.disk.rename(&path, &doomed) {
                Ok(()) => environment.deletions.add(due_ms, Doomed::File(doomed)),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(crate) fn close(&mut self, environment: &Environment) {
        self.log.close(environment);
        self.offset_index.close(environment);
        self.time_index.close(environment);
        if let Some(index) = &mut self.transaction_index {
            index.close(environment);
        }
    }

    /// Adds a time entry for the newest timestamp unless the last one says the same.
    pub(super) fn enter_newest(&mut self, environment: &Environment) {
        let Some(newest) = self.newest else { return };
        let last = self.time_index.last(environment).ok().flatten();
        if newest.timestamp > last.map_or(NO_TIMESTAMP, |last| last.timestamp) {
            let relative_offset = self.relative(newest.offset);
            let timestamp = newest.timestamp;
            self.time_index.push(environment, TimeEntry { timestamp, relative_offset });
        }
    }

    pub(super) fn no_newest(&self) -> Newest {
        Newest { timestamp: NO_TIMESTAMP, offset: self.base_offset }
    }

    pub(super) fn relative(&self, offset: i64) -> u32 {
        // `can_hold` was asked before the append.
        u32::try_from(offset.saturating_sub(self.base_offset)).unwrap_or(u32::MAX)
    }

    pub(super) fn absolute(&self, entry: &TimeEntry) -> i64 {
        self.base_offset.saturating_add(i64::from(entry.relative_offset))
    }
}

/// What a segment wants to know of a batch found in its file.
pub(crate) fn facts(found: &Found) -> BatchFacts {
    BatchFacts {
        size: found.header.size(),
        last_offset: found.header.last_offset().0,
        max_timestamp: found.header.max_timestamp.0,
    }
}
