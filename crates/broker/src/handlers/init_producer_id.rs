//! InitProducerId, versions 0–5: ids for idempotent producers, and who a transactional producer is.

use fleuve_coordinator::transaction::{InitRequest, Producer, Response, TransactionError};
use fleuve_metadata::image::{AclOperation, AclResourceType};
use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::init_producer_id_request::InitProducerIdRequest;
use fleuve_protocol::messages::init_producer_id_response::InitProducerIdResponse;
use fleuve_types::{ProducerEpoch, ProducerId};

use super::{errors, permission};
use crate::request::{Context, Outcome};

const PRODUCER_FENCED_FROM: i16 = 4;
const NONE: i64 = -1;
const NO_EPOCH: i16 = -1;

pub(crate) fn handle(
    context: &Context,
    request: InitProducerIdRequest,
) -> Outcome<InitProducerIdResponse> {
    if let Err(code) = permit(context, request.transactional_id.as_deref()) {
        return Outcome::Now(failure(code));
    }
    let has_id = request.producer_id != NONE;
    if has_id != (request.producer_epoch != NO_EPOCH) {
        return Outcome::Now(failure(ErrorCode::InvalidRequest));
    }
    let expected = has_id.then_some(Producer {
        id: ProducerId(request.producer_id),
        epoch: ProducerEpoch(request.producer_epoch),
    });
    let knows_producer_fenced = context.version >= PRODUCER_FENCED_FROM;
    let initialise = request.transactional_id.map(|transactional_id| InitRequest {
        transactional_id,
        timeout_ms: request.transaction_timeout_ms,
        expected,
        knows_producer_fenced,
    });
    let context = context.clone();
    Outcome::barrier(async move {
        let outcome = match initialise {
            Some(request) => initialise_transactional(&context, request).await,
            None => new_id(&context).await,
        };
        match outcome {
            Ok(Producer { id, epoch }) => InitProducerIdResponse {
                producer_id: id.0,
                producer_epoch: epoch.0,
                ..Default::default()
            },
            Err(error) => failure(errors::transaction(error)),
        }
    })
}

/// Who may write to a transactional id gets ids for it; idempotent producers need to be allowed to
/// write anywhere.
fn permit(context: &Context, transactional_id: Option<&str>) -> Result<(), ErrorCode> {
    if let Some(id) = transactional_id {
        return permission::transactional_id(context, AclOperation::Write, id);
    }
    let may = permission::cluster_quietly(context, AclOperation::IdempotentWrite)
        || context.may_on_any(AclOperation::Write, AclResourceType::Topic);
    may.then_some(()).ok_or(ErrorCode::ClusterAuthorizationFailed)
}

async fn initialise_transactional(
    context: &Context,
    request: InitRequest,
) -> Result<Producer, TransactionError> {
    // The machine takes new ids from the block at hand.
    refill(context).await;
    let transactions = &context.node.transactions;
    let answer = transactions.request(&request.transactional_id, |machine, now, token| {
        machine.handle_init_producer_id(now, token, &request)
    });
    match answer.await? {
        Response::InitProducerId(outcome) => outcome,
        other => unreachable!("an initialisation is not answered with {other:?}"),
    }
}

/// Without a transactional id every call gets a new id, also one that names an old id.
async fn new_id(context: &Context) -> Result<Producer, TransactionError> {
    match context.node.allocate_producer_id().await {
        Ok(id) => Ok(Producer { id: ProducerId(id), epoch: ProducerEpoch(0) }),
        Err(error) => {
            tracing::error!(%error, "no producer ids can be had");
            Err(TransactionError::NoProducerId)
        }
    }
}

async fn refill(context: &Context) {
    if let Err(error) = context.node.refill_producer_ids().await {
        tracing::error!(%error, "no producer ids can be had");
    }
}

fn failure(code: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse {
        error_code: code.code(),
        producer_id: NONE,
        producer_epoch: NO_EPOCH,
        ..Default::default()
    }
}
