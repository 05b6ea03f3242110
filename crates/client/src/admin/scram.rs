//! Users that log in with SCRAM.

use std::num::NonZeroU32;

use bytes::Bytes;
use fleuve_protocol::messages::alter_user_scram_credentials_request::{
    AlterUserScramCredentialsRequest, ScramCredentialDeletion, ScramCredentialUpsertion,
};
use fleuve_protocol::messages::describe_user_scram_credentials_request::{
    DescribeUserScramCredentialsRequest, UserName,
};
use ring::pbkdf2;

use super::Admin;
use crate::error::{Error, Result, check_said};

/// The hash that a credential is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScramMechanism {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

impl ScramMechanism {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// Returns its name in SASL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    fn code(self) -> i8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha512 => 2,
        }
    }
}

/// A user with the credentials it has: mechanism and rounds of hashing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScramUser {
    /// The user.
    pub name: String,
    /// Its credentials; mechanisms we do not know are left out.
    pub credentials: Vec<(ScramMechanism, i32)>,
}

impl Admin {
    /// Describes the credentials of these users, or of all when none is named.
    ///
    /// What concerns a single user, such as that there is none, is that user's result.
    pub async fn describe_scram_users(
        &self,
        names: &[&str],
    ) -> Result<Vec<(String, Result<ScramUser>)>> {
        let build = |_| DescribeUserScramCredentialsRequest {
            users: (!names.is_empty()).then(|| {
                names.iter().map(|name| UserName { name: (*name).to_owned().into() }).collect()
            }),
        };
        let response =
            self.client.call_any::<DescribeUserScramCredentialsRequest>(build, |_| 0).await?;
        check_said(response.error_code, response.error_message.as_deref(), || "the users".into())?;
        let users = response.results.into_iter().map(|result| {
            let name = result.user.to_string();
            let words = result.error_message.as_deref();
            let user = check_said(result.error_code, words, || format!("user {name}")).map(|()| {
                let known = result.credential_infos.iter().filter_map(|info| {
                    let mechanism =
                        ScramMechanism::ALL.into_iter().find(|m| m.code() == info.mechanism)?;
                    Some((mechanism, info.iterations))
                });
                ScramUser { name: name.clone(), credentials: known.collect() }
            });
            (name, user)
        });
        Ok(users.collect())
    }

    /// Gives a user a password; `salt` must be random and new.
    ///
    /// What travels is the salted hash of it, which is as good as the password to whoever listens:
    /// over the network, use TLS.
    pub async fn set_scram_password(
        &self,
        user: &str,
        mechanism: ScramMechanism,
        iterations: u32,
        salt: &[u8],
        password: &str,
    ) -> Result<()> {
        let salted = salted_password(mechanism, iterations, salt, password)?;
        let upsertion = ScramCredentialUpsertion {
            name: user.to_owned().into(),
            mechanism: mechanism.code(),
            iterations: i32::try_from(iterations).unwrap_or(i32::MAX),
            salt: Bytes::copy_from_slice(salt),
            salted_password: Bytes::from(salted),
        };
        self.alter_scram(Vec::new(), vec![upsertion]).await
    }

    /// Takes a credential from a user.
    pub async fn delete_scram_credential(
        &self,
        user: &str,
        mechanism: ScramMechanism,
    ) -> Result<()> {
        let (name, mechanism) = (user.to_owned().into(), mechanism.code());
        self.alter_scram(vec![ScramCredentialDeletion { name, mechanism }], Vec::new()).await
    }

    async fn alter_scram(
        &self,
        deletions: Vec<ScramCredentialDeletion>,
        upsertions: Vec<ScramCredentialUpsertion>,
    ) -> Result<()> {
        let build = |_| AlterUserScramCredentialsRequest {
            deletions: deletions.clone(),
            upsertions: upsertions.clone(),
        };
        let response =
            self.client.call_any::<AlterUserScramCredentialsRequest>(build, |_| 0).await?;
        if response.results.is_empty() {
            return Err(Error::unanswered("the user's credentials"));
        }
        for result in response.results {
            let words = result.error_message.as_deref();
            check_said(result.error_code, words, || format!("user {}", result.user))?;
        }
        Ok(())
    }
}

/// Computes SaltedPassword of RFC 5802.
pub fn salted_password(
    mechanism: ScramMechanism,
    iterations: u32,
    salt: &[u8],
    password: &str,
) -> Result<Vec<u8>> {
    /// More than any server takes, and less than minutes of work.
    const ITERATIONS_MAX: u32 = 1 << 24;
    let rounds = NonZeroU32::new(iterations).filter(|rounds| rounds.get() <= ITERATIONS_MAX);
    let rounds = rounds
        .ok_or_else(|| Error::config(format!("{iterations} iterations: expected 4096 to 16384")))?;
    let (algorithm, length) = match mechanism {
        ScramMechanism::Sha256 => (pbkdf2::PBKDF2_HMAC_SHA256, 32),
        ScramMechanism::Sha512 => (pbkdf2::PBKDF2_HMAC_SHA512, 64),
    };
    let mut salted = vec![0; length];
    pbkdf2::derive(algorithm, rounds, salt, password.as_bytes(), &mut salted);
    Ok(salted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_salted_as_in_rfc_7677() {
        let salt = [
            0x5b, 0x6d, 0x99, 0x68, 0x9d, 0x12, 0x35, 0x8e, 0xec, 0xa0, 0x4b, 0x14, 0x12, 0x36,
            0xfa, 0x81,
        ];
        let salted = salted_password(ScramMechanism::Sha256, 4096, &salt, "pencil").expect("valid");
        let hex: String = salted.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "c4a49510323ab4f952cac1fa99441939e78ea74d6be81ddf7096e87513dc615d");
        assert!(salted_password(ScramMechanism::Sha512, 0, &salt, "pencil").is_err());
    }
}
