//! The state of one log, and plain questions to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fleuve_os::File;
use fleuve_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TopicPartition, Uuid};

use crate::config::LogConfig;
use crate::environment::{Environment, Holding, OpenFiles};
use crate::error::LogError;
use crate::leader_epochs::{EpochEnd, LeaderEpochs};
use crate::producers::{ProducerState, ProducerView, VerificationGuard, Verifications};
use crate::segment::{AbortedTransaction, Segment};
use crate::tail_cache::TailWindow;

/// The log of one partition.
///
/// A plain machine: no locks, no threads. The caller keeps it behind a mutex, and takes what is
/// slow out from under it: [`ReadPlan`](super::ReadPlan) for reads, [`FlushJob`](super::FlushJob)
/// for flushes.
///
/// Invariants:
///
/// - There is always a last segment, the active one; segments ascend by base offset.
/// - `log_start <= next_offset`, `recovery_point <= flushed_offset <= next_offset`.
/// - Producers, epochs and caches describe exactly the records up to `next_offset`.
#[derive(Debug)]
pub struct Log {
    pub(crate) environment: Environment,
    pub(crate) partition: TopicPartition,
    pub(crate) directory: PathBuf,
    pub(super) topic_id: Option<Uuid>,
    pub(crate) config: Arc<LogConfig>,
    pub(crate) segments: Vec<Segment>,
    pub(crate) log_start: i64,
    pub(crate) next_offset: i64,
    /// Where the next compaction begins; `None` before the first.
    pub(crate) first_dirty: Option<i64>,
    /// Whether a compaction is under way.
    pub(crate) is_cleaning: bool,
    pub(super) epochs: LeaderEpochs,
    pub(crate) producers: ProducerState,
    pub(super) verifications: Verifications,
    /// Offset of the newest snapshot of the producers.
    pub(crate) snapshot_offset: Option<i64>,
    pub(crate) tail: TailWindow,
    pub(crate) durability: Durability,
}

/// What is durable, and what waits for it.
#[derive(Debug, Default)]
pub(crate) struct Durability {
    /// Records before this survive a power failure.
    pub(crate) flushed_offset: i64,
    /// Records before this, their index entries and their epochs do: recovery begins here.
    pub(super) recovery_point: i64,
    /// Files with writes that were not synced, held open because more will follow: the active
    /// segment's.
    pub(super) files: Vec<Arc<dyn File>>,
    /// The right to do so; there are fewer than there may be logs.
    pub(super) holding: Option<Holding>,
    /// Other files with writes that were not synced. They are opened again for it, so that logs
    /// that nobody flushes, or thousands after a crash, do not use up the descriptors. The kernel
    /// reports an earlier write error to the new descriptor too.
    pub(super) closed_files: Vec<PathBuf>,
    /// Directories with names that were not synced.
    pub(super) directories: Vec<PathBuf>,
    /// Whether epochs were assigned or cut since they were last stored.
    pub(super) epochs_changed: bool,
    /// Whether a flush is under way.
    pub(super) is_flushing: bool,
    /// Counts truncations: a flush begun before one proves nothing about what came after.
    pub(crate) truncations: u64,
    /// Files whose writes a sync may have lost for want of space: they are written again before
    /// anything else is.
    pub(super) lost: Option<Vec<PathBuf>>,
    /// Whether a file says that a sync has failed.
    pub(super) is_marked: bool,
    /// Why the log takes no more records.
    pub(crate) failure: Option<String>,
}

impl Durability {
    pub(super) fn add_file(&mut self, open_files: &Arc<OpenFiles>, file: Arc<dyn File>) {
        // Nearly always it is the active segment again, added last.
        if self.files.iter().rev().any(|known| Arc::ptr_eq(known, &file)) {
            return;
        }
        self.holding = self.holding.take().or_else(|| open_files.holding());
        match self.holding {
            Some(_) => self.files.push(file),
            None => self.add_closed_file(file.path()),
        }
    }

    pub(super) fn add_closed_file(&mut self, path: &Path) {
        if !self.closed_files.iter().any(|known| known == path) {
            self.closed_files.push(path.to_owned());
        }
    }

    /// Reports whether anything waits to be synced.
    pub(super) fn is_dirty(&self) -> bool {
        !(self.files.is_empty() && self.closed_files.is_empty() && self.directories.is_empty())
    }

    pub(crate) fn add_directory(&mut self, directory: &Path) {
        if !self.directories.iter().any(|known| known == directory) {
            self.directories.push(directory.to_owned());
        }
    }
}

impl Log {
    /// Returns which partition this is the log of.
    pub fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// Returns the directory of the log.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the id of the topic, as far as it is on disk.
    pub fn topic_id(&self) -> Option<Uuid> {
        self.topic_id
    }

    /// Returns the settings in force.
    pub fn config(&self) -> &Arc<LogConfig> {
        &self.config
    }

    /// Puts other settings in force, from the next append on.
    pub fn set_config(&mut self, config: Arc<LogConfig>) {
        self.config = config;
    }

    /// Returns the first offset that can be read.
    pub fn log_start_offset(&self) -> Offset {
        Offset(self.log_start)
    }

    /// Returns the offset that the next record will get.
    pub fn log_end_offset(&self) -> Offset {
        Offset(self.next_offset)
    }

    /// Returns the offset before which all records survive a power failure.
    pub fn flushed_offset(&self) -> Offset {
        Offset(self.durability.flushed_offset)
    }

