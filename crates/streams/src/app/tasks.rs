//! The tasks of a stream thread: which of them run, which wait for their state, and the records they are given.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use fleuve_client::Consumer;
use fleuve_client::consumer::{OwnedRecord, Start};
use fleuve_types::TopicPartition;
use tokio::task::AbortHandle;

use super::bounded::Ends;
use super::layout::Layout;
use crate::error::ProcessingError;
use crate::query::Shelved;
use crate::record::Header;
use crate::runtime::{Lag, RawRecord, Task, TaskId};

/// The tasks of a thread.
pub(super) struct Tasks {
    /// The partitions of every task of the topology.
    partitions: BTreeMap<TaskId, Vec<TopicPartition>>,
    owner: HashMap<TopicPartition, TaskId>,
    tasks: BTreeMap<TaskId, Running>,
    /// Partitions with enough records waiting.
    paused: HashSet<TopicPartition>,
    restorations: u64,
    /// Where sources end, in a run that ends.
    ends: Option<Ends>,
}

enum Running {
    /// Its state is read. The number tells this restoration from an earlier one of the same task.
    Restoring {
        number: u64,
        work: Option<AbortHandle>,
    },
    Ready(Box<Task>),
}

impl Tasks {
    pub(super) fn new(
        partitions: BTreeMap<TaskId, Vec<TopicPartition>>,
        ends: Option<Ends>,
    ) -> Self {
        Self {
            owner: owners(&partitions),
            partitions,
            tasks: BTreeMap::new(),
            paused: HashSet::new(),
            restorations: 0,
            ends,
        }
    }

    /// Has the tasks read what they read now. Of those that run, this is only which partitions are theirs.
    pub(super) fn adopt(&mut self, layout: &Layout, now_ms: i64) {
        self.partitions.clone_from(&layout.tasks);
        self.owner = owners(&self.partitions);
        for task in self.ready_mut() {
            task.adopt(&layout.plan, now_ms);
        }
    }

    /// Forgets a partition whose topic is gone. If that is all a task reads, the task stays until it is closed.
    pub(super) fn forget(&mut self, partition: &TopicPartition) {
        let Some(id) = self.owner.get(partition).copied() else {
            return;
        };
        let reads_more = self.get_ready(id).is_none_or(|task| task.forget_topic(&partition.topic));
        if let Some(reads) =
            self.partitions.get_mut(&id).filter(|reads| reads_more && reads.len() > 1)
        {
            reads.retain(|read| read != partition);
            self.owner.remove(partition);
        }
        self.paused.remove(partition);
    }

    /// Those of the tasks that are not divided any more.
    pub(super) fn left_out(&self, layout: &Layout) -> Vec<TaskId> {
        self.tasks.keys().filter(|id| !layout.tasks.contains_key(id)).copied().collect()
    }

    /// What a task reads.
    pub(super) fn partitions(&self, id: TaskId) -> &[TopicPartition] {
        self.partitions.get(&id).map_or(&[], Vec::as_slice)
    }

