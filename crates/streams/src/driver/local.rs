//! Runs a topology over data that end, in this process and without a cluster.
//!
//! A batch is a stream that ends: the same program, the same tasks, the same results. Beam calls this its direct runner.
//! Records are taken from the sources as they are needed, the one with the lowest event time first, and handed to the
//! sinks as they come; nothing that was processed is kept. [`crate::Streams::run_until_end`] does the same for topics of
//! a cluster.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::{self, Thread};

use bytes::Bytes;

use super::topics::Topic;
use super::{TestDriver, TestSetup};
use crate::dsl::Topology;
use crate::error::{ProcessingError, TopologyError};
use crate::query::{Answer, Query, QueryError};
use crate::record::{Headers, Record};
use crate::runtime::{Outgoing, OutgoingTopic, RawRecord};
use crate::serde::{SerdeError, SerdeOf, StreamType};
use crate::topology::Kind;

/// A topology that reads iterators and files instead of topics.
///
/// ```
/// use std::sync::{Arc, Mutex};
///
/// use fleuve_streams::{LocalRun, Record, Topology};
///
/// let app = Topology::new("word-count");
/// app.stream::<(), String>("lines")
///     .flat_map_values(|line: String| line.split(' ').map(str::to_owned).collect::<Vec<_>>())
///     .group_by(|_, word| word.clone())
///     .count("word-counts")
///     .to_stream()
///     .to("counts");
///
/// let lines = ["to be or", "not to be"].map(|line| Record::new((), line.to_owned(), 0));
/// let counts = Arc::new(Mutex::new(std::collections::BTreeMap::new()));
/// let seen = counts.clone();
///
/// let mut run = LocalRun::new(&app).unwrap();
/// run.read("lines", lines).unwrap();
/// run.write("counts", move |record: Record<String, i64>| {
///     seen.lock().unwrap().insert(record.key, record.value);
///     Ok(())
/// });
/// run.run_until_end().unwrap();
/// assert_eq!(counts.lock().unwrap()["be"], 2);
/// ```
pub struct LocalRun {
    driver: TestDriver,
    sources: Vec<Source>,
    sinks: BTreeMap<Arc<str>, Sink>,
    /// Subtopologies that are still to be told that their input has ended, if they are.
    stages: VecDeque<BTreeSet<u32>>,
}

/// Why a local run ended early.
#[derive(Debug, thiserror::Error)]
pub enum LocalRunError {
    /// The topology does not read the topic.
    #[error("the topology reads no topic {0}")]
    UnknownSource(String),
    /// A source cannot be read.
    #[error("reading {topic}: {cause}")]
    Read {
        /// The topic that it stands for.
        topic: String,
        /// What happened.
        cause: io::Error,
    },
    /// A record is not what its type says.
    #[error("{topic}: {cause}")]
    Serde {
        /// Its topic.
        topic: String,
        /// What happened.
        cause: SerdeError,
    },
    /// A record could not be processed.
    #[error(transparent)]
    Processing(#[from] ProcessingError),
    /// A sink failed.
    #[error("writing {topic}: {cause}")]
    Write {
        /// The topic that it stands for.
        topic: String,
        /// What happened.
        cause: io::Error,
    },
}

struct Source {
    topic: Arc<str>,
    /// Whether it is read to its end before others.
    bootstraps: bool,
    records: Box<dyn Iterator<Item = Result<Outgoing, LocalRunError>> + Send>,
}

type Sink = Box<dyn FnMut(RawRecord) -> Result<(), LocalRunError> + Send>;

impl LocalRun {
    /// A run of the topology, with one partition for every topic.
    pub fn new(topology: &Topology) -> Result<Self, TopologyError> {
        let driver = TestSetup::new(topology).commit_on_command().start()?;
        let stages = if driver.plan.time.closes_at_end { driver.plan.stages() } else { Vec::new() };
        Ok(Self { driver, sources: Vec::new(), sinks: BTreeMap::new(), stages: stages.into() })
    }

    /// Reads records in place of a topic, in their order.
    pub fn read<K: StreamType, V: StreamType, I>(
        &mut self,
        topic: &str,
        records: I,
    ) -> Result<&mut Self, LocalRunError>
    where
        I: IntoIterator<Item = Record<K, V>>,
        I::IntoIter: Send + 'static,
    {
        let (name, key, value) = (Arc::from(topic), SerdeOf::<K>::usual(), SerdeOf::<V>::usual());
        let to_bytes = move |record: Record<K, V>| {
            let Record { key: k, value: v, timestamp, mut headers } = record;
            let written = key
                .to_bytes(&name, &mut headers, &k)
                .and_then(|k| Ok((k, value.to_bytes(&name, &mut headers, &v)?)));
            match written {
                Ok((key, value)) => Ok(incoming(&name, key, value, timestamp, headers)),
                Err(cause) => Err(LocalRunError::Serde { topic: name.to_string(), cause }),
            }
        };
        self.add_source(topic, records.into_iter().map(to_bytes))
    }

