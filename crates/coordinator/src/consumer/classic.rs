//! Members of the classic protocol in a consumer group: JoinGroup, SyncGroup and Heartbeat.
//!
//! The group needs no leader: a join is a change of the member like any other, its generation is
//! the member's epoch, and what it syncs is what it has. Nobody waits for anybody.
//!
//! ```text
//!            there is a step to take: the target is ahead, the member has something
//!            to give up, or what it waited for is free
//!   Heartbeat ─────────────▶ REBALANCE_IN_PROGRESS ──▶ JoinGroup ──▶ SyncGroup ──▶ Heartbeat
//!                                     └── rebalance timeout ──┘└── rebalance timeout ──┘
//! ```
//!
//! Unlike Kafka, a heartbeat also asks for a join when the group's epoch is ahead of the target's
//! and a new target may be made: where no member of the consumer protocol is left, and a downgrade
//! is not allowed, nobody else would see to it.

use fleuve_protocol::Str;
use fleuve_protocol::messages::consumer_group_member_metadata_value::ClassicMemberMetadata;
use fleuve_types::Uuid;

use super::decide::Change;
use super::from_classic::metadata;
use super::group::ConsumerGroup;
use super::member::Member;
use super::sender::find_classic_sender;
use super::write::Records;
use crate::classic::{
    CONSUMER_PROTOCOL_TYPE, HeartbeatRequest, JoinRefusal, JoinRequest, Joined, Protocol,
    Subscription, SyncRequest, Synced, read_subscription, write_assignment,
};
use crate::coordinator::{Group, GroupCoordinator};
use crate::error::GroupError;
use crate::migration::Migration;
use crate::modern::{Aftermath, MemberState, rebalance};
use crate::settings::MigrationPolicy;
use crate::step::{Now, Response, Step, Then, Token};
use crate::timers::Purpose;

/// A classic member that takes the place of a static member.
pub(crate) struct Joining {
    pub(crate) id: Str,
    pub(crate) member: Member,
    /// Whose place it takes.
    pub(crate) replaced: Str,
}

impl GroupCoordinator {
    /// Handles JoinGroup for a consumer group that has members.
    pub(crate) fn classic_joins(
        &mut self,
        now: Now,
        token: Token,
        request: &JoinRequest,
        step: &mut Step,
    ) -> Result<(), JoinRefusal> {
        let refuse = JoinRefusal::without_id;
        let id = request.group_id.detach();
        let (companion, group) = match self.groups.get(&id) {
            Some(Group::Consumer(companion)) => (companion, self.ledger().consumer_group(&id)),
            _ => return Err(refuse(GroupError::UnknownMemberId)),
        };
        let group = group.ok_or(refuse(GroupError::UnknownMemberId))?;
        let stored_until = companion.stored_until;

        let subscription = self.check_classic_join(group, request).map_err(refuse)?;
        let is_unknown = request.member_id.is_empty();
        let member_id = if is_unknown { self.new_uuid() } else { request.member_id.detach() };
        if is_unknown && request.requires_member_id && request.group_instance_id.is_none() {
            return Err(JoinRefusal { error: GroupError::MemberIdRequired, member_id });
        }
        let mut records = Records::new(&id);
        let instance_id = request.group_instance_id.as_ref();
        let sender = find_classic_sender(group, &member_id, instance_id, is_unknown, &mut records)
            .map_err(refuse)?;
        let member = updated(sender.member.clone(), request, &subscription);
        let replaced = sender.replaced.clone();

        if let Some(replaced) = replaced {
            let joining = Joining { id: member_id.clone(), member: member.clone(), replaced };
            if let Some((records, migration)) = self.downgrade_by(now, &id, group, &joining) {
                let Migration::Downgrade(downgrade) = &migration else { return Ok(()) };
                let generation = downgrade.group().generation();
                let protocol_name = downgrade.group().protocol_name().cloned();
                let reply = joined(member_id, generation, protocol_name);
                let aftermath = Aftermath {
                    group: id,
                    reply: Some((token, Response::Join(Ok(reply)))),
                    migration: Some(migration),
                    ..Aftermath::default()
                };
                step.write(records, Then::Modern(Box::new(aftermath)));
                return Ok(());
            }
        }

        let owned = self.by_id(&subscription.owned);
        let change = Change {
            group,
            group_id: &id,
            member_id: &member_id,
            sender,
            member,
            owned: Some(&owned),
            visible: None,
        };
        let decision = self.decide(now, change, records).map_err(refuse)?;
        let protocol_name = request.protocols.first().map(|protocol| protocol.name.detach());
        let reply = joined(member_id.clone(), decision.member.epoch, protocol_name);
        let response = Response::Join(Ok(reply));
        let mut rebalance =
            decision.cause.map(|cause| rebalance(now, decision.old_epoch, cause, Some(&member_id)));
        if let Some(rebalance) = &mut rebalance {
            let reason = request.reason.as_ref().filter(|reason| !reason.is_empty());
            rebalance.client_reason = reason.map(Str::detach);
        }

        let (groups, mut cx) = self.split(now, step);
        // One after the other, so that the member's other timers end.
        cx.forget_member(id.clone(), member_id.clone());
        let session = Purpose::Heartbeat { group: id.clone(), member: member_id.clone() };
        cx.schedule(session, request.session_timeout_ms.into());
        let sync = Purpose::MemberSync { group: id.clone(), member: member_id.clone() };
        cx.schedule(sync, decision.member.rebalance_timeout_ms.into());
        if decision.records.is_empty() {
            if let Some(Group::Consumer(companion)) = groups.get_mut(&id) {
                companion.look(decision.looked_at);
            }
            cx.step.reply_after(token, response, stored_until);
        } else {
            let aftermath = Aftermath {
                group: id,
                reply: Some((token, response)),
                rebalance,
                replaced: decision.replaced.filter(|replaced| *replaced != member_id),
                looked_at: decision.looked_at,
                ..Aftermath::default()
            };
            cx.step.write(decision.records, Then::Modern(Box::new(aftermath)));
        }
        Ok(())
    }

