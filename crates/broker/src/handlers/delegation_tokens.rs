//! Create-, Renew-, Expire- and DescribeDelegationToken, versions 1–3 and 1–2: passwords that a user
//! hands to programs, for a while (KIP-48).
//!
//! They are given over connections that prove who asks, and not to those who showed a token.

use fleuve_metadata::controller::{CreatedToken, NewToken, TokenError, TokenSettings, token_hmac};
use fleuve_metadata::image::{AclOperation, AclResourceType, DelegationToken};
use fleuve_protocol::messages::create_delegation_token_request::CreateDelegationTokenRequest;
use fleuve_protocol::messages::create_delegation_token_response::CreateDelegationTokenResponse;
use fleuve_protocol::messages::describe_delegation_token_request::DescribeDelegationTokenRequest;
use fleuve_protocol::messages::describe_delegation_token_response::{
    DescribeDelegationTokenResponse, DescribedDelegationToken, DescribedDelegationTokenRenewer,
};
use fleuve_protocol::messages::expire_delegation_token_request::ExpireDelegationTokenRequest;
use fleuve_protocol::messages::expire_delegation_token_response::ExpireDelegationTokenResponse;
use fleuve_protocol::messages::renew_delegation_token_request::RenewDelegationTokenRequest;
use fleuve_protocol::messages::renew_delegation_token_response::RenewDelegationTokenResponse;
use fleuve_protocol::{ErrorCode, Str};
use fleuve_security::Principal;

use super::errors;
use crate::request::{Context, Outcome};

/// The first version in which tokens can be asked for on behalf of others.
const REQUESTER_FROM: i16 = 3;
/// The time of what did not happen.
const NEVER: i64 = -1;

/// Who asks, and how tokens are made.
struct Allowed {
    requester: Str,
    settings: TokenSettings,
}

pub(crate) fn create(
    context: &Context,
    request: CreateDelegationTokenRequest,
) -> Outcome<CreateDelegationTokenResponse> {
    let version = context.version;
    let requester = requester(context);
    let kind = request.owner_principal_type.filter(|kind| !kind.is_empty());
    let name = request.owner_principal_name.filter(|name| !name.is_empty());
    let owner = match (kind, name) {
        (Some(kind), Some(name)) => Str::from(format!("{kind}:{name}")),
        _ => requester.clone(),
    };
    let refuse = {
        let (owner, requester) = (owner.clone(), requester.clone());
        move |code: ErrorCode| response_about(version, &owner, &requester, code)
    };
    if !may_ask(context) {
        return Outcome::Now(refuse(ErrorCode::DelegationTokenRequestNotAllowed));
    }
    // Tokens for others need a right.
    let permitted = owner == requester
        || context.may(AclOperation::CreateTokens, AclResourceType::User, &owner);
    if !permitted {
        return Outcome::Now(refuse(ErrorCode::DelegationTokenAuthorizationFailed));
    }
    let Some(settings) = context.node.tokens.clone() else {
        return Outcome::Now(refuse(ErrorCode::DelegationTokenAuthDisabled));
    };
    let renewers = request.renewers.iter();
    let new = NewToken {
        owner: owner.detach(),
        requester,
        renewers: renewers
            .map(|renewer| {
                Str::from(format!("{}:{}", renewer.principal_type, renewer.principal_name))
            })
            .collect(),
        lifetime_ms: request.max_lifetime_ms,
    };
    let context = context.clone();
    Outcome::barrier(async move {
        let (node, now_ms) = (&context.node, context.node.clock.wall_ms());
        let random = node.random.clone();
        let outcome = node
            .change(move |c| c.create_delegation_token(&settings, &new, now_ms, &*random))
            .await;
        match outcome {
            Ok(Ok(CreatedToken { token, hmac })) => CreateDelegationTokenResponse {
                issue_timestamp_ms: token.issued_ms,
                expiry_timestamp_ms: token.expires_ms,
                max_timestamp_ms: token.max_ms,
                token_id: token.id,
                hmac: hmac.into(),
                ..refuse(ErrorCode::None)
            },
            Ok(Err(error)) => refuse(code(error)),
            Err(error) => refuse(errors::metadata(&error)),
        }
    })
}

/// A response without a token. Who asks is told from the version on in which it may be another.
fn response_about(
    version: i16,
    owner: &Str,
    requester: &Str,
    code: ErrorCode,
) -> CreateDelegationTokenResponse {
    let (principal_type, principal_name) = split(owner);
    let (requester_type, requester_name) = match version {
        REQUESTER_FROM.. => split(requester),
        _ => (Str::EMPTY, Str::EMPTY),
    };
    CreateDelegationTokenResponse {
        error_code: code.code(),
        principal_type,
        principal_name,
        token_requester_principal_type: requester_type,
        token_requester_principal_name: requester_name,
        issue_timestamp_ms: NEVER,
        expiry_timestamp_ms: NEVER,
        max_timestamp_ms: NEVER,
        ..Default::default()
    }
}

pub(crate) fn renew(
    context: &Context,
    request: RenewDelegationTokenRequest,
) -> Outcome<RenewDelegationTokenResponse> {
    let respond = |outcome: Result<i64, ErrorCode>| RenewDelegationTokenResponse {
        error_code: outcome.err().unwrap_or(ErrorCode::None).code(),
        expiry_timestamp_ms: outcome.unwrap_or(NEVER),
        ..Default::default()
    };
    let Allowed { requester, settings } = match allowed(context) {
        Ok(allowed) => allowed,
        Err(code) => return Outcome::Now(respond(Err(code))),
    };
    let context = context.clone();
    Outcome::barrier(async move {
        let now_ms = context.node.clock.wall_ms();
        let (hmac, period_ms) = (request.hmac, request.renew_period_ms);
        let outcome = context
            .node
            .change(move |c| {
                c.renew_delegation_token(&settings, &hmac, &requester, period_ms, now_ms)
            })
            .await;
        respond(flatten(outcome))
    })
}

