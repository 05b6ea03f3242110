//! PushTelemetry, version 0: metrics of a client (KIP-714), which go to our metrics page.
//!
//! Kafka hands them to a plugin; here the page is the plugin, so that both APIs are always served.

use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::push_telemetry_request::PushTelemetryRequest;
use fleuve_protocol::messages::push_telemetry_response::PushTelemetryResponse;
use fleuve_types::Uuid;

use crate::request::{Context, Outcome};
use crate::telemetry::{Client, Push, Refusal};

pub(crate) fn handle(
    context: &Context,
    request: PushTelemetryRequest,
) -> Outcome<PushTelemetryResponse> {
    let instance = request.client_instance_id;
    let refuse = |code: ErrorCode| {
        let error_code = code.code();
        Outcome::Now(PushTelemetryResponse { error_code, ..Default::default() })
    };
    if instance.is_zero() {
        return refuse(ErrorCode::InvalidRequest);
    }
    let push = Push {
        subscription_id: request.subscription_id,
        is_last: request.terminating,
        codec: request.compression_type,
        metrics: request.metrics,
    };
    let node = &context.node;
    let client = client(context, instance);
    match node.telemetry.push(&node.image(), &client, &push, node.clock.wall_ms()) {
        Ok(()) => Outcome::Now(PushTelemetryResponse::default()),
        Err(refusal) => refuse(code(refusal)),
    }
}

/// What is known of the client at the other end.
pub(super) fn client(context: &Context, instance: Uuid) -> Client<'_> {
    let software = context.peer.software.get();
    Client {
        instance,
        id: &context.client_id,
        software: software.map_or(("", ""), |(name, version)| (name, version)),
        address: context.peer.address.ip().to_string(),
        port: context.peer.address.port().to_string(),
    }
}

pub(super) fn code(refusal: Refusal) -> ErrorCode {
    match refusal {
        Refusal::TooEarly => ErrorCode::ThrottlingQuotaExceeded,
        Refusal::Terminated => ErrorCode::InvalidRequest,
        Refusal::UnknownSubscription => ErrorCode::UnknownSubscriptionId,
        Refusal::UnknownCodec => ErrorCode::UnsupportedCompressionType,
        Refusal::TooLarge => ErrorCode::TelemetryTooLarge,
        Refusal::Unreadable => ErrorCode::InvalidRecord,
    }
}
