//! Proving who we are: SaslHandshake, then the mechanism's messages in SaslAuthenticate.
//!
//! ```text
//! ApiVersions ─▶ SaslHandshake(mechanism) ─▶ SaslAuthenticate(bytes) ─▶ ... ─▶ anything else
//!                     ▲                                          │ session lifetime (KIP-368)
//!                     └────────── before it is over ─────────────┘
//! ```
//!
//! Authenticating again happens on the same connection: other requests are held back meanwhile,
//! because a broker takes whatever comes in between for a part of it.

mod oauth;
mod scram;
mod token_endpoint;

use std::time::Duration;

use bytes::Bytes;
use fleuve_protocol::Request;
use fleuve_protocol::messages::sasl_authenticate_request::SaslAuthenticateRequest;
use fleuve_protocol::messages::sasl_handshake_request::SaslHandshakeRequest;
use ring::hmac;

use super::Connection;
use crate::config::{OAuthConfig, SaslConfig, ScramCredentials, Secret, TlsConfig};
use crate::error::{Error, Result, check, check_said};
use crate::timing::random_fraction;

use oauth::Tokens;
use scram::Scram;

/// Authenticates the connections of a client.
#[derive(Debug)]
pub struct Authenticator {
    config: SaslConfig,
    tokens: Tokens,
}

/// The messages of one authentication.
enum Exchange {
    /// The first message says it all; what remains is whether the broker likes it.
    Single,
    Scram(Box<Scram>),
    OAuth,
}

/// The first version whose mechanism messages go into SaslAuthenticate.
const HANDSHAKE_VERSION: i16 = 1;
/// No mechanism takes more messages; a broker that goes on asking is not one.
const ROUNDS_MAX: usize = 8;

impl Authenticator {
    /// Makes an authenticator with these credentials; `tls` is how to reach token endpoints.
    pub fn new(config: SaslConfig, tls: Option<TlsConfig>) -> Self {
        Self { config, tokens: Tokens::new(tls) }
    }

    /// Authenticates `connection` and returns for how long that is good, if the broker said so.
    pub(super) async fn authenticate(&self, connection: &Connection) -> Result<Option<Duration>> {
        let mechanism = self.config.mechanism();
        let handshake = SaslHandshakeRequest { mechanism: mechanism.into() };
        let response = connection.call_held(&handshake, HANDSHAKE_VERSION).await?;
        check(response.error_code, || {
            let offered: Vec<_> = response.mechanisms.iter().map(ToString::to_string).collect();
            format!(
                "broker {} does not take {mechanism}, it offers {}",
                connection.broker(),
                offered.join(", ")
            )
        })?;
        let (mut exchange, mut message) = self.begin().await?;
        let version = connection.version_of::<SaslAuthenticateRequest>(i16::MAX)?;
        for _ in 0..ROUNDS_MAX {
            let request = SaslAuthenticateRequest { auth_bytes: message };
            let response = connection.call_held(&request, version).await?;
            check_said(response.error_code, response.error_message.as_deref(), || {
                format!("authentication with broker {}", connection.broker())
            })?;
            let invalid = |reason: &str| Error::Protocol {
                broker: connection.broker().to_owned(),
                operation: SaslAuthenticateRequest::KEY.name(),
                reason: reason.to_owned(),
            };
            match exchange.next(&response.auth_bytes).map_err(|reason| invalid(&reason))? {
                Some(next) => message = next,
                None => {
                    let lifetime = u64::try_from(response.session_lifetime_ms).unwrap_or(0);
                    return Ok((lifetime > 0).then(|| Duration::from_millis(lifetime)));
                }
            }
        }
        Err(Error::Protocol {
            broker: connection.broker().to_owned(),
            operation: SaslAuthenticateRequest::KEY.name(),
            reason: "the authentication does not come to an end".to_owned(),
        })
    }

    async fn begin(&self) -> Result<(Exchange, Bytes)> {
        match &self.config {
            SaslConfig::Plain { user, password } => {
                let message = format!("\0{user}\0{}", password.expose());
                Ok((Exchange::Single, message.into()))
            }
            SaslConfig::ScramSha256(credentials) => {
                Ok(scram(hmac::HMAC_SHA256, ring::pbkdf2::PBKDF2_HMAC_SHA256, credentials))
            }
            SaslConfig::ScramSha512(credentials) => {
                Ok(scram(hmac::HMAC_SHA512, ring::pbkdf2::PBKDF2_HMAC_SHA512, credentials))
            }
            SaslConfig::OAuthBearer(OAuthConfig { source, extensions }) => {
                let token: Secret = self.tokens.get(source).await?;
                Ok((Exchange::OAuth, oauth::first_message(&token, extensions)))
            }
        }
    }
}

fn scram(
    hmac: hmac::Algorithm,
    pbkdf2: ring::pbkdf2::Algorithm,
    credentials: &ScramCredentials,
) -> (Exchange, Bytes) {
    let (scram, message) = Scram::begin(hmac, pbkdf2, credentials, &scram::new_nonce());
    (Exchange::Scram(Box::new(scram)), message)
}

impl Exchange {
    /// Takes what the broker said and returns our next message, `None` at the end.
    fn next(&mut self, said: &Bytes) -> std::result::Result<Option<Bytes>, String> {
        match self {
            Self::Single => Ok(None),
            Self::Scram(scram) => scram.next(said),
            // A broker that refuses a token says why, and wants to hear that we have understood
            // before it gives its error code.
            Self::OAuth if said.is_empty() => Ok(None),
            Self::OAuth => Ok(Some(Bytes::from_static(b"\x01"))),
        }
    }
}

/// Returns when to authenticate again: some way before the end, and not all clients at once.
pub(super) fn renew_after(lifetime: Duration) -> Duration {
    lifetime.mul_f64(0.85 + 0.1 * random_fraction())
}
