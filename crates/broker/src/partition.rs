//! One partition: its log behind a lock, and the offsets everybody looks at beside it.
//!
//! The high watermark says what consumers may see and what `acks=all` waits for. With
//! `fleuve.flush.before.ack` it follows the flushes: an append asks the flusher for one and goes
//! on, and whoever flushed moves the high watermark. Without, it is the end of the log at once,
//! as in a Kafka partition with one replica.
//!
//! Here is who it is and how records come in; [`reading`] is how they come out, [`flushing`] how they
//! become durable, [`upkeep`] what else happens to the log.

mod flushing;
mod reading;
mod upkeep;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicUsize, Ordering};

use bytes::Bytes;
use fleuve_storage::{
    Append, AppendError, FlushMark, Flusher, Log, LogError, ProducerView, SpaceReserve,
    TransactionCheck, VerificationGuard,
};
use fleuve_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TopicPartition};
use parking_lot::Mutex;
use tokio::sync::Notify;

pub(crate) use reading::{TimedOffset, may_block_in_place};

use crate::purgatory::{AckWait, Waiters};

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

    /// Lets `wait` know once the high watermark has reached `offset`.
    pub(crate) fn wait_for(&self, offset: i64, wait: &Arc<AckWait>) {
        self.waiters.add_ack(offset, Arc::clone(wait));
        if self.has_failed() {
            self.waiters.wake_all();
        } else if self.high_watermark() >= offset {
            self.waiters.advanced(self.high_watermark(), 0);
        }
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

fn is_out_of_space(error: &AppendError) -> bool {
    matches!(error, AppendError::Log(error) if error.is_out_of_space())
}

/// The offset below which a log holds no undecided transaction and nothing that may get lost.
fn last_stable(log: &Log, high_watermark: i64) -> i64 {
    log.first_unstable_offset().map_or(high_watermark, |offset| offset.0.min(high_watermark))
}
