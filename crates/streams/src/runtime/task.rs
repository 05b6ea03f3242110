//! One task: queues, nodes, stores.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::advancing::Advancing;
use super::assembly::Assembly;
use super::context::{Cx, Origin, Outgoing, OutgoingTopic};
use super::queues::{Lag, Queues, UNKNOWN_TIME};
use super::stored::StoreEntry;
use super::watermarks::Watermarks;
use super::{
    Clock, Flusher, Globals, Punctuated, RawRecord, Schedules, SharedDeferring, SourceEntry,
    Station,
};
use crate::error::ProcessingError;
use crate::metrics::{
    InputMetrics, NodeMetrics, OutputMetrics, Part, Sampler, StoreMetrics, Summary, Tally,
    TaskMeter, TaskMetrics, Written,
};
use crate::query::Position;
use crate::record::Headers;
use crate::state::AnyStore;
use crate::state::disk::Claim;
use crate::topology::{Kind, NodeId, Plan};

/// A task's name: subtopology and partition number, written `0_3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TaskId {
    pub(crate) subtopology: u32,
    pub(crate) partition: i32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.subtopology, self.partition)
    }
}

/// One subtopology for one partition number.
pub(crate) struct Task {
    pub(super) id: TaskId,
    pub(super) queues: Queues,
    sources: BTreeMap<NodeId, Box<dyn SourceEntry>>,
    flushers: Vec<Box<dyn Flusher>>,
    /// How many of them have come to their end, while they are flushed part by part.
    flushed: usize,
    pub(super) processors: Vec<Box<dyn Punctuated>>,
    /// What time is told to where it moves by itself, those before others first.
    pub(super) stations: Vec<Station>,
    pub(super) advancing: Advancing,
    /// Event time of other tasks, if the program has it told.
    pub(super) watermarks: Option<Watermarks>,
    /// Operators that may hold records, those before others first.
    deferring: Vec<SharedDeferring>,
    initialized: bool,
    pub(super) stores: Vec<StoreEntry>,
    tallies: Vec<(NodeId, Arc<Tally>)>,
    /// What the sinks have written, by their names.
    written: Vec<(Arc<str>, Written)>,
    meter: TaskMeter,
    sampler: Sampler,
    pub(super) cx: Cx,
    /// Held as long as the task may write to disk.
    pub(super) claim: Option<Arc<Claim>>,
}

/// What a commit makes durable.
#[derive(Debug, Default)]
pub(crate) struct Commit {
    /// Output and changelog records in the order they were made.
    pub(crate) outgoing: Vec<Outgoing>,
    /// Topic and next offset to read, of partitions that moved.
    pub(crate) offsets: Vec<(Arc<str>, i64)>,
    /// How far the task has come in time.
    pub(crate) progress: Progress,
}

/// What a task knows of time beyond its stores, and hands on to its successor with the offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The highest event time of each topic's partition.
    pub(crate) partition_times: BTreeMap<Arc<str>, i64>,
    /// By store, up to where closed windows were sent.
    pub(crate) emitted_until: BTreeMap<String, i64>,
    /// Whether the input has ended, and everything was sent that waited for event time.
    pub(crate) finished: bool,
}

