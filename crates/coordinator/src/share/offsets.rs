//! Which share-partitions of a group have a state, and what administrators do to those.
//!
//! The states themselves are in `__share_group_state`, another machine's log. So each of these
//! requests has two halves here and the driver's work on that log between them.

use std::collections::BTreeMap;

use fleuve_protocol::Str;
use fleuve_types::Uuid;

use super::api::{
    ShareAlteration, ShareAlterationTopic, ShareGroupPartition, ShareOffsetsDeletion,
};
use super::group::StateTopic;
use super::write::Records;
use crate::coordinator::{Group, GroupCoordinator};
use crate::error::GroupError;
use crate::modern::FIRST_EPOCH;
use crate::offsets::DeletedTopic;
use crate::record::Record;
use crate::step::{Response, Step, Then, Token};

impl GroupCoordinator {
    /// The states of these partitions have begun.
    pub fn handle_shares_initialized(
        &mut self,
        group_id: &Str,
        partitions: &[(Uuid, Vec<i32>)],
    ) -> Step {
        let mut step = Step::default();
        if self.check_serving().is_err() {
            return step;
        }
        let Ok(group) = self.share_group(group_id) else { return step };
        let mut states = group.states.clone();
        for (topic_id, partitions) in partitions {
            // A topic that is gone meanwhile needs no state.
            if let Some(topic) = self.topics().by_id(*topic_id) {
                states.initialize(*topic_id, &topic.name.detach(), partitions);
            }
        }
        if states != group.states {
            let mut records = Records::new(group_id);
            records.states(&states);
            step.write(records.list, Then::Nothing);
        }
        step
    }

    /// The states of these topics are deleted.
    pub fn handle_shares_deleted(&mut self, group_id: &Str, topics: &[Uuid]) -> Step {
        let mut step = Step::default();
        if self.check_serving().is_err() {
            return step;
        }
        let Ok(group) = self.share_group(group_id) else { return step };
        let mut states = group.states.clone();
        topics.iter().for_each(|topic| {
            states.deleting.remove(topic);
        });
        if states != group.states {
            let mut records = Records::new(group_id);
            records.states(&states);
            step.write(records.list, Then::Nothing);
        }
        step
    }

    /// Handles the first half of AlterShareGroupOffsets, for a group without members.
    pub fn handle_share_alter(
        &mut self,
        token: Token,
        group_id: &Str,
        topics: &[(Str, Vec<(i32, i64)>)],
    ) -> Step {
        let mut step = Step::default();
        match self.share_alteration(group_id, topics) {
            Ok((alteration, records)) => {
                let response = Response::ShareAlter(Ok(alteration));
                step.write_then_reply(records, token, response);
            }
            Err(error) => step.reply(token, Response::ShareAlter(Err(error))),
        }
        step
    }

    /// Handles the first half of DeleteShareGroupOffsets, for a group without members.
    pub fn handle_share_offsets_delete(
        &mut self,
        token: Token,
        group_id: &Str,
        topics: &[Str],
    ) -> Step {
        let mut step = Step::default();
        match self.share_offsets_deletion(group_id, topics) {
            Ok((deletion, records)) => {
                let response = Response::ShareOffsetsDelete(Ok(deletion));
                step.write_then_reply(records, token, response);
            }
            Err(error) => step.reply(token, Response::ShareOffsetsDelete(Err(error))),
        }
        step
    }

    /// The share-partitions that a group has states of, or is to have.
    pub fn share_partitions(&self, group_id: &str) -> Result<Vec<ShareGroupPartition>, GroupError> {
        self.check_serving()?;
        let group = self.share_group(group_id)?;
        let states = group.states.initialized.iter().chain(&group.states.initializing);
        Ok(listed(states))
    }

    /// The share-partitions that a group has states of: none, if there is no such group.
    pub fn begun_share_partitions(
        &self,
        group_id: &str,
    ) -> Result<Vec<ShareGroupPartition>, GroupError> {
        self.check_serving()?;
        let group = self.share_group(group_id);
        Ok(group.map_or(Vec::new(), |group| listed(group.states.initialized.iter())))
    }

    /// Whether the log says that the share-partition has a state, and which epoch the group is in.
    pub fn share_state_epoch(&self, group_id: &str, topic_id: Uuid, partition: i32) -> Option<i32> {
        let group = self.share_group(group_id).ok()?;
        group.has_state(topic_id, partition).then_some(group.epoch)
    }

    /// Whether the share group exists and has no members.
    pub fn is_empty_share_group(&self, group_id: &str) -> bool {
        self.share_group(group_id).is_ok_and(|group| !group.has_members())
    }