    /// Reads the lines of a file in place of a topic: values without keys. Their event time is 0, unless the topology
    /// finds one in them ([`crate::Consumed::timestamp_extractor`]).
    pub fn read_lines(&mut self, topic: &str, file: &Path) -> Result<&mut Self, LocalRunError> {
        let name: Arc<str> = Arc::from(topic);
        let failed = {
            let name = name.clone();
            move |cause| LocalRunError::Read { topic: name.to_string(), cause }
        };
        let lines = BufReader::new(File::open(file).map_err(&failed)?).split(b'\n');
        let lines = lines.map(move |line| {
            let mut line = line.map_err(&failed)?;
            line.pop_if(|end| *end == b'\r');
            Ok(incoming(&name, None, Some(Bytes::from(line)), 0, Headers::default()))
        });
        self.add_source(topic, lines)
    }

    /// Gives what the topology writes to a topic to a function, record by record. What nobody asks for is dropped.
    pub fn write<K: StreamType, V: StreamType>(
        &mut self,
        topic: &str,
        mut sink: impl FnMut(Record<K, V>) -> io::Result<()> + Send + 'static,
    ) -> &mut Self {
        let (name, key, value) = (topic.to_owned(), SerdeOf::<K>::usual(), SerdeOf::<V>::usual());
        let write = move |raw: RawRecord| {
            let read = key
                .read(&name, &raw.headers, raw.key)
                .and_then(|key| Ok((key, value.read(&name, &raw.headers, raw.value)?)));
            let (key, value) =
                read.map_err(|cause| LocalRunError::Serde { topic: name.clone(), cause })?;
            let record = Record { key, value, timestamp: raw.timestamp, headers: raw.headers };
            sink(record).map_err(|cause| LocalRunError::Write { topic: name.clone(), cause })
        };
        self.sinks.insert(Arc::from(topic), Box::new(write));
        self
    }

    /// Reads all sources to their ends, and returns when all that they led to is processed and written.
    ///
    /// Event time stands still at the end, as in [`crate::Streams::run_until_end`]. More sources may be read afterwards,
    /// and run; but with [`Topology::close_at_end`] time is over then, and every further record is late.
    pub fn run_until_end(&mut self) -> Result<(), LocalRunError> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        for running in self.driver.tasks.values_mut() {
            running.task.set_waker(waker.clone());
        }
        self.fill_tables()?;
        let mut processed: u64 = 0;
        loop {
            self.feed()?;
            if self.driver.step() {
                processed += 1;
                if processed.is_multiple_of(RECORDS_PER_COMMIT) {
                    self.commit()?;
                }
            } else if !self.go_on()? {
                // Caches may hold back what leads to further records.
                let before = self.driver.appended();
                self.commit()?;
                if self.sources.is_empty() && self.driver.appended() == before {
                    if !self.driver.tasks.values().all(|running| running.task.is_settled()) {
                        self.wait();
                        continue;
                    }
                    let Some(stage) = self.stages.front() else {
                        return Ok(());
                    };
                    if self.driver.finish(stage) {
                        self.stages.pop_front();
                    }
                }
            }
        }
    }

    /// Asks the stores, as [`crate::Streams::query`] does.
    pub fn query<A>(&mut self, query: Query<A>) -> Result<Answer<A>, QueryError> {
        self.driver.query(query)
    }

    fn add_source(
        &mut self,
        topic: &str,
        records: impl Iterator<Item = Result<Outgoing, LocalRunError>> + Send + 'static,
    ) -> Result<&mut Self, LocalRunError> {
        let globals: BTreeSet<String> = self.global_topics();
        self.driver.appear(topic);
        if !self.driver.readers.contains_key(topic) && !globals.contains(topic) {
            return Err(LocalRunError::UnknownSource(topic.to_owned()));
        }
        let bootstraps = self.driver.plan.nodes.iter().any(|node| match &node.kind {
            Kind::Source { topics, .. } => {
                node.bootstraps && topics.iter().any(|known| known == topic)
            }
            Kind::Processor | Kind::Sink(_) => false,
        });
        let (topic, records) = (Arc::from(topic), Box::new(records));
        self.sources.push(Source { topic, bootstraps, records });
        Ok(self)
    }

    fn global_topics(&self) -> BTreeSet<String> {
        self.driver.globals.topics().map(|topic| topic.to_string()).collect()
    }

