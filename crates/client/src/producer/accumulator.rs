//! Takes records into batches, bounded by `buffer.memory`.
//!
//! One lock guards everything; it is held for the time of copying one record, and by the sender
//! while it picks batches, never while compressing or writing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use fleuve_protocol::records::{BatchBuilder, BatchOptions, Codec, NewRecord};
use fleuve_types::{TimestampMs, TopicPartition};
use tokio::time::Instant;

use super::batch::{Batch, Delivery, Outcome};
use super::deliveries::Deliveries;
use super::partitioner::{Partitioner, Sticky, partition_for_key};
use super::queue::{OpenBatch, Queue};
use super::record::Record;
use crate::cluster::TopicInfo;
use crate::config::ProducerConfig;
use crate::error::{Error, Result};
use crate::timing::now_ms;

/// What came of an attempt to take a record.
pub(super) enum Appended {
    /// It is in a batch.
    Done { delivery: Delivery, wake: Wake },
    /// The topic's partitions are not known.
    TopicUnknown,
    /// `buffer.memory` is used up.
    MemoryFull,
}

/// What the sender has to be told of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wake {
    /// That there is something to do now.
    Now,
    /// That there is something to do then, if nothing comes before.
    By(Instant),
    /// Nothing that it does not know.
    Never,
}

/// The buffered records of a producer.
pub(super) struct Accumulator {
    state: Mutex<State>,
    batch_size: usize,
    linger: Duration,
    buffer_memory: usize,
    max_request_size: usize,
    ignore_keys: bool,
    partitioner: Option<Arc<dyn Partitioner>>,
    adaptive: bool,
    /// How long a leader may take nothing before records without a key go elsewhere; zero is for ever.
    availability_timeout: Duration,
    codec: Codec,
    transactional: bool,
}

/// Names a partition's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueId {
    topic: usize,
    partition: usize,
}

/// What the lock guards.
#[derive(Default)]
pub(super) struct State {
    topics: Vec<Topic>,
    by_name: HashMap<Arc<str>, usize>,
    /// The topic of the last record.
    last_topic: usize,
    /// Queues that have something to send.
    pub(super) listed: VecDeque<QueueId>,
    memory_used: usize,
    pub(super) closed: bool,
    /// When the sender looks at the queues again, whatever happens before.
    pub(super) sender_looks_at: Option<Instant>,
    /// Whether it has all it needs to send, and so nothing to do before a linger is over.
    pub(super) sender_is_ready: bool,
    /// Builders with the memory of their codecs.
    #[expect(clippy::vec_box, reason = "builders move into batches and back by their pointer")]
    free_builders: Vec<Box<BatchBuilder>>,
    /// The memory of batches that are done.
    free_buffers: Vec<BytesMut>,
}

struct Topic {
    name: Arc<str>,
    queues: Vec<Queue>,
    sticky: Sticky,
}

/// Builders and buffers kept for the next batches, enough for those of a few requests.
const FREE_MAX: usize = 64;

/// Records that one caller appends before the sender gets the lock.
const LOCKED_MAX: usize = 256;

/// The part of `buffer.memory` that is much.
const MUCH_ROOM: usize = 16;

impl Accumulator {
    pub(super) fn new(config: &ProducerConfig) -> Self {
        Self {
            state: Mutex::default(),
            batch_size: config.batch_size,
            linger: config.linger,
            buffer_memory: config.buffer_memory,
            max_request_size: config.max_request_size,
            ignore_keys: config.ignore_keys,
            partitioner: config.partitioner.clone(),
            adaptive: config.adaptive_partitioning,
            availability_timeout: config.partition_availability_timeout,
            codec: config.codec,
            transactional: config.transactional_id.is_some(),
        }
    }

    /// Puts a record into the open batch of its partition, if there is room.
    pub(super) fn append(&self, record: &Record<'_>, timestamp: i64) -> Result<Appended> {
        self.append_to(&mut self.lock(), record, timestamp)
    }