impl Task {
    pub(crate) fn new(plan: &Plan, id: TaskId, globals: &Globals) -> Self {
        let part = &plan.subtopologies()[id.subtopology as usize];
        let names: Vec<&str> = part.stores.iter().map(String::as_str).collect();
        let assembled = Assembly::build(plan, globals, &part.nodes, &names);
        let mut queues = Queues::default();
        for node in &part.nodes {
            let source = &plan.nodes[*node];
            if let Kind::Source { topics, .. } = &source.kind {
                for topic in topics {
                    queues.open(Arc::from(plan.decorated(topic)), *node, source.bootstraps);
                    queues.last_is_internal(plan.repartitions.contains_key(topic));
                }
            }
        }
        let watermarks = Watermarks::of(plan, id.subtopology, globals);
        let follows_watermarks = watermarks.as_ref().is_some_and(Watermarks::decides);
        let (entries, mut stores): (Vec<_>, Vec<_>) = assembled
            .stores
            .into_iter()
            .map(|(name, store)| (StoreEntry::new(plan, name), store))
            .unzip();
        if follows_watermarks {
            // What is restored is as old as it is.
            for store in &mut stores {
                store.limit_time(UNKNOWN_TIME);
            }
        }
        Self {
            id,
            queues,
            sources: assembled.sources,
            flushers: assembled.flushers,
            flushed: 0,
            processors: assembled.processors,
            stations: assembled.stations,
            advancing: Advancing::new(plan.time.idle_ms),
            watermarks,
            deferring: assembled.deferring,
            initialized: false,
            stores: entries,
            tallies: assembled.tallies,
            written: assembled.written,
            meter: TaskMeter::default(),
            sampler: globals.traces().sampler(),
            cx: Cx {
                tracing: None,
                origin: Origin {
                    topic: Arc::from(""),
                    partition: id.partition,
                    offset: -1,
                    timestamp: UNKNOWN_TIME,
                    headers: Headers::default(),
                },
                now_ms: 0,
                partition: id.partition,
                emit_interval_ms: 0,
                stream_time_ms: UNKNOWN_TIME,
                follows_watermarks,
                schedules: Schedules::default(),
                commit_requested: false,
                closed_windows: false,
                outgoing: Vec::new(),
                emitted_until: vec![None; stores.len()],
                stores,
                dropped: Vec::new(),
                keeps_raw: plan.policies.dead_letter_topics().next().is_some(),
                policies: Arc::new(plan.policies.clone()),
                globals: globals.clone(),
                waker: Waker::noop().clone(),
                raw: (None, None),
            },
            claim: None,
        }
    }

    pub(crate) fn id(&self) -> TaskId {
        self.id
    }

    /// Queues a record. Records of topics that the task does not read are a mistake of the driver's.
    pub(crate) fn add(&mut self, record: RawRecord) {
        let queue = self
            .queues
            .find(&record.topic)
            .expect("a driver gives a task records of its own topics");
        let source = &self.sources[&queue.source];
        let timestamp = source.timestamp(&record, queue.partition_time);
        if timestamp < 0 {
            // As in Kafka Streams, a negative time asks for the record to be skipped; its offset still counts.
            queue.position = Some(record.offset + 1);
            queue.seen = Some(record.offset);
            self.cx.drop_record("negative timestamp");
            return;
        }
        queue.push(timestamp, record);
    }

    /// Processes the queued record with the lowest event time. Returns whether there was one.
    pub(crate) fn process(&mut self, now_ms: i64) -> Result<bool, ProcessingError> {
        self.init(now_ms)?;
        if self.holds() {
            return Ok(false);
        }
        let Some(queue) = self.queues.next() else {
            return Ok(false);
        };
        if let Some(record) = queue.take_watermark() {
            self.hear(&record, now_ms)?;
            return Ok(true);
        }
        match (queue.source, queue.take(now_ms)) {
            (source, Some((timestamp, record))) => {
                self.process_record(source, timestamp, record, now_ms)?;
                Ok(true)
            }
            (_, None) => Ok(false),
        }
    }

    /// Processes the next queued record of a topic, for drivers that choose the order among several tasks.
    pub(crate) fn process_from(&mut self, topic: &str, now_ms: i64) -> Result<(), ProcessingError> {
        self.init(now_ms)?;
        let Some(queue) = self.queues.find(topic) else {
            return Ok(());
        };
        if let Some(record) = queue.take_watermark() {
            return self.hear(&record, now_ms);
        }
        match (queue.source, queue.take(now_ms)) {
            (source, Some((timestamp, record))) => {
                self.process_record(source, timestamp, record, now_ms)
            }
            (_, None) => Ok(()),
        }
    }

    /// Whether records of a topic wait until others are read to their ends, for drivers that give a task all there is.
    pub(crate) fn waits_for_bootstrap(&mut self, topic: &str) -> bool {
        self.queues.is_ready(None, 0, |_| Lag::Known(0));
        self.queues.is_bootstrapping()
            && self.queues.find(topic).is_some_and(|queue| !queue.bootstraps)
    }

