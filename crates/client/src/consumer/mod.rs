//! The consumer: reads partitions, alone or as a member of a group.
//!
//! - `state` knows where each partition stands and what has been fetched ahead of the application.
//! - `fetcher` is the task that finds positions and fetches, with incremental sessions.
//! - `membership` is the task that joins the group, sends heartbeats and commits, whatever the
//!   application is doing; [`Assignor`] divides partitions when this member leads the group.
//! - [`Records`] is what [`Consumer::poll`] gives: a run of records of one partition, borrowed from
//!   the fetched bytes; [`Consumer::next`] gives single records that own theirs.
//!
//! What the last poll gave counts as worked on when the next poll begins; that, and nothing
//! later, is what automatic commits say.

mod assignor;
mod fetcher;
mod fetching;
mod joining;
mod membership;
pub(crate) mod offsets;
mod protocol;
mod records;
mod session;
mod state;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleuve_types::TopicPartition;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::BoxFuture;
use crate::client::Client;
use crate::config::ConsumerConfig;
use crate::error::{Error, Result};

use state::State;

pub use assignor::{Assignor, Range, RoundRobin, Subscription};
pub use offsets::{Committed, EARLIEST, LATEST, LogOffset, MAX_TIMESTAMP};
pub(crate) use protocol::{decode_assignment, decode_subscription};
pub use records::{Headers, Iter, OwnedRecord, Record, Records};
pub use state::Start;

/// Is told when partitions come and go.
///
/// Partitions are not taken away while the application works on records of theirs: a rebalance
/// waits for the next poll, up to `max.poll.interval.ms`.
pub trait RebalanceListener: Send + Sync + 'static {
    /// Is called after partitions were given to this consumer.
    fn assigned<'a>(&'a self, partitions: &'a [TopicPartition]) -> BoxFuture<'a, ()> {
        let _ = partitions;
        Box::pin(std::future::ready(()))
    }

    /// Is called before partitions go to somebody else; offsets can still be committed.
    fn revoked<'a>(&'a self, partitions: &'a [TopicPartition]) -> BoxFuture<'a, ()> {
        let _ = partitions;
        Box::pin(std::future::ready(()))
    }

    /// Is called when partitions are gone already, because the group gave this member up.
    fn lost<'a>(&'a self, partitions: &'a [TopicPartition]) -> BoxFuture<'a, ()> {
        let _ = partitions;
        Box::pin(std::future::ready(()))
    }
}

/// Reads records.
///
/// ```no_run
/// # async fn example() -> fleuve_client::Result<()> {
/// use std::time::Duration;
/// use fleuve_client::{Client, ClientConfig, Consumer, ConsumerConfig};
///
/// let client = Client::connect(ClientConfig::new("localhost:9092")?).await?;
/// let config = ConsumerConfig { group_id: Some("readers".into()), ..ConsumerConfig::default() };
/// let consumer = Consumer::new(client, config)?;
/// consumer.subscribe(&["greetings"])?;
/// while let Some(records) = consumer.poll(Duration::from_secs(10)).await? {
///     for record in &records {
///         println!("{}: {:?}", record.offset, record.value);
///     }
/// }
/// consumer.close().await
/// # }
/// ```
pub struct Consumer {
    shared: Arc<Shared>,
    /// Records that [`Consumer::next`] has still to give.
    singly: tokio::sync::Mutex<Singly>,
}

#[derive(Default)]
struct Singly {
    records: Option<Records>,
    batch: VecDeque<OwnedRecord>,
    /// The record given last.
    given: Option<(TopicPartition, i64)>,
}

/// What a consumer and its tasks have in common.
struct Shared {
    client: Client,
    config: ConsumerConfig,
    assignors: Vec<Arc<dyn Assignor>>,
    listener: Mutex<Option<Arc<dyn RebalanceListener>>>,
    state: Mutex<State>,
    /// Wakes the fetcher.
    fetch_work: Notify,
    /// Wakes a waiting poll.
    ready: Notify,
    /// Wakes the membership task.
    group_work: Notify,
    /// Becomes true when the membership task has ended.
    left: tokio::sync::watch::Sender<bool>,
}

impl Consumer {
    /// Makes a consumer on `client`, which reads nothing until it has partitions.
    pub fn new(client: Client, config: ConsumerConfig) -> Result<Self> {
        let names = &config.assignment_strategy;
        let assignors = names.iter().map(|name| assignor::by_name(name)).collect::<Result<_>>()?;
        Self::with_assignors(client, config, assignors)
    }

