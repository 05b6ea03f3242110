//! OffsetCommit.

use fleuve_protocol::Str;
use fleuve_protocol::messages::offset_commit_key::OffsetCommitKey;
use fleuve_protocol::messages::offset_commit_value::OffsetCommitValue;

use super::api::{CommitPartition, CommitRequest, CommitTopic, TopicOutcomes};
use crate::classic::State;
use crate::consumer::CommitRule;
use crate::coordinator::{Group, GroupCoordinator};
use crate::error::GroupError;
use crate::record::{NO_EXPIRY, Record};
use crate::step::{Now, Response, Step, Token};
use crate::streams::StreamsCommitRule;

impl GroupCoordinator {
    /// Handles OffsetCommit, also of consumers that are in no group.
    pub fn handle_offset_commit(
        &mut self,
        now: Now,
        token: Token,
        request: &CommitRequest,
    ) -> Step {
        let mut step = Step::default();
        if let Err(error) = self.check_commit(now, request, &mut step) {
            step.reply(token, Response::OffsetCommit(Err(error)));
            return step;
        }
        let committed =
            self.commit_rule(request).and_then(|rule| self.commit_topics(now, &rule, request));
        match committed {
            Err(error) => step.reply(token, Response::OffsetCommit(Err(error))),
            Ok((topics, records)) => {
                self.counters.offset_commits += records.len() as u64;
                step.write_then_reply(records, token, Response::OffsetCommit(Ok(topics)));
            }
        }
        step
    }

    /// Collects the records of a commit, and says of each partition whether it has one. A partition
    /// that the member may not commit any more refuses all of them: what it commits belongs together.
    pub(super) fn commit_topics(
        &self,
        now: Now,
        rule: &Rule<'_>,
        request: &CommitRequest,
    ) -> Result<(Vec<TopicOutcomes>, Vec<Record>), GroupError> {
        let mut topics = Vec::with_capacity(request.topics.len());
        let mut records = Vec::new();
        for topic in &request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                let record = self.commit_record(now, request, topic, partition);
                if record.is_ok() {
                    self.check_partition(rule, topic, partition)?;
                }
                partitions.push((partition.partition, record.map(|record| records.push(record))));
            }
            let (name, topic_id) = (topic.name.clone(), topic.topic_id);
            topics.push(TopicOutcomes { name, topic_id, partitions });
        }
        Ok((topics, records))
    }

    /// Whether the sender may commit for the group. A commit also counts as a heartbeat.
    fn check_commit(
        &mut self,
        now: Now,
        request: &CommitRequest,
        step: &mut Step,
    ) -> Result<(), GroupError> {
        self.check_serving()?;
        if let Some(Group::Consumer(_) | Group::Streams(_)) = self.groups.get(&request.group_id) {
            // See `commit_rule`. Commits do not count as heartbeats there.
            return Ok(());
        }
        if let Some(Group::Share(_)) = self.groups.get(&request.group_id) {
            // Share groups have no committed offsets.
            return Err(GroupError::GroupIdNotFound);
        }
        let is_member_of_none = request.generation < 0;
        let (groups, mut cx) = self.split(now, step);
        let Some(Group::Classic(group)) = groups.get_mut(&request.group_id) else {
            // A consumer that assigns its partitions by itself uses us for its offsets only; its
            // group comes into being with the first of them.
            return match request.knows_group_id_not_found {
                _ if is_member_of_none => Ok(()),
                true => Err(GroupError::GroupIdNotFound),
                false => Err(GroupError::IllegalGeneration),
            };
        };
        if is_member_of_none && group.state() == State::Empty {
            return Ok(());
        }
        let claims_membership = !is_member_of_none
            || !request.member_id.is_empty()
            || request.group_instance_id.is_some();
        if !claims_membership {
            return Err(GroupError::UnknownMemberId);
        }
        group.check_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation != group.generation() {
            return Err(GroupError::IllegalGeneration);
        }
        match group.state() {
            // The member knows the new generation, but not yet its assignment in it.
            State::CompletingRebalance => Err(GroupError::RebalanceInProgress),
            State::Stable | State::PreparingRebalance => {
                group.expect_heartbeat(&mut cx, &request.member_id);
                Ok(())
            }
            State::Empty | State::Dead => Ok(()),
        }
    }

    /// What the commit of a member of a modern group is held against.
    pub(super) fn commit_rule(&self, request: &CommitRequest) -> Result<Rule<'_>, GroupError> {
        let (member, epoch) = (&request.member_id, request.generation);
        let is_new_api = request.knows_group_id_not_found;
        if let Some(group) = self.ledger().consumer_group(&request.group_id) {
            return group.commit_rule(member, epoch, is_new_api).map(Rule::Consumer);
        }
        if let Some(group) = self.ledger().streams_group(&request.group_id) {
            return group.commit_rule(member, epoch, is_new_api).map(Rule::Streams);
        }
        Ok(Rule::Consumer(CommitRule::Any))
    }

    fn check_partition(
        &self,
        rule: &Rule<'_>,
        topic: &CommitTopic,
        partition: &CommitPartition,
    ) -> Result<(), GroupError> {
        let rule = match rule {
            Rule::Streams(rule) => return rule.check(&topic.name, partition.partition),
            Rule::Consumer(CommitRule::Any) => return Ok(()),
            Rule::Consumer(rule) => rule,
        };
        let topic_id = match topic.topic_id {
            id if id.is_zero() => self.topics().by_name(&topic.name).map(|topic| topic.id),
            id => Some(id),
        };
        rule.check(topic_id.unwrap_or(topic.topic_id), partition.partition)
    }

    fn commit_record(
        &self,
        now: Now,
        request: &CommitRequest,
        topic: &CommitTopic,
        partition: &CommitPartition,
    ) -> Result<Record, GroupError> {
        let metadata = partition.metadata.clone().unwrap_or(Str::EMPTY);
        if is_longer_than(&metadata, self.settings.offset_metadata_max_bytes) {
            return Err(GroupError::OffsetMetadataTooLarge);
        }
        Ok(Record::Offset {
            key: OffsetCommitKey {
                group: request.group_id.clone(),
                topic: topic.name.clone(),
                partition: partition.partition,
            },
            value: Some(OffsetCommitValue {
                offset: partition.offset,
                leader_epoch: partition.leader_epoch,
                metadata,
                commit_timestamp: now.wall.0,
                expire_timestamp: request
                    .retention_ms
                    .map_or(NO_EXPIRY, |retention| now.wall.0.saturating_add(retention)),
                topic_id: topic.topic_id,
            }),
        })
    }
}

/// What a commit is held against, by the group's protocol.
pub(super) enum Rule<'a> {
    /// Also of groups without one.
    Consumer(CommitRule<'a>),
    Streams(StreamsCommitRule<'a>),
}

/// Whether the text has more UTF-16 code units than `limit`; its bytes are at least as many.
fn is_longer_than(text: &str, limit: usize) -> bool {
    text.len() > limit && text.encode_utf16().count() > limit
}
