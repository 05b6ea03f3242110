//! Who sends a heartbeat, and whether it may.

use fleuve_protocol::Str;

use super::api::StreamsHeartbeatRequest;
use super::group::StreamsGroup;
use super::member::Member;
use super::tasks::{Roles, TaskList};
use super::topology;
use crate::error::GroupError;
use crate::modern::{JOINING, LEFT_FOR_A_WHILE};

/// The member that a heartbeat is from, before the heartbeat takes effect.
pub(super) struct Sender {
    pub(super) member: Member,
    pub(super) is_new: bool,
}

/// Refuses what no group could make sense of, and what Kafka 4.3 refuses because it does not
/// support it yet.
pub(super) fn check_request(request: &StreamsHeartbeatRequest) -> Result<(), GroupError> {
    let require = |holds: bool, text: &'static str| {
        if holds { Ok(()) } else { Err(GroupError::InvalidRequest(text)) }
    };
    let owned = &request.owned;
    require(request.instance_id.is_none(), "Static membership is not yet supported.")?;
    require(!request.tells_task_offsets, "TaskOffsets are not supported yet.")?;
    let has_warmup = owned.warmup.as_ref().is_some_and(|tasks| !tasks.is_empty());
    require(!has_warmup, "WarmupTasks are not supported yet.")?;
    let regexes = request.topology.iter().flat_map(|topology| &topology.subtopologies);
    require(
        regexes.into_iter().all(|subtopology| subtopology.source_topic_regex.is_empty()),
        "Regular expressions for source topics are not supported yet.",
    )?;

    let is_blank = |text: &Option<Str>| text.as_ref().is_some_and(|text| text.trim().is_empty());
    require(!request.member_id.trim().is_empty(), "MemberId can't be empty.")?;
    require(!request.group_id.trim().is_empty(), "GroupId can't be empty.")?;
    require(!is_blank(&request.rack_id), "RackId can't be empty.")?;
    match request.member_epoch {
        JOINING => {
            require(
                request.rebalance_timeout_ms != -1,
                "RebalanceTimeoutMs must be provided in first request.",
            )?;
            let is_empty = |tasks: &Option<TaskList>| tasks.as_ref().is_some_and(Vec::is_empty);
            require(is_empty(&owned.active), "ActiveTasks must be empty when (re-)joining.")?;
            require(is_empty(&owned.standby), "StandbyTasks must be empty when (re-)joining.")?;
            require(is_empty(&owned.warmup), "WarmupTasks must be empty when (re-)joining.")?;
            require(request.topology.is_some(), "Topology must be non-null when (re-)joining.")?;
        }
        LEFT_FOR_A_WHILE => require(false, "InstanceId can't be null.")?,
        epoch => require(epoch > LEFT_FOR_A_WHILE, "MemberEpoch is invalid.")?,
    }
    let told = [&owned.active, &owned.standby, &owned.warmup];
    require(
        told.iter().all(|tasks| tasks.is_some()) || told.iter().all(|tasks| tasks.is_none()),
        "If one task-type is non-null, all must be non-null.",
    )?;
    require(
        request.member_epoch == JOINING || request.topology.is_none(),
        "Topology can only be provided when (re-)joining.",
    )?;
    request.topology.as_ref().map_or(Ok(()), topology::check)
}

/// Finds or makes the member that sent the heartbeat, and checks that it may.
pub(super) fn find_sender(
    group: &StreamsGroup,
    request: &StreamsHeartbeatRequest,
    owned: Option<&Roles<TaskList>>,
) -> Result<Sender, GroupError> {
    match group.members().get(&request.member_id) {
        Some(member) => {
            check_epoch(member, request.member_epoch, owned)?;
            Ok(Sender { member: member.clone(), is_new: false })
        }
        None if request.member_epoch == JOINING => {
            Ok(Sender { member: Member::default(), is_new: true })
        }
        None => Err(GroupError::UnknownMemberId),
    }
}

/// Checks the epoch that a member believes to be in.
fn check_epoch(
    member: &Member,
    epoch: i32,
    owned: Option<&Roles<TaskList>>,
) -> Result<(), GroupError> {
    if epoch == JOINING || epoch == member.epoch {
        return Ok(());
    }
    // The answer with the new epoch may have got lost.
    let owns_no_more = owned.is_some_and(|owned| owned.are_all_in(&member.assigned));
    if epoch < member.epoch && epoch == member.previous_epoch && owns_no_more {
        return Ok(());
    }
    Err(GroupError::FencedMemberEpoch)
}

/// Takes over what the heartbeat says of its sender.
pub(super) fn update(member: &mut Member, request: &StreamsHeartbeatRequest) {
    if let Some(rack) = &request.rack_id {
        member.rack_id = Some(rack.detach());
    }
    if request.rebalance_timeout_ms != -1 {
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
    }
    if let Some(topology) = &request.topology {
        member.topology_epoch = topology.epoch;
    }
    if let Some(process) = &request.process_id {
        member.process_id = process.detach();
    }
    if let Some(tags) = &request.client_tags {
        let own = |(key, value): (&Str, &Str)| (key.detach(), value.detach());
        member.client_tags = tags.iter().map(own).collect();
    }
    if let Some((host, port)) = &request.user_endpoint {
        member.endpoint = Some((host.detach(), *port));
    }
    member.client_id = request.client_id.detach();
    member.client_host = request.client_host.detach();
}
