//! The task that sends batches and books the answers.
//!
//! It never waits for one broker alone: connections, answers, the producer's identity and metadata
//! all come back as events of one set, so that a broker that hangs holds up only its own
//! partitions. `harvest` finds what is to be sent, `settling` books what came of it.

mod harvest;
mod settling;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use fleuve_protocol::messages::init_producer_id_request::InitProducerIdRequest;
use fleuve_protocol::messages::produce_request::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use fleuve_protocol::messages::produce_response::ProduceResponse;
use fleuve_types::{ProducerEpoch, ProducerId, TopicPartition, Uuid};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Shared;
use super::accumulator::QueueId;
use super::answers::Failure;
use super::batch::{Batch, Identity, Written};
use super::transactions::Transactions;
use crate::client::Lane;
use crate::config::Acks;
use crate::connection::{Connection, Response};
use crate::error::Result;

pub(super) struct Sender {
    shared: Arc<Shared>,
    brokers: HashMap<i32, Broker>,
    identity: IdentityState,
    refresh: RefreshState,
    /// Whether partitions are being announced to the transaction's coordinator.
    announcing: bool,
    /// When those who wait for memory are woken although there is little.
    memory_told_at: Option<Instant>,
    events: JoinSet<Event>,
}

/// What the sender knows about one broker.
#[derive(Default)]
struct Broker {
    connection: Option<Connection>,
    connecting: bool,
    /// Not to be connected to before this time, after a failure.
    not_before: Option<Instant>,
    /// Requests without an answer yet, in the order of sending, which is that of answers.
    in_flight: VecDeque<InFlight>,
    /// Requests of a harvest that are to be sent now.
    planned: usize,
}

/// A request without an answer yet.
struct InFlight {
    sent: Vec<Sent>,
    since: Instant,
    response: Response<ProduceRequest>,
}

/// A request with its answer.
struct Answered {
    broker: i32,
    since: Instant,
    sent: Vec<Sent>,
    answer: Result<ProduceResponse>,
}

enum IdentityState {
    /// Batches are not numbered.
    NotNeeded,
    /// Batches wait for an identity.
    Needed { not_before: Instant },
    /// The identity is on its way.
    Asked,
    /// Batches are numbered under this identity.
    Known(Identity),
}

struct RefreshState {
    wanted: bool,
    running: bool,
    not_before: Instant,
    last: Instant,
}

/// Something that the sender was waiting for.
enum Event {
    Connected { broker: i32, result: Result<Connection> },
    Identity(Result<Identity>),
    Announced(Result<()>),
    Refreshed,
}

/// A batch in flight.
struct Sent {
    queue: QueueId,
    topic_id: Uuid,
    batch: Batch,
}

/// Since version 13 topics go by id, which needs metadata that has them.
const LAST_VERSION_WITH_NAMES: i16 = 12;
/// Versions above are not stable.
const INIT_PRODUCER_ID_VERSION_MAX: i16 = 5;

