//! Share groups (KIP-932): who is in them, and where they stand.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::alter_share_group_offsets_request::{
    AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsRequestPartition,
    AlterShareGroupOffsetsRequestTopic,
};
use fleuve_protocol::messages::delete_share_group_offsets_request::{
    DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsRequestTopic,
};
use fleuve_protocol::messages::describe_share_group_offsets_request::{
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsRequestGroup,
};
use fleuve_protocol::messages::share_group_describe_request::ShareGroupDescribeRequest;
use fleuve_types::TopicPartition;

use super::Admin;
use super::groups::{GroupDescription, GroupMember};
use crate::error::{Error, Result, check_said, code_of};

/// What [`super::GroupListing::kind`] says of share groups, in any case.
const SHARE: &str = "share";

/// Where a share group stands in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareOffset {
    /// The first record that is not dealt with; none if the group has yet to begin.
    pub start: Option<i64>,
    /// Records from there on that are not dealt with; none if the broker does not know.
    pub lag: Option<i64>,
    /// The leader epoch of the first record; none if the group has yet to begin.
    pub leader_epoch: Option<i32>,
}

impl Admin {
    /// Reports whether a group is a share group; one that does not exist is none.
    pub async fn is_share_group(&self, group: &str) -> Result<bool> {
        let groups = self.list_groups().await?;
        let found = groups.iter().find(|listed| listed.id == group);
        Ok(found.is_some_and(|listed| listed.kind.eq_ignore_ascii_case(SHARE)))
    }

    /// Describes a share group.
    pub async fn describe_share_group(&self, group: &str) -> Result<GroupDescription> {
        let build = |_| ShareGroupDescribeRequest {
            group_ids: vec![group.to_owned().into()],
            ..ShareGroupDescribeRequest::default()
        };
        let response = self
            .client
            .call_coordinator::<ShareGroupDescribeRequest>(group, i16::MAX, build, |response| {
                response.groups.first().map_or(0, |group| retriable(group.error_code))
            })
            .await?;
        let missing = || Error::broker(format!("group {group}"), ErrorCode::GroupIdNotFound);
        let described = response.groups.into_iter().next().ok_or_else(missing)?;
        let words = described.error_message.as_deref();
        check_said(described.error_code, words, || format!("group {group}"))?;
        let members = described.members.into_iter().map(|member| {
            let assignment = member.assignment.topic_partitions.iter().flat_map(|topic| {
                let name: Arc<str> = (&*topic.topic_name).into();
                topic.partitions.iter().map(move |&p| TopicPartition::new(name.clone(), p))
            });
            GroupMember {
                assignment: assignment.collect(),
                id: member.member_id.to_string(),
                instance_id: None,
                client_id: member.client_id.to_string(),
                host: member.client_host.to_string(),
                topics: member.subscribed_topic_names.iter().map(ToString::to_string).collect(),
                epoch: Some(member.member_epoch),
                target: None,
                upgraded: None,
                user_data: None,
            }
        });
        Ok(GroupDescription {
            members: members.collect(),
            id: described.group_id.to_string(),
            state: described.group_state.to_string(),
            protocol_type: SHARE.to_owned(),
            assignor: described.assignor_name.to_string(),
            coordinator: self.client.coordinator(group).await?,
            epochs: Some((described.group_epoch, described.assignment_epoch)),
        })
    }

