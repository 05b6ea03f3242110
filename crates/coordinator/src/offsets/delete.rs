//! Deleting offsets: at a user's wish, together with their group, or because their topic is gone.

use fleuve_protocol::Str;
use fleuve_types::Uuid;

use super::api::{DeleteRequest, DeletedTopic, TopicOutcomes};
use crate::classic::State;
use crate::consumer;
use crate::coordinator::{Group, GroupCoordinator, RECORDS_PER_WRITE};
use crate::error::GroupError;
use crate::record::Record;
use crate::share;
use crate::step::{Response, Step, Then, Token};
use crate::streams;

impl GroupCoordinator {
    /// Handles OffsetDelete.
    pub fn handle_offset_delete(&mut self, token: Token, request: &DeleteRequest) -> Step {
        let mut step = Step::default();
        if let Err(error) = self.check_delete(request) {
            step.reply(token, Response::OffsetDelete(Err(error)));
            return step;
        }
        let mut records = Vec::new();
        let topics = request
            .topics
            .iter()
            .map(|(topic, partitions)| {
                let outcome = self.delete_topic(request, topic, partitions, &mut records);
                TopicOutcomes {
                    name: topic.clone(),
                    topic_id: Uuid::ZERO,
                    partitions: partitions.iter().map(|partition| (*partition, outcome)).collect(),
                }
            })
            .collect();
        self.counters.offset_deletions += records.len() as u64;
        step.write_then_reply(records, token, Response::OffsetDelete(Ok(topics)));
        step
    }

    /// Forgets the offsets of topics that no longer exist.
    ///
    /// A topic may have been created anew under the same name already; its offsets, which carry
    /// another id, stay.
    pub fn handle_topics_deleted(&mut self, deleted: &[DeletedTopic]) -> Step {
        let mut step = Step::default();
        if self.check_serving().is_err() {
            return step;
        }
        let mut records = Vec::new();
        for group in self.ledger().pending().groups() {
            for topics in self.ledger().pending().of_group(group) {
                for topic in deleted {
                    let partitions = topics.get(&topic.name).into_iter().flatten();
                    records.extend(
                        partitions
                            .filter(|(_, offset)| {
                                offset.topic_id.is_zero() || offset.topic_id == topic.topic_id
                            })
                            .map(|(partition, _)| {
                                Record::offset_tombstone(group, &topic.name, *partition)
                            }),
                    );
                }
            }
        }
        for (group, topics) in self.ledger().all_offsets() {
            for topic in deleted {
                let Some(partitions) = topics.get(&topic.name) else { continue };
                records.extend(
                    partitions
                        .iter()
                        .filter(|(_, offset)| {
                            offset.topic_id.is_zero() || offset.topic_id == topic.topic_id
                        })
                        .map(|(partition, _)| {
                            Record::offset_tombstone(group, &topic.name, *partition)
                        }),
                );
            }
        }
        self.counters.offset_deletions += records.len() as u64;
        self.forget_share_topics(deleted, &mut records);
        step.write_in_chunks(records);
        step
    }

    /// Handles DeleteGroups: groups without members go, together with their offsets.
    pub fn handle_delete_groups(&mut self, token: Token, groups: &[Str]) -> Step {
        let mut step = Step::default();
        let mut records = Vec::new();
        let outcomes = groups
            .iter()
            .map(|group| {
                let outcome = self.check_group_deletable(group);
                if outcome.is_ok() {
                    let before = records.len();
                    self.tombstones_of_offsets(group, &mut records);
                    self.counters.offset_deletions += (records.len() - before) as u64;
                    self.tombstones_of_group(group, &mut records);
                }
                (group.clone(), outcome)
            })
            .collect();
        step.write_then_reply(records, token, Response::DeleteGroups(outcomes));
        step
    }

    fn check_delete(&self, request: &DeleteRequest) -> Result<(), GroupError> {
        self.check_serving_group(&request.group_id)?;
        let group = match self.groups.get(&request.group_id) {
            Some(Group::Classic(group)) => group,
            Some(Group::Consumer(_) | Group::Streams(_)) => return Ok(()),
            Some(Group::Share(_)) | None => return Err(GroupError::GroupIdNotFound),
        };
        // Of other members than consumers we cannot tell which topics they use.
        if group.state() != State::Empty && !group.is_of_consumers() {
            return Err(GroupError::NonEmptyGroup);
        }
        Ok(())
    }

