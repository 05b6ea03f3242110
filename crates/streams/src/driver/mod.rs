//! Runs a topology in memory and deterministically: real tasks, several partitions and instances, virtual time, crashes
//! and rebalances on command.
//!
//! The driver stands in for the broker: each topic is a list of records per partition. By default every task commits
//! after every record, as Kafka Streams' `TopologyTestDriver` does, so that caches hide nothing. With
//! [`TestSetup::commit_on_command`] a test sees what a real application does between two commits: at least once, output
//! and changelogs are seen at once and a crash repeats what was not committed; exactly once, what a task writes becomes
//! visible with the commit, together with the offsets it has read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::app::Guarantee;
use crate::dsl::Topology;
use crate::error::{ProcessingError, TopologyError};
use crate::metrics::{TaskMetrics, Trace};
use crate::query::{Answer, Ask, JsonReply, Query, QueryError, Request, Rows, Target};
use crate::record::Record;
use crate::runtime::{DistributionSummary, Globals, Outgoing, Progress, RawRecord, Task, TaskId};
use crate::serde::{SerdeOf, StreamType};
use crate::state::disk::{Keeping, StateDirectory};
use crate::state::{KvStore, Stamped, WindowStore};
use crate::topology::Plan;

mod input;
mod instances;
mod local;
mod output;
mod setup;
mod topics;

pub use input::{Input, TestData};
pub use local::{LocalRun, LocalRunError};
pub use output::{Expected, TestRecord, TestRecords};
pub use setup::TestSetup;

use instances::Running;
use topics::{Topic, Turns, Waiting};

/// An in-memory run of a topology.
///
/// ```
/// use fleuve_streams::{Guarantee, TestDriver, Topology};
///
/// let app = Topology::new("word-count");
/// app.stream::<(), String>("lines")
///     .flat_map_values(|line: String| line.split(' ').map(str::to_owned).collect::<Vec<_>>())
///     .group_by(|_, word| word.clone())
///     .count("word-counts")
///     .to_stream()
///     .to("counts");
///
/// let mut driver = TestDriver::of(&app)
///     .partitions(4)
///     .instances(2)
///     .guarantee(Guarantee::ExactlyOnce)
///     .commit_on_command()
///     .start()
///     .unwrap();
///
/// driver.input("lines").send(&(), "a b a");
/// driver.output::<String, i64>("counts").expect_none();
/// driver.commit();
/// driver.commit(); // The counts are behind a repartition topic, whose records came with the first commit.
/// driver.output::<String, i64>("counts").expect_in_any_order([("a", 2), ("b", 1)]);
///
/// driver.input("lines").send(&(), "a");
/// driver.crash().commit().commit();
/// driver.output::<String, i64>("counts").expect([("a", 3)]);
/// ```
pub struct TestDriver {
    plan: Arc<Plan>,
    topics: BTreeMap<Arc<str>, Topic>,
    tasks: BTreeMap<TaskId, Running>,
    /// What all instances share: counters, and numbers of partitions.
    globals: Globals,
    /// The global tables of each instance; `None` where it has ended.
    instances: Vec<Option<Globals>>,
    /// The next offset that a restarted task begins with, by topic.
    committed: BTreeMap<TaskId, BTreeMap<Arc<str>, i64>>,
    /// What else it begins with.
    progress: BTreeMap<TaskId, Progress>,
    /// The subtopologies that read each topic.
    readers: BTreeMap<String, Vec<u32>>,
    turns: Turns,
    /// Queues of tasks that take no record for now.
    held: Vec<Waiting>,
    now_ms: i64,
    default_partitions: i32,
    guarantee: Guarantee,
    cache_bytes: usize,
    commits_each: bool,
    failure: Option<ProcessingError>,
    /// Where the instances keep their stores, if not in memory: each has a directory in it.
    state_dir: Option<PathBuf>,
    directories: BTreeMap<usize, StateDirectory>,
    keeps_store_commits: bool,
    /// Changelog records read since the last crash, to restore stores.
    restored: u64,
    standby_replicas: usize,
    /// The state of tasks on instances that do not run them.
    standbys: BTreeMap<(TaskId, usize), Task>,
}

