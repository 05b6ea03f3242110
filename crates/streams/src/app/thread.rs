//! One stream thread: a member of the group, its tasks, one producer.
//!
//! ```text
//! poll -> queue records -> process -> send output -> (commit) -> poll
//! ```
//!
//! Rebalances arrive as events between two steps: revoked tasks are committed before the group goes on, new ones are
//! restored in the background while the others run. What the cluster refuses is done again from what was committed
//! last; only errors that no repetition mends, or that last longer than `task.timeout.ms`, end the thread.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleuve_client::config::{IsolationLevel, OffsetReset};
use fleuve_client::consumer::{Committed, GroupMetadata};
use fleuve_client::{Client, Consumer, ConsumerConfig, Error, ErrorCode};
use fleuve_types::TopicPartition;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::ahead::{Ahead, Workplace};
use super::assignor::{Here, TaskAssignor};
use super::bounded::{Closing, Ends};
use super::group;
use super::layout::{Layout, Layouts};
use super::metadata;
use super::output::{Outcome, Output, is_passing};
use super::production::Unsent;
use super::rebalancing::{Event, Listener, Losses, Warming};
use super::restore::Restorer;
use super::standby::Standbys;
use super::tasks::Tasks;
use super::{Guarantee, Settings, StreamsError, memory};
use crate::metrics::{ClientKind, ClientMetrics, Meter, ThreadMetrics, ThreadState};
use crate::query::{Desk, Shelf};
use crate::runtime::{Task, TaskId};
use crate::state::disk::Keeping;
use crate::topology::Plan;

/// What a thread is made from.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) number: usize,
    pub(super) plan: Arc<Plan>,
    pub(super) layouts: Layouts,
    pub(super) client: Client,
    pub(super) settings: Settings,
    /// The process's id.
    pub(super) process: Arc<str>,
    /// Whether the broker shares out the tasks.
    pub(super) by_broker: bool,
    /// Where sources end, in a run that ends.
    pub(super) ends: Option<Ends>,
    /// Which subtopologies have come to the end of their input, in a run that ends.
    pub(super) closing: Closing,
    pub(super) restorer: Arc<Restorer>,
    pub(super) standbys: Standbys,
    pub(super) shelf: Shelf,
    /// How many threads share the budget of caches.
    pub(super) threads: Arc<AtomicUsize>,
}

/// A stream thread.
pub(super) struct Thread {
    pub(super) setup: Setup,
    /// What its tasks read.
    pub(super) layout: Arc<Layout>,
    pub(super) consumer: Consumer,
    /// Never subscribes: asks what the group has committed.
    pub(super) asking: Arc<Consumer>,
    pub(super) output: Output,
    pub(super) tasks: Tasks,
    events: mpsc::UnboundedReceiver<Event>,
    losses: Losses,
    /// How many of them the thread has dealt with.
    pub(super) losses_handled: u64,
    restored: mpsc::UnboundedReceiver<Restored>,
    pub(super) restoring: mpsc::UnboundedSender<Restored>,
    stop: watch::Receiver<bool>,
    /// Whether a processor asked for a commit.
    commit_soon: bool,
    last_commit: Instant,
    /// When stores on disk were last told to keep what was committed.
    last_kept: Instant,
    /// Whether the next commit is such a time, whenever the last one was.
    keeps_next: bool,
    /// Whether a commit is due that waits for what is under way inside tasks.
    commit_due: bool,
    /// Rung by what tasks wait for.
    pub(super) woken: Arc<Alarm>,
    /// Where queries come in.
    desk: Desk,
    pub(super) meter: Meter,
    /// Since when members of another program keep this one out of the group.
    pub(super) strangers_since: Option<Instant>,
    /// Since when nothing could be committed.
    failing_since: Option<Instant>,
    /// What the group is asked for to divide anew.
    pub(super) warming: Warming,
    pub(super) probe_at: Option<Instant>,
    /// When idle tasks were last looked at, by the time of day.
    idle_looked_ms: i64,
    /// Raised with every such request.
    asked: Arc<AtomicU64>,
}

