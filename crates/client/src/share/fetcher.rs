//! The task that acquires records and tells brokers what became of them.
//!
//! Records are asked for only while a poll waits: what nobody works on had better go to another
//! member. Each broker has one request outstanding, because all of them advance one session; what
//! is to be acknowledged goes along with a fetch where there is one.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::share_acknowledge_request::ShareAcknowledgeRequest;
use fleuve_protocol::messages::share_acknowledge_response::ShareAcknowledgeResponse;
use fleuve_protocol::messages::share_fetch_request::ShareFetchRequest;
use fleuve_protocol::messages::share_fetch_response::ShareFetchResponse;
use fleuve_protocol::records::Decompressor;
use fleuve_types::{TopicPartition, Uuid};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Shared;
use super::records::undo;
use super::session::{FINAL_EPOCH, ShareSession, acknowledge_topics};
use super::state::{Acquired, Outgoing};
use crate::client::{OwnLanes, Scope};
use crate::error::{Error, Result, check_said, code_of};

pub(super) struct Fetcher {
    shared: Arc<Shared>,
    lanes: Arc<OwnLanes>,
    /// Brokers without a request outstanding keep their session here.
    idle: HashMap<i32, Link>,
    busy: HashSet<i32>,
    refreshing: bool,
    /// When topics without a name or partitions without a leader are looked up again.
    refresh_at: Option<Instant>,
    events: JoinSet<Event>,
}

/// What belongs to one broker.
#[derive(Default)]
struct Link {
    session: ShareSession,
    not_before: Option<Instant>,
}

/// Acknowledgements of one request.
type Told = HashMap<TopicPartition, Outgoing>;

enum Event {
    Fetched {
        broker: i32,
        link: Link,
        result: Result<ShareFetchResponse>,
    },
    Acknowledged {
        broker: i32,
        link: Link,
        result: Result<ShareAcknowledgeResponse>,
    },
    /// The errors of single topics.
    Refreshed(Result<HashMap<String, ErrorCode>>),
}

/// What one look over brokers found for one of them.
struct Errand {
    broker: i32,
    told: Told,
    /// Partitions to fetch, if records are wanted.
    wanted: BTreeSet<(Uuid, i32)>,
    fetch: bool,
}

/// No batch may grow larger than this when decompressed.
const DECOMPRESSED_BYTES_MAX: usize = 256 << 20;
/// How often an idle fetcher looks around.
const IDLE_LOOK: Duration = Duration::from_secs(30);
/// The first version of ShareAcknowledge that can renew.
const FIRST_VERSION_WITH_RENEWAL: i16 = 2;

