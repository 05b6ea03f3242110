//! ConsumerGroupHeartbeat, from a request to records and a reply.
//!
//! Three parts, as KIP-848 has them: the member is created or updated, which may raise the group's
//! epoch; if the group's epoch is ahead of the target assignment's, a new target is made; and the
//! member takes a step towards the target.
//!
//! Two things are done differently from Kafka. A new regular expression is resolved at once and not
//! on another thread, so its member gets its partitions with the first answer. And the topics are
//! compared with those of the last look whenever there is a new view of them, in place of an
//! hourly refresh and notifications of groups.

use std::collections::{BTreeMap, BTreeSet};

use fleuve_protocol::Str;

use super::api::{ConsumerHeartbeatReply, ConsumerHeartbeatRequest};
use super::assignor::{Assignor, Spec, SpecMember};
use super::group::ConsumerGroup;
use super::member::{Member, Target};
use super::reconcile::Reconciliation;
use super::sender::{Sender, check_request, find_sender, update};
use super::subscription::{Pattern, Resolver, metadata_hash, resolve};
use super::write::Records;
use crate::coordinator::{Group, GroupCoordinator};
use crate::error::GroupError;
use crate::history::RebalanceCause;
use crate::modern::{
    Aftermath, JOINING, LEAVING, LEFT_FOR_A_WHILE, LookedAt, MemberState, rebalance,
};
use crate::record::Record;
use crate::step::{Now, Response, Step, Then, Token};
use crate::timers::Purpose;

/// Least time between two looks at what regular expressions match, in milliseconds.
const RESOLVE_INTERVAL_MIN_MS: i64 = 10_000;

/// What a heartbeat comes to.
struct Decision {
    records: Vec<Record>,
    reply: ConsumerHeartbeatReply,
    /// Why the group's epoch rose, if it did.
    cause: Option<RebalanceCause>,
    /// The epoch that ends then.
    old_epoch: i32,
    looked_at: LookedAt,
    revocation: Revocation,
    /// The member whose place a static member took.
    replaced: Option<Str>,
}

/// What becomes of the member's time for giving partitions up.
#[derive(Clone, Copy)]
enum Revocation {
    AsBefore,
    Within { timeout_ms: i32 },
    Done,
}

impl GroupCoordinator {
    /// Handles ConsumerGroupHeartbeat.
    pub fn handle_consumer_heartbeat(
        &mut self,
        now: Now,
        token: Token,
        request: &ConsumerHeartbeatRequest,
    ) -> Step {
        let mut step = Step::default();
        let outcome = check_request(request, &self.settings.consumer.assignors)
            .and_then(|()| self.check_serving())
            .and_then(|()| match request.member_epoch {
                LEAVING | LEFT_FOR_A_WHILE => self.consumer_leaves(now, token, request, &mut step),
                _ => self.consumer_lives(now, token, request, &mut step),
            });
        if let Err(error) = outcome {
            step.reply(token, Response::ConsumerHeartbeat(Err(error)));
        }
        step
    }

