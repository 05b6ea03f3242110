//! A consumer group as the log has it.
//!
//! Unlike a classic group all of it is persistent: it is a function of its records, and decisions
//! are made on nothing else. What is derived from the records is kept beside them:
//! - `static_members` maps every instance id of a member to that member's id;
//! - `regex_subscribers` counts the members of each regular expression;
//! - `owners` names the member that has a partition, or has yet to give it up.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use fleuve_protocol::Str;
use fleuve_types::Uuid;

use super::member::{Assigned, Member, Target};
use super::record::ConsumerRecord;
use crate::modern::{FIRST_EPOCH, LEAVING, MemberState, NO_TARGET};

/// What consumers are, wherever groups of all protocols stand side by side.
pub(crate) const PROTOCOL_TYPE: &str = "consumer";

/// What a consumer group is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumerState {
    /// It has no members.
    Empty,
    /// Its target assignment has to be made anew.
    Assigning,
    /// Members are on their way to the target assignment.
    Reconciling,
    /// Everybody has what they are to have.
    Stable,
}

impl ConsumerState {
    /// Kafka's name of the state.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
        }
    }
}

/// The topics that a regular expression matched when they were last looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Resolved {
    pub(crate) topics: BTreeSet<Str>,
    pub(crate) version: i64,
    pub(crate) timestamp: i64,
}

/// The persistent state of a consumer group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConsumerGroup {
    pub(crate) epoch: i32,
    pub(crate) metadata_hash: i64,
    /// Whether there is a record of the kind that old brokers kept the topics in.
    pub(crate) has_topics_record: bool,
    pub(crate) target_epoch: i32,
    pub(crate) target_timestamp: i64,
    pub(crate) targets: BTreeMap<Str, Target>,
    pub(crate) resolved: BTreeMap<Str, Resolved>,
    members: BTreeMap<Str, Member>,
    static_members: BTreeMap<Str, Str>,
    regex_subscribers: BTreeMap<Str, usize>,
    owners: BTreeMap<Uuid, BTreeMap<i32, Str>>,
}

impl Default for ConsumerGroup {
    fn default() -> Self {
        Self {
            epoch: FIRST_EPOCH,
            metadata_hash: 0,
            has_topics_record: false,
            target_epoch: FIRST_EPOCH,
            target_timestamp: 0,
            targets: BTreeMap::new(),
            resolved: BTreeMap::new(),
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            regex_subscribers: BTreeMap::new(),
            owners: BTreeMap::new(),
        }
    }
}

impl ConsumerGroup {
    /// Takes in one record. The tombstone of the epoch, which ends the group, is the ledger's.
    pub(crate) fn apply(&mut self, record: &ConsumerRecord) {
        match record {
            ConsumerRecord::Epoch(Some(value)) => {
                self.epoch = value.epoch;
                self.metadata_hash = value.metadata_hash;
            }
            ConsumerRecord::Epoch(None) => {}
            ConsumerRecord::Topics(value) => self.has_topics_record = value.is_some(),
            ConsumerRecord::Member { member, value: Some(value) } => {
                let mut updated = self.members.get(member).cloned().unwrap_or_default();
                updated.read_metadata(value);
                self.replace(member, Some(updated));
            }
            ConsumerRecord::Member { member, value: None } => self.replace(member, None),
            ConsumerRecord::TargetEpoch(Some(value)) => {
                self.target_epoch = value.assignment_epoch;
                self.target_timestamp = value.assignment_timestamp;
            }
            ConsumerRecord::TargetEpoch(None) => {
                self.target_epoch = NO_TARGET;
                self.target_timestamp = 0;
            }
            ConsumerRecord::Target { member, value: Some(value) } => {
                let mut target = Target::new();
                for topic in &value.topic_partitions {
                    target.entry(topic.topic_id).or_default().extend(&topic.partitions);
                }
                self.targets.insert(member.detach(), target);
            }
            ConsumerRecord::Target { member, value: None } => {
                self.targets.remove(member);
            }
            ConsumerRecord::Current { member, value: Some(value) } => {
                let mut updated = self.members.get(member).cloned().unwrap_or_default();
                updated.read_current(value);
                self.replace(member, Some(updated));
            }
            ConsumerRecord::Current { member, value: None } => {
                if let Some(mut updated) = self.members.get(member).cloned() {
                    updated.epoch = LEAVING;
                    updated.previous_epoch = LEAVING;
                    updated.assigned.clear();
                    updated.revoking.clear();
                    self.replace(member, Some(updated));
                }
            }
            ConsumerRecord::Regex { regex, value: Some(value) } => {
                let resolved = Resolved {
                    topics: value.topics.iter().map(Str::detach).collect(),
                    version: value.version,
                    timestamp: value.timestamp,
                };
                self.resolved.insert(regex.detach(), resolved);
            }
            ConsumerRecord::Regex { regex, value: None } => {
                self.resolved.remove(regex);
            }
        }
    }

