//! One partition: its log behind a lock, and the offsets everybody looks at beside it.
//!
//! The high watermark says what consumers may see and what `acks=all` waits for. With
//! `fleuve.flush.before.ack` it follows the flushes: an append asks the flusher for one and goes
//! on, and whoever flushed moves the high watermark. Without, it is the end of the log at once,
//! as in a Kafka partition with one replica.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicUsize, Ordering};

use bytes::Bytes;
use fleuve_storage::{
    AbortedTransaction, Append, AppendError, CleanError, CleanOutcome, Cleaner, Dirtiness,
    FlushJob, FlushMark, FlushTarget, Flusher, LocatedRecords, Log, LogConfig, LogError, LogPoints,
    Pace, ProducerView, ReadPlan, ReadRequest, SpaceReserve, TransactionCheck, VerificationGuard,
};
use fleuve_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs, TopicPartition};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::purgatory::{AckWait, Waiters};

/// Reads of more than this leave their thread to others meanwhile, as they may wait for a disk.
const QUICK_READ_BYTES: usize = 16 * 1024;
/// The same for a read that most probably does not reach the disk.
const CACHED_READ_BYTES: usize = 4 << 20;

/// A partition that this broker leads.
#[derive(Debug)]
pub(crate) struct Partition {
    name: TopicPartition,
    pub(crate) state: Mutex<State>,
    high_watermark: AtomicI64,
    /// Changed under the lock of the state, and never beyond the high watermark.
    last_stable: AtomicI64,
    log_start: AtomicI64,
    log_end: AtomicI64,
    leader_epoch: AtomicI32,
    failed: AtomicBool,
    gone: AtomicBool,
    /// Whether its data directory has failed.
    offline: AtomicBool,
    /// Whether a flush has found no space, so that it has to be tried again.
    unflushed: AtomicBool,
    /// The log that grows in another data directory to take the present one's place.
    pub(crate) future: Mutex<Option<Log>>,
    flush_mark: FlushMark,
    /// The number of its data directory.
    flush_lane: AtomicUsize,
    surroundings: Surroundings,
    flush_before_ack: bool,
    /// Those who wait for the high watermark.
    pub(crate) waiters: Arc<Waiters>,
}

/// What a partition needs of the broker it lives in.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    /// Weak, so that the broker can end the flusher's threads before it closes the logs.
    pub(crate) flusher: Weak<Flusher>,
    /// `fleuve.flush.before.ack`.
    pub(crate) flush_before_ack: bool,
    /// Told when a disk refused something, so that somebody looks at the data directory.
    pub(crate) disk_trouble: Arc<Notify>,
    /// What is left to ourselves when a disk is full.
    pub(crate) reserve: Arc<SpaceReserve>,
    /// The data directories, each with flushes of its own.
    pub(crate) directories: Arc<[PathBuf]>,
}

impl Surroundings {
    /// The number of the data directory that a log lies in.
    fn lane_of(&self, log: &Log) -> usize {
        let directory = log.directory().parent();
        self.directories.iter().position(|known| Some(&**known) == directory).unwrap_or(0)
    }
}

#[derive(Debug)]
pub(crate) struct State {
    /// None once the topic is deleted or the broker stopped.
    pub(crate) log: Option<Log>,
    /// Bytes appended since the partition was opened; tells how many bytes an advance of the high
    /// watermark makes readable.
    appended_bytes: i64,
    readable_bytes: i64,
    /// Records appended since the last flush, for `flush.messages`.
    unflushed_records: u64,
    /// When the oldest record was appended that is not flushed, for `flush.ms`.
    unflushed_since_ms: Option<i64>,
    /// `appended_bytes` when the flush under way began.
    flushing_bytes: i64,
}

/// What an append did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appended {
    pub(crate) base_offset: i64,
    /// Where the high watermark has to be for the append to be acknowledged.
    pub(crate) next_offset: i64,
    /// The time the records got, or -1 if they keep their own.
    pub(crate) log_append_time_ms: i64,
    pub(crate) log_start_offset: i64,
    pub(crate) is_duplicate: bool,
}

/// An offset with the time and epoch of its record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimedOffset {
    pub(crate) timestamp: i64,
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
}

