//! Drives the controller: decisions become records of `__cluster_metadata`, and records, once
//! durable, become the image that requests see.
//!
//! Changes happen one after the other. Each runs in a task of its own, so that a client that goes
//! away does not leave one half done.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use fleuve_metadata::checkpoint::{self, CheckpointId, Voter};
use fleuve_metadata::config::MetadataLogSettings;
use fleuve_metadata::controller::{
    AlterConfigsError, Controller, CreatePartitionsError, CreateTopicError, CreatedTopic, Decision,
    DeleteTopicError, DeletedTopic,
};
use fleuve_metadata::image::{ApplyError, Change, Image};
use fleuve_metadata::record::{DecodeRecordError, Record};
use fleuve_os::{Clock, Disk, DiskError};
use fleuve_protocol::EncodeError;
use fleuve_protocol::records::{BatchBuilder, BatchOptions, NewRecord};
use fleuve_types::{LeaderEpoch, Offset, TimestampMs};
use parking_lot::RwLock;
use tokio::sync::{Mutex, MutexGuard};

use crate::metadata_store;
use crate::metrics::Distribution;
use crate::partition::Partition;
use crate::purgatory::{AckWait, Purgatory};
use crate::replay::ReplayError;

/// Why a change of metadata was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MetadataError {
    #[error("the metadata log cannot be written: {0}")]
    Append(#[from] fleuve_storage::AppendError),
    #[error("the metadata log takes no more records until the broker restarts")]
    Failed,
    #[error("the change cannot be written down: {0}")]
    Encode(#[from] EncodeError),
    #[error("the change does not fit: {0}")]
    Apply(#[from] ApplyError),
    #[error("the broker is stopping")]
    Stopped,
}

/// Why a topic was not created when somebody asked about it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AutoCreateError {
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error(transparent)]
    Refused(#[from] CreateTopicError),
}

/// Why a checkpoint was not written, or what it replaces not removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckpointFailure {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Log(#[from] fleuve_storage::LogError),
    #[error("a record cannot be written: {0}")]
    Encode(#[from] EncodeError),
}

/// Why the metadata log could not be read at the start.
#[derive(Debug, thiserror::Error)]
pub enum MetadataReplayError {
    /// The log itself cannot be read.
    #[error("the metadata log cannot be read: {0}")]
    Read(String),
    /// A record cannot be read.
    #[error("the metadata record at offset {offset} cannot be read: {error}")]
    Decode {
        /// Where it stands.
        offset: Offset,
        /// What is wrong.
        error: DecodeRecordError,
    },
    /// A record does not fit those before it.
    #[error("the metadata record at offset {offset} does not fit: {error}")]
    Apply {
        /// Where it stands.
        offset: Offset,
        /// What is wrong.
        error: ApplyError,
    },
}

impl From<ReplayError> for MetadataReplayError {
    fn from(error: ReplayError) -> Self {
        Self::Read(error.to_string())
    }
}

/// The metadata log with its machine.
#[derive(Debug)]
pub(crate) struct MetadataLog {
    partition: Arc<Partition>,
    clock: Arc<dyn Clock>,
    purgatory: Arc<Purgatory>,
    controller: Mutex<Controller>,
    image: RwLock<Arc<Image>>,
    checkpoints: CheckpointState,
    /// How long changes took to become durable.
    pub(crate) commit_times: Distribution,
}

/// How much of the log no checkpoint holds.
#[derive(Debug)]
struct CheckpointState {
    /// Where the newest checkpoint ends; negative if there is none.
    end_offset: AtomicI64,
    /// When it was written, or when the broker started.
    written_ms: AtomicI64,
    /// The bytes of records behind it.
    bytes_behind: AtomicU64,
}

/// What was found in the log when it was opened.
pub(crate) struct FoundRecords<'a> {
    /// The newest checkpoint.
    pub(crate) checkpoint: Option<CheckpointId>,
    /// Its records, then those behind it.
    pub(crate) records: &'a [(Offset, Record)],
    /// The bytes of the latter.
    pub(crate) bytes_behind: u64,
}

