//! The task that keeps a consumer in its group.
//!
//! ```text
//!            subscribe                  assignment
//!   outside ──────────▶ joining ────────────────────▶ stable ──┐ heartbeats, automatic commits
//!      ▲                  ▲  ▲                         │  │    │
//!      │ unsubscribe,     │  └── given up by the group ┘  └────┘
//!      │ close            └───── rebalance: wait for the application, revoke
//! ```
//!
//! What is said to the group is in `joining` for the classic protocol and in `reconciling` for
//! KIP-848; here is what both have in common. Heartbeats go out whatever the application does,
//! also while it is told about a rebalance. Partitions are taken away only when the application
//! comes back to poll, up to `max.poll.interval.ms`, and from then until they are gone it is given
//! nothing of them. An application that does not come back at all loses its membership, as in Java.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use fleuve_types::TopicPartition;
use tokio::time::Instant;

use super::Shared;
use super::reconciling::Reconciliation;
use super::state::Start;
use crate::config::GroupProtocol;
use crate::connection::Connection;
use crate::error::{Error, Result, check};
use crate::timing::Backoff;

pub(super) struct Membership {
    pub(super) shared: Arc<Shared>,
    pub(super) group: String,
    pub(super) backoff: Backoff,
    pub(super) next_heartbeat: Instant,
    pub(super) next_commit: Instant,
    /// Whether a failed join may be followed by another one at once.
    pub(super) rejoins_at_once: bool,
    /// Partition counts that this member divided as leader; a change calls for a new division.
    pub(super) divided: Option<BTreeMap<String, usize>>,
    /// What this member read last, and in which generation it was given that.
    pub(super) previous: (Vec<TopicPartition>, i32),
    /// What the broker wants of this member, with `group.protocol=consumer`.
    pub(super) reconciliation: Reconciliation,
    /// The same, of a member of a stream application.
    pub(super) streams: super::streams::Progress,
}

