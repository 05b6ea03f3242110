//! How a rebalance begins, gathers its members, and hands over to the next generation.

use fleuve_protocol::Str;

use super::group::{ClassicGroup, InitialDelay};
use super::state::State;
use crate::context::Context;
use crate::error::GroupError;
use crate::history::{Rebalance, RebalanceCause};
use crate::step::Then;

/// What set a rebalance off.
pub(super) struct Trigger {
    cause: RebalanceCause,
    member: Option<Str>,
    client_reason: Option<Str>,
}

impl Trigger {
    /// Something that one member did.
    pub(super) fn by(cause: RebalanceCause, member: &Str, client_reason: Option<&Str>) -> Self {
        Self {
            cause,
            member: Some(member.clone()),
            client_reason: client_reason.filter(|reason| !reason.is_empty()).map(Str::detach),
        }
    }
}

impl From<RebalanceCause> for Trigger {
    fn from(cause: RebalanceCause) -> Self {
        Self { cause, member: None, client_reason: None }
    }
}

impl ClassicGroup {
    /// Begins a rebalance, or sees whether the one under way can be completed.
    pub(super) fn rebalance_or_complete_join(&mut self, cx: &mut Context<'_>, trigger: Trigger) {
        if self.state.may_become(State::PreparingRebalance) {
            self.prepare_rebalance(cx, trigger);
        } else {
            self.complete_join_if_all_joined(cx);
        }
    }

    /// Begins a rebalance: from now on joins wait, and heartbeats ask the others to rejoin.
    pub(super) fn prepare_rebalance(&mut self, cx: &mut Context<'_>, trigger: Trigger) {
        if self.state == State::CompletingRebalance {
            self.reset_assignments(cx, GroupError::RebalanceInProgress);
        }
        self.pending_sync.clear();
        cx.timers.cancel(self.sync_timer());

        tracing::info!(
            group = %self.id,
            generation = self.generation,
            cause = %trigger.cause,
            member = trigger.member.as_deref().unwrap_or_default(),
            "preparing to rebalance"
        );
        let Trigger { cause, member, client_reason } = trigger;
        let (at, generation) = (cx.now.wall, self.generation);
        self.history.push(Rebalance { at, generation, cause, member, client_reason });

        let is_initial = self.state == State::Empty;
        self.transition_to(State::PreparingRebalance, cx.now.wall);
        if is_initial {
            // More members are likely to come; waiting for them saves a rebalance for each.
            let delay_ms = cx.settings.initial_rebalance_delay_ms;
            let remaining_ms = self.rebalance_timeout_ms().saturating_sub(delay_ms).max(0);
            self.new_member_added = false;
            self.wait_for_more_members(cx, InitialDelay { delay_ms, remaining_ms });
        } else if self.have_all_joined() {
            self.complete_join(cx);
        } else {
            cx.schedule(self.join_timer(), i64::from(self.rebalance_timeout_ms()));
        }
    }

    /// The time for joining is up.
    pub(crate) fn join_timer_fired(&mut self, cx: &mut Context<'_>) {
        if self.state != State::PreparingRebalance {
            return;
        }
        if let Some(InitialDelay { delay_ms, remaining_ms }) = self.initial_delay
            && self.new_member_added
            && remaining_ms != 0
        {
            self.new_member_added = false;
            let next = InitialDelay {
                delay_ms: cx.settings.initial_rebalance_delay_ms.min(remaining_ms),
                remaining_ms: remaining_ms.saturating_sub(delay_ms).max(0),
            };
            self.wait_for_more_members(cx, next);
        } else {
            self.complete_join(cx);
        }
    }

    /// Completes the join phase if nothing is left to wait for.
    ///
    /// An initial rebalance runs its full delay, because it does not know whom to expect.
    pub(super) fn complete_join_if_all_joined(&mut self, cx: &mut Context<'_>) {
        if self.state == State::PreparingRebalance
            && self.previous_state != State::Empty
            && self.have_all_joined()
        {
            self.complete_join(cx);
        }
    }

    /// Begins the next generation with those who joined.
    pub(super) fn complete_join(&mut self, cx: &mut Context<'_>) {
        cx.timers.cancel(self.join_timer());
        self.initial_delay = None;

        // Dynamic members that did not rejoin are gone. Static ones keep their place until their
        // session ends: they are expected to come back under the same instance id.
        let absent: Vec<Str> = self
            .members
            .iter()
            .filter(|(_, member)| {
                member.awaiting_join.is_none() && member.group_instance_id.is_none()
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in absent {
            tracing::info!(group = %self.id, member = %id, "removed, as it did not rejoin");
            self.remove(cx, &id);
        }

        if self.members.is_empty() {
            self.become_empty(cx);
        } else if self.elect_joined_leader() {
            self.begin_generation(cx);
        } else {
            // Only absent static members are left. Until one returns or their sessions end, there
            // is nobody to lead the next generation.
            cx.schedule(self.join_timer(), i64::from(self.rebalance_timeout_ms()));
        }
    }

    /// Makes sure that the leader is someone who joined.
    fn elect_joined_leader(&mut self) -> bool {
        let has_joined =
            |id: &Str| self.members.get(id).is_some_and(|member| member.awaiting_join.is_some());
        if !self.leader.as_ref().is_some_and(has_joined) {
            let Some(id) = self.members.keys().find(|id| has_joined(id)) else { return false };
            self.leader = Some(id.clone());
        }
        true
    }

    fn become_empty(&mut self, cx: &mut Context<'_>) {
        self.generation = next_generation(self.generation);
        self.protocol_name = None;
        self.leader = None;
        self.pending_sync.clear();
        self.update_subscriptions();
        self.transition_to(State::Empty, cx.now.wall);
        tracing::info!(group = %self.id, generation = self.generation, "group is empty");
        // Should the record be lost, the previous generation returns with the next load, and its
        // members expire; no harm is done.
        cx.step.write(vec![self.to_record(|_, member| member.assignment.clone())], Then::Nothing);
    }

    fn begin_generation(&mut self, cx: &mut Context<'_>) {
        self.generation = next_generation(self.generation);
        self.protocol_name = self.select_protocol();
        self.update_subscriptions();
        self.transition_to(State::CompletingRebalance, cx.now.wall);
        tracing::info!(
            group = %self.id,
            generation = self.generation,
            members = self.members.len(),
            "all members joined"
        );
        let ids: Vec<Str> = self.members.keys().cloned().collect();
        self.pending_sync = ids.iter().cloned().collect();
        for id in &ids {
            let joined = self.joined(id);
            self.answer_join(cx, id, Ok(joined));
            if let Some(member) = self.members.get_mut(id) {
                member.is_new = false;
            }
            self.expect_heartbeat(cx, id);
        }
        cx.schedule(self.sync_timer(), i64::from(self.rebalance_timeout_ms()));
    }

    fn wait_for_more_members(&mut self, cx: &mut Context<'_>, delay: InitialDelay) {
        self.initial_delay = Some(delay);
        cx.schedule(self.join_timer(), i64::from(delay.delay_ms));
    }
}

/// The number of the next generation. Kafka's overflows after two billion rebalances; ours starts
/// over at 1, as a negative generation means that there is none.
fn next_generation(generation: i32) -> i32 {
    generation.checked_add(1).unwrap_or(1).max(1)
}
