//! ShareGroupHeartbeat, from a request to records and a reply.
//!
//! As for consumer groups there are three parts: the member is created or updated, which may raise
//! the group's epoch; if the group is ahead of the target assignment, a new target is made; and the
//! member takes over what the target says. Only share-partitions that have a state are assigned; for
//! the others the driver is asked to begin one. Until it has, members are told to come back soon,
//! where Kafka lets them wait for a whole heartbeat interval.

use std::collections::{BTreeMap, BTreeSet};

use fleuve_protocol::Str;
use fleuve_types::{TimestampMs, Uuid};

use super::api::{ShareHeartbeatReply, ShareHeartbeatRequest};
use super::assignor::{self, Asking};
use super::group::{ShareGroup, ShareMember, Target};
use super::write::Records;
use crate::coordinator::{Group, GroupCoordinator};
use crate::error::GroupError;
use crate::history::RebalanceCause;
use crate::modern::{Aftermath, JOINING, LEAVING, LookedAt, rebalance, topics_hash};
use crate::record::Record;
use crate::step::{Effect, Now, Response, Step, Then, Token};
use crate::timers::Purpose;

/// Characters that a member's id has at most.
const MEMBER_ID_LENGTH_MAX: usize = 36;

/// How soon members come back while share-partitions they want are given their states.
const SOON_MS: i32 = 200;

/// What a heartbeat comes to.
struct Decision {
    records: Vec<Record>,
    reply: ShareHeartbeatReply,
    /// Why the group's epoch rose, if it did.
    cause: Option<RebalanceCause>,
    /// The epoch that ends then.
    old_epoch: i32,
    looked_at: LookedAt,
}

impl GroupCoordinator {
    /// Handles ShareGroupHeartbeat.
    pub fn handle_share_heartbeat(
        &mut self,
        now: Now,
        token: Token,
        request: &ShareHeartbeatRequest,
    ) -> Step {
        let mut step = Step::default();
        let outcome =
            check_request(request).and_then(|()| self.check_serving()).and_then(|()| match request
                .member_epoch
            {
                LEAVING => self.share_member_leaves(now, token, request, &mut step),
                _ => self.share_member_lives(now, token, request, &mut step),
            });
        if let Err(error) = outcome {
            step.reply(token, Response::ShareHeartbeat(Err(error)));
        }
        step
    }

    fn share_member_lives(
        &mut self,
        now: Now,
        token: Token,
        request: &ShareHeartbeatRequest,
        step: &mut Step,
    ) -> Result<(), GroupError> {
        let fresh = ShareGroup::default();
        let group = match (self.groups.get(&request.group_id), request.member_epoch == JOINING) {
            (Some(Group::Share(_)), _) => {
                self.ledger().share_group(&request.group_id).unwrap_or(&fresh)
            }
            (None, true) => &fresh,
            _ => return Err(GroupError::GroupIdNotFound),
        };
        let decision = self.decide_share(now, group, request)?;
        let retry = self.initialize_again(now, &request.group_id, group);
        let is_retried = retry.is_some();
        step.effects.extend(retry);

        let rebalance = decision
            .cause
            .map(|cause| rebalance(now, decision.old_epoch, cause, Some(&request.member_id)));
        let session_timeout_ms = i64::from(self.share_timing(&request.group_id).session_timeout_ms);
        let (groups, mut cx) = self.split(now, step);
        let id = request.group_id.detach();
        let session = Purpose::Heartbeat { group: id.clone(), member: request.member_id.detach() };
        cx.schedule(session, session_timeout_ms);
        if is_retried && let Some(Group::Share(companion)) = groups.get_mut(&id) {
            companion.initializing_since_ms = Some(now.monotonic_ms);
        }
        let response = Response::ShareHeartbeat(Ok(decision.reply));
        if decision.records.is_empty() {
            let mut after = None;
            if let Some(Group::Share(companion)) = groups.get_mut(&id) {
                companion.look(decision.looked_at);
                after = companion.stored_until;
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
                ..Aftermath::default()
            };
            cx.step.write(decision.records, Then::Modern(Box::new(aftermath)));
        }
        Ok(())
    }

