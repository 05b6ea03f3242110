//! Consumer groups: who is in them, and what they have committed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::consumer_group_describe_request::ConsumerGroupDescribeRequest;
use fleuve_protocol::messages::consumer_group_describe_response::Assignment;
use fleuve_protocol::messages::delete_groups_request::DeleteGroupsRequest;
use fleuve_protocol::messages::describe_groups_request::DescribeGroupsRequest;
use fleuve_protocol::messages::list_groups_request::ListGroupsRequest;
use fleuve_protocol::messages::offset_delete_request::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use fleuve_types::TopicPartition;

use super::Admin;
use crate::consumer::{Committed, decode_assignment, decode_subscription, offsets};
use crate::error::{Error, Result, check, check_said};

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupListing {
    /// The group's id.
    pub id: String,
    /// `consumer`, `connect`, or empty for a group that only holds offsets.
    pub protocol_type: String,
    /// `Stable`, `Empty` and so on; empty if the broker is too old to tell.
    pub state: String,
    /// `Classic`, `Consumer` and so on; empty if the broker is too old to tell.
    pub kind: String,
}

/// A group with its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// The group's id.
    pub id: String,
    /// `Stable`, `Empty`, `Dead` and so on.
    pub state: String,
    /// `consumer` for consumer groups.
    pub protocol_type: String,
    /// The name of the assignor.
    pub assignor: String,
    /// The broker that coordinates it.
    pub coordinator: i32,
    /// The members by id.
    pub members: Vec<GroupMember>,
    /// The group's epoch and that of its target assignment; not of the classic protocol.
    pub epochs: Option<(i32, i32)>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// The member's id.
    pub id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// `client.id`.
    pub client_id: String,
    /// Where it connects from.
    pub host: String,
    /// The topics it subscribed to.
    pub topics: Vec<String>,
    /// What it reads.
    pub assignment: Vec<TopicPartition>,
    /// How far it has come; not of the classic protocol.
    pub epoch: Option<i32>,
    /// Its epoch, and what it is to read; of the KIP-848 protocol only.
    pub target: Option<(i32, Vec<TopicPartition>)>,
    /// Whether it uses the protocol that the group is of, and not the classic one; unless the
    /// broker does not say.
    pub upgraded: Option<bool>,
    /// What its assignor told the leader's about it; of the classic protocol only.
    pub user_data: Option<Bytes>,
}

/// How the KIP-848 protocol says which protocol a member uses.
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;

impl Admin {
    /// Lists the groups of all brokers.
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>> {
        self.client.refresh_brokers().await?;
        let mut groups: BTreeMap<String, GroupListing> = BTreeMap::new();
        for broker in self.client.cluster().brokers() {
            let response = self
                .client
                .call_broker::<ListGroupsRequest>(
                    broker.id,
                    |_| ListGroupsRequest::default(),
                    |response| response.error_code,
                )
                .await?;
            for group in response.groups {
                let listing = GroupListing {
                    id: group.group_id.to_string(),
                    protocol_type: group.protocol_type.to_string(),
                    state: group.group_state.to_string(),
                    kind: group.group_type.to_string(),
                };
                groups.insert(listing.id.clone(), listing);
            }
        }
        Ok(groups.into_values().collect())
    }