    /// Makes a consumer with its own ways of dividing partitions, in order of preference.
    pub fn with_assignors(
        client: Client,
        config: ConsumerConfig,
        assignors: Vec<Arc<dyn Assignor>>,
    ) -> Result<Self> {
        if assignors.is_empty() {
            return Err(Error::config("partition.assignment.strategy is empty"));
        }
        if config.heartbeat_interval >= config.session_timeout {
            return Err(Error::config(
                "heartbeat.interval.ms must be less than session.timeout.ms",
            ));
        }
        let shared = Arc::new(Shared {
            client,
            config,
            assignors,
            listener: Mutex::default(),
            state: Mutex::new(State::new()),
            fetch_work: Notify::new(),
            ready: Notify::new(),
            group_work: Notify::new(),
            left: tokio::sync::watch::Sender::new(false),
        });
        tokio::spawn(fetcher::Fetcher::new(shared.clone()).run());
        tokio::spawn(membership::Membership::new(shared.clone()).run());
        Ok(Self { shared, singly: tokio::sync::Mutex::default() })
    }

    /// Reads exactly these partitions from these places, without a group deciding.
    pub fn assign(&self, partitions: &[(TopicPartition, Start)]) -> Result<()> {
        let mut state = self.shared.lock();
        if !state.subscription.is_empty() {
            return Err(Error::state("assign on a consumer that has subscribed"));
        }
        state.assigned_by_hand = true;
        let wanted: HashSet<_> = partitions.iter().map(|(partition, _)| partition).collect();
        let gone = state.partitions.keys().filter(|partition| !wanted.contains(partition));
        let gone = gone.cloned().collect();
        state.remove(&gone);
        for (partition, start) in partitions {
            if !state.partitions.contains_key(partition) {
                state.add(partition.clone(), *start);
            }
        }
        drop(state);
        self.shared.fetch_work.notify_one();
        self.shared.group_work.notify_one();
        Ok(())
    }

    /// Joins the group and reads the partitions of `topics` that it assigns.
    pub fn subscribe(&self, topics: &[&str]) -> Result<()> {
        if self.shared.config.group_id.is_none() {
            return Err(Error::config("subscribe needs group.id"));
        }
        let mut state = self.shared.lock();
        if state.assigned_by_hand {
            return Err(Error::state("subscribe on a consumer with assigned partitions"));
        }
        let mut topics: Vec<Arc<str>> = topics.iter().map(|&topic| topic.into()).collect();
        topics.sort_unstable();
        topics.dedup();
        state.subscription = topics.into();
        state.subscription_version += 1;
        drop(state);
        self.shared.group_work.notify_one();
        Ok(())
    }

    /// Sets who is told about rebalances; best done before subscribing.
    pub fn set_rebalance_listener(&self, listener: Arc<dyn RebalanceListener>) {
        let mut place = self.shared.listener.lock().unwrap_or_else(PoisonError::into_inner);
        *place = Some(listener);
    }

    /// Waits up to `timeout` for records and returns those of one partition, `None` if none came.
    ///
    /// Everything that earlier polls gave counts as worked on from here.
    pub async fn poll(&self, timeout: Duration) -> Result<Option<Records>> {
        let shared = &*self.shared;
        {
            let mut state = shared.lock();
            state.mark_processed();
            state.last_poll = Instant::now();
            state.polling = true;
            if std::mem::take(&mut state.lent) {
                // A rebalance may be waiting for the application to be done.
                shared.group_work.notify_one();
            }
        }
        let _polling = Polling { shared };
        let deadline = Instant::now() + timeout;
        loop {
            let ready = shared.ready.notified();
            {
                let mut state = shared.lock();
                if state.closing {
                    return Err(Error::state("poll on a closed consumer"));
                }
                if let Some(error) = state.errors.pop_front() {
                    return Err(error);
                }
                if let Some(records) = state.take_ready() {
                    state.lent = true;
                    shared.fetch_work.notify_one();
                    return Ok(Some(records));
                }
            }
            // `notify_one` leaves a permit, so nothing is missed between looking and waiting.
            if tokio::time::timeout_at(deadline, ready).await.is_err() {
                return Ok(None);
            }
        }
    }

    /// Waits up to `timeout` for the next record.
    ///
    /// A convenience that costs an allocation per batch; [`Consumer::poll`] costs none per record.
    pub async fn next(&self, timeout: Duration) -> Result<Option<OwnedRecord>> {
        let mut singly = self.singly.lock().await;
        loop {
            if let Some(record) = singly.batch.pop_front() {
                let partition = TopicPartition::new(record.topic.clone(), record.partition);
                singly.given = Some((partition, record.offset));
                return Ok(Some(record));
            }
            if let Some(batch) = singly.records.as_mut().and_then(Records::take_batch) {
                singly.batch = batch;
                continue;
            }
            singly.given = None;
            match self.poll(timeout).await? {
                Some(records) => singly.records = Some(records),
                None => return Ok(None),
            }
        }
    }

