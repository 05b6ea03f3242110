//! InitProducerId, versions 0–5: ids for idempotent producers.
//!
//! Departs from Kafka in that a transactional id is refused with `UNSUPPORTED_VERSION`, as long
//! as the APIs of transactions are not advertised.

use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::init_producer_id_request::InitProducerIdRequest;
use fleuve_protocol::messages::init_producer_id_response::InitProducerIdResponse;

use crate::request::{Context, Outcome};

const NONE: i64 = -1;
const NO_EPOCH: i16 = -1;

pub(crate) fn handle(
    context: &Context,
    request: InitProducerIdRequest,
) -> Outcome<InitProducerIdResponse> {
    let refusal = match &request.transactional_id {
        Some(id) if id.is_empty() => Some(ErrorCode::InvalidRequest),
        Some(_) => Some(ErrorCode::UnsupportedVersion),
        None if (request.producer_id == NONE) != (request.producer_epoch == NO_EPOCH) => {
            Some(ErrorCode::InvalidRequest)
        }
        None => None,
    };
    if let Some(code) = refusal {
        return Outcome::Now(failure(code));
    }
    // Without a transactional id every call gets a new id, also one that names an old id.
    if let Some(producer_id) = context.node.next_producer_id() {
        return Outcome::Now(InitProducerIdResponse { producer_id, ..Default::default() });
    }
    let context = context.clone();
    Outcome::barrier(async move {
        match context.node.allocate_producer_id().await {
            Ok(producer_id) => InitProducerIdResponse { producer_id, ..Default::default() },
            Err(error) => {
                tracing::error!(%error, "no producer ids can be had");
                failure(ErrorCode::CoordinatorLoadInProgress)
            }
        }
    })
}

fn failure(code: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse {
        error_code: code.code(),
        producer_id: NONE,
        producer_epoch: NO_EPOCH,
        ..Default::default()
    }
}
