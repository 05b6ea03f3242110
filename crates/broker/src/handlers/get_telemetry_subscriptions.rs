//! GetTelemetrySubscriptions, version 0: which of its metrics a client is to push (KIP-714).

use fleuve_protocol::Str;
use fleuve_protocol::messages::get_telemetry_subscriptions_request::GetTelemetrySubscriptionsRequest;
use fleuve_protocol::messages::get_telemetry_subscriptions_response::GetTelemetrySubscriptionsResponse;
use fleuve_types::Uuid;

use super::push_telemetry::{client, code};
use crate::request::{Context, Outcome};

/// Codecs that clients may use, the best first: Zstandard, LZ4, gzip, Snappy.
const CODECS: [i8; 4] = [4, 3, 1, 2];

pub(crate) fn handle(
    context: &Context,
    request: GetTelemetrySubscriptionsRequest,
) -> Outcome<GetTelemetrySubscriptionsResponse> {
    let node = &context.node;
    let mut instance = request.client_instance_id;
    if instance.is_zero() {
        let mut bytes = [0; 16];
        node.random.fill(&mut bytes);
        instance = Uuid::from_random_bytes(bytes);
    }
    let client = client(context, instance);
    let response = match node.telemetry.subscribe(&node.image(), &client, node.clock.wall_ms()) {
        Ok(subscription) => GetTelemetrySubscriptionsResponse {
            client_instance_id: instance,
            subscription_id: subscription.id,
            accepted_compression_types: CODECS.to_vec(),
            push_interval_ms: subscription.interval_ms,
            telemetry_max_bytes: i32::try_from(node.telemetry.bytes_max()).unwrap_or(i32::MAX),
            delta_temporality: true,
            requested_metrics: subscription.metrics.into_iter().map(Str::from).collect(),
            ..Default::default()
        },
        Err(refusal) => GetTelemetrySubscriptionsResponse {
            error_code: code(refusal).code(),
            ..Default::default()
        },
    };
    Outcome::Now(response)
}
