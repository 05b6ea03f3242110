//! One step of a member towards its target tasks.
//!
//! ```text
//!                has tasks to give up
//!     Stable ──────────────────────────▶ Unrevoked
//!       ▲  │                                 │
//!       │  │ others still have some          │ gave them up
//!       │  ▼                                 ▼
//!     Unreleased ◀────────────────────── next step: new epoch, new tasks
//! ```
//!
//! An active task has one owner at a time. Of one process, no two members have the same task in
//! whatever role, because they would share its state directory.

use std::collections::BTreeSet;

use fleuve_protocol::Str;

use super::group::StreamsGroup;
use super::member::Member;
use super::tasks::{Assigned, Roles, Target, TaskList, Tasks};
use crate::error::GroupError;
use crate::modern::MemberState;

/// What the step depends on beside the member.
pub(super) struct Reconciliation<'a> {
    pub(super) group: &'a StreamsGroup,
    pub(super) target_epoch: i32,
    pub(super) target: &'a Target,
    /// What the member says it has, if it says so.
    pub(super) owned: Option<&'a Roles<TaskList>>,
}

impl Reconciliation<'_> {
    /// Returns the member after the step.
    pub(super) fn advance(&self, member: Member) -> Result<Member, GroupError> {
        let epoch = member.epoch;
        match member.state {
            MemberState::Stable if epoch == self.target_epoch => Ok(member),
            MemberState::Stable | MemberState::Unreleased => Ok(self.next(member, epoch)),
            MemberState::Unrevoked if self.still_owns(&member.revoking) => Ok(member),
            // Whatever it was asked to give up, it did so in the epoch after that.
            MemberState::Unrevoked => Ok(self.next(member, epoch.saturating_add(1))),
            // Where it stands is beyond us; it has to begin anew, with nothing.
            MemberState::Unknown if self.owned.is_none_or(|owned| !owned.is_empty()) => {
                Err(GroupError::FencedMemberEpoch)
            }
            MemberState::Unknown => Ok(self.next(member, self.target_epoch)),
        }
    }

    /// Whether the member has, or might have, any of these tasks.
    fn still_owns(&self, revoking: &Assigned) -> bool {
        self.owned.is_none_or(|owned| owned.has_any_of(revoking))
    }

    /// Goes from what the member has towards the target.
    fn next(&self, mut member: Member, epoch: i32) -> Member {
        let mut assigned = Assigned::default();
        let mut revoking = Assigned::default();
        for (subtopology, partitions) in &member.assigned.active {
            let target = self.target.active.get(subtopology);
            for (partition, since) in partitions {
                let stays = target.is_some_and(|target| target.contains(partition));
                let set = if stays { &mut assigned } else { &mut revoking };
                set.active.entry(subtopology.clone()).or_default().insert(*partition, *since);
            }
        }
        keep(&member.assigned.standby, &self.target.standby, |stays, subtopology, partition| {
            let set = if stays { &mut assigned } else { &mut revoking };
            set.standby.entry(subtopology.clone()).or_default().insert(partition);
        });
        keep(&member.assigned.warmup, &self.target.warmup, |stays, subtopology, partition| {
            let set = if stays { &mut assigned } else { &mut revoking };
            set.warmup.entry(subtopology.clone()).or_default().insert(partition);
        });
        if !revoking.is_empty() && self.still_owns(&revoking) {
            member.enter(epoch);
            member.state = MemberState::Unrevoked;
            member.assigned = assigned;
            member.revoking = revoking;
            return member;
        }

        let mut has_unreleased = false;
        let (group, process) = (self.group, &member.process_id);
        for (subtopology, partition) in missing(&self.target.active, |subtopology, partition| {
            assigned.active.get(subtopology).is_some_and(|has| has.contains_key(&partition))
        }) {
            if group.is_active_somewhere(subtopology, partition)
                || group.is_copy_in_process(subtopology, partition, process)
            {
                has_unreleased = true;
            } else {
                let tasks = assigned.active.entry(subtopology.clone()).or_default();
                tasks.insert(partition, self.target_epoch);
            }
        }
        for (target, assigned) in [
            (&self.target.standby, &mut assigned.standby),
            (&self.target.warmup, &mut assigned.warmup),
        ] {
            let has = |subtopology: &Str, partition| {
                assigned.get(subtopology).is_some_and(|has| has.contains(&partition))
            };
            for (subtopology, partition) in missing(target, has) {
                if group.is_in_process(subtopology, partition, process) {
                    has_unreleased = true;
                } else {
                    assigned.entry(subtopology.clone()).or_default().insert(partition);
                }
            }
        }
        member.enter(self.target_epoch);
        member.state = match has_unreleased {
            true => MemberState::Unreleased,
            false => MemberState::Stable,
        };
        member.assigned = assigned;
        member.revoking = Assigned::default();
        member
    }
}

/// Calls `take` for each task that the member has, and says whether the target has it too.
fn keep(current: &Tasks, target: &Tasks, mut take: impl FnMut(bool, &Str, i32)) {
    for (subtopology, partitions) in current {
        let target = target.get(subtopology);
        for partition in partitions {
            let stays = target.is_some_and(|target| target.contains(partition));
            take(stays, subtopology, *partition);
        }
    }
}

/// The tasks of the target that the member does not have.
fn missing(target: &Tasks, has: impl Fn(&Str, i32) -> bool) -> BTreeSet<(&Str, i32)> {
    let each =
        target.iter().flat_map(|(subtopology, all)| all.iter().map(move |p| (subtopology, *p)));
    each.filter(|(subtopology, partition)| !has(subtopology, *partition)).collect()
}
