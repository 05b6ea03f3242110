//! A JSON web token (RFC 7519) in the compact form: `header.claims.signature`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::keys::KeySet;

/// Longer than any token that an issuer makes.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// The algorithms that are allowed: those with a private key.
const ALGORITHMS: [&str; 8] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384"];

/// What a token has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectations {
    /// `sasl.oauthbearer.expected.issuer`.
    pub issuer: String,
    /// `sasl.oauthbearer.expected.audience`; the token is for one of these.
    pub audiences: Vec<String>,
    /// `sasl.oauthbearer.clock.skew.seconds`.
    pub clock_skew_seconds: i64,
    /// `sasl.oauthbearer.sub.claim.name`.
    pub subject_claim: String,
    /// `sasl.oauthbearer.scope.claim.name`.
    pub scope_claim: String,
}

/// Whom a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// The name.
    pub subject: String,
    /// The end of the token.
    pub expires_ms: i64,
}

/// Why a token is refused. The text says nothing of what the token holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BearerError {
    /// It is not in the compact form.
    #[error("it is no signed token")]
    Form,
    /// Its algorithm is not one of those with a private key, or it asks for what is not served.
    #[error("its algorithm is not allowed")]
    Algorithm,
    /// No key of the issuer is named so.
    #[error("its key is unknown")]
    UnknownKey,
    /// No key of the issuer made its signature.
    #[error("its signature is wrong")]
    Signature,
    /// A claim is missing or of another type.
    #[error("the claim `{0}` is missing or malformed")]
    Claim(&'static str),
    /// Somebody else made it.
    #[error("its issuer is another")]
    Issuer,
    /// It is meant for somebody else.
    #[error("its audience is another")]
    Audience,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// Its time has not come.
    #[error("it is not valid yet")]
    TooEarly,
}

/// The header of a token.
struct Header {
    algorithm: String,
    key_id: Option<String>,
}

impl Expectations {
    /// Reads a token and checks all of it.
    pub fn check(&self, token: &str, keys: &KeySet, now_ms: i64) -> Result<Bearer, BearerError> {
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(signed), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(BearerError::Form);
        };
        let Header { algorithm, key_id } = Header::read(header, token.len())?;
        if !keys.has(key_id.as_deref()) {
            return Err(BearerError::UnknownKey);
        }
        let signed = URL_SAFE_NO_PAD.decode(signed).map_err(|_| BearerError::Form)?;
        let message = &token.as_bytes()[..header.len() + 1 + claims.len()];
        if !keys.verify(key_id.as_deref(), &algorithm, message, &signed) {
            return Err(BearerError::Signature);
        }
        // Only what is signed is read.
        self.check_claims(&json(claims)?, now_ms)
    }

    fn check_claims(&self, claims: &Value, now_ms: i64) -> Result<Bearer, BearerError> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        if text("iss") != Some(self.issuer.as_str()) {
            return Err(BearerError::Issuer);
        }
        let is_ours = |audience: &str| self.audiences.iter().any(|ours| ours == audience);
        let for_us = match claims.get("aud") {
            Some(Value::String(audience)) => is_ours(audience),
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).any(is_ours),
            _ => false,
        };
        if !for_us {
            return Err(BearerError::Audience);
        }
        let skew_ms = self.clock_skew_seconds.saturating_mul(1000);
        let expires_ms = time_ms(claims, "exp")?.ok_or(BearerError::Claim("exp"))?;
        if now_ms >= expires_ms.saturating_add(skew_ms) {
            return Err(BearerError::Expired);
        }
        let begins_ms = time_ms(claims, "nbf")?;
        if begins_ms.is_some_and(|begins_ms| begins_ms > now_ms.saturating_add(skew_ms)) {
            return Err(BearerError::TooEarly);
        }
        time_ms(claims, "iat")?.ok_or(BearerError::Claim("iat"))?;
        let is_scope = match claims.get(&self.scope_claim) {
            None | Some(Value::String(_)) => true,
            Some(Value::Array(list)) => list.iter().all(Value::is_string),
            Some(_) => false,
        };
        if !is_scope {
            return Err(BearerError::Claim("scope"));
        }
        let subject = text(&self.subject_claim).map(str::trim).filter(|name| !name.is_empty());
        let subject = subject.ok_or(BearerError::Claim("sub"))?.to_owned();
        Ok(Bearer { subject, expires_ms })
    }
}

impl Header {
    fn read(part: &str, token_bytes: usize) -> Result<Self, BearerError> {
        if token_bytes > TOKEN_BYTES_MAX {
            return Err(BearerError::Form);
        }
        let header = json(part)?;
        let text = |name: &str| header.get(name).and_then(Value::as_str).map(str::to_owned);
        let algorithm = text("alg").ok_or(BearerError::Form)?;
        // Whoever makes tokens with extensions that must be understood is not understood.
        if !ALGORITHMS.contains(&algorithm.as_str()) || header.get("crit").is_some() {
            return Err(BearerError::Algorithm);
        }
        Ok(Self { algorithm, key_id: text("kid") })
    }
}

/// A time in seconds, which may have a fraction; `None` if there is none.
fn time_ms(claims: &Value, name: &'static str) -> Result<Option<i64>, BearerError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
    let seconds = seconds.ok_or(BearerError::Claim(name))?;
    Ok(Some((seconds * 1000.0) as i64))
}

fn json(part: &str) -> Result<Value, BearerError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| BearerError::Form)?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|_| BearerError::Form)?;
    if value.is_object() { Ok(value) } else { Err(BearerError::Form) }
}
