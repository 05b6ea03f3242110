//! SaslAuthenticate, versions 0–2: a message of the mechanism that was agreed upon.
//!
//! The answer says how long the session lasts, if it ends (KIP-368).

use fleuve_protocol::messages::sasl_authenticate_request::SaslAuthenticateRequest;
use fleuve_protocol::messages::sasl_authenticate_response::SaslAuthenticateResponse;
use fleuve_protocol::{ErrorCode, Str};
use tokio::time::sleep;

use crate::authentication::Misstep;
use crate::connection::CloseReason;
use crate::request::{Context, Outcome};

pub(crate) fn handle(
    context: &Context,
    request: SaslAuthenticateRequest,
) -> Outcome<SaslAuthenticateResponse> {
    let peer = &context.peer;
    let failure = |code: ErrorCode, message: String| SaslAuthenticateResponse {
        error_code: code.code(),
        error_message: Some(Str::from(message)),
        ..Default::default()
    };
    let stepped = peer.authenticate(&context.node, &request.auth_bytes);
    let refusal = match stepped {
        Ok(stepped) => {
            return Outcome::Now(SaslAuthenticateResponse {
                error_message: None,
                auth_bytes: stepped.message,
                session_lifetime_ms: stepped.lifetime_ms,
                ..Default::default()
            });
        }
        Err(Misstep::AlreadyKnown) => {
            return Outcome::Now(failure(
                ErrorCode::IllegalSaslState,
                "SaslAuthenticate request received after successful authentication".to_owned(),
            ));
        }
        Err(Misstep::Refused(refusal)) => refusal.to_string(),
        Err(Misstep::OtherPrincipal) => {
            "Cannot change principals during re-authentication".to_owned()
        }
        Err(Misstep::OutOfTurn | Misstep::Mechanism) => {
            return Outcome::Close(CloseReason::Unauthenticated);
        }
    };
    tracing::info!(peer = %peer.address, %refusal, "a client was not let in");
    let response = failure(ErrorCode::SaslAuthenticationFailed, refusal);
    let delay = context.node.failed_authentication_delay();
    // Whoever guesses passwords over one connection after another has to wait each time.
    Outcome::barrier(async move {
        sleep(delay).await;
        response
    })
}