    /// The members by id.
    pub(crate) fn members(&self) -> &BTreeMap<Str, Member> {
        &self.members
    }

    /// The members that have yet to give partitions up, with the time that they have for it.
    pub(crate) fn revoking_members(&self) -> impl Iterator<Item = (&Str, i32)> {
        self.members
            .iter()
            .filter(|(_, member)| {
                member.state == MemberState::Unrevoked && member.classic.is_none()
            })
            .map(|(id, member)| (id, member.rebalance_timeout_ms))
    }

    /// The member that uses an instance id.
    pub(crate) fn static_member(&self, instance_id: &str) -> Option<(&Str, &Member)> {
        let id = self.static_members.get(instance_id)?;
        self.members.get_key_value(id)
    }

    /// How many members are there by the classic protocol.
    pub(crate) fn classic_members(&self) -> usize {
        self.members.values().filter(|member| member.classic.is_some()).count()
    }

    /// Whether others have yet to give up something that the member is to have.
    pub(super) fn is_waited_for(&self, id: &str, member: &Member) -> bool {
        let target = self.targets.get(id).into_iter().flatten();
        target.into_iter().any(|(topic, partitions)| {
            let has = member.assigned.get(topic);
            partitions.iter().any(|partition| {
                has.is_none_or(|has| !has.contains_key(partition))
                    && self.owner(*topic, *partition).is_some()
            })
        })
    }

    /// The member that has a partition or has yet to give it up.
    pub(crate) fn owner(&self, topic: Uuid, partition: i32) -> Option<&Str> {
        self.owners.get(&topic)?.get(&partition)
    }

    /// The regular expressions of members, with the number of these members.
    pub(crate) fn regex_subscribers(&self) -> &BTreeMap<Str, usize> {
        &self.regex_subscribers
    }

    /// What the group is doing.
    pub(crate) fn state(&self) -> ConsumerState {
        if self.members.is_empty() {
            ConsumerState::Empty
        } else if self.epoch > self.target_epoch {
            ConsumerState::Assigning
        } else if self.members.values().all(|member| member.is_reconciled_to(self.target_epoch)) {
            ConsumerState::Stable
        } else {
            ConsumerState::Reconciling
        }
    }

    /// Whether a member is subscribed to `topic`, by name or by a regular expression.
    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        self.members.values().any(|member| member.topics.contains(topic))
            || self.resolved.values().any(|resolved| resolved.topics.contains(topic))
    }

    /// The assignor that most members ask for; of several the first by name.
    pub(crate) fn preferred_assignor<'a>(
        members: impl Iterator<Item = &'a Member>,
    ) -> Option<&'a Str> {
        let mut votes: BTreeMap<&Str, usize> = BTreeMap::new();
        for assignor in members.filter_map(|member| member.assignor.as_ref()) {
            *votes.entry(assignor).or_default() += 1;
        }
        let most = votes.values().max().copied()?;
        votes.into_iter().find(|(_, count)| *count == most).map(|(assignor, _)| assignor)
    }

    /// Puts a member in the place of what was known of it, and keeps the derived maps in step.
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
        let new = self.members.get_key_value(id);
        if let Some(old) = &old {
            if let Some(instance_id) = &old.instance_id
                && self.static_members.get(instance_id) == Some(id)
            {
                self.static_members.remove(instance_id);
            }
            if let Some(regex) = old.regex()
                && let Some(count) = self.regex_subscribers.get_mut(regex)
            {
                *count -= 1;
                if *count == 0 {
                    self.regex_subscribers.remove(regex);
                }
            }
            for (topic, partition) in each(&old.assigned).chain(each(&old.revoking)) {
                let Entry::Occupied(mut owners) = self.owners.entry(topic) else { continue };
                if owners.get().get(&partition) == Some(id) {
                    owners.get_mut().remove(&partition);
                }
                if owners.get().is_empty() {
                    owners.remove();
                }
            }
        }
        let Some((id, new)) = new else { return };
        if let Some(instance_id) = &new.instance_id {
            self.static_members.insert(instance_id.clone(), id.clone());
        }
        if let Some(regex) = new.regex() {
            *self.regex_subscribers.entry(regex.clone()).or_default() += 1;
        }
        for (topic, partition) in each(&new.assigned).chain(each(&new.revoking)) {
            self.owners.entry(topic).or_default().insert(partition, id.clone());
        }
    }
}

fn each(assigned: &Assigned) -> impl Iterator<Item = (Uuid, i32)> + '_ {
    assigned
        .iter()
        .flat_map(|(topic, partitions)| partitions.keys().map(|partition| (*topic, *partition)))
}
