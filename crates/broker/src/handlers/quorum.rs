//! DescribeQuorum 0–2, AddRaftVoter 0–1, RemoveRaftVoter 0: the metadata quorum, which is this
//! node alone.
//!
//! The voter's addresses are those of the controller's listeners, or of the broker's where there
//! are none.
//! Kafka tries to reach a voter that is to be added, and answers when it cannot; we refuse at
//! once, because a quorum of several is not served yet.

use fleuve_metadata::config::Role;
use fleuve_metadata::controller::METADATA_TOPIC;
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::add_raft_voter_request::AddRaftVoterRequest;
use fleuve_protocol::messages::add_raft_voter_response::AddRaftVoterResponse;
use fleuve_protocol::messages::describe_quorum_request::DescribeQuorumRequest;
use fleuve_protocol::messages::describe_quorum_response::{
    DescribeQuorumResponse, Listener, Node as QuorumNode, PartitionData, ReplicaState, TopicData,
};
use fleuve_protocol::messages::remove_raft_voter_request::RemoveRaftVoterRequest;
use fleuve_protocol::messages::remove_raft_voter_response::RemoveRaftVoterResponse;
use fleuve_protocol::{ErrorCode, Str};
use fleuve_types::Uuid;

use super::permission;
use crate::request::{Context, Outcome};

/// The first version that tells directories and addresses of voters.
const DIRECTORIES_FROM: i16 = 2;

pub(crate) fn describe(
    context: &Context,
    request: DescribeQuorumRequest,
) -> Outcome<DescribeQuorumResponse> {
    if let Err(code) = permission::cluster(context, AclOperation::Describe) {
        return Outcome::Now(DescribeQuorumResponse {
            error_code: code.code(),
            error_message: Some(Str::from(code.message())),
            ..Default::default()
        });
    }
    let is_only_partition = match request.topics.as_slice() {
        [topic] => {
            topic.topic_name.as_str() == METADATA_TOPIC
                && matches!(topic.partitions.as_slice(), [only] if only.partition_index == 0)
        }
        _ => false,
    };
    if !is_only_partition {
        let unknown = ErrorCode::UnknownTopicOrPartition;
        let topics = request.topics.into_iter().map(|topic| TopicData {
            topic_name: topic.topic_name,
            partitions: topic
                .partitions
                .iter()
                .map(|partition| PartitionData {
                    partition_index: partition.partition_index,
                    error_code: unknown.code(),
                    error_message: Some(Str::from(
                        "This server does not host this topic-partition.",
                    )),
                    ..Default::default()
                })
                .collect(),
        });
        let topics = topics.collect();
        return Outcome::Now(DescribeQuorumResponse { topics, ..Default::default() });
    }
    let node = &context.node;
    let now_ms = node.clock.wall_ms();
    let log = node.metadata.partition();
    let partition = PartitionData {
        partition_index: 0,
        leader_id: node.id,
        leader_epoch: log.leader_epoch(),
        high_watermark: log.high_watermark(),
        current_voters: vec![ReplicaState {
            replica_id: node.id,
            replica_directory_id: match context.version {
                DIRECTORIES_FROM.. => directory_id(context),
                _ => Uuid::ZERO,
            },
            log_end_offset: log.log_end_offset(),
            last_fetch_timestamp: now_ms,
            last_caught_up_timestamp: now_ms,
        }],
        ..Default::default()
    };
    let mut listeners = node.open_listeners(Role::Controller);
    if listeners.is_empty() {
        listeners = node.open_listeners(Role::Broker);
    }
    let listeners = listeners.into_iter().map(|(name, endpoint)| Listener {
        name: Str::from(name),
        host: endpoint.host,
        port: endpoint.port as u16,
    });
    Outcome::Now(DescribeQuorumResponse {
        topics: vec![TopicData {
            topic_name: Str::from(METADATA_TOPIC),
            partitions: vec![partition],
        }],
        nodes: match context.version {
            DIRECTORIES_FROM.. => {
                vec![QuorumNode { node_id: node.id, listeners: listeners.collect() }]
            }
            _ => Vec::new(),
        },
        ..Default::default()
    })
}

pub(crate) fn add_voter(
    context: &Context,
    request: AddRaftVoterRequest,
) -> Outcome<AddRaftVoterResponse> {
    let refusal = refusal(context, request.cluster_id.as_ref()).unwrap_or_else(|| {
        if request.voter_id == context.node.id {
            let voter = replica_key(request.voter_id, request.voter_directory_id);
            let message = format!(
                "The voter id for {voter} is already part of the set of voters [{}].",
                own_key(context)
            );
            return (ErrorCode::DuplicateVoter, message);
        }
        let message =
            "clusters of several nodes are not served yet; this node stays the only voter";
        (ErrorCode::InvalidRequest, message.to_owned())
    });
    Outcome::Now(AddRaftVoterResponse {
        error_code: refusal.0.code(),
        error_message: Some(Str::from(refusal.1)),
        ..Default::default()
    })
}

pub(crate) fn remove_voter(
    context: &Context,
    request: RemoveRaftVoterRequest,
) -> Outcome<RemoveRaftVoterResponse> {
    // The last voter cannot be removed either, and Kafka says the same about it.
    let refusal = refusal(context, request.cluster_id.as_ref()).unwrap_or_else(|| {
        let voter = replica_key(request.voter_id, request.voter_directory_id);
        let message =
            format!("Cannot remove voter {voter} from the set of voters [{}]", own_key(context));
        (ErrorCode::VoterNotFound, message)
    });
    Outcome::Now(RemoveRaftVoterResponse {
        error_code: refusal.0.code(),
        error_message: Some(Str::from(refusal.1)),
        ..Default::default()
    })
}

fn refusal(context: &Context, given: Option<&Str>) -> Option<(ErrorCode, String)> {
    if let Err(code) = permission::cluster(context, AclOperation::Alter) {
        return Some((code, code.message().to_owned()));
    }
    let image = context.node.image();
    let own = image.cluster_id();
    let given = given.filter(|given| *given != own)?;
    let message = format!("The given id \"{given}\" doesn't match the cluster id \"{own}\"");
    Some((ErrorCode::InconsistentClusterId, message))
}

fn own_key(context: &Context) -> String {
    replica_key(context.node.id, directory_id(context))
}

fn replica_key(id: i32, directory: Uuid) -> String {
    format!("ReplicaKey(id={id}, directoryId={directory})")
}

/// The directory that holds the metadata log.
fn directory_id(context: &Context) -> Uuid {
    context.node.logs.directory_ids().first().copied().unwrap_or(Uuid::ZERO)
}