    fn decide_share(
        &self,
        now: Now,
        group: &ShareGroup,
        request: &ShareHeartbeatRequest,
    ) -> Result<Decision, GroupError> {
        let settings = &self.settings.share;
        let id = &request.member_id;
        let known = group.members.get(id);
        if known.is_none() && group.members.len() >= settings.max_size {
            return Err(GroupError::GroupMaxSizeReached);
        }
        let old = match known {
            Some(member) => {
                check_epoch(member, request.member_epoch)?;
                member.clone()
            }
            None if request.member_epoch == JOINING => ShareMember::default(),
            None => return Err(GroupError::UnknownMemberId),
        };
        let mut member = old.clone();
        update(&mut member, request);
        let mut records = Records::new(&request.group_id);
        if known.is_none() || member != old {
            records.member(id, &member);
        }

        let version = self.topics().version();
        let checked = match self.groups.get(&request.group_id) {
            Some(Group::Share(companion)) => companion.checked,
            _ => None,
        };
        let names_changed = member.topics != old.topics;
        let mut looked_at = LookedAt::default();
        let mut epoch = group.epoch;
        let mut cause = None;
        let mut is_waiting = !group.states.initializing.is_empty();
        if names_changed || known.is_none() || checked != Some(version) {
            looked_at.checked = Some(version);
            let names = subscribed_names(group, id, &member);
            let hash = topics_hash(names.iter().copied(), self.topics());
            let missing = self.missing_states(group, &names);
            if !missing.is_empty() {
                let mut states = group.states.clone();
                for (topic_id, name, partition) in missing {
                    let topic = states.initializing.entry(topic_id).or_default();
                    topic.name = name;
                    topic.partitions.insert(partition);
                }
                records.states(&states);
                is_waiting = true;
            }
            let must_rise = names_changed || known.is_none();
            let topics_changed = hash != group.metadata_hash || has_unassigned(group, &names, self);
            if must_rise || topics_changed {
                epoch = epoch.saturating_add(1);
                records.epoch(epoch, hash);
                cause = Some(match () {
                    () if known.is_none() => RebalanceCause::MemberJoined,
                    () if names_changed => RebalanceCause::MemberChanged,
                    () => RebalanceCause::TopicsChanged,
                });
            }
        }

        let timing = self.share_timing(&request.group_id);
        let may_assign = timing.allows_assignment(group.target_timestamp, now.wall.0);
        let (target_epoch, target) = if group.target_epoch >= epoch || !may_assign {
            (group.target_epoch, self.wanted_still(group.targets.get(id), &member))
        } else {
            let (target, is_empty) = self.new_share_targets(group, id, &member, &mut records);
            // The first partitions that come need not wait for the next assignment's turn.
            records.target_epoch(epoch, if is_empty { TimestampMs(0) } else { now.wall });
            (epoch, target)
        };
        if member.epoch != target_epoch || member.assigned != target {
            member.previous_epoch = std::mem::replace(&mut member.epoch, target_epoch);
            member.assigned = target;
            records.current(id, &member);
        }

        let tells_assignment = request.member_epoch == JOINING
            || request.subscribed_topic_names.is_some()
            || member.assigned != old.assigned;
        let interval_ms = timing.heartbeat_interval_ms;
        is_waiting |= target_epoch < epoch;
        let reply = ShareHeartbeatReply {
            member_id: id.detach(),
            member_epoch: member.epoch,
            heartbeat_interval_ms: if is_waiting { interval_ms.min(SOON_MS) } else { interval_ms },
            assignment: tells_assignment.then(|| {
                let topics = member.assigned.iter();
                topics.map(|(id, all)| (*id, all.iter().copied().collect())).collect()
            }),
        };
        Ok(Decision { records: records.list, reply, cause, old_epoch: group.epoch, looked_at })
    }

    /// What an earlier target still gives a member: no topic that it has left, and none that is gone.
    fn wanted_still(&self, target: Option<&Target>, member: &ShareMember) -> Target {
        let mut target = target.cloned().unwrap_or_default();
        target.retain(|topic, _| {
            self.topics().by_id(*topic).is_some_and(|topic| member.topics.contains(&*topic.name))
        });
        target
    }

    /// Partitions of these topics that have no state and of which none is under way.
    fn missing_states(&self, group: &ShareGroup, names: &BTreeSet<&Str>) -> Vec<(Uuid, Str, i32)> {
        let states = &group.states;
        let mut missing = Vec::new();
        for topic in names.iter().filter_map(|name| self.topics().by_name(name)) {
            let has = |topics: &BTreeMap<Uuid, super::group::StateTopic>, partition: i32| {
                topics.get(&topic.id).is_some_and(|topic| topic.partitions.contains(&partition))
            };
            for partition in 0..topic.partitions {
                if !has(&states.initialized, partition) && !has(&states.initializing, partition) {
                    missing.push((topic.id, topic.name.detach(), partition));
                }
            }
        }
        missing
    }

    /// Asks for states once more that should long have begun.
    fn initialize_again(&self, now: Now, id: &Str, group: &ShareGroup) -> Option<Effect> {
        let Some(Group::Share(companion)) = self.groups.get(id) else { return None };
        let since_ms = companion.initializing_since_ms?;
        let age_ms = now.monotonic_ms.saturating_sub(since_ms);
        let is_due = age_ms >= i64::from(self.settings.share.initialize_retry_interval_ms);
        (is_due && !group.states.initializing.is_empty()).then(|| Effect::InitializeShares {
            group: id.detach(),
            state_epoch: group.epoch,
            partitions: group.initializing(),
        })
    }

