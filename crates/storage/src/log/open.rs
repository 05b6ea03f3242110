//! Opening a log: finding out what there is, and after a crash what of it can be trusted.
//!
//! **After a clean shutdown** everything is trusted. The end of the log is found by walking from
//! the last index entry; sealed segments are not touched at all. Should the walk meet damage, the
//! log is recovered as after a crash.
//!
//! **After a crash** the log is recovered from the recovery point on:
//!
//! 1. Batches are checked, checksum included, from the last index entry before the recovery point
//!    to the end, segment by segment. Index entries behind the recovery point are dropped and made
//!    again; leader epochs found on the way are entered.
//! 2. At the first thing that is not a whole, intact batch with ascending offsets, the segment is
//!    cut and all later segments are deleted: what follows a hole cannot be told from garbage, and
//!    Kafka does the same. A log that is never compacted is also cut where a segment ends before
//!    the next one begins, since writes to the earlier file were lost then.
//! 3. What is cut at or behind the recovery point was never acknowledged as durable, and a warning
//!    says how much it was. If the cut lies *before* the recovery point, data that had been synced
//!    is damaged: that is an ERROR in the log and in [`Recovery`]. Nothing before the last index
//!    entry in front of the recovery point is read, let alone cut: damage there is reported when
//!    somebody reads it.
//! 4. The producers' state comes from the newest intact snapshot that is not beyond the first
//!    segment looked at, and from the headers of the batches behind it. The same walk enters the
//!    aborted transactions into the indexes, which were cut like the others.
//!
//! What survived in the page cache of a machine that lived on is not durable yet: after recovery
//! the flushed offset is the recovery point, and the first flush syncs the rest.
//!
//! That holds for one whose last sync has failed ([`super::rewriting`]) all the more: what is in memory
//! of it is not on the disk, and no sync would bring it there. It is recovered whatever the shutdown
//! was like, and what was recovered behind the recovery point is written again.
//!
//! A compaction that had decided to replace segments is finished before anything else
//! ([`crate::cleaner`]). Leftovers are cleared away: `.deleted`, `.cleaned` and `.tmp` files, and
//! indexes without a log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fleuve_os::EntryKind;
use fleuve_types::{Offset, TopicPartition, Uuid};

use super::partition_log::{Durability, Log};
use super::rewriting::SYNC_FAILED;
use crate::checkpoint;
use crate::cleaner;
use crate::config::LogConfig;
use crate::environment::Environment;
use crate::error::LogError;
use crate::leader_epochs::LeaderEpochs;
use crate::names::{self, FileKind};
use crate::producers::{ProducerState, Verifications};
use crate::scan::{Scan, ScanError, VERIFY_WINDOW};
use crate::segment::{Segment, facts};
use crate::tail_cache::TailWindow;

/// What must be known to open a log.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Which partition the log belongs to.
    pub partition: TopicPartition,
    /// The directory of the log, made when missing.
    pub directory: PathBuf,
    /// The topic's id, written to a new directory; `None` leaves that for later.
    pub topic_id: Option<Uuid>,
    /// The settings to begin with.
    pub config: Arc<LogConfig>,
    /// Where recovery has to begin, from the checkpoint; 0 when unknown.
    pub recovery_point: Offset,
    /// The first offset that can be read, from the checkpoint; 0 when unknown.
    pub log_start: Offset,
    /// Where compaction goes on, from the checkpoint; `None` when the log was never compacted.
    pub first_dirty: Option<Offset>,
    /// Whether the process before us ended in good order.
    pub had_clean_shutdown: bool,
}

impl OpenOptions {
    /// Describes a log without checkpoints, such as a new one.
    pub fn new(partition: TopicPartition, directory: PathBuf, config: Arc<LogConfig>) -> Self {
        Self {
            partition,
            directory,
            topic_id: None,
            config,
            recovery_point: Offset(0),
            log_start: Offset(0),
            first_dirty: None,
            had_clean_shutdown: false,
        }
    }
}

/// What recovery did to a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Bytes whose checksums were checked.
    pub verified_bytes: u64,
    /// Bytes that were cut, whole later segments included.
    pub cut_bytes: u64,
    /// Whether the cut took records that had been synced before.
    pub lost_synced_records: bool,
}

/// What a directory holds.
#[derive(Debug, Default)]
struct Content {
    segments: Vec<i64>,
    snapshots: Vec<i64>,
    /// Segments with an index of aborted transactions.
    transaction_indexes: Vec<i64>,
    /// Whether the last word of the process before us was a failed sync.
    is_sync_failed: bool,
}

