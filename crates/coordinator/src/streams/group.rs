//! A streams group as the log has it.
//!
//! All of it is a function of its records, and decisions are made on nothing else but it, the
//! topics and the settings. What is derived from the records is kept beside them: which processes
//! have a task, or have yet to give it up, in which role.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use fleuve_protocol::Str;

use super::member::Member;
use super::record::StreamsRecord;
use super::tasks::{Assigned, Roles, Target, Tasks};
use super::topology::{Topology, sources};
use crate::modern::{FIRST_EPOCH, LEAVING, MemberState, NO_TARGET};

/// What members of streams groups are, wherever groups of all protocols stand side by side.
pub(crate) const PROTOCOL_TYPE: &str = "streams";

/// The epoch of the topology that was validated, while none is.
pub(crate) const NOT_VALIDATED: i32 = -1;

/// What a streams group is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamsState {
    /// It has no members.
    Empty,
    /// Topics are missing or do not fit, so there are no tasks.
    NotReady,
    /// Its target assignment has to be made anew.
    Assigning,
    /// Members are on their way to the target assignment.
    Reconciling,
    /// Everybody has what they are to have.
    Stable,
}

impl StreamsState {
    /// Kafka's name of the state.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::NotReady => "NotReady",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
        }
    }
}

/// How many members of each process have a task in a role.
type Holders = BTreeMap<Str, BTreeMap<i32, BTreeMap<Str, usize>>>;

/// The persistent state of a streams group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StreamsGroup {
    pub(crate) epoch: i32,
    pub(crate) metadata_hash: i64,
    /// The epoch of the topology that was found to fit the topics.
    pub(crate) validated_epoch: i32,
    /// What the last epoch's assignment depends on beside members and topics.
    pub(crate) assignment_configs: BTreeMap<Str, Str>,
    pub(crate) topology: Option<Topology>,
    pub(crate) target_epoch: i32,
    pub(crate) target_timestamp: i64,
    pub(crate) targets: BTreeMap<Str, Target>,
    members: BTreeMap<Str, Member>,
    holders: Roles<Holders>,
}

impl Default for StreamsGroup {
    fn default() -> Self {
        Self {
            epoch: FIRST_EPOCH,
            metadata_hash: 0,
            validated_epoch: NOT_VALIDATED,
            assignment_configs: BTreeMap::new(),
            topology: None,
            target_epoch: FIRST_EPOCH,
            target_timestamp: 0,
            targets: BTreeMap::new(),
            members: BTreeMap::new(),
            holders: Roles::default(),
        }
    }
}

impl StreamsGroup {
    /// Takes in one record. The tombstone of the epoch, which ends the group, is the ledger's.
    pub(crate) fn apply(&mut self, record: &StreamsRecord) {
        match record {
            StreamsRecord::Epoch(Some(value)) => {
                self.epoch = value.epoch;
                self.metadata_hash = value.metadata_hash;
                self.validated_epoch = value.validated_topology_epoch;
                let configs = value.last_assignment_configs.iter().flatten();
                self.assignment_configs =
                    configs.map(|config| (config.key.detach(), config.value.detach())).collect();
            }
            StreamsRecord::Epoch(None) => {}
            StreamsRecord::Topology(value) => self.topology = value.as_ref().map(Topology::new),
            StreamsRecord::Member { member, value: Some(value) } => {
                let mut updated = self.members.get(member).cloned().unwrap_or_default();
                updated.read_metadata(value);
                self.replace(member, Some(updated));
            }
            StreamsRecord::Member { member, value: None } => self.replace(member, None),
            StreamsRecord::TargetEpoch(Some(value)) => {
                self.target_epoch = value.assignment_epoch;
                self.target_timestamp = value.assignment_timestamp;
            }
            StreamsRecord::TargetEpoch(None) => {
                self.target_epoch = NO_TARGET;
                self.target_timestamp = 0;
            }
            StreamsRecord::Target { member, value: Some(value) } => {
                let tasks = |list: &[_]| read_target(list);
                let target = Target {
                    active: tasks(&value.active_tasks),
                    standby: tasks(&value.standby_tasks),
                    warmup: tasks(&value.warmup_tasks),
                };
                self.targets.insert(member.detach(), target);
            }
            StreamsRecord::Target { member, value: None } => {
                self.targets.remove(member);
            }
            StreamsRecord::Current { member, value: Some(value) } => {
                let mut updated = self.members.get(member).cloned().unwrap_or_default();
                updated.read_current(value);
                self.replace(member, Some(updated));
            }
            StreamsRecord::Current { member, value: None } => {
                if let Some(mut updated) = self.members.get(member).cloned() {
                    updated.epoch = LEAVING;
                    updated.previous_epoch = LEAVING;
                    updated.assigned = Assigned::default();
                    updated.revoking = Assigned::default();
                    self.replace(member, Some(updated));
                }
            }
        }
    }

    /// The members by id.
    pub(crate) fn members(&self) -> &BTreeMap<Str, Member> {
        &self.members
    }

