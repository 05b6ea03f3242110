//! Runs a topology in memory and deterministically: real tasks, several partitions, virtual time, crashes on command.
//!
//! The driver stands in for the broker. Each topic is a list of records per partition; what a task writes becomes
//! visible when the task commits, together with the offsets it has read, as with exactly-once processing. By default
//! every task commits after every record, as Kafka Streams' `TopologyTestDriver` does, so that caches hide nothing.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;

use crate::dsl::Topology;
use crate::error::{ProcessingError, TopologyError};
use crate::record::{Headers, Record};
use crate::runtime::{Globals, Outgoing, RawRecord, Task, TaskId};
use crate::serde::{SerdeOf, StreamType};
use crate::state::{KvStore, Logged, Stamped, WindowStore};
use crate::topology::Plan;

/// An in-memory run of a topology.
pub struct TestDriver {
    plan: Arc<Plan>,
    globals: Globals,
    topics: BTreeMap<Arc<str>, Topic>,
    tasks: BTreeMap<TaskId, Running>,
    /// The subtopologies that read each topic.
    readers: BTreeMap<String, Vec<u32>>,
    /// Queues with records, by the event time of the next one.
    waiting: Heap,
    now_ms: i64,
    default_partitions: i32,
    commits_each: bool,
    failure: Option<ProcessingError>,
}

/// A topic of the driver's.
struct Topic {
    partitions: Vec<Vec<RawRecord>>,
    /// What [`TestDriver::output`] has given out already, per partition.
    read: Vec<usize>,
}

/// A task's queue of one topic.
struct Waiting {
    timestamp: i64,
    id: TaskId,
    topic: Arc<str>,
}

/// A binary heap by event time that treats equals exactly as Java's `PriorityQueue` does.
#[derive(Default)]
struct Heap(Vec<Waiting>);

impl Heap {
    fn push(&mut self, waiting: Waiting) {
        self.0.push(waiting);
        let mut place = self.0.len() - 1;
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.0[place].timestamp >= self.0[parent].timestamp {
                break;
            }
            self.0.swap(place, parent);
            place = parent;
        }
    }

    fn pop(&mut self) -> Option<Waiting> {
        let last = self.0.len().checked_sub(1)?;
        self.0.swap(0, last);
        let first = self.0.pop();
        let mut place = 0;
        while 2 * place + 1 < last {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            let right_is_less = right < last && self.0[left].timestamp > self.0[right].timestamp;
            let child = if right_is_less { right } else { left };
            if self.0[place].timestamp <= self.0[child].timestamp {
                break;
            }
            self.0.swap(place, child);
            place = child;
        }
        first
    }
}

struct Running {
    task: Task,
    /// The next offset to give the task, by topic.
    fetched: BTreeMap<Arc<str>, i64>,
    /// The next offset that a restarted task begins with, by topic.
    committed: BTreeMap<Arc<str>, i64>,
}

/// Where a test puts records into a topic.
pub struct Input<'a> {
    driver: &'a mut TestDriver,
    topic: Arc<str>,
    timestamp: Option<i64>,
    partition: Option<i32>,
    headers: Headers,
}

/// Records that a test takes out of a topic.
#[derive(Clone, Debug, PartialEq)]
pub struct TestRecords<K, V>(Vec<TestRecord<K, V>>);

/// A record with its partition.
#[derive(Clone, Debug, PartialEq)]
pub struct TestRecord<K, V> {
    /// Its partition.
    pub partition: i32,
    /// The record.
    pub record: Record<K, V>,
}

impl TestDriver {
    /// A run in which every topic has one partition.
    pub fn new(topology: &Topology) -> Result<Self, TopologyError> {
        Self::with_partitions(topology, 1)
    }

    /// A run in which every topic has `partitions` partitions, unless the topology says otherwise.
    pub fn with_partitions(topology: &Topology, partitions: i32) -> Result<Self, TopologyError> {
        let plan = topology.build()?;
        let mut driver = Self {
            globals: Globals::new(&plan),
            plan,
            topics: BTreeMap::new(),
            tasks: BTreeMap::new(),
            readers: BTreeMap::new(),
            waiting: Heap::default(),
            now_ms: 0,
            default_partitions: partitions.max(1),
            commits_each: true,
            failure: None,
        };
        for part in driver.plan.subtopologies().iter().filter(|part| !part.global) {
            for topic in &part.source_topics {
                driver.readers.entry(topic.clone()).or_default().push(part.id);
            }
        }
        driver.create_topics();
        driver.start_tasks();
        driver.init_tasks();
        Ok(driver)
    }