impl Log {
    /// Opens a log, making it when it does not exist.
    pub fn open(
        environment: &Environment,
        options: OpenOptions,
    ) -> Result<(Self, Recovery), LogError> {
        let content = read_directory(environment, &options.directory)?;
        let is_sync_failed = content.is_sync_failed;
        let had_clean_shutdown = options.had_clean_shutdown && !is_sync_failed;
        let epochs = read_epochs(environment, &options.directory)?;
        let epochs_unreadable = epochs.is_none();
        let id_path = options.directory.join(checkpoint::PARTITION_METADATA);
        let topic_id = checkpoint::read_topic_id(&*environment.disk, &id_path)?;
        let mut log = Self {
            environment: environment.clone(),
            segments: content
                .segments
                .iter()
                .map(|base| Segment::at(environment, &options.directory, *base))
                .collect(),
            log_start: options.log_start.0.max(0),
            next_offset: 0,
            first_dirty: options.first_dirty.map(|offset| offset.0),
            is_cleaning: false,
            epochs: epochs.unwrap_or_default(),
            producers: ProducerState::default(),
            verifications: Verifications::default(),
            snapshot_offset: None,
            tail: TailWindow::default(),
            durability: Durability::default(),
            partition: options.partition,
            directory: options.directory,
            topic_id,
            config: options.config,
        };
        if !had_clean_shutdown {
            // Also of an existing log: the process that made it may have ended before its names
            // became durable, and the machine lived on.
            log.durability.add_directory(&log.directory.clone());
            if let Some(parent) = log.directory.parent() {
                log.durability.add_directory(parent);
            }
        }
        for base_offset in content.transaction_indexes {
            let known = log.segments.binary_search_by_key(&base_offset, Segment::base_offset);
            if let Ok(index) = known {
                log.segments[index].transaction_index();
            }
        }
        if let (None, Some(topic_id)) = (log.topic_id, options.topic_id) {
            log.set_topic_id(topic_id)?;
        }
        let recovery =
            log.load(options.recovery_point.0.max(0), had_clean_shutdown, content.snapshots)?;
        if epochs_unreadable {
            log.rebuild_epochs()?;
        }
        if is_sync_failed {
            log.settle_failed_sync();
        }
        Ok((log, recovery))
    }

    /// Writes down which topic the log belongs to.
    pub fn set_topic_id(&mut self, topic_id: Uuid) -> Result<(), LogError> {
        let path = self.directory.join(checkpoint::PARTITION_METADATA);
        let content = checkpoint::format_topic_id(topic_id);
        // The name becomes durable with the first flush, as the directory itself does.
        self.environment.disk.replace_file_unsynced_dir(&path, content.as_bytes())?;
        self.durability.add_directory(&self.directory.clone());
        self.topic_id = Some(topic_id);
        Ok(())
    }

    fn load(
        &mut self,
        recovery_point: i64,
        had_clean_shutdown: bool,
        snapshots: Vec<i64>,
    ) -> Result<Recovery, LogError> {
        let mut recovery = Recovery::default();
        let mut is_trusted = had_clean_shutdown;
        if self.segments.is_empty() {
            self.next_offset = self.log_start;
        } else if is_trusted {
            match self.find_end() {
                Ok(end) => self.next_offset = end,
                Err(error @ LogError::Damaged { .. }) => {
                    tracing::warn!(%error, "damage after a clean shutdown: recovering");
                    is_trusted = false;
                }
                Err(error) => return Err(error),
            }
        }
        // From here on the indexes of aborted transactions are made anew.
        let mut rebuild_from = None;
        if !self.segments.is_empty() {
            if is_trusted {
                rebuild_from = self.check_transaction_indexes()?;
            } else {
                let first_index = self.segment_index(recovery_point);
                rebuild_from = Some(self.segments[first_index].base_offset());
                recovery = self.recover(recovery_point)?;
            }
        }
        if self.next_offset < self.log_start {
            tracing::warn!(
                log = %self.directory.display(), end = self.next_offset, start = self.log_start,
                "the log ends before its start: deleting what there is"
            );
            let environment = self.environment.clone();
            while let Some(mut segment) = self.segments.pop() {
                segment.delete(&environment, 0)?;
            }
            self.epochs.clear();
            self.durability.epochs_changed = true;
            self.next_offset = self.log_start;
        }
        if self.segments.is_empty() {
            let segment = self.begin_segment(self.next_offset)?;
            self.segments.push(segment);
            self.durability.add_directory(&self.directory.clone());
        }
        let roll_jitter_ms = self.draw_roll_jitter();
        self.active().roll_jitter_ms = roll_jitter_ms;
        self.log_start = self.log_start.max(self.segments[0].base_offset());
        self.durability.epochs_changed |= self.epochs.truncate_end(self.next_offset);
        self.durability.epochs_changed |= self.epochs.truncate_start(self.log_start);
        let known_durable = if is_trusted { self.next_offset } else { recovery_point };
        self.durability.flushed_offset = known_durable.clamp(0, self.next_offset);
        self.durability.recovery_point = match rebuild_from {
            // Indexes that are made anew, though their log is durable, are not.
            Some(offset) if is_trusted => offset.min(self.durability.flushed_offset),
            _ => self.durability.flushed_offset,
        };
        self.load_producers_from(snapshots, rebuild_from)?;
        Ok(recovery)
    }