/// The right to make a change: nobody else can while it is held.
pub(crate) struct Changing<'a> {
    log: &'a MetadataLog,
    controller: MutexGuard<'a, Controller>,
}

impl MetadataLog {
    /// Applies the records that were found in the log.
    pub(crate) fn replay(
        partition: Arc<Partition>,
        found: &FoundRecords<'_>,
        mut controller: Controller,
        clock: Arc<dyn Clock>,
        purgatory: Arc<Purgatory>,
    ) -> Result<Self, MetadataReplayError> {
        for (offset, record) in found.records {
            controller
                .apply(record)
                .map_err(|error| MetadataReplayError::Apply { offset: *offset, error })?;
        }
        let image = RwLock::new(Arc::new(controller.image().clone()));
        let checkpoints = CheckpointState {
            end_offset: AtomicI64::new(found.checkpoint.map_or(-1, |id| id.end_offset.0)),
            written_ms: AtomicI64::new(clock.wall_ms()),
            bytes_behind: AtomicU64::new(found.bytes_behind),
        };
        let controller = Mutex::new(controller);
        Ok(Self {
            partition,
            clock,
            purgatory,
            controller,
            image,
            checkpoints,
            commit_times: Distribution::default(),
        })
    }

    /// The image as of the last change.
    pub(crate) fn image(&self) -> Arc<Image> {
        Arc::clone(&self.image.read())
    }

    /// The offset up to which the image is made of records.
    pub(crate) fn end_offset(&self) -> i64 {
        self.partition.log_end_offset()
    }

    /// The partition that holds the records.
    pub(crate) fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    /// Waits for its turn to change something.
    pub(crate) async fn begin(&self) -> Changing<'_> {
        Changing { log: self, controller: self.controller.lock().await }
    }
}

impl MetadataLog {
    /// Writes a checkpoint if it is time for one, and gives up what is too old or too much; blocks.
    pub(crate) fn keep_checkpoints(
        &self,
        (disk, directory): (&dyn Disk, &Path),
        settings: &MetadataLogSettings,
        voter: &Voter,
    ) -> Result<(), CheckpointFailure> {
        let now_ms = self.clock.wall_ms();
        let state = &self.checkpoints;
        let age_ms = now_ms.saturating_sub(state.written_ms.load(Ordering::Relaxed));
        let too_old = settings.checkpoint_interval_ms.is_some_and(|most| age_ms >= most as i64);
        let bytes = state.bytes_behind.load(Ordering::Relaxed);
        let is_due = bytes >= settings.checkpoint_bytes || (bytes > 0 && too_old);
        if !is_due || self.partition.has_failed() {
            return Ok(());
        }
        let begun = Instant::now();
        // Under the lock nobody has appended what the image lacks.
        let (image, end_offset) = {
            let controller = self.controller.blocking_lock();
            state.bytes_behind.store(0, Ordering::Relaxed);
            (controller.image().clone(), Offset(self.partition.high_watermark()))
        };
        let id = CheckpointId { end_offset, epoch: LeaderEpoch(self.partition.leader_epoch()) };
        state.written_ms.store(now_ms, Ordering::Relaxed);
        let batches = checkpoint::encode(id, image.snapshot(), voter, TimestampMs(now_ms))?;
        metadata_store::write(disk, directory, id, &batches)?;
        state.end_offset.store(end_offset.0, Ordering::Relaxed);
        let size: usize = batches.iter().map(Bytes::len).sum();
        tracing::info!(%id, size, took = ?begun.elapsed(), "metadata checkpoint written");

        let log_bytes = self.partition.size()?;
        let (expired, begin) =
            metadata_store::find_expired(disk, directory, log_bytes, settings, now_ms)?;
        metadata_store::remove(disk, directory, &expired)?;
        if let Some(begin) = begin {
            self.partition.delete_records_to(begin.0)?;
            self.partition.enforce_retention()?;
        }
        Ok(())
    }

