//! How members get out of a consumer group: by leaving, by silence, or at an administrator's wish.

use std::collections::{BTreeMap, BTreeSet};

use fleuve_protocol::Str;

use super::api::{ConsumerHeartbeatReply, ConsumerHeartbeatRequest};
use super::group::ConsumerGroup;
use super::member::Member;
use super::subscription::metadata_hash;
use super::write::Records;
use crate::classic::{LeaveRequest, LeaverOutcome};
use crate::coordinator::{Group, GroupCoordinator};
use crate::error::GroupError;
use crate::history::RebalanceCause;
use crate::modern::{Aftermath, LEFT_FOR_A_WHILE, MemberState, rebalance};
use crate::step::{Now, Response, Step, Then, Token};

/// Why members are removed, and who is told.
pub(super) struct Removal {
    pub(super) cause: RebalanceCause,
    pub(super) reply: Option<(Token, Response)>,
}

impl GroupCoordinator {
    /// A member sends its last heartbeat.
    pub(super) fn consumer_leaves(
        &mut self,
        now: Now,
        token: Token,
        request: &ConsumerHeartbeatRequest,
        step: &mut Step,
    ) -> Result<(), GroupError> {
        let group = self.consumer_group(&request.group_id)?;
        let (member_id, member) = match &request.instance_id {
            None => group.members().get_key_value(&request.member_id),
            Some(instance_id) => group.static_member(instance_id),
        }
        .ok_or(GroupError::UnknownMemberId)?;
        if *member_id != request.member_id {
            return Err(GroupError::FencedInstanceId);
        }
        let reply = ConsumerHeartbeatReply {
            member_id: member_id.clone(),
            member_epoch: request.member_epoch,
            heartbeat_interval_ms: 0,
            assignment: None,
        };
        let response = Response::ConsumerHeartbeat(Ok(reply));
        if request.instance_id.is_some() && request.member_epoch == LEFT_FOR_A_WHILE {
            let mut records = Records::new(&request.group_id);
            records.current(member_id, &away(member.clone()));
            step.write_then_reply(records.list, token, response);
            return Ok(());
        }
        let leaver = BTreeSet::from([member_id.clone()]);
        let removal =
            Removal { cause: RebalanceCause::MembersLeft, reply: Some((token, response)) };
        self.remove_consumers(now, &request.group_id, leaver, removal, step);
        Ok(())
    }

    /// Handles LeaveGroup for a consumer group, as administrators send it.
    pub(crate) fn leave_consumer_group(
        &mut self,
        now: Now,
        token: Token,
        request: &LeaveRequest,
        step: &mut Step,
    ) -> Result<(), GroupError> {
        let group = self.consumer_group(&request.group_id)?;
        let mut leavers = BTreeSet::new();
        let outcomes: Vec<LeaverOutcome> = request
            .members
            .iter()
            .map(|leaver| {
                let found = match &leaver.group_instance_id {
                    None => group.members().get_key_value(&leaver.member_id),
                    Some(instance_id) => group.static_member(instance_id),
                };
                let outcome = match found {
                    None => Err(GroupError::UnknownMemberId),
                    Some((id, _)) if !leaver.member_id.is_empty() && *id != leaver.member_id => {
                        Err(GroupError::FencedInstanceId)
                    }
                    Some((id, _)) => {
                        leavers.insert(id.clone());
                        Ok(())
                    }
                };
                LeaverOutcome {
                    member_id: leaver.member_id.clone(),
                    group_instance_id: leaver.group_instance_id.clone(),
                    outcome,
                }
            })
            .collect();
        let response = Response::Leave(Ok(outcomes));
        if leavers.is_empty() {
            step.reply(token, response);
        } else {
            let removal =
                Removal { cause: RebalanceCause::MembersLeft, reply: Some((token, response)) };
            self.remove_consumers(now, &request.group_id, leavers, removal, step);
        }
        Ok(())
    }