    /// Appends records in their order until one meets an obstacle, and notes the batches in `deliveries`. Returns how
    /// many it took, the obstacle of the next, and when to wake the sender.
    pub(super) fn append_all(
        &self,
        records: &[Record<'_>],
        deliveries: &mut Deliveries,
    ) -> Result<(usize, Option<Appended>, Wake)> {
        let mut first_wake = Wake::Never;
        let mut state = self.lock();
        let count = records.len().min(LOCKED_MAX);
        for (index, record) in records[..count].iter().enumerate() {
            let timestamp = record.timestamp.unwrap_or_else(now_ms);
            match self.append_to(&mut state, record, timestamp)? {
                Appended::Done { delivery, wake } => {
                    first_wake = first_wake.min(wake);
                    deliveries.add(delivery);
                }
                obstacle => return Ok((index, Some(obstacle), first_wake)),
            }
        }
        Ok((count, None, first_wake))
    }

    fn append_to(
        &self,
        state: &mut State,
        record: &Record<'_>,
        timestamp: i64,
    ) -> Result<Appended> {
        let size = record.size_bound();
        self.check_size(record, size)?;
        if state.closed {
            return Err(Error::state("send on a closed producer"));
        }
        let Some(topic_index) = state.topic_index(record.topic) else {
            return Ok(Appended::TopicUnknown);
        };
        if self.exceeds_memory(state, size) {
            return Ok(Appended::MemoryFull);
        }
        let topic = &mut state.topics[topic_index];
        let partition = self.choose_partition(topic, record, size)?;
        let queue = &mut topic.queues[partition];

        let mut wake = Wake::Never;
        if let Some(open) = &queue.open
            && open.builder.estimated_size() + size > self.batch_size
        {
            queue.close_open();
            if !queue.attended {
                wake = Wake::Now;
            }
        }
        let open = match &mut queue.open {
            Some(open) => open,
            None => {
                let created = Instant::now();
                let at = created + self.linger;
                if !queue.attended && state.sender_looks_at.is_none_or(|looks_at| looks_at > at) {
                    if state.sender_is_ready && !self.linger.is_zero() {
                        wake = wake.min(Wake::By(at));
                        state.sender_looks_at = Some(at);
                    } else {
                        wake = Wake::Now;
                    }
                }
                let builder = state.free_builders.pop();
                let builder = builder.unwrap_or_else(|| self.new_builder(state.free_buffers.pop()));
                state.memory_used += builder.size();
                let outcome = Outcome::new(queue.partition.clone());
                queue.open.insert(OpenBatch { builder, outcome, created })
            }
        };
        let before = open.builder.size();
        let new_record = NewRecord {
            timestamp: TimestampMs(timestamp),
            key: record.key,
            value: record.value,
            headers: record.headers,
        };
        let delivery = Delivery::new(open.outcome.clone(), open.builder.count());
        open.builder.append(&new_record).map_err(|_| Error::RecordTooLarge {
            topic: record.topic.to_owned(),
            size,
            limit: self.max_request_size,
            limit_name: "max.request.size",
        })?;
        state.memory_used += open.builder.size() - before;
        if !queue.listed {
            queue.listed = true;
            state.listed.push_back(QueueId { topic: topic_index, partition });
        }
        Ok(Appended::Done { delivery, wake })
    }

    /// Returns the bytes that count against `buffer.memory`.
    pub(super) fn memory_used(&self) -> usize {
        self.lock().memory_used
    }

    /// Reports whether so much memory is free that it is worth waking those who wait for some.
    ///
    /// A thread that is woken for each answer fills in the records of that and sleeps again, which
    /// costs more than the records.
    pub(super) fn has_much_room(&self, state: &State) -> bool {
        state.memory_used <= self.buffer_memory - self.buffer_memory / MUCH_ROOM
    }

    /// Reports whether `record` would still not fit.
    pub(super) fn is_full_for(&self, record: &Record<'_>) -> bool {
        self.exceeds_memory(&self.lock(), record.size_bound())
    }

    /// Makes a topic's partitions known; they may have become more.
    pub(super) fn learn_topic(&self, info: &TopicInfo) {
        let mut state = self.lock();
        let index = match state.by_name.get(&info.name) {
            Some(&index) => index,
            None => {
                let index = state.topics.len();
                state.by_name.insert(info.name.clone(), index);
                state.topics.push(Topic {
                    name: info.name.clone(),
                    queues: Vec::new(),
                    sticky: Sticky::new(self.batch_size),
                });
                index
            }
        };
        let topic = &mut state.topics[index];
        for partition in topic.queues.len()..info.partitions.len() {
            let partition = TopicPartition::new(info.name.clone(), partition as i32);
            topic.queues.push(Queue::new(partition));
        }
        for (queue, partition) in topic.queues.iter_mut().zip(&info.partitions) {
            queue.has_leader = partition.leader.is_some();
        }
    }

    /// Returns the names of all topics that records were sent to.
    pub(super) fn topic_names(&self) -> Vec<Arc<str>> {
        self.lock().topics.iter().map(|topic| topic.name.clone()).collect()
    }

    /// Closes all open batches and returns the outcomes of everything that is not done.
    pub(super) fn close_open_batches(&self) -> Vec<Arc<Outcome>> {
        let mut state = self.lock();
        let mut outcomes = Vec::new();
        for queue in state.topics.iter_mut().flat_map(|topic| &mut topic.queues) {
            queue.close_open();
            outcomes.extend(queue.outcomes().cloned());
        }
        outcomes
    }

    /// Refuses records from now on.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in between leaves whole batches: they are moved, never half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_size(&self, record: &Record<'_>, size: usize) -> Result<()> {
        let (limit, limit_name) = if self.max_request_size <= self.buffer_memory {
            (self.max_request_size, "max.request.size")
        } else {
            (self.buffer_memory, "buffer.memory")
        };
        if size > limit {
            let topic = record.topic.to_owned();
            return Err(Error::RecordTooLarge { topic, size, limit, limit_name });
        }
        Ok(())
    }

