//! How a group of consumers changes between the classic and the consumer protocol while it has
//! members (KIP-848), as far as `group.consumer.migration.policy` lets it.
//!
//! ```text
//!                 a member of the consumer protocol joins
//!   classic group ──────────────────────────────────────▶ consumer group, with classic members
//!         ▲                                                              │
//!         └──────────────────────────────────────────────────────────────┘
//!              the last member of the consumer protocol leaves, expires,
//!              is removed, or gives way to a classic member of its instance id
//! ```
//!
//! Both ways are one write: the tombstones of the old group and the records of the new one, so that
//! whoever replays the log finds one of the two. Committed offsets are the group's and stay. What is
//! soft changes hands once the write is in the log; if it fails, nothing has happened.
//!
//! In two points we are stricter than Kafka. A partition that a leader gave away twice is its first
//! member's after an upgrade. And a downgrade by a static member does without a rebalance only if
//! everybody else has what it is to have; otherwise two members could have a partition for a while.

use std::collections::BTreeSet;

use fleuve_protocol::Str;
use fleuve_types::Offset;

use crate::classic::ClassicGroup;
use crate::consumer::{ConsumerGroup, Joining, Upgraded, all_tombstones};
use crate::coordinator::{Group, GroupCoordinator};
use crate::error::GroupError;
use crate::history::History;
use crate::record::Record;
use crate::step::{Now, Step};
use crate::timers::Purpose;

/// A change of protocol whose records are on their way into the log.
#[derive(Debug)]
pub(crate) enum Migration {
    /// From the classic protocol to the consumer protocol.
    Upgrade,
    /// From the consumer protocol to the classic one.
    Downgrade(Box<Downgrade>),
}

/// The classic group that takes a consumer group's place.
#[derive(Debug)]
pub(crate) struct Downgrade {
    group: ClassicGroup,
    members_before: Vec<Str>,
    rebalances: bool,
}

impl Downgrade {
    /// The classic group to be.
    pub(crate) fn group(&self) -> &ClassicGroup {
        &self.group
    }
}

impl GroupCoordinator {
    /// Makes a consumer group of a classic one, if policy and members allow it.
    pub(crate) fn upgrade(&self, id: &Str, classic: &ClassicGroup) -> Result<Upgraded, GroupError> {
        let settings = &self.settings.consumer;
        let why_not = if !settings.migration.allows_upgrade() {
            "group.consumer.migration.policy does not allow it"
        } else if !classic.is_of_consumers() {
            "its members are not consumers"
        } else if classic.member_count() > settings.max_size {
            "it has more members than group.consumer.max.size allows"
        } else if let Some(upgraded) = Upgraded::from_classic_group(id, classic, self.topics()) {
            return Ok(upgraded);
        } else {
            "a subscription or assignment cannot be read, or belongs to a custom assignor"
        };
        tracing::info!(group = %id, why_not, "a classic group cannot become a consumer group");
        Err(GroupError::GroupIdNotFound)
    }

    /// The downgrade of a consumer group that these members leave, if that is what follows.
    pub(crate) fn downgrade_without(
        &self,
        now: Now,
        id: &Str,
        group: &ConsumerGroup,
        leaving: &BTreeSet<Str>,
    ) -> Option<(Vec<Record>, Migration)> {
        let mut stay = group.members().iter().filter(|(id, _)| !leaving.contains(*id)).peekable();
        stay.peek()?;
        if stay.any(|(_, member)| member.classic.is_none()) {
            return None;
        }
        let staying = group.members().keys().filter(|id| !leaving.contains(*id)).count();
        if !self.may_downgrade(id, staying) {
            return None;
        }
        let classic =
            ClassicGroup::from_consumer_group(id, group, leaving, None, now, self.topics());
        Some(downgrade(id, group, classic, true))
    }