    /// Handles SyncGroup for a consumer group.
    pub(crate) fn classic_syncs(
        &mut self,
        now: Now,
        token: Token,
        request: &SyncRequest,
        step: &mut Step,
    ) -> Result<(), GroupError> {
        let (companion, group) = self.consumer_group_of(&request.group_id)?;
        let stored_until = companion.stored_until;
        let instance_id = request.group_instance_id.as_ref();
        let classic = find_classic(group, &request.member_id, instance_id)?;
        let Classic { id, member, metadata } = classic;
        if request.generation != member.epoch {
            return Err(GroupError::IllegalGeneration);
        }
        let chosen = metadata.supported_protocols.first();
        let is_ours = |kind: &Str| *kind == *CONSUMER_PROTOCOL_TYPE;
        let is_chosen = |name: &Str| chosen.is_some_and(|protocol| protocol.name == *name);
        if !request.protocol_type.as_ref().is_none_or(is_ours)
            || !request.protocol_name.as_ref().is_none_or(is_chosen)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        let must_join = group.target_epoch > member.epoch && member.state != MemberState::Unrevoked;
        let named = member.assigned.iter().filter_map(|(topic, partitions)| {
            let topic = self.topics().by_id(*topic)?;
            Some((topic.name, partitions.keys().copied().collect()))
        });
        let assignment = write_assignment(chosen.map(|protocol| &protocol.metadata), named);
        let (group_id, id) = (request.group_id.detach(), id.clone());
        let session_timeout_ms = metadata.session_timeout_ms;
        let rebalance_timeout_ms = member.rebalance_timeout_ms;

        let (_, mut cx) = self.split(now, step);
        if must_join {
            let join = Purpose::MemberJoin { group: group_id, member: id };
            cx.schedule_if_absent(join, rebalance_timeout_ms.into());
            return Err(GroupError::RebalanceInProgress);
        }
        cx.timers.cancel(Purpose::MemberSync { group: group_id.clone(), member: id.clone() });
        let session = Purpose::Heartbeat { group: group_id, member: id };
        cx.schedule(session, session_timeout_ms.into());
        let synced = Synced {
            protocol_type: request.protocol_type.clone(),
            protocol_name: request.protocol_name.clone(),
            assignment,
        };
        cx.step.reply_after(token, Response::Sync(Ok(synced)), stored_until);
        Ok(())
    }

    /// Handles Heartbeat for a consumer group.
    pub(crate) fn classic_beats(
        &mut self,
        now: Now,
        request: &HeartbeatRequest,
        step: &mut Step,
    ) -> Result<(), GroupError> {
        let (_, group) = self.consumer_group_of(&request.group_id)?;
        let instance_id = request.group_instance_id.as_ref();
        let Classic { id, member, metadata } =
            find_classic(group, &request.member_id, instance_id)?;
        if request.generation != member.epoch {
            return Err(GroupError::IllegalGeneration);
        }
        let may_assign = || {
            let timing = self.consumer_timing(&request.group_id);
            timing.allows_assignment(group.target_timestamp, now.wall.0)
        };
        let must_join = member.epoch < group.target_epoch
            || (member.epoch < group.epoch && may_assign())
            || match member.state {
                MemberState::Unrevoked => true,
                MemberState::Unreleased => !group.is_waited_for(id, member),
                MemberState::Stable | MemberState::Unknown => false,
            };
        let (group_id, id) = (request.group_id.detach(), id.clone());
        let session_timeout_ms = metadata.session_timeout_ms;
        let rebalance_timeout_ms = member.rebalance_timeout_ms;
        let (_, mut cx) = self.split(now, step);
        let session = Purpose::Heartbeat { group: group_id.clone(), member: id.clone() };
        cx.schedule(session, session_timeout_ms.into());
        if !must_join {
            return Ok(());
        }
        let join = Purpose::MemberJoin { group: group_id, member: id };
        cx.schedule_if_absent(join, rebalance_timeout_ms.into());
        Err(GroupError::RebalanceInProgress)
    }