    /// The event time of the next queued record of a topic.
    pub(crate) fn next_timestamp(&mut self, topic: &str) -> Option<i64> {
        self.queues.find(topic)?.next_timestamp()
    }

    fn process_record(
        &mut self,
        source: NodeId,
        timestamp: i64,
        record: RawRecord,
        now_ms: i64,
    ) -> Result<(), ProcessingError> {
        self.cx.now_ms = now_ms;
        self.advancing.note_activity(now_ms);
        self.cx.origin.enter(&record, timestamp);
        if self.cx.keeps_raw {
            self.cx.raw = (record.key.clone(), record.value.clone());
        }
        if !self.cx.follows_watermarks {
            self.cx.stream_time_ms = self.cx.stream_time_ms.max(timestamp);
        }
        self.meter.late(now_ms, self.cx.stream_time_ms.saturating_sub(timestamp));
        if let Some(watermarks) = &mut self.watermarks {
            watermarks.note(&record.topic, timestamp, now_ms);
        }
        let entry = self.sources.get_mut(&source).expect("queues belong to sources");
        self.cx.tracing = self.sampler.begin();
        let pushed = entry.push(record, &mut self.cx);
        if let Some(tracing) = self.cx.tracing.take() {
            self.sampler.end(*tracing, self.id.to_string(), &self.cx.origin, now_ms);
        }
        pushed.map_err(|problem| problem.at(&self.cx.origin))?;
        if !self.processors.is_empty() {
            self.fire(Clock::StreamTime, self.cx.stream_time_ms)?;
            for processor in &mut self.processors {
                processor
                    .fire_timers(self.cx.stream_time_ms, &mut self.cx)
                    .map_err(|problem| problem.at(&self.cx.origin))?;
            }
        }
        if self.cx.follows_watermarks {
            self.follow_watermarks(now_ms)?;
        }
        Ok(())
    }

    /// Starts the program's processors, once the task's state is there.
    pub(crate) fn init(&mut self, now_ms: i64) -> Result<(), ProcessingError> {
        if std::mem::replace(&mut self.initialized, true) {
            return Ok(());
        }
        self.cx.now_ms = now_ms;
        self.advancing.note_activity(now_ms);
        if let Some(watermarks) = &mut self.watermarks {
            watermarks.begin(now_ms);
        }
        for processor in &mut self.processors {
            processor.init(&mut self.cx).map_err(|problem| problem.at(&self.cx.origin))?;
        }
        Ok(())
    }

    /// Calls processors that wait for the time of day. Returns whether there were any.
    pub(crate) fn punctuate(&mut self, now_ms: i64) -> Result<bool, ProcessingError> {
        if self.cx.schedules.next_wall_clock_ms().is_none_or(|due| due > now_ms) {
            return Ok(false);
        }
        self.cx.now_ms = now_ms;
        self.fire(Clock::WallClock, now_ms)
    }

    pub(super) fn fire(&mut self, clock: Clock, now_ms: i64) -> Result<bool, ProcessingError> {
        let mut fired = false;
        while let Some((processor, schedule)) = self.cx.schedules.take_due(clock, now_ms) {
            fired = true;
            let began = Instant::now();
            self.cx.punctuating(now_ms);
            self.processors[processor]
                .punctuate(schedule, now_ms, &mut self.cx)
                .map_err(|problem| problem.at(&self.cx.origin))?;
            self.meter.punctuated(self.cx.now_ms, began.elapsed());
        }
        Ok(fired)
    }

    /// Whether no further record may be processed until [`Self::go_on`] has dealt with those that wait inside.
    pub(crate) fn holds(&self) -> bool {
        self.deferring.iter().any(|operator| operator.lock().holds())
    }

    /// Whether everything that was processed has been dealt with to the end.
    pub(crate) fn is_settled(&self) -> bool {
        self.deferring.iter().all(|operator| operator.lock().is_settled())
    }

