//! StreamsGroupHeartbeat, from a request to records and a reply.
//!
//! Five parts, as KIP-1071 has them: the member is created or updated; the topology is taken over
//! from the first that brings one; it is held against the topics, which may show that internal ones
//! are missing; if all that raised the group's epoch, a new target is made, but not too soon after
//! the last one or after the group's first member came; and the member takes a step towards it.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleuve_protocol::Str;

use super::api::{StreamsHeartbeatReply, StreamsHeartbeatRequest};
use super::assignor::{self, Spec, SpecMember, SpecSubtopology};
use super::companion::StreamsCompanion;
use super::configure::{Configured, StreamsStatus, StreamsStatusKind, configure};
use super::endpoints::endpoints;
use super::group::{NOT_VALIDATED, StreamsGroup};
use super::member::Member;
use super::reconcile::Reconciliation;
use super::sender::{Sender, check_request, find_sender, update};
use super::tasks::{Roles, Target, TaskList};
use super::topology::Topology;
use super::write::{Epoch, Records};
use crate::coordinator::{Group, GroupCoordinator};
use crate::error::GroupError;
use crate::history::RebalanceCause;
use crate::modern::{
    Aftermath, JOINING, LEAVING, LEFT_FOR_A_WHILE, LookedAt, MemberState, rebalance, topics_hash,
};
use crate::record::Record;
use crate::settings::StreamsSettings;
use crate::step::{Now, Response, Step, Then, Token};
use crate::timers::Purpose;

/// The name under which the number of copies is written down with a group.
const STANDBY_REPLICAS: Str = Str::from_static("num.standby.replicas");

/// What a heartbeat comes to.
struct Decision {
    records: Vec<Record>,
    reply: StreamsHeartbeatReply,
    /// Why the group's epoch rose, if it did.
    cause: Option<RebalanceCause>,
    /// The epoch that ends then.
    old_epoch: i32,
    looked_at: LookedAt,
    /// The topology as it is held against the topics now.
    configured: Arc<Configured>,
    revocation: Revocation,
    /// Begins the time in which further members may join before tasks are handed out.
    begins_delay: bool,
}

/// What becomes of the member's time for giving tasks up.
#[derive(Clone, Copy)]
enum Revocation {
    AsBefore,
    Within { timeout_ms: i32 },
    Done,
}

impl GroupCoordinator {
    /// Handles StreamsGroupHeartbeat.
    pub fn handle_streams_heartbeat(
        &mut self,
        now: Now,
        token: Token,
        request: &StreamsHeartbeatRequest,
    ) -> Step {
        let mut step = Step::default();
        let outcome =
            check_request(request).and_then(|()| self.check_serving()).and_then(|()| match request
                .member_epoch
            {
                LEAVING | LEFT_FOR_A_WHILE => self.streams_leaves(now, token, request, &mut step),
                _ => self.streams_lives(now, token, request, &mut step),
            });
        if let Err(error) = outcome {
            step.reply(token, Response::StreamsHeartbeat(Err(error)));
        }
        step
    }

