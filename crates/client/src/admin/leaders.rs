//! Electing leaders, and moving partitions between brokers.

use std::collections::BTreeMap;

use fleuve_protocol::messages::alter_partition_reassignments_request::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use fleuve_protocol::messages::elect_leaders_request::{ElectLeadersRequest, TopicPartitions};
use fleuve_protocol::messages::list_partition_reassignments_request::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsTopics,
};
use fleuve_types::TopicPartition;

use super::Admin;
use crate::error::{Result, check, check_said};

/// Whom to elect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElectionType {
    /// The first of the replicas, if it is in sync.
    Preferred,
    /// Anybody who is there, even if records are lost by it.
    Unclean,
}

/// A partition on its way to other brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OngoingReassignment {
    /// The partition.
    pub partition: TopicPartition,
    /// Who keeps it now.
    pub replicas: Vec<i32>,
    /// Who is to keep it.
    pub adding: Vec<i32>,
    /// Who is to let it go.
    pub removing: Vec<i32>,
}

/// What became of each partition.
pub type PartitionResults = Vec<(TopicPartition, Result<()>)>;

impl Admin {
    /// Elects leaders for these partitions, or with `None` for all that need it.
    ///
    /// A partition that has the right leader already answers `ELECTION_NOT_NEEDED`.
    pub async fn elect_leaders(
        &self,
        election: ElectionType,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<PartitionResults> {
        let timeout_ms = self.timeout_ms();
        let build = |_| ElectLeadersRequest {
            election_type: match election {
                ElectionType::Preferred => 0,
                ElectionType::Unclean => 1,
            },
            topic_partitions: partitions.map(|partitions| {
                by_topic(partitions.iter().map(|p| (p, ())))
                    .into_iter()
                    .map(|(topic, partitions)| TopicPartitions {
                        topic: topic.into(),
                        partitions: partitions.into_iter().map(|(index, ())| index).collect(),
                    })
                    .collect()
            }),
            timeout_ms,
        };
        let response = self.client.call_any::<ElectLeadersRequest>(build, |_| 0).await?;
        check(response.error_code, || "the election".to_owned())?;
        let results = response.replica_election_results.into_iter().flat_map(|topic| {
            let name = topic.topic.to_string();
            topic.partition_result.into_iter().map(move |result| {
                let partition = TopicPartition::new(name.as_str(), result.partition_id);
                let words = result.error_message.as_deref();
                let outcome = check_said(result.error_code, words, || partition.to_string());
                (partition, outcome)
            })
        });
        Ok(results.collect())
    }

    /// Gives partitions other replicas; `None` takes back a move that is under way.
    pub async fn alter_reassignments(
        &self,
        targets: &[(TopicPartition, Option<Vec<i32>>)],
        allow_factor_change: bool,
    ) -> Result<PartitionResults> {
        let timeout_ms = self.timeout_ms();
        let build = |version| AlterPartitionReassignmentsRequest {
            timeout_ms,
            allow_replication_factor_change: version == 0 || allow_factor_change,
            topics: by_topic(targets.iter().map(|(p, replicas)| (p, replicas)))
                .into_iter()
                .map(|(topic, partitions)| ReassignableTopic {
                    name: topic.into(),
                    partitions: partitions
                        .into_iter()
                        .map(|(partition_index, replicas)| ReassignablePartition {
                            partition_index,
                            replicas: replicas.clone(),
                        })
                        .collect(),
                })
                .collect(),
        };
        let response =
            self.client.call_any::<AlterPartitionReassignmentsRequest>(build, |_| 0).await?;
        let words = response.error_message.as_deref();
        check_said(response.error_code, words, || "the reassignment".to_owned())?;
        let results = response.responses.into_iter().flat_map(|topic| {
            let name = topic.name.to_string();
            topic.partitions.into_iter().map(move |result| {
                let partition = TopicPartition::new(name.as_str(), result.partition_index);
                let words = result.error_message.as_deref();
                let outcome = check_said(result.error_code, words, || partition.to_string());
                (partition, outcome)
            })
        });
        Ok(results.collect())
    }

    /// Lists which of these partitions, or with `None` of all, are on their way.
    pub async fn list_reassignments(
        &self,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<Vec<OngoingReassignment>> {
        let timeout_ms = self.timeout_ms();
        let build = |_| ListPartitionReassignmentsRequest {
            timeout_ms,
            topics: partitions.map(|partitions| {
                by_topic(partitions.iter().map(|p| (p, ())))
                    .into_iter()
                    .map(|(name, partitions)| ListPartitionReassignmentsTopics {
                        name: name.into(),
                        partition_indexes: partitions
                            .into_iter()
                            .map(|(index, ())| index)
                            .collect(),
                    })
                    .collect()
            }),
        };
        let response =
            self.client.call_any::<ListPartitionReassignmentsRequest>(build, |_| 0).await?;
        let words = response.error_message.as_deref();
        check_said(response.error_code, words, || "the reassignments".to_owned())?;
        let ongoing = response.topics.into_iter().flat_map(|topic| {
            let name = topic.name.to_string();
            topic.partitions.into_iter().map(move |partition| OngoingReassignment {
                partition: TopicPartition::new(name.as_str(), partition.partition_index),
                replicas: partition.replicas,
                adding: partition.adding_replicas,
                removing: partition.removing_replicas,
            })
        });
        Ok(ongoing.collect())
    }
}

fn by_topic<'a, T>(
    partitions: impl Iterator<Item = (&'a TopicPartition, T)>,
) -> BTreeMap<String, Vec<(i32, T)>> {
    let mut topics: BTreeMap<String, Vec<(i32, T)>> = BTreeMap::new();
    for (partition, value) in partitions {
        topics.entry(partition.topic.to_string()).or_default().push((partition.partition, value));
    }
    topics
}
