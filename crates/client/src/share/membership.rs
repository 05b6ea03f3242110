//! The task that keeps a share consumer in its group: heartbeats, and the assignment they bring.
//!
//! There is nothing to reconcile: several members read one partition, so that each takes up and
//! gives up what the broker says at once.

use std::sync::Arc;
use std::time::Duration;

use fleuve_os::{OsRandom, Random};
use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::share_group_heartbeat_request::ShareGroupHeartbeatRequest;
use fleuve_protocol::messages::share_group_heartbeat_response::ShareGroupHeartbeatResponse;
use fleuve_types::Uuid;
use tokio::time::Instant;

use super::Shared;
use crate::client::OwnLanes;
use crate::error::{Error, Result, check_said};
use crate::timing::Backoff;

pub(super) struct Membership {
    shared: Arc<Shared>,
    lanes: OwnLanes,
    backoff: Backoff,
    interval: Duration,
    next_heartbeat: Instant,
    /// The subscription that the broker knows of; `None` makes the next heartbeat name everything.
    told_subscription: Option<u64>,
    /// An error that only another subscription mends.
    failed_subscription: Option<u64>,
}

/// The epochs by which a member says what it wants.
const JOINING_EPOCH: i32 = 0;
const LEAVING_EPOCH: i32 = -1;
/// A broker that asks for no pause at all would be sent heartbeats without end.
const INTERVAL_MS_MIN: u64 = 50;
/// How long to wait for heartbeats where a broker has not said it yet.
const FIRST_INTERVAL: Duration = Duration::from_secs(5);
/// How long a closing consumer waits for its group.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a task without anything to do looks around.
const IDLE_LOOK: Duration = Duration::from_secs(30);

/// What the membership is to do next.
enum Duty {
    /// Stay a member, or become one.
    Stay { poll_by: Instant },
    /// Leave until the next poll or subscription.
    StepOut,
    /// Leave for good.
    Close,
}

