//! The numbers of a running application at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

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
    /// Time in polls lately: one measurement for each.
    pub poll_time: Summary,
    /// Time in processing lately: one measurement for each round between two polls.
    pub process_time: Summary,
    /// Time in commits lately: one measurement for each.
    pub commit_time: Summary,
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
    /// Time from a record's timestamp to its processing, lately, in milliseconds.
    pub e2e_latency: Summary,
    /// What it reads.
    pub inputs: Vec<InputMetrics>,
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
    /// Records processed.
    pub processed: u64,
    /// Records that wait in memory.
    pub buffered: usize,
    /// Records of the partition that are not processed yet, as far as is known.
    pub lag: Option<i64>,
}

/// A node's numbers.
#[derive(Clone, Debug, Default)]
pub struct NodeMetrics {
    /// Its name.
    pub node: Arc<str>,
    /// Records that it has taken in.
    pub processed: u64,
}

/// A store's numbers.
#[derive(Clone, Debug, Default)]
pub struct StoreMetrics {
    /// Its name.
    pub store: String,
    /// Keys, windows or sessions, if the store knows.
    pub entries: Option<u64>,
    /// Bytes in its cache, approximately.
    pub cached_bytes: usize,
    /// Reads that the cache answered.
    pub cache_hits: u64,
    /// Reads that it did not.
    pub cache_misses: u64,
}

impl TaskMetrics {
    /// Records processed.
    pub fn processed(&self) -> u64 {
        self.inputs.iter().map(|input| input.processed).sum()
    }
}