    /// Whether every task commits after every record, which is the default, or only on [`Self::commit`].
    pub fn commit_each_record(&mut self, each: bool) -> &mut Self {
        self.commits_each = each;
        self
    }

    /// Runs with or without caches, which programs have unless they say otherwise. Begins anew: for the start of a test.
    pub fn caching(mut self, caching: bool) -> Self {
        if !caching {
            self.plan = self.plan.without_caching();
            self.start_tasks();
            self.init_tasks();
        }
        self
    }

    /// Puts records into a topic.
    pub fn input(&mut self, topic: &str) -> Input<'_> {
        Input {
            topic: Arc::from(topic),
            timestamp: None,
            partition: None,
            headers: Headers::default(),
            driver: self,
        }
    }

    /// Takes the records out of a topic that came since the last time, partition by partition.
    ///
    /// # Panics
    /// If a record cannot be read as `K` and `V`: the test asks for the wrong types.
    pub fn output<K: StreamType, V: StreamType>(&mut self, topic: &str) -> TestRecords<K, V> {
        self.output_with(topic, &SerdeOf::usual(), &SerdeOf::usual())
    }

    /// [`Self::output`] with serdes of your own.
    ///
    /// # Panics
    /// If a record cannot be read with them.
    pub fn output_with<K: 'static, V: 'static>(
        &mut self,
        topic: &str,
        key: &SerdeOf<K>,
        value: &SerdeOf<V>,
    ) -> TestRecords<K, V> {
        let raw = self.raw_output(topic);
        TestRecords(
            raw.into_iter()
                .map(|raw| TestRecord {
                    partition: raw.partition,
                    record: Record {
                        key: key.read(topic, &raw.headers, raw.key).unwrap_or_else(|error| {
                            panic!("{topic}: the key is of another type: {error}")
                        }),
                        value: value.read(topic, &raw.headers, raw.value).unwrap_or_else(|error| {
                            panic!("{topic}: the value is of another type: {error}")
                        }),
                        timestamp: raw.timestamp,
                        headers: raw.headers,
                    },
                })
                .collect(),
        )
    }

    /// [`Self::output`] as bytes: for changelogs, repartition topics and comparisons with Kafka Streams.
    pub fn raw_output(&mut self, topic: &str) -> Vec<RawRecord> {
        let Some(topic) = self.topics.get_mut(topic) else {
            return Vec::new();
        };
        let mut records = Vec::new();
        for (partition, read) in topic.partitions.iter().zip(&mut topic.read) {
            records.extend_from_slice(&partition[*read..]);
            *read = partition.len();
        }
        records
    }

    /// Everything that a table's store holds, in the order of its key bytes, partition by partition.
    ///
    /// # Panics
    /// If there is no such store, or it is of other types.
    pub fn store<K: StreamType, V: StreamType>(&mut self, name: &str) -> Vec<(K, V)> {
        let stamped = |pairs: Vec<(K, Stamped<V>)>| {
            pairs.into_iter().map(|(key, stamped)| (key, stamped.value))
        };
        let global = self.globals.with(name, |store: &mut KvStore<K, V>| store.all());
        if let Some(all) = global {
            return stamped(all.unwrap_or_else(|error| panic!("store {name}: {error}"))).collect();
        }
        let mut pairs = Vec::new();
        for running in self.tasks.values_mut() {
            let Some(store) = running.task.store(name) else {
                continue;
            };
            let store: &mut KvStore<K, V> = store
                .as_any()
                .downcast_mut()
                .unwrap_or_else(|| panic!("store {name} is of other types"));
            let all = store.all().unwrap_or_else(|error| panic!("store {name}: {error}"));
            pairs.extend(stamped(all));
        }
        pairs
    }

    /// The values that a windowed table holds for a key, by the start of the window.
    ///
    /// # Panics
    /// If the store is of other types.
    pub fn windows<K: StreamType, V: StreamType>(&mut self, name: &str, key: &K) -> Vec<(i64, V)> {
        let mut values = Vec::new();
        for running in self.tasks.values_mut() {
            let Some(store) = running.task.store(name) else {
                continue;
            };
            let store: &mut WindowStore<K, V> = store
                .as_any()
                .downcast_mut()
                .unwrap_or_else(|| panic!("store {name} is of other types"));
            let found = store
                .fetch(key, i64::MIN, i64::MAX)
                .unwrap_or_else(|error| panic!("store {name}: {error}"));
            values.extend(found.into_iter().map(|(start, stamped)| (start, stamped.value)));
        }
        values
    }

    /// Moves wall-clock time forward, and calls processors that wait for it.
    pub fn advance_ms(&mut self, by_ms: i64) -> &mut Self {
        self.now_ms += by_ms;
        let ids: Vec<TaskId> = self.tasks.keys().copied().collect();
        for id in ids {
            let Some(running) = self.tasks.get_mut(&id).filter(|_| self.failure.is_none()) else {
                continue;
            };
            match running.task.punctuate(self.now_ms) {
                Ok(true) if self.commits_each => self.commit_task(id),
                Ok(_) => {}
                Err(error) => self.failure = Some(error),
            }
        }
        self.settle();
        self
    }

    /// Commits every task: caches are flushed, output and offsets become durable together.
    pub fn commit(&mut self) -> &mut Self {
        let ids: Vec<TaskId> = self.tasks.keys().copied().collect();
        for id in ids {
            self.commit_task(id);
        }
        self.settle();
        self
    }

    /// Kills all tasks as a crash would, and starts them again: state comes back from the changelogs, and what was not
    /// committed is processed once more.
    pub fn crash(&mut self) -> &mut Self {
        let committed: BTreeMap<TaskId, BTreeMap<Arc<str>, i64>> =
            self.tasks.iter().map(|(id, running)| (*id, running.committed.clone())).collect();
        self.failure = None;
        self.fill_globals();
        self.start_tasks();
        for (id, offsets) in committed {
            let changelogs: Vec<(String, String)> = self.plan.subtopologies()
                [id.subtopology as usize]
                .stores
                .iter()
                .filter_map(|store| Some((store.clone(), self.plan.changelog_of(store)?)))
                .collect();
            let Some(running) = self.tasks.get_mut(&id) else {
                continue;
            };
            for (store, changelog) in changelogs {
                let Some(topic) = self.topics.get(changelog.as_str()) else {
                    continue;
                };
                for record in &topic.partitions[id.partition as usize] {
                    let Some(key) = record.key.clone() else {
                        continue;
                    };
                    let logged = Logged {
                        key,
                        value: record.value.clone(),
                        timestamp: record.timestamp,
                        headers: record.headers.clone(),
                    };
                    running
                        .task
                        .restore(&store, logged)
                        .unwrap_or_else(|error| panic!("restoring {store}: {error}"));
                }
            }
            running.fetched = offsets.clone();
            running.committed = offsets;
        }
        self.init_tasks();
        self.deliver_all();
        self.settle();
        self
    }

    /// The error that stopped the program, if one did. After it nothing is processed until [`Self::crash`].
    pub fn failure(&self) -> Option<&ProcessingError> {
        self.failure.as_ref()
    }

    /// How many records operators dropped for the given reason.
    pub fn dropped(&self, reason: &str) -> u64 {
        self.tasks
            .values()
            .flat_map(|running| running.task.dropped())
            .filter(|(known, _)| *known == reason)
            .map(|(_, count)| count)
            .sum()
    }

    /// The topology being run.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    fn create_topics(&mut self) {
        let plan = self.plan.clone();
        for part in plan.subtopologies() {
            for topic in part.source_topics.iter().chain(&part.sink_topics) {
                let set = plan
                    .subtopologies()
                    .iter()
                    .flat_map(|part| &part.repartition_topics)
                    .find(|internal| internal.name == *topic)
                    .and_then(|internal| internal.partitions);
                let partitions = set.unwrap_or(self.default_partitions);
                self.topic(topic, partitions);
            }
        }
        for part in plan.subtopologies() {
            let partitions = self.partitions_of(part.id);
            for changelog in &part.changelog_topics {
                self.topic(&changelog.name, partitions);
            }
        }
    }

    fn topic(&mut self, name: &str, partitions: i32) -> &mut Topic {
        self.topics.entry(Arc::from(name)).or_insert_with(|| Topic::new(partitions))
    }

    /// A subtopology has as many tasks as its largest source topic has partitions.
    fn partitions_of(&self, subtopology: u32) -> i32 {
        self.plan.subtopologies()[subtopology as usize]
            .source_topics
            .iter()
            .filter_map(|topic| self.topics.get(topic.as_str()))
            .map(|topic| topic.partitions.len() as i32)
            .max()
            .unwrap_or(0)
    }

    /// Starts the processors of all tasks, whose state is there.
    fn init_tasks(&mut self) {
        for running in self.tasks.values_mut() {
            if let Err(error) = running.task.init(self.now_ms) {
                self.failure = Some(error);
            }
        }
    }

    /// Reads the topics of global tables from their beginnings.
    fn fill_globals(&mut self) {
        self.globals = Globals::new(&self.plan);
        for topic in self.globals.topics() {
            let partitions = self.topics.get(topic).map(|topic| &topic.partitions);
            for record in partitions.into_iter().flatten().flatten() {
                if let Err(error) = self.globals.apply(record.clone()) {
                    self.failure = Some(error);
                }
            }
        }
    }

    fn start_tasks(&mut self) {
        self.tasks.clear();
        for part in self.plan.subtopologies().iter().filter(|part| !part.global) {
            for partition in 0..self.partitions_of(part.id) {
                let id = TaskId { subtopology: part.id, partition };
                let running = Running {
                    task: Task::new(&self.plan, id, &self.globals),
                    fetched: BTreeMap::new(),
                    committed: BTreeMap::new(),
                };
                self.tasks.insert(id, running);
            }
        }
    }

    /// Appends a record as a producer would, and runs until nothing moves.
    fn send(&mut self, topic: &str, outgoing: Outgoing) {
        self.append(topic, outgoing);
        self.settle();
    }

    fn append(&mut self, name: &str, outgoing: Outgoing) {
        let default = self.default_partitions;
        let topic = self.topic(name, default);
        let partition = outgoing
            .topic
            .partition
            .unwrap_or_else(|| topic.partition_for(outgoing.key.as_deref()));
        let Some(records) = topic.partitions.get_mut(partition as usize) else {
            panic!("{name} has no partition {partition}");
        };
        let record = RawRecord {
            topic: Arc::from(name),
            partition,
            offset: records.len() as i64,
            timestamp: outgoing.timestamp,
            key: outgoing.key,
            value: outgoing.value,
            headers: outgoing.headers,
        };
        records.push(record.clone());
        if self.globals.reads(name)
            && let Err(error) = self.globals.apply(record)
        {
            self.failure = Some(error);
        }
        let readers = self.readers.get(name).cloned().unwrap_or_default();
        for subtopology in readers {
            self.deliver(TaskId { subtopology, partition }, name);
        }
    }

    /// Runs until nothing moves, one record at a time: the one with the lowest event time among all tasks. Among equals
    /// it is the order of Kafka Streams' test driver, which has all tasks in one and their queues in a heap.
    fn settle(&mut self) {
        while self.failure.is_none() {
            let Some(Waiting { id, topic, .. }) = self.waiting.pop() else {
                return;
            };
            let Some(running) = self.tasks.get_mut(&id) else {
                continue;
            };
            let processed = running.task.process_from(&topic, self.now_ms);
            if let Some(timestamp) = running.task.next_timestamp(&topic) {
                self.waiting.push(Waiting { timestamp, id, topic });
            }
            match processed {
                Ok(()) if self.commits_each => self.commit_task(id),
                Ok(()) => {}
                Err(error) => self.failure = Some(error),
            }
        }
    }

    /// Gives a task the records of a topic that it has not got yet.
    fn deliver(&mut self, id: TaskId, name: &str) {
        let (Some(running), Some((name, topic))) =
            (self.tasks.get_mut(&id), self.topics.get_key_value(name))
        else {
            return;
        };
        let Some(records) = topic.partitions.get(id.partition as usize) else {
            return;
        };
        let was_empty = running.task.next_timestamp(name).is_none();
        let fetched = running.fetched.entry(name.clone()).or_insert(0);
        for record in &records[*fetched as usize..] {
            running.task.add(record.clone());
        }
        *fetched = records.len() as i64;
        if was_empty && let Some(timestamp) = running.task.next_timestamp(name) {
            self.waiting.push(Waiting { timestamp, id, topic: name.clone() });
        }
    }

    /// Gives every task everything that it has not got yet.
    fn deliver_all(&mut self) {
        self.waiting = Heap::default();
        let ids: Vec<TaskId> = self.tasks.keys().copied().collect();
        for id in ids {
            let plan = self.plan.clone();
            for topic in &plan.subtopologies()[id.subtopology as usize].source_topics {
                self.deliver(id, topic);
            }
        }
    }

    fn commit_task(&mut self, id: TaskId) {
        if self.failure.is_some() {
            return;
        }
        let Some(running) = self.tasks.get_mut(&id) else {
            return;
        };
        match running.task.commit() {
            Ok(commit) => {
                running.committed.extend(commit.offsets);
                for outgoing in commit.outgoing {
                    let topic = outgoing.topic.name.clone();
                    self.append(&topic, outgoing);
                }
            }
            Err(error) => self.failure = Some(error),
        }
    }
}

