//! JoinGroup: who may enter a group, and what a (re)joining member sets off.

use fleuve_protocol::Str;

use super::api::{JoinRefusal, JoinRequest};
use super::group::{ClassicGroup, Timeouts};
use super::member::{Member, own_protocols};
use super::rebalance::Trigger;
use super::state::State;
use crate::context::Context;
use crate::error::GroupError;
use crate::history::RebalanceCause;
use crate::step::{Replacement, Response, Then, Token};

/// How long the join of a new member may wait before it must be sent again.
///
/// A new member cannot send heartbeats, and we do not notice that its connection is gone; without
/// a bound, clients that time out and retry would fill the group with members that do not exist.
const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 5 * 60 * 1_000;

impl ClassicGroup {
    /// Lets a member in, parks its join, or says why not.
    pub(crate) fn join(
        &mut self,
        cx: &mut Context<'_>,
        token: Token,
        request: &JoinRequest,
    ) -> Result<(), JoinRefusal> {
        if !self.has_room_for(&request.member_id, cx.settings.max_size) {
            self.remove(cx, &request.member_id);
            return Err(JoinRefusal::without_id(GroupError::GroupMaxSizeReached));
        }
        if !self.supports(&request.protocol_type, &request.protocols) {
            return Err(refusal(GroupError::InconsistentGroupProtocol, request));
        }
        if request.member_id.is_empty() {
            self.join_unknown(cx, token, request)
        } else if self.pending_join.contains(&request.member_id) {
            // Ids are handed out in advance to dynamic members only.
            if request.group_instance_id.is_some() {
                return Err(refusal(GroupError::UnknownMemberId, request));
            }
            self.admit(cx, token, request, request.member_id.detach());
            Ok(())
        } else {
            self.rejoin(cx, token, request)
        }
    }

    /// Whether `group.max.size` allows the member.
    ///
    /// While joins are gathered, those who wait are counted instead of the members: a group that
    /// is over a lowered limit sheds the members that rejoin last.
    fn has_room_for(&self, member_id: &str, max_size: usize) -> bool {
        match self.state {
            State::Empty | State::Dead => true,
            State::PreparingRebalance => {
                let waits = |member: &Member| member.awaiting_join.is_some();
                self.members.get(member_id).is_some_and(waits) || self.awaiting_join < max_size
            }
            State::CompletingRebalance | State::Stable => {
                self.members.contains_key(member_id) || self.members.len() < max_size
            }
        }
    }

    /// A join without a member id: a new member, or a static one that was restarted.
    fn join_unknown(
        &mut self,
        cx: &mut Context<'_>,
        token: Token,
        request: &JoinRequest,
    ) -> Result<(), JoinRefusal> {
        match &request.group_instance_id {
            Some(instance_id) => {
                let new_id = cx.new_member_id(instance_id);
                match self.static_members.get(instance_id).cloned() {
                    Some(old_id) => {
                        self.return_static_member(cx, token, request, instance_id, old_id, new_id);
                    }
                    None => self.admit(cx, token, request, new_id),
                }
                Ok(())
            }
            None => {
                let new_id = cx.new_member_id(&request.client_id);
                if !request.requires_member_id {
                    self.admit(cx, token, request, new_id);
                    return Ok(());
                }
                // Otherwise every retry of a lost join would leave another member behind.
                self.pending_join.insert(new_id.clone());
                cx.schedule(self.heartbeat(&new_id), i64::from(request.session_timeout_ms));
                Err(JoinRefusal { error: GroupError::MemberIdRequired, member_id: new_id })
            }
        }
    }