impl Partition {
    /// Takes over an opened log.
    pub(crate) fn new(mut log: Log, leader_epoch: i32, surroundings: &Surroundings) -> Self {
        let log_end = log.log_end_offset().0;
        let high_watermark = match surroundings.flush_before_ack {
            true => log.flushed_offset().0,
            false => log_end,
        };
        log.note_high_watermark(Offset(high_watermark));
        let stable = last_stable(&log, high_watermark);
        let (start, failed) = (log.log_start_offset().0, log.failure().is_some());
        let lacks_space = log.has_lost_writes();
        let name = log.partition().clone();
        let lane = surroundings.lane_of(&log);
        let partition = Self::with(name, Some(log), leader_epoch, surroundings);
        partition.flush_lane.store(lane, Ordering::Relaxed);
        partition.high_watermark.store(high_watermark, Ordering::Release);
        partition.last_stable.store(stable, Ordering::Release);
        partition.log_start.store(start, Ordering::Release);
        partition.log_end.store(log_end, Ordering::Release);
        partition.failed.store(failed, Ordering::Release);
        partition.unflushed.store(lacks_space, Ordering::Release);
        partition
    }

    /// Makes a partition whose log is out of reach.
    pub(crate) fn offline(
        name: TopicPartition,
        leader_epoch: i32,
        surroundings: &Surroundings,
    ) -> Self {
        let partition = Self::with(name, None, leader_epoch, surroundings);
        partition.failed.store(true, Ordering::Release);
        partition.offline.store(true, Ordering::Release);
        partition
    }

    fn with(
        name: TopicPartition,
        log: Option<Log>,
        leader_epoch: i32,
        surroundings: &Surroundings,
    ) -> Self {
        Self {
            name,
            high_watermark: AtomicI64::new(0),
            last_stable: AtomicI64::new(0),
            log_start: AtomicI64::new(0),
            log_end: AtomicI64::new(0),
            leader_epoch: AtomicI32::new(leader_epoch),
            failed: AtomicBool::new(false),
            offline: AtomicBool::new(false),
            unflushed: AtomicBool::new(false),
            future: Mutex::new(None),
            state: Mutex::new(State {
                log,
                appended_bytes: 0,
                readable_bytes: 0,
                unflushed_records: 0,
                unflushed_since_ms: None,
                flushing_bytes: 0,
            }),
            gone: AtomicBool::new(false),
            flush_mark: FlushMark::default(),
            flush_lane: AtomicUsize::new(0),
            surroundings: surroundings.clone(),
            flush_before_ack: surroundings.flush_before_ack,
            waiters: Arc::default(),
        }
    }

    /// Topic and index.
    pub(crate) fn name(&self) -> &TopicPartition {
        &self.name
    }

    /// The offset below which consumers may read.
    pub(crate) fn high_watermark(&self) -> i64 {
        self.high_watermark.load(Ordering::Acquire)
    }

    /// The offset below which no transaction is undecided: consumers of committed records read so
    /// far. To be asked for before the high watermark, which it then does not exceed.
    pub(crate) fn last_stable_offset(&self) -> i64 {
        self.last_stable.load(Ordering::Acquire)
    }

    /// The first offset there is.
    pub(crate) fn log_start_offset(&self) -> i64 {
        self.log_start.load(Ordering::Acquire)
    }

    /// The offset that the next record gets.
    pub(crate) fn log_end_offset(&self) -> i64 {
        self.log_end.load(Ordering::Acquire)
    }

    /// The number of the present leadership.
    pub(crate) fn leader_epoch(&self) -> i32 {
        self.leader_epoch.load(Ordering::Acquire)
    }

    /// Begins another leadership.
    pub(crate) fn set_leader_epoch(&self, leader_epoch: i32) {
        self.leader_epoch.store(leader_epoch, Ordering::Release);
        self.waiters.wake_fetches();
    }

    /// Reports whether the log takes no more records until the broker restarts.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Reports whether the log is out of reach because its data directory has failed.
    pub(crate) fn is_offline(&self) -> bool {
        self.offline.load(Ordering::Acquire)
    }

    /// Lets go of the log because its data directory has failed, and of its copy elsewhere if one
    /// was growing: the next start takes that up again.
    pub(crate) fn go_offline(&self) {
        self.offline.store(true, Ordering::Release);
        let future = self.future.lock().take();
        let log = self.state.lock().log.take();
        drop((log, future));
        self.note_failure();
    }

