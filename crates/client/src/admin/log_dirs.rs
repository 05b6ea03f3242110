//! Data directories of brokers, and what they hold.

use fleuve_protocol::messages::alter_replica_log_dirs_request::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic, AlterReplicaLogDirsRequest,
};
use fleuve_protocol::messages::describe_log_dirs_request::{
    DescribableLogDirTopic, DescribeLogDirsRequest,
};
use fleuve_types::TopicPartition;

use super::{Admin, PartitionResults};
use crate::error::{Result, check};

/// A data directory of a broker.
#[derive(Clone, Debug)]
pub struct LogDir {
    /// Its path on the broker's machine.
    pub path: String,
    /// What keeps it from being used, if anything.
    pub error: Option<crate::Error>,
    /// What it holds.
    pub replicas: Vec<LogDirReplica>,
}

/// A replica in a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDirReplica {
    /// The partition.
    pub partition: TopicPartition,
    /// Its size in bytes.
    pub size: i64,
    /// How far it is behind.
    pub offset_lag: i64,
    /// Whether it is to replace the one in another directory.
    pub is_future: bool,
}

impl Admin {
    /// Describes the data directories of a broker, with the replicas of all topics, or of these.
    pub async fn describe_log_dirs(
        &self,
        broker: i32,
        topics: Option<&[(String, Vec<i32>)]>,
    ) -> Result<Vec<LogDir>> {
        self.client.refresh_brokers().await?;
        let build = |_| DescribeLogDirsRequest {
            topics: topics.map(|topics| {
                let topic = |(name, partitions): &(String, Vec<i32>)| DescribableLogDirTopic {
                    topic: name.clone().into(),
                    partitions: partitions.clone(),
                };
                topics.iter().map(topic).collect()
            }),
        };
        let response =
            self.client.call_broker::<DescribeLogDirsRequest>(broker, build, |_| 0).await?;
        check(response.error_code, || format!("broker {broker}"))?;
        let directories = response.results.into_iter().map(|result| {
            let path = result.log_dir.to_string();
            let replicas = result.topics.into_iter().flat_map(|topic| {
                let name = topic.name.to_string();
                topic.partitions.into_iter().map(move |partition| LogDirReplica {
                    partition: TopicPartition::new(name.as_str(), partition.partition_index),
                    size: partition.partition_size,
                    offset_lag: partition.offset_lag,
                    is_future: partition.is_future_key,
                })
            });
            LogDir {
                error: check(result.error_code, || path.clone()).err(),
                replicas: replicas.collect(),
                path,
            }
        });
        Ok(directories.collect())
    }
    /// Has replicas of a broker moved to other data directories of it; partitions that do not exist
    /// yet are remembered for when they do.
    pub async fn alter_replica_log_dirs(
        &self,
        broker: i32,
        moves: &[(TopicPartition, String)],
    ) -> Result<PartitionResults> {
        self.client.refresh_brokers().await?;
        let one = |(partition, path): &(TopicPartition, String)| AlterReplicaLogDir {
            path: path.clone().into(),
            topics: vec![AlterReplicaLogDirTopic {
                name: partition.topic.to_string().into(),
                partitions: vec![partition.partition],
            }],
        };
        let build = |_| AlterReplicaLogDirsRequest { dirs: moves.iter().map(one).collect() };
        let response =
            self.client.call_broker::<AlterReplicaLogDirsRequest>(broker, build, |_| 0).await?;
        let results = response.results.into_iter().flat_map(|topic| {
            let name = topic.topic_name.to_string();
            topic.partitions.into_iter().map(move |partition| {
                let place = TopicPartition::new(name.as_str(), partition.partition_index);
                let outcome = check(partition.error_code, || format!("{place} on broker {broker}"));
                (place, outcome)
            })
        });
        Ok(results.collect())
    }
}
