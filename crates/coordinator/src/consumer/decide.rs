//! What a change of one member comes to: records, and how far the member gets.
//!
//! Three parts, as KIP-848 has them: the member is created or updated, which may raise the group's
//! epoch; if the group's epoch is ahead of the target assignment's, a new target is made; and the
//! member takes a step towards the target. It is the same whether the change came with a heartbeat
//! of the consumer protocol or with a join of the classic one.
//!
//! Two things are done differently from Kafka. A new regular expression is resolved at once and not
//! on another thread, so its member gets its partitions with the first answer. And the topics are
//! compared with those of the last look whenever there is a new view of them, in place of an
//! hourly refresh and notifications of groups.

use std::collections::{BTreeMap, BTreeSet};

use fleuve_protocol::Str;
use fleuve_types::Uuid;

use super::api::VisibleTopics;
use super::assignor::{Assignor, Spec, SpecMember};
use super::group::ConsumerGroup;
use super::member::{Member, Target};
use super::reconcile::Reconciliation;
use super::sender::Sender;
use super::subscription::{Pattern, Resolver, metadata_hash, resolve};
use super::write::Records;
use crate::coordinator::{Group, GroupCoordinator};
use crate::error::GroupError;
use crate::history::RebalanceCause;
use crate::modern::{FIRST_EPOCH, LookedAt, MemberState};
use crate::record::Record;
use crate::step::Now;

/// Least time between two looks at what regular expressions match, in milliseconds.
const RESOLVE_INTERVAL_MIN_MS: i64 = 10_000;

/// What a request makes of a member.
pub(super) struct Change<'a> {
    pub(super) group: &'a ConsumerGroup,
    pub(super) group_id: &'a Str,
    pub(super) member_id: &'a Str,
    /// The member before.
    pub(super) sender: Sender,
    /// The member after, as far as it says itself.
    pub(super) member: Member,
    /// What the member says it has, if it says so.
    pub(super) owned: Option<&'a [(Uuid, Vec<i32>)]>,
    /// What regular expressions may match for the sender; one without any leaves them as they are.
    pub(super) visible: Option<&'a VisibleTopics>,
}

/// What a change comes to.
pub(super) struct Decision {
    pub(super) records: Vec<Record>,
    /// The member before and after.
    pub(super) old: Member,
    pub(super) member: Member,
    /// Why the group's epoch rose, if it did.
    pub(super) cause: Option<RebalanceCause>,
    /// The epoch that ends then.
    pub(super) old_epoch: i32,
    pub(super) looked_at: LookedAt,
    pub(super) revocation: Revocation,
    /// The member whose place a static member took.
    pub(super) replaced: Option<Str>,
}

/// What becomes of the member's time for giving partitions up.
#[derive(Clone, Copy)]
pub(super) enum Revocation {
    AsBefore,
    Within { timeout_ms: i32 },
    Done,
}

impl GroupCoordinator {
    /// Decides on a change of a member; `records` holds what must be written before.
    pub(super) fn decide(
        &self,
        now: Now,
        change: Change<'_>,
        mut records: Records<'_>,
    ) -> Result<Decision, GroupError> {
        let Change { group, group_id, member_id, sender, mut member, owned, visible } = change;
        let Sender { member: old, is_new, replaced } = sender;
        if is_new || member != old {
            records.member(member_id, &member);
        }
        let names_changed = member.topics != old.topics;
        let regex_changed = member.regex() != old.regex();
        let (companion_checked, companion_resolved) = match self.groups.get(group_id) {
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
                old,
                member,
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
            RegexChange { group, old: &old, new: &member, last: companion_resolved, visible },
            &mut regexes,
            &mut records,
            &mut looked_at,
        )?;

        // A group begins with the record of its epoch, even if its first member wants no topic.
        let begins = group.members().is_empty() && group.epoch == FIRST_EPOCH;
        let must_rise = names_changed || regex_changed || matches_changed || begins;
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
        let timing = self.consumer_timing(group_id);
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
                owned,
            };
            member = step.advance(member)?;
            if member != before {
                records.current(member_id, &member);
                revocation = match member.state {
                    // Classic members have to join and sync in time, which comes to the same.
                    MemberState::Unrevoked if member.classic.is_none() => {
                        Revocation::Within { timeout_ms: member.rebalance_timeout_ms }
                    }
                    _ => Revocation::Done,
                };
            }
        }
        Ok(Decision {
            records: records.list,
            old,
            member,
            cause,
            old_epoch: group.epoch,
            looked_at,
            revocation,
            replaced,
        })
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
        let RegexChange { group, old, new, last, visible } = change;
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
                    Pattern::new(regex).map_err(|_| GroupError::InvalidRegularExpression)?;
                }
                wanted.insert(regex.clone());
            }
        }
        if wanted.is_empty() {
            return Ok(false);
        }
        let Some(visible) = visible else { return Ok(false) };
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
        for (regex, topics) in resolve(wanted.iter(), self.topics(), visible) {
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
    /// What the sender may see.
    visible: Option<&'a VisibleTopics>,
}

/// The members beside the one with this id and the one whose place it takes.
fn others<'a>(
    group: &'a ConsumerGroup,
    member_id: &'a Str,
    replaced: Option<&'a Str>,
) -> impl Iterator<Item = (&'a Str, &'a Member)> {
    group.members().iter().filter(move |(id, _)| *id != member_id && Some(*id) != replaced)
}
