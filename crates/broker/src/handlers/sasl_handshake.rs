//! SaslHandshake, versions 0–1: which mechanism a client will authenticate by.
//!
//! After version 0 the mechanism's messages follow without headers.

use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::sasl_handshake_request::SaslHandshakeRequest;
use fleuve_protocol::messages::sasl_handshake_response::SaslHandshakeResponse;

use crate::authentication::Misstep;
use crate::connection::CloseReason;
use crate::request::{Context, Outcome};

/// The version whose exchange has no headers.
const WITHOUT_HEADERS: i16 = 0;

pub(crate) fn handle(
    context: &Context,
    request: SaslHandshakeRequest,
) -> Outcome<SaslHandshakeResponse> {
    let identity = &context.peer.identity;
    let without_headers = context.version == WITHOUT_HEADERS;
    let chosen =
        identity.choose(request.mechanism.as_str(), without_headers, &*context.node.random);
    let (error_code, mechanisms) = match chosen {
        Ok(()) => (0, identity.mechanisms()),
        Err(Misstep::Mechanism) => {
            let is_again = identity.principal().is_some();
            context.peer.count_authentication(&context.node, is_again, false);
            (ErrorCode::UnsupportedSaslMechanism.code(), identity.mechanisms())
        }
        Err(Misstep::AlreadyKnown) => (ErrorCode::IllegalSaslState.code(), Vec::new()),
        Err(Misstep::OutOfTurn | Misstep::Refused(_) | Misstep::OtherPrincipal) => {
            return Outcome::Close(CloseReason::Unauthenticated);
        }
    };
    Outcome::Now(SaslHandshakeResponse { error_code, mechanisms })
}
