//! Moving partitions between the data directories of this broker.
//!
//! A move is asked for by AlterReplicaLogDirs. The copy grows beside the log, read and written like
//! any other, and takes its place once nothing is missing; storage sees to it that a crash leaves
//! one or the other. One partition is copied at a time. A move that a restart interrupts goes on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleuve_storage::{Append, AppendError, Log, LogError, LogManager, ReadRequest};
use fleuve_types::{LeaderEpoch, TopicPartition, Uuid};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::node::Node;
use crate::partition::Partition;

/// What is copied in one step.
const STEP_BYTES: usize = 1 << 20;
/// With less than this left the rest is copied while appends wait, which takes milliseconds.
const LAST_STEP_BYTES: u64 = 1 << 20;
/// Rests of less than this to keep a rate are not worth the wake-up.
const REST_MIN: Duration = Duration::from_millis(10);
/// The longest rest before the rate is looked up again.
const REST_MAX: Duration = Duration::from_millis(500);
/// How long a move waits that cannot end yet, because the log is being compacted.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// The limit for copies, in bytes a second, which operators change while they run.
const RATE_KEY: &str = "replica.alter.log.dirs.io.max.bytes.per.second";

/// Where a copy stands.
#[derive(Clone, Debug)]
pub(crate) struct CopyState {
    /// The data directory it grows in.
    pub(crate) directory: PathBuf,
    /// Its bytes.
    pub(crate) size: Option<u64>,
    /// Records that it lacks.
    pub(crate) lag: i64,
}

/// How far a step of a move came.
enum Step {
    /// So many bytes were copied, and more are left.
    Copied(usize),
    /// The log lies in the other directory now.
    Done,
    /// The last step has to wait.
    Blocked,
    /// There is nothing to move any more.
    Gone,
}

impl Partition {
    /// Reports whether a copy grows in another data directory.
    pub(crate) fn is_moving(&self) -> bool {
        self.future.lock().is_some()
    }

    /// Where the copy stands, if one grows.
    pub(crate) fn copy_state(&self) -> Option<CopyState> {
        let mut future = self.future.lock();
        let future = future.as_mut()?;
        Some(CopyState {
            directory: future.directory().parent().unwrap_or(Path::new("")).to_owned(),
            size: future.size().ok(),
            lag: (self.log_end_offset() - future.log_end_offset().0).max(0),
        })
    }

    /// Begins a copy in the data directory `target`; blocks.
    pub(crate) fn begin_move(&self, manager: &LogManager, target: &Path) -> Result<(), LogError> {
        let mut future = self.future.lock();
        let mut state = self.state.lock();
        let log = self.usable(&mut state.log)?;
        *future = Some(manager.create_future(log, target)?);
        Ok(())
    }

    /// Gives up a copy, if one grows.
    pub(crate) fn cancel_move(&self, manager: &LogManager) -> Result<(), LogError> {
        match self.future.lock().take() {
            Some(future) => manager.delete(future),
            None => Ok(()),
        }
    }

    /// Takes up a copy that an earlier process began; blocks.
    pub(crate) fn resume_move(&self, manager: &LogManager, future: Log) -> Result<(), LogError> {
        let mut slot = self.future.lock();
        let mut state = self.state.lock();
        let log = self.usable(&mut state.log)?;
        *slot = Some(manager.resume_future(log, future, LeaderEpoch(self.leader_epoch()))?);
        Ok(())
    }

