//! One stream thread: a member of the group, its tasks, one producer.
//!
//! ```text
//! poll -> queue records -> process -> send output -> (commit) -> poll
//! ```
//!
//! Rebalances arrive as events between two steps: revoked tasks are committed before the group goes on, new ones are
//! restored in the background while the others run.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleuve_client::config::IsolationLevel;
use fleuve_client::consumer::{Committed, OwnedRecord, RebalanceListener, Start};
use fleuve_client::producer::{Delivery, Header};
use fleuve_client::{
    BoxFuture, Client, Consumer, ConsumerConfig, ErrorCode, Producer, ProducerConfig, Record,
};
use fleuve_types::TopicPartition;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::assignor::{TaskAssignor, partitions_by_task};
use super::restore::Restorer;
use super::topics::Counts;
use super::{Guarantee, Settings, StreamsError};
use crate::query::{Desk, Shelf, Shelved};
use crate::record;
use crate::runtime::{Outgoing, RawRecord, Task, TaskId};
use crate::topology::Plan;

/// What a thread is made from.
pub(super) struct Setup {
    pub(super) number: usize,
    pub(super) plan: Arc<Plan>,
    pub(super) counts: Arc<Counts>,
    pub(super) client: Client,
    pub(super) settings: Settings,
    pub(super) restorer: Arc<Restorer>,
    pub(super) shelf: Shelf,
}

/// A stream thread.
pub(super) struct Thread {
    setup: Setup,
    consumer: Consumer,
    producer: Producer,
    events: mpsc::UnboundedReceiver<Event>,
    restored: mpsc::UnboundedReceiver<Restored>,
    restoring: mpsc::UnboundedSender<Restored>,
    /// Restorations begun so far.
    restorations: u64,
    stop: watch::Receiver<bool>,
    /// The partitions of every task of the topology.
    partitions: BTreeMap<TaskId, Vec<TopicPartition>>,
    owner: HashMap<TopicPartition, TaskId>,
    tasks: BTreeMap<TaskId, Running>,
    /// Deliveries of the batches sent since the last commit.
    deliveries: Vec<Delivery>,
    in_transaction: bool,
    /// Whether a processor asked for a commit.
    commit_soon: bool,
    last_commit: Instant,
    /// Partitions with enough records waiting.
    paused: HashSet<TopicPartition>,
    /// Where queries come in.
    desk: Desk,
}

/// A task of this thread.
enum Running {
    Restoring(Restoring),
    Ready(Box<Task>),
}

/// A restoration that goes on in the background, and ends when nobody waits for it any more.
struct Restoring {
    number: u64,
    background: AbortHandle,
}

impl Drop for Restoring {
    fn drop(&mut self) {
        self.background.abort();
    }
}

/// What became of a restoration.
struct Restored {
    number: u64,
    task: Result<Task, StreamsError>,
}

/// What the group tells.
enum Event {
    Assigned(Vec<TopicPartition>),
    Revoked(Vec<TopicPartition>, oneshot::Sender<()>),
    Lost(Vec<TopicPartition>),
}

struct Listener(mpsc::UnboundedSender<Event>);

impl RebalanceListener for Listener {
    fn assigned<'a>(&'a self, partitions: &'a [TopicPartition]) -> BoxFuture<'a, ()> {
        // A closed channel is a thread that has ended.
        let _ = self.0.send(Event::Assigned(partitions.to_vec()));
        Box::pin(std::future::ready(()))
    }

    fn revoked<'a>(&'a self, partitions: &'a [TopicPartition]) -> BoxFuture<'a, ()> {
        Box::pin(async {
            let (done, committed) = oneshot::channel();
            if self.0.send(Event::Revoked(partitions.to_vec(), done)).is_ok() {
                let _ = committed.await;
            }
        })
    }

    fn lost<'a>(&'a self, partitions: &'a [TopicPartition]) -> BoxFuture<'a, ()> {
        let _ = self.0.send(Event::Lost(partitions.to_vec()));
        Box::pin(std::future::ready(()))
    }
}

