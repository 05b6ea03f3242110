//! A consumer group as administrators see it.

use std::collections::BTreeMap;

use fleuve_protocol::Str;
use fleuve_types::Uuid;

use super::api::{ConsumerDescription, ConsumerMemberDescription, TopicPartitions};
use super::group::ConsumerGroup;
use super::member::Member;
use crate::coordinator::{Group, GroupCoordinator};
use crate::error::GroupError;
use crate::topics::TopicView;

impl GroupCoordinator {
    /// Describes a consumer group.
    pub fn describe_consumer_group(
        &self,
        group_id: &str,
    ) -> Result<ConsumerDescription, GroupError> {
        self.check_serving_group(group_id)?;
        let (Some((id, Group::Consumer(companion))), Some(group)) =
            (self.groups.get_key_value(group_id), self.ledger().consumer_group(group_id))
        else {
            return Err(GroupError::GroupIdNotFound);
        };
        let preferred = ConsumerGroup::preferred_assignor(group.members().values()).cloned();
        let default = || Str::from(self.settings.consumer.default_assignor().name());
        let members = group.members().iter();
        Ok(ConsumerDescription {
            group_id: id.clone(),
            state: group.state(),
            epoch: group.epoch,
            assignment_epoch: group.target_epoch,
            assignor: preferred.unwrap_or_else(default),
            members: members.map(|(id, member)| self.describe_member(group, id, member)).collect(),
            rebalances: companion.history.to_vec(),
        })
    }

    fn describe_member(
        &self,
        group: &ConsumerGroup,
        id: &Str,
        member: &Member,
    ) -> ConsumerMemberDescription {
        // Until it has given a partition up, the member answers for it.
        let mut has: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
        for (topic, partitions) in member.assigned.iter().chain(&member.revoking) {
            has.entry(*topic).or_default().extend(partitions.keys());
        }
        let target = group.targets.get(id).into_iter().flatten();
        let target = target.map(|(topic, partitions)| (*topic, partitions.iter().copied()));
        ConsumerMemberDescription {
            member_id: id.clone(),
            instance_id: member.instance_id.clone(),
            rack_id: member.rack_id.clone(),
            member_epoch: member.epoch,
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            topics: member.topics.iter().cloned().collect(),
            regex: member.regex.clone(),
            assignment: named(self.topics(), has.into_iter()),
            target: named(self.topics(), target),
            is_classic: member.classic.is_some(),
        }
    }
}

/// Adds names to topics, and leaves those out that are gone.
fn named<P: IntoIterator<Item = i32>>(
    topics: &dyn TopicView,
    partitions: impl Iterator<Item = (Uuid, P)>,
) -> Vec<TopicPartitions> {
    let with_name = partitions.filter_map(|(topic_id, partitions)| {
        let topic = topics.by_id(topic_id)?.name;
        Some(TopicPartitions { topic_id, topic, partitions: partitions.into_iter().collect() })
    });
    with_name.collect()
}