    /// Writes the checkpoint that a new log begins with, which names the quorum's only voter;
    /// Kafka's `storage format --standalone` leaves the same. Blocks.
    pub(crate) fn found(
        &self,
        (disk, directory): (&dyn Disk, &Path),
        voter: &Voter,
    ) -> Result<(), CheckpointFailure> {
        let state = &self.checkpoints;
        let is_new =
            self.partition.log_end_offset() == 0 && state.end_offset.load(Ordering::Relaxed) < 0;
        if !is_new {
            return Ok(());
        }
        let id = CheckpointId { end_offset: Offset(0), epoch: LeaderEpoch(0) };
        let now = TimestampMs(self.clock.wall_ms());
        let batches = checkpoint::encode(id, std::iter::empty(), voter, now)?;
        metadata_store::write(disk, directory, id, &batches)?;
        state.end_offset.store(0, Ordering::Relaxed);
        Ok(())
    }
}

impl Changing<'_> {
    /// The machine, to ask for a decision.
    pub(crate) fn controller(&self) -> &Controller {
        &self.controller
    }

    /// Where the first record of the next change will stand.
    pub(crate) fn next_offset(&self) -> Offset {
        Offset(self.log.partition.log_end_offset())
    }

    /// Makes a decision come true and returns its reply with what changed.
    pub(crate) async fn carry_out<T>(
        &mut self,
        decision: Decision<T>,
    ) -> Result<(T, Vec<Change>), MetadataError> {
        if decision.records.is_empty() {
            return Ok((decision.reply, Vec::new()));
        }
        let batch = self.log.encode(&decision.records)?;
        let partition = &self.log.partition;
        let bytes = batch.len() as u64;
        let begun = Instant::now();
        let appended = partition.append_internal(batch)?;
        if partition.high_watermark() < appended.next_offset {
            let wait = AckWait::new(&self.log.purgatory, 1);
            partition.wait_for(appended.next_offset, &wait);
            // Without a limit: giving up would leave records in the log that the image lacks.
            wait.done().await;
            if partition.has_failed() {
                return Err(MetadataError::Failed);
            }
        }
        self.log.commit_times.record(begun.elapsed());
        let mut changes = Vec::with_capacity(decision.records.len());
        for record in &decision.records {
            changes.push(self.controller.apply(record)?);
        }
        self.log.checkpoints.bytes_behind.fetch_add(bytes, Ordering::Relaxed);
        *self.log.image.write() = Arc::new(self.controller.image().clone());
        Ok((decision.reply, changes))
    }
}

impl MetadataLog {
    fn encode(&self, records: &[Record]) -> Result<Bytes, MetadataError> {
        let timestamp = TimestampMs(self.clock.wall_ms());
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for record in records {
            let value = record.encode()?;
            let record = NewRecord { timestamp, key: None, value: Some(&value), headers: &[] };
            builder.append(&record).map_err(|error| {
                // A decision is limited to far less than a batch can hold.
                tracing::error!(%error, "a change of metadata is too large");
                MetadataError::Append(fleuve_storage::AppendError::Empty)
            })?;
        }
        Ok(builder.finish())
    }
}

/// Reads a record of the metadata log.
pub(crate) fn decode(offset: Offset, value: Option<Bytes>) -> Result<Record, MetadataReplayError> {
    Record::decode(value.unwrap_or_default())
        .map_err(|error| MetadataReplayError::Decode { offset, error })
}

/// Reports whether a topic may have this name at all.
pub(crate) fn is_valid_topic_name(name: &str) -> bool {
    const LENGTH_MAX: usize = 249;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !matches!(name, "" | "." | "..") && name.len() <= LENGTH_MAX && name.bytes().all(legal)
}

/// What the controller answers to a list of requests.
pub(crate) type Results<T, E> = Result<Vec<Result<T, E>>, MetadataError>;

pub(crate) type CreateTopicResults = Results<CreatedTopic, CreateTopicError>;
pub(crate) type DeleteTopicResults = Results<DeletedTopic, DeleteTopicError>;
pub(crate) type CreatePartitionsResults = Results<(), CreatePartitionsError>;
pub(crate) type AlterConfigsResults = Results<(), AlterConfigsError>;
