//! The metadata quorum, and brokers that leave the cluster.

use fleuve_protocol::messages::add_raft_voter_request::{AddRaftVoterRequest, Listener};
use fleuve_protocol::messages::describe_quorum_request::{
    DescribeQuorumRequest, PartitionData, TopicData,
};
use fleuve_protocol::messages::describe_quorum_response::ReplicaState;
use fleuve_protocol::messages::remove_raft_voter_request::RemoveRaftVoterRequest;
use fleuve_protocol::messages::unregister_broker_request::UnregisterBrokerRequest;
use fleuve_types::Uuid;

use super::Admin;
use crate::error::{Error, Result, check_said};

/// The metadata quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumDescription {
    /// Who leads it.
    pub leader: i32,
    /// The number of that leadership.
    pub leader_epoch: i32,
    /// Up to where its log is committed.
    pub high_watermark: i64,
    /// Who votes.
    pub voters: Vec<QuorumReplica>,
    /// Who only listens.
    pub observers: Vec<QuorumReplica>,
    /// Where voters are reached: node, listener, host and port.
    pub endpoints: Vec<(i32, String, String, u16)>,
}

/// A member of the metadata quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumReplica {
    /// The node.
    pub id: i32,
    /// The directory that its log is in; all zeros if nobody says.
    pub directory_id: Uuid,
    /// Where its log ends.
    pub log_end_offset: i64,
    /// When it last fetched.
    pub last_fetch_ms: i64,
    /// When it last had everything.
    pub last_caught_up_ms: i64,
}

impl QuorumReplica {
    fn of(state: &ReplicaState) -> Self {
        Self {
            id: state.replica_id,
            directory_id: state.replica_directory_id,
            log_end_offset: state.log_end_offset,
            last_fetch_ms: state.last_fetch_timestamp,
            last_caught_up_ms: state.last_caught_up_timestamp,
        }
    }
}

impl Admin {
    /// Describes the metadata quorum.
    pub async fn describe_quorum(&self) -> Result<QuorumDescription> {
        let build = |_| DescribeQuorumRequest {
            topics: vec![TopicData {
                topic_name: "__cluster_metadata".into(),
                partitions: vec![PartitionData { partition_index: 0 }],
            }],
        };
        let response = self.client.call_any::<DescribeQuorumRequest>(build, |_| 0).await?;
        let subject = || "the metadata quorum".to_owned();
        check_said(response.error_code, response.error_message.as_deref(), subject)?;
        let partition = response.topics.iter().flat_map(|topic| &topic.partitions).next();
        let partition = partition.ok_or_else(|| {
            Error::broker(subject(), fleuve_protocol::ErrorCode::UnknownTopicOrPartition)
        })?;
        check_said(partition.error_code, partition.error_message.as_deref(), subject)?;
        let endpoints = response.nodes.iter().flat_map(|node| {
            node.listeners.iter().map(|listener| {
                let (name, host) = (listener.name.to_string(), listener.host.to_string());
                (node.node_id, name, host, listener.port)
            })
        });
        Ok(QuorumDescription {
            leader: partition.leader_id,
            leader_epoch: partition.leader_epoch,
            high_watermark: partition.high_watermark,
            voters: partition.current_voters.iter().map(QuorumReplica::of).collect(),
            observers: partition.observers.iter().map(QuorumReplica::of).collect(),
            endpoints: endpoints.collect(),
        })
    }

    /// Adds a voter to the metadata quorum, reached at listeners of name, host and port.
    pub async fn add_raft_voter(
        &self,
        id: i32,
        directory_id: Uuid,
        listeners: &[(String, String, u16)],
    ) -> Result<()> {
        let timeout_ms = self.timeout_ms();
        let build = |_| AddRaftVoterRequest {
            cluster_id: None,
            timeout_ms,
            voter_id: id,
            voter_directory_id: directory_id,
            listeners: listeners
                .iter()
                .map(|(name, host, port)| Listener {
                    name: name.clone().into(),
                    host: host.clone().into(),
                    port: *port,
                })
                .collect(),
            ack_when_committed: true,
        };
        let response = self.client.call_any::<AddRaftVoterRequest>(build, |_| 0).await?;
        let words = response.error_message.as_deref();
        check_said(response.error_code, words, || format!("voter {id}"))
    }

    /// Removes a voter from the metadata quorum.
    pub async fn remove_raft_voter(&self, id: i32, directory_id: Uuid) -> Result<()> {
        let build = |_| RemoveRaftVoterRequest {
            cluster_id: None,
            voter_id: id,
            voter_directory_id: directory_id,
        };
        let response = self.client.call_any::<RemoveRaftVoterRequest>(build, |_| 0).await?;
        let words = response.error_message.as_deref();
        check_said(response.error_code, words, || format!("voter {id}"))
    }

    /// Removes a broker that will not come back from the cluster.
    pub async fn unregister_broker(&self, id: i32) -> Result<()> {
        let build = |_| UnregisterBrokerRequest { broker_id: id };
        let response = self.client.call_any::<UnregisterBrokerRequest>(build, |_| 0).await?;
        let words = response.error_message.as_deref();
        check_said(response.error_code, words, || format!("broker {id}"))
    }
}
