//! The group protocol of KIP-848: the broker says what this member is to read, and the member
//! changes over at its own pace.
//!
//! ```text
//!            heartbeat, epoch 0            target
//!   outside ───────────────────▶ joining ────────▶ reconciling ──▶ stable
//!      ▲                            ▲                  ▲             │
//!      │ epoch -1 (-2 if static)    └── fenced         └── target ───┘
//! ```
//!
//! A heartbeat names only what has changed since the last one that was answered; after any failure
//! the next one names everything. Reconciling gives up first what the target lacks, tells the
//! broker, and takes up the rest; the broker lets nobody have a partition that somebody still
//! holds.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::time::Duration;

use fleuve_os::{OsRandom, Random};
use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::consumer_group_heartbeat_request::{
    ConsumerGroupHeartbeatRequest, TopicPartitions,
};
use fleuve_protocol::messages::consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse;
use fleuve_types::{TopicPartition, Uuid};
use tokio::time::Instant;
use tracing::Instrument;

use super::membership::{End, Membership};
use crate::error::{Error, Result, check_said};

/// What the broker wants of this member and what it was told.
#[derive(Default)]
pub(super) struct Reconciliation {
    /// What this member is to read, as the broker said last.
    target: BTreeSet<(Uuid, i32)>,
    /// How often to send heartbeats, as the broker says.
    interval: Duration,
    /// The next heartbeat names everything.
    full: bool,
    told_subscription: u64,
    told_owned: BTreeSet<(Uuid, i32)>,
    /// What a heartbeat brought while something else was going on.
    end: Option<End>,
    /// Until when not to ask for the names of topics whose ids are unknown.
    ask_names_at: Option<Instant>,
}

/// The epochs by which a member says what it wants.
pub(super) const JOINING_EPOCH: i32 = 0;
pub(super) const LEAVING_EPOCH: i32 = -1;
/// A static member goes away for a while and keeps its place.
pub(super) const LEAVING_FOR_A_WHILE_EPOCH: i32 = -2;
/// The first version with patterns, and with member ids that members choose.
const FIRST_VERSION_WITH_PATTERNS: i16 = 1;