impl Sender {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        // Transactions bring their own.
        let identity = if shared.config.idempotence && shared.transactions.is_none() {
            IdentityState::Needed { not_before: now }
        } else {
            IdentityState::NotNeeded
        };
        Self {
            shared,
            brokers: HashMap::new(),
            identity,
            refresh: RefreshState { wanted: false, running: false, not_before: now, last: now },
            announcing: false,
            memory_told_at: None,
            events: JoinSet::new(),
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let look_again = self.send_what_is_ready();
            if self.is_done() {
                break;
            }
            let look_again = look_again.unwrap_or_else(|| Instant::now() + IDLE_LOOK);
            tokio::select! {
                event = self.events.join_next(), if !self.events.is_empty() => {
                    self.take_event(event);
                    // Whatever else has come is handled before looking over the queues again.
                    while let Some(event) = self.events.try_join_next() {
                        self.take_event(Some(event));
                    }
                }
                answered = settling::answers(&mut self.brokers) => {
                    for answered in answered {
                        self.take_answer(answered);
                    }
                }
                () = self.shared.work.notified() => {}
                () = self.shared.alarm.until(look_again) => {}
            }
        }
        self.shared.ended.send_replace(true);
    }

    fn is_done(&self) -> bool {
        let in_flight = self.brokers.values().any(|broker| !broker.in_flight.is_empty());
        let state = self.shared.accumulator.lock();
        state.closed && state.listed.is_empty() && !in_flight
    }

    /// Sends all it can, and returns when to look again if nothing happens before.
    fn send_what_is_ready(&mut self) -> Option<Instant> {
        // Before the queues are looked at: what comes after that may be meant for later.
        self.shared.alarm.forget();
        let now = Instant::now();
        let dropping = self.shared.transactions.as_ref().and_then(Transactions::is_dropping);
        if let Some(error) = dropping {
            self.fail_everything(&error);
        }
        if self.memory_told_at.is_some_and(|at| at <= now) {
            self.tell_memory();
        }
        let mut look_again = self.prepare(now);
        loop {
            let harvest = self.harvest(now);
            if !harvest.expired.is_empty() {
                for (batch, error) in harvest.expired {
                    self.shared.conclude(&batch, Err(error));
                }
                self.tell_memory();
            }
            for broker in harvest.connect {
                self.connect(broker);
            }
            self.announce(harvest.announce);
            self.refresh.wanted |= harvest.leaderless;
            look_again = earliest(look_again, harvest.look_again);
            if harvest.requests.is_empty() {
                break;
            }
            for (broker, sent) in harvest.requests {
                self.send(broker, sent, now);
            }
        }
        for broker in self.brokers.values() {
            let first = broker.in_flight.front().map(|first| first.response.deadline());
            look_again = earliest(look_again, first);
        }
        look_again = earliest(look_again, self.memory_told_at);
        self.start_refresh(now);
        // One that runs already reports by itself; waking up for it would only burn time.
        if self.refresh.wanted && !self.refresh.running {
            look_again = earliest(look_again, Some(self.refresh.not_before));
        }
        look_again
    }

    /// Asks for an identity if batches wait for one.
    fn prepare(&mut self, now: Instant) -> Option<Instant> {
        let IdentityState::Needed { not_before } = self.identity else { return None };
        if not_before > now {
            return Some(not_before);
        }
        if self.shared.accumulator.lock().listed.is_empty() {
            return None;
        }
        self.identity = IdentityState::Asked;
        let client = self.shared.client.clone();
        self.events.spawn(async move {
            let attempt = async {
                let connection = client.any_connection().await?;
                let version =
                    connection.version_of::<InitProducerIdRequest>(INIT_PRODUCER_ID_VERSION_MAX)?;
                let request = InitProducerIdRequest {
                    transactional_id: None,
                    transaction_timeout_ms: i32::MAX,
                    ..InitProducerIdRequest::default()
                };
                let response = connection.submit(&request, version)?.wait().await?;
                crate::error::check(response.error_code, || "InitProducerId".to_owned())?;
                Ok(Identity {
                    id: ProducerId(response.producer_id),
                    epoch: ProducerEpoch(response.producer_epoch),
                })
            };
            Event::Identity(attempt.await)
        });
        None
    }

    /// Sends one request; its answer comes as an event.
    fn send(&mut self, id: i32, mut sent: Vec<Sent>, now: Instant) {
        let counters = &self.shared.counters;
        let mut records_count = 0;
        let mut builders = Vec::new();
        let records: Vec<Bytes> = sent
            .iter_mut()
            .map(|sent| {
                let (bytes, builder) = sent.batch.seal();
                counters.sending(&sent.batch, bytes.len());
                records_count += u64::try_from(sent.batch.count).unwrap_or(0);
                builders.extend(builder);
                bytes
            })
            .collect();
        counters.requested(records_count);
        if !builders.is_empty() {
            let mut state = self.shared.accumulator.lock();
            builders.into_iter().for_each(|builder| state.recycle(builder));
        }
        let broker = self.brokers.entry(id).or_default();
        broker.planned = broker.planned.saturating_sub(1);
        let connection = broker.connection.clone();
        let connection = connection.expect("only connected brokers are harvested for");
        match self.submit(&connection, &sent, records) {
            Ok(Some(response)) => {
                let broker = self.brokers.entry(id).or_default();
                broker.in_flight.push_back(InFlight { sent, response, since: now });
                self.shared.counters.in_flight.fetch_add(1, Ordering::Relaxed);
            }
            // Nobody will answer: it counts as done once it is queued.
            Ok(None) => {
                self.settle(sent, now, |_| Ok(Written { base_offset: -1, log_append_time: -1 }));
            }
            Err(error) => self.settle(sent, now, |_| Err(Failure::of_request(&error))),
        }
    }

    fn submit(
        &self,
        connection: &Connection,
        sent: &[Sent],
        records: Vec<Bytes>,
    ) -> Result<Option<Response<ProduceRequest>>> {
        let config = &self.shared.config;
        let has_ids = sent.iter().all(|sent| !sent.topic_id.is_zero());
        let cap = if has_ids { i16::MAX } else { LAST_VERSION_WITH_NAMES };
        let transactions = self.shared.transactions.as_ref();
        let cap = cap.min(transactions.map_or(i16::MAX, Transactions::produce_version_max));
        let version = connection.version_of::<ProduceRequest>(cap)?;
        let mut topics: Vec<TopicProduceData> = Vec::new();
        for (sent, records) in sent.iter().zip(records) {
            let partition = &sent.batch.outcome.partition();
            let data = PartitionProduceData { index: partition.partition, records: Some(records) };
            match topics.iter_mut().find(|topic| *topic.name == *partition.topic) {
                Some(topic) => topic.partition_data.push(data),
                None => topics.push(TopicProduceData {
                    name: partition.topic.to_string().into(),
                    topic_id: sent.topic_id,
                    partition_data: vec![data],
                }),
            }
        }
        let timeout = self.shared.client.config().request_timeout;
        let request = ProduceRequest {
            transactional_id: transactions.map(|transactions| transactions.id.clone().into()),
            acks: config.acks.code(),
            timeout_ms: timeout.as_millis() as i32,
            topic_data: topics,
        };
        if config.acks == Acks::None {
            connection.submit_unanswered(&request, version)?;
            return Ok(None);
        }
        connection.submit(&request, version).map(Some)
    }

    fn take_event(&mut self, event: Option<Result<Event, tokio::task::JoinError>>) {
        let now = Instant::now();
        let event = match event {
            Some(Ok(event)) => event,
            // The set is only polled while it is not empty, its tasks are never aborted, and they
            // do nothing that may panic.
            Some(Err(error)) => return tracing::error!(%error, "a producer task failed"),
            None => return,
        };
        match event {
            Event::Connected { broker, result } => {
                let state = self.brokers.entry(broker).or_default();
                state.connecting = false;
                match result {
                    Ok(connection) => state.connection = Some(connection),
                    Err(error) => {
                        tracing::debug!(broker, %error, "no connection to a leader");
                        // Some failures come at once, as that nobody knows the broker's address.
                        state.not_before = Some(now + self.shared.client.config().retry_backoff);
                        self.refresh.wanted = true;
                    }
                }
            }
            Event::Identity(Ok(identity)) => self.identity = IdentityState::Known(identity),
            Event::Identity(Err(error)) => {
                let not_before = now + self.shared.client.config().retry_backoff;
                self.identity = IdentityState::Needed { not_before };
                if !error.is_retriable() {
                    self.fail_everything(&error);
                }
            }
            Event::Announced(result) => {
                self.announcing = false;
                if let (Err(error), Some(transactions)) = (result, &self.shared.transactions) {
                    transactions.fail_at_coordinator(&error);
                }
            }
            Event::Refreshed => {
                self.refresh.running = false;
                self.refresh.last = now;
                let cluster = self.shared.client.cluster();
                for name in self.shared.accumulator.topic_names() {
                    if let Some(topic) = cluster.topic(&name) {
                        self.shared.accumulator.learn_topic(topic);
                    }
                }
            }
        }
    }

    /// Tells the transaction's coordinator of partitions; their batches go out afterwards.
    fn announce(&mut self, partitions: Vec<TopicPartition>) {
        if partitions.is_empty() || self.announcing {
            return;
        }
        self.announcing = true;
        let shared = self.shared.clone();
        self.events.spawn(async move {
            Event::Announced(match &shared.transactions {
                Some(transactions) => transactions.announce(&shared.client, partitions).await,
                None => Ok(()),
            })
        });
    }

    fn connect(&mut self, id: i32) {
        let broker = self.brokers.entry(id).or_default();
        if broker.connecting {
            return;
        }
        broker.connecting = true;
        let client = self.shared.client.clone();
        self.events.spawn(async move {
            Event::Connected { broker: id, result: client.connection(id, Lane::Produce).await }
        });
    }

    fn start_refresh(&mut self, now: Instant) {
        let config = self.shared.client.config();
        let old = now.duration_since(self.refresh.last) >= config.metadata_max_age;
        if self.refresh.running || !(self.refresh.wanted || old) || self.refresh.not_before > now {
            return;
        }
        let names = self.shared.accumulator.topic_names();
        if names.is_empty() {
            self.refresh.wanted = false;
            return;
        }
        self.refresh = RefreshState {
            wanted: false,
            running: true,
            not_before: now + config.retry_backoff,
            last: now,
        };
        let client = self.shared.client.clone();
        self.events.spawn(async move {
            if let Err(error) = client.refresh(&names, true).await {
                tracing::debug!(%error, "metadata refresh failed");
            }
            Event::Refreshed
        });
    }
}

/// How often an idle producer looks whether its metadata has grown old.
const IDLE_LOOK: Duration = Duration::from_secs(30);

fn earliest(left: Option<Instant>, right: Option<Instant>) -> Option<Instant> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (left, right) => left.or(right),
    }
}