    /// When [`Self::go_on`] has something to do, unless the waker rings before.
    pub(crate) fn due_ms(&self) -> Option<i64> {
        self.deferring.iter().filter_map(|operator| operator.lock().due_ms()).min()
    }

    /// Sets what is rung when something that the task waits for has happened.
    pub(crate) fn set_waker(&mut self, waker: Waker) {
        self.cx.waker = waker;
    }

    /// Goes on with records that wait inside. Returns whether there were any.
    pub(crate) fn go_on(&mut self, now_ms: i64) -> Result<bool, ProcessingError> {
        if self.is_settled() && !self.is_advancing() {
            return Ok(false);
        }
        self.cx.now_ms = now_ms;
        self.resume_all(false)?;
        self.advance_pending(now_ms)?;
        Ok(true)
    }

    fn resume_all(&mut self, finishing: bool) -> Result<(), ProcessingError> {
        for operator in &self.deferring {
            operator
                .lock()
                .resume(finishing, &mut self.cx)
                .map_err(|problem| problem.at(&self.cx.origin))?;
        }
        Ok(())
    }

    /// Brings everything that was processed to its end, caches flushed, as a commit needs it. Returns whether that was
    /// possible: otherwise the task should get no further records until it is.
    pub(crate) fn settle(&mut self, now_ms: i64) -> Result<bool, ProcessingError> {
        self.cx.now_ms = now_ms;
        self.flush()?;
        if self.deferring.is_empty() {
            return Ok(true);
        }
        self.resume_all(true)?;
        if !self.is_settled() {
            return Ok(false);
        }
        // What was held has reached the caches below.
        self.flush()?;
        Ok(self.is_settled())
    }

    fn flush(&mut self) -> Result<(), ProcessingError> {
        self.flushed = 0;
        while self.flush_some(usize::MAX)? {}
        Ok(())
    }

    /// Whether the task has no caches.
    pub(super) fn caches_nothing(&self) -> bool {
        self.flushers.is_empty()
    }

    /// Sends so much of what caches hold that it stays in the processor's cache until the caller has taken it with
    /// [`Self::take_outgoing`]. Returns whether there is more.
    pub(crate) fn flush_part(&mut self, now_ms: i64) -> Result<bool, ProcessingError> {
        self.cx.now_ms = now_ms;
        self.flush_some(FLUSHED_AT_ONCE)
    }

    fn flush_some(&mut self, limit: usize) -> Result<bool, ProcessingError> {
        while let Some(flusher) = self.flushers.get_mut(self.flushed) {
            let more = flusher.flush(limit, &mut self.cx);
            if more.map_err(|problem| problem.at(&self.cx.origin))? {
                return Ok(true);
            }
            self.flushed += 1;
            if limit < usize::MAX {
                return Ok(true);
            }
        }
        self.flushed = 0;
        Ok(false)
    }

    /// Whether a processor has asked for a commit since the last call.
    pub(crate) fn take_commit_request(&mut self) -> bool {
        std::mem::take(&mut self.cx.commit_requested)
    }

    /// Ends the program's processors.
    pub(crate) fn close(&mut self) {
        for processor in &mut self.processors {
            processor.close();
        }
    }

    /// Flushes caches and gives everything that a commit makes durable.
    pub(crate) fn commit(&mut self) -> Result<Commit, ProcessingError> {
        self.flush()?;
        self.tell_watermark(self.cx.now_ms);
        let offsets = self
            .queues
            .iter()
            .filter_map(|queue| Some((queue.topic.clone(), queue.position?)))
            .collect();
        Ok(Commit { outgoing: self.take_outgoing(), offsets, progress: self.progress() })
    }

    fn progress(&self) -> Progress {
        let times = self.queues.iter().map(|queue| (queue.topic.clone(), queue.partition_time));
        let emitted = self.stores.iter().zip(&self.cx.emitted_until);
        Progress {
            partition_times: times.collect(),
            emitted_until: emitted
                .filter_map(|(store, until)| Some((store.name.clone(), (*until)?)))
                .collect(),
            finished: self.advancing.finished,
        }
    }

