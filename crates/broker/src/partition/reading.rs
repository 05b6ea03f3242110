//! What can be read of a partition, and what its log tells of offsets, epochs and times.

use bytes::Bytes;
use fleuve_storage::{AbortedTransaction, LocatedRecords, LogError, ReadPlan, ReadRequest};
use fleuve_types::{LeaderEpoch, Offset, TimestampMs};

use super::Partition;

/// Reads of more than this leave their thread to others meanwhile, as they may wait for a disk.
const QUICK_READ_BYTES: usize = 16 * 1024;
/// The same for a read that most probably does not reach the disk.
const CACHED_READ_BYTES: usize = 4 << 20;

/// An offset with the time and epoch of its record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimedOffset {
    pub(crate) timestamp: i64,
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
}

impl Partition {
    /// Reads whole batches from `offset` on, at most `bytes_max` of them unless `whole_first`
    /// asks for one at any size, and none that reaches `limit_offset`.
    pub(crate) fn read(
        &self,
        offset: i64,
        bytes_max: usize,
        limit_offset: i64,
        whole_first: bool,
    ) -> Result<Vec<Bytes>, LogError> {
        let run = |plan: ReadPlan| Ok(plan.run()?.into_parts());
        self.read_by(offset, bytes_max, limit_offset, whole_first, run)
    }

    /// Like [`Self::read`], but leaves large batches in their file.
    pub(crate) fn locate(
        &self,
        offset: i64,
        bytes_max: usize,
        limit_offset: i64,
        whole_first: bool,
    ) -> Result<LocatedRecords, LogError> {
        self.read_by(offset, bytes_max, limit_offset, whole_first, ReadPlan::locate)
    }

    fn read_by<T: Default>(
        &self,
        offset: i64,
        bytes_max: usize,
        limit_offset: i64,
        whole_first: bool,
        run: impl FnOnce(ReadPlan) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        // Consumers at the end of the log ask all the time; they need no lock to hear "nothing".
        if offset == limit_offset && offset == self.high_watermark() && !self.is_offline() {
            return Ok(T::default());
        }
        self.watching(|| {
            let plan = self.usable(&mut self.state.lock().log)?.plan_read(ReadRequest {
                offset: Offset(offset),
                limit_offset: Offset(limit_offset),
                max_bytes: bytes_max,
                min_one_batch: whole_first,
            })?;
            let length = plan.max_len();
            let is_quick = plan.is_in_memory()
                || length <= QUICK_READ_BYTES
                || length <= CACHED_READ_BYTES && plan.is_cached();
            if is_quick || !may_block_in_place() {
                return run(plan);
            }
            tokio::task::block_in_place(|| run(plan))
        })
    }

    /// Does `work` and has the data directory looked at if the disk refuses.
    fn watching<T>(&self, work: impl FnOnce() -> Result<T, LogError>) -> Result<T, LogError> {
        work().inspect_err(|error| {
            if matches!(error, LogError::Disk(_)) && !error.is_passing() {
                self.surroundings.disk_trouble.notify_one();
            }
        })
    }

    /// Where `epoch` ended, and the epoch itself or the last one before it; `None` if neither is
    /// known.
    pub(crate) fn end_of_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        let state = self.state.lock();
        let current = LeaderEpoch(self.leader_epoch());
        let end = state.log.as_ref()?.end_offset_for(LeaderEpoch(epoch), current)?;
        Some((end.epoch.0, end.end_offset.0))
    }

    /// The epoch in which the record at `offset` was written, or would be at the end of the log;
    /// -1 if unknown.
    pub(crate) fn epoch_at(&self, offset: i64) -> i32 {
        let state = self.state.lock();
        let Some(log) = &state.log else { return -1 };
        if offset == log.log_end_offset().0 {
            return self.leader_epoch();
        }
        log.epoch_at(Offset(offset)).map_or(-1, |epoch| epoch.0)
    }

    /// The first record that is not older than `timestamp`.
    pub(crate) fn offset_for_timestamp(
        &self,
        timestamp: i64,
    ) -> Result<Option<TimedOffset>, LogError> {
        let found = self.watching(|| {
            self.usable(&mut self.state.lock().log)?.offset_for_timestamp(TimestampMs(timestamp))
        })?;
        Ok(found.map(TimedOffset::from))
    }

    /// The record with the highest timestamp.
    pub(crate) fn offset_of_max_timestamp(&self) -> Result<Option<TimedOffset>, LogError> {
        let found = self.usable(&mut self.state.lock().log)?.offset_of_max_timestamp()?;
        Ok(found.map(TimedOffset::from))
    }

    /// The aborted transactions that reach into the records from `offset` to before `end`.
    pub(crate) fn aborted_transactions(
        &self,
        offset: i64,
        end: i64,
    ) -> Result<Vec<AbortedTransaction>, LogError> {
        let mut state = self.state.lock();
        self.usable(&mut state.log)?.aborted_transactions(Offset(offset), Offset(end))
    }

    /// Reports whether transactions may have been aborted from `offset` on.
    pub(crate) fn may_have_aborted_transactions(&self, offset: i64) -> bool {
        let state = self.state.lock();
        state.log.as_ref().is_some_and(|log| log.may_have_aborted_transactions(Offset(offset)))
    }
}

impl From<fleuve_storage::TimestampedOffset> for TimedOffset {
    fn from(found: fleuve_storage::TimestampedOffset) -> Self {
        Self {
            timestamp: found.timestamp.0,
            offset: found.offset.0,
            leader_epoch: found.leader_epoch.0,
        }
    }
}

/// Reports whether the runtime has other threads to go on with.
pub(crate) fn may_block_in_place() -> bool {
    tokio::runtime::Handle::try_current()
        .is_ok_and(|handle| handle.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread)
}
