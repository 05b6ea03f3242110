//! Drives the transaction coordinators: one shard for each partition of `__transaction_state`.
//!
//! As with groups, a shard is a machine behind a lock, and answers that must survive a crash wait
//! outside of it until the high watermark has passed their records. Markers do so, too: they are
//! handed to a task of their own ([`crate::markers`]), which comes back with their fate.
//!
//! Locks are taken in the order shard, then partition; never two shards at once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fleuve_coordinator::transaction::{
    Effect, MarkerKey, MarkerOutcome, Markers, ProducerIds, Response, Step, TransactionCoordinator,
    TransactionError, TransactionSettings, Write,
};
use fleuve_coordinator::{AppendError, Now, Token};
use fleuve_os::Clock;
use fleuve_protocol::records::{BatchBuilder, BatchOptions, NewRecord};
use fleuve_types::{TimestampMs, TopicPartition};
use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::groups::shard_index;
use crate::metrics::{Counter, Distribution};
use crate::partition::Partition;
use crate::purgatory::{AckWait, Purgatory};
use crate::replay::{self, Entry, ReplayError};
use crate::request::Pending;

/// The topic whose partitions hold the state of transactional ids.
pub(crate) const TRANSACTION_TOPIC: &str = "__transaction_state";

/// Stands for "no deadline" where a number is needed.
const NEVER: i64 = i64::MAX;

/// All shards of a broker.
#[derive(Debug)]
pub(crate) struct Transactions {
    clock: Arc<dyn Clock>,
    purgatory: Arc<Purgatory>,
    producer_ids: Arc<dyn ProducerIds>,
    settings: RwLock<TransactionSettings>,
    /// How long an answer may wait for its records to become durable.
    commit_timeout: Duration,
    shards: RwLock<Vec<Arc<Shard>>>,
    tokens: AtomicU64,
    /// When the ticking task means to wake up, in monotonic milliseconds.
    planned_ms: AtomicI64,
    replan: Notify,
    markers: UnboundedSender<MarkerJob>,
    /// Until the task that writes them has taken it.
    marker_jobs: Mutex<Option<UnboundedReceiver<MarkerJob>>>,
    /// How long the shards took to read.
    pub(crate) load_times: LoadTimes,
    /// How long coordinators took to say whether a partition is part of a transaction.
    pub(crate) verification_times: Distribution,
    /// Partitions that were not, or of which that could not be said.
    pub(crate) verification_failures: Counter,
}

/// How long it took to read partitions of coordinators, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct LoadTimes {
    pub(crate) count: Counter,
    pub(crate) sum_ms: Counter,
    max_ms: AtomicU64,
}

impl LoadTimes {
    fn note(&self, took: Duration) {
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.count.add(1);
        self.sum_ms.add(ms);
        self.max_ms.fetch_max(ms, Ordering::Relaxed);
    }

    /// The longest.
    pub(crate) fn max_ms(&self) -> u64 {
        self.max_ms.load(Ordering::Relaxed)
    }
}

/// One partition of the topic with its transactional ids.
#[derive(Debug)]
pub(crate) struct Shard {
    partition: Arc<Partition>,
    state: Mutex<State>,
}

/// Markers that a shard wants written.
#[derive(Debug)]
pub(crate) struct MarkerJob {
    /// Who wants to know what became of them.
    pub(crate) shard: Arc<Shard>,
    /// The markers.
    pub(crate) markers: Markers,
    /// Where the high watermark of the shard's partition has to be first.
    pub(crate) after: Option<i64>,
}

#[derive(Debug)]
struct State {
    machine: TransactionCoordinator,
    waiting: HashMap<Token, oneshot::Sender<Answer>>,
    is_loaded: bool,
}

#[derive(Debug)]
struct Answer {
    response: Response,
    after: Option<i64>,
}