pub(crate) fn expire(
    context: &Context,
    request: ExpireDelegationTokenRequest,
) -> Outcome<ExpireDelegationTokenResponse> {
    let respond = |outcome: Result<i64, ErrorCode>| ExpireDelegationTokenResponse {
        error_code: outcome.err().unwrap_or(ErrorCode::None).code(),
        expiry_timestamp_ms: outcome.unwrap_or(NEVER),
        ..Default::default()
    };
    let Allowed { requester, settings } = match allowed(context) {
        Ok(allowed) => allowed,
        Err(code) => return Outcome::Now(respond(Err(code))),
    };
    let context = context.clone();
    Outcome::barrier(async move {
        let now_ms = context.node.clock.wall_ms();
        let (hmac, period_ms) = (request.hmac, request.expiry_time_period_ms);
        let outcome = context
            .node
            .change(move |c| {
                c.expire_delegation_token(&settings, &hmac, &requester, period_ms, now_ms)
            })
            .await;
        respond(flatten(outcome))
    })
}

pub(crate) fn describe(
    context: &Context,
    request: DescribeDelegationTokenRequest,
) -> Outcome<DescribeDelegationTokenResponse> {
    let Allowed { requester, settings } = match allowed(context) {
        Ok(allowed) => allowed,
        Err(code) => {
            let error_code = code.code();
            return Outcome::Now(DescribeDelegationTokenResponse {
                error_code,
                ..Default::default()
            });
        }
    };
    let owners = request.owners.map(|owners| {
        let name = |owner: &_| principal_of(owner);
        owners.iter().map(name).collect::<Vec<Str>>()
    });
    let image = context.node.image();
    let tokens = image.tokens().iter().filter(|token| {
        let asked = owners
            .as_ref()
            .is_none_or(|owners| owners.iter().any(|owner| belongs_to(token, owner)));
        asked
            && (belongs_to(token, &requester)
                || context.may(AclOperation::Describe, AclResourceType::DelegationToken, &token.id)
                || context.may(AclOperation::DescribeTokens, AclResourceType::User, &token.owner))
    });
    let tokens = tokens.map(|token| row(context.version, &settings, token)).collect();
    Outcome::Now(DescribeDelegationTokenResponse { tokens, ..Default::default() })
}

fn principal_of(
    owner: &fleuve_protocol::messages::describe_delegation_token_request::DescribeDelegationTokenOwner,
) -> Str {
    Str::from(format!("{}:{}", owner.principal_type, owner.principal_name))
}

fn row(
    version: i16,
    settings: &TokenSettings,
    token: &DelegationToken,
) -> DescribedDelegationToken {
    let (principal_type, principal_name) = split(&token.owner);
    let (requester_type, requester_name) = match version {
        REQUESTER_FROM.. => split(&token.requester),
        _ => (Str::EMPTY, Str::EMPTY),
    };
    let renewers = token.renewers.iter().map(|renewer| {
        let (principal_type, principal_name) = split(renewer);
        DescribedDelegationTokenRenewer { principal_type, principal_name }
    });
    DescribedDelegationToken {
        principal_type,
        principal_name,
        token_requester_principal_type: requester_type,
        token_requester_principal_name: requester_name,
        issue_timestamp: token.issued_ms,
        expiry_timestamp: token.expires_ms,
        max_timestamp: token.max_ms,
        token_id: token.id.clone(),
        hmac: token_hmac(settings, &token.id).into(),
        renewers: renewers.collect(),
    }
}

/// Reports whether somebody owns a token, has asked for it on the owner's behalf (KIP-373), or may
/// renew it.
fn belongs_to(token: &DelegationToken, principal: &Str) -> bool {
    token.owner == *principal || token.requester == *principal || token.renewers.contains(principal)
}

fn allowed(context: &Context) -> Result<Allowed, ErrorCode> {
    if !may_ask(context) {
        return Err(ErrorCode::DelegationTokenRequestNotAllowed);
    }
    let settings = context.node.tokens.clone();
    let settings = settings.ok_or(ErrorCode::DelegationTokenAuthDisabled)?;
    Ok(Allowed { requester: requester(context), settings })
}

/// Reports whether the connection proves who asks, by something better than a token.
fn may_ask(context: &Context) -> bool {
    let identity = &context.peer.identity;
    identity.principal() != Some(&Principal::anonymous()) && !identity.is_by_token()
}

fn requester(context: &Context) -> Str {
    let principal = context.peer.identity.principal().cloned();
    Str::from(principal.unwrap_or_else(Principal::anonymous).to_string())
}

fn split(principal: &Str) -> (Str, Str) {
    let (kind, name) = principal.split_once(':').unwrap_or(("", principal));
    (Str::copy_from(kind), Str::copy_from(name))
}

fn flatten(
    outcome: Result<Result<i64, TokenError>, crate::metadata_log::MetadataError>,
) -> Result<i64, ErrorCode> {
    match outcome {
        Ok(outcome) => outcome.map_err(code),
        Err(error) => Err(errors::metadata(&error)),
    }
}

fn code(error: TokenError) -> ErrorCode {
    match error {
        TokenError::InvalidRenewer => ErrorCode::InvalidPrincipalType,
        TokenError::NotFound => ErrorCode::DelegationTokenNotFound,
        TokenError::Expired => ErrorCode::DelegationTokenExpired,
        TokenError::NotAllowed => ErrorCode::DelegationTokenOwnerMismatch,
    }
}