impl Topic {
    fn new(partitions: i32) -> Self {
        let count = partitions.max(1) as usize;
        Self { partitions: vec![Vec::new(); count], read: vec![0; count] }
    }

    /// The partition that Kafka's default partitioner gives a key; records without one go to the first.
    fn partition_for(&self, key: Option<&[u8]>) -> i32 {
        key.map_or(0, |key| {
            fleuve_client::producer::partition_for_key(key, self.partitions.len()) as i32
        })
    }
}

impl Input<'_> {
    /// Sets the timestamp of the following records; without it they get the driver's wall-clock time.
    pub fn at(mut self, timestamp: i64) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// Sends the following records to this partition.
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Adds a header to the following records.
    pub fn header(mut self, key: &str, value: impl Into<Bytes>) -> Self {
        self.headers.add(key, value);
        self
    }

    /// Sends a record and runs the topology until nothing moves.
    ///
    /// # Panics
    /// If the record cannot be written: the test is wrong.
    pub fn send<K: StreamType, V: StreamType>(self, key: &K, value: &V) -> Self {
        let mut headers = self.headers.clone();
        let bytes =
            SerdeOf::<K>::usual().to_bytes(&self.topic, &mut headers, key).and_then(|key| {
                let value = SerdeOf::<V>::usual().to_bytes(&self.topic, &mut headers, value)?;
                Ok((key, value))
            });
        match bytes {
            Ok((key, value)) => self.send_bytes(key, value),
            Err(error) => panic!("{}: cannot write the test record: {error}", self.topic),
        }
    }

    /// Sends bytes and runs the topology until nothing moves.
    pub fn send_bytes(self, key: Option<Bytes>, value: Option<Bytes>) -> Self {
        let topic = self.topic.clone();
        let outgoing = Outgoing {
            topic: crate::runtime::OutgoingTopic { name: topic.clone(), partition: self.partition },
            key,
            value,
            timestamp: self.timestamp.unwrap_or(self.driver.now_ms),
            headers: self.headers.clone(),
        };
        self.driver.send(&topic, outgoing);
        self
    }
}

impl<K, V> TestRecords<K, V> {
    /// Keys and values.
    pub fn pairs(self) -> Vec<(K, V)> {
        self.0.into_iter().map(|test| (test.record.key, test.record.value)).collect()
    }

    /// Keys, values and timestamps.
    pub fn stamped(self) -> Vec<(K, V, i64)> {
        self.0
            .into_iter()
            .map(|test| (test.record.key, test.record.value, test.record.timestamp))
            .collect()
    }

    /// The records themselves.
    pub fn records(self) -> Vec<TestRecord<K, V>> {
        self.0
    }
}
