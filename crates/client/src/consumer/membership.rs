//! The task that keeps a consumer in its group, by the classic group protocol.
//!
//! ```text
//!            subscribe                  assignment
//!   outside ──────────▶ joining ────────────────────▶ stable ──┐ heartbeats, automatic commits
//!      ▲                  ▲  ▲                         │  │    │
//!      │ unsubscribe,     │  └── given up by the group ┘  └────┘
//!      │ close            └───── rebalance: wait for the application, revoke
//! ```
//!
//! Heartbeats go out whatever the application does, also while it is told about a rebalance. A
//! rebalance waits until the application comes back to poll, up to `max.poll.interval.ms`; an
//! application that does not come back at all loses its membership, as in Java.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::heartbeat_request::HeartbeatRequest;
use fleuve_protocol::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use fleuve_types::TopicPartition;
use tokio::time::Instant;

use super::Shared;
use super::state::{Member, Start};
use crate::client::Lane;
use crate::connection::Connection;
use crate::error::{Error, Result, check};
use crate::timing::Backoff;

pub(super) struct Membership {
    pub(super) shared: Arc<Shared>,
    pub(super) group: String,
    backoff: Backoff,
    pub(super) next_heartbeat: Instant,
    next_commit: Instant,
    /// Partition counts that this member divided as leader; a change calls for a new division.
    pub(super) divided: Option<BTreeMap<String, usize>>,
}

/// Why a stable membership ended.
enum End {
    /// The group divides anew.
    Rebalance,
    /// The group has given this member up.
    Lost,
    /// The application did not poll for too long.
    Idle,
    /// The consumer closes.
    Closing,
}