    fn exceeds_memory(&self, state: &State, size: usize) -> bool {
        state.memory_used > 0 && state.memory_used + size > self.buffer_memory
    }

    fn choose_partition(
        &self,
        topic: &mut Topic,
        record: &Record<'_>,
        size: usize,
    ) -> Result<usize> {
        let count = topic.queues.len();
        let partition = record.partition.or_else(|| {
            let partitioner = self.partitioner.as_ref()?;
            partitioner.partition(record, count)
        });
        match (partition, record.key) {
            (Some(partition), _) => {
                usize::try_from(partition).ok().filter(|&index| index < count).ok_or_else(|| {
                    Error::NoSuchPartition { topic: topic.name.to_string(), partition, count }
                })
            }
            (None, Some(key)) if !self.ignore_keys => Ok(partition_for_key(key, count)),
            (None, _) => {
                let Topic { queues, sticky, .. } = topic;
                Ok(sticky.next(size, count, |partition| match self.adaptive {
                    true => queues[partition].load(self.availability_timeout),
                    false => Some(0),
                }))
            }
        }
    }

    fn new_builder(&self, buffer: Option<BytesMut>) -> Box<BatchBuilder> {
        let options = BatchOptions {
            codec: self.codec,
            transactional: self.transactional,
            ..BatchOptions::default()
        };
        let buffer = buffer.unwrap_or_else(|| BytesMut::with_capacity(self.batch_size));
        Box::new(BatchBuilder::with_buffer(options, buffer))
    }
}

impl State {
    fn topic_index(&mut self, name: &str) -> Option<usize> {
        // Mostly the topic of the record before: comparing names costs less than hashing one.
        if let Some(topic) = self.topics.get(self.last_topic)
            && *topic.name == *name
        {
            return Some(self.last_topic);
        }
        self.last_topic = *self.by_name.get(name)?;
        Some(self.last_topic)
    }

    pub(super) fn queue(&mut self, id: QueueId) -> &mut Queue {
        &mut self.topics[id.topic].queues[id.partition]
    }

    /// Puts a queue back on the list, if it has something to send and is not on it.
    pub(super) fn list(&mut self, id: QueueId) {
        let queue = self.queue(id);
        if !queue.listed && !queue.is_idle() {
            queue.listed = true;
            self.listed.push_back(id);
        }
    }

    /// Gives back the memory of a batch that is done.
    pub(super) fn release(&mut self, batch: &Batch) {
        self.memory_used = self.memory_used.saturating_sub(batch.memory);
    }

    /// Keeps the memory of a batch that is done for the next one: it is warm, and need not be
    /// asked of the allocator.
    pub(super) fn recycle_batch(&mut self, batch: Batch) {
        if self.free_buffers.len() < FREE_MAX {
            self.free_buffers.extend(batch.into_buffer());
        }
    }

    /// Keeps a builder for the next batch.
    pub(super) fn recycle(&mut self, builder: Box<BatchBuilder>) {
        if self.free_builders.len() < FREE_MAX {
            self.free_builders.push(builder);
        }
    }
}
