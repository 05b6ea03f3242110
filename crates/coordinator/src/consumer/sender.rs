//! Who sends a heartbeat, and whether it may.

use fleuve_protocol::Str;
use fleuve_types::Uuid;

use super::api::ConsumerHeartbeatRequest;
use super::assignor::Assignor;
use super::group::ConsumerGroup;
use super::member::{Member, Target};
use super::write::Records;
use crate::error::GroupError;
use crate::modern::{JOINING, LEAVING, LEFT_FOR_A_WHILE};

/// The member that a heartbeat is from, before the heartbeat takes effect.
pub(super) struct Sender {
    pub(super) member: Member,
    pub(super) is_new: bool,
    /// The id of the member whose place it takes.
    pub(super) replaced: Option<Str>,
}

/// Refuses what no group could make sense of.
pub(super) fn check_request(
    request: &ConsumerHeartbeatRequest,
    assignors: &[Assignor],
) -> Result<(), GroupError> {
    let require = |holds: bool, text: &'static str| {
        if holds { Ok(()) } else { Err(GroupError::InvalidRequest(text)) }
    };
    let is_blank = |text: &Option<Str>| text.as_ref().is_some_and(|text| text.trim().is_empty());
    let epoch = request.member_epoch;
    let needs_id = !request.may_lack_member_id || epoch > JOINING || epoch == LEAVING;
    require(!needs_id || !request.member_id.trim().is_empty(), "MemberId can't be empty.")?;
    require(!request.group_id.trim().is_empty(), "GroupId can't be empty.")?;
    require(!is_blank(&request.instance_id), "InstanceId can't be empty.")?;
    require(!is_blank(&request.rack_id), "RackId can't be empty.")?;
    match epoch {
        JOINING => {
            require(
                request.rebalance_timeout_ms != -1,
                "RebalanceTimeoutMs must be provided in first request.",
            )?;
            require(
                request.owned.as_ref().is_some_and(Vec::is_empty),
                "TopicPartitions must be empty when (re-)joining.",
            )?;
            require(
                request.subscribed_topic_names.is_some()
                    || request.subscribed_topic_regex.is_some(),
                "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when \
                 (re-)joining.",
            )?;
        }
        LEFT_FOR_A_WHILE => {
            require(request.instance_id.is_some(), "InstanceId can't be null.")?;
        }
        _ => require(epoch > LEFT_FOR_A_WHILE, "MemberEpoch is invalid.")?,
    }
    let is_known = |name: &Str| assignors.iter().any(|assignor| assignor.name() == &**name);
    if request.server_assignor.as_ref().is_some_and(|name| !is_known(name)) {
        return Err(GroupError::UnsupportedAssignor);
    }
    Ok(())
}

/// Finds or makes the member that sent the heartbeat, and checks that it may.
pub(super) fn find_sender(
    group: &ConsumerGroup,
    member_id: &Str,
    request: &ConsumerHeartbeatRequest,
    records: &mut Records<'_>,
) -> Result<Sender, GroupError> {
    let is_joining = request.member_epoch == JOINING;
    let existing =
        |member: &Member| Sender { member: member.clone(), is_new: false, replaced: None };
    let new = || Sender { member: Member::default(), is_new: true, replaced: None };
    let Some(instance_id) = &request.instance_id else {
        return match group.members().get(member_id) {
            Some(member) => check_epoch(member, request).map(|()| existing(member)),
            None if is_joining => Ok(new()),
            None => Err(GroupError::UnknownMemberId),
        };
    };
    match (group.static_member(instance_id), is_joining) {
        (None, true) => Ok(group.members().get(member_id).map_or_else(new, existing)),
        (None, false) => Err(GroupError::UnknownMemberId),
        (Some((old_id, old)), true) => {
            // Two processes with one instance id: the first keeps its place until it leaves.
            if old.classic.is_none() && old.epoch != LEFT_FOR_A_WHILE {
                return Err(GroupError::UnreleasedInstanceId);
            }
            Ok(take_place(group, member_id, old_id, old, records))
        }
        (Some((id, _)), false) if id != member_id => Err(GroupError::FencedInstanceId),
        (Some((_, member)), false) => check_epoch(member, request).map(|()| existing(member)),
    }
}

/// Finds or makes the member that joins with the classic protocol, and checks that it may.
pub(super) fn find_classic_sender(
    group: &ConsumerGroup,
    member_id: &Str,
    instance_id: Option<&Str>,
    is_unknown: bool,
    records: &mut Records<'_>,
) -> Result<Sender, GroupError> {
    let existing =
        |member: &Member| Sender { member: member.clone(), is_new: false, replaced: None };
    let new = || Sender { member: Member::default(), is_new: true, replaced: None };
    let by_id = || group.members().get(member_id).map_or_else(new, existing);
    let Some(instance_id) = instance_id else { return Ok(by_id()) };
    match group.static_member(instance_id) {
        None if is_unknown => Ok(by_id()),
        None => Err(GroupError::UnknownMemberId),
        // The classic protocol lets whoever comes last take the place.
        Some((old_id, old)) if is_unknown => Ok(take_place(group, member_id, old_id, old, records)),
        Some((id, _)) if id != member_id => Err(GroupError::FencedInstanceId),
        Some((_, member)) => Ok(existing(member)),
    }
}

/// Gives the place of a static member to its next incarnation.
fn take_place(
    group: &ConsumerGroup,
    member_id: &Str,
    old_id: &Str,
    old: &Member,
    records: &mut Records<'_>,
) -> Sender {
    let mut member = old.clone();
    member.epoch = JOINING;
    member.previous_epoch = JOINING;
    records.member_tombstones(old_id);
    records.member(member_id, &member);
    records.target(member_id, group.targets.get(old_id).unwrap_or(&Target::new()));
    records.current(member_id, &member);
    Sender { member, is_new: false, replaced: Some(old_id.clone()) }
}

/// Checks the epoch that a member believes to be in.
fn check_epoch(member: &Member, request: &ConsumerHeartbeatRequest) -> Result<(), GroupError> {
    let epoch = request.member_epoch;
    if epoch == JOINING || epoch == member.epoch {
        return Ok(());
    }
    // The answer with the new epoch may have got lost.
    let owns_no_more = |owned: &[(Uuid, Vec<i32>)]| {
        owned.iter().all(|(topic, partitions)| {
            member.assigned.get(topic).is_some_and(|assigned| {
                partitions.iter().all(|partition| assigned.contains_key(partition))
            })
        })
    };
    if epoch < member.epoch
        && epoch == member.previous_epoch
        && request.owned.as_deref().is_some_and(owns_no_more)
    {
        return Ok(());
    }
    Err(GroupError::FencedMemberEpoch)
}

/// Takes over what the heartbeat says of its sender.
pub(super) fn update(member: &mut Member, request: &ConsumerHeartbeatRequest) {
    let update = |known: &mut Option<Str>, sent: &Option<Str>| {
        if let Some(sent) = sent {
            *known = Some(sent.detach());
        }
    };
    update(&mut member.instance_id, &request.instance_id);
    update(&mut member.rack_id, &request.rack_id);
    update(&mut member.assignor, &request.server_assignor);
    update(&mut member.regex, &request.subscribed_topic_regex);
    if request.rebalance_timeout_ms != -1 {
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
    }
    if let Some(names) = &request.subscribed_topic_names {
        member.topics = names.iter().map(Str::detach).collect();
    }
    member.client_id = request.client_id.detach();
    member.client_host = request.client_host.detach();
    member.classic = None;
}