    /// Collects the records that forget deleted topics in all share groups.
    pub(crate) fn forget_share_topics(&self, deleted: &[DeletedTopic], records: &mut Vec<Record>) {
        for (id, group) in self.ledger().share_groups() {
            let mut states = group.states.clone();
            let mut has_changed = false;
            for topic in deleted {
                has_changed |= states.forget(topic.topic_id);
            }
            if has_changed {
                let mut written = Records::new(id);
                written.states(&states);
                records.append(&mut written.list);
            }
        }
    }

    fn empty_share_group(&self, group_id: &Str) -> Result<(), GroupError> {
        self.check_serving_group(group_id)?;
        match self.share_group(group_id) {
            Ok(group) if group.has_members() => Err(GroupError::NonEmptyGroup),
            other => other.map(|_| ()),
        }
    }

    fn share_alteration(
        &self,
        group_id: &Str,
        topics: &[(Str, Vec<(i32, i64)>)],
    ) -> Result<(ShareAlteration, Vec<Record>), GroupError> {
        // A group that nobody ever joined may be given offsets to begin with.
        let (epoch, hash) = if self.groups.contains_key(group_id) {
            self.empty_share_group(group_id)?;
            let group = self.share_group(group_id)?;
            (group.epoch, group.metadata_hash)
        } else {
            self.check_serving_group(group_id)?;
            (FIRST_EPOCH, 0)
        };
        let state_epoch = epoch.saturating_add(1);
        let mut is_any_set = false;
        let mut altered = Vec::with_capacity(topics.len());
        for (name, partitions) in topics {
            let topic = self.topics().by_name(name);
            let count = topic.as_ref().map_or(0, |topic| topic.partitions);
            let partitions = partitions.iter().map(|(partition, start)| {
                let outcome = match (0..count).contains(partition) {
                    false => Err(GroupError::UnknownTopicOrPartition),
                    true if *start < 0 => {
                        Err(GroupError::InvalidRequest("The offset is negative."))
                    }
                    true => Ok(*start),
                };
                is_any_set |= outcome.is_ok();
                (*partition, outcome)
            });
            let partitions = partitions.collect();
            let topic_id = topic.map_or(Uuid::ZERO, |topic| topic.id);
            altered.push(ShareAlterationTopic { topic: name.clone(), topic_id, partitions });
        }
        let mut records = Records::new(group_id);
        if is_any_set {
            records.epoch(state_epoch, hash);
        }
        Ok((ShareAlteration { state_epoch, topics: altered }, records.list))
    }

    fn share_offsets_deletion(
        &self,
        group_id: &Str,
        topics: &[Str],
    ) -> Result<(ShareOffsetsDeletion, Vec<Record>), GroupError> {
        self.empty_share_group(group_id)?;
        let group = self.share_group(group_id)?;
        let mut states = group.states.clone();
        let known: BTreeMap<Str, Uuid> = states
            .initialized
            .iter()
            .map(|(id, topic)| (topic.name.clone(), *id))
            .chain(states.deleting.iter().map(|(id, name)| (name.clone(), *id)))
            .collect();
        let mut outcomes = Vec::with_capacity(topics.len());
        for name in topics {
            let Some(id) = known.get(name).copied() else {
                let error = match self.topics().by_name(name) {
                    Some(_) => GroupError::NoOffsetsToDelete,
                    None => GroupError::UnknownTopicOrPartition,
                };
                outcomes.push((name.clone(), Uuid::ZERO, Err(error)));
                continue;
            };
            let partitions = match states.initialized.remove(&id) {
                Some(topic) => topic.partitions.into_iter().collect(),
                // A deletion that was not finished may be asked for again.
                None => (0..self.topics().by_id(id).map_or(0, |topic| topic.partitions)).collect(),
            };
            states.deleting.insert(id, name.detach());
            outcomes.push((name.clone(), id, Ok(partitions)));
        }
        let mut records = Records::new(group_id);
        if states != group.states {
            records.states(&states);
        }
        Ok((ShareOffsetsDeletion { topics: outcomes }, records.list))
    }

    /// Whether a group is a share group.
    pub fn is_share_group(&self, group_id: &str) -> bool {
        matches!(self.groups.get(group_id), Some(Group::Share(_)))
    }
}

fn listed<'a>(
    topics: impl Iterator<Item = (&'a Uuid, &'a StateTopic)>,
) -> Vec<ShareGroupPartition> {
    let each = topics.flat_map(|(topic_id, topic)| {
        topic.partitions.iter().map(|partition| ShareGroupPartition {
            topic_id: *topic_id,
            topic: topic.name.clone(),
            partition: *partition,
        })
    });
    each.collect()
}