    /// Returns where a share group stands in each partition that it reads.
    pub async fn share_group_offsets(
        &self,
        group: &str,
    ) -> Result<BTreeMap<TopicPartition, ShareOffset>> {
        let build = |_| DescribeShareGroupOffsetsRequest {
            groups: vec![DescribeShareGroupOffsetsRequestGroup {
                group_id: group.to_owned().into(),
                topics: None,
            }],
        };
        let response = self
            .client
            .call_coordinator::<DescribeShareGroupOffsetsRequest>(
                group,
                i16::MAX,
                build,
                |response| response.groups.first().map_or(0, |group| retriable(group.error_code)),
            )
            .await?;
        let missing = || Error::broker(format!("group {group}"), ErrorCode::GroupIdNotFound);
        let described = response.groups.into_iter().next().ok_or_else(missing)?;
        let words = described.error_message.as_deref();
        check_said(described.error_code, words, || format!("group {group}"))?;
        let mut offsets = BTreeMap::new();
        for topic in described.topics {
            for answer in topic.partitions {
                let partition = TopicPartition::new(&*topic.topic_name, answer.partition_index);
                let words = answer.error_message.as_deref();
                check_said(answer.error_code, words, || format!("group {group}, {partition}"))?;
                let known = |number: i64| Some(number).filter(|number| *number >= 0);
                let offset = ShareOffset {
                    start: known(answer.start_offset),
                    lag: known(answer.lag),
                    leader_epoch: Some(answer.leader_epoch).filter(|epoch| *epoch >= 0),
                };
                offsets.insert(partition, offset);
            }
        }
        Ok(offsets)
    }

    /// Sets where a share group without members goes on.
    pub async fn alter_share_group_offsets(
        &self,
        group: &str,
        offsets: &HashMap<TopicPartition, i64>,
    ) -> Result<()> {
        let build = |_| {
            let mut topics: Vec<AlterShareGroupOffsetsRequestTopic> = Vec::new();
            for (partition, offset) in offsets {
                let asked = AlterShareGroupOffsetsRequestPartition {
                    partition_index: partition.partition,
                    start_offset: *offset,
                };
                match topics.iter_mut().find(|topic| *topic.topic_name == *partition.topic) {
                    Some(topic) => topic.partitions.push(asked),
                    None => topics.push(AlterShareGroupOffsetsRequestTopic {
                        topic_name: partition.topic.to_string().into(),
                        partitions: vec![asked],
                    }),
                }
            }
            AlterShareGroupOffsetsRequest { group_id: group.to_owned().into(), topics }
        };
        let response = self
            .client
            .call_coordinator::<AlterShareGroupOffsetsRequest>(group, i16::MAX, build, |response| {
                retriable(response.error_code)
            })
            .await?;
        let words = response.error_message.as_deref();
        check_said(response.error_code, words, || format!("group {group}"))?;
        let mut answered = 0;
        for topic in &response.responses {
            for answer in &topic.partitions {
                answered += 1;
                let words = answer.error_message.as_deref();
                let index = answer.partition_index;
                check_said(answer.error_code, words, || {
                    format!("group {group}, {}-{index}", topic.topic_name)
                })?;
            }
        }
        if answered < offsets.len() {
            return Err(Error::unanswered(format!("group {group}")));
        }
        Ok(())
    }

    /// Makes a share group without members forget topics.
    pub async fn delete_share_group_offsets(
        &self,
        group: &str,
        topics: &[String],
    ) -> Result<Vec<(String, Result<()>)>> {
        let build = |_| DeleteShareGroupOffsetsRequest {
            group_id: group.to_owned().into(),
            topics: topics
                .iter()
                .map(|topic| DeleteShareGroupOffsetsRequestTopic {
                    topic_name: topic.clone().into(),
                })
                .collect(),
        };
        let response = self
            .client
            .call_coordinator::<DeleteShareGroupOffsetsRequest>(
                group,
                i16::MAX,
                build,
                |response| retriable(response.error_code),
            )
            .await?;
        let words = response.error_message.as_deref();
        check_said(response.error_code, words, || format!("group {group}"))?;
        let results = response.responses.iter().map(|topic| {
            let words = topic.error_message.as_deref();
            let subject = || format!("group {group}, topic {}", topic.topic_name);
            (topic.topic_name.to_string(), check_said(topic.error_code, words, subject))
        });
        Ok(results.collect())
    }
}

/// Keeps a code only if trying again may help; others belong to the item and not to the call.
fn retriable(code: i16) -> i16 {
    if code_of(code).is_retriable() { code } else { 0 }
}
