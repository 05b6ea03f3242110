//! Create-, Renew-, Expire- and DescribeDelegationToken, versions 1–3 and 1–2: tokens are not
//! served yet.
//!
//! Kafka gives them only over connections that prove who asks, and there are none here yet; then
//! it wants `delegation.token.secret.key`, which cannot be set. The answers are Kafka's for both.

use fleuve_metadata::config::SecurityProtocol;
use fleuve_protocol::messages::create_delegation_token_request::CreateDelegationTokenRequest;
use fleuve_protocol::messages::create_delegation_token_response::CreateDelegationTokenResponse;
use fleuve_protocol::messages::describe_delegation_token_request::DescribeDelegationTokenRequest;
use fleuve_protocol::messages::describe_delegation_token_response::DescribeDelegationTokenResponse;
use fleuve_protocol::messages::expire_delegation_token_request::ExpireDelegationTokenRequest;
use fleuve_protocol::messages::expire_delegation_token_response::ExpireDelegationTokenResponse;
use fleuve_protocol::messages::renew_delegation_token_request::RenewDelegationTokenRequest;
use fleuve_protocol::messages::renew_delegation_token_response::RenewDelegationTokenResponse;
use fleuve_protocol::{ErrorCode, Str};

use crate::request::{Context, Outcome};

/// The first version in which tokens can be asked for on behalf of others.
const REQUESTER_FROM: i16 = 3;
/// The time of what did not happen.
const NEVER: i64 = -1;

pub(crate) fn create(
    context: &Context,
    _: CreateDelegationTokenRequest,
) -> Outcome<CreateDelegationTokenResponse> {
    let (kind, name) = (Str::from("User"), Str::from("ANONYMOUS"));
    let requester = |text: &Str| match context.version {
        REQUESTER_FROM.. => text.clone(),
        _ => Str::EMPTY,
    };
    Outcome::Now(CreateDelegationTokenResponse {
        error_code: refusal(context).code(),
        token_requester_principal_type: requester(&kind),
        token_requester_principal_name: requester(&name),
        principal_type: kind,
        principal_name: name,
        issue_timestamp_ms: NEVER,
        expiry_timestamp_ms: NEVER,
        max_timestamp_ms: NEVER,
        ..Default::default()
    })
}

pub(crate) fn renew(
    context: &Context,
    _: RenewDelegationTokenRequest,
) -> Outcome<RenewDelegationTokenResponse> {
    Outcome::Now(RenewDelegationTokenResponse {
        error_code: refusal(context).code(),
        expiry_timestamp_ms: NEVER,
        ..Default::default()
    })
}

pub(crate) fn expire(
    context: &Context,
    _: ExpireDelegationTokenRequest,
) -> Outcome<ExpireDelegationTokenResponse> {
    Outcome::Now(ExpireDelegationTokenResponse {
        error_code: refusal(context).code(),
        expiry_timestamp_ms: NEVER,
        ..Default::default()
    })
}

pub(crate) fn describe(
    context: &Context,
    _: DescribeDelegationTokenRequest,
) -> Outcome<DescribeDelegationTokenResponse> {
    let error_code = refusal(context).code();
    Outcome::Now(DescribeDelegationTokenResponse { error_code, ..Default::default() })
}

fn refusal(context: &Context) -> ErrorCode {
    let open = &context.node.static_settings.network.listeners.open;
    let protocol = open.get(context.peer.listener).map(|listener| listener.protocol);
    match protocol {
        Some(SecurityProtocol::Plaintext) | None => ErrorCode::DelegationTokenRequestNotAllowed,
        Some(_) => ErrorCode::DelegationTokenAuthDisabled,
    }
}
