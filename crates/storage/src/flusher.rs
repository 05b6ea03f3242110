//! Group commit across partitions.
//!
//! Whoever appends marks the log's owner as dirty; workers take dirty owners in order and flush
//! them, one job per owner however many appends it covers. While a flush is under way, further
//! appends collect for the next one, so under load every flush carries as much as came in during
//! the one before: the slower the disk, the larger the groups. Several workers flush different logs
//! at the same time, which lets the file system commit its journal for all of them at once.
//!
//! There is no timer and no polling: an idle flusher sleeps, a marked owner is taken at once. The
//! queue holds every owner at most once, so it is bounded by their number.
//!
//! An owner goes through these states:
//!
//! ```text
//!           mark              worker              done
//!   Idle ─────────► Queued ─────────► Running ─────────► Idle
//!                     ▲                  │ mark
//!                     └── done ── RunningAndMarked
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::LogError;
use crate::log::FlushJob;

/// Somebody who owns a log and wants it flushed: a partition of the broker.
pub trait FlushTarget: Send + Sync {
    /// Returns the mark that the flusher keeps on this owner.
    fn flush_mark(&self) -> &FlushMark;

    /// Says which of the lanes it queues in. Who lies on another disk queues in another lane, so that
    /// a disk that hangs holds up nobody but those who lie on it.
    fn flush_lane(&self) -> usize {
        0
    }

    /// Locks the log and calls [`crate::Log::begin_flush`].
    fn begin_flush(&self) -> Option<FlushJob>;

    /// Locks the log and calls [`crate::Log::finish_flush`]; then lets everybody know who waits
    /// for the flushed offset, or for the failure.
    fn finish_flush(self: Arc<Self>, job: FlushJob, outcome: Result<(), LogError>);
}

/// Where an owner stands with the flusher.
#[derive(Debug, Default)]
pub struct FlushMark {
    state: AtomicU8,
}

const IDLE: u8 = 0;
const QUEUED: u8 = 1;
const RUNNING: u8 = 2;
const RUNNING_AND_MARKED: u8 = 3;

impl FlushMark {
    /// Marks the owner; returns whether it must be queued.
    fn mark(&self) -> bool {
        let marked =
            self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| match state {
                IDLE => Some(QUEUED),
                RUNNING => Some(RUNNING_AND_MARKED),
                _ => None,
            });
        marked == Ok(IDLE)
    }

    fn run(&self) {
        self.state.store(RUNNING, Ordering::Release);
    }

    /// Ends a run; returns whether the owner must be queued again.
    fn done(&self) -> bool {
        let ended = self.state.compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire);
        if ended.is_err() {
            self.state.store(QUEUED, Ordering::Release);
        }
        ended.is_err()
    }
}

/// Flushes marked logs on a few threads of its own.
pub struct Flusher {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    lanes: Vec<Lane>,
    flushes: AtomicU64,
    failures: AtomicU64,
    /// Hears how long each flush took.
    observe: Box<dyn Fn(Duration) + Send + Sync>,
}

/// The queue of one disk, with workers of its own.
#[derive(Default)]
struct Lane {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    targets: VecDeque<Arc<dyn FlushTarget>>,
    is_stopping: bool,
}

impl fmt::Debug for Flusher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flusher").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

impl Flusher {
    /// Starts `workers` threads, at least one.
    pub fn start(workers: usize) -> std::io::Result<Self> {
        Self::start_observed(1, workers, |_| {})
    }

    /// Starts `workers` threads for each of `lanes`, at least one, which tell `observe` how long each
    /// flush took.
    pub fn start_observed(
        lanes: usize,
        workers: usize,
        observe: impl Fn(Duration) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            lanes: (0..lanes.max(1)).map(|_| Lane::default()).collect(),
            flushes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            observe: Box::new(observe),
        });
        let (lanes, workers) = (shared.lanes.len(), workers.max(1));
        let workers = (0..lanes * workers)
            .map(|number| {
                let shared = shared.clone();
                std::thread::Builder::new()
                    .name(format!("flusher-{number}"))
                    .spawn(move || shared.work(number % lanes))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { shared, workers })
    }

    /// Has `target` flushed: everything appended before this call will be covered. Cheap, and never
    /// blocks on the disk.
    pub fn mark<T: FlushTarget + 'static>(&self, target: &Arc<T>) {
        if target.flush_mark().mark() {
            self.shared.push(target.clone());
        }
    }

    /// Returns how many flushes have ended well since the start.
    pub fn flushes(&self) -> u64 {
        self.shared.flushes.load(Ordering::Relaxed)
    }

    /// Returns how many flushes have failed since the start.
    pub fn failures(&self) -> u64 {
        self.shared.failures.load(Ordering::Relaxed)
    }

    /// Flushes what is marked and ends the threads; marks from now on have no effect.
    pub fn stop(mut self) {
        self.stop_workers();
    }

    fn stop_workers(&mut self) {
        for lane in &self.shared.lanes {
            lane.queue.lock().is_stopping = true;
            lane.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("a flusher thread had panicked");
            }
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.stop_workers();
    }
}

impl Shared {
    fn push(&self, target: Arc<dyn FlushTarget>) {
        let lane = &self.lanes[target.flush_lane() % self.lanes.len()];
        lane.queue.lock().targets.push_back(target);
        lane.wake.notify_one();
    }

    fn work(&self, lane: usize) {
        while let Some(target) = self.lanes[lane].next() {
            // From here on a mark leads to another flush: the job below might miss its append.
            target.flush_mark().run();
            if let Some(job) = target.begin_flush() {
                let begun = Instant::now();
                let outcome = job.run();
                (self.observe)(begun.elapsed());
                let counter = if outcome.is_ok() { &self.flushes } else { &self.failures };
                counter.fetch_add(1, Ordering::Relaxed);
                Arc::clone(&target).finish_flush(job, outcome);
            }
            if target.flush_mark().done() {
                self.push_again(target, lane);
            }
        }
    }

    /// Queues what was marked while a worker of `lane` flushed it. That worker asks for the next one
    /// now, so that no other need be woken for it.
    fn push_again(&self, target: Arc<dyn FlushTarget>, lane: usize) {
        if target.flush_lane() % self.lanes.len() == lane {
            self.lanes[lane].queue.lock().targets.push_back(target);
        } else {
            self.push(target);
        }
    }
}

impl Lane {
    /// Waits for a marked owner; `None` when the flusher stops and nothing is left.
    fn next(&self) -> Option<Arc<dyn FlushTarget>> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(target) = queue.targets.pop_front() {
                return Some(target);
            }
            if queue.is_stopping {
                return None;
            }
            self.wake.wait(&mut queue);
        }
    }
}