    /// Returns the offset from which recovery would have to look, for the checkpoint.
    pub fn recovery_point(&self) -> Offset {
        Offset(self.durability.recovery_point)
    }

    /// Returns the first offset of the oldest transaction that is open or whose marker is not below
    /// the high watermark: a consumer that reads committed records stops here, or at the high
    /// watermark if that comes first.
    pub fn first_unstable_offset(&self) -> Option<Offset> {
        // Of a transaction that began in records deleted meanwhile the rest is left.
        self.producers.first_unstable_offset().map(|offset| Offset(offset.max(self.log_start)))
    }

    /// Takes note of the high watermark; reports whether that has decided a transaction, so that
    /// more may have become stable than the records just passed.
    pub fn note_high_watermark(&mut self, high_watermark: Offset) -> bool {
        self.producers.note_high_watermark(high_watermark.0)
    }

    /// Returns the aborted transactions that reach into the records from `offset` to before `end`,
    /// in the order of their markers.
    pub fn aborted_transactions(
        &mut self,
        offset: Offset,
        end: Offset,
    ) -> Result<Vec<AbortedTransaction>, LogError> {
        let environment = self.environment.clone();
        let mut found = Vec::new();
        let first_index = self.segment_index(offset.0);
        for segment in &mut self.segments[first_index..] {
            if segment.collect_aborted(&environment, offset.0, end.0, &mut found)? {
                break;
            }
        }
        Ok(found)
    }

    /// Reports whether there may be aborted transactions from `offset` on.
    pub fn may_have_aborted_transactions(&self, offset: Offset) -> bool {
        let first_index = self.segment_index(offset.0);
        self.segments[first_index..].iter().any(Segment::has_transaction_index)
    }

    /// Prepares for the first batch of a producer's transaction, with the sequence that it will
    /// begin with; `None` when its transaction is open, and nothing has to be asked.
    ///
    /// `bumps_epoch` tells a client whose epoch grows with each transaction.
    pub fn begin_verification(
        &mut self,
        producer_id: ProducerId,
        epoch: ProducerEpoch,
        sequence: i32,
        bumps_epoch: bool,
    ) -> Option<VerificationGuard> {
        if self.producers.has_open_transaction(producer_id.0, epoch.0) {
            return None;
        }
        let now_ms = self.environment.clock.wall_ms();
        let verifications = &mut self.verifications;
        Some(verifications.begin(producer_id.0, epoch.0, sequence, bumps_epoch, now_ms))
    }

    /// Returns where the next compaction begins; `None` before the first.
    pub fn first_dirty_offset(&self) -> Option<Offset> {
        self.first_dirty.map(Offset)
    }

    /// Reports whether a compaction is under way.
    pub fn is_being_compacted(&self) -> bool {
        self.is_cleaning
    }

    /// Returns the epoch of the last leader that wrote to the log.
    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs.latest().map(LeaderEpoch)
    }

    /// Returns where `epoch` ended when the leader's is `current`, written in or not; `None` when
    /// the epoch is unknown.
    pub fn end_offset_for(&self, epoch: LeaderEpoch, current: LeaderEpoch) -> Option<EpochEnd> {
        self.epochs.end_of(epoch.0, current.0, self.next_offset)
    }

    /// Returns the epoch in which the record at `offset` was written.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.epochs.epoch_at(offset.0).map(LeaderEpoch)
    }

    /// Returns what is known of the producers, in no order.
    pub fn producers(&self) -> impl Iterator<Item = ProducerView> + '_ {
        self.producers.views()
    }

    /// Forgets producers that have been idle for `producer.id.expiration.ms`.
    pub fn expire_producers(&mut self) {
        let now_ms = self.environment.clock.wall_ms();
        self.producers.expire(now_ms, self.config.producer_id_expiration_ms);
        self.verifications.expire(now_ms, self.config.producer_id_expiration_ms);
    }

    /// Returns the bytes of all segments, indexes not counted.
    pub fn size(&mut self) -> Result<u64, LogError> {
        let mut size = 0;
        for segment in &mut self.segments {
            size += segment.size(&self.environment)?;
        }
        Ok(size)
    }

    /// Returns the base offsets of the segments, oldest first.
    pub fn segment_offsets(&self) -> Vec<Offset> {
        self.segments.iter().map(|segment| Offset(segment.base_offset())).collect()
    }

    /// Returns why the log takes no more records, if so.
    pub fn failure(&self) -> Option<&str> {
        self.durability.failure.as_deref()
    }

    pub(crate) fn check_usable(&self) -> Result<(), LogError> {
        match &self.durability.failure {
            None => Ok(()),
            Some(reason) => {
                Err(LogError::Failed { directory: self.directory.clone(), reason: reason.clone() })
            }
        }
    }

    /// Takes no more records from now on, because of `error`, unless it only says that the disk is
    /// full or that too many files are open.
    pub(crate) fn fail_unless_full(&mut self, error: &LogError) {
        if error.is_passing() || self.durability.failure.is_some() {
            return;
        }
        tracing::error!(
            log = %self.directory.display(), %error,
            "the log takes no more records until reopened"
        );
        self.durability.failure = Some(error.to_string());
    }

    pub(super) fn active(&mut self) -> &mut Segment {
        self.segments.last_mut().expect("a log always has a segment")
    }

    /// Returns the index of the segment that would hold `offset`.
    pub(super) fn segment_index(&self, offset: i64) -> usize {
        let after = self.segments.partition_point(|segment| segment.base_offset() <= offset);
        after.saturating_sub(1)
    }
}