    /// Goes on where another task has come to.
    pub(crate) fn go_on_from(&mut self, progress: &Progress) {
        for queue in self.queues.iter_mut() {
            if let Some(time) = progress.partition_times.get(&queue.topic) {
                queue.partition_time = queue.partition_time.max(*time);
                if let Some(watermarks) = &mut self.watermarks {
                    watermarks.begin_at(&queue.topic, *time);
                }
            }
        }
        for (store, until) in self.stores.iter().zip(&mut self.cx.emitted_until) {
            *until = (*until).max(progress.emitted_until.get(&store.name).copied());
        }
    }

    /// The records made since the last call, caches left alone.
    pub(crate) fn take_outgoing(&mut self) -> Vec<Outgoing> {
        let mut outgoing = Vec::new();
        for (entry, store) in self.stores.iter_mut().zip(&mut self.cx.stores) {
            let logged = store.take_changelog();
            entry.follow(&logged);
            // A source topic that serves as changelog is not written to again.
            let Some(changelog) = entry.changelog.as_ref().filter(|_| !entry.is_source) else {
                continue;
            };
            outgoing.extend(logged.into_iter().map(|record| Outgoing {
                topic: OutgoingTopic {
                    name: changelog.clone(),
                    partition: Some(self.id.partition),
                },
                key: Some(record.key),
                value: record.value,
                timestamp: record.timestamp,
                headers: record.headers,
                source: None,
            }));
        }
        outgoing.append(&mut self.cx.outgoing);
        outgoing
    }

    /// Forgets what caches hold beyond their stores. Only after a commit.
    pub(crate) fn shrink_caches(&mut self) {
        for store in &mut self.cx.stores {
            store.shrink_cache();
        }
    }

    /// Topics with the number of records that wait.
    pub(crate) fn queue_lengths(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        self.queues.iter().map(|queue| (&queue.topic, queue.len()))
    }

    /// Tells that the tasks before this one had processed a topic up to this offset, which is next.
    pub(crate) fn begins_at(&mut self, topic: &str, next_offset: i64) {
        if let Some(queue) = self.queues.find(topic)
            && next_offset > 0
        {
            queue.seen = queue.seen.max(Some(next_offset - 1));
        }
    }

    /// Notes where the task begins to read, as far as that is known and nothing was processed yet.
    pub(crate) fn note_start(&mut self, position: impl Fn(&Arc<str>) -> Option<i64>) {
        for queue in self.queues.iter_mut() {
            if queue.seen.is_none() && queue.len() == 0 {
                let next = position(&queue.topic).filter(|next| *next > 0);
                queue.seen = next.map(|next| next - 1);
            }
        }
    }

    /// Counts what was read of partitions without waiting records as processed. Only while nothing is under way.
    pub(crate) fn note_read(&mut self, position: impl Fn(&Arc<str>) -> Option<i64>) {
        for queue in self.queues.iter_mut().filter(|queue| queue.len() == 0) {
            if let Some(next) = position(&queue.topic).filter(|next| *next > queue.noted) {
                queue.noted = next;
                queue.position = queue.position.max(Some(next));
                queue.seen = queue.seen.max(Some(next - 1));
            }
        }
    }

    /// The last processed offsets.
    pub(crate) fn position(&self) -> Position {
        let mut position = Position::default();
        for queue in self.queues.iter() {
            if let Some(offset) = queue.seen {
                position.reach(&queue.topic, self.id.partition, offset);
            }
        }
        position
    }

    /// A store by name, for queries.
    pub(crate) fn store(&mut self, name: &str) -> Option<&mut dyn AnyStore> {
        let index = self.stores.iter().position(|entry| entry.name == name)?;
        Some(self.cx.stores[index].as_mut())
    }

    /// Bytes held by caches, approximately.
    pub(crate) fn cached_bytes(&self) -> usize {
        self.cx.stores.iter().map(|store| store.cached_bytes()).sum()
    }

    /// Records that wait.
    pub(crate) fn queued(&self) -> usize {
        self.queues.len()
    }

