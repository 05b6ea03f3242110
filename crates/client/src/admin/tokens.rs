//! Delegation tokens (KIP-48): secrets by which others act for a user for a while.

use bytes::Bytes;
use fleuve_protocol::messages::create_delegation_token_request::{
    CreatableRenewers, CreateDelegationTokenRequest,
};
use fleuve_protocol::messages::describe_delegation_token_request::{
    DescribeDelegationTokenOwner, DescribeDelegationTokenRequest,
};
use fleuve_protocol::messages::expire_delegation_token_request::ExpireDelegationTokenRequest;
use fleuve_protocol::messages::renew_delegation_token_request::RenewDelegationTokenRequest;

use super::Admin;
use crate::error::{Result, check};

/// Who somebody is to a broker, as `User` and `ada`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    /// The kind, mostly `User`.
    pub kind: String,
    /// The name.
    pub name: String,
}

impl Principal {
    /// Names a user.
    pub fn user(name: &str) -> Self {
        Self { kind: "User".to_owned(), name: name.to_owned() }
    }
}

/// A delegation token.
///
/// Whoever has it authenticates by SCRAM with its id for a user, the HMAC in base64 for a password
/// and `tokenauth=true`.
#[derive(Clone, PartialEq, Eq)]
pub struct DelegationToken {
    /// The token's id.
    pub id: String,
    /// Its secret.
    pub hmac: Bytes,
    /// Whom it stands for.
    pub owner: Principal,
    /// Who asked for it; nobody in answers of brokers that do not tell.
    pub requester: Option<Principal>,
    /// Who may renew it beside the owner.
    pub renewers: Vec<Principal>,
    /// When it was made, in milliseconds since 1970.
    pub issued_ms: i64,
    /// Until when it holds unless it is renewed.
    pub expires_ms: i64,
    /// Until when it can be renewed.
    pub ends_ms: i64,
}

/// Shows everything but the secret.
impl std::fmt::Debug for DelegationToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DelegationToken")
            .field("id", &self.id)
            .field("hmac", &"[hidden]")
            .field("owner", &self.owner)
            .field("renewers", &self.renewers)
            .field("expires_ms", &self.expires_ms)
            .finish_non_exhaustive()
    }
}

/// The first version that lets somebody else own the token (KIP-373).
const FIRST_VERSION_WITH_OWNER: i16 = 3;

impl Admin {
    /// Makes a token for `owner`, or for whoever asks, which holds for `lifetime_ms` at most; -1
    /// leaves that to the broker.
    pub async fn create_delegation_token(
        &self,
        owner: Option<&Principal>,
        renewers: &[Principal],
        lifetime_ms: i64,
    ) -> Result<DelegationToken> {
        let build = |version| {
            let owner = owner.filter(|_| version >= FIRST_VERSION_WITH_OWNER);
            CreateDelegationTokenRequest {
                owner_principal_type: owner.map(|owner| owner.kind.clone().into()),
                owner_principal_name: owner.map(|owner| owner.name.clone().into()),
                renewers: renewers
                    .iter()
                    .map(|renewer| CreatableRenewers {
                        principal_type: renewer.kind.clone().into(),
                        principal_name: renewer.name.clone().into(),
                    })
                    .collect(),
                max_lifetime_ms: lifetime_ms,
            }
        };
        let made = self
            .client
            .call_any::<CreateDelegationTokenRequest>(build, |response| response.error_code)
            .await?;
        Ok(DelegationToken {
            id: made.token_id.to_string(),
            hmac: made.hmac,
            owner: Principal {
                kind: made.principal_type.to_string(),
                name: made.principal_name.to_string(),
            },
            requester: requester(
                &made.token_requester_principal_type,
                &made.token_requester_principal_name,
            ),
            renewers: renewers.to_vec(),
            issued_ms: made.issue_timestamp_ms,
            expires_ms: made.expiry_timestamp_ms,
            ends_ms: made.max_timestamp_ms,
        })
    }

    /// Lets a token hold for `period_ms` from now; -1 leaves that to the broker. Returns until when
    /// it holds.
    pub async fn renew_delegation_token(&self, hmac: &[u8], period_ms: i64) -> Result<i64> {
        let hmac = Bytes::copy_from_slice(hmac);
        let build =
            |_| RenewDelegationTokenRequest { hmac: hmac.clone(), renew_period_ms: period_ms };
        let response = self
            .client
            .call_any::<RenewDelegationTokenRequest>(build, |response| response.error_code)
            .await?;
        Ok(response.expiry_timestamp_ms)
    }

    /// Lets a token end in `period_ms`; -1 is at once. Returns until when it holds.
    pub async fn expire_delegation_token(&self, hmac: &[u8], period_ms: i64) -> Result<i64> {
        let hmac = Bytes::copy_from_slice(hmac);
        let build = |_| ExpireDelegationTokenRequest {
            hmac: hmac.clone(),
            expiry_time_period_ms: period_ms,
        };
        let response = self
            .client
            .call_any::<ExpireDelegationTokenRequest>(build, |response| response.error_code)
            .await?;
        Ok(response.expiry_timestamp_ms)
    }

    /// Describes the tokens that these own or may renew, or all that the caller may see.
    pub async fn describe_delegation_tokens(
        &self,
        owners: Option<&[Principal]>,
    ) -> Result<Vec<DelegationToken>> {
        let build = |_| DescribeDelegationTokenRequest {
            owners: owners.map(|owners| {
                let owner = |owner: &Principal| DescribeDelegationTokenOwner {
                    principal_type: owner.kind.clone().into(),
                    principal_name: owner.name.clone().into(),
                };
                owners.iter().map(owner).collect()
            }),
        };
        let response = self
            .client
            .call_any::<DescribeDelegationTokenRequest>(build, |response| response.error_code)
            .await?;
        check(response.error_code, || "delegation tokens".to_owned())?;
        let tokens = response.tokens.into_iter().map(|token| DelegationToken {
            id: token.token_id.to_string(),
            hmac: token.hmac,
            owner: Principal {
                kind: token.principal_type.to_string(),
                name: token.principal_name.to_string(),
            },
            requester: requester(
                &token.token_requester_principal_type,
                &token.token_requester_principal_name,
            ),
            renewers: token
                .renewers
                .into_iter()
                .map(|renewer| Principal {
                    kind: renewer.principal_type.to_string(),
                    name: renewer.principal_name.to_string(),
                })
                .collect(),
            issued_ms: token.issue_timestamp,
            expires_ms: token.expiry_timestamp,
            ends_ms: token.max_timestamp,
        });
        Ok(tokens.collect())
    }
}

fn requester(kind: &str, name: &str) -> Option<Principal> {
    (!name.is_empty()).then(|| Principal { kind: kind.to_owned(), name: name.to_owned() })
}
