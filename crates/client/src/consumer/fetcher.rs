//! The task that finds positions and fetches records ahead of the application.
//!
//! Each broker has one fetch request outstanding, because the answer waits there for records. A
//! broker is asked again only when all its partitions have room: leaving a full partition out
//! would make the next answer wait for the others, while the application empties it. There is room
//! as long as no more than one answer waits: who reads as fast as the broker gives need not wake
//! this task to have it ask for more. Three are in memory at most, the one that is read from, one
//! that waits and one that comes. How large they are, `appetite` says.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fleuve_protocol::ErrorCode;
use fleuve_types::TopicPartition;
use futures_util::future::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;

use super::Shared;
use super::appetite::{Limits, Meal};
use super::fetching::{Answer, BrokerState, Finding, Found, Lookup, fetch_once, find, limits_of};
use super::session::Wanted;
use super::state::Position;
use crate::BoxFuture;
use crate::config::OffsetReset;
use crate::error::{Error, Result};

pub(super) struct Fetcher {
    shared: Arc<Shared>,
    limits: Limits,
    /// Brokers without a fetch outstanding keep their session and codecs here.
    idle: HashMap<i32, Box<BrokerState>>,
    busy: HashSet<i32>,
    finding: bool,
    refresh: Refresh,
    /// What it waits for. These are no tasks, so that an answer wakes one task and not three: those
    /// would wake another thread each, which at a low rate costs more than all the rest.
    events: FuturesUnordered<BoxFuture<'static, Event>>,
}

struct Refresh {
    wanted: bool,
    running: bool,
    not_before: Instant,
    last: Instant,
}

/// Something the fetcher was waiting for.
enum Event {
    Fetched {
        broker: i32,
        state: Box<BrokerState>,
        versions: HashMap<TopicPartition, (u64, i64)>,
        result: Result<Vec<Answer>>,
        after: Duration,
    },
    Found(Vec<Finding>),
    Refreshed,
}

/// A partition to be fetched, with the version of its position.
type Asked = (TopicPartition, u64, Wanted);

/// The partitions of one leader.
#[derive(Default)]
struct Theirs {
    asked: Vec<Asked>,
    /// Bytes of them that wait for the application.
    waiting: usize,
    /// Whether one of them has no room.
    full: bool,
}

/// What one broker is asked for, and how long it may wait for records.
type Request = (i32, Vec<Asked>, Duration);

/// The longest wait while a partition is left out, paused or not looked up yet: when that changes, the request that
/// waits has to end first.
const WAIT_WITHOUT_ALL: Duration = Duration::from_millis(100);

