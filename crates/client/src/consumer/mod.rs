//! The consumer: reads partitions, alone or as a member of a group.
//!
//! - `state` knows where each partition stands and what has been fetched ahead of the application.
//! - `fetcher` is the task that finds positions and fetches, with incremental sessions; `appetite`
//!   says how much at a time.
//! - `membership` is the task that joins the group, sends heartbeats and commits, whatever the
//!   application is doing. `joining` speaks the classic protocol, where [`Assignor`] divides
//!   partitions when this member leads the group; `reconciling` the one of KIP-848.
//! - [`Records`] is what [`Consumer::poll`] gives: a run of records of one partition, borrowed from
//!   the fetched bytes; [`Consumer::next`] gives single records that own theirs.
//!
//! What the last poll gave counts as worked on when the next poll begins; that, and nothing
//! later, is what automatic commits say.

mod appetite;
mod assignor;
mod committing;
mod fetcher;
mod fetching;
mod joining;
mod membership;
mod metrics;
pub(crate) mod offsets;
mod protocol;
mod reconciling;
mod records;
mod session;
mod singly;
mod state;
mod stream;
mod streams;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleuve_types::TopicPartition;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::field;

use crate::BoxFuture;
use crate::client::{Client, OwnLanes};
use crate::cluster::Cluster;
use crate::config::{ConsumerConfig, GroupProtocol};
use crate::error::{Error, Result};
use crate::metrics::{Measured, Metric, telemetry};

use singly::Singly;
use state::{Pattern, State};

pub use assignor::{
    Assigned, Assignor, CooperativeSticky, Range, RebalanceProtocol, RoundRobin, Sticky,
    Subscription,
};
pub use offsets::{Committed, EARLIEST, LATEST, LogOffset, MAX_TIMESTAMP};
pub(crate) use protocol::{decode_assignment, decode_subscription};
pub use records::{Headers, Iter, OwnedRecord, Record, Records, TimestampType};
pub use state::Start;
pub use stream::RecordStream;
pub use streams::{
    StreamsMember, StreamsStatus, StreamsStatusKind, StreamsSubtopology, StreamsTask, StreamsTasks,
    StreamsTopic,
};

/// Is told when partitions come and go.
///
/// Partitions are not taken away while the application works on records of theirs: a rebalance
/// waits for the next poll, up to `max.poll.interval.ms`. From then on polls give no records of
/// them, also while the listener is called; those that stay are read on.
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

    /// Is called when a member of a stream application is to keep other standby or warm-up tasks.
    fn standbys<'a>(&'a self, tasks: &'a StreamsTasks) -> BoxFuture<'a, ()> {
        let _ = tasks;
        Box::pin(std::future::ready(()))
    }

    /// Is called when the group has something else to say to a member of a stream application than
    /// before.
    fn told(&self, statuses: &[StreamsStatus]) {
        let _ = statuses;
    }
}

/// Who a consumer is in its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadata {
    /// `group.id`.
    pub group_id: String,
    /// The member's id; empty outside the group.
    pub member_id: String,
    /// The group's generation, or the member's epoch; -1 outside the group.
    pub generation: i32,
    /// `group.instance.id`.
    pub instance_id: Option<String>,
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

