//! A share group as administrators see it.

use super::api::{ShareDescription, ShareMemberDescription};
use super::assignor;
use crate::consumer::TopicPartitions;
use crate::coordinator::{Group, GroupCoordinator};
use crate::error::GroupError;

impl GroupCoordinator {
    /// Describes a share group.
    pub fn describe_share_group(&self, group_id: &str) -> Result<ShareDescription, GroupError> {
        self.check_serving_group(group_id)?;
        let (Some((id, Group::Share(companion))), Some(group)) =
            (self.groups.get_key_value(group_id), self.ledger().share_group(group_id))
        else {
            return Err(GroupError::GroupIdNotFound);
        };
        let members = group.members.iter().map(|(id, member)| ShareMemberDescription {
            member_id: id.clone(),
            rack_id: member.rack_id.clone(),
            member_epoch: member.epoch,
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            topics: member.topics.iter().cloned().collect(),
            assignment: member
                .assigned
                .iter()
                .filter_map(|(topic_id, partitions)| {
                    let topic = self.topics().by_id(*topic_id)?.name;
                    let partitions = partitions.iter().copied().collect();
                    Some(TopicPartitions { topic_id: *topic_id, topic, partitions })
                })
                .collect(),
        });
        Ok(ShareDescription {
            group_id: id.clone(),
            state: group.state(),
            epoch: group.epoch,
            assignment_epoch: group.target_epoch,
            assignor: assignor::NAME,
            members: members.collect(),
            rebalances: companion.history.to_vec(),
        })
    }
}