    fn consumer_lives(
        &mut self,
        now: Now,
        token: Token,
        request: &ConsumerHeartbeatRequest,
        step: &mut Step,
    ) -> Result<(), GroupError> {
        let is_joining = request.member_epoch == JOINING;
        let mut member_id = request.member_id.detach();
        if member_id.is_empty() {
            member_id = self.new_uuid();
        }
        let mut records = Vec::new();
        let fresh = ConsumerGroup::default();
        let group = match (self.groups.get(&request.group_id), is_joining) {
            (Some(Group::Consumer(_)), _) => {
                self.ledger().consumer_group(&request.group_id).unwrap_or(&fresh)
            }
            (None, true) => &fresh,
            // A classic group that nobody is in gives way; its offsets stay.
            (Some(Group::Classic(classic)), true) if classic.is_deserted() => {
                if self.ledger().has_classic_record(&request.group_id) {
                    records.push(Record::group_tombstone(&request.group_id));
                }
                &fresh
            }
            _ => return Err(GroupError::GroupIdNotFound),
        };
        let decision = self.decide(now, group, &member_id, request, records)?;

        let rebalance =
            decision.cause.map(|cause| rebalance(now, decision.old_epoch, cause, Some(&member_id)));
        let session_timeout_ms =
            i64::from(self.consumer_timing(&request.group_id).session_timeout_ms);
        let (groups, mut cx) = self.split(now, step);
        let id = request.group_id.detach();
        let session = Purpose::Heartbeat { group: id.clone(), member: member_id.clone() };
        cx.schedule(session, session_timeout_ms);
        let revocation = Purpose::Revocation { group: id.clone(), member: member_id };
        match decision.revocation {
            Revocation::AsBefore => {}
            Revocation::Within { timeout_ms } => cx.schedule(revocation, timeout_ms.into()),
            Revocation::Done => cx.timers.cancel(revocation),
        }
        let response = Response::ConsumerHeartbeat(Ok(decision.reply));
        if decision.records.is_empty() {
            let mut after = None;
            if let Some(Group::Consumer(companion)) = groups.get_mut(&id) {
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
                replaced: decision.replaced.filter(|replaced| *replaced != request.member_id),
                looked_at: decision.looked_at,
                configured: None,
            };
            cx.step.write(decision.records, Then::Modern(Box::new(aftermath)));
        }
        Ok(())
    }