impl Fetcher {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        Self {
            limits: limits_of(&shared.config),
            shared,
            idle: HashMap::new(),
            busy: HashSet::new(),
            finding: false,
            refresh: Refresh { wanted: false, running: false, not_before: now, last: now },
            events: FuturesUnordered::new(),
        }
    }

    pub(super) async fn run(mut self) {
        // Taken out of `self`, so that waiting for it does not borrow the rest.
        let shared = self.shared.clone();
        loop {
            let work = shared.fetch_work.notified();
            tokio::pin!(work);
            work.as_mut().enable();
            if shared.lock().closing {
                return;
            }
            let mut look_again = self.ask().unwrap_or_else(|| Instant::now() + IDLE_LOOK);
            if shared.matches_topics() && !self.refresh.running {
                let renewed = self.refresh.last + shared.client.config().metadata_max_age;
                look_again = look_again.min(renewed.max(self.refresh.not_before));
            }
            tokio::select! {
                Some(event) = self.events.next() => {
                    self.take_event(event);
                    while let Some(Some(event)) = self.events.next().now_or_never() {
                        self.take_event(event);
                    }
                }
                () = &mut work => {}
                () = tokio::time::sleep_until(look_again) => {}
            }
        }
    }

    /// Asks whatever can be asked, and returns when to look again.
    fn ask(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let shared = self.shared.clone();
        let cluster = shared.client.cluster();
        let mut look_again = None;
        let mut at_latest =
            |at: Instant| look_again = Some(look_again.map_or(at, |l: Instant| l.min(at)));
        let mut to_find = Vec::new();
        let mut to_fetch: Vec<Request> = Vec::new();
        {
            let mut left_out = HashSet::new();
            let mut by_leader: HashMap<i32, Theirs> = HashMap::new();
            let mut state = shared.lock();
            // Many partitions, each with a little ahead, must not add up without end.
            let all_full = state.buffered_bytes() >= self.limits.answer;
            for (partition, assigned) in &mut state.partitions {
                let leader = cluster.leader(&partition.topic, partition.partition);
                if assigned.position == Position::Known
                    && let Some((_, epoch)) = leader
                    && epoch > assigned.checked_epoch
                {
                    // A new leader may have lost what the one before it gave us.
                    assigned.checked_epoch = epoch;
                    if assigned.fetch.epoch >= 0 && assigned.fetch.epoch < epoch {
                        assigned.position = Position::Unchecked;
                    }
                }
                if let Some(not_before) = assigned.not_before
                    && not_before > now
                {
                    at_latest(not_before);
                    left_out.extend(leader.map(|(leader, _)| leader));
                    continue;
                }
                if assigned.position != Position::Known {
                    left_out.extend(leader.map(|(leader, _)| leader));
                    to_find.push(Lookup {
                        partition: partition.clone(),
                        version: assigned.version,
                        position: assigned.position,
                        place: assigned.fetch,
                    });
                    continue;
                }
                if assigned.paused || assigned.withheld || all_full {
                    left_out.extend(leader.map(|(leader, _)| leader));
                    continue;
                }
                let Some((leader, leader_epoch)) = leader else {
                    self.refresh.wanted = true;
                    continue;
                };
                assigned.preferred = assigned
                    .preferred
                    .filter(|&(replica, until)| until > now && cluster.broker(replica).is_some());
                let leader = assigned.preferred.map_or(leader, |(replica, _)| replica);
                let theirs = by_leader.entry(leader).or_default();
                theirs.waiting += assigned.buffered_bytes();
                theirs.full |= !assigned.has_room(self.limits.partition);
                let topic_id = cluster.topic(&partition.topic).map(|topic| topic.id);
                let wanted = Wanted {
                    topic_id: topic_id.unwrap_or_default(),
                    fetch_offset: assigned.fetch.offset,
                    leader_epoch,
                    // Set once it is known how many there are.
                    bytes_max: 0,
                };
                theirs.asked.push((partition.clone(), assigned.version, wanted));
            }
            let mut room_awaited = all_full;
            for (leader, theirs) in by_leader {
                // Its answer makes us look again.
                if self.busy.contains(&leader) {
                    continue;
                }
                let idle = self.idle.entry(leader).or_insert_with(|| Box::new(BrokerState::new()));
                match idle.not_before {
                    Some(at) if at > now => at_latest(at),
                    _ if !theirs.full && idle.appetite.has_room(theirs.waiting, self.limits) => {
                        let max_wait = self.shared.config.fetch_max_wait;
                        let max_wait = if left_out.contains(&leader) {
                            max_wait.min(WAIT_WITHOUT_ALL)
                        } else {
                            max_wait
                        };
                        to_fetch.push((leader, theirs.asked, max_wait));
                    }
                    _ => room_awaited = true,
                }
            }
            // Under the lock, so that nothing is taken in between unnoticed.
            state.room_awaited = room_awaited;
        }
        if !to_find.is_empty() && !self.finding {
            self.find(to_find);
        }
        let others = self.busy.len() + to_fetch.len() > 1;
        for request in to_fetch {
            self.fetch(request, others);
        }
        self.start_refresh(now);
        // One that runs already reports by itself; waking up for it would only burn time.
        if self.refresh.wanted && !self.refresh.running {
            at_latest(self.refresh.not_before);
        }
        look_again
    }

    fn fetch(&mut self, (leader, mut theirs, max_wait): Request, others: bool) {
        let mut state = self.idle.remove(&leader).unwrap_or_else(|| Box::new(BrokerState::new()));
        state.not_before = None;
        let share = state.appetite.share(theirs.len(), self.limits);
        for (_, _, wanted) in &mut theirs {
            wanted.bytes_max = i32::try_from(share).unwrap_or(i32::MAX);
        }
        self.busy.insert(leader);
        let shared = self.shared.clone();
        self.events.push(Box::pin(async move {
            let versions = theirs
                .iter()
                .map(|(partition, version, wanted)| {
                    (partition.clone(), (*version, wanted.fetch_offset))
                })
                .collect();
            let wanted =
                theirs.into_iter().map(|(partition, _, wanted)| (partition, wanted)).collect();
            let began = Instant::now();
            let Shared { lanes, config, .. } = &*shared;
            let (mut state, result) =
                fetch_once(lanes, config, leader, state, wanted, max_wait, others).await;
            if result.is_err() {
                state.session.reset();
            }
            Event::Fetched { broker: leader, state, versions, result, after: began.elapsed() }
        }));
    }

    fn find(&mut self, asked: Vec<Lookup>) {
        self.finding = true;
        let shared = self.shared.clone();
        self.events.push(Box::pin(async move {
            Event::Found(find(&shared.client, &shared.config, asked).await)
        }));
    }

    fn take_event(&mut self, event: Event) {
        let now = Instant::now();
        let backoff = self.shared.client.config().retry_backoff;
        match event {
            Event::Fetched { broker, mut state, versions, result, after } => {
                self.busy.remove(&broker);
                match result {
                    Ok(answers) => {
                        let leftovers = {
                            let state = self.shared.lock();
                            let buffered = |partition| {
                                state.partitions.get(partition).map_or(0, |p| p.buffered_bytes())
                            };
                            versions.keys().map(buffered).sum::<usize>() > 0
                        };
                        let meal = Meal {
                            partitions: versions.len(),
                            bytes: answers.iter().map(|answer| answer.bytes).sum(),
                            largest: answers.iter().map(|answer| answer.bytes).max().unwrap_or(0),
                            took: after,
                            leftovers,
                        };
                        state.appetite.learn(&meal, self.limits);
                        self.shared.counters.fetch_time.add_time(after);
                        self.shared.counters.fetched(&answers);
                        self.note_answered(&versions, &answers, now);
                        for answer in answers {
                            if let Some(&asked) = versions.get(&answer.partition) {
                                self.take_answer(answer, asked, now + backoff);
                            }
                        }
                    }
                    Err(error) => {
                        tracing::debug!(broker, %error, "fetch failed");
                        self.give_up_preferred(broker);
                        state.not_before = Some(now + backoff);
                        self.refresh.wanted = true;
                        if !error.is_retriable() {
                            self.shared.report(error);
                        }
                    }
                }
                self.idle.insert(broker, state);
            }
            Event::Found(findings) => {
                self.finding = false;
                for finding in findings {
                    self.take_finding(finding, now + backoff);
                }
            }
            Event::Refreshed => {
                self.refresh.running = false;
                self.shared.group_work.notify_one();
            }
        }
    }

    /// Notes that a broker has answered for all partitions it was asked for. In a session it does not mention those that
    /// have nothing.
    fn note_answered(
        &self,
        asked: &HashMap<TopicPartition, (u64, i64)>,
        answers: &[Answer],
        now: Instant,
    ) {
        let failed = answers.iter().filter(|answer| answer.code != ErrorCode::None);
        let failed: HashSet<_> = failed.map(|answer| &answer.partition).collect();
        let mut state = self.shared.lock();
        for (partition, (version, _)) in asked {
            if let Some(assigned) = state.partitions.get_mut(partition)
                && assigned.version == *version
                && !failed.contains(partition)
            {
                assigned.answered = Some(now);
            }
        }
    }

    /// Goes back to the leaders after a replica did not answer.
    fn give_up_preferred(&self, broker: i32) {
        for assigned in self.shared.lock().partitions.values_mut() {
            assigned.preferred = assigned.preferred.filter(|(replica, _)| *replica != broker);
        }
    }

    fn take_answer(&mut self, answer: Answer, (version, asked): (u64, i64), retry_at: Instant) {
        let mut state = self.shared.lock();
        let Answer { partition, code, records, high_watermark, preferred, bytes: _ } = answer;
        let prefer_until = Instant::now() + self.shared.client.config().metadata_max_age;
        let mut from_follower = false;
        if let Ok(assigned) = state.assigned_mut(&partition) {
            match (code, preferred) {
                (ErrorCode::None, Some(replica)) => {
                    assigned.preferred = Some((replica, prefer_until));
                }
                (ErrorCode::None, None) => {}
                // Whatever a replica cannot do, the leader may.
                _ => from_follower = assigned.preferred.take().is_some(),
            }
        }
        match code {
            ErrorCode::None => {
                match records {
                    Some(Ok(records)) => {
                        if state.store(records, version) {
                            drop(state);
                            self.shared.ready.notify_one();
                        }
                    }
                    Some(Err(error)) => {
                        // Reading it again would fail again; the application may seek past it.
                        if let Ok(assigned) = state.assigned_mut(&partition)
                            && assigned.version == version
                        {
                            assigned.not_before = Some(retry_at + CORRUPT_PAUSE);
                            drop(state);
                            self.shared.report(error);
                        }
                    }
                    None => {
                        if let Ok(assigned) = state.assigned_mut(&partition) {
                            assigned.high_watermark = Some(high_watermark);
                        }
                    }
                }
            }
            // A replica may lag behind; the leader says whether the offset exists.
            ErrorCode::OffsetOutOfRange if from_follower => {}
            ErrorCode::OffsetOutOfRange => {
                // A broker that leads no more says nothing about what the next one has given.
                if !state.partitions.get(&partition).is_some_and(|p| p.awaits(version, asked)) {
                    return;
                }
                let policy = self.shared.config.offset_reset;
                let reason = format!("offset {asked} is out of range");
                state.reset(&partition, version, policy, &reason);
                if policy == OffsetReset::None {
                    // It waits for a seek, and the application is to hear why.
                    drop(state);
                    self.shared.ready.notify_one();
                } else if let Ok(assigned) = state.assigned_mut(&partition) {
                    // A leader that finds no offset within its log would be asked without end.
                    assigned.not_before = Some(retry_at);
                }
            }
            code => {
                if let Ok(assigned) = state.assigned_mut(&partition)
                    && assigned.version == version
                {
                    assigned.not_before = Some(retry_at);
                }
                drop(state);
                self.refresh.wanted = true;
                let error = Error::broker(partition.to_string(), code);
                tracing::debug!(%error, "fetch of a partition failed");
                if !error.is_retriable() && code != ErrorCode::UnknownTopicId {
                    self.shared.report(error);
                }
            }
        }
    }

    fn take_finding(&mut self, finding: Finding, retry_at: Instant) {
        let Finding { partition, version, result } = finding;
        let mut state = self.shared.lock();
        match result {
            Ok(Found::At(place)) => {
                state.found(&partition, version, place);
                // The leader has just told, so there is nothing to check about it.
                let cluster = self.shared.client.cluster();
                if let Ok(assigned) = state.assigned_mut(&partition)
                    && let Some((_, epoch)) = cluster.leader(&partition.topic, partition.partition)
                {
                    assigned.checked_epoch = epoch;
                }
            }
            Ok(Found::Committed(place)) => {
                state.found(&partition, version, place);
                if let Ok(assigned) = state.assigned_mut(&partition)
                    && assigned.version == version
                {
                    assigned.committed = Some(place.offset);
                }
            }
            Ok(Found::EndOfEpoch(end)) => {
                state.checked(&partition, version, end, self.shared.config.offset_reset);
                drop(state);
                self.shared.ready.notify_one();
            }
            Ok(Found::NothingCommitted) => {
                let policy = self.shared.config.offset_reset;
                state.reset(&partition, version, policy, "nothing was committed for it");
                drop(state);
                self.shared.ready.notify_one();
            }
            Err(error) => {
                if let Ok(assigned) = state.assigned_mut(&partition)
                    && assigned.version == version
                {
                    assigned.not_before = Some(retry_at);
                    drop(state);
                    self.refresh.wanted = true;
                    if !error.is_retriable() {
                        self.shared.report(error);
                    }
                }
            }
        }
    }

    fn start_refresh(&mut self, now: Instant) {
        let config = self.shared.client.config();
        let old = now.duration_since(self.refresh.last) >= config.metadata_max_age;
        if self.refresh.running || !(self.refresh.wanted || old) || self.refresh.not_before > now {
            return;
        }
        let names = self.shared.topic_names();
        let all = self.shared.matches_topics();
        if names.is_empty() && !all {
            self.refresh.wanted = false;
            return;
        }
        self.refresh = Refresh {
            wanted: false,
            running: true,
            not_before: now + config.retry_backoff,
            last: now,
        };
        let client = self.shared.client.clone();
        let shared = self.shared.clone();
        let create = self.shared.config.allow_auto_create_topics;
        self.events.push(Box::pin(async move {
            let refreshed = if all {
                client.refresh_all().await.map(|cluster| shared.match_topics(&cluster))
            } else {
                client.refresh(&names, create).await.map(drop)
            };
            if let Err(error) = refreshed {
                tracing::debug!(%error, "metadata refresh failed");
            }
            Event::Refreshed
        }));
    }
}

/// How often an idle consumer looks whether its metadata has grown old.
const IDLE_LOOK: Duration = Duration::from_secs(30);
/// A partition with unreadable records is left alone for so long.
const CORRUPT_PAUSE: Duration = Duration::from_secs(5);
