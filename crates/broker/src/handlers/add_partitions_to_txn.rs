//! AddPartitionsToTxn, versions 0–5: partitions that a transaction is about to write to.
//!
//! Versions 4 and 5 are for brokers, which ask about several transactions at once, to add
//! partitions or only to look for them.

use std::collections::HashMap;

use fleuve_coordinator::transaction::{
    AddPartitionsRequest, Producer, Response, TransactionError, TransactionVersion,
    VerifyPartitionsRequest,
};
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use fleuve_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResponse, AddPartitionsToTxnResult,
    AddPartitionsToTxnTopicResult,
};
use fleuve_protocol::{ErrorCode, Str};
use fleuve_types::{ProducerEpoch, ProducerId, TopicPartition};

use super::{errors, permission};
use crate::request::{Context, Outcome};
use crate::topics::is_internal;

const PRODUCER_FENCED_FROM: i16 = 2;
/// From here on several transactions can be named.
const MANY_FROM: i16 = 4;
/// From here on the partition's leader adds on behalf of a client of version 2.
const VERSION_2_FROM: i16 = 5;

pub(crate) fn handle(
    context: &Context,
    request: AddPartitionsToTxnRequest,
) -> Outcome<AddPartitionsToTxnResponse> {
    let many = context.version >= MANY_FROM;
    // Versions with many transactions are for brokers.
    if many && let Err(code) = permission::cluster(context, AclOperation::ClusterAction) {
        let error_code = code.code();
        return Outcome::Now(AddPartitionsToTxnResponse { error_code, ..Default::default() });
    }
    let transactions = match many {
        true => request.transactions,
        false => vec![AddPartitionsToTxnTransaction {
            transactional_id: request.v3_and_below_transactional_id,
            producer_id: request.v3_and_below_producer_id,
            producer_epoch: request.v3_and_below_producer_epoch,
            verify_only: false,
            topics: request.v3_and_below_topics,
        }],
    };
    let context = context.clone();
    Outcome::barrier(async move {
        let mut results = Vec::with_capacity(transactions.len());
        for transaction in transactions {
            let transactional_id = transaction.transactional_id.clone();
            let topic_results = add(&context, transaction).await;
            results.push(AddPartitionsToTxnResult { transactional_id, topic_results });
        }
        match many {
            true => {
                AddPartitionsToTxnResponse { results_by_transaction: results, ..Default::default() }
            }
            false => AddPartitionsToTxnResponse {
                results_by_topic_v3_and_below: results
                    .into_iter()
                    .flat_map(|result| result.topic_results)
                    .collect(),
                ..Default::default()
            },
        }
    })
}

async fn add(
    context: &Context,
    transaction: AddPartitionsToTxnTransaction,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let is_client = context.version < MANY_FROM;
    let id = &transaction.transactional_id;
    if is_client && let Err(code) = permission::transactional_id(context, AclOperation::Write, id) {
        return results(&transaction.topics, |_, _| code);
    }
    let exists = |topic: &AddPartitionsToTxnTopic, index: i32| {
        let found = context.node.topics.by_name(&topic.name);
        found.is_some_and(|found| found.partition(index).is_some())
    };
    let topics = transaction.topics;
    // Internal topics are for brokers, whoever asks.
    let denials = topics.iter().map(|topic| match is_client {
        true if is_internal(&topic.name) => Some(ErrorCode::TopicAuthorizationFailed),
        true => permission::topic(context, AclOperation::Write, &topic.name).err(),
        false => None,
    });
    let denials: HashMap<&Str, ErrorCode> = topics
        .iter()
        .zip(denials)
        .filter_map(|(topic, denial)| Some((&topic.name, denial?)))
        .collect();
    let all_exist =
        topics.iter().all(|topic| topic.partitions.iter().all(|index| exists(topic, *index)));
    if !all_exist || !denials.is_empty() {
        return results(&topics, |topic, index| match denials.get(&topic.name) {
            Some(code) => *code,
            None if exists(topic, index) => ErrorCode::OperationNotAttempted,
            None => ErrorCode::UnknownTopicOrPartition,
        });
    }
    let partitions = topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|index| TopicPartition::new(topic.name.as_str(), *index))
    });
    let partitions: Vec<TopicPartition> = partitions.collect();
    let producer = Producer {
        id: ProducerId(transaction.producer_id),
        epoch: ProducerEpoch(transaction.producer_epoch),
    };
    let driver = &context.node.transactions;
    let answer = if transaction.verify_only {
        let request =
            VerifyPartitionsRequest { transactional_id: id.clone(), producer, partitions };
        driver.request(id, |machine, _, token| machine.handle_verify_partitions(token, &request))
    } else {
        let client_version = match context.version >= VERSION_2_FROM {
            true => TransactionVersion::V2,
            false => TransactionVersion::V0,
        };
        let request = AddPartitionsRequest {
            transactional_id: id.clone(),
            producer,
            partitions,
            client_version,
            knows_producer_fenced: context.version >= PRODUCER_FENCED_FROM,
        };
        driver
            .request(id, |machine, now, token| machine.handle_add_partitions(now, token, &request))
    };
    let outcome: Result<Vec<bool>, TransactionError> = match answer.await {
        Ok(Response::AddPartitions(outcome)) => outcome.map(|()| Vec::new()),
        Ok(Response::VerifyPartitions(outcome)) => {
            outcome.map(|found| found.into_iter().map(|(_, is_part)| is_part).collect())
        }
        Ok(other) => unreachable!("an addition is not answered with {other:?}"),
        Err(error) => Err(error),
    };
    let mut found = outcome.as_ref().map_or(&[][..], Vec::as_slice).iter();
    results(&topics, |_, _| match (&outcome, found.next()) {
        (Err(error), _) => errors::transaction(*error),
        (Ok(_), Some(false)) => ErrorCode::TransactionAbortable,
        (Ok(_), _) => ErrorCode::None,
    })
}

fn results(
    topics: &[AddPartitionsToTxnTopic],
    mut code_of: impl FnMut(&AddPartitionsToTxnTopic, i32) -> ErrorCode,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let mut results = Vec::with_capacity(topics.len());
    for topic in topics {
        let partition = |index: &i32| AddPartitionsToTxnPartitionResult {
            partition_index: *index,
            partition_error_code: code_of(topic, *index).code(),
        };
        results.push(AddPartitionsToTxnTopicResult {
            name: topic.name.clone(),
            results_by_partition: topic.partitions.iter().map(partition).collect(),
        });
    }
    results
}