    fn find_end(&mut self) -> Result<i64, LogError> {
        let environment = &self.environment;
        let active = self.segments.last_mut().expect("load is called with segments");
        active.next_offset(environment)
    }

    /// Cuts what cannot be right off the indexes of aborted transactions, and returns the offset
    /// from which they have to be made anew, if so.
    fn check_transaction_indexes(&mut self) -> Result<Option<i64>, LogError> {
        let mut rebuild_from = None;
        for index in 0..self.segments.len() {
            let next = self.segments.get(index + 1).map(Segment::base_offset);
            let end = next.unwrap_or(self.next_offset);
            let segment = &mut self.segments[index];
            if segment.has_transaction_index()
                && segment.transaction_index().truncate(&self.environment, end)?
            {
                tracing::warn!(
                    log = %self.directory.display(), base_offset = segment.base_offset(),
                    "the index of aborted transactions is damaged and made anew"
                );
                rebuild_from = rebuild_from.or(Some(segment.base_offset()));
            }
        }
        Ok(rebuild_from)
    }

    /// Checks everything behind the recovery point and cuts at the first damage.
    fn recover(&mut self, recovery_point: i64) -> Result<Recovery, LogError> {
        let environment = self.environment.clone();
        let mut recovery = Recovery::default();
        let first_index = self.segment_index(recovery_point);
        let mut next_offset = self.segments[first_index].base_offset();
        let mut kept = first_index;
        while kept < self.segments.len() {
            let base_offset = self.segments[kept].base_offset();
            // Kafka's cleaner may drop the last batches of a segment, be it long ago.
            let may_be_sparse = self.config.cleanup.compact
                || self.first_dirty.is_some_and(|first_dirty| base_offset <= first_dirty);
            let is_hole = kept > first_index
                && (base_offset < next_offset || (base_offset > next_offset && !may_be_sparse));
            if is_hole {
                break;
            }
            next_offset = base_offset;
            let cut =
                self.recover_segment(kept, recovery_point, &mut next_offset, &mut recovery)?;
            kept += 1;
            if cut {
                break;
            }
        }
        // From the end: a crash on the way leaves no hole.
        while self.segments.len() > kept {
            recovery.cut_bytes += self.active().size(&environment)?;
            let delay_ms = self.config.file_delete_delay_ms;
            self.active().delete(&environment, delay_ms)?;
            self.segments.pop();
            self.durability.add_directory(&self.directory.clone());
        }
        self.next_offset = next_offset;
        recovery.lost_synced_records = next_offset < recovery_point;
        if recovery.lost_synced_records {
            tracing::error!(
                log = %self.directory.display(), recovery_point, end = next_offset,
                cut_bytes = recovery.cut_bytes, "synced records are damaged and were cut"
            );
        } else if recovery.cut_bytes > 0 {
            tracing::warn!(
                log = %self.directory.display(), end = next_offset, cut_bytes = recovery.cut_bytes,
                "cut what a crash left behind the last whole batch"
            );
        }
        Ok(recovery)
    }