impl Thread {
    pub(super) async fn new(
        setup: Setup,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, StreamsError> {
        let exactly_once = setup.settings.guarantee == Guarantee::ExactlyOnce;
        let application = setup.plan.application_id().to_owned();
        let config = ConsumerConfig {
            group_id: Some(application.clone()),
            auto_commit: false,
            offset_reset: setup.settings.offset_reset,
            session_timeout: setup.settings.session_timeout,
            isolation_level: if exactly_once {
                IsolationLevel::ReadCommitted
            } else {
                IsolationLevel::ReadUncommitted
            },
            ..ConsumerConfig::default()
        };
        let assignor = TaskAssignor::new(&setup.plan, &setup.counts)
            .serving(setup.settings.application_server.as_deref());
        let consumer =
            Consumer::with_assignors(setup.client.clone(), config, vec![Arc::new(assignor)])?;
        let producer = Producer::new(
            setup.client.clone(),
            ProducerConfig {
                transactional_id: exactly_once
                    .then(|| format!("{application}-{:016x}-{}", unique(), setup.number)),
                linger: Duration::from_millis(100),
                ..ProducerConfig::default()
            },
        )?;
        if exactly_once {
            producer.init_transactions().await?;
        }
        let (told, events) = mpsc::unbounded_channel();
        consumer.set_rebalance_listener(Arc::new(Listener(told)));
        let topics: Vec<&str> = setup
            .plan
            .subtopologies()
            .iter()
            .filter(|part| !part.global)
            .flat_map(|part| part.source_topics.iter().map(String::as_str))
            .collect();
        consumer.subscribe(&topics)?;
        let partitions = partitions_by_task(&setup.plan, &setup.counts);
        let owner = partitions
            .iter()
            .flat_map(|(id, reads)| reads.iter().map(|partition| (partition.clone(), *id)))
            .collect();
        let (restoring, restored) = mpsc::unbounded_channel();
        let desk = Desk::new(setup.shelf.clone(), setup.number);
        Ok(Self {
            desk,
            setup,
            consumer,
            producer,
            events,
            restored,
            restoring,
            restorations: 0,
            stop,
            partitions,
            owner,
            tasks: BTreeMap::new(),
            deliveries: Vec::new(),
            in_transaction: false,
            commit_soon: false,
            last_commit: Instant::now(),
            paused: HashSet::new(),
        })
    }

    /// Runs until it is told to stop, or fails.
    pub(super) async fn run(mut self) -> Result<(), StreamsError> {
        let result = self.work().await;
        match &result {
            Ok(()) => {}
            Err(error) => tracing::error!(thread = self.setup.number, %error, "stream thread ends"),
        }
        // What was not committed is processed again.
        if self.in_transaction {
            let _ = self.producer.abort_transaction().await;
        }
        self.tasks.clear();
        let listener = self.events;
        drop(listener);
        let closed = self.consumer.close().await;
        let flushed = self.producer.close().await;
        result.and(closed.map_err(Into::into)).and(flushed.map_err(Into::into))
    }

    async fn work(&mut self) -> Result<(), StreamsError> {
        loop {
            let wait = if self.queued() > 0 { Duration::ZERO } else { self.until_commit() };
            tokio::select! {
                biased;
                event = self.events.recv() => {
                    if let Some(event) = event {
                        self.handle(event).await?;
                        self.show_tasks();
                    }
                }
                task = self.restored.recv() => {
                    if let Some(task) = task {
                        self.take_restored(task)?;
                        self.show_tasks();
                    }
                }
                () = self.desk.answer(&mut self.tasks) => {}
                _ = self.stop.changed() => {
                    self.commit().await?;
                    self.for_each_task(Task::close);
                    return Ok(());
                }
                records = self.consumer.poll(wait) => {
                    if let Some(records) = records? {
                        self.queue(records.into_owned());
                    }
                }
            }
            self.process().await?;
            self.limit_queues();
            let interval = self.setup.settings.commit_interval();
            if self.last_commit.elapsed() >= interval || std::mem::take(&mut self.commit_soon) {
                self.commit().await?;
            } else if self.cached_bytes() > self.cache_budget() {
                self.commit().await?;
                self.for_each_task(|task| task.shrink_caches());
            } else if self.uncommitted_bytes() > self.uncommitted_budget() {
                self.commit().await?;
            }
        }
    }

    fn show_tasks(&self) {
        let ready = |running: &Running| matches!(running, Running::Ready(_));
        self.desk.show(self.tasks.iter().map(|(id, running)| (*id, ready(running))));
    }

    async fn handle(&mut self, event: Event) -> Result<(), StreamsError> {
        match event {
            Event::Assigned(partitions) => {
                for id in self.tasks_of(&partitions) {
                    if self.tasks.contains_key(&id) {
                        continue;
                    }
                    self.open(id);
                }
            }
            Event::Revoked(partitions, done) => {
                let result = self.commit().await;
                for id in self.tasks_of(&partitions) {
                    self.tasks.remove(&id);
                }
                self.paused.retain(|partition| !partitions.contains(partition));
                let _ = done.send(());
                result?;
            }
            Event::Lost(partitions) => {
                if self.in_transaction {
                    self.producer.abort_transaction().await?;
                    self.in_transaction = false;
                }
                for id in self.tasks_of(&partitions) {
                    self.tasks.remove(&id);
                }
                self.paused.retain(|partition| !partitions.contains(partition));
            }
        }
        Ok(())
    }

    /// Begins a task: its state is restored while its partitions wait.
    fn open(&mut self, id: TaskId) {
        for partition in &self.partitions[&id] {
            // A partition that has gone already is told in a later event.
            let _ = self.consumer.pause(partition);
        }
        // A task that ran until now gives up its stores.
        self.tasks.remove(&id);
        self.restorations += 1;
        let number = self.restorations;
        let (restorer, done) = (self.setup.restorer.clone(), self.restoring.clone());
        let background = tokio::spawn(async move {
            let task = restorer.restored(id).await;
            // The thread may have ended meanwhile.
            let _ = done.send(Restored { number, task });
        });
        let restoring = Restoring { number, background: background.abort_handle() };
        self.tasks.insert(id, Running::Restoring(restoring));
    }

    /// Takes back everything since the last commit, because the group would not have it: state and positions are again
    /// what was committed.
    async fn begin_again(&mut self) -> Result<(), StreamsError> {
        self.producer.abort_transaction().await?;
        self.in_transaction = false;
        self.deliveries.clear();
        let running = |(id, running): (&TaskId, &Running)| match running {
            Running::Ready(_) => Some(*id),
            Running::Restoring(_) => None,
        };
        let ids: Vec<TaskId> = self.tasks.iter().filter_map(running).collect();
        for id in ids {
            self.open(id);
            for partition in &self.partitions[&id] {
                let _ = self.consumer.seek(partition, Start::Committed);
            }
        }
        Ok(())
    }

    fn take_restored(&mut self, restored: Restored) -> Result<(), StreamsError> {
        // Given up while it was restored, and perhaps assigned again, with another restoration to come.
        let waits = |running: &Running| matches!(running, Running::Restoring(restoring) if restoring.number == restored.number);
        let Some((id, running)) = self.tasks.iter_mut().find(|(_, running)| waits(running)) else {
            return Ok(());
        };
        let (id, mut task) = (*id, restored.task?);
        task.init(now_ms())?;
        *running = Running::Ready(Box::new(task));
        for partition in &self.partitions[&id] {
            let _ = self.consumer.resume(partition);
        }
        Ok(())
    }

    fn tasks_of(&self, partitions: &[TopicPartition]) -> Vec<TaskId> {
        let mut ids: Vec<TaskId> =
            partitions.iter().filter_map(|partition| self.owner.get(partition)).copied().collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn queue(&mut self, records: impl Iterator<Item = OwnedRecord>) {
        for record in records {
            let partition = TopicPartition::new(record.topic.clone(), record.partition);
            let Some(Running::Ready(task)) =
                self.owner.get(&partition).and_then(|id| self.tasks.get_mut(id))
            else {
                continue;
            };
            task.add(RawRecord {
                topic: record.topic,
                partition: record.partition,
                offset: record.offset,
                timestamp: record.timestamp,
                key: record.key,
                value: record.value,
                headers: record
                    .headers
                    .into_iter()
                    .map(|(key, value)| record::Header { key, value })
                    .collect(),
            });
        }
    }

    /// Processes what is queued, as long as no partition is missing whose next record may be older.
    async fn process(&mut self) -> Result<(), StreamsError> {
        let now_ms = now_ms();
        let ids: Vec<TaskId> = self.tasks.keys().copied().collect();
        for id in ids {
            let mut processed = 0;
            while processed < RECORDS_PER_TURN {
                if processed % RECORDS_PER_LOOK == 0 {
                    self.desk.answer_waiting(&mut self.tasks);
                }
                let Some(Running::Ready(task)) = self.tasks.get_mut(&id) else {
                    break;
                };
                if task.queued() == 0 || !is_ready(task, id, &self.consumer) {
                    break;
                }
                if !task.process(now_ms)? {
                    break;
                }
                processed += 1;
            }
            let mut punctuated = false;
            if let Some(Running::Ready(task)) = self.tasks.get_mut(&id) {
                punctuated = task.punctuate(now_ms)?;
                self.commit_soon |= task.take_commit_request();
            }
            if (processed > 0 || punctuated)
                && let Some(Running::Ready(task)) = self.tasks.get_mut(&id)
            {
                let outgoing = task.take_outgoing();
                self.send(outgoing).await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self, outgoing: Vec<Outgoing>) -> Result<(), StreamsError> {
        if outgoing.is_empty() {
            return Ok(());
        }
        self.begin()?;
        for out in &outgoing {
            let headers: Vec<Header<'_>> = out
                .headers
                .iter()
                .map(|header| Header::new(&header.key, header.value.as_deref()))
                .collect();
            let mut record = Record::new(&out.topic.name).headers(&headers);
            if out.timestamp >= 0 {
                record = record.timestamp(out.timestamp);
            }
            if let Some(key) = &out.key {
                record = record.key(key);
            }
            if let Some(value) = &out.value {
                record = record.value(value);
            }
            if let Some(partition) = out.topic.partition {
                record = record.partition(partition);
            }
            let delivery = self.producer.send(record).await?;
            match self.deliveries.last_mut() {
                Some(last) if last.shares_batch_with(&delivery) => *last = delivery,
                _ => self.deliveries.push(delivery),
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), StreamsError> {
        if self.setup.settings.guarantee == Guarantee::ExactlyOnce && !self.in_transaction {
            self.producer.begin_transaction()?;
            self.in_transaction = true;
        }
        Ok(())
    }

    /// Makes everything processed so far durable: output, changelogs, offsets.
    async fn commit(&mut self) -> Result<(), StreamsError> {
        self.last_commit = Instant::now();
        // The group may be a generation ahead, and would refuse.
        if self.consumer.is_joining() {
            return Ok(());
        }
        let mut offsets: HashMap<TopicPartition, Committed> = HashMap::new();
        let mut outgoing = Vec::new();
        for (id, running) in &mut self.tasks {
            let Running::Ready(task) = running else {
                continue;
            };
            let commit = task.commit()?;
            outgoing.extend(commit.outgoing);
            for (topic, offset) in commit.offsets {
                offsets.insert(TopicPartition::new(topic, id.partition), Committed::at(offset));
            }
        }
        self.send(outgoing).await?;
        if offsets.is_empty() && self.deliveries.is_empty() {
            return Ok(());
        }
        match self.setup.settings.guarantee {
            Guarantee::ExactlyOnce => {
                self.begin()?;
                let group = self.consumer.group_metadata()?;
                match self.producer.send_offsets(&offsets, &group).await {
                    // A rebalance began while the offsets were on their way.
                    Err(error) if is_of_another_generation(&error) => {
                        return self.begin_again().await;
                    }
                    sent => sent?,
                }
                let committed = self.producer.commit_transaction();
                self.desk.meanwhile(&mut self.tasks, committed).await?;
                self.in_transaction = false;
                self.note_written().await?;
            }
            Guarantee::AtLeastOnce => {
                self.desk.meanwhile(&mut self.tasks, self.producer.flush()).await?;
                self.note_written().await?;
                let committed = self.consumer.commit_with_metadata(offsets);
                match self.desk.meanwhile(&mut self.tasks, committed).await {
                    // The next commit says it again, if the partitions are still ours then.
                    Err(error) if is_of_another_generation(&error) => return Ok(()),
                    committed => committed?,
                }
            }
        }
        for running in self.tasks.values_mut() {
            if let Running::Ready(task) = running {
                task.committed();
                task.keep(now_ms()).map_err(StreamsError::state)?;
            }
        }
        Ok(())
    }

    /// Waits for all deliveries, and tells tasks the offsets their changelog records got.
    async fn note_written(&mut self) -> Result<(), StreamsError> {
        let mut ends: HashMap<TopicPartition, i64> = HashMap::new();
        for delivery in self.deliveries.drain(..) {
            let written = delivery.await?;
            if let Some(offset) = written.offset {
                let end = ends.entry(written.partition).or_insert(0);
                *end = (*end).max(offset + 1);
            }
        }
        for (id, running) in &mut self.tasks {
            if let Running::Ready(task) = running {
                task.wrote(|changelog| {
                    ends.get(&TopicPartition::new(changelog.clone(), id.partition)).copied()
                });
            }
        }
        Ok(())
    }

    /// Stops fetching partitions whose records wait for those of others.
    fn limit_queues(&mut self) {
        for (id, running) in &self.tasks {
            let Running::Ready(task) = running else {
                continue;
            };
            for (topic, length) in task.queue_lengths() {
                let partition = TopicPartition::new(topic.clone(), id.partition);
                // Pausing what has just been revoked fails, and does not matter.
                if length > QUEUE_MAX && self.paused.insert(partition.clone()) {
                    let _ = self.consumer.pause(&partition);
                } else if length < QUEUE_MAX / 2 && self.paused.remove(&partition) {
                    let _ = self.consumer.resume(&partition);
                }
            }
        }
    }

    fn for_each_task(&mut self, mut act: impl FnMut(&mut Task)) {
        for running in self.tasks.values_mut() {
            if let Running::Ready(task) = running {
                act(task);
            }
        }
    }

    fn queued(&self) -> usize {
        self.ready().map(Task::queued).sum()
    }

    fn cached_bytes(&self) -> usize {
        self.ready().map(Task::cached_bytes).sum()
    }

    fn ready(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values().filter_map(|running| match running {
            Running::Ready(task) => Some(&**task),
            Running::Restoring(_) => None,
        })
    }

    fn cache_budget(&self) -> usize {
        self.setup.settings.cache_bytes_max / self.setup.settings.threads.max(1)
    }

    /// Bytes that wait for a commit before they go to disk.
    fn uncommitted_bytes(&mut self) -> usize {
        let mut bytes = 0;
        self.for_each_task(|task| bytes += task.uncommitted_bytes());
        bytes
    }

    fn uncommitted_budget(&self) -> usize {
        self.setup.settings.uncommitted_bytes_max() / self.setup.settings.threads.max(1)
    }

    fn until_commit(&self) -> Duration {
        self.setup
            .settings
            .commit_interval()
            .saturating_sub(self.last_commit.elapsed())
            .min(POLL_MAX)
    }
}

/// Whether the task may process its next record: every partition has one, or nothing more to give for now.
fn is_ready(task: &Task, id: TaskId, consumer: &Consumer) -> bool {
    task.empty_topics().all(|topic| {
        let partition = TopicPartition::new(topic.clone(), id.partition);
        match (consumer.high_watermark(&partition), consumer.position(&partition)) {
            (Some(end), Some(position)) => position >= end,
            // Not ours, as a partition that the topic does not have, or not fetched yet.
            (_, None) => true,
            (None, Some(_)) => false,
        }
    })
}

/// Whether the group refused a commit because it has moved on since.
fn is_of_another_generation(error: &fleuve_client::Error) -> bool {
    matches!(
        error.code(),
        Some(
            ErrorCode::IllegalGeneration
                | ErrorCode::UnknownMemberId
                | ErrorCode::RebalanceInProgress
        )
    )
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// A number that other processes do not have.
fn unique() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}

impl Shelved for BTreeMap<TaskId, Running> {
    fn find(&mut self, id: TaskId) -> Option<&mut Task> {
        match self.get_mut(&id)? {
            Running::Ready(task) => Some(task),
            Running::Restoring(_) => None,
        }
    }
}

/// Records between two looks for queries.
const RECORDS_PER_LOOK: usize = 64;
/// Records that one task processes before the others have their turn.
const RECORDS_PER_TURN: usize = 10_000;
/// Records of one partition that wait before it is no longer fetched.
const QUEUE_MAX: usize = 20_000;
/// The longest wait for records, so that a stop is noticed soon.
const POLL_MAX: Duration = Duration::from_millis(100);
