//! How members stay in a group, and how they get out of it: heartbeats, their absence, LeaveGroup.

use fleuve_protocol::Str;

use super::api::{HeartbeatRequest, Leaver, LeaverOutcome};
use super::group::ClassicGroup;
use super::rebalance::Trigger;
use super::state::State;
use crate::context::Context;
use crate::error::GroupError;
use crate::history::RebalanceCause;

impl ClassicGroup {
    /// A member shows that it lives, and learns whether it has to rejoin.
    pub(crate) fn heartbeat_received(
        &mut self,
        cx: &mut Context<'_>,
        request: &HeartbeatRequest,
    ) -> Result<(), GroupError> {
        self.check_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        match self.state {
            State::Empty | State::Dead => Err(GroupError::UnknownMemberId),
            State::PreparingRebalance => {
                self.expect_heartbeat(cx, &request.member_id);
                Err(GroupError::RebalanceInProgress)
            }
            State::CompletingRebalance | State::Stable => {
                self.expect_heartbeat(cx, &request.member_id);
                Ok(())
            }
        }
    }

    /// The timer of a member or a pending one has fired.
    pub(crate) fn heartbeat_expired(&mut self, cx: &mut Context<'_>, id: &Str) {
        if self.pending_join.contains(id) {
            tracing::info!(group = %self.id, member = %id, "pending member expired");
            self.remove(cx, id);
            self.complete_join_after_loss(cx);
            return;
        }
        // Whoever waits for us gets a new timer with its answer.
        if self.members.get(id).is_none_or(super::member::Member::is_excused_from_heartbeats) {
            return;
        }
        tracing::info!(group = %self.id, member = %id, "member expired");
        cx.counters.members_expired += 1;
        self.remove(cx, id);
        match self.state {
            State::Stable | State::CompletingRebalance => {
                let trigger = Trigger::by(RebalanceCause::HeartbeatExpired, id, None);
                self.prepare_rebalance(cx, trigger);
            }
            _ => self.complete_join_after_loss(cx),
        }
    }

    /// Members leave, or are removed by an administrator.
    pub(crate) fn leave(&mut self, cx: &mut Context<'_>, leavers: &[Leaver]) -> Vec<LeaverOutcome> {
        let mut left: Vec<(Str, Option<Str>)> = Vec::new();
        let outcomes = leavers
            .iter()
            .map(|leaver| {
                let outcome = self.find_leaver(leaver).map(|id| {
                    self.remove(cx, &id);
                    left.push((id, leaver.reason.clone()));
                });
                LeaverOutcome {
                    member_id: leaver.member_id.clone(),
                    group_instance_id: leaver.group_instance_id.clone(),
                    outcome,
                }
            })
            .collect();
        if !left.is_empty() {
            match self.state {
                State::Stable | State::CompletingRebalance => {
                    let trigger = match left.as_slice() {
                        [(id, reason)] => {
                            Trigger::by(RebalanceCause::MembersLeft, id, reason.as_ref())
                        }
                        _ => RebalanceCause::MembersLeft.into(),
                    };
                    self.prepare_rebalance(cx, trigger);
                }
                _ => self.complete_join_if_all_joined(cx),
            }
        }
        outcomes
    }

    /// Says which member a leaver is.
    fn find_leaver(&self, leaver: &Leaver) -> Result<Str, GroupError> {
        if leaver.member_id.is_empty() {
            let instance_id = leaver.group_instance_id.as_ref();
            return instance_id
                .and_then(|instance_id| self.static_members.get(instance_id))
                .cloned()
                .ok_or(GroupError::UnknownMemberId);
        }
        if !self.pending_join.contains(&leaver.member_id) {
            self.check_member(&leaver.member_id, leaver.group_instance_id.as_deref())?;
        }
        Ok(leaver.member_id.detach())
    }

    /// Someone who was waited for is gone. Unlike after a leave, this ends the delay of an initial
    /// rebalance, too, when it was for nobody else.
    fn complete_join_after_loss(&mut self, cx: &mut Context<'_>) {
        if self.state == State::PreparingRebalance && self.have_all_joined() {
            self.complete_join(cx);
        }
    }
}