impl Fetcher {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            lanes: Arc::new(OwnLanes::new(shared.client.clone())),
            shared,
            idle: HashMap::new(),
            busy: HashSet::new(),
            refreshing: false,
            refresh_at: None,
            events: JoinSet::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let shared = self.shared.clone();
        loop {
            let work = shared.fetch_work.notified();
            tokio::pin!(work);
            work.as_mut().enable();
            if shared.lock().closing {
                break;
            }
            let look_again = self.ask().unwrap_or_else(|| Instant::now() + IDLE_LOOK);
            tokio::select! {
                Some(event) = self.events.join_next() => self.take_event(event),
                () = &mut work => {}
                () = tokio::time::sleep_until(look_again) => {}
            }
        }
        self.finish().await;
        shared.fetcher_ended.send_replace(true);
        shared.group_work.notify_one();
    }

    /// Sends whatever can be sent, and returns when to look again.
    fn ask(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let (errands, incomplete) = self.errands();
        let mut look_again = None;
        let mut at_latest =
            |at: Instant| look_again = Some(look_again.map_or(at, |l: Instant| l.min(at)));
        for errand in errands {
            match self.idle.get(&errand.broker).and_then(|link| link.not_before) {
                Some(at) if at > now => at_latest(at),
                _ => self.send(errand),
            }
        }
        if incomplete && !self.refreshing {
            match self.refresh_at {
                Some(at) if at > now => at_latest(at),
                _ => self.refresh(now),
            }
        }
        look_again
    }

    /// Looks for brokers without a request outstanding that there is something for, and says
    /// whether the metadata lacks something.
    fn errands(&mut self) -> (Vec<Errand>, bool) {
        let cluster = self.shared.client.cluster();
        let state = self.shared.lock();
        let fetch = state.wants_records();
        let mut incomplete = false;
        let mut wanted: HashMap<i32, BTreeSet<(Uuid, i32)>> = HashMap::new();
        for &(id, partition) in &state.assigned {
            let name = cluster.topic_name(&id);
            match name.and_then(|name| cluster.leader(name, partition)) {
                Some((leader, _)) => {
                    wanted.entry(leader).or_default().insert((id, partition));
                }
                None => incomplete = true,
            }
        }
        let said = state.outgoing.iter().filter(|(_, told)| !told.is_empty());
        let mut brokers: BTreeSet<i32> = said.map(|(&broker, _)| broker).collect();
        if fetch {
            brokers.extend(wanted.keys());
        }
        let errands = brokers.into_iter().filter(|broker| !self.busy.contains(broker));
        let errands = errands
            .map(|broker| {
                let wanted = wanted.get(&broker).cloned().unwrap_or_default();
                let fetch = fetch && !wanted.is_empty();
                Errand { broker, told: Told::new(), wanted, fetch }
            })
            .collect();
        (errands, incomplete && fetch)
    }

    fn send(&mut self, mut errand: Errand) {
        let broker = errand.broker;
        let mut link = self.idle.remove(&broker).unwrap_or_default();
        link.not_before = None;
        let mut told = self.shared.lock().outgoing.remove(&broker).unwrap_or_default();
        told.values_mut().for_each(Outgoing::sort);
        if link.session.is_new() && !told.is_empty() {
            // The session in which these were acquired is gone, and the records with it.
            let lost = Error::broker(format!("broker {broker}"), ErrorCode::ShareSessionNotFound);
            for (partition, outgoing) in told.drain() {
                self.shared.told(&partition, outgoing, Err(lost.clone()));
            }
        }
        let renews = told.values().any(Outgoing::has_renewals);
        let belongs = |(partition, outgoing): (&TopicPartition, &Outgoing)| {
            errand.wanted.contains(&(outgoing.topic_id, partition.partition))
        };
        // A broker that renews gives no records, and one that does forgets other partitions.
        let fetch = errand.fetch && !renews && told.iter().all(belongs);
        if !fetch && told.is_empty() {
            self.idle.insert(broker, link);
            return;
        }
        self.busy.insert(broker);
        errand.told = told;
        if fetch {
            self.spawn_fetch(link, errand)
        } else {
            self.spawn_acknowledge(link, errand, renews)
        }
    }

    fn spawn_fetch(&mut self, mut link: Link, errand: Errand) {
        let Errand { broker, told, wanted, .. } = errand;
        let config = &self.shared.config;
        let (group, member) = self.names();
        let share_session_epoch = link.session.epoch();
        let (topics, forgotten_topics_data) = link.session.prepare(wanted, &told);
        let request = ShareFetchRequest {
            group_id: Some(group.into()),
            member_id: Some(member.into()),
            share_session_epoch,
            max_wait_ms: config.fetch_max_wait.as_millis() as i32,
            min_bytes: config.fetch_min_bytes,
            max_bytes: config.fetch_max_bytes,
            max_records: config.max_poll_records,
            batch_size: config.max_poll_records,
            share_acquire_mode: config.acquire_mode.code(),
            is_renew_ack: false,
            topics,
            forgotten_topics_data,
        };
        self.keep_in_flight(broker, told);
        let timeout = self.shared.client.config().request_timeout + config.fetch_max_wait;
        let lanes = self.lanes.clone();
        self.events.spawn(async move {
            let attempt = async {
                let connection = lanes.fetching(broker).await?;
                let version = connection.version_of::<ShareFetchRequest>(i16::MAX)?;
                connection.submit(&request, version)?.within(timeout).wait().await
            };
            Event::Fetched { broker, result: attempt.await, link }
        });
    }

    fn spawn_acknowledge(&mut self, link: Link, errand: Errand, renews: bool) {
        let Errand { broker, told, .. } = errand;
        let (group, member) = self.names();
        let request = ShareAcknowledgeRequest {
            group_id: Some(group.into()),
            member_id: Some(member.into()),
            share_session_epoch: link.session.epoch(),
            is_renew_ack: renews,
            topics: acknowledge_topics(&told),
        };
        self.keep_in_flight(broker, told);
        let lanes = self.lanes.clone();
        self.events.spawn(async move {
            let attempt = async {
                let connection = lanes.fetching(broker).await?;
                let version = connection.version_of::<ShareAcknowledgeRequest>(i16::MAX)?;
                if renews && version < FIRST_VERSION_WITH_RENEWAL {
                    return Err(Error::Unsupported {
                        broker: connection.broker().to_owned(),
                        operation: "renewing the lock of a record",
                    });
                }
                connection.submit(&request, version)?.wait().await
            };
            Event::Acknowledged { broker, result: attempt.await, link }
        });
    }

    fn names(&self) -> (String, String) {
        (self.shared.config.group_id.clone(), self.shared.lock().member_id.clone())
    }

    /// Keeps acknowledgements where later commits find them and wait for them too.
    fn keep_in_flight(&self, broker: i32, told: Told) {
        self.shared.lock().in_flight.insert(broker, told.into_iter().collect());
    }

    fn take_event(&mut self, event: std::result::Result<Event, tokio::task::JoinError>) {
        let backoff = self.shared.client.config().retry_backoff;
        match event {
            Ok(Event::Fetched { broker, mut link, result }) => {
                let result = result.and_then(|response| {
                    check_said(response.error_code, response.error_message.as_deref(), || {
                        format!("share fetch from broker {broker}")
                    })?;
                    Ok(response)
                });
                match result {
                    Ok(response) => {
                        link.session.advance();
                        self.take_fetched(broker, &mut link, response);
                    }
                    Err(error) => self.take_failure(broker, &mut link, error, backoff),
                }
                self.free(broker, link);
            }
            Ok(Event::Acknowledged { broker, mut link, result }) => {
                let result = result.and_then(|response| {
                    check_said(response.error_code, response.error_message.as_deref(), || {
                        format!("share acknowledgement at broker {broker}")
                    })?;
                    Ok(response)
                });
                match result {
                    Ok(response) => {
                        link.session.advance();
                        let answers = answers_of(&response);
                        self.settle(broker, |key| answers.get(&key).cloned().unwrap_or(Ok(())));
                    }
                    Err(error) => self.take_failure(broker, &mut link, error, backoff),
                }
                self.free(broker, link);
            }
            Ok(Event::Refreshed(result)) => {
                self.refreshing = false;
                match result {
                    Ok(errors) => self.report_topics(errors),
                    Err(error) => tracing::debug!(%error, "metadata refresh failed"),
                }
            }
            Err(error) => tracing::error!(%error, "a share consumer's task failed"),
        }
    }

    /// Lets the application know of topics that it will not get records of before something is changed.
    fn report_topics(&self, errors: HashMap<String, ErrorCode>) {
        for (name, code) in errors {
            // Those that are gone leave the assignment soon.
            let passes = code.is_retriable() || code == ErrorCode::UnknownTopicId;
            if !passes && self.shared.lock().errors.is_empty() {
                self.shared.report(Error::broker(format!("topic {name}"), code));
            }
        }
    }

    fn free(&mut self, broker: i32, link: Link) {
        self.busy.remove(&broker);
        self.idle.insert(broker, link);
    }

    fn take_failure(&mut self, broker: i32, link: &mut Link, error: Error, backoff: Duration) {
        tracing::debug!(broker, %error, "share request failed");
        let was_open = !link.session.is_new();
        link.session.reset();
        self.settle(broker, |_| Err(error.clone()));
        let session_gone = matches!(
            error.code(),
            Some(ErrorCode::ShareSessionNotFound | ErrorCode::InvalidShareSessionEpoch)
        );
        // A new session mends that at once, unless this was one.
        if !(session_gone && was_open) {
            link.not_before = Some(Instant::now() + backoff);
            self.refresh_at = None;
            self.refresh(Instant::now());
        }
        let passes = session_gone || error.code() == Some(ErrorCode::ShareSessionLimitReached);
        if !passes && !error.is_retriable() {
            self.shared.report(error);
        }
    }

    fn take_fetched(&mut self, broker: i32, link: &mut Link, response: ShareFetchResponse) {
        let cluster = self.shared.client.cluster();
        let lock = u64::try_from(response.acquisition_lock_timeout_ms).unwrap_or(0);
        if lock > 0 {
            self.shared.lock().lock_timeout = Some(Duration::from_millis(lock));
        }
        let mut refused: HashMap<(Uuid, i32), Error> = HashMap::new();
        let mut decompressor = Decompressor::new(DECOMPRESSED_BYTES_MAX);
        let mut stale = false;
        for topic in response.responses {
            let Some(name) = cluster.topic_name(&topic.topic_id) else { continue };
            for data in topic.partitions {
                let key = (topic.topic_id, data.partition_index);
                let partition = TopicPartition::new(name.clone(), data.partition_index);
                let said = data.acknowledge_error_message.as_deref();
                let subject = || partition.to_string();
                if let Err(error) = check_said(data.acknowledge_error_code, said, subject) {
                    refused.insert(key, error);
                }
                match code_of(data.error_code) {
                    ErrorCode::None => {}
                    code => {
                        stale = true;
                        let error =
                            Error::broker_said(subject(), code, data.error_message.as_deref());
                        tracing::debug!(%error, "share fetch of a partition failed");
                        if !error.is_retriable() && code != ErrorCode::UnknownTopicId {
                            self.shared.report(error);
                        }
                        continue;
                    }
                }
                let ranges = data.acquired_records.iter().filter(|range| {
                    // Anything else would be a lie, and could not be acknowledged.
                    range.first_offset >= 0 && range.first_offset <= range.last_offset
                });
                let ranges: Vec<_> = ranges
                    .map(|range| (range.first_offset, range.last_offset, range.delivery_count))
                    .collect();
                if ranges.is_empty() {
                    continue;
                }
                let bytes = data.records.unwrap_or_default();
                let undone = undo(partition.clone(), bytes, ranges.clone(), &mut decompressor);
                let mut state = self.shared.lock();
                match undone {
                    Ok((records, gaps)) => {
                        state.store(Acquired { topic_id: key.0, broker, records }, &gaps);
                    }
                    Err(error) => {
                        // Nobody will be able to read them.
                        let theirs = state.outgoing.entry(broker).or_default();
                        let outgoing = theirs.entry(partition).or_default();
                        outgoing.topic_id = key.0;
                        for (first, last, _) in ranges {
                            outgoing.add(first, last, super::Acknowledge::Reject.code());
                        }
                        state.errors.push_back(error);
                    }
                }
            }
        }
        self.settle(broker, |key| refused.remove(&key).map_or(Ok(()), Err));
        if stale {
            let now = Instant::now();
            link.not_before = Some(now + self.shared.client.config().retry_backoff);
            self.refresh(now);
        }
        self.shared.ready.notify_one();
    }

    /// Tells everybody who waits what became of the acknowledgements on their way to `broker`.
    fn settle(&self, broker: i32, mut result_of: impl FnMut((Uuid, i32)) -> Result<()>) {
        let in_flight = self.shared.lock().in_flight.remove(&broker).unwrap_or_default();
        for (partition, outgoing) in in_flight {
            let result = result_of((outgoing.topic_id, partition.partition));
            self.shared.told(&partition, outgoing, result);
        }
    }

    fn refresh(&mut self, now: Instant) {
        if self.refreshing || self.refresh_at.is_some_and(|at| at > now) {
            return;
        }
        self.refreshing = true;
        let client = self.shared.client.clone();
        self.refresh_at = Some(now + client.config().retry_backoff);
        let ids: BTreeSet<Uuid> = self.shared.lock().assigned.iter().map(|(id, _)| *id).collect();
        let ids: Vec<Uuid> = ids.into_iter().collect();
        self.events.spawn(async move {
            Event::Refreshed(match ids.is_empty() {
                true => Ok(HashMap::new()),
                false => client.refresh_once(Scope::Ids(ids)).await,
            })
        });
    }

    /// Waits for what is outstanding, tells what is left to tell, and ends the sessions, which
    /// gives back what is still in hand.
    async fn finish(mut self) {
        while !self.busy.is_empty()
            && let Some(event) = self.events.join_next().await
        {
            self.take_event(event);
        }
        let (group, member) = self.names();
        for (broker, link) in std::mem::take(&mut self.idle) {
            if link.session.is_new() {
                continue;
            }
            let mut told = self.shared.lock().outgoing.remove(&broker).unwrap_or_default();
            told.values_mut().for_each(Outgoing::sort);
            let request = ShareAcknowledgeRequest {
                group_id: Some(group.clone().into()),
                member_id: Some(member.clone().into()),
                share_session_epoch: FINAL_EPOCH,
                is_renew_ack: false,
                topics: acknowledge_topics(&told),
            };
            self.keep_in_flight(broker, told);
            let attempt = async {
                let connection = self.lanes.fetching(broker).await?;
                let version = connection.version_of::<ShareAcknowledgeRequest>(i16::MAX)?;
                let response = connection.submit(&request, version)?.wait().await?;
                check_said(response.error_code, response.error_message.as_deref(), || {
                    format!("share acknowledgement at broker {broker}")
                })?;
                Ok(response)
            };
            let result: Result<ShareAcknowledgeResponse> = attempt.await;
            match result {
                Ok(response) => {
                    let answers = answers_of(&response);
                    self.settle(broker, |key| answers.get(&key).cloned().unwrap_or(Ok(())));
                }
                Err(error) => {
                    tracing::debug!(broker, %error, "a share session could not be ended");
                    self.settle(broker, |_| Err(error.clone()));
                }
            }
        }
        let rest = std::mem::take(&mut self.shared.lock().outgoing);
        for (partition, outgoing) in rest.into_values().flatten() {
            let lost = Error::broker(partition.to_string(), ErrorCode::ShareSessionNotFound);
            self.shared.told(&partition, outgoing, Err(lost));
        }
    }
}

/// Returns what a broker says about each partition.
fn answers_of(response: &ShareAcknowledgeResponse) -> HashMap<(Uuid, i32), Result<()>> {
    let topics = response.responses.iter();
    let partitions = topics.flat_map(|topic| {
        topic.partitions.iter().map(move |data| {
            let subject = || format!("partition {} of {}", data.partition_index, topic.topic_id);
            let result = check_said(data.error_code, data.error_message.as_deref(), subject);
            ((topic.topic_id, data.partition_index), result)
        })
    });
    partitions.collect()
}