/// What a consumer and its tasks have in common.
struct Shared {
    client: Client,
    lanes: Arc<OwnLanes>,
    config: ConsumerConfig,
    assignors: Vec<Arc<dyn Assignor>>,
    /// A member of a stream application, whose group gives it tasks.
    streams: Option<StreamsMember>,
    listener: Mutex<Option<Arc<dyn RebalanceListener>>>,
    state: Mutex<State>,
    /// Wakes the fetcher.
    fetch_work: Notify,
    /// Wakes a waiting poll.
    ready: Notify,
    /// Wakes the membership task.
    group_work: Notify,
    counters: metrics::Counters,
    /// Held during a commit, so that commits take effect in the order they were asked for.
    committing: Arc<tokio::sync::Mutex<()>>,
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
        Self::make(client, config, assignors, None)
    }

    /// Makes a member of a stream application's group (KIP-1071), which reads what its tasks read
    /// once it has subscribed to the application's topics.
    pub fn for_streams(
        client: Client,
        mut config: ConsumerConfig,
        member: StreamsMember,
    ) -> Result<Self> {
        // Members change over one by one, as in the group protocol of consumers.
        config.group_protocol = GroupProtocol::Consumer;
        Self::make(client, config, vec![Arc::new(Range)], Some(member))
    }

    fn make(
        client: Client,
        config: ConsumerConfig,
        assignors: Vec<Arc<dyn Assignor>>,
        streams: Option<StreamsMember>,
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
            lanes: Arc::new(OwnLanes::new(client.clone())),
            client,
            config,
            assignors,
            streams,
            listener: Mutex::default(),
            state: Mutex::new(State::new()),
            fetch_work: Notify::new(),
            ready: Notify::new(),
            group_work: Notify::new(),
            counters: metrics::Counters::default(),
            committing: Arc::default(),
            left: tokio::sync::watch::Sender::new(false),
        });
        tokio::spawn(fetcher::Fetcher::new(shared.clone()).run());
        tokio::spawn(membership::Membership::new(shared.clone()).run());
        if shared.client.config().metrics_push {
            let measured: Arc<dyn Measured> = shared.clone();
            let source = Arc::downgrade(&measured);
            tokio::spawn(telemetry::run(shared.client.clone(), source, shared.left.subscribe()));
        }
        Ok(Self { shared, singly: tokio::sync::Mutex::default() })
    }

    /// Reads exactly these partitions from these places, without a group deciding.
    pub fn assign(&self, partitions: &[(TopicPartition, Start)]) -> Result<()> {
        let mut state = self.shared.lock();
        if state.is_subscribed() {
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
        let mut topics: Vec<Arc<str>> = topics.iter().map(|&topic| topic.into()).collect();
        topics.sort_unstable();
        topics.dedup();
        self.change_subscription(|state| {
            state.subscription = topics.into();
            state.pattern = None;
        })
    }

    /// Joins the group and reads the partitions it assigns of all topics whose whole name matches
    /// the regular expression, also of those created later.
    ///
    /// With `group.protocol=consumer` the broker matches, by RE2's rules; otherwise this client
    /// does, by those of the `regex` crate, whenever metadata is refreshed.
    pub fn subscribe_pattern(&self, pattern: &str) -> Result<()> {
        let anchored = regex::Regex::new(&format!("^(?:{pattern})$"));
        let regex = anchored
            .map_err(|error| Error::config(format!("subscription pattern {pattern}: {error}")))?;
        self.change_subscription(|state| {
            state.subscription = Arc::new([]);
            state.pattern = Some(Arc::new(Pattern { text: pattern.to_owned(), regex }));
        })?;
        self.shared.fetch_work.notify_one();
        Ok(())
    }

    /// Leaves the group, and reads nothing until the next subscription.
    pub fn unsubscribe(&self) -> Result<()> {
        self.change_subscription(|state| {
            state.subscription = Arc::new([]);
            state.pattern = None;
        })
    }

    /// Joins the group once more, because this member's assignor has news for the leader's. With the classic protocol
    /// the group divides anew if what members tell has changed; with the others the broker decides about that.
    pub fn enforce_rebalance(&self) -> Result<()> {
        self.change_subscription(|_| {})
    }

    fn change_subscription(&self, change: impl FnOnce(&mut State)) -> Result<()> {
        if self.shared.config.group_id.is_none() {
            return Err(Error::config("subscribe needs group.id"));
        }
        let mut state = self.shared.lock();
        if state.assigned_by_hand {
            return Err(Error::state("subscribe on a consumer with assigned partitions"));
        }
        change(&mut state);
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
    /// Everything that earlier polls gave counts as worked on from here. Partitions take turns. The
    /// records are borrowed from the bytes that were fetched; iterating them allocates nothing.
    ///
    /// An error is told once: after one that advises a retry, poll again. Dropping the future loses
    /// no records.
    ///
    /// ```no_run
    /// # async fn example(consumer: fleuve_client::Consumer) -> fleuve_client::Result<()> {
    /// use std::time::Duration;
    ///
    /// let mut bytes = 0;
    /// while let Some(records) = consumer.poll(Duration::from_secs(1)).await? {
    ///     for record in &records {
    ///         bytes += record.value.map_or(0, <[u8]>::len);
    ///     }
    ///     println!("{} has brought {bytes} bytes", records.partition());
    ///     consumer.commit().await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn poll(&self, timeout: Duration) -> Result<Option<Records>> {
        let shared = &*self.shared;
        // Not entered: what else the task does while this waits is none of its business.
        let span = tracing::debug_span!(
            "poll",
            topic = field::Empty,
            partition = field::Empty,
            records = field::Empty
        );
        {
            let mut state = shared.lock();
            state.mark_processed();
            state.last_poll = Instant::now();
            state.polling = true;
            state.lent = None;
            state.forfeited = false;
            if std::mem::take(&mut state.poll_awaited) {
                shared.group_work.notify_one();
            }
        }
        let _polling = Polling { shared };
        let deadline = Instant::now() + timeout;
        loop {
            let ready = shared.ready.notified();
            let (records, room_awaited) = {
                let mut state = shared.lock();
                if state.closing {
                    return Err(Error::state("poll on a closed consumer"));
                }
                if let Some(error) = state.errors.pop_front() {
                    return Err(error);
                }
                let records = state.take_ready();
                state.lent = records.as_ref().map(|records| records.partition().clone());
                (records, std::mem::take(&mut state.room_awaited))
            };
            // There is room, too, if nothing is left to be taken.
            if room_awaited {
                shared.fetch_work.notify_one();
            }
            if let Some(records) = records {
                span.record("topic", &*records.partition().topic);
                span.record("partition", records.partition().partition);
                span.record("records", records.count());
                shared.counters.polled(&records);
                for interceptor in shared.config.interceptors.iter() {
                    interceptor.on_consume(&records);
                }
                return Ok(Some(records));
            }
            // `notify_one` leaves a permit, so nothing is missed between looking and waiting.
            if tokio::time::timeout_at(deadline, ready).await.is_err() {
                return Ok(None);
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
        let known =
            matches!(assigned.position, state::Position::Known | state::Position::Unchecked);
        known.then_some(assigned.consumed.offset)
    }

    /// Returns how far a partition's readable records go, as the last answer told.
    pub fn high_watermark(&self, partition: &TopicPartition) -> Option<i64> {
        self.shared.lock().partitions.get(partition)?.high_watermark
    }

    /// Returns how long ago a broker last answered what a partition has from where this consumer is; `None` before the
    /// first answer. Requests wait at most `fetch.max.wait.ms` for records: what is much older is no silence, but the
    /// broker's absence.
    pub fn answered_ago(&self, partition: &TopicPartition) -> Option<Duration> {
        let state = self.shared.lock();
        Some(state.partitions.get(partition)?.answered?.elapsed())
    }

    /// Returns the replica that the leader has sent this consumer to, as nearer to its
    /// `client.rack` (KIP-392); `None` while it reads from the leader.
    pub fn preferred_read_replica(&self, partition: &TopicPartition) -> Option<i32> {
        let state = self.shared.lock();
        let (replica, until) = state.partitions.get(partition)?.preferred?;
        (until > Instant::now()).then_some(replica)
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

    /// Returns what was counted, under the names of Kafka's consumer.
    pub fn metrics(&self) -> Vec<Metric> {
        self.shared.metrics()
    }

    /// Returns who this consumer is in its group: what a transactional producer needs to commit
    /// offsets for it.
    pub fn group_metadata(&self) -> Result<GroupMetadata> {
        let state = self.shared.lock();
        Ok(GroupMetadata {
            group_id: self.shared.group()?.to_owned(),
            member_id: state.member.id.clone(),
            generation: state.member.generation,
            instance_id: self.shared.config.group_instance_id.clone(),
        })
    }

    /// Reports whether this consumer is on its way into the next generation of its group.
    ///
    /// The group may be there already, and then refuses what [`Self::group_metadata`] says until the join is answered.
    /// Whoever commits offsets in a transaction rather waits: a refused commit costs the transaction.
    pub fn is_joining(&self) -> bool {
        self.shared.lock().joining
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

    /// Reports whether this client matches topics with the subscription's pattern.
    fn matches_topics(&self) -> bool {
        self.config.group_protocol == GroupProtocol::Classic && self.lock().pattern.is_some()
    }

    fn match_topics(&self, cluster: &Cluster) {
        let internal = !self.config.exclude_internal_topics;
        let topics = cluster.topics();
        let names = topics.iter().filter(|topic| internal || !topic.is_internal);
        self.lock().match_topics(names.map(|topic| topic.name.clone()));
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