    fn streams_lives(
        &mut self,
        now: Now,
        token: Token,
        request: &StreamsHeartbeatRequest,
        step: &mut Step,
    ) -> Result<(), GroupError> {
        let is_joining = request.member_epoch == JOINING;
        let mut records = Vec::new();
        let fresh = StreamsGroup::default();
        let (group, companion) = match (self.groups.get(&request.group_id), is_joining) {
            (Some(Group::Streams(companion)), _) => {
                let group = self.ledger().streams_group(&request.group_id);
                (group.unwrap_or(&fresh), Some(&**companion))
            }
            (None, true) => (&fresh, None),
            // A classic group that nobody is in gives way; its offsets stay.
            (Some(Group::Classic(classic)), true) if classic.is_deserted() => {
                if self.ledger().has_classic_record(&request.group_id) {
                    records.push(Record::group_tombstone(&request.group_id));
                }
                (&fresh, None)
            }
            _ => return Err(GroupError::GroupIdNotFound),
        };
        let settings = self.streams_settings(&request.group_id);
        let decision = self.decide_streams(now, group, companion, &settings, request, records)?;

        let id = request.group_id.detach();
        let member_id = request.member_id.detach();
        let rebalance =
            decision.cause.map(|cause| rebalance(now, decision.old_epoch, cause, Some(&member_id)));
        let (groups, mut cx) = self.split(now, step);
        if decision.begins_delay {
            let delay_ms = i64::from(settings.initial_rebalance_delay_ms);
            cx.schedule(Purpose::InitialAssignment { group: id.clone() }, delay_ms);
        }
        let session = Purpose::Heartbeat { group: id.clone(), member: member_id.clone() };
        cx.schedule(session, settings.timing.session_timeout_ms.into());
        let revocation = Purpose::Revocation { group: id.clone(), member: member_id.clone() };
        match decision.revocation {
            Revocation::AsBefore => {}
            Revocation::Within { timeout_ms } => cx.schedule(revocation, timeout_ms.into()),
            Revocation::Done => cx.timers.cancel(revocation),
        }
        let mut after = None;
        if let Some(Group::Streams(companion)) = groups.get_mut(&id) {
            companion.endpoint_epoch = decision.reply.endpoint_information_epoch;
            if request.shutdown_application && companion.shutdown_requested_by.is_none() {
                companion.shutdown_requested_by = Some(member_id);
            }
            after = companion.common.stored_until;
        }
        let response = Response::StreamsHeartbeat(Ok(Box::new(decision.reply)));
        if decision.records.is_empty() {
            if let Some(Group::Streams(companion)) = groups.get_mut(&id) {
                companion.common.look(decision.looked_at);
                companion.configured = Some(decision.configured);
            }
            cx.step.reply_after(token, response, after);
        } else {
            let aftermath = Aftermath {
                group: id,
                reply: Some((token, response)),
                rebalance,
                gone: Vec::new(),
                replaced: None,
                looked_at: decision.looked_at,
                configured: Some(decision.configured),
                migration: None,
            };
            cx.step.write(decision.records, Then::Modern(Box::new(aftermath)));
        }
        Ok(())
    }

