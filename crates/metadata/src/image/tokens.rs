//! Delegation tokens: passwords that a user hands to programs, for a while.
//!
//! The image holds no secret: a token's password is computed from its id and the brokers' secret
//! key.

use fleuve_protocol::Str;
use fleuve_protocol::messages::delegation_token_record::DelegationTokenRecord;
use rpds::RedBlackTreeMapSync;

/// A delegation token. Principals are written `Type:name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelegationToken {
    /// Its id, which is also the user name to log in with.
    pub id: Str,
    /// As whom its bearer acts.
    pub owner: Str,
    /// Who asked for it.
    pub requester: Str,
    /// Who may renew it, besides the owner.
    pub renewers: Vec<Str>,
    /// When it was made.
    pub issued_ms: i64,
    /// When it ends, unless it is renewed.
    pub expires_ms: i64,
    /// When it ends for good.
    pub max_ms: i64,
}

impl DelegationToken {
    fn from_record(record: &DelegationTokenRecord) -> Self {
        let owner = record.owner.detach();
        // Before Kafka 3.3 nobody asked for tokens of others, and the field was empty.
        let requester = if record.requester.is_empty() { &owner } else { &record.requester };
        Self {
            id: record.token_id.detach(),
            requester: requester.detach(),
            owner,
            renewers: record.renewers.iter().map(Str::detach).collect(),
            issued_ms: record.issue_timestamp,
            expires_ms: record.expiration_timestamp,
            max_ms: record.max_timestamp,
        }
    }

    /// Makes the record that creates or changes this token.
    pub fn to_record(&self) -> DelegationTokenRecord {
        DelegationTokenRecord {
            owner: self.owner.clone(),
            requester: self.requester.clone(),
            renewers: self.renewers.clone(),
            issue_timestamp: self.issued_ms,
            max_timestamp: self.max_ms,
            expiration_timestamp: self.expires_ms,
            token_id: self.id.clone(),
        }
    }

    /// Reports whether it is of no use any more.
    pub fn has_expired(&self, now_ms: i64) -> bool {
        self.max_ms < now_ms || self.expires_ms < now_ms
    }
}

/// All delegation tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DelegationTokens {
    by_id: RedBlackTreeMapSync<Str, DelegationToken>,
}

impl DelegationTokens {
    /// Finds a token by its id.
    pub fn by_id(&self, id: &Str) -> Option<&DelegationToken> {
        self.by_id.get(id)
    }

    /// Lists the tokens, sorted by id.
    pub fn iter(&self) -> impl Iterator<Item = &DelegationToken> {
        self.by_id.values()
    }

    pub(super) fn put(&mut self, record: &DelegationTokenRecord) {
        let token = DelegationToken::from_record(record);
        self.by_id.insert_mut(token.id.clone(), token);
    }

    pub(super) fn remove(&mut self, id: &Str) {
        self.by_id.remove_mut(id);
    }
}