    /// Reads global tables to their ends before anything else, as an application does.
    fn fill_tables(&mut self) -> Result<(), LocalRunError> {
        let globals = self.global_topics();
        let (tables, streams): (Vec<Source>, Vec<Source>) = std::mem::take(&mut self.sources)
            .into_iter()
            .partition(|source| globals.contains(&*source.topic));
        self.sources = streams;
        for record in tables.into_iter().flat_map(|table| table.records) {
            self.driver.append(record?);
            if self.driver.appended() % RECORDS_PER_COMMIT as i64 == 0 {
                self.hand_out()?;
            }
        }
        self.hand_out()
    }

    /// Gives the next records of every source of which none waits: whose turn it is, is known only then.
    fn feed(&mut self) -> Result<(), LocalRunError> {
        let mut place = 0;
        while let Some(source) = self.sources.get(place) {
            if !source.bootstraps && self.sources.iter().any(|source| source.bootstraps) {
                place += 1;
                continue;
            }
            let topic = source.topic.clone();
            let waits = self
                .driver
                .tasks
                .values_mut()
                .any(|running| running.task.next_timestamp(&topic).is_some());
            if waits {
                place += 1;
                continue;
            }
            let mut given = 0;
            let Some(source) = self.sources.get_mut(place) else {
                break;
            };
            for record in source.records.by_ref().take(RECORDS_PER_TURN) {
                self.driver.append(record?);
                given += 1;
            }
            // Otherwise it is looked at once more: what it gave may have been dropped for its time.
            if given == 0 {
                self.sources.remove(place);
                // Others may have waited for its end.
                place = 0;
            }
        }
        Ok(())
    }

    /// Goes on with what waits inside tasks. Returns whether there is something to process.
    fn go_on(&mut self) -> Result<bool, LocalRunError> {
        loop {
            self.driver.resume();
            if let Some(error) = &self.driver.failure {
                return Err(error.clone().into());
            }
            let tasks = || self.driver.tasks.values().map(|running| &running.task);
            if tasks().any(|task| task.queued() > 0 && !task.holds()) {
                return Ok(true);
            }
            // What does not hold records back (a batch that fills) can be dealt with at the commit.
            if !tasks().any(|task| task.holds()) {
                return Ok(false);
            }
            self.wait();
        }
    }

    /// Waits for answers from outside, or for the end of a pause between two attempts, which nobody here has to wait
    /// for.
    fn wait(&mut self) {
        let tasks = self.driver.tasks.values().map(|running| &running.task);
        match tasks.filter_map(|task| task.due_ms()).min() {
            Some(due_ms) => self.driver.now_ms = self.driver.now_ms.max(due_ms),
            None => thread::park(),
        }
    }

    fn commit(&mut self) -> Result<(), LocalRunError> {
        // Nothing is processed by it: whose turn it is, is known only when every source has been asked.
        self.driver.commit_instance(0);
        if let Some(error) = &self.driver.failure {
            return Err(error.clone().into());
        }
        self.hand_out()
    }

    /// Hands what was written to the sinks, and lets go of it.
    fn hand_out(&mut self) -> Result<(), LocalRunError> {
        let sinks = &mut self.sinks;
        self.driver.forget(&mut |record| match sinks.get_mut(&record.topic) {
            Some(sink) => sink(record),
            None => Ok(()),
        })
    }
}

impl TestDriver {
    /// How many records were written so far.
    fn appended(&self) -> i64 {
        let ends =
            self.topics.values().flat_map(|topic| topic.partitions.iter().zip(&topic.forgotten));
        ends.map(|(records, forgotten)| records.len() as i64 + forgotten).sum()
    }

    /// Lets go of all records, each being looked at a last time: tasks have what is theirs.
    fn forget(
        &mut self,
        look: &mut dyn FnMut(RawRecord) -> Result<(), LocalRunError>,
    ) -> Result<(), LocalRunError> {
        for topic in self.topics.values_mut() {
            let Topic { partitions, forgotten, .. } = topic;
            for (records, forgotten) in partitions.iter_mut().zip(forgotten) {
                *forgotten += records.len() as i64;
                records.drain(..).try_for_each(&mut *look)?;
            }
        }
        Ok(())
    }
}

fn incoming(
    topic: &Arc<str>,
    key: Option<Bytes>,
    value: Option<Bytes>,
    timestamp: i64,
    headers: Headers,
) -> Outgoing {
    let topic = OutgoingTopic { name: topic.clone(), partition: None };
    Outgoing { topic, key, value, timestamp, headers, source: None }
}

/// Wakes a thread that is parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Records that are taken from a source at once.
const RECORDS_PER_TURN: usize = 256;
/// Records between two commits, which empty caches and hand output to the sinks.
const RECORDS_PER_COMMIT: u64 = 1_000;