    fn decide(
        &self,
        now: Now,
        group: &ConsumerGroup,
        member_id: &Str,
        request: &ConsumerHeartbeatRequest,
        before: Vec<Record>,
    ) -> Result<Decision, GroupError> {
        let settings = &self.settings.consumer;
        let is_member = group.members().contains_key(member_id);
        if group.members().len() >= settings.max_size && !is_member {
            return Err(GroupError::GroupMaxSizeReached);
        }
        let mut records = Records::new(&request.group_id);
        records.list = before;
        let Sender { member: old, is_new, replaced } =
            find_sender(group, member_id, request, &mut records)?;

        // The member is created or updated.
        let mut member = old.clone();
        update(&mut member, request);
        if is_new || member != old {
            records.member(member_id, &member);
        }
        let names_changed = member.topics != old.topics;
        let regex_changed = member.regex() != old.regex();
        let (companion_checked, companion_resolved) = match self.groups.get(&request.group_id) {
            Some(Group::Consumer(companion)) => (companion.checked, companion.resolved),
            _ => (None, None),
        };
        let mut looked_at = LookedAt::default();
        let version = self.topics().version();
        let is_settled = !is_new
            && member == old
            && companion_checked == Some(version)
            && !self.are_regexes_due(now, group, companion_resolved)
            && group.target_epoch >= group.epoch
            && member.is_reconciled_to(group.target_epoch);
        if is_settled {
            // Nearly all heartbeats are of this kind; they must not cost what the others do.
            return Ok(Decision {
                records: records.list,
                reply: self.heartbeat_reply(request, member_id, &member, &old),
                cause: None,
                old_epoch: group.epoch,
                looked_at,
                revocation: Revocation::AsBefore,
                replaced,
            });
        }
        let mut regexes: BTreeMap<Str, BTreeSet<Str>> = group
            .resolved
            .iter()
            .map(|(regex, resolved)| (regex.clone(), resolved.topics.clone()))
            .collect();
        let matches_changed = self.update_regexes(
            now,
            RegexChange { group, old: &old, new: &member, last: companion_resolved },
            &mut regexes,
            &mut records,
            &mut looked_at,
        )?;

        let must_rise = names_changed || regex_changed || matches_changed || group.epoch == 0;
        let mut epoch = group.epoch;
        let mut topics_changed = false;
        if must_rise || companion_checked != Some(version) {
            let others = others(group, member_id, replaced.as_ref());
            let hash =
                metadata_hash(others.map(|(_, m)| m).chain([&member]), &regexes, self.topics());
            topics_changed = hash != group.metadata_hash;
            if must_rise || topics_changed {
                epoch = epoch.saturating_add(1);
                records.epoch(epoch, hash);
            }
            if group.has_topics_record {
                records.topics_tombstone();
            }
            looked_at.checked = Some(version);
        }
        let cause = (epoch != group.epoch).then(|| match () {
            () if is_new && replaced.is_none() => RebalanceCause::MemberJoined,
            () if names_changed || regex_changed => RebalanceCause::MemberChanged,
            () if topics_changed || matches_changed => RebalanceCause::TopicsChanged,
            () => RebalanceCause::MemberJoined,
        });

        // A new target is made if the group is ahead of the old one.
        let mut resolver = Resolver::new(self.topics(), &regexes);
        let subscribed = resolver.subscribed(&member);
        let timing = self.consumer_timing(&request.group_id);
        let (target_epoch, target) = if group.target_epoch >= epoch
            || !timing.allows_assignment(group.target_timestamp, now.wall.0)
        {
            let known = group.targets.get(replaced.as_ref().unwrap_or(member_id));
            (group.target_epoch, known.cloned().unwrap_or_default())
        } else {
            let members = others(group, member_id, replaced.as_ref())
                .map(|(id, member)| (id, id, member))
                .chain([(member_id, replaced.as_ref().unwrap_or(member_id), &member)]);
            let target = self.new_targets(group, members, resolver, member_id, &mut records);
            records.target_epoch(epoch, now.wall);
            (epoch, target)
        };

        // The member takes a step towards it.
        let has_subscription_changed = names_changed || regex_changed;
        let before = member.clone();
        let mut revocation = Revocation::AsBefore;
        if has_subscription_changed || !member.is_reconciled_to(target_epoch) {
            let step = Reconciliation {
                group,
                target_epoch,
                target: &target,
                subscribed: &subscribed,
                has_subscription_changed,
                owned: request.owned.as_deref(),
            };
            member = step.advance(member)?;
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
        let reply = self.heartbeat_reply(request, member_id, &member, &old);
        Ok(Decision {
            records: records.list,
            reply,
            cause,
            old_epoch: group.epoch,
            looked_at,
            revocation,
            replaced,
        })
    }

    /// What to answer; the assignment is told to those who ask for it or got another.
    fn heartbeat_reply(
        &self,
        request: &ConsumerHeartbeatRequest,
        member_id: &Str,
        member: &Member,
        old: &Member,
    ) -> ConsumerHeartbeatReply {
        let is_full_request = request.rebalance_timeout_ms != -1
            && (request.subscribed_topic_names.is_some()
                || request.subscribed_topic_regex.is_some())
            && request.owned.is_some();
        let tells_assignment =
            request.member_epoch == JOINING || is_full_request || member.assigned != old.assigned;
        ConsumerHeartbeatReply {
            member_id: member_id.clone(),
            member_epoch: member.epoch,
            heartbeat_interval_ms: self.consumer_timing(&request.group_id).heartbeat_interval_ms,
            assignment: tells_assignment.then(|| {
                let topics = member.assigned.iter();
                topics.map(|(id, all)| (*id, all.keys().copied().collect())).collect()
            }),
        }
    }

    /// Whether it is time to look at what regular expressions match; `last` is the view and time
    /// of the last look.
    fn are_regexes_due(&self, now: Now, group: &ConsumerGroup, last: Option<(i64, i64)>) -> bool {
        if group.regex_subscribers().is_empty() {
            return false;
        }
        let Some((seen, at_ms)) = last else { return true };
        let age_ms = now.monotonic_ms.saturating_sub(at_ms);
        let refresh_interval_ms = i64::from(self.settings.consumer.regex_refresh_interval_ms);
        age_ms > RESOLVE_INTERVAL_MIN_MS
            && (seen != self.topics().version() || age_ms > refresh_interval_ms)
    }

    /// Keeps what regular expressions match up to date; says whether that changed.
    fn update_regexes(
        &self,
        now: Now,
        change: RegexChange<'_>,
        regexes: &mut BTreeMap<Str, BTreeSet<Str>>,
        records: &mut Records<'_>,
        looked_at: &mut LookedAt,
    ) -> Result<bool, GroupError> {
        let RegexChange { group, old, new, last } = change;
        let mut wanted: BTreeSet<Str> = group.regex_subscribers().keys().cloned().collect();
        if old.regex() != new.regex() {
            if let Some(gone) = old.regex()
                && group.regex_subscribers().get(gone).is_some_and(|count| *count == 1)
            {
                wanted.remove(gone);
                regexes.remove(gone);
                records.regex_tombstone(gone);
            }
            if let Some(regex) = new.regex() {
                if !wanted.contains(regex) {
                    Pattern::new(regex)?;
                }
                wanted.insert(regex.clone());
            }
        }
        if wanted.is_empty() {
            return Ok(false);
        }
        let version = self.topics().version();
        let is_new = new.regex().is_some_and(|regex| !regexes.contains_key(regex));
        // The group may be about to get its first expression.
        let is_due = last.is_none() || self.are_regexes_due(now, group, last);
        if is_due {
            looked_at.resolved = Some((version, now.monotonic_ms));
        } else if is_new {
            // The others wait for their turn.
            wanted.retain(|regex| Some(regex) == new.regex());
        } else {
            return Ok(false);
        }
        let mut has_changed = false;
        for (regex, topics) in resolve(wanted.iter(), self.topics()) {
            let known = regexes.get(&regex);
            if known == Some(&topics) {
                continue;
            }
            has_changed |= known.map_or(!topics.is_empty(), |known| *known != topics);
            records.regex(&regex, &topics, version, now.wall);
            regexes.insert(regex, topics);
        }
        Ok(has_changed)
    }

    /// Makes the target assignment of all members, writes down whose changed, and returns that of
    /// `asking`. Each member comes with its id and the id that its old target is known under.
    fn new_targets<'a>(
        &self,
        group: &ConsumerGroup,
        members: impl Iterator<Item = (&'a Str, &'a Str, &'a Member)>,
        mut resolver: Resolver<'_>,
        asking: &Str,
        records: &mut Records<'_>,
    ) -> Target {
        let mut members: Vec<_> = members.collect();
        members.sort_by_key(|(id, ..)| *id);
        let preferred =
            ConsumerGroup::preferred_assignor(members.iter().map(|(_, _, member)| *member));
        let assignor = preferred
            .and_then(|name| Assignor::from_name(name))
            .unwrap_or_else(|| self.settings.consumer.default_assignor());
        let in_spec = members.iter().map(|(id, known_as, member)| SpecMember {
            id: (*id).clone(),
            instance_id: member.instance_id.clone(),
            subscribed: resolver.subscribed(member),
            assigned: group.targets.get(*known_as).cloned().unwrap_or_default(),
        });
        let members: Vec<SpecMember> = in_spec.collect();
        let spec = Spec { members, topics: resolver.partitions() };
        let mut of_asking = Target::new();
        for (member, target) in spec.members.iter().zip(assignor.assign(&spec)) {
            if group.targets.get(&member.id) != Some(&target) {
                records.target(&member.id, &target);
            }
            if member.id == *asking {
                of_asking = target;
            }
        }
        of_asking
    }
}

/// A heartbeat's effect on the group's regular expressions.
#[derive(Clone, Copy)]
struct RegexChange<'a> {
    group: &'a ConsumerGroup,
    old: &'a Member,
    new: &'a Member,
    /// The view and time of the last look at what they match.
    last: Option<(i64, i64)>,
}

/// The members beside the one with this id and the one whose place it takes.
fn others<'a>(
    group: &'a ConsumerGroup,
    member_id: &'a Str,
    replaced: Option<&'a Str>,
) -> impl Iterator<Item = (&'a Str, &'a Member)> {
    group.members().iter().filter(move |(id, _)| *id != member_id && Some(*id) != replaced)
}
