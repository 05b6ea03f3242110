//! DescribeTransactions, version 0: what transactional ids are doing.

use std::collections::BTreeMap;

use fleuve_coordinator::transaction::Description;
use fleuve_metadata::image::{AclOperation, AclResourceType};
use fleuve_protocol::Str;
use fleuve_protocol::messages::describe_transactions_request::DescribeTransactionsRequest;
use fleuve_protocol::messages::describe_transactions_response::{
    DescribeTransactionsResponse, TopicData, TransactionState,
};

use super::{errors, permission};
use crate::request::{Context, Outcome};

pub(crate) fn handle(
    context: &Context,
    request: DescribeTransactionsRequest,
) -> Outcome<DescribeTransactionsResponse> {
    let transactions = &context.node.transactions;
    let states = request.transactional_ids.into_iter().map(|id| {
        if let Err(code) = permission::transactional_id(context, AclOperation::Describe, &id) {
            let (transactional_id, error_code) = (id, code.code());
            return TransactionState { transactional_id, error_code, ..Default::default() };
        }
        let found = transactions
            .shard_of(&id)
            .and_then(|shard| shard.read(|machine| machine.describe(&id)));
        match found {
            Ok(description) => describe(context, id, description),
            Err(error) => TransactionState {
                transactional_id: id,
                error_code: errors::transaction(error).code(),
                ..Default::default()
            },
        }
    });
    let transaction_states = states.collect();
    Outcome::Now(DescribeTransactionsResponse { transaction_states, ..Default::default() })
}

fn describe(
    context: &Context,
    transactional_id: Str,
    description: Description,
) -> TransactionState {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for partition in &description.partitions {
        topics.entry(&*partition.topic).or_default().push(partition.partition);
    }
    TransactionState {
        error_code: 0,
        transactional_id,
        transaction_state: Str::from(description.state.name()),
        transaction_timeout_ms: description.timeout_ms,
        transaction_start_time_ms: description.start_timestamp.0,
        producer_id: description.producer.id.0,
        producer_epoch: description.producer.epoch.0,
        topics: topics
            .into_iter()
            .filter(|(topic, _)| context.may(AclOperation::Describe, AclResourceType::Topic, topic))
            .map(|(topic, partitions)| TopicData { topic: Str::copy_from(topic), partitions })
            .collect(),
    }
}
