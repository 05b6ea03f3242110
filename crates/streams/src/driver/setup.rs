//! How a test runs its topology.

use std::path::{Path, PathBuf};

use super::TestDriver;
use crate::app::Guarantee;
use crate::dsl::Topology;
use crate::error::TopologyError;

/// A run to be started: [`TestDriver::of`].
pub struct TestSetup<'a> {
    pub(super) topology: &'a Topology,
    pub(super) partitions: i32,
    pub(super) instances: usize,
    pub(super) guarantee: Guarantee,
    pub(super) cache_bytes: usize,
    pub(super) commits_each: bool,
    pub(super) trace_every: u64,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) standby_replicas: usize,
}

impl<'a> TestSetup<'a> {
    pub(super) fn new(topology: &'a Topology) -> Self {
        Self {
            topology,
            partitions: 1,
            instances: 1,
            guarantee: Guarantee::AtLeastOnce,
            cache_bytes: 10 << 20,
            commits_each: true,
            trace_every: 0,
            state_dir: None,
            standby_replicas: 0,
        }
    }

    /// Gives every topic so many partitions, unless the topology says otherwise.
    pub fn partitions(mut self, partitions: i32) -> Self {
        self.partitions = partitions.max(1);
        self
    }

    /// Shares the tasks among so many instances of the program.
    pub fn instances(mut self, instances: usize) -> Self {
        self.instances = instances.max(1);
        self
    }

    /// Runs under this guarantee: it decides what a crash leaves, and when output is seen.
    pub fn guarantee(mut self, guarantee: Guarantee) -> Self {
        self.guarantee = guarantee;
        self
    }

    /// Gives the caches of each instance so many bytes; an instance that needs more commits and empties them. 0 runs
    /// without caches.
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Commits only on [`TestDriver::commit`], and when a cache is full, instead of after every record.
    pub fn commit_on_command(mut self) -> Self {
        self.commits_each = false;
        self
    }

    /// Keeps the stores of each instance on disk, in a directory of its own within this one.
    pub fn state_dir(mut self, state_dir: &Path) -> Self {
        self.state_dir = Some(state_dir.to_owned());
        self
    }

    /// Keeps the state of each task on so many instances beside its own. They follow with every commit of an instance;
    /// what a task has written since is what its successor has to restore.
    pub fn standby_replicas(mut self, replicas: usize) -> Self {
        self.standby_replicas = replicas;
        self
    }

    /// Traces one record in so many, of each task.
    pub fn trace_every(mut self, records: u64) -> Self {
        self.trace_every = records;
        self
    }

    /// Starts the run.
    pub fn start(self) -> Result<TestDriver, TopologyError> {
        TestDriver::start(self)
    }
}