    /// Removes the members whose time is up; they are grouped, as all that a tick finds must be
    /// decided together: the second decision would not know of the first.
    pub(crate) fn expire_consumers(
        &mut self,
        now: Now,
        due: BTreeMap<Str, BTreeMap<Str, RebalanceCause>>,
        step: &mut Step,
    ) {
        for (group_id, due) in due {
            let Ok(group) = self.consumer_group(&group_id) else { continue };
            let is_due = |id: &Str, cause: &RebalanceCause| {
                group.members().get(id).is_some_and(|member| match cause {
                    RebalanceCause::RevocationExpired => {
                        member.state == MemberState::Unrevoked
                            && member.epoch >= 0
                            && member.classic.is_none()
                    }
                    RebalanceCause::JoinExpired | RebalanceCause::SyncExpired => {
                        member.classic.is_some()
                    }
                    _ => true,
                })
            };
            let due: BTreeMap<Str, RebalanceCause> =
                due.into_iter().filter(|(id, cause)| is_due(id, cause)).collect();
            let Some(cause) = due.values().next().copied() else { continue };
            for (member, cause) in &due {
                tracing::info!(group = %group_id, %member, %cause, "member removed");
            }
            self.counters.members_expired += due.len() as u64;
            let removal = Removal { cause, reply: None };
            self.remove_consumers(now, &group_id, due.into_keys().collect(), removal, step);
        }
    }

    fn consumer_group(&self, group_id: &str) -> Result<&ConsumerGroup, GroupError> {
        match self.groups.get(group_id) {
            Some(Group::Consumer(_)) => {
                self.ledger().consumer_group(group_id).ok_or(GroupError::GroupIdNotFound)
            }
            _ => Err(GroupError::GroupIdNotFound),
        }
    }

    /// Writes members down as gone, which begins a rebalance.
    fn remove_consumers(
        &mut self,
        now: Now,
        group_id: &Str,
        gone: BTreeSet<Str>,
        removal: Removal,
        step: &mut Step,
    ) {
        let Ok(group) = self.consumer_group(group_id) else { return };
        let group_id = group_id.detach();
        if let Some((records, migration)) = self.downgrade_without(now, &group_id, group, &gone) {
            let aftermath = Aftermath {
                group: group_id,
                reply: removal.reply,
                gone: gone.into_iter().collect(),
                migration: Some(migration),
                ..Aftermath::default()
            };
            step.write(records, Then::Modern(Box::new(aftermath)));
            return;
        }
        let mut records = Records::new(&group_id);
        let mut regex_leavers: BTreeMap<&Str, usize> = BTreeMap::new();
        for id in &gone {
            records.member_tombstones(id);
            if let Some(regex) = group.members().get(id).and_then(Member::regex) {
                *regex_leavers.entry(regex).or_default() += 1;
            }
        }
        let mut regexes: BTreeMap<Str, BTreeSet<Str>> = group
            .resolved
            .iter()
            .map(|(regex, resolved)| (regex.clone(), resolved.topics.clone()))
            .collect();
        for (regex, leavers) in regex_leavers {
            if group.regex_subscribers().get(regex) == Some(&leavers) {
                records.regex_tombstone(regex);
                regexes.remove(regex);
            }
        }
        let stay = group.members().iter().filter(|(id, _)| !gone.contains(*id));
        let hash = metadata_hash(stay.map(|(_, member)| member), &regexes, self.topics());
        records.epoch(group.epoch.saturating_add(1), hash);
        let only = gone.first().filter(|_| gone.len() == 1);
        let rebalance = rebalance(now, group.epoch, removal.cause, only);
        let records = records.list;

        let (_, mut cx) = self.split(now, step);
        for member in &gone {
            cx.forget_member(group_id.clone(), member.clone());
        }
        let aftermath = Aftermath {
            group: group_id,
            reply: removal.reply,
            rebalance: Some(rebalance),
            // Whoever wanted to leave will not be heard of again, whatever it is told.
            gone: gone.into_iter().collect(),
            ..Aftermath::default()
        };
        cx.step.write(records, Then::Modern(Box::new(aftermath)));
    }
}

/// A static member that left and will come back: it keeps its partitions, from before all epochs,
/// so that its next incarnation may commit for them at once.
fn away(mut member: Member) -> Member {
    member.epoch = LEFT_FOR_A_WHILE;
    member.revoking.clear();
    for since in member.assigned.values_mut().flat_map(BTreeMap::values_mut) {
        *since = 0;
    }
    member
}