    /// Checks that a member may join with the classic protocol, and reads what it wants.
    fn check_classic_join(
        &self,
        group: &ConsumerGroup,
        request: &JoinRequest,
    ) -> Result<Subscription, GroupError> {
        let settings = &self.settings.consumer;
        if settings.migration == MigrationPolicy::Disabled {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        let is_member = group.members().contains_key(&request.member_id);
        if group.members().len() >= settings.max_size && !is_member {
            return Err(GroupError::GroupMaxSizeReached);
        }
        if request.protocol_type != *CONSUMER_PROTOCOL_TYPE
            || !group.supports_any_of(&request.protocols)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        // Consumers say the same to each of their assignors.
        let first = request.protocols.first();
        first
            .and_then(|protocol| read_subscription(&protocol.metadata))
            .ok_or(GroupError::InconsistentGroupProtocol)
    }

    /// Partitions under the ids of their topics, where these exist.
    fn by_id(&self, owned: &[(Str, Vec<i32>)]) -> Vec<(Uuid, Vec<i32>)> {
        let known = owned.iter().filter_map(|(topic, partitions)| {
            Some((self.topics().by_name(topic)?.id, partitions.clone()))
        });
        known.collect()
    }

    fn consumer_group_of(
        &self,
        id: &str,
    ) -> Result<(&crate::modern::Companion, &ConsumerGroup), GroupError> {
        match (self.groups.get(id), self.ledger().consumer_group(id)) {
            (Some(Group::Consumer(companion)), Some(group)) => Ok((companion, group)),
            _ => Err(GroupError::UnknownMemberId),
        }
    }
}

impl ConsumerGroup {
    /// Whether one of the assignors is supported by every classic member.
    fn supports_any_of(&self, protocols: &[Protocol]) -> bool {
        let classic = self.members().values().filter_map(|member| member.classic.as_ref());
        let classic: Vec<&ClassicMemberMetadata> = classic.collect();
        protocols.iter().any(|protocol| {
            classic.iter().all(|member| {
                member.supported_protocols.iter().any(|known| known.name == protocol.name)
            })
        })
    }
}

/// A classic member of a consumer group.
struct Classic<'a> {
    id: &'a Str,
    member: &'a Member,
    metadata: &'a ClassicMemberMetadata,
}

/// Finds the classic member that a request is from.
fn find_classic<'a>(
    group: &'a ConsumerGroup,
    member_id: &str,
    instance_id: Option<&Str>,
) -> Result<Classic<'a>, GroupError> {
    let found = match instance_id {
        None => group.members().get_key_value(member_id),
        Some(instance_id) => group.static_member(instance_id),
    };
    let (id, member) = found.ok_or(GroupError::UnknownMemberId)?;
    if *id != *member_id {
        return Err(GroupError::FencedInstanceId);
    }
    let metadata = member.classic.as_ref().ok_or(GroupError::UnknownMemberId)?;
    Ok(Classic { id, member, metadata })
}

/// The member after what its join says of it.
fn updated(mut member: Member, request: &JoinRequest, subscription: &Subscription) -> Member {
    if let Some(instance_id) = &request.group_instance_id {
        member.instance_id = Some(instance_id.detach());
    }
    if let Some(rack_id) = &subscription.rack_id {
        member.rack_id = Some(rack_id.detach());
    }
    member.rebalance_timeout_ms = request.effective_rebalance_timeout_ms();
    member.topics = subscription.topics.iter().map(Str::detach).collect();
    if member.regex().is_some() {
        member.regex = Some(Str::EMPTY);
    }
    member.client_id = request.client_id.detach();
    member.client_host = request.client_host.detach();
    member.classic = Some(metadata(request.session_timeout_ms, &request.protocols));
    member
}

fn joined(member_id: Str, generation: i32, protocol_name: Option<Str>) -> Joined {
    Joined {
        member_id,
        generation,
        protocol_type: Some(CONSUMER_PROTOCOL_TYPE.into()),
        protocol_name,
        leader: Str::EMPTY,
        skip_assignment: false,
        members: Vec::new(),
    }
}