impl Transactions {
    /// Makes a driver without shards.
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        purgatory: Arc<Purgatory>,
        producer_ids: Arc<dyn ProducerIds>,
        settings: TransactionSettings,
        commit_timeout: Duration,
    ) -> Self {
        let (markers, marker_jobs) = mpsc::unbounded_channel();
        Self {
            clock,
            purgatory,
            producer_ids,
            settings: RwLock::new(settings),
            commit_timeout,
            shards: RwLock::default(),
            tokens: AtomicU64::new(0),
            planned_ms: AtomicI64::new(NEVER),
            replan: Notify::new(),
            markers,
            marker_jobs: Mutex::new(Some(marker_jobs)),
            load_times: LoadTimes::default(),
            verification_times: Distribution::default(),
            verification_failures: Counter::new(),
        }
    }

    /// Takes up the partitions of the topic beyond those already there. They answer that they are
    /// loading until [`Transactions::load_new`] was called.
    pub(crate) fn adopt(&self, partitions: &[Arc<Partition>]) {
        let mut shards = self.shards.write();
        let known = shards.len();
        for partition in partitions.iter().skip(known) {
            let machine = self.new_machine(partition);
            shards.push(Arc::new(Shard {
                partition: Arc::clone(partition),
                state: Mutex::new(State { machine, waiting: HashMap::new(), is_loaded: false }),
            }));
        }
    }

    /// Reads the partitions that were not read yet; blocks until all of them are.
    pub(crate) fn load_new(&self) {
        for shard in self.shards() {
            if !shard.state.lock().is_loaded
                && let Err(error) = self.load(&shard)
            {
                tracing::error!(%error, "transactional ids cannot be loaded");
            }
        }
    }

    fn load(&self, shard: &Arc<Shard>) -> Result<(), ReplayError> {
        let begun = Instant::now();
        let mut machine = self.new_machine(&shard.partition);
        replay::for_each_entry(&shard.partition, |offset, entry| {
            let Entry::Record { key: Some(key), value, .. } = entry else { return };
            if let Err(error) = machine.replay(key, value, offset) {
                // One unreadable record must not make all ids of the shard unreachable.
                tracing::error!(partition = %shard.partition.name(), %offset, %error,
                    "a record about transactions cannot be read");
            }
        })?;
        let settings = self.settings.read();
        machine.update_settings(settings.clone());
        let mut state = shard.state.lock();
        // From here on the shard hears of changes like all others.
        drop(settings);
        state.machine = machine;
        state.is_loaded = true;
        let now = self.now();
        let step = state.machine.handle_loaded(now);
        self.carry_out(shard, &mut state, now, step);
        drop(state);
        self.plan(shard);
        self.load_times.note(begun.elapsed());
        Ok(())
    }

    fn new_machine(&self, partition: &Partition) -> TransactionCoordinator {
        let settings = self.settings.read().clone();
        let ids = Arc::clone(&self.producer_ids);
        TransactionCoordinator::new(settings, ids, partition.leader_epoch())
    }

    /// Puts other settings in force.
    pub(crate) fn set_settings(&self, settings: TransactionSettings) {
        let mut current = self.settings.write();
        *current = settings;
        for shard in self.shards() {
            shard.state.lock().machine.update_settings(current.clone());
        }
    }

    /// Drops all shards, because the topic was deleted or the broker stops.
    pub(crate) fn abandon(&self) {
        let shards = std::mem::take(&mut *self.shards.write());
        for shard in shards {
            self.unload(&shard);
        }
    }

    /// Number of shards; none before the topic exists.
    pub(crate) fn shard_count(&self) -> usize {
        self.shards.read().len()
    }

    /// All shards.
    pub(crate) fn shards(&self) -> Vec<Arc<Shard>> {
        self.shards.read().clone()
    }

    /// The shard that a transactional id belongs to.
    pub(crate) fn shard_of(&self, transactional_id: &str) -> Result<Arc<Shard>, TransactionError> {
        let shards = self.shards.read();
        match shards.len() {
            0 => Err(TransactionError::NotCoordinator),
            count => Ok(Arc::clone(&shards[shard_index(transactional_id, count)])),
        }
    }

    /// Hands a request to the machine of `transactional_id`; the future yields its answer once that
    /// may be told.
    pub(crate) fn request(
        self: &Arc<Self>,
        transactional_id: &str,
        call: impl FnOnce(&mut TransactionCoordinator, Now, Token) -> Step,
    ) -> Pending<Result<Response, TransactionError>> {
        let submitted = self.shard_of(transactional_id).map(|shard| {
            let answer = self.submit(&shard, call);
            (shard, answer)
        });
        let transactions = Arc::clone(self);
        Box::pin(async move {
            let (shard, answer) = submitted?;
            // Without an answer the shard was given up.
            let answer = answer.await.map_err(|_| TransactionError::NotCoordinator)?;
            if let Some(after) = answer.after {
                transactions.wait_until_durable(&shard, after).await?;
            }
            Ok(answer.response)
        })
    }

    async fn wait_until_durable(&self, shard: &Shard, after: i64) -> Result<(), TransactionError> {
        let partition = &shard.partition;
        if partition.high_watermark() < after {
            let wait = AckWait::new(&self.purgatory, 1);
            partition.wait_for(after, &wait);
            // Whether it was in time is read off the partition itself.
            let _ = timeout(self.commit_timeout, wait.done()).await;
        }
        if partition.has_failed() {
            self.unload_failed(shard);
            return Err(TransactionError::NotCoordinator);
        }
        if partition.high_watermark() < after {
            return Err(TransactionError::NotAvailable);
        }
        Ok(())
    }

    /// Gives a shard up whose log has failed: what the machine applied may be gone after a restart,
    /// so it knows too much.
    pub(crate) fn unload_failed(&self, shard: &Shard) {
        self.unload(shard);
    }

    /// Tells a shard what became of its markers.
    pub(crate) fn report_markers(
        &self,
        shard: &Arc<Shard>,
        key: &MarkerKey,
        outcomes: &[(TopicPartition, MarkerOutcome)],
    ) {
        let mut state = shard.state.lock();
        let now = self.now();
        let step = state.machine.handle_markers(now, key, outcomes);
        self.carry_out(shard, &mut state, now, step);
        drop(state);
        self.plan(shard);
    }

    /// The markers that shards want written, for the one task that sees to them.
    pub(crate) fn take_marker_jobs(&self) -> Option<UnboundedReceiver<MarkerJob>> {
        self.marker_jobs.lock().take()
    }

    /// Ticks the machines at their deadlines, until the future is dropped.
    pub(crate) async fn keep_time(&self) {
        loop {
            let now_ms = self.now().monotonic_ms;
            let mut soonest = NEVER;
            for shard in self.shards() {
                let mut deadline = shard.deadline_ms();
                if deadline <= now_ms {
                    self.tick(&shard);
                    deadline = shard.deadline_ms();
                }
                soonest = soonest.min(deadline);
            }
            self.planned_ms.store(soonest, Ordering::Release);
            // A deadline that came up between the look and the store has seen the old plan.
            let missed = self.shards().iter().any(|shard| shard.deadline_ms() < soonest);
            let sleep_ms = if missed { 0 } else { (soonest - now_ms).clamp(1, 3_600_000) };
            let _ = timeout(Duration::from_millis(sleep_ms as u64), self.replan.notified()).await;
        }
    }

    fn tick(&self, shard: &Arc<Shard>) {
        let mut state = shard.state.lock();
        let now = self.now();
        let step = state.machine.tick(now);
        self.carry_out(shard, &mut state, now, step);
    }

    fn submit(
        &self,
        shard: &Arc<Shard>,
        call: impl FnOnce(&mut TransactionCoordinator, Now, Token) -> Step,
    ) -> oneshot::Receiver<Answer> {
        let (sender, receiver) = oneshot::channel();
        let token = Token(self.tokens.fetch_add(1, Ordering::Relaxed));
        let mut state = shard.state.lock();
        state.waiting.insert(token, sender);
        let now = self.now();
        let step = call(&mut state.machine, now, token);
        self.carry_out(shard, &mut state, now, step);
        drop(state);
        self.plan(shard);
        receiver
    }

    fn unload(&self, shard: &Shard) {
        let mut state = shard.state.lock();
        let now = self.now();
        let step = state.machine.handle_unload(now);
        for effect in step.effects {
            state.answer(effect);
        }
        state.waiting.clear();
    }

    /// Does what a step asks for, and what follows from it.
    fn carry_out(&self, shard: &Arc<Shard>, state: &mut State, now: Now, step: Step) {
        let mut writes = self.take_effects(shard, state, step);
        while let Some(write) = writes.pop_front() {
            let step = match append(&shard.partition, now, &write) {
                Ok(base_offset) => state.machine.handle_appended(now, write, base_offset.into()),
                Err(error) => state.machine.handle_append_failed(now, write, error),
            };
            writes.extend(self.take_effects(shard, state, step));
        }
    }

    /// Carries out the effects of a step, and returns what it wants written.
    fn take_effects(&self, shard: &Arc<Shard>, state: &mut State, step: Step) -> VecDeque<Write> {
        for effect in step.effects {
            let Some((markers, after)) = state.answer(effect) else { continue };
            let job = MarkerJob { shard: Arc::clone(shard), markers, after };
            // Without a receiver the broker is stopping; the next start writes them.
            let _ = self.markers.send(job);
        }
        step.writes.into()
    }

    /// Wakes the ticking task if a shard now wants attention earlier than planned.
    fn plan(&self, shard: &Shard) {
        if shard.deadline_ms() < self.planned_ms.load(Ordering::Acquire) {
            self.replan.notify_one();
        }
    }

    fn now(&self) -> Now {
        Now::read(&*self.clock)
    }
}

