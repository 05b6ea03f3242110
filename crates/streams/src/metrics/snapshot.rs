//! The numbers of a running application at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleuve_client::Metric;

use super::Summary;

/// An application's numbers, as its threads told them last: once a second.
#[derive(Clone, Debug, Default)]
pub struct StreamsMetrics {
    /// The threads of this instance.
    pub threads: Vec<ThreadMetrics>,
    /// The tasks that run.
    pub tasks: Vec<TaskMetrics>,
    /// The tasks whose state is being restored.
    pub restoring: usize,
    /// How the state of tasks was brought back, or is, that run here or are about to.
    pub restorations: Vec<RestorationMetrics>,
    /// The standbys and warm-ups that are here.
    pub standbys: Vec<StandbyMetrics>,
    /// What stores have on disk.
    pub disk: Vec<DiskMetrics>,
    /// Changelog records that tasks and standbys of this instance have applied so far.
    pub restored: u64,
    /// Threads that ended with an error since the start.
    pub failed_threads: u64,
}

/// What an application does, under Kafka Streams' names and numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientState {
    /// Threads join the group, or tasks are restored.
    Rebalancing = 1,
    /// All tasks run.
    Running = 2,
    /// Threads are told to stop.
    PendingShutdown = 3,
    /// No thread is left, and at least one has failed.
    Error = 6,
}

/// What a thread does, under Kafka Streams' names and numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThreadState {
    /// It has said nothing about itself yet.
    #[default]
    Created = 0,
    /// The group has not given it tasks yet.
    Starting = 1,
    /// The group divides the tasks anew.
    PartitionsRevoked = 2,
    /// Tasks that it was given are restored.
    PartitionsAssigned = 3,
    /// All its tasks run.
    Running = 4,
    /// It is told to stop.
    PendingShutdown = 5,
}

/// How a task's state is brought back.
#[derive(Clone, Debug, Default)]
pub struct RestorationMetrics {
    /// The task's name, such as `0_3`.
    pub task: String,
    /// The thread that is to run it.
    pub thread: usize,
    /// Changelog records that were applied.
    pub records: u64,
    /// Changelog records that are still to be applied; markers of transactions count.
    pub remaining: i64,
}

/// What a store has on disk, of all tasks of the instance together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskMetrics {
    /// The store.
    pub store: String,
    /// Bytes in files.
    pub bytes: u64,
    /// Rows, approximately: those written again count until files are merged.
    pub rows: u64,
}

/// How a standby follows the task that runs elsewhere.
#[derive(Clone, Debug, Default)]
pub struct StandbyMetrics {
    /// The task's name, such as `0_3`.
    pub task: String,
    /// Changelog records that were applied.
    pub records: u64,
    /// Changelog records that it lacks, as far as that is known; markers of transactions count.
    pub lag: Option<i64>,
}

/// A thread's numbers. Times are in nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct ThreadMetrics {
    /// Its number.
    pub thread: usize,
    /// What it does.
    pub state: ThreadState,
    /// When it was started, in milliseconds since the epoch.
    pub started_ms: i64,
    /// Time in polls and commits so far.
    pub blocked_ns: u64,
    /// Records processed.
    pub processed: u64,
    /// Polls.
    pub polls: u64,
    /// Records that polls gave.
    pub polled: u64,
    /// Commits.
    pub commits: u64,
    /// Tasks that began.
    pub tasks_created: u64,
    /// Tasks that ended.
    pub tasks_closed: u64,
    /// Calls of processors by time.
    pub punctuations: u64,
    /// Time in polls lately: one measurement for each.
    pub poll_time: Summary,
    /// Records of a poll lately: one measurement for each.
    pub poll_records: Summary,
    /// Time in processing lately: one measurement for each record, of those that a task processed at a stretch the
    /// average.
    pub process_time: Summary,
    /// Records processed between two polls lately.
    pub process_records: Summary,
    /// Time in calls of processors by time lately: one measurement for each.
    pub punctuate_time: Summary,
    /// Time in commits lately: one measurement for each.
    pub commit_time: Summary,
    /// Time that it took to take in tasks lately, restoration apart: one measurement each time.
    pub assigned_time: Summary,
    /// Time that it took to give tasks up lately, with their commit: one measurement each time.
    pub revoked_time: Summary,
    /// Time that it took to give tasks up lately that were taken away: one measurement each time.
    pub lost_time: Summary,
    /// What its consumer and its producer count.
    pub clients: Vec<ClientMetrics>,
}

/// What a client of a thread counts, under the names of Kafka's clients.
#[derive(Clone, Debug)]
pub struct ClientMetrics {
    /// What it is.
    pub kind: ClientKind,
    /// What it has counted.
    pub metrics: Vec<Metric>,
}

/// A client of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// It reads what tasks process.
    Consumer,
    /// It writes what tasks make.
    Producer,
}