impl TestDriver {
    /// A run in which every topic has one partition.
    pub fn new(topology: &Topology) -> Result<Self, TopologyError> {
        Self::of(topology).start()
    }

    /// A run in which every topic has `partitions` partitions, unless the topology says otherwise.
    pub fn with_partitions(topology: &Topology, partitions: i32) -> Result<Self, TopologyError> {
        Self::of(topology).partitions(partitions).start()
    }

    /// A run to be set up, for tests of several instances, guarantees and commits.
    pub fn of(topology: &Topology) -> TestSetup<'_> {
        TestSetup::new(topology)
    }

    fn start(setup: TestSetup<'_>) -> Result<Self, TopologyError> {
        let mut plan = setup.topology.build()?;
        if setup.cache_bytes == 0 {
            plan = plan.without_caching();
        }
        let globals = Globals::new(&plan);
        let mut driver = Self {
            topics: BTreeMap::new(),
            tasks: BTreeMap::new(),
            instances: (0..setup.instances).map(|_| Some(globals.emptied(&plan))).collect(),
            globals,
            committed: BTreeMap::new(),
            progress: BTreeMap::new(),
            readers: BTreeMap::new(),
            turns: Turns::default(),
            held: Vec::new(),
            now_ms: 0,
            default_partitions: setup.partitions,
            guarantee: setup.guarantee,
            cache_bytes: setup.cache_bytes,
            commits_each: setup.commits_each,
            failure: None,
            state_dir: setup.state_dir,
            directories: BTreeMap::new(),
            keeps_store_commits: true,
            restored: 0,
            standby_replicas: setup.standby_replicas,
            standbys: BTreeMap::new(),
            plan,
        };
        driver.create_topics();
        driver.look_for_topics()?;
        driver.globals.traces().set_every(setup.trace_every);
        for (name, topic) in &driver.topics {
            driver.globals.set_partitions(name, topic.partitions.len() as i32);
        }
        driver.share_out();
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
            self.crash();
        }
        self
    }

    /// Whether stores on disk hear of commits, which is the default; if not, the program is about to die between a
    /// commit that has reached the cluster and its stores, and [`Self::crash`] shows what becomes of them.
    pub fn keep_store_commits(&mut self, keep: bool) -> &mut Self {
        self.keeps_store_commits = keep;
        self
    }

    /// How many changelog records were restored since the last [`Self::crash`], or since the start. What standbys read
    /// does not count.
    pub fn restored(&self) -> u64 {
        self.restored
    }

    /// Puts records into a topic.
    pub fn input(&mut self, topic: &str) -> Input<'_> {
        Input::new(self, topic)
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
        let running = self.instances.iter().flatten().next();
        let global =
            running.and_then(|globals| globals.with(name, |store: &mut KvStore<K, V>| store.all()));
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

    /// Asks the stores, as [`crate::Streams::query`] does.
    pub fn query<A>(&mut self, mut query: Query<A>) -> Result<Answer<A>, QueryError> {
        let target = query.target(&self.plan, |subtopology| self.partitions_of(subtopology))?;
        let ids = match target {
            Target::Global => {
                let globals = self.instances.iter().flatten().next().ok_or(QueryError::Ended)?;
                return query.ask_global(globals);
            }
            Target::Tasks(ids) | Target::Any(ids) => ids,
        };
        let mut gathered = None;
        for id in ids {
            let running = self.tasks.get_mut(&id).ok_or_else(|| query.not_here(id, None))?;
            let answer = query.ask_task(&mut running.task)?;
            query.gather(&mut gathered, answer);
        }
        gathered.ok_or(QueryError::Ended)
    }

    /// The numbers of all tasks.
    pub fn metrics(&mut self) -> Vec<TaskMetrics> {
        let tasks = self.tasks.values_mut();
        tasks.map(|running| running.task.metrics(self.now_ms, |_| Some(0))).collect()
    }

    /// The last traces of records, the newest first; see [`TestSetup::trace_every`].
    pub fn traces(&self) -> Vec<Trace> {
        self.globals.traces().last()
    }

    /// Asks the stores as over HTTP: `driver.get("/stores/counts/key/a")`. See [the endpoint](crate::Settings).
    pub fn get(&mut self, path: &str) -> JsonReply {
        match Request::parse(path) {
            Some(Ok(Request::Stores)) => {
                let stores: Vec<serde_json::Value> = self.plan.stores_to_json();
                JsonReply { status: 200, json: stores.into() }
            }
            Some(Ok(Request::Ask(ask))) => match self.rows(&ask) {
                Ok(rows) => ask.reply(rows),
                Err(error) => error.into(),
            },
            Some(Err(reply)) => reply,
            None => JsonReply::wrong(format!("there is nothing under {path}")),
        }
    }

    fn rows(&mut self, ask: &Ask) -> Result<Rows, QueryError> {
        let target = ask.target(&self.plan, |subtopology| self.partitions_of(subtopology))?;
        let ids = match target {
            Target::Global => {
                let globals = self.instances.iter().flatten().next().ok_or(QueryError::Ended)?;
                return ask.ask_global(&self.plan, globals);
            }
            Target::Tasks(ids) | Target::Any(ids) => ids,
        };
        let mut found = Rows::default();
        for id in ids {
            let (store, task) = (ask.store.clone(), id.to_string());
            let missing = || QueryError::NotHere { store, task, owner: None };
            let running = self.tasks.get_mut(&id).ok_or_else(missing)?;
            ask.gather(&mut found, ask.ask_task(&self.plan, &mut running.task)?);
        }
        Ok(found)
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
                Ok(true) => self.after_step(id),
                Ok(false) => {}
                Err(error) => self.failure = Some(error),
            }
            self.pass_time(id);
        }
        self.settle();
        self
    }

    /// Lets a task's event time go on that no record moves, if the program wants that.
    fn pass_time(&mut self, id: TaskId) {
        let Some(running) = self.tasks.get_mut(&id).filter(|_| self.failure.is_none()) else {
            return;
        };
        match running.task.pass_time(self.now_ms, self.now_ms, |_| true) {
            Ok(true) => self.after_step(id),
            Ok(false) => {}
            Err(error) => self.failure = Some(error),
        }
    }

    /// Ends the input, as it does for a run that ends: if the program says so ([`Topology::close_at_end`]), everything
    /// is sent that waits for event time.
    pub fn end_input(&mut self) -> &mut Self {
        if !self.plan.time.closes_at_end {
            return self;
        }
        for stage in self.plan.stages() {
            // What caches above hold back comes first.
            self.go_on_after_step();
            self.finish(&stage);
            self.go_on_after_step();
        }
        self
    }

    fn go_on_after_step(&mut self) {
        if self.commits_each {
            self.settle();
        } else {
            self.commit();
        }
    }

    /// Tells the tasks of a stage that their input has ended. Returns whether they have dealt with that.
    fn finish(&mut self, stage: &BTreeSet<u32>) -> bool {
        let ids: Vec<TaskId> =
            self.tasks.keys().copied().filter(|id| stage.contains(&id.subtopology)).collect();
        let mut finished = true;
        for id in ids {
            let Some(running) = self.tasks.get_mut(&id).filter(|_| self.failure.is_none()) else {
                continue;
            };
            match running.task.finish(self.now_ms) {
                Ok(done) => {
                    finished &= done;
                    self.after_step(id);
                }
                Err(error) => self.failure = Some(error),
            }
        }
        finished
    }

    /// Commits every instance: caches are flushed, output and offsets become durable together.
    pub fn commit(&mut self) -> &mut Self {
        for instance in 0..self.instances.len() {
            self.commit_instance(instance);
        }
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

    /// What processors counted under this name so far.
    pub fn counter(&self, name: &str) -> u64 {
        self.globals.tallies().counter(name).value()
    }

    /// What processors gave to the distribution of this name so far.
    pub fn distribution(&self, name: &str) -> DistributionSummary {
        self.globals.tallies().distribution(name).summary()
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

    /// Has sources by pattern read the topics that there are, and notes who reads what.
    fn look_for_topics(&mut self) -> Result<(), TopologyError> {
        if self.plan.has_patterns() {
            self.plan = self.plan.reading(self.topics.keys().map(|topic| &**topic))?;
            let standbys = self.standbys.values_mut();
            let running = self.tasks.values_mut().map(|running| &mut running.task);
            for task in running.chain(standbys) {
                task.adopt(&self.plan, self.now_ms);
            }
        }
        self.readers.clear();
        for part in self.plan.subtopologies().iter().filter(|part| !part.global) {
            for topic in &part.source_topics {
                self.readers.entry(topic.clone()).or_default().push(part.id);
            }
        }
        Ok(())
    }

    /// Creates a topic if a pattern takes it and it is not there yet, as somebody else would while the program runs.
    ///
    /// # Panics
    /// If two patterns take it: the program would fail.
    fn appear(&mut self, name: &str) {
        if self.topics.contains_key(name) || !self.plan.is_matched(name) {
            return;
        }
        let partitions = self.default_partitions;
        self.topic(name, partitions);
        self.globals.set_partitions(name, partitions);
        if let Err(error) = self.look_for_topics() {
            panic!("{error}");
        }
    }

    fn topic(&mut self, name: &str, partitions: i32) -> &mut Topic {
        self.topics.entry(Arc::from(name)).or_insert_with(|| Topic::new(partitions))
    }

    /// A subtopology has as many tasks as its largest source topic has partitions. Topics that patterns are yet to find
    /// have as many as any other.
    fn partitions_of(&self, subtopology: u32) -> i32 {
        let least = if self.plan.is_open(subtopology) { self.default_partitions } else { 0 };
        self.plan.subtopologies()[subtopology as usize]
            .source_topics
            .iter()
            .filter_map(|topic| self.topics.get(topic.as_str()))
            .map(|topic| topic.partitions.len() as i32)
            .max()
            .unwrap_or(0)
            .max(least)
    }

    /// Appends a record as a producer would, and runs until nothing moves.
    fn send(&mut self, outgoing: Outgoing) {
        self.append(outgoing);
        self.settle();
    }

    fn append(&mut self, outgoing: Outgoing) {
        let default = self.default_partitions;
        let name = outgoing.topic.name;
        self.appear(&name);
        let topic = self.topic(&name, default);
        let partition = outgoing
            .topic
            .partition
            .unwrap_or_else(|| topic.partition_for(outgoing.key.as_deref()));
        let place = partition as usize;
        let forgotten = topic.forgotten.get(place).copied().unwrap_or_default();
        let Some(records) = topic.partitions.get_mut(place) else {
            panic!("{name} has no partition {partition}");
        };
        let record = RawRecord {
            topic: name.clone(),
            partition,
            offset: forgotten + records.len() as i64,
            timestamp: outgoing.timestamp,
            key: outgoing.key,
            value: outgoing.value,
            headers: outgoing.headers,
        };
        records.push(record.clone());
        self.fill_tables(&record);
        let readers = self.readers.get(&*name).cloned().unwrap_or_default();
        for subtopology in readers {
            self.deliver(TaskId { subtopology, partition }, &name);
        }
    }

    /// Gives a record to the global tables that its topic fills.
    fn fill_tables(&mut self, record: &RawRecord) {
        let mut dead = None;
        for globals in self.instances.iter().flatten() {
            if !globals.reads(&record.topic) {
                return;
            }
            if let Err(error) = instances::apply_to(globals, record.clone(), self.now_ms) {
                self.failure = Some(error);
            }
            // Each instance would send its own.
            dead.get_or_insert(globals.take_dead_letters());
        }
        for letter in dead.into_iter().flatten() {
            self.append(letter);
        }
    }

    /// Runs until nothing moves, one record at a time: the one with the lowest event time among all tasks. Among equals
    /// it is the order of Kafka Streams' test driver, which has all tasks in one and their queues in a heap.
    fn settle(&mut self) {
        self.resume();
        while self.step() {}
    }

    /// Processes the next record, unless its task takes none for now. Returns whether there was one.
    fn step(&mut self) -> bool {
        if self.failure.is_some() {
            return false;
        }
        let Some(waiting) = self.turns.pop() else {
            return false;
        };
        let Some(running) = self.tasks.get_mut(&waiting.id) else {
            return true;
        };
        if running.task.holds() || running.task.waits_for_bootstrap(&waiting.topic) {
            self.held.push(waiting);
            return true;
        }
        let Waiting { id, topic, .. } = waiting;
        let processed = running.task.process_from(&topic, self.now_ms);
        // What waited for the end of this topic may go on.
        let bootstrapped = running.task.next_timestamp(&topic).is_none()
            && self.plan.nodes.iter().any(|node| node.bootstraps);
        if let Some(timestamp) = running.task.next_timestamp(&topic) {
            self.turns.push(Waiting { timestamp, id, topic });
        }
        match processed {
            Ok(()) => self.after_step(id),
            Err(error) => self.failure = Some(error),
        }
        if bootstrapped {
            for held in std::mem::take(&mut self.held) {
                self.turns.push(held);
            }
        }
        true
    }

    /// Lets tasks go on with records that wait inside them.
    fn resume(&mut self) {
        let ids: Vec<TaskId> = self.tasks.keys().copied().collect();
        for id in ids {
            let Some(running) = self.tasks.get_mut(&id).filter(|_| self.failure.is_none()) else {
                continue;
            };
            match running.task.go_on(self.now_ms) {
                Ok(true) => self.after_step(id),
                Ok(false) => {}
                Err(error) => self.failure = Some(error),
            }
        }
        for held in std::mem::take(&mut self.held) {
            self.turns.push(held);
        }
    }

    /// Does what a thread does once a task has worked.
    fn after_step(&mut self, id: TaskId) {
        if self.commits_each {
            self.commit_tasks(&[id]);
            return;
        }
        let Some(running) = self.tasks.get_mut(&id) else {
            return;
        };
        let instance = running.instance;
        let asked = running.task.take_commit_request();
        if self.guarantee == Guarantee::AtLeastOnce {
            for outgoing in running.task.take_outgoing() {
                self.append(outgoing);
            }
        }
        if self.cached_bytes(instance) > self.cache_bytes {
            self.commit_instance(instance);
            self.of_instance(instance).for_each(|running| running.task.shrink_caches());
        } else if asked {
            self.commit_instance(instance);
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
        let forgotten = topic.forgotten[id.partition as usize];
        for record in &records[(*fetched - forgotten).max(0) as usize..] {
            running.task.add(record.clone());
        }
        *fetched = forgotten + records.len() as i64;
        if was_empty && let Some(timestamp) = running.task.next_timestamp(name) {
            self.turns.push(Waiting { timestamp, id, topic: name.clone() });
        }
    }

    fn commit_instance(&mut self, instance: usize) {
        let ids: Vec<TaskId> =
            self.of_instance(instance).map(|running| running.task.id()).collect();
        self.commit_tasks(&ids);
    }

    /// Makes everything that tasks of one instance have done durable together.
    fn commit_tasks(&mut self, ids: &[TaskId]) {
        if self.failure.is_some() {
            return;
        }
        // As long as something waits inside one of the tasks, nothing is committed.
        for id in ids {
            match self.tasks.get_mut(id).map(|running| running.task.settle(self.now_ms)) {
                Some(Ok(true)) | None => {}
                Some(Ok(false)) => return,
                Some(Err(error)) => {
                    self.failure = Some(error);
                    return;
                }
            }
        }
        let mut sent = Vec::new();
        for id in ids {
            let Some(running) = self.tasks.get_mut(id) else {
                continue;
            };
            match running.task.commit() {
                Ok(commit) => {
                    sent.extend(commit.outgoing);
                    self.committed.entry(*id).or_default().extend(commit.offsets);
                    self.progress.insert(*id, commit.progress);
                    running.task.committed();
                }
                Err(error) => self.failure = Some(error),
            }
        }
        for outgoing in sent {
            self.append(outgoing);
        }
        for id in ids {
            self.commit_stores(*id);
        }
        self.follow();
    }

    /// Tells stores on disk that their task's commit has reached the cluster.
    fn commit_stores(&mut self, id: TaskId) {
        if self.state_dir.is_none() || !self.keeps_store_commits {
            return;
        }
        let Some(running) = self.tasks.get_mut(&id) else {
            return;
        };
        let topics = &self.topics;
        running.task.wrote(|topic| {
            Some(topics.get(topic)?.partitions.get(id.partition as usize)?.len() as i64)
        });
        let mut keeping = Keeping::default();
        running.task.keep_in(&mut keeping, self.now_ms);
        if let Err(error) = keeping.write().and_then(|()| running.task.kept()) {
            panic!("committing the stores of {id}: {error}");
        }
    }
}