/// Why a stable membership ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
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
            rejoins_at_once: true,
            divided: None,
            previous: (Vec::new(), -1),
            reconciliation: Reconciliation::default(),
            streams: super::streams::Progress::default(),
            shared,
        }
    }

    pub(super) async fn run(mut self) {
        while self.wait_for_subscription().await {
            let flow = match self.protocol() {
                GroupProtocol::Classic => self.live_classic().await,
                GroupProtocol::Consumer => self.live_reconciling().await,
            };
            if flow.is_break() {
                break;
            }
        }
        self.leave().await;
        self.shared.left.send_replace(true);
    }

    /// Begins the span of a change of what this member reads.
    pub(super) fn rebalance_span(&self) -> tracing::Span {
        tracing::debug_span!(
            "rebalance",
            group = self.group,
            assigned = tracing::field::Empty,
            revoked = tracing::field::Empty,
            error = tracing::field::Empty
        )
    }

    pub(super) fn protocol(&self) -> GroupProtocol {
        self.shared.config.group_protocol
    }

    /// Waits until there is something to join for; false when the consumer closes.
    ///
    /// A consumer whose partitions are assigned by hand may still commit automatically.
    async fn wait_for_subscription(&mut self) -> bool {
        loop {
            let subscribed = {
                let state = self.shared.lock();
                if state.closing {
                    return false;
                }
                // A pattern that matches nothing yet is as good as nothing for the classic
                // protocol, whose members name their topics.
                let classic = self.protocol() == GroupProtocol::Classic;
                if classic { !state.subscription.is_empty() } else { state.is_subscribed() }
            };
            if subscribed {
                return true;
            }
            if !self.shared.lock().member.id.is_empty() {
                self.revoke_all().await;
                self.leave_group().await;
            }
            if self.shared.matches_topics() {
                match self.shared.client.refresh_all().await {
                    Ok(cluster) => {
                        self.shared.match_topics(&cluster);
                        if !self.shared.lock().subscription.is_empty() {
                            continue;
                        }
                    }
                    Err(error) => tracing::debug!(%error, "metadata refresh failed"),
                }
            }
            tokio::select! {
                () = self.shared.group_work.notified() => {}
                () = tokio::time::sleep_until(self.next_commit) => self.commit_if_automatic().await,
            }
        }
    }

    /// Sends heartbeats and commits until the membership ends.
    pub(super) async fn keep_alive(&mut self, subscription: u64) -> End {
        loop {
            let poll_by = match self.poll_by(subscription) {
                Ok(poll_by) => poll_by,
                Err(end) => return end,
            };
            if self.partitions_changed() {
                return End::Rebalance;
            }
            if Instant::now() >= poll_by {
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

    /// Returns until when the application has to poll, unless something ends the membership.
    pub(super) fn poll_by(&self, subscription: u64) -> Result<Instant, End> {
        let state = self.shared.lock();
        if state.closing {
            return Err(End::Closing);
        }
        if state.subscription_version != subscription {
            return Err(End::Rebalance);
        }
        // Waiting inside a poll is not being away.
        let seen = if state.polling { Instant::now() } else { state.last_poll };
        Ok(seen + self.shared.config.max_poll_interval)
    }

    /// Sends one heartbeat, and says if it ends the membership.
    async fn heartbeat(&mut self) -> Option<End> {
        let interval = self.shared.config.heartbeat_interval;
        match self.beat_classic().await {
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

    /// Takes over new partitions and tells the application.
    pub(super) async fn take(&mut self, new: Vec<TopicPartition>) {
        let names: HashSet<_> = new.iter().map(|partition| partition.topic.clone()).collect();
        let names: Vec<_> = names.into_iter().collect();
        if !names.is_empty()
            && let Err(error) = self.shared.client.refresh(&names, false).await
        {
            tracing::debug!(%error, "metadata refresh failed");
        }
        self.shared.counters.rebalances.add(1);
        {
            let mut state = self.shared.lock();
            for partition in &new {
                state.add(partition.clone(), Start::Committed);
            }
        }
        if let Some(listener) = self.shared.listener() {
            self.while_alive(async move { listener.assigned(&new).await }).await;
        }
        self.shared.fetch_work.notify_one();
    }

    /// Takes all partitions away once the application is done with what it has of them.
    pub(super) async fn revoke_all(&mut self) {
        self.divided = None;
        let owned = self.shared.lock().partitions.keys().cloned().collect();
        self.revoke(owned).await;
    }

    /// Takes partitions away once the application is done with what it has of them.
    pub(super) async fn revoke(&mut self, leaving: HashSet<TopicPartition>) {
        self.wait_for_application(&leaving).await;
        self.commit_if_automatic().await;
        self.give_up(leaving, false).await;
    }

    /// Takes all partitions away, after telling the application.
    pub(super) async fn give_up_all(&mut self, lost: bool) {
        self.divided = None;
        let owned = self.shared.lock().partitions.keys().cloned().collect();
        self.give_up(owned, lost).await;
    }

    /// Takes partitions away, after telling the application.
    pub(super) async fn give_up(&mut self, gone: HashSet<TopicPartition>, lost: bool) {
        if gone.is_empty() {
            return;
        }
        {
            let mut state = self.shared.lock();
            state.withhold(&gone);
            if lost {
                state.forfeit(&gone);
            }
        }
        if let Some(listener) = self.shared.listener() {
            let mut gone: Vec<_> = gone.iter().cloned().collect();
            gone.sort_unstable();
            if lost {
                listener.lost(&gone).await;
            } else {
                self.while_alive(async move { listener.revoked(&gone).await }).await;
            }
        }
        self.shared.lock().remove(&gone);
    }

    /// Leaves the group because the application has not polled for too long, until it does.
    pub(super) async fn step_out(&mut self) {
        tracing::warn!(
            group = self.group,
            "leaving the group: no poll for longer than max.poll.interval.ms"
        );
        self.leave_group().await;
        self.give_up_all(true).await;
        let before = self.shared.lock().last_poll;
        loop {
            {
                let mut state = self.shared.lock();
                if state.last_poll > before || state.closing {
                    return;
                }
                state.poll_awaited = true;
            }
            self.shared.group_work.notified().await;
        }
    }

    /// Waits until the application is done with what it has of these partitions, and gives it
    /// nothing more of them: who is slower than fetching would never be done. They are to be given
    /// up afterwards.
    pub(super) async fn wait_for_application(&mut self, leaving: &HashSet<TopicPartition>) {
        let shared = self.shared.clone();
        let give_up_at = {
            let mut state = shared.lock();
            state.withhold(leaving);
            // The group does not wait longer either, whatever the application does meanwhile.
            state.last_poll + shared.config.max_poll_interval
        };
        let done = async move {
            loop {
                let work = shared.group_work.notified();
                {
                    let mut state = shared.lock();
                    let busy = state.lent.as_ref().is_some_and(|lent| leaving.contains(lent));
                    if !busy || state.closing {
                        return;
                    }
                    state.poll_awaited = true;
                }
                if tokio::time::timeout_at(give_up_at, work).await.is_err() {
                    return;
                }
            }
        };
        self.while_alive(done).await;
    }

    /// Sends heartbeats while something else is waited for; what they say can wait too.
    pub(super) async fn while_alive<T>(&mut self, future: impl Future<Output = T>) -> T {
        if self.shared.lock().member.id.is_empty() {
            return future.await;
        }
        tokio::pin!(future);
        loop {
            tokio::select! {
                result = &mut future => return result,
                () = tokio::time::sleep_until(self.next_heartbeat) => {}
            }
            // Both go on at the same time: the future may hold what the heartbeat waits for, such
            // as the right to open a connection.
            let beat = self.beat_once();
            tokio::pin!(beat);
            let result = tokio::select! {
                result = &mut future => Some(result),
                () = &mut beat => None,
            };
            if let Some(result) = result {
                beat.await;
                return result;
            }
        }
    }

    /// Sends one heartbeat while something else is going on.
    async fn beat_once(&mut self) {
        match self.protocol() {
            GroupProtocol::Classic => {
                if let Err(error) = self.beat_classic().await {
                    tracing::debug!(%error, "heartbeat during a rebalance");
                }
                self.next_heartbeat = Instant::now() + self.shared.config.heartbeat_interval;
            }
            GroupProtocol::Consumer => self.beat_in_between().await,
        }
    }

    /// Waits before the next attempt, unless there is news for the group.
    pub(super) async fn pause(&mut self) {
        let pause = self.backoff.next_pause();
        tokio::select! {
            () = self.shared.group_work.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    /// Reports an error that another attempt would meet too, and waits for another subscription.
    pub(super) async fn stand_still(&mut self, error: Error) {
        self.shared.report(error);
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

    /// Forgets who we were; after a mere change of generation the id stays good.
    pub(super) fn forget_member(&self, code: Option<ErrorCode>) {
        let mut state = self.shared.lock();
        state.member.generation = -1;
        if code != Some(ErrorCode::IllegalGeneration) {
            state.member.id.clear();
        }
    }

    pub(super) async fn commit_if_automatic(&mut self) {
        let config = &self.shared.config;
        self.next_commit = Instant::now() + config.auto_commit_interval;
        if !config.auto_commit || config.group_id.is_none() {
            return;
        }
        let (offsets, turn) = self.shared.begin_commit();
        if offsets.is_empty() {
            return;
        }
        // A heartbeat must not wait for a coordinator that is slow to take commits.
        let shared = self.shared.clone();
        let commit = async move { shared.commit_these(offsets, turn).await };
        if let Err(error) = self.while_alive(commit).await {
            tracing::warn!(group = self.group, %error, "automatic commit failed");
        }
    }

    /// Ends the membership for good.
    async fn leave(&mut self) {
        let farewell = async {
            self.commit_if_automatic().await;
            self.leave_group().await;
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, farewell).await.is_err() {
            tracing::debug!("the group did not answer while the consumer closed");
        }
    }

    /// Tells the group, so that it need not wait for the session to time out.
    async fn leave_group(&mut self) {
        if self.shared.lock().member.id.is_empty() {
            return;
        }
        let left = match self.protocol() {
            GroupProtocol::Classic => self.leave_classic().await,
            GroupProtocol::Consumer => self.leave_reconciling().await,
        };
        if let Err(error) = left {
            tracing::debug!(group = self.group, %error, "leaving failed");
        }
        self.shared.lock().member = super::state::Member::default();
    }

    async fn leave_classic(&mut self) -> Result<()> {
        // A static member leaves silently, because it means to come back.
        if self.shared.config.group_instance_id.is_some() {
            return Ok(());
        }
        let member = self.shared.lock().member.clone();
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
    }

    pub(super) async fn connection(&self) -> Result<Connection> {
        let coordinator = self.shared.client.coordinator(&self.group).await?;
        self.shared.lanes.grouping(coordinator).await
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