impl Membership {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let client = shared.client.config();
        let backoff = Backoff::new(client.retry_backoff, client.retry_backoff_max);
        Self {
            lanes: OwnLanes::new(shared.client.clone()),
            shared,
            backoff,
            interval: FIRST_INTERVAL,
            next_heartbeat: Instant::now(),
            told_subscription: None,
            failed_subscription: None,
        }
    }

    pub(super) async fn run(mut self) {
        let shared = self.shared.clone();
        loop {
            let work = shared.group_work.notified();
            tokio::pin!(work);
            work.as_mut().enable();
            match self.duty() {
                Duty::Close => break,
                Duty::StepOut => {
                    self.leave().await;
                    tokio::select! {
                        () = &mut work => {}
                        () = tokio::time::sleep(IDLE_LOOK) => {}
                    }
                }
                Duty::Stay { poll_by } => {
                    if self.told_subscription != Some(shared.lock().subscription_version)
                        && self.backoff_is_over()
                    {
                        self.next_heartbeat = Instant::now();
                    }
                    if Instant::now() >= self.next_heartbeat {
                        self.beat().await;
                        continue;
                    }
                    tokio::select! {
                        () = &mut work => {}
                        () = tokio::time::sleep_until(self.next_heartbeat.min(poll_by)) => {}
                    }
                }
            }
        }
        // What is said at the end is said as a member.
        let mut ended = shared.fetcher_ended.subscribe();
        let farewell = async {
            ended.wait_for(|ended| *ended).await.ok();
            self.leave().await;
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, farewell).await.is_err() {
            tracing::debug!("the group did not answer while the share consumer closed");
        }
        shared.left.send_replace(true);
    }

    fn duty(&self) -> Duty {
        let state = self.shared.lock();
        if state.closing {
            return Duty::Close;
        }
        let failed = self.failed_subscription == Some(state.subscription_version);
        if state.subscription.is_empty() || failed {
            return Duty::StepOut;
        }
        let now = Instant::now();
        let poll_by = state.last_poll + self.shared.config.max_poll_interval;
        if state.polling {
            return Duty::Stay { poll_by: now + self.shared.config.max_poll_interval };
        }
        if poll_by <= now { Duty::StepOut } else { Duty::Stay { poll_by } }
    }

    /// Reports whether the last heartbeat was answered well, so that the next need not wait.
    fn backoff_is_over(&self) -> bool {
        self.told_subscription.is_some() || Instant::now() >= self.next_heartbeat
    }

    async fn beat(&mut self) {
        match self.try_beat().await {
            Ok((response, version)) => {
                self.backoff.reset();
                self.told_subscription = Some(version);
                self.take_response(response);
            }
            Err(error) => {
                let group = &self.shared.config.group_id;
                tracing::debug!(group, %error, "share group heartbeat failed");
                self.shared.client.forget_coordinator_after(group, &error);
                self.told_subscription = None;
                let mut pause = self.backoff.next_pause().min(self.interval);
                match error.code() {
                    Some(ErrorCode::FencedMemberEpoch | ErrorCode::UnknownMemberId) => {
                        // The group gave us up; we join again, at once if we were in it.
                        let mut state = self.shared.lock();
                        if state.member_epoch > JOINING_EPOCH {
                            pause = Duration::ZERO;
                        }
                        state.lose_assignment();
                    }
                    _ if !error.is_retriable() => {
                        let mut state = self.shared.lock();
                        state.lose_assignment();
                        self.failed_subscription = Some(state.subscription_version);
                        drop(state);
                        self.shared.report(error);
                    }
                    _ => {}
                }
                self.next_heartbeat = Instant::now() + pause;
            }
        }
    }

    async fn try_beat(&mut self) -> Result<(ShareGroupHeartbeatResponse, u64)> {
        let (member_id, epoch, names, version) = {
            let mut state = self.shared.lock();
            if state.member_id.is_empty() {
                let mut bytes = [0; 16];
                OsRandom.fill(&mut bytes);
                state.member_id = Uuid::from_random_bytes(bytes).to_string();
            }
            let names: Vec<_> = state.subscription.iter().map(|name| name.to_string()).collect();
            (state.member_id.clone(), state.member_epoch, names, state.subscription_version)
        };
        let everything = epoch == JOINING_EPOCH || self.told_subscription != Some(version);
        let mut request = self.request(member_id, epoch);
        if everything {
            request.rack_id = self.shared.config.rack.clone().map(Into::into);
            request.subscribed_topic_names = Some(names.into_iter().map(Into::into).collect());
        }
        Ok((self.call(&request).await?, version))
    }

    fn request(&self, member_id: String, member_epoch: i32) -> ShareGroupHeartbeatRequest {
        ShareGroupHeartbeatRequest {
            group_id: self.shared.config.group_id.clone().into(),
            member_id: member_id.into(),
            member_epoch,
            ..ShareGroupHeartbeatRequest::default()
        }
    }

    async fn call(
        &self,
        request: &ShareGroupHeartbeatRequest,
    ) -> Result<ShareGroupHeartbeatResponse> {
        let group = &self.shared.config.group_id;
        let coordinator = self.shared.client.coordinator(group).await?;
        let connection = self.lanes.grouping(coordinator).await?;
        let response = connection.call(request).await?;
        check_said(response.error_code, response.error_message.as_deref(), || {
            format!("share group {group}")
        })?;
        Ok(response)
    }

    fn take_response(&mut self, response: ShareGroupHeartbeatResponse) {
        let ms = u64::try_from(response.heartbeat_interval_ms).unwrap_or(0).max(INTERVAL_MS_MIN);
        self.interval = Duration::from_millis(ms);
        self.next_heartbeat = Instant::now() + self.interval;
        let mut state = self.shared.lock();
        state.member_epoch = response.member_epoch;
        if let Some(assignment) = response.assignment {
            let topics = assignment.topic_partitions.iter();
            let assigned = topics.flat_map(|topic| {
                topic.partitions.iter().map(|&partition| (topic.topic_id, partition))
            });
            state.assigned = assigned.collect();
            drop(state);
            self.shared.fetch_work.notify_one();
        }
    }

    /// Tells the group, so that it need not wait for the session to time out.
    async fn leave(&mut self) {
        let (member_id, epoch) = {
            let mut state = self.shared.lock();
            let member = (state.member_id.clone(), state.member_epoch);
            state.lose_assignment();
            member
        };
        self.told_subscription = None;
        self.next_heartbeat = Instant::now();
        if member_id.is_empty() || epoch <= JOINING_EPOCH {
            return;
        }
        let left: Result<_, Error> = self.call(&self.request(member_id, LEAVING_EPOCH)).await;
        if let Err(error) = left {
            tracing::debug!(%error, "leaving a share group failed");
        }
    }
}
