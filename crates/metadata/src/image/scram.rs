//! SCRAM credentials: what a password is checked against, without the password.

use std::fmt;

use bytes::Bytes;
use fleuve_protocol::Str;
use fleuve_protocol::messages::user_scram_credential_record::UserScramCredentialRecord;
use rpds::RedBlackTreeMapSync;

/// The hash that a credential is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScramMechanism {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

impl ScramMechanism {
    /// Returns the number that stands for it on the wire and in records.
    pub const fn wire_id(self) -> i8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha512 => 2,
        }
    }

    /// Finds what a number stands for.
    pub const fn from_wire_id(id: i8) -> Option<Self> {
        match id {
            1 => Some(Self::Sha256),
            2 => Some(Self::Sha512),
            _ => None,
        }
    }

    /// Returns its name in SASL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }
}

impl fmt::Display for ScramMechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a server keeps of a password (RFC 5802).
#[derive(Clone, PartialEq, Eq)]
pub struct ScramCredential {
    /// Random bytes mixed into the password.
    pub salt: Bytes,
    /// The hash that proves the client knows the password.
    pub stored_key: Bytes,
    /// The key by which the server proves that it knows it too.
    pub server_key: Bytes,
    /// How often the password was hashed.
    pub iterations: i32,
}

impl fmt::Debug for ScramCredential {
    /// Keeps the secrets out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramCredential").finish_non_exhaustive()
    }
}

/// All SCRAM credentials.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScramCredentials {
    by_user: RedBlackTreeMapSync<(Str, ScramMechanism), ScramCredential>,
}

impl ScramCredentials {
    /// Finds the credential of a user.
    pub fn of(&self, user: &Str, mechanism: ScramMechanism) -> Option<&ScramCredential> {
        self.by_user.get(&(user.clone(), mechanism))
    }

    /// Lists all of them, sorted by user.
    pub fn iter(&self) -> impl Iterator<Item = (&Str, ScramMechanism, &ScramCredential)> {
        self.by_user.iter().map(|((user, mechanism), credential)| (user, *mechanism, credential))
    }

    /// Takes what a record says; `false` if this release does not know its mechanism.
    pub(super) fn put(&mut self, record: &UserScramCredentialRecord) -> bool {
        let Some(mechanism) = ScramMechanism::from_wire_id(record.mechanism) else { return false };
        let copy = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
        let credential = ScramCredential {
            salt: copy(&record.salt),
            stored_key: copy(&record.stored_key),
            server_key: copy(&record.server_key),
            iterations: record.iterations,
        };
        self.by_user.insert_mut((record.name.detach(), mechanism), credential);
        true
    }

    /// Forgets a credential; `false` if there is none.
    pub(super) fn remove(&mut self, user: &Str, mechanism: i8) -> bool {
        ScramMechanism::from_wire_id(mechanism)
            .is_some_and(|mechanism| self.by_user.remove_mut(&(user.clone(), mechanism)))
    }

    pub(super) fn records(&self) -> impl Iterator<Item = UserScramCredentialRecord> {
        self.iter().map(|(user, mechanism, credential)| UserScramCredentialRecord {
            name: user.clone(),
            mechanism: mechanism.wire_id(),
            salt: credential.salt.clone(),
            stored_key: credential.stored_key.clone(),
            server_key: credential.server_key.clone(),
            iterations: credential.iterations,
        })
    }
}