impl Membership {
    /// Joins the group, stays until something ends that, and clears up; breaks when the consumer
    /// closes.
    pub(super) async fn live_reconciling(&mut self) -> ControlFlow<()> {
        self.begin_joining();
        match self.stay_reconciling().await {
            Ok(End::Closing) => return ControlFlow::Break(()),
            Ok(End::Lost) => {
                self.give_up_all(true).await;
                if self.shared.lock().member.generation <= JOINING_EPOCH {
                    // It did not even take us in; asking again at once would be asking without end.
                    self.pause().await;
                }
            }
            Ok(End::Idle) => self.step_out().await,
            // The subscription ended, which the caller deals with.
            Ok(End::Rebalance) => {}
            Err(error) => {
                self.forget_member(None);
                self.give_up_all(true).await;
                self.stand_still(error).await;
            }
        }
        if self.shared.lock().closing { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn begin_joining(&mut self) {
        let mut state = self.shared.lock();
        if state.member.id.is_empty() {
            let mut bytes = [0; 16];
            OsRandom.fill(&mut bytes);
            state.member.id = Uuid::from_random_bytes(bytes).to_string();
        }
        state.member.generation = JOINING_EPOCH;
        drop(state);
        self.reconciliation = Reconciliation {
            full: true,
            interval: self.shared.config.heartbeat_interval,
            ..Reconciliation::default()
        };
        self.streams = super::streams::Progress::joining();
        self.next_heartbeat = Instant::now();
    }

    async fn stay_reconciling(&mut self) -> Result<End> {
        let mut noticed = self.shared.lock().subscription_version;
        loop {
            if let Some(end) = self.reconciliation.end.take() {
                return Ok(end);
            }
            let version = {
                let state = self.shared.lock();
                if !state.is_subscribed() && !state.closing {
                    return Ok(End::Rebalance);
                }
                state.subscription_version
            };
            let poll_by = match self.poll_by(version) {
                Ok(poll_by) => poll_by,
                Err(end) => return Ok(end),
            };
            if Instant::now() >= poll_by {
                return Ok(End::Idle);
            }
            if version != noticed {
                noticed = version;
                self.next_heartbeat = Instant::now();
            }
            if self.reconcile().await {
                // The broker waits to hear of it.
                self.next_heartbeat = Instant::now();
                continue;
            }
            let heartbeat_at = self.next_heartbeat;
            let commit_at = self.next_commit;
            tokio::select! {
                () = self.shared.group_work.notified() => {}
                () = tokio::time::sleep_until(poll_by) => {}
                () = tokio::time::sleep_until(commit_at) => self.commit_if_automatic().await,
                () = tokio::time::sleep_until(heartbeat_at) => self.beat().await?,
            }
        }
    }

    /// Comes one step nearer to the target; false if there is nothing to do.
    async fn reconcile(&mut self) -> bool {
        if self.shared.streams.is_some() {
            return self.reconcile_tasks().await;
        }
        let target = self.named_target().await;
        let owned: HashSet<_> = self.shared.lock().partitions.keys().cloned().collect();
        let gone: HashSet<_> = owned.difference(&target).cloned().collect();
        if !gone.is_empty() {
            let span = self.rebalance_span();
            span.record("revoked", gone.len());
            let giving_up = async {
                self.wait_for_application(&gone).await;
                self.commit_if_automatic().await;
                if self.reconciliation.end.is_none() {
                    self.give_up(gone, false).await;
                }
            };
            giving_up.instrument(span).await;
            return true;
        }
        let mut new: Vec<_> = target.difference(&owned).cloned().collect();
        if new.is_empty() {
            return false;
        }
        new.sort_unstable();
        let span = self.rebalance_span();
        span.record("assigned", new.len());
        self.take(new).instrument(span).await;
        true
    }

    /// Names the target's topics, as far as their names are known.
    async fn named_target(&mut self) -> HashSet<TopicPartition> {
        let target = self.reconciliation.target.clone();
        let cluster = self.shared.client.cluster();
        let unknown: BTreeSet<Uuid> = target
            .iter()
            .map(|(id, _)| *id)
            .filter(|id| cluster.topic_name(id).is_none())
            .collect();
        let now = Instant::now();
        if !unknown.is_empty() && self.reconciliation.ask_names_at.is_none_or(|at| at <= now) {
            let client = self.shared.client.clone();
            let pause = client.config().retry_backoff;
            self.reconciliation.ask_names_at = Some(now + pause);
            let ids: Vec<_> = unknown.into_iter().collect();
            let asked = async move { client.refresh_ids(&ids).await };
            if let Err(error) = self.while_alive(asked).await {
                tracing::debug!(%error, "metadata refresh failed");
            }
        }
        let cluster = self.shared.client.cluster();
        let named = target.into_iter().filter_map(|(id, partition)| {
            let name = cluster.topic_name(&id)?;
            Some(TopicPartition::new(name.clone(), partition))
        });
        named.collect()
    }

    fn owned_by_id(&self) -> BTreeSet<(Uuid, i32)> {
        let cluster = self.shared.client.cluster();
        let state = self.shared.lock();
        let owned = state.partitions.keys().filter_map(|partition| {
            let id = cluster.topic(&partition.topic)?.id;
            Some((id, partition.partition))
        });
        owned.collect()
    }

    /// Sends a heartbeat while something else is waited for; what ends the membership is kept for
    /// afterwards.
    pub(super) async fn beat_in_between(&mut self) {
        if let Err(error) = self.beat().await {
            self.shared.report(error);
            self.reconciliation.end = Some(End::Lost);
            self.next_heartbeat = Instant::now() + self.reconciliation.interval;
        }
    }

    /// Sends a heartbeat and takes note of the answer; only errors that no repetition mends come
    /// back.
    async fn beat(&mut self) -> Result<()> {
        let answered = if self.shared.streams.is_some() {
            let full = self.reconciliation.full;
            self.beat_tasks(full).await.map(|()| self.reconciliation.full = false)
        } else {
            self.try_beat().await.map(|response| self.take_response(response))
        };
        match answered {
            Ok(()) => {
                self.backoff.reset();
                Ok(())
            }
            Err(error) => {
                self.shared.client.forget_coordinator_after(&self.group, &error);
                self.reconciliation.full = true;
                match error.code() {
                    Some(ErrorCode::FencedMemberEpoch) => {
                        tracing::debug!(group = self.group, "fenced; joining again");
                        self.reconciliation.end = Some(End::Lost);
                    }
                    Some(ErrorCode::UnknownMemberId) => {
                        tracing::debug!(group = self.group, "unknown member; joining again");
                        self.reconciliation.end = Some(End::Lost);
                    }
                    // The member that had the instance id before us has not left yet.
                    Some(ErrorCode::UnreleasedInstanceId) => {}
                    _ if !error.is_retriable() => return Err(error),
                    _ => {}
                }
                tracing::debug!(group = self.group, %error, "heartbeat failed");
                let pause = self.backoff.next_pause().min(self.reconciliation.interval);
                self.next_heartbeat = Instant::now() + pause;
                Ok(())
            }
        }
    }

    /// Whether a heartbeat in between has ended the membership.
    pub(super) fn has_ended(&self) -> bool {
        self.reconciliation.end.is_some()
    }

    pub(super) fn beats_every(&mut self, interval: Duration) {
        self.reconciliation.interval = interval;
    }

    async fn try_beat(&mut self) -> Result<ConsumerGroupHeartbeatResponse> {
        let connection = self.connection().await?;
        let version = connection.version_of::<ConsumerGroupHeartbeatRequest>(i16::MAX)?;
        let config = &self.shared.config;
        let owned = self.owned_by_id();
        let (member, subscription, pattern, subscription_version) = {
            let state = self.shared.lock();
            let version = state.subscription_version;
            (state.member.clone(), state.subscription.clone(), state.pattern.clone(), version)
        };
        if pattern.is_some() && version < FIRST_VERSION_WITH_PATTERNS {
            return Err(Error::Unsupported {
                broker: connection.broker().to_owned(),
                operation: "subscription by pattern with group.protocol=consumer",
            });
        }
        let full = self.reconciliation.full;
        let mut request = ConsumerGroupHeartbeatRequest {
            group_id: self.group.clone().into(),
            member_id: member.id.into(),
            member_epoch: member.generation,
            instance_id: self.instance_id(true),
            rebalance_timeout_ms: -1,
            ..ConsumerGroupHeartbeatRequest::default()
        };
        if full {
            request.rebalance_timeout_ms = config.max_poll_interval.as_millis() as i32;
            request.rack_id = config.rack.clone().map(Into::into);
            request.server_assignor = config.remote_assignor.clone().map(Into::into);
        }
        if full || subscription_version != self.reconciliation.told_subscription {
            let names = subscription.iter().map(|name| name.to_string().into());
            request.subscribed_topic_names = Some(names.collect());
            if version >= FIRST_VERSION_WITH_PATTERNS {
                let text = pattern.map(|pattern| pattern.text.clone()).unwrap_or_default();
                request.subscribed_topic_regex = Some(text.into());
            }
        }
        if member.generation == JOINING_EPOCH {
            request.topic_partitions = Some(Vec::new());
        } else if full || owned != self.reconciliation.told_owned {
            request.topic_partitions = Some(by_topic(&owned));
        }
        let response = connection.submit(&request, version)?.wait().await?;
        check_said(response.error_code, response.error_message.as_deref(), || {
            format!("group {}", self.group)
        })?;
        self.reconciliation.full = false;
        self.reconciliation.told_subscription = subscription_version;
        self.reconciliation.told_owned =
            if member.generation == JOINING_EPOCH { BTreeSet::new() } else { owned };
        Ok(response)
    }

    fn take_response(&mut self, response: ConsumerGroupHeartbeatResponse) {
        let ms = u64::try_from(response.heartbeat_interval_ms).unwrap_or(0).max(INTERVAL_MS_MIN);
        self.reconciliation.interval = Duration::from_millis(ms);
        self.next_heartbeat = Instant::now() + self.reconciliation.interval;
        {
            let mut state = self.shared.lock();
            state.member.generation = response.member_epoch;
            if let Some(id) = &response.member_id
                && !id.is_empty()
            {
                state.member.id = id.to_string();
            }
        }
        if let Some(assignment) = response.assignment {
            let target = assignment.topic_partitions.iter().flat_map(|topic| {
                topic.partitions.iter().map(|&partition| (topic.topic_id, partition))
            });
            self.reconciliation.target = target.collect();
            self.reconciliation.ask_names_at = None;
        }
    }

    /// Says good-bye; a static member keeps its place for as long as its session lasts.
    pub(super) async fn leave_reconciling(&mut self) -> Result<()> {
        if self.shared.streams.is_some() {
            return self.leave_tasks().await;
        }
        let member = self.shared.lock().member.clone();
        let is_static = self.shared.config.group_instance_id.is_some();
        let connection = self.connection().await?;
        let version = connection.version_of::<ConsumerGroupHeartbeatRequest>(i16::MAX)?;
        let request = ConsumerGroupHeartbeatRequest {
            group_id: self.group.clone().into(),
            member_id: member.id.into(),
            member_epoch: if is_static { LEAVING_FOR_A_WHILE_EPOCH } else { LEAVING_EPOCH },
            instance_id: self.instance_id(true),
            rebalance_timeout_ms: -1,
            ..ConsumerGroupHeartbeatRequest::default()
        };
        let response = connection.submit(&request, version)?.wait().await?;
        check_said(response.error_code, response.error_message.as_deref(), || {
            format!("group {}", self.group)
        })
    }
}

/// A broker that asks for no pause at all would be sent heartbeats without end.
pub(super) const INTERVAL_MS_MIN: u64 = 50;

fn by_topic(partitions: &BTreeSet<(Uuid, i32)>) -> Vec<TopicPartitions> {
    let mut topics: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
    for &(topic_id, partition) in partitions {
        topics.entry(topic_id).or_default().push(partition);
    }
    let topics = topics.into_iter();
    topics.map(|(topic_id, partitions)| TopicPartitions { topic_id, partitions }).collect()
}