    fn step(&self, manager: &LogManager) -> Result<Step, AppendError> {
        let mut slot = self.future.lock();
        let Some(future) = slot.as_mut() else { return Ok(Step::Gone) };
        let step_bytes = STEP_BYTES.min(future.config().segment_bytes as usize);
        let plan = {
            let mut state = self.state.lock();
            let Ok(log) = self.usable(&mut state.log) else { return Ok(Step::Gone) };
            let is_close = log.size()? < future.size()? + LAST_STEP_BYTES;
            let missing = next_batches(log, future, step_bytes)?;
            match (is_close, missing) {
                (false, Some(plan)) => Some(plan),
                (true, Some(plan)) if plan.max_len() >= step_bytes => Some(plan),
                _ if log.is_being_compacted() => return Ok(Step::Blocked),
                (_, mut missing) => {
                    while let Some(plan) = missing {
                        copy(future, plan)?;
                        missing = next_batches(log, future, step_bytes)?;
                    }
                    let future = slot.take().expect("it was there a moment ago");
                    let replaced = manager.replace_by_future(log, future);
                    self.advance_to_end(&mut state);
                    replaced?;
                    return Ok(Step::Done);
                }
            }
        };
        match plan {
            Some(plan) => Ok(Step::Copied(copy(future, plan)?)),
            None => Ok(Step::Blocked),
        }
    }
}

/// Plans to read what follows in the log behind what `future` has; `None` when nothing does.
fn next_batches(
    log: &mut Log,
    future: &Log,
    max_bytes: usize,
) -> Result<Option<fleuve_storage::ReadPlan>, LogError> {
    // Retention may have overtaken the copy; a gap at its beginning does no harm, because the log
    // start of the original comes with the last step.
    let offset = future.log_end_offset().max(log.log_start_offset());
    if offset >= log.log_end_offset() {
        return Ok(None);
    }
    let limit_offset = log.log_end_offset();
    log.plan_read(ReadRequest { offset, limit_offset, max_bytes, min_one_batch: true }).map(Some)
}

fn copy(future: &mut Log, plan: fleuve_storage::ReadPlan) -> Result<usize, AppendError> {
    let records = plan.run()?.into_bytes();
    let bytes = records.len();
    future.append(Append::from_leader(records))?;
    Ok(bytes)
}

/// Starts moving what is to be moved.
pub(crate) fn start(node: &Arc<Node>) -> JoinHandle<()> {
    let node = Arc::clone(node);
    tokio::spawn(async move {
        loop {
            let moving = find_moving(&node);
            if moving.is_empty() {
                node.logs.moves_asked.notified().await;
                continue;
            }
            for partition in moving {
                if let Some(directory) = move_one(&node, &partition).await {
                    node.note_directory(&partition, directory).await;
                }
            }
        }
    })
}

fn find_moving(node: &Node) -> Vec<Arc<Partition>> {
    let topics = node.topics.all();
    let partitions = topics.iter().flat_map(|topic| &topic.partitions);
    partitions.filter(|partition| partition.is_moving()).cloned().collect()
}

/// Copies one partition and returns the directory that it has moved to.
async fn move_one(node: &Arc<Node>, partition: &Arc<Partition>) -> Option<Uuid> {
    let mut pace = Pace { begun: Instant::now(), bytes: 0.0 };
    loop {
        let (mover, moved) = (Arc::clone(node), Arc::clone(partition));
        let step = tokio::task::spawn_blocking(move || step(&mover, &moved)).await.ok()?;
        match step {
            Step::Copied(bytes) => pace.keep(node, bytes).await,
            Step::Done => {
                let directory = partition.data_directory()?;
                return node.logs.manager().directory_id(&directory);
            }
            Step::Blocked => sleep(RETRY_AFTER).await,
            Step::Gone => return None,
        }
    }
}

fn step(node: &Node, partition: &Partition) -> Step {
    if node.is_stopping() {
        return Step::Gone;
    }
    let target = partition.copy_state().map(|copy| copy.directory);
    let room = target.map_or(Ok(()), |target| node.logs.reserve.check(&target.join("copy")));
    let stepped =
        room.map_err(AppendError::from).and_then(|()| partition.step(node.logs.manager()));
    match stepped {
        Ok(Step::Done) => {
            // The start of the log and where it was compacted to must not be forgotten.
            node.checkpoint_logs();
            node.store_cleaner_offsets();
            Step::Done
        }
        Ok(step) => step,
        Err(error) => {
            tracing::error!(
                partition = %partition.name(), %error,
                "cannot move the partition to another data directory; it stays where it is"
            );
            if let Err(error) = partition.cancel_move(node.logs.manager()) {
                tracing::warn!(partition = %partition.name(), %error, "its copy stays behind");
            }
            node.logs.disk_trouble.notify_one();
            Step::Gone
        }
    }
}