    fn decide_streams(
        &self,
        now: Now,
        group: &StreamsGroup,
        companion: Option<&StreamsCompanion>,
        settings: &StreamsSettings,
        request: &StreamsHeartbeatRequest,
        before: Vec<Record>,
    ) -> Result<Decision, GroupError> {
        let member_id = &request.member_id;
        let is_joining =
            request.member_epoch == JOINING && !group.members().contains_key(member_id);
        if is_joining && group.members().len() >= settings.max_size {
            return Err(GroupError::GroupMaxSizeReached);
        }
        let owned = owned(&request.owned);
        let Sender { member: old, is_new } = find_sender(group, request, owned.as_ref())?;
        let mut records = Records::new(&request.group_id);
        records.list = before;
        let mut statuses = Vec::new();

        // The member is created or updated.
        let mut member = old.clone();
        update(&mut member, request);
        let has_changed = is_new || member != old;
        if has_changed {
            records.member(member_id, &member);
        }

        // The topology is the first that anybody brought.
        let brought = request.topology.as_ref().map(Topology::new);
        let topology = match (&group.topology, &brought) {
            (None, None) => return Err(GroupError::InvalidRequest("The group has no topology.")),
            (None, Some(brought)) => {
                records.topology(brought.to_record());
                brought
            }
            (Some(known), Some(brought)) if known.epoch <= brought.epoch && known != brought => {
                return Err(GroupError::InvalidRequest("Topology updates are not supported yet."));
            }
            (Some(known), _) => known,
        };
        if group.topology.is_some() && member.topology_epoch < topology.epoch {
            statuses.push(StreamsStatus {
                kind: StreamsStatusKind::StaleTopology,
                detail: format!(
                    "The member's topology epoch {} is behind the group's topology epoch {}.",
                    member.topology_epoch, topology.epoch
                ),
            });
        }

        // It is held against the topics, if these have changed.
        let version = self.topics().version();
        let checked = companion.and_then(|companion| companion.common.checked);
        let known = companion.and_then(|companion| companion.configured.clone());
        let known = known.filter(|_| group.topology.is_some());
        let mut hash = group.metadata_hash;
        let mut looked_at = LookedAt::default();
        let configured = match known {
            Some(known) if checked == Some(version) => known,
            known => {
                hash = topics_hash(topology.required_topics().into_iter(), self.topics());
                looked_at.checked = Some(version);
                match known.filter(|_| hash == group.metadata_hash) {
                    Some(known) => known,
                    None => Arc::new(configure(topology, self.topics())?),
                }
            }
        };
        let topics_changed = hash != group.metadata_hash;
        let validated_epoch = match configured.is_ready() {
            true => topology.epoch,
            false => NOT_VALIDATED,
        };
        if configured.is_ready() {
            check_tasks(&configured, owned.as_ref())?;
        }

        // Whatever tasks depend on raises the group's epoch.
        let configs =
            BTreeMap::from([(STANDBY_REPLICAS, Str::from(settings.standby_replicas.to_string()))]);
        let configs_changed = configs != group.assignment_configs;
        let validation_changed = validated_epoch != group.validated_epoch;
        let mut epoch = group.epoch;
        let mut cause = None;
        if has_changed || topics_changed || validation_changed || configs_changed {
            epoch = epoch.saturating_add(1);
            records.epoch(&Epoch {
                epoch,
                metadata_hash: hash,
                validated_epoch,
                assignment_configs: &configs,
            });
            cause = Some(match () {
                () if is_new => RebalanceCause::MemberJoined,
                () if has_changed => RebalanceCause::MemberChanged,
                () if topics_changed || validation_changed => RebalanceCause::TopicsChanged,
                () => RebalanceCause::ConfigsChanged,
            });
        }

        // A new target is made if the group is ahead of the old one, and neither waits for its
        // first members nor had one a moment ago.
        let delay = Purpose::InitialAssignment { group: request.group_id.clone() };
        let is_delayed = self.is_scheduled(&delay);
        let begins_delay =
            !is_delayed && group.members().is_empty() && settings.initial_rebalance_delay_ms > 0;
        let mut delayed = |detail: &str| {
            statuses.push(StreamsStatus {
                kind: StreamsStatusKind::AssignmentDelayed,
                detail: detail.to_owned(),
            });
        };
        let known_target = || group.targets.get(member_id).cloned().unwrap_or_default();
        let (target_epoch, target) = if is_delayed || begins_delay {
            delayed("Assignment delayed due to the configured initial rebalance delay.");
            (group.target_epoch, Target::default())
        } else if group.target_epoch >= epoch {
            (group.target_epoch, known_target())
        } else if !settings.timing.allows_assignment(group.target_timestamp, now.wall.0) {
            delayed("Assignment delayed due to the configured assignment interval.");
            (group.target_epoch, known_target())
        } else {
            let others = group.members().iter().filter(|(id, _)| *id != member_id);
            let members = others.chain([(member_id, &member)]);
            let replicas = settings.standby_replicas;
            let target =
                new_targets(group, members, &configured, replicas, member_id, &mut records);
            records.target_epoch(epoch, now.wall);
            (epoch, target)
        };

        // The member takes a step towards it.
        let before = member.clone();
        let mut revocation = Revocation::AsBefore;
        if !member.is_reconciled_to(target_epoch) {
            let owned = owned.as_ref();
            member =
                Reconciliation { group, target_epoch, target: &target, owned }.advance(member)?;
            if member != before {
                records.current(member_id, &member);
                revocation = match member.state {
                    MemberState::Unrevoked => {
                        Revocation::Within { timeout_ms: member.rebalance_timeout_ms }
                    }
                    _ => Revocation::Done,
                };
            }
        }

        let mut reply = StreamsHeartbeatReply {
            member_id: member_id.detach(),
            member_epoch: member.epoch,
            heartbeat_interval_ms: settings.timing.heartbeat_interval_ms,
            ..StreamsHeartbeatReply::default()
        };
        // Kafka tells no more than joins and changes. But the answer with a change may have got
        // lost, and a member that then says what it has would never hear of it.
        let knows_its_tasks =
            owned.as_ref().is_none_or(|owned| owned.are_exactly(&member.assigned));
        let tells_tasks =
            request.member_epoch == JOINING || member.assigned != old.assigned || !knows_its_tasks;
        let mut endpoint_epoch = companion.map_or(0, |companion| companion.endpoint_epoch);
        if tells_tasks {
            reply.tasks = Some(member.assigned.to_lists());
            if member.endpoint.is_some() && companion.is_some() {
                endpoint_epoch = endpoint_epoch.wrapping_add(1);
            }
        }
        if endpoint_epoch != request.endpoint_information_epoch {
            let others = group.members().iter().filter(|(id, _)| *id != member_id);
            let members = others.map(|(_, member)| member).chain([&member]);
            reply.endpoints = Some(endpoints(members, &configured, self.topics()));
        }
        reply.endpoint_information_epoch = endpoint_epoch;
        if let Some(problem) = &configured.problem {
            reply.missing_topics = configured.missing.clone();
            statuses.push(problem.clone());
        }
        let shutdown = companion.and_then(|companion| companion.shutdown_requested_by.as_ref());
        if let Some(by) = shutdown.or_else(|| request.shutdown_application.then_some(member_id)) {
            statuses.push(StreamsStatus {
                kind: StreamsStatusKind::ShutdownApplication,
                detail: format!(
                    "Streams group member {by} encountered a fatal error and requested a shutdown \
                     for the entire application."
                ),
            });
        }
        reply.statuses = statuses;
        Ok(Decision {
            records: records.list,
            reply,
            cause,
            old_epoch: group.epoch,
            looked_at,
            configured,
            revocation,
            begins_delay,
        })
    }