/// A task's numbers.
#[derive(Clone, Debug, Default)]
pub struct TaskMetrics {
    /// Its name, such as `0_3`.
    pub task: String,
    /// The thread that runs it.
    pub thread: usize,
    /// The highest event time of its input, in milliseconds; -1 before any.
    pub stream_time_ms: i64,
    /// Records dropped, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Time in processing lately, in nanoseconds: one measurement for each record, of those processed at a stretch the
    /// average.
    pub process_time: Summary,
    /// How far records were behind event time lately, in milliseconds.
    pub lateness: Summary,
    /// Calls of processors by time.
    pub punctuations: u64,
    /// Time in them lately, in nanoseconds.
    pub punctuate_time: Summary,
    /// Records processed although an input had none, after it was waited for.
    pub enforced: u64,
    /// What it reads.
    pub inputs: Vec<InputMetrics>,
    /// What its sinks write.
    pub outputs: Vec<OutputMetrics>,
    /// Its nodes.
    pub nodes: Vec<NodeMetrics>,
    /// Its stores.
    pub stores: Vec<StoreMetrics>,
}

/// The numbers of a partition that a task reads.
#[derive(Clone, Debug, Default)]
pub struct InputMetrics {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The node that reads it.
    pub node: Arc<str>,
    /// Records processed.
    pub processed: u64,
    /// Bytes of these.
    pub processed_bytes: u64,
    /// Records that wait in memory.
    pub buffered: usize,
    /// Records of the partition that are not processed yet, as far as is known.
    pub lag: Option<i64>,
}

/// The numbers of a topic that a sink of a task writes.
#[derive(Clone, Debug, Default)]
pub struct OutputMetrics {
    /// The topic.
    pub topic: Arc<str>,
    /// The sink.
    pub node: Arc<str>,
    /// Records written.
    pub records: u64,
    /// Bytes of these.
    pub bytes: u64,
}

/// A node's numbers.
#[derive(Clone, Debug, Default)]
pub struct NodeMetrics {
    /// Its name.
    pub node: Arc<str>,
    /// Records that it has taken in.
    pub processed: u64,
    /// What it has sent because time had come, if it does so, and how often.
    pub emitted: Option<(Emission, u64)>,
    /// Of the first and last nodes, from a record's timestamp to its arrival there, lately, in milliseconds.
    pub e2e_latency: Option<Summary>,
}

/// What a node sends because time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emission {
    /// Changes that were suppressed.
    Suppressed,
    /// Windows or sessions that have closed.
    Closed,
}

/// What kind of store it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreKind {
    /// Values by key.
    #[default]
    KeyValue,
    /// Windows.
    Window,
    /// Sessions.
    Session,
    /// Changes that are suppressed.
    Suppression,
}

/// A store's numbers.
#[derive(Clone, Debug, Default)]
pub struct StoreMetrics {
    /// Its name.
    pub store: String,
    /// What kind it is.
    pub kind: StoreKind,
    /// Whether its data are on disk.
    pub on_disk: bool,
    /// Keys, windows or sessions, if the store knows.
    pub entries: Option<u64>,
    /// Values that were read, by operators and queries, if the store counts them.
    pub reads: Option<u64>,
    /// Values that were written or removed, if the store counts them.
    pub writes: Option<u64>,
    /// Bytes in its cache, approximately.
    pub cached_bytes: usize,
    /// Reads that the cache answered.
    pub cache_hits: u64,
    /// Reads that it did not.
    pub cache_misses: u64,
    /// The share of reads that the cache answered, lately, in millionths: one measurement for each second with reads.
    pub hit_ratio: Summary,
    /// Changes that wait in a suppression, and their bytes.
    pub buffered: Option<(u64, u64)>,
    /// Changes that waited lately: one measurement for each second.
    pub buffered_count: Summary,
    /// Their bytes: one measurement for each second.
    pub buffered_bytes: Summary,
}

impl StreamsMetrics {
    /// What the application does, as far as its threads tell.
    pub fn state(&self) -> ClientState {
        let mut states = self.threads.iter().map(|thread| thread.state);
        if self.threads.is_empty() && self.failed_threads > 0 {
            return ClientState::Error;
        }
        if !self.threads.is_empty() && states.clone().all(|it| it == ThreadState::PendingShutdown) {
            return ClientState::PendingShutdown;
        }
        let is_steady = |it| matches!(it, ThreadState::Running | ThreadState::PendingShutdown);
        if states.all(is_steady) && self.restoring == 0 {
            ClientState::Running
        } else {
            ClientState::Rebalancing
        }
    }
}

impl ClientState {
    /// Kafka Streams' name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rebalancing => "REBALANCING",
            Self::Running => "RUNNING",
            Self::PendingShutdown => "PENDING_SHUTDOWN",
            Self::Error => "ERROR",
        }
    }
}

impl ClientKind {
    /// What names begin with.
    pub fn name(self) -> &'static str {
        match self {
            Self::Consumer => "consumer",
            Self::Producer => "producer",
        }
    }
}

impl ThreadState {
    /// Kafka Streams' name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::Starting => "STARTING",
            Self::PartitionsRevoked => "PARTITIONS_REVOKED",
            Self::PartitionsAssigned => "PARTITIONS_ASSIGNED",
            Self::Running => "RUNNING",
            Self::PendingShutdown => "PENDING_SHUTDOWN",
        }
    }
}

impl TaskMetrics {
    /// Records processed.
    pub fn processed(&self) -> u64 {
        self.inputs.iter().map(|input| input.processed).sum()
    }
}
