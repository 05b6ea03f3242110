//! EndTxn, versions 0–5: commits or aborts a transaction.
//!
//! The answer comes when the decision is durable. Markers follow; until they are written, the next
//! transaction of the same producer is asked to wait.

use fleuve_coordinator::transaction::{
    Decision, EndRequest, Producer, Response, TransactionVersion,
};
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::end_txn_request::EndTxnRequest;
use fleuve_protocol::messages::end_txn_response::EndTxnResponse;
use fleuve_types::{ProducerEpoch, ProducerId};

use super::{errors, permission};
use crate::request::{Context, Outcome};

const PRODUCER_FENCED_FROM: i16 = 2;
/// From here on the end of a transaction raises the epoch.
const VERSION_2_FROM: i16 = 5;
const NO_PRODUCER: Producer = Producer { id: ProducerId::NONE, epoch: ProducerEpoch(-1) };

pub(crate) fn handle(context: &Context, request: EndTxnRequest) -> Outcome<EndTxnResponse> {
    let permitted =
        permission::transactional_id(context, AclOperation::Write, &request.transactional_id);
    if let Err(code) = permitted {
        return Outcome::Now(response(code.code(), NO_PRODUCER));
    }
    let request = EndRequest {
        transactional_id: request.transactional_id,
        producer: Producer {
            id: ProducerId(request.producer_id),
            epoch: ProducerEpoch(request.producer_epoch),
        },
        decision: match request.committed {
            true => Decision::Commit,
            false => Decision::Abort,
        },
        client_version: match context.version >= VERSION_2_FROM {
            true => TransactionVersion::V2,
            false => TransactionVersion::V0,
        },
        knows_producer_fenced: context.version >= PRODUCER_FENCED_FROM,
    };
    let transactions = &context.node.transactions;
    let answer = transactions.request(&request.transactional_id, |machine, now, token| {
        machine.handle_end_transaction(now, token, &request)
    });
    Outcome::barrier(async move {
        let outcome = match answer.await {
            Ok(Response::EndTransaction(outcome)) => outcome,
            Ok(other) => unreachable!("an end is not answered with {other:?}"),
            Err(error) => Err(error),
        };
        let (code, producer) = match outcome {
            Ok(producer) => (0, producer.unwrap_or(NO_PRODUCER)),
            Err(error) => (errors::transaction(error).code(), NO_PRODUCER),
        };
        response(code, producer)
    })
}

fn response(error_code: i16, producer: Producer) -> EndTxnResponse {
    EndTxnResponse {
        error_code,
        producer_id: producer.id.0,
        producer_epoch: producer.epoch.0,
        ..Default::default()
    }
}
