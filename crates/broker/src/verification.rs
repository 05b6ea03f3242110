//! Asks the transaction coordinator before the first batch of a transaction enters a partition
//! (KIP-890).
//!
//! Clients of version 2 do not add partitions to their transactions themselves: writing to one adds
//! it. Of all others the coordinator is asked whether the partition belongs to the transaction, so
//! that no batch that arrives late begins a transaction which nobody would ever end.

use std::time::Instant;

use fleuve_coordinator::transaction::{
    AddPartitionsRequest, Producer, Response, TransactionError, TransactionVersion,
    VerifyPartitionsRequest,
};
use fleuve_protocol::Str;
use fleuve_types::TopicPartition;

use crate::node::Node;

/// What a client understands of transactions, as its version of Produce or TxnOffsetCommit tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// It adds partitions itself.
    Classic,
    /// It also knows `TRANSACTION_ABORTABLE`.
    KnowsAbortable,
    /// It leaves adding partitions to the broker, and changes its epoch with each transaction.
    Version2,
}

/// Why batches may not enter a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unverified {
    /// The coordinator refuses the request, or cannot be asked.
    Refused(TransactionError),
    /// The partition is not part of the transaction.
    NotPart,
}

impl Client {
    /// What a client understands that sends Produce in `version`.
    pub(crate) fn of_produce(version: i16) -> Self {
        Self::of(version, 11)
    }

    /// What a client understands that sends TxnOffsetCommit in `version`.
    pub(crate) fn of_commit(version: i16) -> Self {
        Self::of(version, 4)
    }

    fn of(version: i16, knows_abortable_from: i16) -> Self {
        match version - knows_abortable_from {
            ..0 => Self::Classic,
            0 => Self::KnowsAbortable,
            1.. => Self::Version2,
        }
    }
}

/// Reports whether the coordinator is asked about batches of such a client at all.
pub(crate) fn is_wanted(node: &Node, client: Client) -> bool {
    client == Client::Version2 || node.settings().transactions.partitions_are_verified
}

/// Asks about each of `partitions`, in this order.
pub(crate) async fn verify(
    node: &Node,
    client: Client,
    transactional_id: Str,
    producer: Producer,
    partitions: Vec<TopicPartition>,
) -> Vec<Result<(), Unverified>> {
    let begun = Instant::now();
    let outcomes = ask(node, client, transactional_id, producer, partitions).await;
    node.transactions.verification_times.record(begun.elapsed());
    let failures = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    node.transactions.verification_failures.add(failures as u64);
    outcomes
}

async fn ask(
    node: &Node,
    client: Client,
    transactional_id: Str,
    producer: Producer,
    partitions: Vec<TopicPartition>,
) -> Vec<Result<(), Unverified>> {
    let count = partitions.len();
    let all = |error| vec![Err(Unverified::Refused(error)); count];
    if client == Client::Version2 {
        let request = AddPartitionsRequest {
            transactional_id,
            producer,
            partitions,
            client_version: TransactionVersion::V2,
            // Produce and TxnOffsetCommit say it in the old word.
            knows_producer_fenced: false,
        };
        let answer = node.transactions.request(&request.transactional_id, |machine, now, token| {
            machine.handle_add_partitions(now, token, &request)
        });
        return match answer.await {
            Ok(Response::AddPartitions(Ok(()))) => vec![Ok(()); count],
            Ok(Response::AddPartitions(Err(error))) | Err(error) => all(error),
            Ok(other) => unreachable!("an addition is not answered with {other:?}"),
        };
    }
    let request = VerifyPartitionsRequest { transactional_id, producer, partitions };
    let answer = node.transactions.request(&request.transactional_id, |machine, _, token| {
        machine.handle_verify_partitions(token, &request)
    });
    match answer.await {
        Ok(Response::VerifyPartitions(Ok(found))) => {
            let part = |is_part: bool| if is_part { Ok(()) } else { Err(Unverified::NotPart) };
            found.into_iter().map(|(_, is_part)| part(is_part)).collect()
        }
        Ok(Response::VerifyPartitions(Err(TransactionError::ProducerFenced))) => {
            all(TransactionError::InvalidProducerEpoch)
        }
        Ok(Response::VerifyPartitions(Err(error))) | Err(error) => all(error),
        Ok(other) => unreachable!("a verification is not answered with {other:?}"),
    }
}
