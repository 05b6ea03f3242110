//! One step of a member towards its target assignment.
//!
//! ```text
//!                     has something to give up
//!     Stable ──────────────────────────▶ Unrevoked
//!       ▲  │                                 │
//!       │  │ others still have some of it    │ gave it up
//!       │  ▼                                 ▼
//!     Unreleased ◀────────────────────── next step: new epoch, new partitions
//! ```
//!
//! The member enters the target's epoch only when it has nothing left to give up. Nobody gets a
//! partition before its last owner has let go of it.

use std::collections::BTreeSet;

use fleuve_types::Uuid;

use super::group::ConsumerGroup;
use super::member::{Assigned, Member, Target};
use crate::error::GroupError;
use crate::modern::MemberState;

/// What the step depends on beside the member.
pub(super) struct Reconciliation<'a> {
    pub(super) group: &'a ConsumerGroup,
    pub(super) target_epoch: i32,
    pub(super) target: &'a Target,
    /// Topics that the member is subscribed to now.
    pub(super) subscribed: &'a BTreeSet<Uuid>,
    pub(super) has_subscription_changed: bool,
    /// What the member says it has, if it says so.
    pub(super) owned: Option<&'a [(Uuid, Vec<i32>)]>,
}

impl Reconciliation<'_> {
    /// Returns the member after the step.
    pub(super) fn advance(&self, member: Member) -> Result<Member, GroupError> {
        match member.state {
            MemberState::Stable if member.epoch != self.target_epoch => {
                let epoch = member.epoch;
                Ok(self.next(member, epoch))
            }
            MemberState::Stable if self.has_subscription_changed => Ok(self.shrink(member)),
            MemberState::Stable => Ok(member),
            MemberState::Unrevoked if self.still_owns(&member.revoking) => {
                Ok(if self.has_subscription_changed { self.shrink(member) } else { member })
            }
            MemberState::Unrevoked | MemberState::Unreleased => {
                let epoch = member.epoch;
                Ok(self.next(member, epoch))
            }
            // Where it stands is beyond us; it has to begin anew, with nothing.
            MemberState::Unknown if self.owned.is_none_or(|owned| !owned.is_empty()) => {
                Err(GroupError::FencedMemberEpoch)
            }
            MemberState::Unknown => Ok(self.next(member, self.target_epoch)),
        }
    }

    /// Whether the member has, or might have, any of these partitions.
    fn still_owns(&self, revoking: &Assigned) -> bool {
        let Some(owned) = self.owned else { return true };
        owned.iter().any(|(topic, partitions)| {
            let revoking = revoking.get(topic);
            revoking.is_some_and(|revoking| partitions.iter().any(|p| revoking.contains_key(p)))
        })
    }

    /// Takes away what the member is no longer subscribed to, and nothing else.
    fn shrink(&self, mut member: Member) -> Member {
        let dropped: Vec<Uuid> =
            member.assigned.keys().filter(|id| !self.subscribed.contains(id)).copied().collect();
        if dropped.is_empty() {
            return member;
        }
        let mut revoking = member.revoking.clone();
        for topic in dropped {
            let partitions = member.assigned.remove(&topic).unwrap_or_default();
            revoking.entry(topic).or_default().extend(partitions);
        }
        let epoch = member.epoch;
        member.enter(epoch);
        if self.still_owns(&revoking) {
            member.state = MemberState::Unrevoked;
            member.revoking = revoking;
        }
        member
    }

    /// Goes from what the member has towards the target.
    fn next(&self, mut member: Member, epoch: i32) -> Member {
        let mut assigned = Assigned::new();
        let mut revoking = Assigned::new();
        let mut added = Target::new();
        let mut has_unreleased = false;
        let nothing = Default::default();
        let topics: BTreeSet<Uuid> =
            self.target.keys().chain(member.assigned.keys()).copied().collect();
        for topic in topics {
            // What the target has of other topics comes from an older subscription.
            let target = match self.target.get(&topic) {
                Some(target) if self.subscribed.contains(&topic) => target,
                _ => &nothing,
            };
            for (partition, since) in member.assigned.get(&topic).into_iter().flatten() {
                let set = if target.contains(partition) { &mut assigned } else { &mut revoking };
                set.entry(topic).or_default().insert(*partition, *since);
            }
            let kept = member.assigned.get(&topic);
            let own = member.revoking.get(&topic);
            for partition in target {
                if kept.is_some_and(|kept| kept.contains_key(partition)) {
                    continue;
                }
                // What the member itself is giving up is not held by anybody else.
                let is_own = own.is_some_and(|own| own.contains_key(partition));
                if !is_own && self.group.owner(topic, *partition).is_some() {
                    has_unreleased = true;
                } else {
                    added.entry(topic).or_default().insert(*partition);
                }
            }
        }
        if !revoking.is_empty() && self.still_owns(&revoking) {
            member.enter(epoch);
            member.state = MemberState::Unrevoked;
            member.assigned = assigned;
            member.revoking = revoking;
            return member;
        }
        for (topic, partitions) in added {
            let with_epoch = partitions.into_iter().map(|partition| (partition, self.target_epoch));
            assigned.entry(topic).or_default().extend(with_epoch);
        }
        member.enter(self.target_epoch);
        member.state = match has_unreleased {
            true => MemberState::Unreleased,
            false => MemberState::Stable,
        };
        member.assigned = assigned;
        member.revoking = Assigned::new();
        member
    }
}
