//! Changing SCRAM credentials.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use fleuve_protocol::Str;
use fleuve_protocol::messages::remove_user_scram_credential_record::RemoveUserScramCredentialRecord;
use fleuve_protocol::messages::user_scram_credential_record::UserScramCredentialRecord;
use ring::{digest, hmac};

use super::machine::{Controller, Decision};
use crate::image::ScramMechanism;
use crate::record::Record;

/// The least rounds of hashing, as in Kafka.
const ITERATIONS_MIN: i32 = 4096;
/// The most rounds of hashing, as in Kafka: each login costs as many.
const ITERATIONS_MAX: i32 = 16384;

/// A credential to delete or to set, as asked for.
#[derive(Clone)]
pub struct ScramAlteration {
    /// The user.
    pub user: Str,
    /// The mechanism's number.
    pub mechanism: i8,
    /// What to set; `None` deletes.
    pub new: Option<NewScramCredential>,
}

/// A password in the form that travels: hashed with a salt, but still as good as the password.
#[derive(Clone)]
pub struct NewScramCredential {
    /// How often it was hashed.
    pub iterations: i32,
    /// What was mixed in.
    pub salt: Bytes,
    /// The hash.
    pub salted_password: Bytes,
}

/// Reports that a credential cannot be changed so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlterScramError {
    /// The request names the user more than once.
    #[error("A user credential cannot be altered twice in the same request")]
    Duplicate,
    /// A user without a name.
    #[error("Username must not be empty")]
    EmptyUser,
    /// A number that stands for no mechanism.
    #[error("Unknown SCRAM mechanism")]
    UnknownMechanism,
    /// Nothing to delete.
    #[error("Attempt to delete a user credential that does not exist")]
    NoSuchCredential,
    /// Too easy to guess.
    #[error("Too few iterations")]
    TooFewIterations,
    /// Too much work at each login.
    #[error("Too many iterations")]
    TooManyIterations,
}

impl Controller {
    /// Decides about credentials, and answers for each user once.
    pub fn alter_scram_credentials(
        &self,
        alterations: &[ScramAlteration],
    ) -> Decision<Vec<(Str, Result<(), AlterScramError>)>> {
        let mut seen = BTreeSet::new();
        let twice: BTreeSet<&Str> = alterations
            .iter()
            .map(|alteration| &alteration.user)
            .filter(|user| !seen.insert(*user))
            .collect();
        let mut records = Vec::new();
        let mut results = BTreeMap::new();
        for alteration in alterations {
            let user = &alteration.user;
            let result = match twice.contains(user) {
                true => Err(AlterScramError::Duplicate),
                false => self.scram_record(alteration).map(|record| records.push(record)),
            };
            results.insert(user.clone(), result);
        }
        Decision { records, reply: results.into_iter().collect() }
    }

    fn scram_record(&self, alteration: &ScramAlteration) -> Result<Record, AlterScramError> {
        let ScramAlteration { user, mechanism, new } = alteration;
        if user.is_empty() {
            return Err(AlterScramError::EmptyUser);
        }
        let mechanism =
            ScramMechanism::from_wire_id(*mechanism).ok_or(AlterScramError::UnknownMechanism)?;
        let (name, number) = (user.clone(), mechanism.wire_id());
        let Some(new) = new else {
            return match self.image.scram().of(user, mechanism) {
                Some(_) => Ok(RemoveUserScramCredentialRecord { name, mechanism: number }.into()),
                None => Err(AlterScramError::NoSuchCredential),
            };
        };
        match new.iterations {
            ..ITERATIONS_MIN => return Err(AlterScramError::TooFewIterations),
            ITERATIONS_MIN..=ITERATIONS_MAX => {}
            _ => return Err(AlterScramError::TooManyIterations),
        }
        let (stored_key, server_key) = keys(mechanism, &new.salted_password);
        let record = UserScramCredentialRecord {
            name,
            mechanism: number,
            salt: new.salt.clone(),
            stored_key,
            server_key,
            iterations: new.iterations,
        };
        Ok(record.into())
    }
}

/// Computes StoredKey and ServerKey of RFC 5802 from the salted password.
fn keys(mechanism: ScramMechanism, salted_password: &[u8]) -> (Bytes, Bytes) {
    let (hmac_algorithm, hash) = match mechanism {
        ScramMechanism::Sha256 => (hmac::HMAC_SHA256, &digest::SHA256),
        ScramMechanism::Sha512 => (hmac::HMAC_SHA512, &digest::SHA512),
    };
    let key = hmac::Key::new(hmac_algorithm, salted_password);
    let client_key = hmac::sign(&key, b"Client Key");
    let stored_key = digest::digest(hash, client_key.as_ref());
    let server_key = hmac::sign(&key, b"Server Key");
    (Bytes::copy_from_slice(stored_key.as_ref()), Bytes::copy_from_slice(server_key.as_ref()))
}