/// Wakes the thread.
pub(super) struct Alarm(Notify);

impl std::task::Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// The end of a restoration: its number, and the task or why there is none.
pub(super) type Restored = (TaskId, u64, Result<Task, StreamsError>);

impl Thread {
    pub(super) async fn new(
        setup: Setup,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, StreamsError> {
        let exactly_once = setup.settings.guarantee == Guarantee::ExactlyOnce;
        let application = setup.plan.application_id().to_owned();
        let fetched = setup.settings.memory().fetched / setup.settings.threads.max(1);
        let fetch_max_bytes = memory::fetch_bytes_max(fetched);
        let config = ConsumerConfig {
            group_id: Some(application.clone()),
            fetch_max_bytes,
            max_partition_fetch_bytes: fetch_max_bytes
                .min(ConsumerConfig::default().max_partition_fetch_bytes),
            group_instance_id: setup.instance_id(),
            auto_commit: false,
            // Otherwise the thread is asked, topic by topic.
            offset_reset: match setup.plan.has_offset_resets() {
                true => OffsetReset::None,
                false => setup.settings.offset_reset,
            },
            session_timeout: setup.settings.session_timeout,
            // Three chances within a session.
            heartbeat_interval: HEARTBEAT_MAX.min(setup.settings.session_timeout / 3),
            isolation_level: if exactly_once {
                IsolationLevel::ReadCommitted
            } else {
                IsolationLevel::ReadUncommitted
            },
            ..ConsumerConfig::default()
        };
        let asking = ConsumerConfig {
            group_id: Some(application.clone()),
            auto_commit: false,
            ..ConsumerConfig::default()
        };
        let asking = Arc::new(Consumer::new(setup.client.clone(), asking)?);
        let (told, events) = mpsc::unbounded_channel();
        let layout = setup.layouts.now();
        let assignor = TaskAssignor::new(setup.layouts.clone(), &setup.settings);
        let asked = assignor.asked();
        let consumer = if setup.by_broker {
            let member = group::member(&layout, &setup.settings, &setup.process);
            Consumer::for_streams(setup.client.clone(), config, member)?
        } else {
            let (standbys, events) = (setup.standbys.clone(), told.clone());
            let here = Here { thread: setup.number, standbys, events };
            let assignor = Arc::new(assignor.within(&setup.process, here));
            Consumer::with_assignors(setup.client.clone(), config, vec![assignor])?
        };
        let transactional_id =
            exactly_once.then(|| format!("{application}-{:016x}-{}", unique(), setup.number));
        let output = Output::new(
            setup.client.clone(),
            transactional_id,
            setup.settings.transaction_timeout,
            setup.plan.policies.writing.clone(),
        )
        .await?;
        let (thread, standbys) = (setup.number, setup.standbys.clone());
        let losses = Losses::default();
        let listener = Listener { events: told, losses: losses.clone(), thread, standbys };
        consumer.set_rebalance_listener(Arc::new(listener));
        setup.subscribe(&consumer)?;
        let tasks = Tasks::new(layout.tasks.clone(), setup.ends.clone());
        let (restoring, restored) = mpsc::unbounded_channel();
        let desk = Desk::new(setup.shelf.clone(), setup.number);
        Ok(Self {
            desk,
            meter: Meter::new(now_ms()),
            setup,
            layout,
            consumer,
            asking,
            output,
            tasks,
            events,
            losses,
            losses_handled: 0,
            restored,
            restoring,
            stop,
            commit_soon: false,
            commit_due: false,
            woken: Arc::new(Alarm(Notify::new())),
            last_commit: Instant::now(),
            last_kept: Instant::now(),
            keeps_next: false,
            strangers_since: None,
            failing_since: None,
            warming: Warming::default(),
            probe_at: None,
            idle_looked_ms: 0,
            asked,
        })
    }

    /// Runs until it is told to stop, or fails.
    pub(super) async fn run(mut self) -> Result<(), StreamsError> {
        let result = self.work().await;
        match &result {
            Ok(()) => {}
            Err(error) => tracing::error!(thread = self.setup.number, %error, "stream thread ends"),
        }
        self.setup.standbys.keep(self.setup.number, BTreeSet::new());
        for (id, _) in self.tasks.all() {
            self.setup.standbys.forget(id);
        }
        self.tasks.close_all();
        let listener = self.events;
        drop(listener);
        // What was not committed is processed again.
        let flushed = self.output.close().await;
        let closed = self.consumer.close().await;
        result.and(closed.map_err(Into::into)).and(flushed.map_err(Into::into))
    }

    async fn work(&mut self) -> Result<(), StreamsError> {
        let mut blocked = false;
        loop {
            let wait = match (self.tasks.is_busy() && !self.commit_due, blocked) {
                (true, false) => Duration::ZERO,
                (true, true) => self.until_work().min(BLOCKED_MAX),
                (false, _) => self.until_work(),
            };
            let hungry = !wait.is_zero() || !self.tasks.are_fed();
            let began = Instant::now();
            tokio::select! {
                biased;
                event = self.events.recv() => {
                    if let Some(event) = event {
                        self.handle(event).await?;
                        self.show_tasks();
                    }
                }
                restored = self.restored.recv() => {
                    if let Some(restored) = restored {
                        self.take_restored(restored)?;
                        self.show_tasks();
                    }
                }
                () = self.desk.answer(&mut self.tasks) => {}
                () = self.woken.0.notified() => {}
                _ = self.stop.changed() => return self.wind_up().await,
                () = std::future::ready(()), if !hungry => {}
                records = self.consumer.poll(wait), if hungry => match records {
                    Ok(Some(records)) => {
                        let partition = records.partition().clone();
                        let mut count = 0;
                        let records = records.into_owned().inspect(|_| count += 1);
                        self.tasks.queue(&partition, records, &self.consumer);
                        self.meter.polled(now_ms(), began.elapsed(), count);
                    }
                    Ok(None) => {}
                    Err(error) => self.take_reading_error(error).await?,
                }
            }
            blocked = !self.process().await?;
            self.publish();
            self.ask_for_warm_tasks()?;
            self.tasks.limit_queues(&self.consumer);
            let interval = self.setup.settings.commit_interval();
            let due = self.commit_due && self.tasks.ready().all(Task::is_settled);
            if due
                || self.last_commit.elapsed() >= interval
                || std::mem::take(&mut self.commit_soon)
            {
                let ahead = self.may_go_ahead();
                self.commit(ahead).await?;
            } else if self.tasks.cached_bytes() > self.cache_budget() {
                self.commit(false).await?;
                self.tasks.ready_mut().for_each(Task::shrink_caches);
            } else if self.tasks.uncommitted_bytes() > self.uncommitted_budget() {
                self.commit(false).await?;
            }
        }
    }

    /// Has the group divide anew when a task that is to come has its state here, or has had time for it.
    fn ask_for_warm_tasks(&mut self) -> Result<(), StreamsError> {
        let acceptable = i64::try_from(self.setup.settings.acceptable_recovery_lag);
        let (standbys, acceptable) = (&self.setup.standbys, acceptable.unwrap_or(i64::MAX));
        let is_warm = |id: &TaskId| standbys.lag(*id).is_some_and(|lag| lag <= acceptable);
        let warm: Vec<TaskId> = self.warming.tasks.iter().copied().filter(is_warm).collect();
        let is_time = self.probe_at.is_some_and(|at| at <= Instant::now());
        if (warm.is_empty() && !is_time) || self.consumer.is_joining() {
            return Ok(());
        }
        tracing::info!(thread = self.setup.number, ?warm, "the group is asked to divide anew");
        // The next assignment says what is still to be warmed up.
        self.warming = Warming::default();
        self.probe_at = None;
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(self.consumer.enforce_rebalance()?)
    }

    /// Tells the numbers of this thread and its tasks, once a second.
    fn publish(&mut self) {
        if self.desk.is_due() {
            let is_restoring = self.tasks.all().any(|(_, ready)| !ready);
            self.tell(self.meter.state(self.consumer.is_joining(), is_restoring));
        }
    }

    fn tell(&mut self, state: ThreadState) {
        let (now_ms, consumer) = (now_ms(), &self.consumer);
        let mut tasks = Vec::new();
        for task in self.tasks.ready_mut() {
            let number = task.id().partition;
            let partition = |topic: &Arc<str>| TopicPartition::new(topic.clone(), number);
            task.note_start(|topic| consumer.position(&partition(topic)));
            tasks.push(task.metrics(now_ms, |topic| {
                let partition = partition(topic);
                let end = consumer.high_watermark(&partition)?;
                Some((end - consumer.position(&partition)?).max(0))
            }));
        }
        let clients = vec![
            ClientMetrics { kind: ClientKind::Consumer, metrics: self.consumer.metrics() },
            ClientMetrics { kind: ClientKind::Producer, metrics: self.output.metrics() },
        ];
        let thread = ThreadMetrics { clients, ..self.meter.metrics(now_ms, state) };
        self.desk.publish(tasks, thread);
    }

    fn show_tasks(&self) {
        self.desk.show(self.tasks.all());
    }

    /// Goes on after an error that the consumer reports, if it may pass.
    async fn take_reading_error(&mut self, error: Error) -> Result<(), StreamsError> {
        let is_kept_out = matches!(
            error.code(),
            Some(ErrorCode::InconsistentGroupProtocol | ErrorCode::GroupIdNotFound)
        );
        let since = is_kept_out.then(|| *self.strangers_since.get_or_insert_with(Instant::now));
        if since.is_some_and(|since| since.elapsed() < TASK_TIMEOUT) {
            // Somebody else runs this application, or has and is still a member, as Kafka Streams is after it was
            // closed: until then the group divides by another protocol.
            tracing::warn!(
                thread = self.setup.number,
                "waiting for members of another program to leave the group"
            );
            tokio::time::sleep(STRANGERS_PAUSE).await;
            self.setup.subscribe(&self.consumer)?;
            return Ok(());
        }
        if let Error::NoOffset { partition, .. } = &error
            && let Some(start) = self.start_of(&partition.topic)
        {
            // What has been given up since is of no interest.
            let _ = self.consumer.seek(partition, start);
            return Ok(());
        }
        if !is_passing(&error) {
            return Err(error.into());
        }
        tracing::warn!(thread = self.setup.number, %error, "reading goes on");
        Ok(())
    }

    /// Commits a last time, as soon as the group will have it.
    async fn wind_up(&mut self) -> Result<(), StreamsError> {
        self.tell(ThreadState::PendingShutdown);
        let patience = Instant::now() + CLOSE_PATIENCE;
        while self.consumer.is_joining() && Instant::now() < patience {
            if let Ok(Some(event)) = tokio::time::timeout(BLOCKED_MAX, self.events.recv()).await {
                self.handle(event).await?;
            }
        }
        self.drain().await?;
        self.commit_to_disk().await?;
        self.tasks.ready_mut().for_each(Task::close);
        Ok(())
    }

    /// Takes back everything since the last commit, because the cluster would not have it: state and positions are
    /// again what was committed.
    pub(super) async fn begin_again(&mut self, reason: &str) -> Result<(), StreamsError> {
        tracing::info!(
            thread = self.setup.number,
            reason,
            "tasks begin again from the last commit"
        );
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        while let Err(error) = self.output.take_back().await {
            if !is_passing(&error) || since.elapsed() > TASK_TIMEOUT || *self.stop.borrow() {
                return Err(error.into());
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        for id in self.tasks.ready_ids() {
            self.open(id);
        }
        Ok(())
    }

    /// Begins again after an error that may pass, unless it has lasted too long.
    async fn recover(&mut self, unsent: impl Into<Unsent>) -> Result<(), StreamsError> {
        let error = match unsent.into() {
            Unsent::Client(error) => error,
            failed => return Err(failed.into()),
        };
        let lasting = self.failing_since.is_some_and(|since| since.elapsed() > TASK_TIMEOUT);
        if lasting || !is_passing(&error) {
            return Err(error.into());
        }
        self.begin_again(&error.to_string()).await
    }

    /// Processes what is queued, as long as no partition is missing whose next record may be older. Returns whether
    /// any task had something to do.
    async fn process(&mut self) -> Result<bool, StreamsError> {
        let now_ms = now_ms();
        let idle_max_ms = self.setup.settings.max_task_idle.map(|idle| idle.as_millis() as i64);
        let (mut worked, mut all_processed) = (false, 0);
        let time = self.setup.plan.time;
        let looks_for_idle = (time.idle_ms.is_some() || time.watermark_idle_ms.is_some())
            && now_ms - self.idle_looked_ms >= IDLE_LOOK_MS;
        if looks_for_idle {
            self.idle_looked_ms = now_ms;
        }
        for id in self.tasks.ready_ids() {
            let (mut resumed, began) = (false, Instant::now());
            if let Some(task) = self.tasks.get_ready(id) {
                resumed = task.go_on(now_ms)?;
            }
            let mut processed = 0;
            while processed < RECORDS_PER_TURN
                && !self.commit_due
                && self.tasks.is_ready(id, idle_max_ms, now_ms, &self.consumer)
            {
                if processed % RECORDS_PER_LOOK == 0 {
                    self.desk.answer_waiting(&mut self.tasks);
                }
                let Some(task) = self.tasks.get_ready(id) else {
                    break;
                };
                if !task.process(now_ms)? {
                    break;
                }
                processed += 1;
            }
            if processed > 0 {
                let took = began.elapsed();
                self.meter.processed(now_ms, took, processed);
                all_processed += processed;
                if let Some(task) = self.tasks.get_ready(id) {
                    task.note_processed(now_ms, took, processed);
                }
            }
            if looks_for_idle {
                resumed |= self.tasks.pass_time(id, now_ms, &self.consumer)?;
            }
            let Some(task) = self.tasks.get_ready(id) else {
                continue;
            };
            if self.setup.ends.is_some()
                && !task.is_finished()
                && self.setup.closing.contains(id.subtopology)
            {
                task.finish(now_ms)?;
                resumed = true;
            }
            let punctuated = task.punctuate(now_ms)?;
            self.meter.punctuated(now_ms, task.take_punctuations());
            self.commit_soon |= task.take_commit_request();
            worked |= processed > 0 || punctuated;
            if processed > 0 || punctuated || resumed {
                task.tell_time(now_ms);
                let outgoing = task.take_outgoing();
                if let Err(error) = self.output.send(outgoing).await {
                    self.recover(error).await?;
                    return Ok(true);
                }
            }
        }
        self.meter.round(now_ms, all_processed);
        Ok(worked)
    }

    /// Waits for what is under way inside tasks, so that a commit covers it. Gives up after a while.
    pub(super) async fn drain(&mut self) -> Result<(), StreamsError> {
        let deadline = Instant::now() + DRAIN_MAX;
        while !self.tasks.settle(now_ms())? {
            if Instant::now() >= deadline {
                if self.setup.settings.guarantee == Guarantee::ExactlyOnce {
                    // One transaction holds the output of all tasks.
                    return self.begin_again("records are still under way").await;
                }
                for id in self.tasks.unsettled_ids() {
                    tracing::warn!(task = %id, "records under way are given up, and processed again");
                    self.open(id);
                }
                return Ok(());
            }
            tokio::select! {
                () = self.woken.0.notified() => {}
                () = tokio::time::sleep(self.until_work()) => {}
            }
        }
        Ok(())
    }

    /// Makes everything processed so far durable: output, changelogs, offsets. If something is under way inside a task,
    /// that is finished first, in later turns. Where tasks may go `ahead`, they process records meanwhile.
    async fn commit(&mut self, ahead: bool) -> Result<(), StreamsError> {
        self.last_commit = Instant::now();
        if self.membership()?.is_none() {
            return Ok(());
        }
        // Caches first, part by part: what they send is on its way before it leaves the processor's cache.
        for id in self.tasks.ready_ids() {
            while let Some(task) = self.tasks.get_ready(id) {
                let more = task.flush_part(now_ms())?;
                let outgoing = task.take_outgoing();
                if let Err(error) = self.output.send(outgoing).await {
                    return self.recover(error).await;
                }
                if !more {
                    break;
                }
            }
        }
        self.commit_due = !self.tasks.settle(now_ms())?;
        if self.commit_due {
            return Ok(());
        }
        self.tasks.note_ends(&self.consumer);
        let mut offsets: HashMap<TopicPartition, Committed> = HashMap::new();
        let mut outgoing = Vec::new();
        for task in self.tasks.ready_mut() {
            let number = task.id().partition;
            let commit = task.commit()?;
            outgoing.extend(commit.outgoing);
            for (topic, offset) in commit.offsets {
                let metadata = metadata::encode(&commit.progress, &topic, offset);
                let committed = Committed { metadata, ..Committed::at(offset) };
                offsets.insert(TopicPartition::new(topic, number), committed);
            }
        }
        if let Err(error) = self.output.send(outgoing).await {
            return self.recover(error).await;
        }
        if offsets.is_empty() && !self.output.is_pending() {
            return self.keep();
        }
        // Sending may have taken long.
        let Some(group) = self.membership()? else {
            return Ok(());
        };
        let commit = self.output.commit(offsets, &self.consumer, group);
        if !ahead {
            let outcome = self.desk.meanwhile(&mut self.tasks, commit).await?;
            return match outcome {
                Outcome::Done => {
                    self.note_commit();
                    self.tasks.ready_mut().for_each(Task::committed);
                    self.keep()
                }
                Outcome::Later => Ok(()),
                Outcome::Refused(error) => self.recover(error).await,
            };
        }
        // Before they go on, because it is about what this commit covers. Should that fail, they begin again.
        self.tasks.ready_mut().for_each(Task::committed);
        let mut ahead = Ahead::default();
        let place = Workplace {
            tasks: &mut self.tasks,
            consumer: &self.consumer,
            desk: &mut self.desk,
            meter: &mut self.meter,
            idle_max_ms: self.setup.settings.max_task_idle.map(|idle| idle.as_millis() as i64),
            now_ms,
        };
        let outcome = ahead.during(commit, place).await?;
        if let Outcome::Refused(error) = outcome {
            return self.recover(error).await;
        }
        self.note_commit();
        if let Some(failed) = ahead.failed {
            return Err(failed.into());
        }
        if let Err(error) = self.output.send(ahead.outgoing).await {
            return self.recover(error).await;
        }
        match ahead.unread {
            Some(error) => self.take_reading_error(error).await,
            None => Ok(()),
        }
    }

    /// Who the thread is in its group, as long as what it has there are its tasks. Otherwise nothing can be committed
    /// until the thread has heard of the change.
    fn membership(&self) -> Result<Option<GroupMetadata>, StreamsError> {
        // The group may be a generation ahead, and would refuse.
        if self.consumer.is_joining() {
            return Ok(None);
        }
        let group = self.consumer.group_metadata()?;
        // In this order, since a loss is told before another generation is. Without one the group would refuse nothing.
        let is_member = group.generation >= 0 && self.losses.so_far() == self.losses_handled;
        Ok(is_member.then_some(group))
    }

    /// Notes that a commit stands, and where its records are.
    fn note_commit(&mut self) {
        self.failing_since = None;
        self.meter.committed(now_ms(), self.last_commit.elapsed());
        let written = self.output.take_written();
        for task in self.tasks.ready_mut() {
            let number = task.id().partition;
            task.wrote(|changelog| {
                written.get(&TopicPartition::new(changelog.clone(), number)).copied()
            });
        }
    }

    /// Whether tasks may process records while a commit is on its way: with exactly once, unless stores on disk are to
    /// keep what it covers, or the run is to end.
    fn may_go_ahead(&mut self) -> bool {
        self.setup.settings.guarantee == Guarantee::ExactlyOnce
            && self.setup.ends.is_none()
            && !self.commit_due
            && !self.is_keeping_due()
            && !self.tasks.ready().any(Task::has_unlogged)
    }

    fn is_keeping_due(&mut self) -> bool {
        self.keeps_next
            || self.last_kept.elapsed() >= KEEP_INTERVAL
            || self.tasks.uncommitted_bytes() > self.uncommitted_budget() / 2
    }

    /// Commits, and has stores on disk keep all of it: tasks are about to be given up.
    pub(super) async fn commit_to_disk(&mut self) -> Result<(), StreamsError> {
        self.keeps_next = true;
        let result = self.commit(false).await;
        self.keeps_next = false;
        result
    }

    /// Has stores on disk keep what was committed, if that is due. Everything they have written is committed now.
    ///
    /// Not after every commit: with exactly once these come ten times a second, and would write hot keys as often. What a
    /// crash leaves out is in the changelogs, behind the positions on disk.
    fn keep(&mut self) -> Result<(), StreamsError> {
        let due = self.is_keeping_due();
        if due {
            self.last_kept = Instant::now();
        }
        // All tasks at once: the fewer and larger the pieces, the less work they are for the disk.
        let mut keeping = Keeping::default();
        for task in self.tasks.ready_mut().filter(|task| due || task.has_unlogged()) {
            task.keep_in(&mut keeping, now_ms());
        }
        keeping.write().map_err(StreamsError::state)?;
        for task in self.tasks.ready_mut().filter(|task| due || task.has_unlogged()) {
            task.kept().map_err(StreamsError::state)?;
        }
        Ok(())
    }

    fn cache_budget(&self) -> usize {
        self.setup.settings.memory().caches / self.setup.threads.load(Ordering::Relaxed).max(1)
    }

    fn uncommitted_budget(&self) -> usize {
        let threads = self.setup.threads.load(Ordering::Relaxed).max(1);
        self.setup.settings.memory().uncommitted / threads
    }

    /// How long nothing is to be done, unless something arrives.
    fn until_work(&self) -> Duration {
        let until_commit = self.until_commit();
        self.tasks.due_ms().map_or(until_commit, |due_ms| {
            Duration::from_millis((due_ms - now_ms()).max(0) as u64).min(until_commit)
        })
    }

    fn until_commit(&self) -> Duration {
        self.setup
            .settings
            .commit_interval()
            .saturating_sub(self.last_commit.elapsed())
            .min(POLL_MAX)
    }
}

impl Setup {
    /// `group.instance.id` of this thread, as Kafka Streams numbers them.
    pub(super) fn instance_id(&self) -> Option<String> {
        let instance = self.settings.group_instance_id.as_ref()?;
        Some(format!("{instance}-{}", self.number + 1))
    }
}

pub(super) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// A number that other processes do not have.
fn unique() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}

/// `heartbeat.interval.ms` at most.
const HEARTBEAT_MAX: Duration = Duration::from_secs(3);
/// Records between two looks for queries.
const RECORDS_PER_LOOK: usize = 64;
/// Records that one task processes before what they made is sent, and the others have their turn: so few that all of it
/// stays in the processor's cache.
const RECORDS_PER_TURN: usize = 500;
/// The longest wait for records, so that a stop is noticed soon.
const POLL_MAX: Duration = Duration::from_millis(100);
/// The longest wait while records wait for those of another partition.
const BLOCKED_MAX: Duration = Duration::from_millis(10);
/// Between two looks for tasks without input, whose event time is to go on.
const IDLE_LOOK_MS: i64 = 100;
/// `task.timeout.ms`: how long tasks may fail to commit, or to read their state, before their thread gives up.
pub(super) const TASK_TIMEOUT: Duration = Duration::from_secs(300);
/// Between two attempts.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Between two attempts to join a group that has members of another program.
const STRANGERS_PAUSE: Duration = Duration::from_millis(500);
/// How long a thread that is told to stop waits for a rebalance to end, after which it can commit.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);
/// How long stores on disk may be behind what was committed.
const KEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How long a task that is given up may finish what is under way inside it.
const DRAIN_MAX: Duration = Duration::from_secs(10);