    /// Makes the target assignment of all members, writes down whose changed, and returns that of
    /// `asking`, and whether nobody got anything.
    fn new_share_targets(
        &self,
        group: &ShareGroup,
        asking: &Str,
        asking_member: &ShareMember,
        records: &mut Records<'_>,
    ) -> (Target, bool) {
        let others = group.members.iter().filter(|(id, _)| *id != asking);
        let mut members: Vec<(&Str, &ShareMember)> = others.collect();
        members.push((asking, asking_member));
        members.sort_by_key(|(id, _)| *id);
        let mut topics: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
        let mut ids: BTreeMap<&Str, Option<Uuid>> = BTreeMap::new();
        for name in members.iter().flat_map(|(_, member)| &member.topics) {
            ids.entry(name).or_insert_with(|| {
                let topic = self.topics().by_name(name)?;
                let state = group.states.initialized.get(&topic.id)?;
                let assignable = state.partitions.iter().filter(|p| **p < topic.partitions);
                topics.insert(topic.id, assignable.copied().collect());
                Some(topic.id)
            });
        }
        let asked = members.iter().map(|(id, member)| Asking {
            id,
            subscribed: member.topics.iter().filter_map(|name| ids.get(name).copied()?).collect(),
            had: group.targets.get(*id),
        });
        let asked: Vec<Asking<'_>> = asked.collect();
        let mut of_asking = Target::new();
        let mut is_empty = true;
        for (member, target) in asked.iter().zip(assignor::assign(&asked, &topics)) {
            is_empty &= target.is_empty();
            if member.had != Some(&target) {
                records.target(member.id, &target);
            }
            if member.id == asking {
                of_asking = target;
            }
        }
        (of_asking, is_empty)
    }
}

/// Whether a share group takes members by this id: as Kafka, at most as long as a UUID's text.
pub fn is_member_id(id: &str) -> bool {
    // Kafka counts as Java does.
    !id.is_empty() && id.encode_utf16().count() <= MEMBER_ID_LENGTH_MAX
}

/// Refuses what no group could make sense of.
fn check_request(request: &ShareHeartbeatRequest) -> Result<(), GroupError> {
    let require = |holds: bool, text: &'static str| {
        if holds { Ok(()) } else { Err(GroupError::InvalidRequest(text)) }
    };
    let is_blank = |text: &Option<Str>| text.as_ref().is_some_and(|text| text.trim().is_empty());
    require(!request.member_id.trim().is_empty(), "MemberId can't be empty.")?;
    require(is_member_id(&request.member_id), "MemberId must not be longer than 36 characters.")?;
    require(!request.group_id.trim().is_empty(), "GroupId can't be empty.")?;
    require(!is_blank(&request.rack_id), "RackId can't be empty.")?;
    require(request.member_epoch >= LEAVING, "MemberEpoch is invalid.")?;
    let names = request.subscribed_topic_names.as_ref();
    require(
        request.member_epoch != JOINING || names.is_some_and(|names| !names.is_empty()),
        "SubscribedTopicNames must be set in first request.",
    )
}

/// Checks the epoch that a member believes to be in; the answer with the last one may have got lost.
fn check_epoch(member: &ShareMember, epoch: i32) -> Result<(), GroupError> {
    if epoch == JOINING || epoch == member.epoch || epoch == member.previous_epoch {
        return Ok(());
    }
    Err(GroupError::FencedMemberEpoch)
}

/// Takes over what the heartbeat says of its sender.
fn update(member: &mut ShareMember, request: &ShareHeartbeatRequest) {
    if let Some(rack_id) = &request.rack_id {
        member.rack_id = Some(rack_id.detach());
    }
    if let Some(names) = &request.subscribed_topic_names {
        member.topics = names.iter().map(Str::detach).collect();
    }
    if member.client_id != request.client_id {
        member.client_id = request.client_id.detach();
    }
    if member.client_host != request.client_host {
        member.client_host = request.client_host.detach();
    }
}

/// All names that members are subscribed to, with `member` under `id`.
fn subscribed_names<'a>(
    group: &'a ShareGroup,
    id: &Str,
    member: &'a ShareMember,
) -> BTreeSet<&'a Str> {
    let others = group.members.iter().filter(|(other, _)| *other != id);
    others.flat_map(|(_, member)| &member.topics).chain(&member.topics).collect()
}

/// Whether a partition with a state is nobody's, although somebody wants it.
fn has_unassigned(group: &ShareGroup, names: &BTreeSet<&Str>, shard: &GroupCoordinator) -> bool {
    let assigned: BTreeSet<(Uuid, i32)> = group
        .targets
        .values()
        .flatten()
        .flat_map(|(topic, partitions)| partitions.iter().map(|partition| (*topic, *partition)))
        .collect();
    names.iter().filter_map(|name| shard.topics().by_name(name)).any(|topic| {
        let state = group.states.initialized.get(&topic.id);
        state.is_some_and(|state| {
            let existing = state.partitions.iter().filter(|p| **p < topic.partitions);
            existing.into_iter().any(|partition| !assigned.contains(&(topic.id, *partition)))
        })
    })
}