    /// The members that have yet to give tasks up, with the time that they have for it.
    pub(crate) fn revoking_members(&self) -> impl Iterator<Item = (&Str, i32)> {
        self.members
            .iter()
            .filter(|(_, member)| member.state == MemberState::Unrevoked)
            .map(|(id, member)| (id, member.rebalance_timeout_ms))
    }

    /// Whether anybody processes a task, or has yet to stop doing so.
    pub(crate) fn is_active_somewhere(&self, subtopology: &str, partition: i32) -> bool {
        held(&self.holders.active, subtopology, partition).is_some()
    }

    /// Whether a member of the process has a task, in any role.
    pub(crate) fn is_in_process(&self, subtopology: &str, partition: i32, process: &str) -> bool {
        self.is_copy_in_process(subtopology, partition, process)
            || held(&self.holders.active, subtopology, partition)
                .is_some_and(|holders| holders.contains_key(process))
    }

    /// Whether a member of the process has a task as a standby or to warm up.
    pub(crate) fn is_copy_in_process(
        &self,
        subtopology: &str,
        partition: i32,
        process: &str,
    ) -> bool {
        [&self.holders.standby, &self.holders.warmup].into_iter().any(|holders| {
            held(holders, subtopology, partition)
                .is_some_and(|holders| holders.contains_key(process))
        })
    }

    /// What the group is doing.
    pub(crate) fn state(&self) -> StreamsState {
        let is_validated =
            self.topology.as_ref().is_some_and(|topology| topology.epoch == self.validated_epoch);
        if self.members.is_empty() {
            StreamsState::Empty
        } else if !is_validated {
            StreamsState::NotReady
        } else if self.epoch > self.target_epoch {
            StreamsState::Assigning
        } else if self.members.values().all(|member| member.is_reconciled_to(self.target_epoch)) {
            StreamsState::Stable
        } else {
            StreamsState::Reconciling
        }
    }

    /// Whether the application, while it runs, reads `topic`.
    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        !self.members.is_empty()
            && self
                .topology
                .iter()
                .flat_map(|topology| topology.subtopologies.values())
                .any(|subtopology| sources(subtopology).any(|source| **source == *topic))
    }

    /// Puts a member in the place of what was known of it, and keeps the holders in step.
    fn replace(&mut self, id: &Str, updated: Option<Member>) {
        let old = match (self.members.entry(id.detach()), updated) {
            (Entry::Vacant(_), None) => return,
            (Entry::Vacant(place), Some(updated)) => {
                place.insert(updated);
                None
            }
            (Entry::Occupied(mut place), Some(updated)) => Some(place.insert(updated)),
            (Entry::Occupied(place), None) => Some(place.remove()),
        };
        if let Some(old) = &old {
            for_each_task(old, &mut self.holders, release);
        }
        if let Some(new) = self.members.get(id) {
            for_each_task(new, &mut self.holders, hold);
        }
    }
}

fn read_target(
    list: &[fleuve_protocol::messages::streams_group_target_assignment_member_value::TaskIds],
) -> Tasks {
    let mut tasks = Tasks::new();
    for task in list {
        let partitions: &mut BTreeSet<i32> = tasks.entry(task.subtopology_id.detach()).or_default();
        partitions.extend(&task.partitions);
    }
    tasks
}

fn held<'a>(
    holders: &'a Holders,
    subtopology: &str,
    partition: i32,
) -> Option<&'a BTreeMap<Str, usize>> {
    holders.get(subtopology)?.get(&partition)
}

/// Calls `change` with every task that the member has or is giving up; not for members that have
/// not said yet which process they belong to.
fn for_each_task(
    member: &Member,
    holders: &mut Roles<Holders>,
    change: fn(&mut Holders, &Str, i32, &Str),
) {
    if member.process_id.is_empty() {
        return;
    }
    for set in [&member.assigned, &member.revoking] {
        for (subtopology, partitions) in &set.active {
            for partition in partitions.keys() {
                change(&mut holders.active, subtopology, *partition, &member.process_id);
            }
        }
        for (tasks, holders) in
            [(&set.standby, &mut holders.standby), (&set.warmup, &mut holders.warmup)]
        {
            for (subtopology, partitions) in tasks {
                for partition in partitions {
                    change(holders, subtopology, *partition, &member.process_id);
                }
            }
        }
    }
}

fn hold(holders: &mut Holders, subtopology: &Str, partition: i32, process: &Str) {
    if !holders.contains_key(subtopology) {
        holders.insert(subtopology.clone(), BTreeMap::new());
    }
    if let Some(partitions) = holders.get_mut(subtopology) {
        *partitions.entry(partition).or_default().entry(process.clone()).or_default() += 1;
    }
}

fn release(holders: &mut Holders, subtopology: &Str, partition: i32, process: &Str) {
    let Some(partitions) = holders.get_mut(subtopology) else { return };
    if let Some(processes) = partitions.get_mut(&partition) {
        if let Some(count) = processes.get_mut(process) {
            *count -= 1;
            if *count == 0 {
                processes.remove(process);
            }
        }
        if processes.is_empty() {
            partitions.remove(&partition);
        }
    }
    if partitions.is_empty() {
        holders.remove(subtopology);
    }
}