    /// The downgrade of a consumer group whose last member of the consumer protocol gives way to a
    /// classic member of its instance id, if that is what follows.
    pub(crate) fn downgrade_by(
        &self,
        now: Now,
        id: &Str,
        group: &ConsumerGroup,
        joining: &Joining,
    ) -> Option<(Vec<Record>, Migration)> {
        let replaced = group.members().get(&joining.replaced)?;
        let all_but_it_are_classic = group.classic_members() + 1 == group.members().len();
        if replaced.classic.is_some()
            || !all_but_it_are_classic
            || !self.may_downgrade(id, group.members().len())
        {
            return None;
        }
        let mut others = group.members().iter().filter(|(id, _)| **id != joining.replaced);
        let is_settled = group.target_epoch >= group.epoch
            && others.all(|(_, member)| member.is_reconciled_to(group.target_epoch))
            && replaced.topics == joining.member.topics
            && replaced.regex().is_none();
        let leaving = BTreeSet::from([joining.replaced.clone()]);
        let classic = ClassicGroup::from_consumer_group(
            id,
            group,
            &leaving,
            Some(joining),
            now,
            self.topics(),
        );
        Some(downgrade(id, group, classic, !is_settled))
    }

    fn may_downgrade(&self, id: &Str, members: usize) -> bool {
        let why_not = if !self.settings.consumer.migration.allows_downgrade() {
            "group.consumer.migration.policy does not allow it"
        } else if members > self.settings.max_size {
            "it has more members than group.max.size allows"
        } else {
            return true;
        };
        tracing::info!(group = %id, why_not, "a consumer group cannot become a classic group");
        false
    }

    /// Takes leave of the group that was, just before the records of the change are applied.
    pub(crate) fn leave_protocol(&mut self, now: Now, id: &Str, step: &mut Step) -> History {
        let (groups, mut cx) = self.split(now, step);
        match groups.get_mut(id) {
            Some(Group::Classic(classic)) => {
                let history = classic.give_way(&mut cx);
                groups.remove(id);
                history
            }
            Some(Group::Consumer(companion)) => std::mem::take(&mut companion.history),
            _ => History::default(),
        }
    }

    /// Takes up the group that is, as the records before `end` have it.
    pub(crate) fn enter_protocol(
        &mut self,
        now: Now,
        id: &Str,
        migration: Migration,
        history: History,
        end: Offset,
        step: &mut Step,
    ) {
        let sessions = match &migration {
            Migration::Upgrade => self.classic_sessions(id),
            Migration::Downgrade(_) => Vec::new(),
        };
        let (groups, mut cx) = self.split(now, step);
        match migration {
            Migration::Upgrade => {
                tracing::info!(group = %id, "the classic group is a consumer group now");
                if let Some(Group::Consumer(companion)) = groups.get_mut(id) {
                    companion.history = history;
                }
                for (session, timeout_ms) in sessions {
                    cx.schedule(session, timeout_ms.into());
                }
            }
            Migration::Downgrade(downgrade) => {
                tracing::info!(group = %id, "the consumer group is a classic group now");
                let Downgrade { mut group, members_before, rebalances } = *downgrade;
                for member in members_before {
                    cx.forget_member(id.clone(), member);
                }
                group.take_over(&mut cx, history, end, rebalances);
                groups.insert(id.clone(), Group::Classic(Box::new(group)));
            }
        }
    }

    /// The timers of the sessions of a consumer group's classic members.
    fn classic_sessions(&self, id: &Str) -> Vec<(Purpose, i32)> {
        let Some(group) = self.ledger().consumer_group(id) else { return Vec::new() };
        let session = |(member, state): (&Str, &crate::consumer::Member)| {
            let timeout_ms = state.classic.as_ref()?.session_timeout_ms;
            Some((Purpose::Heartbeat { group: id.clone(), member: member.clone() }, timeout_ms))
        };
        group.members().iter().filter_map(session).collect()
    }
}

fn downgrade(
    id: &Str,
    group: &ConsumerGroup,
    classic: ClassicGroup,
    rebalances: bool,
) -> (Vec<Record>, Migration) {
    let mut records = all_tombstones(id, group);
    records.push(classic.to_record(|_, member| member.assignment.clone()));
    let members_before = group.members().keys().cloned().collect();
    let downgrade = Downgrade { group: classic, members_before, rebalances };
    (records, Migration::Downgrade(Box::new(downgrade)))
}
