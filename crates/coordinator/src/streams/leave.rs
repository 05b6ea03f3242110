//! How members get out of a streams group: by leaving, or by silence.

use std::collections::{BTreeMap, BTreeSet};

use fleuve_protocol::Str;

use super::api::{StreamsHeartbeatReply, StreamsHeartbeatRequest};
use super::write::{Epoch, Records};
use crate::coordinator::{Group, GroupCoordinator};
use crate::error::GroupError;
use crate::history::RebalanceCause;
use crate::modern::{Aftermath, LookedAt, MemberState, rebalance};
use crate::step::{Now, Response, Step, Then, Token};

impl GroupCoordinator {
    /// A member sends its last heartbeat.
    pub(super) fn streams_leaves(
        &mut self,
        now: Now,
        token: Token,
        request: &StreamsHeartbeatRequest,
        step: &mut Step,
    ) -> Result<(), GroupError> {
        let Some(Group::Streams(companion)) = self.groups.get_mut(&request.group_id) else {
            return Err(GroupError::GroupIdNotFound);
        };
        if request.shutdown_application && companion.shutdown_requested_by.is_none() {
            companion.shutdown_requested_by = Some(request.member_id.detach());
        }
        let group = self.ledger().streams_group(&request.group_id);
        let group = group.ok_or(GroupError::GroupIdNotFound)?;
        if !group.members().contains_key(&request.member_id) {
            return Err(GroupError::UnknownMemberId);
        }
        let reply = StreamsHeartbeatReply {
            member_id: request.member_id.detach(),
            member_epoch: request.member_epoch,
            ..StreamsHeartbeatReply::default()
        };
        let response = Response::StreamsHeartbeat(Ok(Box::new(reply)));
        let leaver = BTreeSet::from([request.member_id.detach()]);
        let reply = Some((token, response));
        self.remove_streams_members(
            now,
            &request.group_id,
            leaver,
            RebalanceCause::MembersLeft,
            reply,
            step,
        );
        Ok(())
    }

    /// Removes the members whose time is up, all that a tick finds at once. Says whether there
    /// were any.
    pub(crate) fn expire_streams_members(
        &mut self,
        now: Now,
        group_id: &Str,
        due: BTreeMap<Str, RebalanceCause>,
        step: &mut Step,
    ) -> bool {
        let Some(group) = self.ledger().streams_group(group_id) else { return false };
        let is_due = |id: &Str, cause: &RebalanceCause| {
            group.members().get(id).is_some_and(|member| match cause {
                RebalanceCause::RevocationExpired => member.state == MemberState::Unrevoked,
                _ => true,
            })
        };
        let due: BTreeMap<Str, RebalanceCause> =
            due.into_iter().filter(|(id, cause)| is_due(id, cause)).collect();
        let Some(cause) = due.values().next().copied() else { return false };
        for (member, cause) in &due {
            tracing::info!(group = %group_id, %member, %cause, "member removed");
        }
        self.counters.members_expired += due.len() as u64;
        self.remove_streams_members(now, group_id, due.into_keys().collect(), cause, None, step);
        true
    }

    /// Writes members down as gone, which begins a rebalance.
    fn remove_streams_members(
        &mut self,
        now: Now,
        group_id: &Str,
        gone: BTreeSet<Str>,
        cause: RebalanceCause,
        reply: Option<(Token, Response)>,
        step: &mut Step,
    ) {
        let Some(group) = self.ledger().streams_group(group_id) else { return };
        let group_id = group_id.detach();
        let mut records = Records::new(&group_id);
        for id in &gone {
            records.member_tombstones(id);
        }
        records.epoch(&Epoch {
            epoch: group.epoch.saturating_add(1),
            metadata_hash: group.metadata_hash,
            validated_epoch: group.validated_epoch,
            assignment_configs: &group.assignment_configs,
        });
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
            // Whoever wanted to leave will not be heard of again, whatever it is told.
            gone: gone.into_iter().collect(),
            replaced: None,
            looked_at: LookedAt::default(),
            ..Aftermath::default()
        };
        cx.step.write(records, Then::Modern(Box::new(aftermath)));
    }
}