    /// The time for a group's first members is over: tasks are handed out.
    pub(crate) fn assign_streams_group(&mut self, now: Now, group_id: &Str, step: &mut Step) {
        let Some(Group::Streams(companion)) = self.groups.get(group_id) else { return };
        let Some(group) = self.ledger().streams_group(group_id) else { return };
        let Some(configured) = &companion.configured else { return };
        if group.members().is_empty() || group.epoch <= group.target_epoch {
            return;
        }
        let replicas = group.assignment_configs.get(&STANDBY_REPLICAS);
        let replicas = replicas.and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut records = Records::new(group_id);
        let members = group.members().iter();
        new_targets(group, members, configured, replicas, &Str::EMPTY, &mut records);
        records.target_epoch(group.epoch, now.wall);
        step.write(records.list, Then::Nothing);
    }
}

/// Makes the target assignment of all members, writes down whose changed, and returns that of
/// `asking`.
fn new_targets<'a>(
    group: &StreamsGroup,
    members: impl Iterator<Item = (&'a Str, &'a Member)>,
    configured: &Configured,
    standby_replicas: i32,
    asking: &Str,
    records: &mut Records<'_>,
) -> Target {
    let mut members: Vec<(&Str, &Member)> = members.collect();
    members.sort_by_key(|(id, _)| *id);
    let nothing = Target::default();
    let subtopologies = configured.subtopologies.iter().flatten();
    let spec = Spec {
        members: members
            .iter()
            .map(|(id, member)| SpecMember {
                process_id: &member.process_id,
                previous: group.targets.get(*id).unwrap_or(&nothing),
            })
            .collect(),
        subtopologies: subtopologies
            .map(|(id, subtopology)| SpecSubtopology {
                id,
                tasks: subtopology.tasks,
                is_stateful: !subtopology.changelog_topics.is_empty(),
            })
            .collect(),
        standby_replicas: usize::try_from(standby_replicas).unwrap_or(0),
    };
    let targets = match configured.is_ready() {
        true => assignor::assign(&spec),
        false => vec![Target::default(); members.len()],
    };
    let mut of_asking = Target::default();
    for ((id, _), target) in members.into_iter().zip(targets) {
        if group.targets.get(id) != Some(&target) {
            records.target(id, &target);
        }
        if id == asking {
            of_asking = target;
        }
    }
    of_asking
}

/// All roles, or nothing; a request with only some of them was refused.
fn owned(owned: &Roles<Option<TaskList>>) -> Option<Roles<TaskList>> {
    Some(Roles {
        active: owned.active.clone()?,
        standby: owned.standby.clone()?,
        warmup: owned.warmup.clone()?,
    })
}

/// Refuses tasks that do not exist.
fn check_tasks(configured: &Configured, owned: Option<&Roles<TaskList>>) -> Result<(), GroupError> {
    for (subtopology, partitions) in owned.into_iter().flat_map(Roles::iter) {
        let subtopology = configured
            .subtopology(subtopology)
            .ok_or(GroupError::InvalidRequest("A subtopology does not exist in the topology."))?;
        if partitions.iter().any(|partition| !(0..subtopology.tasks).contains(partition)) {
            return Err(GroupError::InvalidRequest("A task does not exist in its subtopology."));
        }
    }
    Ok(())
}