    /// Describes a group of the classic or of the KIP-848 protocol; a group that does not exist is
    /// `Dead`.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription> {
        let classic = self.describe_classic_group(group).await?;
        if classic.state != DEAD {
            return Ok(classic);
        }
        match self.describe_consumer_group(group).await {
            Ok(described) => Ok(described),
            Err(Error::Unsupported { .. }) => Ok(classic),
            Err(error) if error.code() == Some(ErrorCode::GroupIdNotFound) => Ok(classic),
            Err(error) => Err(error),
        }
    }

    async fn describe_consumer_group(&self, group: &str) -> Result<GroupDescription> {
        let build = |_| ConsumerGroupDescribeRequest {
            group_ids: vec![group.to_owned().into()],
            ..ConsumerGroupDescribeRequest::default()
        };
        let response = self
            .client
            .call_coordinator::<ConsumerGroupDescribeRequest>(group, i16::MAX, build, |response| {
                response.groups.first().map_or(0, |group| retriable(group.error_code))
            })
            .await?;
        let missing = || Error::broker(format!("group {group}"), ErrorCode::GroupIdNotFound);
        let described = response.groups.into_iter().next().ok_or_else(missing)?;
        let words = described.error_message.as_deref();
        check_said(described.error_code, words, || format!("group {group}"))?;
        let mut members: Vec<_> = described
            .members
            .into_iter()
            .map(|member| GroupMember {
                assignment: partitions_of(&member.assignment),
                epoch: Some(member.member_epoch),
                target: Some((member.member_epoch, partitions_of(&member.target_assignment))),
                id: member.member_id.to_string(),
                instance_id: member.instance_id.map(|id| id.to_string()),
                client_id: member.client_id.to_string(),
                host: member.client_host.to_string(),
                topics: member.subscribed_topic_names.iter().map(ToString::to_string).collect(),
                upgraded: match member.member_type {
                    CLASSIC_MEMBER => Some(false),
                    CONSUMER_MEMBER => Some(true),
                    _ => None,
                },
                user_data: None,
            })
            .collect();
        members.sort_unstable_by(|left, right| left.id.cmp(&right.id));
        Ok(GroupDescription {
            id: described.group_id.to_string(),
            state: described.group_state.to_string(),
            protocol_type: "consumer".to_owned(),
            assignor: described.assignor_name.to_string(),
            coordinator: self.client.coordinator(group).await?,
            members,
            epochs: Some((described.group_epoch, described.assignment_epoch)),
        })
    }

    async fn describe_classic_group(&self, group: &str) -> Result<GroupDescription> {
        let build = |_| DescribeGroupsRequest {
            groups: vec![group.to_owned().into()],
            ..DescribeGroupsRequest::default()
        };
        let response = self
            .client
            .call_coordinator::<DescribeGroupsRequest>(group, i16::MAX, build, |response| {
                response.groups.first().map_or(0, |group| retriable(group.error_code))
            })
            .await?;
        let described =
            response.groups.into_iter().next().ok_or_else(|| {
                Error::broker(format!("group {group}"), ErrorCode::GroupIdNotFound)
            })?;
        let code = crate::error::code_of(described.error_code);
        if code == ErrorCode::GroupIdNotFound {
            // Newer brokers say so, older ones describe a dead group; callers see the latter.
            return Ok(GroupDescription {
                id: group.to_owned(),
                state: DEAD.to_owned(),
                protocol_type: String::new(),
                assignor: String::new(),
                coordinator: self.client.coordinator(group).await?,
                members: Vec::new(),
                epochs: None,
            });
        }
        let words = described.error_message.as_deref();
        check_said(described.error_code, words, || format!("group {group}"))?;
        let mut members: Vec<_> = described
            .members
            .into_iter()
            .map(|member| {
                let id = member.member_id.to_string();
                // Members of other protocol types keep bytes of their own here.
                let told = decode_subscription(&id, member.member_metadata).unwrap_or_default();
                GroupMember {
                    topics: told.topics,
                    user_data: told.user_data,
                    assignment: decode_assignment(member.member_assignment)
                        .unwrap_or_default()
                        .partitions,
                    instance_id: member.group_instance_id.map(|id| id.to_string()),
                    client_id: member.client_id.to_string(),
                    host: member.client_host.to_string(),
                    id,
                    epoch: None,
                    target: None,
                    upgraded: None,
                }
            })
            .collect();
        members.sort_unstable_by(|left, right| left.id.cmp(&right.id));
        Ok(GroupDescription {
            id: described.group_id.to_string(),
            state: described.group_state.to_string(),
            protocol_type: described.protocol_type.to_string(),
            assignor: described.protocol_data.to_string(),
            coordinator: self.client.coordinator(group).await?,
            members,
            epochs: None,
        })
    }

    /// Deletes a group that has no members.
    pub async fn delete_group(&self, group: &str) -> Result<()> {
        let build = |_| DeleteGroupsRequest { groups_names: vec![group.to_owned().into()] };
        let response = self
            .client
            .call_coordinator::<DeleteGroupsRequest>(group, i16::MAX, build, |response| {
                response.results.first().map_or(0, |group| retriable(group.error_code))
            })
            .await?;
        match response.results.first() {
            Some(result) => check(result.error_code, || format!("group {group}")),
            None => Err(Error::unanswered(format!("group {group}"))),
        }
    }

    /// Returns everything a group has committed.
    pub async fn group_offsets(&self, group: &str) -> Result<HashMap<TopicPartition, Committed>> {
        offsets::fetch_committed(&self.client, group, None, false).await
    }

    /// Sets what a group has committed; it must not have members that use these topics.
    pub async fn alter_group_offsets(
        &self,
        group: &str,
        offsets: &HashMap<TopicPartition, i64>,
    ) -> Result<()> {
        let offsets = offsets.iter();
        let offsets: HashMap<_, _> = offsets
            .map(|(partition, &offset)| (partition.clone(), Committed::at(offset)))
            .collect();
        offsets::commit(&self.client, group, &Default::default(), None, &offsets).await
    }

    /// Makes a group forget what it has committed for these partitions.
    pub async fn delete_group_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<(TopicPartition, Result<()>)>> {
        let build = |_| {
            let mut topics: Vec<OffsetDeleteRequestTopic> = Vec::new();
            for partition in partitions {
                let asked = OffsetDeleteRequestPartition { partition_index: partition.partition };
                match topics.iter_mut().find(|topic| *topic.name == *partition.topic) {
                    Some(topic) => topic.partitions.push(asked),
                    None => topics.push(OffsetDeleteRequestTopic {
                        name: partition.topic.to_string().into(),
                        partitions: vec![asked],
                    }),
                }
            }
            OffsetDeleteRequest { group_id: group.to_owned().into(), topics }
        };
        let response = self
            .client
            .call_coordinator::<OffsetDeleteRequest>(group, i16::MAX, build, |response| {
                response.error_code
            })
            .await?;
        let mut results = Vec::new();
        for topic in &response.topics {
            for answer in &topic.partitions {
                let partition = TopicPartition::new(&*topic.name, answer.partition_index);
                let result = check(answer.error_code, || format!("group {group}, {partition}"));
                results.push((partition, result));
            }
        }
        Ok(results)
    }
}

fn partitions_of(assignment: &Assignment) -> Vec<TopicPartition> {
    let partitions = assignment.topic_partitions.iter().flat_map(|topic| {
        let name: Arc<str> = (&*topic.topic_name).into();
        topic.partitions.iter().map(move |&p| TopicPartition::new(name.clone(), p))
    });
    partitions.collect()
}

/// The state of a group that does not exist.
const DEAD: &str = "Dead";

/// Keeps a code only if trying again may help; others belong to the item and not to the call.
pub(super) fn retriable(code: i16) -> i16 {
    if crate::error::code_of(code).is_retriable() { code } else { 0 }
}