    /// Recovers one segment; returns whether it was cut.
    fn recover_segment(
        &mut self,
        index: usize,
        recovery_point: i64,
        next_offset: &mut i64,
        recovery: &mut Recovery,
    ) -> Result<bool, LogError> {
        let environment = self.environment.clone();
        let segment = &mut self.segments[index];
        let file = segment.file(&environment)?;
        let end = file.len()?;
        let begin = segment.begin_recovery(&environment, recovery_point)?;
        let mut scan = Scan::new(&file, begin, end, VERIFY_WINDOW);
        let damage = loop {
            let found = match scan.next() {
                Ok(None) => break None,
                Ok(Some(found)) => found,
                Err(ScanError::NoBatch { reason, .. }) => break Some(reason.to_string()),
                Err(error) => return Err(error.in_file(&file)),
            };
            let header = &found.header;
            let expected = *next_offset;
            if header.base_offset.0 < expected || !segment.can_hold(header.last_offset().0) {
                break Some(format!("offset {} after {expected}", header.base_offset));
            }
            match scan.verify_crc(&found) {
                Ok(()) => {}
                Err(ScanError::NoBatch { reason, .. }) => break Some(reason.to_string()),
                Err(error) => return Err(error.in_file(&file)),
            }
            segment.enter(&environment, facts(&found), self.config.index_interval_bytes);
            self.durability.epochs_changed |=
                self.epochs.assign(header.leader_epoch.0, header.base_offset.0);
            *next_offset = header.next_offset().0;
        };
        let whole = segment.size(&environment)?;
        recovery.verified_bytes += whole - begin;
        if let Some(reason) = &damage {
            tracing::warn!(
                file = %segment.log_path().display(), position = whole, reason,
                "no whole batch here"
            );
            file.set_len(whole)?;
            // Otherwise a second crash could bring the damage back, in a segment that recovery has
            // no reason to look at if a new one was begun meanwhile.
            file.sync_all()?;
            recovery.cut_bytes += end - whole;
            if whole == begin {
                // Not even the batch to begin with was intact: the one before it is the last.
                *next_offset = segment.next_offset(&environment)?;
            }
            segment.truncate_transaction_index(&environment, *next_offset)?;
        }
        // It may be a sealed segment now, or again.
        for index in segment.finish_indexes(&environment)? {
            self.durability.add_closed_file(index.path());
        }
        self.durability.add_closed_file(file.path());
        self.durability.add_directory(&self.directory.clone());
        Ok(damage.is_some())
    }

    /// Finds the epochs in the headers of all batches, because their file is of no use.
    fn rebuild_epochs(&mut self) -> Result<(), LogError> {
        let environment = self.environment.clone();
        let log_start = self.log_start;
        let mut epochs = LeaderEpochs::default();
        for segment in &mut self.segments {
            segment.for_each_batch(&environment, log_start, |_, found| {
                epochs.assign(found.header.leader_epoch.0, found.header.base_offset.0);
                Ok(())
            })?;
        }
        epochs.truncate_start(log_start);
        self.epochs = epochs;
        self.durability.epochs_changed = true;
        Ok(())
    }
}

/// Lists what belongs to the log and clears away the rest.
fn read_directory(environment: &Environment, directory: &Path) -> Result<Content, LogError> {
    let disk = &environment.disk;
    let entries = match disk.list(directory) {
        Ok(entries) => entries,
        Err(error) if error.is_not_found() => {
            disk.create_dir_all(directory)?;
            return Ok(Content::default());
        }
        Err(error) => return Err(error.into()),
    };
    let entries = match cleaner::finish_swaps(environment, directory, &entries)? {
        true => disk.list(directory)?,
        false => entries,
    };
    let mut content = Content::default();
    let mut indexes = Vec::new();
    for entry in entries.iter().filter(|entry| entry.kind == EntryKind::File) {
        let name = entry.name.as_str();
        let is_leftover = [names::DELETED_SUFFIX, names::CLEANED_SUFFIX, names::TEMPORARY_SUFFIX]
            .iter()
            .any(|suffix| name.ends_with(suffix));
        if is_leftover {
            disk.remove_file(&directory.join(name))?;
            continue;
        }
        content.is_sync_failed |= name == SYNC_FAILED;
        match names::parse_file_name(name) {
            Some((offset, FileKind::Log)) => content.segments.push(offset),
            Some((offset, FileKind::ProducerSnapshot)) => content.snapshots.push(offset),
            Some((offset, kind)) => {
                indexes.push((offset, name));
                if kind == FileKind::TransactionIndex {
                    content.transaction_indexes.push(offset);
                }
            }
            None => {}
        }
    }
    content.segments.sort_unstable();
    content.snapshots.sort_unstable();
    for (offset, name) in indexes {
        if content.segments.binary_search(&offset).is_err() {
            tracing::warn!(directory = %directory.display(), name, "removing an index without a log");
            disk.remove_file(&directory.join(name))?;
        }
    }
    Ok(content)
}

/// Reads the epochs; `None` when the file makes no sense, as after a crash on some file systems.
fn read_epochs(
    environment: &Environment,
    directory: &Path,
) -> Result<Option<LeaderEpochs>, LogError> {
    let path = directory.join(checkpoint::LEADER_EPOCHS);
    match checkpoint::read_epochs(&*environment.disk, &path) {
        Ok(entries) => Ok(Some(LeaderEpochs::from_entries(entries))),
        Err(error @ LogError::Malformed { .. }) => {
            tracing::warn!(%error, "finding the leader epochs in the log");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