impl Shard {
    /// Looks at the machine.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&TransactionCoordinator) -> T) -> T {
        look(&self.state.lock().machine)
    }

    /// Where the machine's records are.
    pub(crate) fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    fn deadline_ms(&self) -> i64 {
        self.state.lock().machine.next_deadline().unwrap_or(NEVER)
    }
}

impl State {
    /// Gives an answer to who waits for it, or returns the markers that are to be written.
    fn answer(&mut self, effect: Effect) -> Option<(Markers, Option<i64>)> {
        match effect {
            Effect::Reply { token, response, after } => {
                if let Some(waiting) = self.waiting.remove(&token) {
                    // Whoever asked may be gone.
                    let _ = waiting.send(Answer { response, after: after.map(|offset| offset.0) });
                }
                None
            }
            Effect::WriteMarkers { markers, after } => {
                Some((markers, after.map(|offset| offset.0)))
            }
        }
    }
}

/// Appends the records of a write as one batch and returns the offset of the first.
fn append(partition: &Arc<Partition>, now: Now, write: &Write) -> Result<i64, AppendError> {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for record in write.records() {
        let (key, value) = record.encode().map_err(|error| {
            tracing::error!(%error, "a record about transactions cannot be written");
            AppendError::TooLarge
        })?;
        let record = NewRecord {
            timestamp: TimestampMs(now.wall.0),
            key: Some(&key),
            value: value.as_deref(),
            headers: &[],
        };
        builder.append(&record).map_err(|_| AppendError::TooLarge)?;
    }
    let batch: Bytes = builder.finish();
    partition.append_internal(batch).map(|appended| appended.base_offset).map_err(|error| {
        use fleuve_storage::AppendError as Refusal;
        let name = partition.name();
        tracing::error!(partition = %name, %error, "records about transactions are not stored");
        match error {
            Refusal::BatchTooLarge { .. } | Refusal::AppendTooLarge { .. } => AppendError::TooLarge,
            Refusal::Log(error) if error.is_out_of_space() => AppendError::Unavailable,
            _ => AppendError::NotLeader,
        }
    })
}
