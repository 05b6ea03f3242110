//! Drives the group coordinators: one shard for each partition of `__consumer_offsets`.
//!
//! A shard is a machine behind a lock. A request takes the lock, lets the machine decide, appends
//! what it wants written, and leaves; its answer arrives over a channel, perhaps much later and
//! on another task. Answers that must survive a crash wait outside the lock until the high
//! watermark has passed their records.
//!
//! Locks are taken in the order shard, then partition; never two shards at once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fleuve_coordinator::offsets::DeletedTopic;
use fleuve_coordinator::{
    AppendError, Effect, GroupConfigs, GroupCoordinator, GroupError, GroupSettings, NoTopics, Now,
    Response, Step, Token, TopicView, Write,
};
use fleuve_os::{Clock, Random};
use fleuve_protocol::EncodeError;
use fleuve_protocol::records::{BatchBuilder, BatchOptions, BatchProducer, NewRecord};
use fleuve_storage::TransactionCheck;
use fleuve_types::TimestampMs;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::lags::Lags;
use crate::markers::{self, Marker, MarkerError};
use crate::partition::Partition;
use crate::purgatory::{AckWait, Purgatory};
use crate::replay::{self, Entry, ReplayError};
use crate::request::Pending;

/// The topic whose partitions hold groups and offsets.
pub(crate) const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The sequence of batches that are not counted.
const NO_SEQUENCE: i32 = -1;

/// Stands for "no deadline" where a number is needed.
const NEVER: i64 = i64::MAX;

/// All shards of a broker.
#[derive(Debug)]
pub(crate) struct Groups {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    purgatory: Arc<Purgatory>,
    rules: RwLock<Rules>,
    /// How long an answer may wait for its records to become durable.
    commit_timeout: Duration,
    lags: Arc<Lags>,
    shards: RwLock<Vec<Arc<Shard>>>,
    /// What the shards are shown; taken before any other lock.
    topics: Mutex<Arc<dyn TopicView>>,
    tokens: AtomicU64,
    /// When the ticking task means to wake up, in monotonic milliseconds.
    planned_ms: AtomicI64,
    replan: Notify,
    /// What machines want done in other logs than theirs; at most a few for each group.
    errands: Mutex<VecDeque<Effect>>,
    errand_given: Notify,
}

/// What operators set about groups.
#[derive(Clone, Debug)]
struct Rules {
    settings: GroupSettings,
    configs: Arc<GroupConfigs>,
}

/// One partition of the offsets topic with its groups.
#[derive(Debug)]
pub(crate) struct Shard {
    partition: Arc<Partition>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    machine: GroupCoordinator,
    waiting: HashMap<Token, oneshot::Sender<Answer>>,
    /// What the records that the request under way wants to write in a transaction must show.
    check: TransactionCheck,
}

#[derive(Debug)]
struct Answer {
    response: Response,
    after: Option<i64>,
}

