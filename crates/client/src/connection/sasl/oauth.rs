//! OAUTHBEARER (RFC 7628): tokens, where they come from and how they are shown to a broker.
//!
//! ```text
//! n,,\x01auth=Bearer TOKEN\x01[key=value\x01 ...]\x01
//! ```

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::token_endpoint::fetch_token;
use crate::config::{Secret, TlsConfig, TokenSource};
use crate::error::{Error, Result};
use crate::timing::now_ms;

/// Gets tokens, and keeps one from an endpoint while it is good.
#[derive(Debug)]
pub(super) struct Tokens {
    tls: Option<TlsConfig>,
    kept: Mutex<Option<Kept>>,
}

#[derive(Debug)]
struct Kept {
    token: Secret,
    until: Instant,
}

/// What part of its life a token is used for; the rest is for clocks that disagree.
const USED_FRACTION: f64 = 0.8;
/// How long a token without a signature is good.
const UNSECURED_LIFETIME_S: i64 = 3600;

impl Tokens {
    pub(super) fn new(tls: Option<TlsConfig>) -> Self {
        Self { tls, kept: Mutex::default() }
    }

    pub(super) async fn get(&self, source: &TokenSource) -> Result<Secret> {
        match source {
            TokenSource::Static(token) => Ok(token.clone()),
            TokenSource::File(path) => {
                let text = tokio::fs::read_to_string(path).await.map_err(|error| {
                    Error::config(format!("token file {}: {error}", path.display()))
                })?;
                Ok(Secret::new(text.trim()))
            }
            TokenSource::Unsecured { subject } => Ok(unsecured(subject, now_ms() / 1000)),
            TokenSource::ClientCredentials { endpoint, client_id, client_secret, scope } => {
                // Holding the lock makes connections that open together share one token.
                let mut kept = self.kept.lock().await;
                if let Some(kept) = &*kept
                    && kept.until > Instant::now()
                {
                    return Ok(kept.token.clone());
                }
                let asked = Instant::now();
                let (token, lifetime) = fetch_token(
                    endpoint,
                    client_id,
                    client_secret,
                    scope.as_deref(),
                    self.tls.as_ref(),
                )
                .await?;
                let until = asked + lifetime.mul_f64(USED_FRACTION).min(LIFETIME_MAX);
                *kept = Some(Kept { token: token.clone(), until });
                Ok(token)
            }
            TokenSource::Custom(provider) => provider.token().await,
        }
    }
}

/// A token that claims to be good for longer is asked for again all the same.
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// Makes a token that nobody signed.
fn unsecured(subject: &str, now_s: i64) -> Secret {
    let subject = subject.replace('\\', "\\\\").replace('"', "\\\"");
    let claims = format!(
        "{{\"sub\":\"{subject}\",\"iat\":{now_s},\"exp\":{}}}",
        now_s + UNSECURED_LIFETIME_S
    );
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    Secret::new(format!("{}.{}.", encode("{\"alg\":\"none\"}"), encode(&claims)))
}

/// Writes the one message of the client.
pub(super) fn first_message(token: &Secret, extensions: &[(String, String)]) -> Bytes {
    let mut message = format!("n,,\x01auth=Bearer {}\x01", token.expose());
    for (key, value) in extensions {
        message.push_str(&format!("{key}={value}\x01"));
    }
    message.push('\x01');
    message.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_out_with_its_extensions() {
        let extensions = [("logicalCluster".to_owned(), "lkc-1".to_owned())];
        let message = first_message(&Secret::new("abc"), &extensions);
        assert_eq!(message, "n,,\x01auth=Bearer abc\x01logicalCluster=lkc-1\x01\x01");
    }

    #[test]
    fn unsecured_tokens_have_a_header_claims_and_no_signature() {
        let token = unsecured("a\"b", 100);
        let parts: Vec<_> = token.expose().split('.').collect();
        let decode = |part: &str| String::from_utf8(URL_SAFE_NO_PAD.decode(part).expect("base64"));
        assert_eq!(decode(parts[0]).as_deref(), Ok("{\"alg\":\"none\"}"));
        assert_eq!(
            decode(parts[1]).as_deref(),
            Ok("{\"sub\":\"a\\\"b\",\"iat\":100,\"exp\":3700}")
        );
        assert_eq!(parts[2], "");
    }
}