    /// The tasks that read these partitions.
    pub(super) fn of(&self, partitions: &[TopicPartition]) -> Vec<TaskId> {
        let mut ids: Vec<TaskId> =
            partitions.iter().filter_map(|partition| self.owner.get(partition)).copied().collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    pub(super) fn contains(&self, id: TaskId) -> bool {
        self.tasks.contains_key(&id)
    }

    /// All tasks, and whether they run.
    pub(super) fn all(&self) -> impl Iterator<Item = (TaskId, bool)> {
        self.tasks.iter().map(|(id, running)| (*id, matches!(running, Running::Ready(_))))
    }

    /// The tasks that run.
    pub(super) fn ready_ids(&self) -> Vec<TaskId> {
        let ready = self.tasks.iter().filter(|(_, task)| matches!(task, Running::Ready(_)));
        ready.map(|(id, _)| *id).collect()
    }

    pub(super) fn ready(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values().filter_map(|running| match running {
            Running::Ready(task) => Some(&**task),
            Running::Restoring { .. } => None,
        })
    }

    pub(super) fn ready_mut(&mut self) -> impl Iterator<Item = &mut Task> {
        self.tasks.values_mut().filter_map(|running| match running {
            Running::Ready(task) => Some(&mut **task),
            Running::Restoring { .. } => None,
        })
    }

    pub(super) fn get_ready(&mut self, id: TaskId) -> Option<&mut Task> {
        match self.tasks.get_mut(&id)? {
            Running::Ready(task) => Some(task),
            Running::Restoring { .. } => None,
        }
    }

    /// Begins a task or begins it again: its partitions wait while its state is read, and are read from what was
    /// committed, as its state is. Returns the number under which the state is to be handed in.
    ///
    /// Positions have to go back even if the partitions have just been assigned: while a commit is under way the thread
    /// hears of no loss, and the task of before is given records of the assignment that follows it.
    pub(super) fn open(&mut self, id: TaskId, consumer: &Consumer) -> u64 {
        for partition in self.partitions(id) {
            // A partition that has gone already is told in a later event.
            let _ = consumer.pause(partition);
            let _ = consumer.seek(partition, Start::Committed);
        }
        self.close(id);
        self.restorations += 1;
        let number = self.restorations;
        self.tasks.insert(id, Running::Restoring { number, work: None });
        number
    }

    /// Reads partitions that tasks have got while they run: records that came before the thread heard of that have made
    /// them wait.
    pub(super) fn resume(&mut self, partitions: &[TopicPartition], consumer: &Consumer) {
        for partition in partitions {
            let id = self.owner.get(partition);
            let task = id.and_then(|id| self.tasks.get(id));
            if matches!(task, Some(Running::Ready(_))) && !self.paused.contains(partition) {
                // A partition that has gone already is told in a later event.
                let _ = consumer.resume(partition);
            }
        }
    }

    /// Notes who reads the state of a task, to be ended when the task is given up.
    pub(super) fn restored_by(&mut self, id: TaskId, reader: AbortHandle) {
        if let Some(Running::Restoring { work, .. }) = self.tasks.get_mut(&id) {
            *work = Some(reader);
        }
    }

    /// Takes a task whose state is read, unless it was given up meanwhile.
    pub(super) fn start(&mut self, number: u64, task: Task, consumer: &Consumer) {
        let id = task.id();
        if !self.awaits(id, number) {
            return;
        }
        self.tasks.insert(id, Running::Ready(Box::new(task)));
        for partition in self.partitions(id) {
            let _ = consumer.resume(partition);
        }
    }

    /// Whether the restoration of this number is still waited for.
    pub(super) fn awaits(&self, id: TaskId, wanted: u64) -> bool {
        matches!(self.tasks.get(&id), Some(Running::Restoring { number, .. }) if *number == wanted)
    }

    /// Gives a task up.
    pub(super) fn close(&mut self, id: TaskId) {
        if let Some(Running::Restoring { work: Some(work), .. }) = self.tasks.remove(&id) {
            work.abort();
        }
        if let Some(reads) = self.partitions.get(&id) {
            self.paused.retain(|partition| !reads.contains(partition));
        }
    }

    /// Gives all tasks up.
    pub(super) fn close_all(&mut self) {
        let ids: Vec<TaskId> = self.tasks.keys().copied().collect();
        for id in ids {
            self.close(id);
        }
    }

    /// Queues the records of one poll, which are of one partition.
    pub(super) fn queue(
        &mut self,
        partition: &TopicPartition,
        records: impl Iterator<Item = OwnedRecord>,
        consumer: &Consumer,
    ) {
        let task = self.owner.get(partition).and_then(|id| self.tasks.get_mut(id));
        let Some(Running::Ready(task)) = task else {
            // Fetched before the thread heard of the assignment, and to be fetched once more when the task is ready.
            if let Some(first) = records.into_iter().next() {
                let _ = consumer.seek(partition, Start::Offset(first.offset));
                let _ = consumer.pause(partition);
            }
            return;
        };
        let end = self.ends.as_ref().and_then(|ends| ends.get(partition)).copied();
        let Some(end) = end else {
            for record in records {
                task.add(record.into());
            }
            return;
        };
        for record in records.filter(|record| record.offset < end) {
            task.add(record.into());
        }
        if consumer.position(partition).is_some_and(|position| position >= end) {
            let _ = consumer.pause(partition);
        }
    }

    /// In a run that ends, counts what was read without a record in it as processed: otherwise the markers of
    /// transactions, and what compaction has removed, would keep a source from its end.
    pub(super) fn note_ends(&mut self, consumer: &Consumer) {
        let Some(ends) = self.ends.clone() else {
            return;
        };
        for task in self.ready_mut() {
            let number = task.id().partition;
            task.note_read(|topic| {
                let partition = TopicPartition::new(topic.clone(), number);
                let position = consumer.position(&partition)?;
                Some(ends.get(&partition).map_or(position, |end| position.min(*end)))
            });
        }
    }

    /// Stops fetching partitions whose records wait for those of others.
    pub(super) fn limit_queues(&mut self, consumer: &Consumer) {
        for (id, running) in &self.tasks {
            let Running::Ready(task) = running else {
                continue;
            };
            for (topic, length) in task.queue_lengths() {
                let partition = TopicPartition::new(topic.clone(), id.partition);
                // Pausing what has just been revoked fails, and does not matter.
                if length > QUEUE_MAX && self.paused.insert(partition.clone()) {
                    let _ = consumer.pause(&partition);
                } else if length < QUEUE_MAX / 2 && self.paused.remove(&partition) {
                    let _ = consumer.resume(&partition);
                }
            }
        }
    }

    /// Whether a task may process its next record now.
    pub(super) fn is_ready(
        &mut self,
        id: TaskId,
        idle_max_ms: Option<i64>,
        now_ms: i64,
        consumer: &Consumer,
    ) -> bool {
        let Some(Running::Ready(task)) = self.tasks.get_mut(&id) else {
            return false;
        };
        let reads = self.partitions.get(&id).map_or(&[][..], Vec::as_slice);
        task.is_ready(idle_max_ms, now_ms, |topic| lag(id, topic, reads, consumer))
    }

    /// Lets a task's event time go on that no record moves, if the program wants that. Returns whether time has passed.
    pub(super) fn pass_time(
        &mut self,
        id: TaskId,
        now_ms: i64,
        consumer: &Consumer,
    ) -> Result<bool, ProcessingError> {
        let Some(Running::Ready(task)) = self.tasks.get_mut(&id) else {
            return Ok(false);
        };
        // What is sent has to be committed with a position, which may be that of the tasks before.
        task.note_start(|topic| {
            consumer.position(&TopicPartition::new(topic.clone(), id.partition))
        });
        let reads = self.partitions.get(&id).map_or(&[][..], Vec::as_slice);
        // A broker that does not answer is not silence: time goes on as far as all have answered. In a run that ends, what
        // has been read to its end is not asked for any more.
        let answered_ago = reads.iter().filter_map(|partition| consumer.answered_ago(partition));
        let unheard = answered_ago.max().filter(|_| self.ends.is_none()).unwrap_or_default();
        let heard_ms = now_ms - i64::try_from(unheard.as_millis()).unwrap_or(0);
        task.pass_time(now_ms, heard_ms, |topic| {
            matches!(lag(id, topic, reads, consumer), Lag::NotRead | Lag::Known(0))
        })
    }

    /// Whether everything that was processed has been dealt with to the end. Otherwise that is pursued.
    pub(super) fn settle(&mut self, now_ms: i64) -> Result<bool, ProcessingError> {
        let mut settled = true;
        for task in self.ready_mut() {
            settled &= task.settle(now_ms)?;
        }
        Ok(settled)
    }

    /// The tasks with records under way.
    pub(super) fn unsettled_ids(&self) -> Vec<TaskId> {
        self.ready().filter(|task| !task.is_settled()).map(Task::id).collect()
    }

    /// Whether some task has a record that it may process.
    pub(super) fn is_busy(&self) -> bool {
        self.ready().any(|task| task.queued() > 0 && !task.holds())
    }

    /// Whether every task has records for another turn, so that more would only wait in its queues.
    pub(super) fn are_fed(&self) -> bool {
        self.ready().all(|task| task.queue_lengths().all(|(_, length)| length >= FED_MIN))
    }

    /// When a task has something to do by the time of day.
    pub(super) fn due_ms(&self) -> Option<i64> {
        self.ready().filter_map(Task::due_ms).min()
    }

    /// Bytes that wait for a commit before they go to disk.
    pub(super) fn uncommitted_bytes(&mut self) -> usize {
        self.ready_mut().map(Task::uncommitted_bytes).sum()
    }

    /// Bytes that caches hold, approximately.
    pub(super) fn cached_bytes(&self) -> usize {
        self.ready().map(Task::cached_bytes).sum()
    }
}

fn owners(partitions: &BTreeMap<TaskId, Vec<TopicPartition>>) -> HashMap<TopicPartition, TaskId> {
    let each = partitions.iter();
    each.flat_map(|(id, reads)| reads.iter().map(|partition| (partition.clone(), *id))).collect()
}

/// What the broker still has of a topic that a task reads.
fn lag(id: TaskId, topic: &Arc<str>, reads: &[TopicPartition], consumer: &Consumer) -> Lag {
    let partition = TopicPartition::new(topic.clone(), id.partition);
    if !reads.contains(&partition) {
        return Lag::NotRead;
    }
    match (consumer.high_watermark(&partition), consumer.position(&partition)) {
        (Some(end), Some(position)) => Lag::Known((end - position).max(0)),
        _ => Lag::Unknown,
    }
}

impl Shelved for Tasks {
    fn find(&mut self, id: TaskId) -> Option<&mut Task> {
        self.get_ready(id)
    }
}

/// Records of one partition that wait before it is no longer fetched.
const QUEUE_MAX: usize = 5_000;
/// Records of each partition for which nothing is asked of the consumer: as many as one turn takes. What it has fetched
/// ahead takes a third of the memory there.
const FED_MIN: usize = 500;

impl From<OwnedRecord> for RawRecord {
    fn from(record: OwnedRecord) -> Self {
        let headers = record.headers.into_iter().map(|(key, value)| Header { key, value });
        Self {
            topic: record.topic,
            partition: record.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key,
            value: record.value,
            headers: headers.collect(),
        }
    }
}