impl Groups {
    /// Makes a driver without shards.
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        purgatory: Arc<Purgatory>,
        settings: GroupSettings,
        commit_timeout: Duration,
        lags: Arc<Lags>,
    ) -> Self {
        Self {
            clock,
            random,
            purgatory,
            rules: RwLock::new(Rules { settings, configs: Arc::default() }),
            commit_timeout,
            lags,
            shards: RwLock::default(),
            topics: Mutex::new(Arc::new(NoTopics)),
            tokens: AtomicU64::new(0),
            planned_ms: AtomicI64::new(NEVER),
            replan: Notify::new(),
            errands: Mutex::default(),
            errand_given: Notify::new(),
        }
    }

    /// Takes up the partitions of the offsets topic beyond those already there.
    ///
    /// The new shards answer that they are loading until [`Groups::load`] was called for them.
    pub(crate) fn adopt(&self, partitions: &[Arc<Partition>]) -> Vec<Arc<Shard>> {
        // Not under the lock of the shards, which is taken after that of the rules.
        let settings = self.rules.read().settings.clone();
        let mut shards = self.shards.write();
        let known = shards.len();
        for partition in partitions.iter().skip(known) {
            let machine = GroupCoordinator::new(settings.clone(), Arc::clone(&self.random));
            shards.push(Arc::new(Shard {
                partition: Arc::clone(partition),
                state: Mutex::new(State {
                    machine,
                    waiting: HashMap::new(),
                    check: TransactionCheck::Waived,
                }),
            }));
        }
        shards[known..].to_vec()
    }

    /// Reads a shard's partition; blocks until all of it is read.
    ///
    /// A second machine is filled and takes the first one's place, which goes on telling clients
    /// that it is loading. That keeps requests from waiting for the shard's lock meanwhile.
    pub(crate) fn load(&self, shard: &Shard) -> Result<(), ReplayError> {
        let settings = self.rules.read().settings.clone();
        let mut machine = GroupCoordinator::new(settings, Arc::clone(&self.random));
        replay::for_each_entry(&shard.partition, |offset, entry| {
            let replayed = match entry {
                Entry::Record { key: Some(key), value, producer } => {
                    machine.replay_in(key, value, offset, producer).map(drop)
                }
                Entry::Record { key: None, .. } => Ok(()),
                Entry::Marker { producer, committed } => {
                    machine.replay_marker(producer, committed, offset);
                    Ok(())
                }
            };
            if let Err(error) = replayed {
                // One unreadable record must not make all groups of the shard unreachable.
                tracing::error!(partition = %shard.partition.name(), %offset, %error,
                    "a record about groups cannot be read");
            }
        })?;
        let topics = self.topics.lock();
        machine.handle_topics_changed(Arc::clone(&topics));
        let rules = self.rules.read();
        machine.update_settings(rules.settings.clone());
        machine.handle_configs_changed(Arc::clone(&rules.configs));
        let mut state = shard.state.lock();
        // From here on the shard hears of changes like all others.
        drop((topics, rules));
        state.machine = machine;
        let now = self.now();
        let step = state.machine.handle_loaded(now);
        self.lags.loaded(&state.machine);
        self.carry_out(shard, &mut state, now, step);
        drop(state);
        self.plan(shard);
        Ok(())
    }

    /// Shows the shards new topics; `view` makes the view for a version that was not used yet.
    pub(crate) fn show_topics(&self, view: impl FnOnce(i64) -> Arc<dyn TopicView>) {
        let mut topics = self.topics.lock();
        // The image is looked at under the lock, so that the last to come brings the latest.
        *topics = view(topics.version() + 1);
        for shard in self.shards() {
            shard.state.lock().machine.handle_topics_changed(Arc::clone(&topics));
        }
    }

    /// Puts other settings and configs of groups in force.
    pub(crate) fn set_rules(&self, settings: GroupSettings, configs: GroupConfigs) {
        let mut rules = self.rules.write();
        *rules = Rules { settings, configs: Arc::new(configs) };
        for shard in self.shards() {
            let machine = &mut shard.state.lock().machine;
            machine.update_settings(rules.settings.clone());
            machine.handle_configs_changed(Arc::clone(&rules.configs));
        }
    }

    /// Drops all shards, because the offsets topic was deleted.
    pub(crate) fn abandon(&self) {
        let shards = std::mem::take(&mut *self.shards.write());
        for shard in shards {
            self.unload(&shard);
        }
        self.lags.clear();
    }

    /// Number of shards; none before the offsets topic exists.
    pub(crate) fn shard_count(&self) -> usize {
        self.shards.read().len()
    }

    /// All shards.
    pub(crate) fn shards(&self) -> Vec<Arc<Shard>> {
        self.shards.read().clone()
    }

    /// The shard that a group belongs to.
    pub(crate) fn shard_of(&self, group_id: &str) -> Result<Arc<Shard>, GroupError> {
        let shards = self.shards.read();
        let count = shards.len();
        if count == 0 {
            return Err(GroupError::NotCoordinator);
        }
        Ok(Arc::clone(&shards[shard_index(group_id, count)]))
    }

    /// Hands a request to the machine of `group_id`; the future yields its answer once that may
    /// be told.
    pub(crate) fn request(
        self: &Arc<Self>,
        group_id: &str,
        call: impl FnOnce(&mut GroupCoordinator, Now, Token) -> Step,
    ) -> Pending<Result<Response, GroupError>> {
        let submitted = self.shard_of(group_id).map(|shard| {
            let answer = self.submit(&shard, call);
            (shard, answer)
        });
        let groups = Arc::clone(self);
        Box::pin(async move {
            let (shard, answer) = submitted?;
            groups.receive(&shard, answer).await
        })
    }

    /// Hands a request to the machine of one shard whose records belong to a transaction, and must
    /// show what `check` asks for.
    pub(crate) fn request_in_transaction(
        self: &Arc<Self>,
        shard: Arc<Shard>,
        check: TransactionCheck,
        call: impl FnOnce(&mut GroupCoordinator, Now, Token) -> Step,
    ) -> Pending<Result<Response, GroupError>> {
        let answer = self.submit_with(&shard, check, call);
        let groups = Arc::clone(self);
        Box::pin(async move { groups.receive(&shard, answer).await })
    }

    /// Appends a marker that ends a transaction to the partition of one shard, and tells the
    /// machine; returns where the high watermark has to be for it to be durable.
    pub(crate) fn append_marker(
        &self,
        index: i32,
        marker: Marker,
        now: TimestampMs,
    ) -> Result<i64, MarkerError> {
        let shards = self.shards();
        let shard = usize::try_from(index).ok().and_then(|index| shards.get(index));
        let shard = shard.ok_or(MarkerError::Gone)?;
        let mut state = shard.state.lock();
        if !state.machine.is_serving() {
            return Err(MarkerError::Unavailable);
        }
        let batch = markers::batch(marker, now);
        let appended = shard.partition.append_marker(batch, marker.raises_epoch);
        let appended = appended.map_err(|error| MarkerError::of(&shard.partition, error))?;
        let offset = appended.base_offset.into();
        state.machine.handle_marker(marker.producer.id, marker.end.committed, offset);
        Ok(appended.next_offset)
    }

    /// Hands a request to the machine of one shard.
    pub(crate) fn request_shard(
        self: &Arc<Self>,
        shard: Arc<Shard>,
        call: impl FnOnce(&mut GroupCoordinator, Now, Token) -> Step,
    ) -> Pending<Result<Response, GroupError>> {
        let answer = self.submit(&shard, call);
        let groups = Arc::clone(self);
        Box::pin(async move { groups.receive(&shard, answer).await })
    }

    async fn receive(
        &self,
        shard: &Shard,
        answer: oneshot::Receiver<Answer>,
    ) -> Result<Response, GroupError> {
        // Without an answer the shard was given up.
        let answer = answer.await.map_err(|_| GroupError::NotCoordinator)?;
        if let Some(after) = answer.after {
            self.wait_until_durable(shard, after).await?;
        }
        Ok(answer.response)
    }

    /// Waits until what a shard's log holds below `after` survives a crash.
    pub(crate) async fn wait_until_durable(
        &self,
        shard: &Shard,
        after: i64,
    ) -> Result<(), GroupError> {
        if shard.partition.high_watermark() < after {
            let wait = AckWait::new(&self.purgatory, 1);
            shard.partition.wait_for(after, &wait);
            // Whether it was in time is read off the partition itself.
            let _ = timeout(self.commit_timeout, wait.done()).await;
        }
        if shard.partition.has_failed() {
            // What the machine applied may be gone after a restart, so it knows too much.
            self.unload(shard);
            return Err(GroupError::NotCoordinator);
        }
        if shard.partition.high_watermark() < after {
            return Err(GroupError::NotAvailable);
        }
        Ok(())
    }

    /// Lets every shard forget the offsets of deleted topics.
    pub(crate) fn forget_topics(&self, deleted: &[DeletedTopic]) {
        for shard in self.shards() {
            let mut state = shard.state.lock();
            let step = state.machine.handle_topics_deleted(deleted);
            self.carry_out(&shard, &mut state, self.now(), step);
        }
    }

    /// The next errand, once there is one.
    pub(crate) async fn next_errand(&self) -> Effect {
        loop {
            if let Some(errand) = self.errands.lock().pop_front() {
                return errand;
            }
            self.errand_given.notified().await;
        }
    }

    /// Hands something that has happened to the machine of `group_id`; nobody waits for an answer.
    pub(crate) fn tell(
        &self,
        group_id: &str,
        call: impl FnOnce(&mut GroupCoordinator, Now) -> Step,
    ) {
        let Ok(shard) = self.shard_of(group_id) else { return };
        let mut state = shard.state.lock();
        let now = self.now();
        let step = call(&mut state.machine, now);
        self.carry_out(&shard, &mut state, now, step);
        drop(state);
        self.plan(&shard);
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

    fn tick(&self, shard: &Shard) {
        let mut state = shard.state.lock();
        let now = self.now();
        let step = state.machine.tick(now);
        self.carry_out(shard, &mut state, now, step);
    }

    fn submit(
        &self,
        shard: &Shard,
        call: impl FnOnce(&mut GroupCoordinator, Now, Token) -> Step,
    ) -> oneshot::Receiver<Answer> {
        self.submit_with(shard, TransactionCheck::Waived, call)
    }

    fn submit_with(
        &self,
        shard: &Shard,
        check: TransactionCheck,
        call: impl FnOnce(&mut GroupCoordinator, Now, Token) -> Step,
    ) -> oneshot::Receiver<Answer> {
        let (sender, receiver) = oneshot::channel();
        let token = Token(self.tokens.fetch_add(1, Ordering::Relaxed));
        let mut state = shard.state.lock();
        state.waiting.insert(token, sender);
        let now = self.now();
        let step = call(&mut state.machine, now, token);
        state.check = check;
        self.carry_out(shard, &mut state, now, step);
        state.check = TransactionCheck::Waived;
        drop(state);
        self.plan(shard);
        receiver
    }

    fn unload(&self, shard: &Shard) {
        let mut state = shard.state.lock();
        let now = self.now();
        let step = state.machine.handle_unload(now);
        self.carry_out(shard, &mut state, now, step);
        state.waiting.clear();
    }

    /// Does what a step asks for, and what follows from it.
    fn carry_out(&self, shard: &Shard, state: &mut State, now: Now, step: Step) {
        let mut writes = VecDeque::from(self.take_effects(state, step));
        while let Some(write) = writes.pop_front() {
            let step = match append(&shard.partition, now, &write, state.check) {
                Ok(base_offset) => {
                    self.lags.appended(write.records());
                    state.machine.handle_appended(now, write, base_offset.into())
                }
                Err(error) => state.machine.handle_append_failed(now, write, error),
            };
            writes.extend(self.take_effects(state, step));
        }
    }

    /// Gives the answers of a step to those who wait, puts what concerns other logs on the list of
    /// errands, and returns what the step wants written.
    fn take_effects(&self, state: &mut State, step: Step) -> Vec<Write> {
        for effect in step.effects {
            let Effect::Reply { token, response, after } = effect else {
                self.errands.lock().push_back(effect);
                self.errand_given.notify_one();
                continue;
            };
            if let Some(waiting) = state.waiting.remove(&token) {
                // Whoever asked may be gone.
                let _ = waiting.send(Answer { response, after: after.map(|offset| offset.0) });
            }
        }
        step.writes
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
    pub(crate) fn read<T>(&self, look: impl FnOnce(&GroupCoordinator) -> T) -> T {
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

/// The shard of a group: Java's hash of the name, so that a data directory of Kafka's fits.
pub(crate) fn shard_index(group_id: &str, shards: usize) -> usize {
    let hash = group_id
        .encode_utf16()
        .fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    hash.checked_abs().unwrap_or(0) as usize % shards
}

/// Appends the records of a write as one batch and returns the offset of the first.
fn append(
    partition: &Arc<Partition>,
    now: Now,
    write: &Write,
    check: TransactionCheck,
) -> Result<i64, AppendError> {
    let producer = write.producer().map(|producer| BatchProducer {
        id: producer.id,
        epoch: producer.epoch,
        base_sequence: NO_SEQUENCE,
    });
    let check = producer.is_some().then_some(check);
    let options =
        BatchOptions { producer, transactional: check.is_some(), ..BatchOptions::default() };
    let records = write.records().iter().map(|record| record.encode());
    append_batch(partition, now.wall, options, check, records)
}

/// Appends records, each a key and perhaps a value, as one batch; returns the offset of the first.
pub(crate) fn append_records(
    partition: &Arc<Partition>,
    timestamp: TimestampMs,
    records: impl IntoIterator<Item = Result<(Bytes, Option<Bytes>), EncodeError>>,
) -> Result<i64, AppendError> {
    append_batch(partition, timestamp, BatchOptions::default(), None, records)
}

fn append_batch(
    partition: &Arc<Partition>,
    timestamp: TimestampMs,
    options: BatchOptions,
    check: Option<TransactionCheck>,
    records: impl IntoIterator<Item = Result<(Bytes, Option<Bytes>), EncodeError>>,
) -> Result<i64, AppendError> {
    let mut builder = BatchBuilder::new(options);
    for record in records {
        let (key, value) = record.map_err(|error| {
            tracing::error!(%error, "a record about groups cannot be written");
            AppendError::TooLarge
        })?;
        let record =
            NewRecord { timestamp, key: Some(&key), value: value.as_deref(), headers: &[] };
        builder.append(&record).map_err(|_| AppendError::TooLarge)?;
    }
    let batch: Bytes = builder.finish();
    let appended = match check {
        Some(check) => partition.append_in_transaction(batch, check),
        None => partition.append_internal(batch),
    };
    match appended {
        Ok(appended) => Ok(appended.base_offset),
        Err(error) => {
            use fleuve_storage::AppendError as Refusal;
            let name = partition.name();
            match &error {
                // The fault lies with the producer.
                Refusal::InvalidProducerEpoch { .. } => return Err(AppendError::ProducerFenced),
                Refusal::NotInTransaction { .. } => return Err(AppendError::NotInTransaction),
                _ => tracing::error!(
                    partition = %name, %error, "records about groups are not stored"
                ),
            }
            Err(match error {
                Refusal::BatchTooLarge { .. } | Refusal::AppendTooLarge { .. } => {
                    AppendError::TooLarge
                }
                Refusal::Log(error) if error.is_out_of_space() => AppendError::Unavailable,
                _ => AppendError::NotLeader,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_lie_where_kafka_puts_them() {
        // `Math.abs("...".hashCode()) % 50` in Java.
        assert_eq!(shard_index("", 50), 0);
        assert_eq!(shard_index("a", 50), 97 % 50);
        assert_eq!(shard_index("hello", 50), 99_162_322 % 50);
        // The hash of this text is the most negative number, which has no absolute value.
        assert_eq!(shard_index("polygenelubricants", 50), 0);
    }
}