impl Membership {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        Self {
            group: shared.config.group_id.clone().unwrap_or_default(),
            backoff: shared.client.retry_backoff(),
            next_heartbeat: now,
            next_commit: now + shared.config.auto_commit_interval,
            divided: None,
            shared,
        }
    }

    pub(super) async fn run(mut self) {
        while self.wait_for_subscription().await {
            match self.join().await {
                Ok(assignment) => {
                    self.backoff.reset();
                    self.take(assignment).await;
                    if self.stay().await.is_break() {
                        break;
                    }
                }
                Err(error) => {
                    if !self.take_join_error(error).await {
                        break;
                    }
                }
            }
        }
        self.leave().await;
        self.shared.left.send_replace(true);
    }

    /// Waits until there is something to join for; false when the consumer closes.
    ///
    /// A consumer whose partitions are assigned by hand may still commit automatically.
    async fn wait_for_subscription(&mut self) -> bool {
        loop {
            {
                let state = self.shared.lock();
                if state.closing {
                    return false;
                }
                if !state.subscription.is_empty() {
                    return true;
                }
            }
            tokio::select! {
                () = self.shared.group_work.notified() => {}
                () = tokio::time::sleep_until(self.next_commit) => self.commit_if_automatic().await,
            }
        }
    }

    /// Stays in the group until something ends it; breaks when the consumer closes.
    async fn stay(&mut self) -> std::ops::ControlFlow<()> {
        let subscription = self.shared.lock().subscription_version;
        match self.keep_alive(subscription).await {
            End::Rebalance => {
                self.wait_for_application().await;
                self.commit_if_automatic().await;
                self.give_up_partitions(false).await;
            }
            End::Lost => self.give_up_partitions(true).await,
            End::Idle => {
                tracing::warn!(
                    group = self.group,
                    "leaving the group: no poll for longer than max.poll.interval.ms"
                );
                self.leave_group().await;
                self.give_up_partitions(true).await;
                self.wait_for_poll().await;
            }
            End::Closing => return std::ops::ControlFlow::Break(()),
        }
        std::ops::ControlFlow::Continue(())
    }

    /// Sends heartbeats and commits until the membership ends.
    async fn keep_alive(&mut self, subscription: u64) -> End {
        loop {
            let poll_by = {
                let state = self.shared.lock();
                if state.closing {
                    return End::Closing;
                }
                if state.subscription_version != subscription {
                    return End::Rebalance;
                }
                // Waiting inside a poll is not being away.
                let seen = if state.polling { Instant::now() } else { state.last_poll };
                seen + self.shared.config.max_poll_interval
            };
            if self.partitions_changed() {
                return End::Rebalance;
            }
            let now = Instant::now();
            if now >= poll_by {
                return End::Idle;
            }
            let heartbeat_at = self.next_heartbeat;
            let commit_at = self.next_commit;
            tokio::select! {
                () = self.shared.group_work.notified() => {}
                () = tokio::time::sleep_until(poll_by) => {}
                () = tokio::time::sleep_until(commit_at) => self.commit_if_automatic().await,
                () = tokio::time::sleep_until(heartbeat_at) => {
                    if let Some(end) = self.heartbeat().await {
                        return end;
                    }
                }
            }
        }
    }

    /// Sends one heartbeat, and says if it ends the membership.
    async fn heartbeat(&mut self) -> Option<End> {
        let interval = self.shared.config.heartbeat_interval;
        match self.try_heartbeat().await {
            Ok(()) => {
                self.backoff.reset();
                self.next_heartbeat = Instant::now() + interval;
                None
            }
            Err(error) => {
                self.shared.client.forget_coordinator_after(&self.group, &error);
                match error.code() {
                    Some(ErrorCode::RebalanceInProgress) => {
                        self.next_heartbeat = Instant::now() + interval;
                        Some(End::Rebalance)
                    }
                    Some(ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration) => {
                        self.forget_member(error.code());
                        Some(End::Lost)
                    }
                    Some(_) if !error.is_retriable() => {
                        self.forget_member(None);
                        self.shared.report(error);
                        Some(End::Lost)
                    }
                    _ => {
                        let pause = self.backoff.next_pause().min(interval);
                        self.next_heartbeat = Instant::now() + pause;
                        None
                    }
                }
            }
        }
    }

    async fn try_heartbeat(&self) -> Result<()> {
        let connection = self.connection().await?;
        let version = connection.version_of::<HeartbeatRequest>(i16::MAX)?;
        let Member { id, generation } = self.shared.lock().member.clone();
        let request = HeartbeatRequest {
            group_id: self.group.clone().into(),
            generation_id: generation,
            member_id: id.into(),
            group_instance_id: self.instance_id(version >= 3),
        };
        let timeout = self.shared.config.session_timeout;
        let response = connection.submit(&request, version)?.within(timeout).wait().await?;
        check(response.error_code, || format!("group {}", self.group))
    }

    /// Reports whether topics that this member divided as leader have other partitions now.
    fn partitions_changed(&self) -> bool {
        let Some(divided) = &self.divided else { return false };
        let cluster = self.shared.client.cluster();
        divided.iter().any(|(name, count)| {
            cluster.topic(name).map_or(0, |topic| topic.partitions.len()) != *count
        })
    }

    /// Takes over the assigned partitions and tells the application.
    async fn take(&mut self, assignment: Vec<TopicPartition>) {
        if self.divided.is_some() && assignment.is_empty() {
            tracing::debug!(group = self.group, "no partitions were assigned to this member");
        }
        let names: HashSet<_> =
            assignment.iter().map(|partition| partition.topic.clone()).collect();
        let names: Vec<_> = names.into_iter().collect();
        if !names.is_empty()
            && let Err(error) = self.shared.client.refresh(&names, false).await
        {
            tracing::debug!(%error, "metadata refresh failed");
        }
        {
            let mut state = self.shared.lock();
            for partition in &assignment {
                state.add(partition.clone(), Start::Committed);
            }
        }
        if let Some(listener) = self.shared.listener() {
            self.while_alive(listener.assigned(&assignment)).await;
        }
        self.shared.fetch_work.notify_one();
    }

    /// Takes all partitions away, after telling the application.
    async fn give_up_partitions(&mut self, lost: bool) {
        self.divided = None;
        let mut owned: Vec<_> = self.shared.lock().partitions.keys().cloned().collect();
        if owned.is_empty() {
            return;
        }
        owned.sort_unstable();
        if let Some(listener) = self.shared.listener() {
            if lost {
                listener.lost(&owned).await;
            } else {
                self.while_alive(listener.revoked(&owned)).await;
            }
        }
        self.shared.lock().remove(&owned.into_iter().collect());
    }

    /// Waits until the application is done with what the last poll gave it.
    async fn wait_for_application(&mut self) {
        let shared = self.shared.clone();
        let done = async {
            loop {
                let give_up_at = {
                    let state = shared.lock();
                    if !state.lent || state.closing {
                        return;
                    }
                    state.last_poll + shared.config.max_poll_interval
                };
                let work = shared.group_work.notified();
                if tokio::time::timeout_at(give_up_at, work).await.is_err() {
                    return;
                }
            }
        };
        self.while_alive(done).await;
    }

    async fn wait_for_poll(&mut self) {
        let before = self.shared.lock().last_poll;
        loop {
            {
                let state = self.shared.lock();
                if state.last_poll > before || state.closing {
                    return;
                }
            }
            self.shared.group_work.notified().await;
        }
    }

    /// Sends heartbeats while something else is waited for; what they say can wait too.
    async fn while_alive<T>(&mut self, future: impl Future<Output = T>) -> T {
        if self.shared.lock().member.id.is_empty() {
            return future.await;
        }
        tokio::pin!(future);
        loop {
            let heartbeat_at = self.next_heartbeat;
            tokio::select! {
                result = &mut future => return result,
                () = tokio::time::sleep_until(heartbeat_at) => {
                    if let Err(error) = self.try_heartbeat().await {
                        tracing::debug!(%error, "heartbeat during a rebalance");
                    }
                    self.next_heartbeat = Instant::now() + self.shared.config.heartbeat_interval;
                }
            }
        }
    }

    /// Decides what to do after a failed join; false when the consumer closes.
    async fn take_join_error(&mut self, error: Error) -> bool {
        tracing::debug!(group = self.group, %error, "joining failed");
        match error.code() {
            Some(code @ (ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration)) => {
                self.forget_member(Some(code));
                self.give_up_partitions(true).await;
            }
            Some(ErrorCode::RebalanceInProgress) => {}
            _ if error.is_retriable() => {
                let pause = self.backoff.next_pause();
                tokio::select! {
                    () = self.shared.group_work.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
            _ => {
                self.forget_member(None);
                self.shared.report(error);
                // The same join would fail the same way: wait for another subscription.
                let version = self.shared.lock().subscription_version;
                loop {
                    {
                        let state = self.shared.lock();
                        if state.closing || state.subscription_version != version {
                            break;
                        }
                    }
                    self.shared.group_work.notified().await;
                }
            }
        }
        !self.shared.lock().closing
    }

    /// Forgets who we were; after a mere change of generation the id stays good.
    fn forget_member(&self, code: Option<ErrorCode>) {
        let mut state = self.shared.lock();
        state.member.generation = -1;
        if code != Some(ErrorCode::IllegalGeneration) {
            state.member.id.clear();
        }
    }

    async fn commit_if_automatic(&mut self) {
        let config = &self.shared.config;
        self.next_commit = Instant::now() + config.auto_commit_interval;
        if !config.auto_commit || config.group_id.is_none() {
            return;
        }
        let offsets = self.shared.lock().uncommitted();
        if offsets.is_empty() {
            return;
        }
        // A heartbeat must not wait for a coordinator that is slow to take commits.
        let shared = self.shared.clone();
        let commit = async move { shared.commit(offsets).await };
        if let Err(error) = self.while_alive(commit).await {
            tracing::warn!(group = self.group, %error, "automatic commit failed");
        }
    }

    /// Ends the membership for good.
    async fn leave(&mut self) {
        let within = CLOSE_TIMEOUT;
        let farewell = async {
            self.commit_if_automatic().await;
            self.leave_group().await;
        };
        if tokio::time::timeout(within, farewell).await.is_err() {
            tracing::debug!("the group did not answer while the consumer closed");
        }
    }

    /// Tells the group, so that it need not wait for the session to time out. A static member
    /// leaves silently, because it means to come back.
    async fn leave_group(&mut self) {
        let member = std::mem::take(&mut self.shared.lock().member);
        if member.id.is_empty() || self.shared.config.group_instance_id.is_some() {
            return;
        }
        let attempt = async {
            let connection = self.connection().await?;
            let version = connection.version_of::<LeaveGroupRequest>(i16::MAX)?;
            let mut request =
                LeaveGroupRequest { group_id: self.group.clone().into(), ..Default::default() };
            if version >= 3 {
                request.members =
                    vec![MemberIdentity { member_id: member.id.into(), ..Default::default() }];
            } else {
                request.member_id = member.id.into();
            }
            let response = connection.submit(&request, version)?.wait().await?;
            check(response.error_code, || format!("group {}", self.group))
        };
        if let Err(error) = attempt.await {
            tracing::debug!(group = self.group, %error, "leaving failed");
        }
    }

    pub(super) async fn connection(&self) -> Result<Connection> {
        let coordinator = self.shared.client.coordinator(&self.group).await?;
        self.shared.client.connection(coordinator, Lane::Group).await
    }

    pub(super) fn instance_id(&self, supported: bool) -> Option<fleuve_protocol::Str> {
        self.shared.config.group_instance_id.clone().filter(|_| supported).map(Into::into)
    }

    /// A join waits for the slowest member.
    pub(super) fn join_timeout(&self) -> Duration {
        self.shared.config.max_poll_interval + JOIN_GRACE
    }
}

/// What a join may take beyond the rebalance timeout.
const JOIN_GRACE: Duration = Duration::from_secs(5);
/// How long a closing consumer waits for its group.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);