    /// Adds a new member and has the group rebalance for it.
    fn admit(&mut self, cx: &mut Context<'_>, token: Token, request: &JoinRequest, id: Str) {
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type.detach());
        }
        if self.state == State::PreparingRebalance && self.previous_state == State::Empty {
            self.new_member_added = true;
        }
        self.add(id.clone(), Member::joining(request), Some(token));
        cx.schedule(self.heartbeat(&id), NEW_MEMBER_JOIN_TIMEOUT_MS);
        self.rebalance_or_complete_join(
            cx,
            Trigger::by(RebalanceCause::MemberJoined, &id, request.reason.as_ref()),
        );
    }

    /// A join of someone who says to be a member.
    fn rejoin(
        &mut self,
        cx: &mut Context<'_>,
        token: Token,
        request: &JoinRequest,
    ) -> Result<(), JoinRefusal> {
        self.check_member(&request.member_id, request.group_instance_id.as_deref())
            .map_err(|error| refusal(error, request))?;
        let Some((id, member)) = self.members.get_key_value(&request.member_id) else {
            return Err(refusal(GroupError::UnknownMemberId, request));
        };
        let (id, is_unchanged) =
            (id.clone(), member.protocols == own_protocols(&request.protocols));
        let cause = match self.state {
            State::Empty | State::Dead => {
                return Err(refusal(GroupError::UnknownMemberId, request));
            }
            State::PreparingRebalance => RebalanceCause::MemberJoined,
            // The leader rejoins to have everything assigned anew, as when topics changed.
            State::Stable if self.is_leader(&id) => RebalanceCause::LeaderRejoined,
            // Nothing new: most likely the reply to the first join got lost.
            State::CompletingRebalance | State::Stable if is_unchanged => {
                let mut joined = self.joined(&id);
                if self.state == State::Stable {
                    joined.members.clear();
                }
                cx.step.reply(token, Response::Join(Ok(joined)));
                return Ok(());
            }
            State::CompletingRebalance | State::Stable => RebalanceCause::MemberChanged,
        };
        self.update_from(cx, &id, request, token);
        self.rebalance_or_complete_join(cx, Trigger::by(cause, &id, request.reason.as_ref()));
        Ok(())
    }

    /// A static member comes back without its member id, as it does after a restart.
    ///
    /// In a stable group it takes over the assignment of its former self without a rebalance,
    /// unless that would change the group's assignor.
    fn return_static_member(
        &mut self,
        cx: &mut Context<'_>,
        token: Token,
        request: &JoinRequest,
        instance_id: &Str,
        old_id: Str,
        new_id: Str,
    ) {
        let old_leader = self.leader.clone();
        tracing::info!(group = %self.id, %instance_id, %old_id, %new_id, "static member returned");
        self.replace_static_member(cx, instance_id, &old_id, &new_id);
        let Some(member) = self.members.get(&new_id) else { return };
        let old =
            (member.protocols.clone(), member.rebalance_timeout_ms, member.session_timeout_ms);
        self.update_from(cx, &new_id, request, token);
        let trigger =
            Trigger::by(RebalanceCause::StaticMemberReplaced, &new_id, request.reason.as_ref());
        match self.state {
            State::Stable if self.select_protocol() == self.protocol_name => {
                let (old_protocols, old_rebalance_timeout_ms, old_session_timeout_ms) = old;
                let record = self.to_record(|_, member| member.assignment.clone());
                cx.step.write(
                    vec![record],
                    Then::FinishReplacement(Box::new(Replacement {
                        group: self.id.clone(),
                        instance_id: instance_id.detach(),
                        old_member_id: old_id,
                        new_member_id: new_id,
                        old_protocols,
                        old_rebalance_timeout_ms,
                        old_session_timeout_ms,
                        old_leader,
                        can_skip_assignment: request.can_skip_assignment,
                    })),
                );
            }
            State::Stable => self.rebalance_or_complete_join(cx, trigger),
            // The leader may be assigning to the old id right now.
            State::CompletingRebalance => self.prepare_rebalance(cx, trigger),
            State::PreparingRebalance | State::Empty | State::Dead => {
                self.complete_join_if_all_joined(cx);
            }
        }
    }

    /// Answers a static member that returned to a stable group, once that is in the log.
    pub(crate) fn finish_replacement(&mut self, cx: &mut Context<'_>, replacement: &Replacement) {
        let id = &replacement.new_member_id;
        let mut joined = self.joined(id);
        if replacement.can_skip_assignment {
            joined.skip_assignment = self.is_leader(id);
        } else {
            // Clients before version 9 cannot be told to keep the assignment. If they are made to
            // believe that someone else leads, they only fetch it.
            joined.leader = replacement.old_leader.clone().unwrap_or(Str::EMPTY);
            joined.members.clear();
        }
        self.answer_join(cx, id, Ok(joined));
    }

    /// Gives the static member its old id back, as the new one did not get into the log.
    pub(crate) fn revert_replacement(
        &mut self,
        cx: &mut Context<'_>,
        replacement: &Replacement,
        error: GroupError,
    ) {
        let Replacement { instance_id, old_member_id, new_member_id, .. } = replacement;
        self.answer_join(cx, new_member_id, Err(JoinRefusal::without_id(error)));
        if !self.members.contains_key(new_member_id) {
            return;
        }
        let timeouts = Timeouts {
            rebalance_ms: replacement.old_rebalance_timeout_ms,
            session_ms: replacement.old_session_timeout_ms,
        };
        self.update(cx, new_member_id, replacement.old_protocols.clone(), timeouts, None);
        self.replace_static_member(cx, instance_id, new_member_id, old_member_id);
    }

    fn update_from(&mut self, cx: &mut Context<'_>, id: &Str, request: &JoinRequest, token: Token) {
        let timeouts = Timeouts {
            rebalance_ms: request.effective_rebalance_timeout_ms(),
            session_ms: request.session_timeout_ms,
        };
        self.update(cx, id, own_protocols(&request.protocols), timeouts, Some(token));
    }
}

fn refusal(error: GroupError, request: &JoinRequest) -> JoinRefusal {
    JoinRefusal { error, member_id: request.member_id.clone() }
}