    /// Whether a record is queued that may be processed now; see [`Queues::is_ready`].
    pub(crate) fn is_ready(
        &mut self,
        idle_max_ms: Option<i64>,
        now_ms: i64,
        lag: impl Fn(&Arc<str>) -> Lag,
    ) -> bool {
        self.queues.is_ready(idle_max_ms, now_ms, lag)
    }

    /// Counts the time that records took which were processed at a stretch.
    pub(crate) fn note_processed(&mut self, now_ms: i64, took: Duration, records: usize) {
        self.meter.processed(now_ms, took, records);
    }

    /// The calls of processors by time since the last look.
    pub(crate) fn take_punctuations(&mut self) -> Part {
        self.meter.take_punctuations()
    }

    /// The task's numbers. `behind` knows how many records of a topic were not fetched yet. To be called once a second
    /// at most: averages of what is only seen by looking are over looks.
    pub(crate) fn metrics(
        &mut self,
        now_ms: i64,
        behind: impl Fn(&Arc<str>) -> Option<i64>,
    ) -> TaskMetrics {
        let of_node = |id: NodeId| {
            self.tallies.iter().find(|(known, _)| *known == id).map(|(_, tally)| tally.node.clone())
        };
        let inputs = self.queues.iter().map(|queue| InputMetrics {
            topic: queue.topic.clone(),
            partition: self.id.partition,
            node: of_node(queue.source).unwrap_or_else(|| Arc::from("")),
            processed: queue.processed,
            processed_bytes: queue.processed_bytes,
            buffered: queue.len(),
            lag: behind(&queue.topic).map(|behind| behind + queue.len() as i64),
        });
        let inputs = inputs.collect();
        let (queues, meter) = (&self.queues, &mut self.meter);
        let nodes = self.tallies.iter().enumerate().map(|(place, (id, tally))| {
            let read: Vec<_> = queues.iter().filter(|queue| queue.source == *id).collect();
            let e2e_latency = match (self.sources.contains_key(id), tally.is_last()) {
                (true, _) => {
                    let each = read.iter().map(|queue| queue.e2e_latency.summary(now_ms));
                    Some(each.fold(Summary::default(), Summary::and))
                }
                (false, true) => Some(meter.ages(now_ms, place, tally.take_ages())),
                (false, false) => None,
            };
            NodeMetrics {
                node: tally.node.clone(),
                processed: tally.records() + read.iter().map(|queue| queue.processed).sum::<u64>(),
                emitted: tally.emitted(),
                e2e_latency,
            }
        });
        let nodes = nodes.collect();
        let stores = self.stores.iter().zip(&self.cx.stores).enumerate();
        let stores = stores.map(|(place, (entry, store))| {
            let mut figures = StoreMetrics {
                store: entry.name.clone(),
                on_disk: entry.disk.is_some(),
                cached_bytes: store.cached_bytes(),
                ..store.figures()
            };
            meter.watch(now_ms, place, &mut figures);
            figures
        });
        let stores = stores.collect();
        let outputs = self.written.iter().flat_map(|(node, written)| {
            written.topics().into_iter().map(move |topic| OutputMetrics {
                topic: topic.topic.clone(),
                node: node.clone(),
                records: topic.records(),
                bytes: topic.bytes(),
            })
        });
        let times = self.meter.times(now_ms);
        TaskMetrics {
            task: self.id.to_string(),
            thread: 0,
            stream_time_ms: self.cx.stream_time_ms,
            dropped: self.cx.dropped.iter().copied().collect(),
            process_time: times.process,
            lateness: times.lateness,
            punctuations: times.punctuations,
            punctuate_time: times.punctuate,
            enforced: self.queues.enforced,
            inputs,
            outputs: outputs.collect(),
            nodes,
            stores,
        }
    }

    /// Records dropped so far, by reason.
    pub(crate) fn dropped(&self) -> &[(&'static str, u64)] {
        &self.cx.dropped
    }
}

/// Changes that are flushed before the records they make are sent on: as few as stay in the processor's cache.
const FLUSHED_AT_ONCE: usize = 500;
