//! Topics: creating, describing, growing and deleting them.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
};
use fleuve_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use fleuve_protocol::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use fleuve_protocol::messages::describe_topic_partitions_request::{
    Cursor, DescribeTopicPartitionsRequest, TopicRequest,
};
use fleuve_types::Uuid;

use super::Admin;
use crate::cluster::TopicInfo;
use crate::error::{Error, Result, check_said};

/// A topic to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// The name.
    pub name: String,
    /// How many partitions; `None` leaves it to `num.partitions`.
    pub partitions: Option<i32>,
    /// How many replicas; `None` leaves it to `default.replication.factor`.
    pub replication_factor: Option<i16>,
    /// The replicas of each partition, instead of the two numbers.
    pub assignments: Vec<Vec<i32>>,
    /// Topic configurations.
    pub configs: BTreeMap<String, String>,
}

impl NewTopic {
    /// Names a topic that is otherwise as the broker likes it.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            partitions: None,
            replication_factor: None,
            assignments: Vec::new(),
            configs: BTreeMap::new(),
        }
    }

    /// Sets the number of partitions.
    pub fn partitions(self, partitions: i32) -> Self {
        Self { partitions: Some(partitions), ..self }
    }

    /// Sets the number of replicas.
    pub fn replication_factor(self, replication_factor: i16) -> Self {
        Self { replication_factor: Some(replication_factor), ..self }
    }

    /// Sets a topic configuration.
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.configs.insert(name.into(), value.into());
        self
    }
}

/// A topic that is to have more partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MorePartitions {
    /// The topic.
    pub name: String,
    /// How many it is to have.
    pub count: i32,
    /// The brokers of each new partition; the controller chooses unless given.
    pub assignments: Option<Vec<Vec<i32>>>,
}

/// A topic with its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// The name.
    pub name: String,
    /// The id.
    pub id: Uuid,
    /// Whether it belongs to the system.
    pub is_internal: bool,
    /// The partitions by index.
    pub partitions: Vec<DescribedPartition>,
}

/// A partition with its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedPartition {
    /// The index.
    pub index: i32,
    /// The leader, if there is one.
    pub leader: Option<i32>,
    /// The leader's epoch.
    pub leader_epoch: i32,
    /// The replicas in order of preference.
    pub replicas: Vec<i32>,
    /// The replicas in sync.
    pub isr: Vec<i32>,
    /// Replicas out of sync that may still lead (KIP-966).
    pub eligible_leader_replicas: Vec<i32>,
    /// Replicas that may have been eligible before they went away.
    pub last_known_eligible: Vec<i32>,
}

impl Admin {
    /// Creates topics, or only checks whether they could be created.
    pub async fn create_topics(
        &self,
        topics: &[NewTopic],
        validate_only: bool,
    ) -> Result<Vec<(String, Result<Uuid>)>> {
        let timeout_ms = self.timeout_ms();
        let build = |_| CreateTopicsRequest {
            topics: topics.iter().map(creatable).collect(),
            timeout_ms,
            validate_only,
        };
        let response = self.client.call_any::<CreateTopicsRequest>(build, |_| 0).await?;
        Ok(response
            .topics
            .iter()
            .map(|topic| {
                let words = topic.error_message.as_deref();
                let result =
                    check_said(topic.error_code, words, || format!("topic {}", topic.name));
                (topic.name.to_string(), result.map(|()| topic.topic_id))
            })
            .collect())
    }

    /// Deletes topics by name.
    pub async fn delete_topics(&self, names: &[&str]) -> Result<Vec<(String, Result<()>)>> {
        let timeout_ms = self.timeout_ms();
        let build = |version| {
            let names = names.iter().map(|name| (*name).to_owned().into());
            // Version 6 names topics by name or id, the ones before by name alone.
            if version >= 6 {
                let topics = names
                    .map(|name| DeleteTopicState { name: Some(name), ..Default::default() })
                    .collect();
                return DeleteTopicsRequest { topics, timeout_ms, ..Default::default() };
            }
            DeleteTopicsRequest { topic_names: names.collect(), timeout_ms, ..Default::default() }
        };
        let response = self.client.call_any::<DeleteTopicsRequest>(build, |_| 0).await?;
        Ok(response
            .responses
            .iter()
            .map(|topic| {
                let name = topic.name.as_deref().unwrap_or_default();
                let words = topic.error_message.as_deref();
                let result = check_said(topic.error_code, words, || format!("topic {name}"));
                (name.to_owned(), result)
            })
            .collect())
    }

    /// Raises the number of partitions of topics to these counts.
    pub async fn create_partitions(
        &self,
        counts: &[(&str, i32)],
        validate_only: bool,
    ) -> Result<Vec<(String, Result<()>)>> {
        let more = counts.iter().map(|&(name, count)| MorePartitions {
            name: name.to_owned(),
            count,
            assignments: None,
        });
        self.create_partitions_on(&more.collect::<Vec<_>>(), validate_only).await
    }

    /// Raises the number of partitions of topics, on brokers that are named where they are.
    pub async fn create_partitions_on(
        &self,
        more: &[MorePartitions],
        validate_only: bool,
    ) -> Result<Vec<(String, Result<()>)>> {
        let timeout_ms = self.timeout_ms();
        let on = |brokers: &Vec<i32>| CreatePartitionsAssignment { broker_ids: brokers.clone() };
        let build = |_| CreatePartitionsRequest {
            topics: more
                .iter()
                .map(|topic| CreatePartitionsTopic {
                    name: topic.name.clone().into(),
                    count: topic.count,
                    assignments: topic.assignments.as_ref().map(|all| all.iter().map(on).collect()),
                })
                .collect(),
            timeout_ms,
            validate_only,
        };
        let response = self.client.call_any::<CreatePartitionsRequest>(build, |_| 0).await?;
        Ok(response
            .results
            .iter()
            .map(|topic| {
                let words = topic.error_message.as_deref();
                let result =
                    check_said(topic.error_code, words, || format!("topic {}", topic.name));
                (topic.name.to_string(), result)
            })
            .collect())
    }

