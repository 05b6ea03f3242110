//! The share consumer (KIP-932): members of a share group take records from the same partitions,
//! and say of each what became of it.
//!
//! - `state` knows what is in the application's hands and what is to be said about it.
//! - `fetcher` is the task that acquires records and delivers acknowledgements, one request at a
//!   time to each broker, because both advance the same session (`session`).
//! - `membership` is the task that joins the group and sends heartbeats.
//!
//! ```text
//!              poll                    acknowledge                poll, commit
//!   acquired ────────▶ in hand (open) ─────────────▶ in hand (said) ──────────▶ outgoing ──▶ told
//!                          ▲  implicit: the next poll or commit accepts            │
//!                          └───────────────── renewed ◀────────────────────────────┘
//! ```
//!
//! A record that nobody acknowledges in time, `share.record.lock.duration.ms` of the group, goes to
//! somebody else.

mod fetcher;
mod membership;
mod records;
mod session;
mod state;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleuve_types::TopicPartition;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::client::Client;
use crate::config::{AcknowledgementMode, ShareConsumerConfig};
use crate::error::{Error, Result};

use state::State;

pub use records::{ShareRecord, ShareRecords};
pub use state::Acknowledge;

/// What became of acknowledgements, by partition.
pub type Acknowledged = HashMap<TopicPartition, Result<()>>;

/// Is told what became of acknowledgements: the partition, the offsets (first and last of each
/// run), and whether the broker took them.
pub type AcknowledgementCallback =
    Arc<dyn Fn(&TopicPartition, &[(i64, i64)], &Result<()>) + Send + Sync>;

/// Reads records as a member of a share group.
///
/// ```no_run
/// # async fn example() -> fleuve_client::Result<()> {
/// use std::time::Duration;
/// use fleuve_client::config::{AcknowledgementMode, ShareConsumerConfig};
/// use fleuve_client::share::Acknowledge;
/// use fleuve_client::{Client, ClientConfig, ShareConsumer};
///
/// let client = Client::connect(ClientConfig::new("localhost:9092")?).await?;
/// let config = ShareConsumerConfig {
///     acknowledgement_mode: AcknowledgementMode::Explicit,
///     ..ShareConsumerConfig::new("workers")
/// };
/// let consumer = ShareConsumer::new(client, config)?;
/// consumer.subscribe(&["jobs"])?;
/// while let Some(records) = consumer.poll(Duration::from_secs(10)).await? {
///     for record in &records {
///         // Somebody else may have better luck with it.
///         let verdict = if record.value.is_some() { Acknowledge::Accept } else { Acknowledge::Release };
///         consumer.acknowledge(records.partition(), record.offset.0, verdict)?;
///     }
/// }
/// consumer.close().await
/// # }
/// ```
pub struct ShareConsumer {
    shared: Arc<Shared>,
}

/// What a share consumer and its tasks have in common.
struct Shared {
    client: Client,
    config: ShareConsumerConfig,
    state: Mutex<State>,
    callback: Mutex<Option<AcknowledgementCallback>>,
    /// Wakes the fetcher.
    fetch_work: Notify,
    /// Wakes a waiting poll.
    ready: Notify,
    /// Wakes the membership task.
    group_work: Notify,
    /// Becomes true when the fetcher has said everything at the end.
    fetcher_ended: tokio::sync::watch::Sender<bool>,
    /// Becomes true when the member has left.
    left: tokio::sync::watch::Sender<bool>,
}

impl ShareConsumer {
    /// Makes a share consumer on `client`, which reads nothing until it subscribes.
    pub fn new(client: Client, config: ShareConsumerConfig) -> Result<Self> {
        if config.group_id.is_empty() {
            return Err(Error::config("a share consumer needs group.id"));
        }
        let shared = Arc::new(Shared {
            client,
            config,
            state: Mutex::new(State::new()),
            callback: Mutex::default(),
            fetch_work: Notify::new(),
            ready: Notify::new(),
            group_work: Notify::new(),
            fetcher_ended: tokio::sync::watch::Sender::new(false),
            left: tokio::sync::watch::Sender::new(false),
        });
        tokio::spawn(fetcher::Fetcher::new(shared.clone()).run());
        tokio::spawn(membership::Membership::new(shared.clone()).run());
        Ok(Self { shared })
    }

    /// Joins the group and reads what it assigns of `topics`.
    pub fn subscribe(&self, topics: &[&str]) -> Result<()> {
        let mut names: Vec<Arc<str>> = topics.iter().map(|&topic| topic.into()).collect();
        names.sort_unstable();
        names.dedup();
        let mut state = self.shared.lock();
        state.check_open("subscribe")?;
        state.subscription = names.into();
        state.subscription_version += 1;
        drop(state);
        self.shared.group_work.notify_one();
        Ok(())
    }

    /// Leaves the group, and reads nothing until the next subscription.
    pub fn unsubscribe(&self) -> Result<()> {
        self.subscribe(&[])
    }

    /// Returns the topics subscribed to.
    pub fn subscription(&self) -> Vec<Arc<str>> {
        self.shared.lock().subscription.to_vec()
    }

    /// Sets who is told what became of acknowledgements; it runs on the consumer's task and must
    /// not wait for anything.
    pub fn set_acknowledgement_callback(&self, callback: AcknowledgementCallback) {
        *self.shared.callback.lock().unwrap_or_else(PoisonError::into_inner) = Some(callback);
    }