    /// Returns the partitions this consumer reads.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        let mut partitions: Vec<_> = self.shared.lock().partitions.keys().cloned().collect();
        partitions.sort_unstable();
        partitions
    }

    /// Returns the offset of the next record of a partition, once it is known.
    pub fn position(&self, partition: &TopicPartition) -> Option<i64> {
        let state = self.shared.lock();
        let assigned = state.partitions.get(partition)?;
        (assigned.position == state::Position::Known).then_some(assigned.consumed)
    }

    /// Returns how far a partition's readable records go, as the last answer told.
    pub fn high_watermark(&self, partition: &TopicPartition) -> Option<i64> {
        self.shared.lock().partitions.get(partition)?.high_watermark
    }

    /// Goes on reading a partition at `start`.
    pub fn seek(&self, partition: &TopicPartition, start: Start) -> Result<()> {
        self.shared.lock().seek(partition, start)?;
        self.shared.fetch_work.notify_one();
        Ok(())
    }

    /// Stops giving records of a partition, and keeps it.
    pub fn pause(&self, partition: &TopicPartition) -> Result<()> {
        self.shared.lock().pause(partition, true)
    }

    /// Gives records of a paused partition again.
    pub fn resume(&self, partition: &TopicPartition) -> Result<()> {
        self.shared.lock().pause(partition, false)?;
        self.shared.fetch_work.notify_one();
        self.shared.ready.notify_one();
        Ok(())
    }

    /// Commits the positions after everything that was given out, and waits for it.
    pub async fn commit(&self) -> Result<()> {
        self.mark_given();
        let offsets = self.shared.lock().uncommitted();
        self.shared.commit(offsets).await
    }

    /// Commits these offsets: for each partition the next one to be read.
    pub async fn commit_offsets(&self, offsets: HashMap<TopicPartition, i64>) -> Result<()> {
        self.shared.commit(offsets).await
    }

    /// Returns what the group has committed for these partitions.
    pub async fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<HashMap<TopicPartition, Committed>> {
        let group = self.shared.group()?;
        offsets::fetch_committed(&self.shared.client, group, Some(partitions), false).await
    }

    /// Commits if that is automatic, leaves the group and ends the tasks.
    pub async fn close(self) -> Result<()> {
        self.mark_given();
        self.begin_closing();
        let mut left = self.shared.left.subscribe();
        // An error would mean that the task has ended already.
        left.wait_for(|left| *left).await.ok();
        match self.shared.lock().errors.pop_front() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Counts everything that was given out as worked on, but not what [`Consumer::next`] still
    /// holds.
    fn mark_given(&self) {
        let mut state = self.shared.lock();
        state.mark_processed();
        // Whoever holds the lock is waiting in a poll, and then nothing is held back.
        if let Ok(singly) = self.singly.try_lock()
            && let Some((partition, offset)) = &singly.given
            && let Ok(assigned) = state.assigned_mut(partition)
        {
            assigned.processed = Some(offset + 1);
        }
    }

    fn begin_closing(&self) {
        self.shared.lock().closing = true;
        self.shared.fetch_work.notify_one();
        self.shared.group_work.notify_one();
        self.shared.ready.notify_one();
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // The tasks leave the group in the background.
        self.begin_closing();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // What is guarded is changed by whole entries, so a panic leaves it usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listener(&self) -> Option<Arc<dyn RebalanceListener>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn group(&self) -> Result<&str> {
        self.config
            .group_id
            .as_deref()
            .ok_or_else(|| Error::config("committed offsets need group.id"))
    }

    /// Keeps an error for the next poll; more than a few tell nothing new.
    fn report(&self, error: Error) {
        let mut state = self.lock();
        if state.errors.len() < ERRORS_KEPT {
            state.errors.push_back(error);
        }
        drop(state);
        self.ready.notify_one();
    }

    /// Returns the topics whose metadata matters.
    fn topic_names(&self) -> Vec<Arc<str>> {
        let state = self.lock();
        let assigned = state.partitions.keys().map(|partition| &partition.topic);
        let mut names: Vec<_> = assigned.chain(state.subscription.iter()).cloned().collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    async fn commit(&self, offsets: HashMap<TopicPartition, i64>) -> Result<()> {
        let member = self.lock().member.clone();
        let instance = self.config.group_instance_id.as_deref();
        offsets::commit(&self.client, self.group()?, &member, instance, &offsets).await?;
        let mut state = self.lock();
        for (partition, offset) in offsets {
            if let Ok(assigned) = state.assigned_mut(&partition) {
                assigned.committed = Some(offset);
            }
        }
        Ok(())
    }
}

/// Ends the time inside a poll, also when the application drops the future.
struct Polling<'a> {
    shared: &'a Shared,
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.polling = false;
        state.last_poll = Instant::now();
    }
}

/// How many errors wait for a poll at most.
const ERRORS_KEPT: usize = 16;
