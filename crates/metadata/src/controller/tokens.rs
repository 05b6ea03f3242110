//! Delegation tokens: making, renewing and ending them.

use fleuve_os::Random;
use fleuve_protocol::Str;
use fleuve_protocol::messages::remove_delegation_token_record::RemoveDelegationTokenRecord;
use fleuve_types::Uuid;
use ring::hmac;

use super::machine::{Controller, Decision};
use crate::image::DelegationToken;
use crate::record::Record;

/// How tokens are made.
#[derive(Clone)]
pub struct TokenSettings {
    /// `delegation.token.secret.key`: makes the passwords.
    pub secret_key: String,
    /// `delegation.token.max.lifetime.ms`.
    pub lifetime_max_ms: i64,
    /// `delegation.token.expiry.time.ms`.
    pub renew_period_ms: i64,
}

impl std::fmt::Debug for TokenSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenSettings")
            .field("lifetime_max_ms", &self.lifetime_max_ms)
            .field("renew_period_ms", &self.renew_period_ms)
            .finish_non_exhaustive()
    }
}

/// A token to make. Principals are written `Type:name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// As whom its bearer acts.
    pub owner: Str,
    /// Who asks.
    pub requester: Str,
    /// Who may renew it.
    pub renewers: Vec<Str>,
    /// How long it may be renewed; not above 0 for as long as possible.
    pub lifetime_ms: i64,
}

/// A new token with its password.
#[derive(Clone, PartialEq, Eq)]
pub struct CreatedToken {
    /// The token.
    pub token: DelegationToken,
    /// Its password.
    pub hmac: Vec<u8>,
}

/// Reports that a token cannot be used so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Only users may renew.
    #[error("Supplied principalType is not supported.")]
    InvalidRenewer,
    /// There is none with that password.
    #[error("Delegation Token is not found on server.")]
    NotFound,
    /// Its time is over.
    #[error("Delegation Token is expired.")]
    Expired,
    /// It is somebody else's.
    #[error("Specified Principal is not valid Owner/Renewer.")]
    NotAllowed,
}

/// Returns the password of a token: HMAC-SHA-512 of its id with the secret key.
pub fn token_hmac(settings: &TokenSettings, id: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA512, settings.secret_key.as_bytes());
    hmac::sign(&key, id.as_bytes()).as_ref().to_vec()
}

impl Controller {
    /// Decides about a new token.
    pub fn create_delegation_token(
        &self,
        settings: &TokenSettings,
        new: &NewToken,
        now_ms: i64,
        random: &dyn Random,
    ) -> Decision<Result<CreatedToken, TokenError>> {
        if new.renewers.iter().any(|renewer| !renewer.starts_with("User:")) {
            return Decision { records: Vec::new(), reply: Err(TokenError::InvalidRenewer) };
        }
        let longest = settings.lifetime_max_ms;
        let lifetime = if new.lifetime_ms > 0 { longest.min(new.lifetime_ms) } else { longest };
        let max_ms = now_ms.saturating_add(lifetime);
        let mut bytes = [0; 16];
        random.fill(&mut bytes);
        let id = Uuid::from_random_bytes(bytes).to_string();
        let token = DelegationToken {
            id: Str::copy_from(&id),
            owner: new.owner.detach(),
            requester: new.requester.detach(),
            renewers: new.renewers.iter().map(Str::detach).collect(),
            issued_ms: now_ms,
            expires_ms: max_ms.min(now_ms.saturating_add(settings.renew_period_ms)),
            max_ms,
        };
        let records = vec![token.to_record().into()];
        let hmac = token_hmac(settings, &id);
        Decision { records, reply: Ok(CreatedToken { token, hmac }) }
    }

    /// Decides about a longer life of a token; the reply says until when.
    pub fn renew_delegation_token(
        &self,
        settings: &TokenSettings,
        hmac: &[u8],
        by: &str,
        period_ms: i64,
        now_ms: i64,
    ) -> Decision<Result<i64, TokenError>> {
        let longest = settings.renew_period_ms;
        let period = if period_ms > 0 { longest.min(period_ms) } else { longest };
        self.decide_token(settings, hmac, by, |token| {
            if token.has_expired(now_ms) {
                return Err(TokenError::Expired);
            }
            Ok(extend(token, now_ms.saturating_add(period)))
        })
    }

    /// Decides about another end of a token, at once if the period is negative; the reply says when.
    pub fn expire_delegation_token(
        &self,
        settings: &TokenSettings,
        hmac: &[u8],
        by: &str,
        period_ms: i64,
        now_ms: i64,
    ) -> Decision<Result<i64, TokenError>> {
        self.decide_token(settings, hmac, by, |token| {
            if period_ms < 0 {
                return Ok((remove(token), now_ms));
            }
            if token.has_expired(now_ms) {
                return Err(TokenError::Expired);
            }
            Ok(extend(token, now_ms.saturating_add(period_ms)))
        })
    }

    /// Forgets the tokens whose time is over.
    pub fn remove_expired_tokens(&self, now_ms: i64) -> Decision<()> {
        let expired = self.image.tokens().iter().filter(|token| token.has_expired(now_ms));
        Decision { records: expired.map(remove).collect(), reply: () }
    }

    fn decide_token(
        &self,
        settings: &TokenSettings,
        hmac: &[u8],
        by: &str,
        decide: impl FnOnce(&DelegationToken) -> Result<(Record, i64), TokenError>,
    ) -> Decision<Result<i64, TokenError>> {
        let is_it = |token: &&DelegationToken| token_hmac(settings, &token.id) == hmac;
        let found = self.image.tokens().iter().find(is_it).ok_or(TokenError::NotFound);
        let decided = found.and_then(|token| {
            let may = token.owner.as_str() == by || token.renewers.iter().any(|r| r.as_str() == by);
            if may { decide(token) } else { Err(TokenError::NotAllowed) }
        });
        match decided {
            Ok((record, until_ms)) => Decision { records: vec![record], reply: Ok(until_ms) },
            Err(error) => Decision { records: Vec::new(), reply: Err(error) },
        }
    }
}

fn extend(token: &DelegationToken, until_ms: i64) -> (Record, i64) {
    let expires_ms = token.max_ms.min(until_ms);
    (DelegationToken { expires_ms, ..token.clone() }.to_record().into(), expires_ms)
}

fn remove(token: &DelegationToken) -> Record {
    RemoveDelegationTokenRecord { token_id: token.id.clone() }.into()
}
