//! SyncGroup: the leader hands in the assignment, everyone gets their share of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use fleuve_protocol::Str;

use super::api::{SyncRequest, Synced};
use super::group::ClassicGroup;
use super::rebalance::Trigger;
use super::state::State;
use crate::context::Context;
use crate::error::GroupError;
use crate::history::RebalanceCause;
use crate::step::{Response, Then, Token};

impl ClassicGroup {
    /// Parks a sync until the assignment is stored, or answers it from the stored one.
    pub(crate) fn sync(
        &mut self,
        cx: &mut Context<'_>,
        token: Token,
        request: &SyncRequest,
    ) -> Result<(), GroupError> {
        if self.state == State::Empty {
            return Err(GroupError::UnknownMemberId);
        }
        self.check_sync(request)?;
        match self.state {
            State::Empty | State::Dead => Err(GroupError::UnknownMemberId),
            State::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            State::CompletingRebalance => {
                let Some((id, _)) = self.members.get_key_value(&request.member_id) else {
                    return Err(GroupError::UnknownMemberId);
                };
                let id = id.clone();
                // As with joins, a repeated request means that the first one's client is gone.
                self.answer_sync(cx, &id, GroupError::RebalanceInProgress);
                if let Some(member) = self.members.get_mut(&id) {
                    member.awaiting_sync = Some(token);
                }
                self.note_synced(cx, &id);
                if self.is_leader(&id) {
                    self.store_assignment(cx, id, request);
                }
                Ok(())
            }
            State::Stable => {
                self.note_synced(cx, &request.member_id);
                let synced = self.synced(&request.member_id);
                cx.step.reply_after(token, Response::Sync(Ok(synced)), self.stored_until);
                Ok(())
            }
        }
    }

    /// Installs the stored assignment and gives everyone who waits their share.
    ///
    /// Someone may have joined or left while the record was on its way. Then the group is in
    /// another rebalance already, and the assignment is out of date.
    pub(crate) fn install_assignment(
        &mut self,
        cx: &mut Context<'_>,
        generation: i32,
        assignments: Vec<(Str, Bytes)>,
    ) {
        if self.state != State::CompletingRebalance || self.generation != generation {
            return;
        }
        for (id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = assignment;
            }
        }
        self.transition_to(State::Stable, cx.now.wall);
        cx.counters.rebalances_completed += 1;
        let ids: Vec<Str> = self.members.keys().cloned().collect();
        for id in ids {
            let token = self.members.get_mut(&id).and_then(|member| member.awaiting_sync.take());
            if let Some(token) = token {
                let synced = self.synced(&id);
                cx.step.reply_after(token, Response::Sync(Ok(synced)), self.stored_until);
                // While it waited its heartbeats were not looked at; they are from now on.
                self.expect_heartbeat(cx, &id);
            }
        }
    }

    /// The log did not take the assignment: everyone has to rejoin.
    pub(crate) fn reject_assignment(
        &mut self,
        cx: &mut Context<'_>,
        generation: i32,
        leader: &Str,
        error: GroupError,
    ) {
        if self.state != State::CompletingRebalance || self.generation != generation {
            return;
        }
        self.reset_assignments(cx, error);
        let cause = RebalanceCause::AssignmentNotStored(error);
        self.prepare_rebalance(cx, Trigger::by(cause, leader, None));
    }

    /// Takes all assignments back and tells those who wait for theirs why.
    pub(super) fn reset_assignments(&mut self, cx: &mut Context<'_>, error: GroupError) {
        let ids: Vec<Str> = self.members.keys().cloned().collect();
        for id in ids {
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.assignment = Bytes::new();
            if member.awaiting_sync.is_some() {
                self.answer_sync(cx, &id, error);
                self.expect_heartbeat(cx, &id);
            }
        }
    }

    /// The time for syncing is up: whoever has not asked for its assignment is removed.
    pub(crate) fn sync_timer_fired(&mut self, cx: &mut Context<'_>) {
        let is_expected = matches!(self.state, State::CompletingRebalance | State::Stable);
        if !is_expected || self.pending_sync.is_empty() {
            return;
        }
        let silent = std::mem::take(&mut self.pending_sync);
        for id in &silent {
            tracing::info!(group = %self.id, member = %id, "removed, as it did not sync");
            self.remove(cx, id);
        }
        let mut silent = silent.iter();
        let trigger = match (silent.next(), silent.next()) {
            (Some(only), None) => Trigger::by(RebalanceCause::SyncExpired, only, None),
            _ => RebalanceCause::SyncExpired.into(),
        };
        self.prepare_rebalance(cx, trigger);
    }

    fn check_sync(&self, request: &SyncRequest) -> Result<(), GroupError> {
        self.check_member(&request.member_id, request.group_instance_id.as_deref())?;
        let differ = |asked: &Option<Str>, ours: &Option<Str>| {
            asked.is_some() && ours.is_some() && asked != ours
        };
        if request.generation != self.generation {
            Err(GroupError::IllegalGeneration)
        } else if differ(&request.protocol_type, &self.protocol_type)
            || differ(&request.protocol_name, &self.protocol_name)
        {
            Err(GroupError::InconsistentGroupProtocol)
        } else {
            Ok(())
        }
    }

    fn note_synced(&mut self, cx: &mut Context<'_>, id: &str) {
        self.pending_sync.remove(id);
        if self.pending_sync.is_empty() {
            cx.timers.cancel(self.sync_timer());
        }
    }

    /// Asks for the leader's assignment to be written; members it forgot get an empty one.
    fn store_assignment(&mut self, cx: &mut Context<'_>, leader: Str, request: &SyncRequest) {
        let given: BTreeMap<&Str, &Bytes> =
            request.assignments.iter().map(|(id, assignment)| (id, assignment)).collect();
        let assignments: Vec<(Str, Bytes)> = self
            .members
            .keys()
            .map(|id| {
                let given = given.get(id).map(|assignment| Bytes::copy_from_slice(assignment));
                (id.clone(), given.unwrap_or_default())
            })
            .collect();
        // Both are in the order of the members.
        let mut in_order = assignments.iter().map(|(_, assignment)| assignment.clone());
        let record = self.to_record(|_, _| in_order.next().unwrap_or_default());
        let (group, generation) = (self.id.clone(), self.generation);
        cx.step.write(
            vec![record],
            Then::InstallAssignment { group, generation, leader, assignments },
        );
    }

    fn synced(&self, id: &str) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            assignment: self
                .members
                .get(id)
                .map(|member| member.assignment.clone())
                .unwrap_or_default(),
        }
    }
}
