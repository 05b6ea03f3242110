//! AddOffsetsToTxn, versions 0–4: a transaction is about to commit offsets of a group.

use fleuve_coordinator::transaction::{
    AddPartitionsRequest, Producer, Response, TransactionVersion,
};
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::add_offsets_to_txn_request::AddOffsetsToTxnRequest;
use fleuve_protocol::messages::add_offsets_to_txn_response::AddOffsetsToTxnResponse;
use fleuve_types::{ProducerEpoch, ProducerId, TopicPartition};

use super::{errors, permission};
use crate::groups::{OFFSETS_TOPIC, shard_index};
use crate::request::{Context, Outcome};

const PRODUCER_FENCED_FROM: i16 = 2;

pub(crate) fn handle(
    context: &Context,
    request: AddOffsetsToTxnRequest,
) -> Outcome<AddOffsetsToTxnResponse> {
    let permitted =
        permission::transactional_id(context, AclOperation::Write, &request.transactional_id)
            .and_then(|()| permission::group(context, AclOperation::Read, &request.group_id));
    if let Err(code) = permitted {
        let error_code = code.code();
        return Outcome::Now(AddOffsetsToTxnResponse { error_code, ..Default::default() });
    }
    let context = context.clone();
    Outcome::barrier(async move {
        let code = add(&context, request).await;
        AddOffsetsToTxnResponse { error_code: code.code(), ..Default::default() }
    })
}

async fn add(context: &Context, request: AddOffsetsToTxnRequest) -> ErrorCode {
    let node = &context.node;
    // The partition to add has to exist for its marker.
    if node.groups.shard_count() == 0
        && let Err(error) = node.create_offsets_topic().await
    {
        tracing::warn!(%error, "the topic for committed offsets cannot be created");
        return ErrorCode::CoordinatorNotAvailable;
    }
    let index = shard_index(&request.group_id, node.groups.shard_count().max(1));
    let request = AddPartitionsRequest {
        transactional_id: request.transactional_id,
        producer: Producer {
            id: ProducerId(request.producer_id),
            epoch: ProducerEpoch(request.producer_epoch),
        },
        partitions: vec![TopicPartition::new(OFFSETS_TOPIC, index as i32)],
        client_version: TransactionVersion::V0,
        knows_producer_fenced: context.version >= PRODUCER_FENCED_FROM,
    };
    let answer = node.transactions.request(&request.transactional_id, |machine, now, token| {
        machine.handle_add_partitions(now, token, &request)
    });
    match answer.await {
        Ok(Response::AddPartitions(Ok(()))) => ErrorCode::None,
        Ok(Response::AddPartitions(Err(error))) | Err(error) => errors::transaction(error),
        Ok(other) => unreachable!("an addition is not answered with {other:?}"),
    }
}
