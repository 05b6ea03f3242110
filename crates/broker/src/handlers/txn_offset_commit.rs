//! TxnOffsetCommit, versions 0–5: offsets of a group that hold once a transaction is committed.

use fleuve_coordinator::Response;
use fleuve_coordinator::offsets::{
    CommitPartition, CommitRequest, CommitTopic, TopicOutcomes, TransactionalCommitRequest,
};
use fleuve_coordinator::transaction::Producer;
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestTopic,
};
use fleuve_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponse, TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use fleuve_protocol::{ErrorCode, Str};
use fleuve_storage::TransactionCheck;
use fleuve_types::{ProducerEpoch, ProducerId};

use super::{errors, permission};
use crate::request::{Context, Outcome};
use crate::verification::{self, Client, Unverified};

/// Older producers may crash on being told that the coordinator is loading (KAFKA-7296).
const KNOWS_LOADING_FROM: i16 = 2;
/// The sequence of batches that are not counted.
const NO_SEQUENCE: i32 = -1;

/// A topic of the response while some partitions await the coordinator.
struct Draft {
    response: TxnOffsetCommitResponseTopic,
    /// Positions in the response of the partitions handed to the coordinator, in order.
    submitted: Vec<usize>,
}

pub(crate) fn handle(
    context: &Context,
    request: TxnOffsetCommitRequest,
) -> Outcome<TxnOffsetCommitResponse> {
    let permitted =
        permission::transactional_id(context, AclOperation::Write, &request.transactional_id)
            .and_then(|()| permission::group(context, AclOperation::Read, &request.group_id));
    let refusal = permitted.err();
    let mut drafts = Vec::new();
    let mut topics = Vec::new();
    for topic in request.topics {
        let (draft, commit) = sort_out(context, topic, refusal);
        topics.extend(commit);
        drafts.push(draft);
    }
    let commit = TransactionalCommitRequest {
        producer: Producer {
            id: ProducerId(request.producer_id),
            epoch: ProducerEpoch(request.producer_epoch),
        },
        commit: CommitRequest {
            group_id: request.group_id,
            generation: request.generation_id,
            member_id: request.member_id,
            group_instance_id: request.group_instance_id,
            retention_ms: None,
            knows_group_id_not_found: true,
            topics,
        },
    };
    let context = context.clone();
    Outcome::barrier(async move {
        if !commit.commit.topics.is_empty() {
            let outcome = commit_offsets(&context, request.transactional_id, commit).await;
            enter(&mut drafts, outcome.map_err(|code| for_version(context.version, code)));
        }
        let topics = drafts.into_iter().map(|draft| draft.response).collect();
        TxnOffsetCommitResponse { topics, ..Default::default() }
    })
}

async fn commit_offsets(
    context: &Context,
    transactional_id: Str,
    request: TransactionalCommitRequest,
) -> Result<Vec<TopicOutcomes>, ErrorCode> {
    let node = &context.node;
    if request.commit.group_id.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    let shard = node.groups.shard_of(&request.commit.group_id).map_err(errors::group)?;
    let client = Client::of_commit(context.version);
    let mut check = TransactionCheck::Waived;
    if verification::is_wanted(node, client) {
        let Producer { id, epoch } = request.producer;
        let partition = shard.partition();
        let bumps_epoch = client == Client::Version2;
        let begin = || partition.begin_verification(id, epoch, NO_SEQUENCE, bumps_epoch);
        let mut guard = begin();
        if guard.is_some() {
            let partitions = vec![partition.name().clone()];
            let verified =
                verification::verify(node, client, transactional_id, request.producer, partitions);
            for outcome in verified.await {
                outcome.map_err(|error| match error {
                    Unverified::Refused(error) => errors::transaction(error),
                    Unverified::NotPart if client == Client::Classic => ErrorCode::InvalidTxnState,
                    Unverified::NotPart => ErrorCode::TransactionAbortable,
                })?;
            }
            if client == Client::Version2 {
                // The addition waited for the marker of the transaction before, which took the guard
                // away. The epoch tells the two apart, so that a new guard is as good.
                guard = begin();
            }
        }
        check = TransactionCheck::Required(guard);
    }
    let answer = node.groups.request_in_transaction(shard, check, |machine, now, token| {
        machine.handle_transactional_offset_commit(now, token, &request)
    });
    match answer.await {
        Ok(Response::OffsetCommit(outcome)) => outcome.map_err(errors::group),
        Ok(other) => unreachable!("a commit is not answered with {other:?}"),
        Err(error) => Err(errors::group(error)),
    }
}

fn for_version(version: i16, code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::CoordinatorLoadInProgress if version < KNOWS_LOADING_FROM => {
            ErrorCode::CoordinatorNotAvailable
        }
        code => code,
    }
}

/// Enters what became of the partitions handed to the coordinator.
fn enter(drafts: &mut [Draft], outcome: Result<Vec<TopicOutcomes>, ErrorCode>) {
    let submitted = drafts.iter_mut().filter(|draft| !draft.submitted.is_empty());
    for (topic_index, draft) in submitted.enumerate() {
        for (partition_index, position) in draft.submitted.iter().enumerate() {
            draft.response.partitions[*position].error_code = match &outcome {
                Err(code) => code.code(),
                Ok(topics) => {
                    errors::group_outcome(&topics[topic_index].partitions[partition_index].1)
                }
            };
        }
    }
}

/// Separates the partitions that exist, for the coordinator, from those that do not.
fn sort_out(
    context: &Context,
    topic: TxnOffsetCommitRequestTopic,
    refusal: Option<ErrorCode>,
) -> (Draft, Option<CommitTopic>) {
    let refusal =
        refusal.or_else(|| permission::topic(context, AclOperation::Read, &topic.name).err());
    let found = context.node.topics.by_name(&topic.name).filter(|_| refusal.is_none());
    let missing = refusal.unwrap_or(ErrorCode::UnknownTopicOrPartition);
    let mut partitions = Vec::new();
    let response = TxnOffsetCommitResponseTopic { name: topic.name, partitions: Vec::new() };
    let mut draft = Draft { response, submitted: Vec::new() };
    for (position, partition) in topic.partitions.into_iter().enumerate() {
        let partition_index = partition.partition_index;
        let exists = found.as_ref().is_some_and(|found| found.partition(partition_index).is_some());
        let code = if exists { ErrorCode::None } else { missing };
        let error_code = code.code();
        draft
            .response
            .partitions
            .push(TxnOffsetCommitResponsePartition { partition_index, error_code });
        if exists {
            draft.submitted.push(position);
            partitions.push(CommitPartition {
                partition: partition_index,
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: partition.committed_metadata,
            });
        }
    }
    let commit = found.filter(|_| !partitions.is_empty()).map(|found| CommitTopic {
        name: found.name.clone(),
        topic_id: found.id,
        partitions,
    });
    (draft, commit)
}