    /// Lists all topics.
    pub async fn list_topics(&self) -> Result<Vec<Arc<TopicInfo>>> {
        let cluster = self.client.refresh_all().await?;
        Ok(cluster.topics().into_iter().cloned().collect())
    }

    /// Describes topics, each with its own result.
    ///
    /// Brokers that have DescribeTopicPartitions are asked in pages and tell of eligible leader
    /// replicas; others are asked for metadata.
    pub async fn describe_topics(
        &self,
        names: &[&str],
    ) -> Result<Vec<(String, Result<TopicDescription>)>> {
        let connection = self.client.any_connection_in_time().await?;
        if connection.version_of::<DescribeTopicPartitionsRequest>(i16::MAX).is_ok() {
            return self.describe_in_pages(names).await;
        }
        let owned: Vec<Arc<str>> = names.iter().map(|&name| name.into()).collect();
        let cluster = self.client.refresh(&owned, false).await?;
        Ok(names
            .iter()
            .map(|&name| {
                let described = cluster.topic(name).map(|topic| describe(topic));
                let missing =
                    || Error::broker(format!("topic {name}"), ErrorCode::UnknownTopicOrPartition);
                (name.to_owned(), described.ok_or_else(missing))
            })
            .collect())
    }

    async fn describe_in_pages(
        &self,
        names: &[&str],
    ) -> Result<Vec<(String, Result<TopicDescription>)>> {
        let mut described: BTreeMap<String, Result<TopicDescription>> = BTreeMap::new();
        let mut names: Vec<&str> = names.to_vec();
        names.sort_unstable();
        names.dedup();
        let mut cursor: Option<Cursor> = None;
        loop {
            let build = |_| DescribeTopicPartitionsRequest {
                topics: names
                    .iter()
                    // The cursor stands in this topic or before it; earlier ones are done.
                    .filter(|name| cursor.as_ref().is_none_or(|c| **name >= &*c.topic_name))
                    .map(|name| TopicRequest { name: (*name).to_owned().into() })
                    .collect(),
                cursor: cursor.clone(),
                ..DescribeTopicPartitionsRequest::default()
            };
            let response =
                self.client.call_any::<DescribeTopicPartitionsRequest>(build, |_| 0).await?;
            for topic in response.topics {
                let name = topic.name.as_deref().unwrap_or_default().to_owned();
                if let Err(error) = check_said(topic.error_code, None, || format!("topic {name}")) {
                    described.insert(name, Err(error));
                    continue;
                }
                let partitions = topic.partitions.into_iter().map(|partition| DescribedPartition {
                    index: partition.partition_index,
                    leader: (partition.leader_id >= 0).then_some(partition.leader_id),
                    leader_epoch: partition.leader_epoch,
                    replicas: partition.replica_nodes,
                    isr: partition.isr_nodes,
                    eligible_leader_replicas: partition
                        .eligible_leader_replicas
                        .unwrap_or_default(),
                    last_known_eligible: partition.last_known_elr.unwrap_or_default(),
                });
                let entry = described.entry(name.clone()).or_insert_with(|| {
                    Ok(TopicDescription {
                        name,
                        id: topic.topic_id,
                        is_internal: topic.is_internal,
                        partitions: Vec::new(),
                    })
                });
                if let Ok(entry) = entry {
                    entry.partitions.extend(partitions);
                }
            }
            let Some(next) = response.next_cursor else { break };
            let next =
                Cursor { topic_name: next.topic_name, partition_index: next.partition_index };
            // A cursor that does not go forward would keep us here for ever.
            let at = |cursor: &Cursor| (cursor.topic_name.to_string(), cursor.partition_index);
            if cursor.as_ref().is_some_and(|before| at(&next) <= at(before)) {
                let words = "the description of topics does not come to an end";
                let code = ErrorCode::UnknownServerError;
                return Err(Error::broker_said("the topics", code, Some(words)));
            }
            cursor = Some(next);
        }
        Ok(described.into_iter().collect())
    }
}

fn creatable(topic: &NewTopic) -> CreatableTopic {
    let by_hand = !topic.assignments.is_empty();
    let assignments = topic.assignments.iter().enumerate();
    CreatableTopic {
        name: topic.name.clone().into(),
        num_partitions: topic.partitions.filter(|_| !by_hand).unwrap_or(-1),
        replication_factor: topic.replication_factor.filter(|_| !by_hand).unwrap_or(-1),
        assignments: assignments
            .map(|(index, brokers)| CreatableReplicaAssignment {
                partition_index: index as i32,
                broker_ids: brokers.clone(),
            })
            .collect(),
        configs: topic
            .configs
            .iter()
            .map(|(name, value)| CreatableTopicConfig {
                name: name.clone().into(),
                value: Some(value.clone().into()),
            })
            .collect(),
    }
}

fn describe(topic: &TopicInfo) -> TopicDescription {
    let partitions = topic.partitions.iter().enumerate();
    TopicDescription {
        name: topic.name.to_string(),
        id: topic.id,
        is_internal: topic.is_internal,
        partitions: partitions
            .map(|(index, partition)| DescribedPartition {
                index: index as i32,
                leader: partition.leader,
                leader_epoch: partition.leader_epoch,
                replicas: partition.replicas.clone(),
                isr: partition.isr.clone(),
                eligible_leader_replicas: Vec::new(),
                last_known_eligible: Vec::new(),
            })
            .collect(),
    }
}
