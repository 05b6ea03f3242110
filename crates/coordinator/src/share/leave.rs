//! How members get out of a share group: by leaving or by silence.

use std::collections::{BTreeMap, BTreeSet};

use fleuve_protocol::Str;

use super::api::{ShareHeartbeatReply, ShareHeartbeatRequest};
use super::group::ShareGroup;
use super::write::Records;
use crate::coordinator::{Group, GroupCoordinator};
use crate::error::GroupError;
use crate::history::RebalanceCause;
use crate::modern::{Aftermath, LEAVING, LookedAt, rebalance, topics_hash};
use crate::step::{Now, Response, Step, Then, Token};

impl GroupCoordinator {
    /// A member sends its last heartbeat.
    pub(super) fn share_member_leaves(
        &mut self,
        now: Now,
        token: Token,
        request: &ShareHeartbeatRequest,
        step: &mut Step,
    ) -> Result<(), GroupError> {
        let group = self.share_group(&request.group_id)?;
        if !group.members.contains_key(&request.member_id) {
            return Err(GroupError::UnknownMemberId);
        }
        let reply = ShareHeartbeatReply {
            member_id: request.member_id.detach(),
            member_epoch: LEAVING,
            heartbeat_interval_ms: 0,
            assignment: None,
        };
        let gone = BTreeSet::from([request.member_id.detach()]);
        let reply = Some((token, Response::ShareHeartbeat(Ok(reply))));
        self.remove_share_members(
            now,
            &request.group_id,
            gone,
            (RebalanceCause::MembersLeft, reply),
            step,
        );
        Ok(())
    }

    /// Removes the members that were silent for too long, those of a group together.
    pub(crate) fn expire_share_members(
        &mut self,
        now: Now,
        due: BTreeMap<Str, BTreeSet<Str>>,
        step: &mut Step,
    ) {
        for (group_id, mut due) in due {
            let Ok(group) = self.share_group(&group_id) else { continue };
            due.retain(|id| group.members.contains_key(id));
            if due.is_empty() {
                continue;
            }
            let cause = RebalanceCause::HeartbeatExpired;
            for member in &due {
                tracing::info!(group = %group_id, %member, %cause, "member removed");
            }
            self.counters.members_expired += due.len() as u64;
            self.remove_share_members(now, &group_id, due, (cause, None), step);
        }
    }

    /// A share group.
    pub(super) fn share_group(&self, group_id: &str) -> Result<&ShareGroup, GroupError> {
        match self.groups.get(group_id) {
            Some(Group::Share(_)) => {
                self.ledger().share_group(group_id).ok_or(GroupError::GroupIdNotFound)
            }
            _ => Err(GroupError::GroupIdNotFound),
        }
    }

    /// Writes members down as gone, which begins a rebalance.
    fn remove_share_members(
        &mut self,
        now: Now,
        group_id: &Str,
        gone: BTreeSet<Str>,
        (cause, reply): (RebalanceCause, Option<(Token, Response)>),
        step: &mut Step,
    ) {
        let Ok(group) = self.share_group(group_id) else { return };
        let group_id = group_id.detach();
        let mut records = Records::new(&group_id);
        gone.iter().for_each(|id| records.member_tombstones(id));
        let stay = group.members.iter().filter(|(id, _)| !gone.contains(*id));
        let names: BTreeSet<&Str> = stay.flat_map(|(_, member)| &member.topics).collect();
        let hash = topics_hash(names.into_iter(), self.topics());
        records.epoch(group.epoch.saturating_add(1), hash);
        let only = gone.first().filter(|_| gone.len() == 1);
        let rebalance = rebalance(now, group.epoch, cause, only);
        let records = records.list;

        let (_, mut cx) = self.split(now, step);
        for member in &gone {
            cx.forget_member(group_id.clone(), member.clone());
        }
        let aftermath = Aftermath {
            group: group_id,
            reply,
            rebalance: Some(rebalance),
            gone: gone.into_iter().collect(),
            replaced: None,
            looked_at: LookedAt::default(),
            ..Aftermath::default()
        };
        cx.step.write(records, Then::Modern(Box::new(aftermath)));
    }
}