/// Keeps copies to the rate that the operator allows.
struct Pace {
    begun: Instant,
    bytes: f64,
}

impl Pace {
    async fn keep(&mut self, node: &Node, bytes: usize) {
        self.bytes += bytes as f64;
        loop {
            // Looked up again and again: operators change the rate while a move is under way.
            let (settings, image) = (node.settings(), node.image());
            let own_configs = image.broker_configs(settings.node.id);
            let cluster_configs = image.cluster_configs();
            let rate = settings.layers(&own_configs, &cluster_configs).value(RATE_KEY);
            let Some(rate) = rate.and_then(|rate| rate.as_integer()) else { return };
            let due = Duration::try_from_secs_f64(self.bytes / rate.max(1) as f64);
            let ahead = due.unwrap_or(Duration::MAX).saturating_sub(self.begun.elapsed());
            if ahead < REST_MIN {
                return;
            }
            sleep(ahead.min(REST_MAX)).await;
        }
    }
}

/// Why a partition is not moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MoveRefusal {
    /// It is no data directory of this broker.
    UnknownDirectory,
    /// The directory, or the one that the partition lies in, has failed.
    Offline,
    /// The directory takes no more partitions.
    Cordoned,
    /// There is no such partition; should it be created, the directory is remembered.
    UnknownPartition,
    /// The same, but the partition is about to be made here.
    NoReplica,
    /// The topic's name leaves no room for the name of a copy.
    NameTooLong,
}

impl Node {
    /// Has a partition moved to a data directory; blocks.
    pub(crate) fn move_partition(
        &self,
        name: TopicPartition,
        target: &Path,
    ) -> Result<(), MoveRefusal> {
        let manager = self.logs.manager();
        if !manager.can_move(&name) {
            return Err(MoveRefusal::NameTooLong);
        }
        if manager.directories().all(|directory| directory.path != target) {
            return Err(MoveRefusal::UnknownDirectory);
        }
        if manager.directory_id(target).is_none() {
            return Err(MoveRefusal::Offline);
        }
        if manager.is_cordoned(target) {
            return Err(MoveRefusal::Cordoned);
        }
        let topic = self.topics.by_name(&name.topic);
        let Some(partition) = topic.as_ref().and_then(|topic| topic.partition(name.partition))
        else {
            let image = self.image();
            let known = image.topics().by_name(&name.topic);
            let is_known = known.is_some_and(|known| known.partition(name.partition).is_some());
            self.logs.prefer_directory(name, target);
            return Err(match is_known {
                true => MoveRefusal::NoReplica,
                false => MoveRefusal::UnknownPartition,
            });
        };
        if partition.is_offline() {
            return Err(MoveRefusal::Offline);
        }
        let refused = |error: LogError| {
            tracing::warn!(partition = %partition.name(), %error, "cannot move the partition");
            MoveRefusal::Offline
        };
        if partition.copy_state().is_some_and(|copy| copy.directory == target) {
            return Ok(());
        }
        partition.cancel_move(manager).map_err(refused)?;
        if partition.data_directory().as_deref() == Some(target) {
            return Ok(());
        }
        partition.begin_move(manager, target).map_err(refused)?;
        self.logs.moves_asked.notify_one();
        Ok(())
    }

    /// Takes the partitions of data directories that have failed out of service; blocks.
    pub(crate) fn look_after_directories(&self) {
        let topics = self.topics.all();
        let partitions: Vec<_> = topics.iter().flat_map(|topic| &topic.partitions).collect();
        for directory in self.logs.manager().directories() {
            if self.logs.manager().check_directory(&directory.path) {
                continue;
            }
            for partition in &partitions {
                let grows_here =
                    partition.copy_state().is_some_and(|copy| copy.directory == directory.path);
                if partition.data_directory().as_ref() == Some(&directory.path) {
                    partition.go_offline();
                } else if grows_here {
                    *partition.future.lock() = None;
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "moving_tests.rs"]
mod tests;