    /// Waits up to `timeout` for records and returns those of one partition, `None` if none came.
    ///
    /// With implicit acknowledgement everything that earlier polls gave is accepted. With explicit
    /// acknowledgement it must all have been acknowledged, or the call is an error.
    pub async fn poll(&self, timeout: Duration) -> Result<Option<ShareRecords>> {
        let shared = &*self.shared;
        {
            let mut state = shared.lock();
            state.check_open("poll")?;
            self.settle_hands(&mut state)?;
            state.last_poll = Instant::now();
            state.polling = true;
        }
        let _polling = Polling { shared };
        shared.group_work.notify_one();
        let deadline = Instant::now() + timeout;
        loop {
            let ready = shared.ready.notified();
            {
                let mut state = shared.lock();
                state.check_open("poll")?;
                if let Some(error) = state.errors.pop_front() {
                    return Err(error);
                }
                if let Some(records) = state.hand_out() {
                    drop(state);
                    shared.fetch_work.notify_one();
                    return Ok(Some(records));
                }
            }
            shared.fetch_work.notify_one();
            // `notify_one` leaves a permit, so nothing is missed between looking and waiting.
            if tokio::time::timeout_at(deadline, ready).await.is_err() {
                return Ok(None);
            }
        }
    }

    /// Says what became of a record that a poll gave, with explicit acknowledgement.
    ///
    /// It is told to the broker by the next poll or commit, and may be changed until then.
    pub fn acknowledge(
        &self,
        partition: &TopicPartition,
        offset: i64,
        verdict: Acknowledge,
    ) -> Result<()> {
        if self.shared.config.acknowledgement_mode == AcknowledgementMode::Implicit {
            return Err(Error::state(
                "acknowledge with share.acknowledgement.mode=implicit, where the next poll accepts",
            ));
        }
        self.shared.lock().say(partition, offset, verdict)
    }

    /// Tells brokers all acknowledgements and waits until they have taken or refused them; implicit
    /// acknowledgement accepts what the last poll gave.
    ///
    /// The map holds every partition that something was said about.
    pub async fn commit(&self) -> Result<Acknowledged> {
        let mut told = self.begin_commit()?;
        let mut results = Acknowledged::new();
        while let Some((partition, result)) = told.recv().await {
            keep_failure(&mut results, partition, result);
        }
        Ok(results)
    }

    /// Tells brokers all acknowledgements in the background, and calls `done` when all are
    /// answered.
    pub fn commit_async(&self, done: impl FnOnce(Acknowledged) + Send + 'static) -> Result<()> {
        let mut told = self.begin_commit()?;
        tokio::spawn(async move {
            let mut results = Acknowledged::new();
            while let Some((partition, result)) = told.recv().await {
                keep_failure(&mut results, partition, result);
            }
            done(results);
        });
        Ok(())
    }

    /// Returns how long records stay ours without an acknowledgement, once a broker has said it.
    pub fn acquisition_lock_timeout(&self) -> Option<Duration> {
        self.shared.lock().lock_timeout
    }

    /// Tells brokers the acknowledgements that were made, gives up other records, and leaves the
    /// group.
    pub async fn close(self) -> Result<()> {
        {
            let mut state = self.shared.lock();
            state.queue_said();
            state.closing = true;
        }
        self.shared.fetch_work.notify_one();
        let wait = async {
            let mut ended = self.shared.fetcher_ended.subscribe();
            ended.wait_for(|ended| *ended).await.ok();
            self.shared.group_work.notify_one();
            let mut left = self.shared.left.subscribe();
            left.wait_for(|left| *left).await.ok();
        };
        tokio::time::timeout(self.shared.client.config().api_timeout, wait).await.ok();
        match self.shared.lock().errors.pop_front() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn begin_commit(&self) -> Result<mpsc::UnboundedReceiver<(TopicPartition, Result<()>)>> {
        let (teller, told) = mpsc::unbounded_channel();
        let mut state = self.shared.lock();
        state.check_open("commit")?;
        if self.shared.config.acknowledgement_mode == AcknowledgementMode::Implicit {
            state.accept_all();
        }
        state.queue_said();
        state.tell_all(&teller);
        drop(state);
        self.shared.fetch_work.notify_one();
        Ok(told)
    }

    /// Deals with what the last poll gave, because the next one begins.
    fn settle_hands(&self, state: &mut State) -> Result<()> {
        match self.shared.config.acknowledgement_mode {
            AcknowledgementMode::Implicit => state.accept_all(),
            AcknowledgementMode::Explicit => {
                if let Some((partition, offset)) = state.first_open() {
                    return Err(Error::state(format!(
                        "poll before every record of the last one was acknowledged: {partition} \
                         at offset {offset}"
                    )));
                }
            }
        }
        state.queue_said();
        Ok(())
    }
}

/// One failure of a partition is enough to tell.
fn keep_failure(results: &mut Acknowledged, partition: TopicPartition, result: Result<()>) {
    let kept = results.entry(partition).or_insert(Ok(()));
    if kept.is_ok() {
        *kept = result;
    }
}

impl Drop for ShareConsumer {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.fetch_work.notify_one();
        self.shared.group_work.notify_one();
    }
}

/// Tells the tasks when a poll ends, however it does.
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

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is made whole under the lock; a panic leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the next poll report an error.
    fn report(&self, error: Error) {
        self.lock().errors.push_back(error);
        self.ready.notify_one();
    }

    /// Tells the application what became of acknowledgements.
    fn told(
        &self,
        partition: &TopicPartition,
        acknowledgements: state::Outgoing,
        result: Result<()>,
    ) {
        let callback = self.callback.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(callback) = callback {
            let runs: Vec<_> =
                acknowledgements.runs.iter().map(|&(first, last, _)| (first, last)).collect();
            callback(partition, &runs, &result);
        }
        for teller in acknowledgements.tellers {
            // Whoever has stopped waiting need not be told.
            teller.send((partition.clone(), result.clone())).ok();
        }
    }
}