    /// Reports whether the topic is deleted.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Appends a client's batches, a slice of a request of `frame_bytes`.
    pub(crate) fn append_from_client(
        self: &Arc<Self>,
        records: Bytes,
        frame_bytes: usize,
        check: TransactionCheck,
    ) -> Result<Appended, AppendError> {
        let epoch = LeaderEpoch(self.leader_epoch());
        let append = Append::from_client(records, epoch);
        let reserve = &self.surroundings.reserve;
        if reserve.is_short_anywhere()
            && let Some(log) = &self.state.lock().log
        {
            reserve.check(log.directory())?;
        }
        self.append(append.in_frame_of(frame_bytes).with_check(check)).inspect_err(|error| {
            if is_out_of_space(error) {
                self.yield_reserve();
            }
        })
    }

    /// Appends batches that this broker made.
    pub(crate) fn append_internal(
        self: &Arc<Self>,
        records: Bytes,
    ) -> Result<Appended, AppendError> {
        let epoch = LeaderEpoch(self.leader_epoch());
        self.append_whatever_it_takes(Append::from_coordinator(records, epoch))
    }

    /// Appends a batch that this broker made in the name of a producer, in its transaction.
    pub(crate) fn append_in_transaction(
        self: &Arc<Self>,
        records: Bytes,
        check: TransactionCheck,
    ) -> Result<Appended, AppendError> {
        let epoch = LeaderEpoch(self.leader_epoch());
        self.append_whatever_it_takes(Append::from_coordinator(records, epoch).with_check(check))
    }

    /// Appends the marker that ends a transaction; `raises_epoch` if that is of version 2.
    pub(crate) fn append_marker(
        self: &Arc<Self>,
        marker: Bytes,
        raises_epoch: bool,
    ) -> Result<Appended, AppendError> {
        let epoch = LeaderEpoch(self.leader_epoch());
        let append = Append::from_coordinator(marker, epoch);
        self.append_whatever_it_takes(append.raising_epoch(raises_epoch))
    }

    /// Prepares for the first batch of a producer's transaction; `None` when the transaction is
    /// open in this partition, and nobody has to be asked.
    pub(crate) fn begin_verification(
        &self,
        producer_id: ProducerId,
        epoch: ProducerEpoch,
        sequence: i32,
        bumps_epoch: bool,
    ) -> Option<VerificationGuard> {
        let mut state = self.state.lock();
        state.log.as_mut()?.begin_verification(producer_id, epoch, sequence, bumps_epoch)
    }

    /// What is known of the producers that write to the partition.
    pub(crate) fn producers(&self) -> Vec<ProducerView> {
        let state = self.state.lock();
        state.log.iter().flat_map(Log::producers).collect()
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

    /// Appends what the broker itself has to write, if need be in the space kept back for it.
    fn append_whatever_it_takes(self: &Arc<Self>, append: Append) -> Result<Appended, AppendError> {
        match self.append(append.clone()) {
            Err(error) if is_out_of_space(&error) && self.yield_reserve() => self.append(append),
            outcome => outcome,
        }
    }

    /// Gives up the space kept back; reports whether there was any.
    fn yield_reserve(&self) -> bool {
        let directory = self.state.lock().log.as_ref().map(|log| log.directory().to_owned());
        directory.is_some_and(|directory| self.surroundings.reserve.yield_to(&directory))
    }

    fn append(self: &Arc<Self>, append: Append) -> Result<Appended, AppendError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let log = self.usable(&mut state.log)?;
        let appended = match log.append(append) {
            Ok(appended) => appended,
            Err(error) => {
                let failed = log.failure().is_some();
                drop(guard);
                if failed {
                    self.note_failure();
                }
                return Err(error);
            }
        };
        state.appended_bytes += appended.bytes as i64;
        let log_end = log.log_end_offset().0;
        self.log_end.store(log_end, Ordering::Release);
        let mut flush = false;
        if !appended.is_duplicate {
            state.unflushed_records += appended.record_count;
            flush = self.flush_before_ack
                || state.unflushed_records >= log.config().flush_messages as u64;
        }
        let bytes = state.appended_bytes - state.readable_bytes;
        let mut has_decided = false;
        if !self.flush_before_ack {
            state.readable_bytes = state.appended_bytes;
            has_decided = self.raise(log, log_end);
        }
        drop(guard);
        if !self.flush_before_ack && !appended.is_duplicate {
            self.tell(log_end, bytes, has_decided);
        }
        if flush {
            self.request_flush();
        }
        Ok(Appended {
            base_offset: appended.first_offset.0,
            next_offset: appended.last_offset.0 + 1,
            log_append_time_ms: appended.log_append_time.map_or(-1, |time| time.0),
            log_start_offset: appended.log_start_offset.0,
            is_duplicate: appended.is_duplicate,
        })
    }

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

