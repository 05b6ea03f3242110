//! ListPartitionReassignments, version 0: partitions on their way to other brokers.

use fleuve_metadata::image::{AclOperation, Partition, Topic};
use fleuve_protocol::Str;
use fleuve_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsRequest;
use fleuve_protocol::messages::list_partition_reassignments_response::{
    ListPartitionReassignmentsResponse, OngoingPartitionReassignment, OngoingTopicReassignment,
};
use fleuve_types::NodeId;

use super::permission;
use crate::request::{Context, Outcome};

pub(crate) fn handle(
    context: &Context,
    request: ListPartitionReassignmentsRequest,
) -> Outcome<ListPartitionReassignmentsResponse> {
    if let Err(code) = permission::cluster(context, AclOperation::Describe) {
        return Outcome::Now(ListPartitionReassignmentsResponse {
            error_code: code.code(),
            error_message: Some(Str::from(code.message())),
            ..Default::default()
        });
    }
    let image = context.node.image();
    let topics = match &request.topics {
        None => image.topics().iter().filter_map(|topic| ongoing(topic, |_| true)).collect(),
        Some(topics) => topics
            .iter()
            .filter_map(|wanted| {
                let topic = image.topics().by_name(&wanted.name)?;
                ongoing(topic, |index| wanted.partition_indexes.contains(&index))
            })
            .collect(),
    };
    Outcome::Now(ListPartitionReassignmentsResponse { topics, ..Default::default() })
}

fn ongoing(topic: &Topic, is_wanted: impl Fn(i32) -> bool) -> Option<OngoingTopicReassignment> {
    let moves = |partition: &Partition| {
        !partition.adding_replicas.is_empty() || !partition.removing_replicas.is_empty()
    };
    let numbers = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
    let partitions: Vec<_> = topic
        .partitions()
        .iter()
        .filter(|partition| is_wanted(partition.index) && moves(partition))
        .map(|partition| OngoingPartitionReassignment {
            partition_index: partition.index,
            replicas: numbers(&partition.replicas),
            adding_replicas: numbers(&partition.adding_replicas),
            removing_replicas: numbers(&partition.removing_replicas),
        })
        .collect();
    let name = topic.name.clone();
    (!partitions.is_empty()).then_some(OngoingTopicReassignment { name, partitions })
}