    fn delete_topic(
        &self,
        request: &DeleteRequest,
        topic: &Str,
        partitions: &[i32],
        records: &mut Vec<Record>,
    ) -> Result<(), GroupError> {
        let is_subscribed = match self.groups.get(&request.group_id) {
            Some(Group::Classic(group)) => group.is_subscribed_to(topic),
            Some(Group::Consumer(_)) => self
                .ledger()
                .consumer_group(&request.group_id)
                .is_some_and(|group| group.is_subscribed_to(topic)),
            Some(Group::Streams(_)) => self
                .ledger()
                .streams_group(&request.group_id)
                .is_some_and(|group| group.is_subscribed_to(topic)),
            Some(Group::Share(_)) | None => false,
        };
        if is_subscribed {
            return Err(GroupError::GroupSubscribedToTopic);
        }
        let committed =
            self.ledger().offsets_of(&request.group_id).and_then(|topics| topics.get(topic));
        records.extend(
            partitions
                .iter()
                .filter(|partition| {
                    committed.is_some_and(|known| known.contains_key(partition))
                        || self.ledger().pending().contains(&request.group_id, topic, **partition)
                })
                .map(|partition| Record::offset_tombstone(&request.group_id, topic, *partition)),
        );
        Ok(())
    }

    fn check_group_deletable(&self, group: &Str) -> Result<(), GroupError> {
        self.check_serving()?;
        match self.groups.get(group) {
            None => Err(GroupError::GroupIdNotFound),
            Some(Group::Classic(group)) if group.state() == State::Empty => Ok(()),
            Some(Group::Classic(_)) => Err(GroupError::NonEmptyGroup),
            Some(Group::Share(_)) => {
                let group = self.ledger().share_group(group);
                if group.is_some_and(|group| group.has_members()) {
                    return Err(GroupError::NonEmptyGroup);
                }
                Ok(())
            }
            Some(Group::Consumer(_)) => {
                let group = self.ledger().consumer_group(group);
                if group.is_some_and(|group| !group.members().is_empty()) {
                    return Err(GroupError::NonEmptyGroup);
                }
                Ok(())
            }
            Some(Group::Streams(_)) => {
                let group = self.ledger().streams_group(group);
                if group.is_some_and(|group| !group.members().is_empty()) {
                    return Err(GroupError::NonEmptyGroup);
                }
                Ok(())
            }
        }
    }

    /// Forgets a group without members, whatever its protocol.
    fn tombstones_of_group(&self, group: &Str, records: &mut Vec<Record>) {
        if let Some(consumer) = self.ledger().consumer_group(group) {
            records.extend(consumer::group_tombstones(group, consumer));
        } else if self.ledger().streams_group(group).is_some() {
            records.extend(streams::group_tombstones(group));
        } else if self.is_share_group(group) {
            records.extend(share::group_tombstones(group));
        } else {
            records.push(Record::group_tombstone(group));
        }
    }

    fn tombstones_of_offsets(&self, group: &Str, records: &mut Vec<Record>) {
        for (topic, partitions) in self.ledger().offsets_of(group).into_iter().flatten() {
            records.extend(
                partitions
                    .keys()
                    .map(|partition| Record::offset_tombstone(group, topic, *partition)),
            );
        }
        for topics in self.ledger().pending().of_group(group) {
            for (topic, partitions) in topics {
                let committed = self.ledger().offsets_of(group).and_then(|known| known.get(topic));
                let is_new = |partition: &&i32| {
                    committed.is_none_or(|committed| !committed.contains_key(partition))
                };
                records.extend(
                    partitions
                        .keys()
                        .filter(is_new)
                        .map(|partition| Record::offset_tombstone(group, topic, *partition)),
                );
            }
        }
    }
}

impl Step {
    /// Asks for tombstones to be appended that need not stand in one batch.
    pub(super) fn write_in_chunks(&mut self, mut records: Vec<Record>) {
        while !records.is_empty() {
            let rest = records.split_off(records.len().min(RECORDS_PER_WRITE));
            self.write(std::mem::replace(&mut records, rest), Then::Nothing);
        }
    }
}