    /// Lets `wait` know once the high watermark has reached `offset`.
    pub(crate) fn wait_for(&self, offset: i64, wait: &Arc<AckWait>) {
        self.waiters.add_ack(offset, Arc::clone(wait));
        if self.has_failed() {
            self.waiters.wake_all();
        } else if self.high_watermark() >= offset {
            self.waiters.advanced(self.high_watermark(), 0);
        }
    }

    /// Where `epoch` ended, and the epoch itself or the last one before it; `None` if the log
    /// knows neither.
    pub(crate) fn end_of_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        let state = self.state.lock();
        let log = state.log.as_ref()?;
        if epoch == self.leader_epoch() {
            return Some((epoch, log.log_end_offset().0));
        }
        let end = log.end_offset_for(LeaderEpoch(epoch))?;
        Some((end.epoch.0, end.end_offset.0))
    }

    /// The epoch in which the record at `offset` was written, or -1.
    pub(crate) fn epoch_at(&self, offset: i64) -> i32 {
        let state = self.state.lock();
        let epoch = state.log.as_ref().and_then(|log| log.epoch_at(Offset(offset)));
        epoch.map_or(-1, |epoch| epoch.0)
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

    /// Reports whether the topic's policy lets clients delete records.
    pub(crate) fn may_delete_records(&self) -> bool {
        let state = self.state.lock();
        let cleanup = state.log.as_ref().map(|log| log.config().cleanup);
        cleanup.is_none_or(|cleanup| cleanup.delete || !cleanup.compact)
    }

    /// Makes `offset` the start of the log, if it is not beyond that, and returns the start.
    pub(crate) fn delete_records_to(&self, offset: i64) -> Result<i64, LogError> {
        let mut state = self.state.lock();
        let log = self.usable(&mut state.log)?;
        log.delete_records_to(Offset(offset))?;
        let log_start = log.log_start_offset().0;
        self.log_start.store(log_start, Ordering::Release);
        self.raise(log, self.high_watermark());
        drop(state);
        self.waiters.wake_fetches();
        Ok(log_start)
    }

    /// Deletes the segments that nothing keeps and returns how many.
    pub(crate) fn enforce_retention(&self) -> Result<usize, LogError> {
        let high_watermark = Offset(self.high_watermark());
        let mut state = self.state.lock();
        let Some(log) = state.log.as_mut() else { return Ok(0) };
        let deleted = log.enforce_retention(high_watermark);
        let log_start = log.log_start_offset().0;
        self.log_start.store(log_start, Ordering::Release);
        self.raise(log, high_watermark.0);
        let failed = log.failure().is_some();
        drop(state);
        if failed {
            self.note_failure();
        }
        deleted
    }

    /// How much of the log waits for compaction, if it is compacted at all.
    pub(crate) fn dirtiness(&self) -> Option<Dirtiness> {
        if self.is_moving() {
            // The copy would have to be compacted in the same steps.
            return None;
        }
        let high_watermark = Offset(self.high_watermark());
        let mut state = self.state.lock();
        state.log.as_mut()?.dirtiness(high_watermark).ok()?
    }

    /// Makes segments durable that compaction could not touch otherwise; blocks.
    pub(crate) fn flush_for_compaction(self: &Arc<Self>) -> Result<(), LogError> {
        let awaits_flush = self.state.lock().log.as_ref().is_some_and(Log::compaction_awaits_flush);
        if awaits_flush {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Where the log stands, for the checkpoints.
    pub(crate) fn points(&self) -> Option<LogPoints> {
        self.state.lock().log.as_ref().map(Log::points)
    }

    /// Compacts the log while appends and reads go on; blocks.
    pub(crate) fn compact(
        &self,
        cleaner: &Cleaner,
        pace: &mut dyn Pace,
    ) -> Result<Option<CleanOutcome>, CleanError> {
        let high_watermark = Offset(self.high_watermark());
        let job = self.usable(&mut self.state.lock().log)?.begin_clean(high_watermark)?;
        let Some(job) = job else { return Ok(None) };
        let outcome = cleaner.run(&job, pace, &mut |job, group| {
            self.usable(&mut self.state.lock().log)?.swap_in(job, group)
        });
        let mut guard = self.state.lock();
        let Some(log) = guard.log.as_mut() else { return Ok(None) };
        let outcome = log.finish_clean(job, outcome);
        let failed = log.failure().is_some();
        drop(guard);
        if failed {
            self.note_failure();
        }
        outcome.map(Some)
    }

    /// Forgets producers that were idle for too long.
    pub(crate) fn expire_producers(&self) {
        if let Some(log) = self.state.lock().log.as_mut() {
            log.expire_producers();
        }
    }

    /// Puts other settings in force.
    pub(crate) fn set_config(&self, config: Arc<LogConfig>) {
        if let Some(future) = self.future.lock().as_mut() {
            future.set_config(Arc::clone(&config));
        }
        if let Some(log) = self.state.lock().log.as_mut() {
            log.set_config(config);
        }
    }

    /// Bytes of all segments.
    pub(crate) fn size(&self) -> Result<u64, LogError> {
        self.state.lock().log.as_mut().map_or(Ok(0), Log::size)
    }

    /// Number of segments; 0 once the log is gone.
    pub(crate) fn segment_count(&self) -> usize {
        self.state.lock().log.as_ref().map_or(0, |log| log.segment_offsets().len())
    }

    /// Number of producers whose sequences are remembered.
    pub(crate) fn producer_count(&self) -> usize {
        self.state.lock().log.as_ref().map_or(0, |log| log.producers().count())
    }

    /// The data directory that the log lies in; none once the log is gone.
    pub(crate) fn data_directory(&self) -> Option<PathBuf> {
        let state = self.state.lock();
        state.log.as_ref()?.directory().parent().map(Path::to_owned)
    }

    /// Asks for a flush if records have waited for one longer than `flush.ms`.
    pub(crate) fn flush_if_due(self: &Arc<Self>, now_ms: i64) {
        let mut state = self.state.lock();
        let Some(flush_ms) = state.log.as_ref().map(|log| log.config().flush_ms) else { return };
        if state.unflushed_records == 0 {
            return;
        }
        // The first look that finds unflushed records starts the clock; looks come often enough.
        let since_ms = *state.unflushed_since_ms.get_or_insert(now_ms);
        let due = now_ms.saturating_sub(since_ms) >= flush_ms;
        drop(state);
        if due {
            self.request_flush();
        }
    }

    /// Asks for a flush again that has found no space.
    pub(crate) fn flush_if_unflushed(self: &Arc<Self>) {
        if self.unflushed.load(Ordering::Acquire) {
            self.request_flush();
        }
    }

    /// Has the flusher make everything durable soon.
    pub(crate) fn request_flush(self: &Arc<Self>) {
        if let Some(flusher) = self.surroundings.flusher.upgrade() {
            flusher.mark(self);
        }
    }

    /// Makes everything durable in such a way that recovery could begin at the present end, and
    /// returns where the log stands; blocks.
    pub(crate) fn checkpoint(self: &Arc<Self>) -> Result<Option<LogPoints>, LogError> {
        let job = {
            let mut state = self.state.lock();
            let Some(log) = state.log.as_mut() else { return Ok(None) };
            let job = log.begin_checkpoint()?;
            state.flushing_bytes = state.appended_bytes;
            job
        };
        if let Some(job) = job {
            let outcome = job.run();
            Arc::clone(self).finish_flush(job, outcome);
        }
        let state = self.state.lock();
        let Some(log) = state.log.as_ref() else { return Ok(None) };
        let points = log.points();
        let needs_flush = log.needs_flush();
        drop(state);
        if needs_flush && self.flush_before_ack {
            // A flush that came due meanwhile found the log busy and left it to us.
            self.request_flush();
        }
        Ok(Some(points))
    }

    /// Makes everything durable and leaves what a quick start needs; blocks. Appends and flushes
    /// must have ended.
    pub(crate) fn close(&self) -> Result<LogPoints, LogError> {
        let mut state = self.state.lock();
        let log = self.usable(&mut state.log)?;
        log.close()?;
        let points = log.points();
        state.log = None;
        Ok(points)
    }

    /// Takes the log away, because the topic is deleted, and lets everybody look who waits.
    pub(crate) fn take_log(&self) -> Option<Log> {
        self.gone.store(true, Ordering::Release);
        let log = self.state.lock().log.take();
        self.failed.store(true, Ordering::Release);
        self.waiters.wake_all();
        log
    }

    /// The log, unless it was taken away.
    pub(crate) fn usable<'a>(&self, log: &'a mut Option<Log>) -> Result<&'a mut Log, LogError> {
        log.as_mut().ok_or_else(|| LogError::Failed {
            directory: self.name.to_string().into(),
            reason: "it is closed".to_owned(),
        })
    }

    /// Says that all records are durable, because the log has just been copied to where they are.
    pub(crate) fn advance_to_end(&self, state: &mut State) {
        if let Some(log) = &state.log {
            self.flush_lane.store(self.surroundings.lane_of(log), Ordering::Relaxed);
        }
        let Some(log) = state.log.as_mut().filter(|log| !log.needs_flush()) else { return };
        let (end, bytes) = (log.log_end_offset().0, state.appended_bytes - state.readable_bytes);
        let has_decided = self.raise(log, end);
        state.readable_bytes = state.appended_bytes;
        state.flushing_bytes = state.appended_bytes;
        state.unflushed_records = 0;
        state.unflushed_since_ms = None;
        self.tell(end, bytes, has_decided);
    }

    /// Moves the high watermark, and the last stable offset after it, under the lock of the log;
    /// reports whether that has decided a transaction.
    fn raise(&self, log: &mut Log, high_watermark: i64) -> bool {
        let before = self.high_watermark.fetch_max(high_watermark, Ordering::AcqRel);
        let high_watermark = high_watermark.max(before);
        let has_decided = log.note_high_watermark(Offset(high_watermark));
        self.last_stable.store(last_stable(log, high_watermark), Ordering::Release);
        has_decided
    }

    /// Lets everybody know who waits for the high watermark.
    fn tell(&self, high_watermark: i64, bytes: i64, has_decided: bool) {
        self.waiters.advanced(high_watermark, bytes);
        if has_decided {
            // More bytes than those just passed have become readable for some.
            self.waiters.wake_fetches();
        }
    }

    fn note_failure(&self) {
        self.failed.store(true, Ordering::Release);
        self.waiters.wake_all();
        self.surroundings.disk_trouble.notify_one();
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

impl FlushTarget for Partition {
    fn flush_mark(&self) -> &FlushMark {
        &self.flush_mark
    }

    fn flush_lane(&self) -> usize {
        self.flush_lane.load(Ordering::Relaxed)
    }

    fn begin_flush(&self) -> Option<FlushJob> {
        let mut state = self.state.lock();
        let log = state.log.as_mut()?;
        let Some(job) = log.begin_flush() else {
            let failed = log.failure().is_some();
            drop(state);
            if failed && !self.has_failed() {
                self.note_failure();
            }
            return None;
        };
        state.unflushed_records = 0;
        state.unflushed_since_ms = None;
        state.flushing_bytes = state.appended_bytes;
        Some(job)
    }

    fn finish_flush(self: Arc<Self>, job: FlushJob, outcome: Result<(), LogError>) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(log) = state.log.as_mut() else { return };
        match log.finish_flush(job, outcome) {
            Ok(durable) => {
                self.unflushed.store(log.has_lost_writes(), Ordering::Release);
                let bytes = state.flushing_bytes - state.readable_bytes;
                if self.flush_before_ack {
                    state.readable_bytes = state.flushing_bytes;
                    let has_decided = self.raise(log, durable.0);
                    drop(guard);
                    self.tell(durable.0, bytes, has_decided);
                }
            }
            Err(_) if log.has_lost_writes() => {
                // Those who wait go on waiting: nothing is lost yet, and what is kept back for the
                // broker may be enough. If not, it is tried again every now and then.
                self.unflushed.store(true, Ordering::Release);
                drop(guard);
                if self.yield_reserve() {
                    self.request_flush();
                }
            }
            Err(_) => {
                // The log has reported it and takes no more records.
                drop(guard);
                self.note_failure();
            }
        }
    }
}

fn is_out_of_space(error: &AppendError) -> bool {
    matches!(error, AppendError::Log(error) if error.is_out_of_space())
}

/// The offset below which a log holds no undecided transaction and nothing that may get lost.
fn last_stable(log: &Log, high_watermark: i64) -> i64 {
    log.first_unstable_offset().map_or(high_watermark, |offset| offset.0.min(high_watermark))
}

/// Reports whether the runtime has other threads to go on with.
pub(crate) fn may_block_in_place() -> bool {
    tokio::runtime::Handle::try_current()
        .is_ok_and(|handle| handle.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread)
}
