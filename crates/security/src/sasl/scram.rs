//! SCRAM (RFC 5802, RFC 7677) as a server: both sides prove that they know the password.
//!
//! ```text
//! client-first   n,[a=AUTHZID],n=USER,r=NONCE[,EXTENSIONS]
//! server-first   r=NONCE+OURS,s=SALT,i=ROUNDS
//! client-final   c=HEADER,r=NONCE+OURS,p=PROOF
//! server-final   v=SIGNATURE
//! ```
//!
//! A user who does not exist is asked like any other, with a salt that stays the same at every try,
//! and is refused in the end like one with a wrong password.

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fleuve_metadata::image::{ScramCredential, ScramMechanism};
use fleuve_os::Random;
use fleuve_protocol::Str;
use ring::{digest, hmac, pbkdf2};

use super::{Credentials, Refusal, Step};

/// Fewer rounds would make a stolen credential cheap to guess; Kafka refuses them, too.
const ROUNDS_MIN: i32 = 4096;
/// The same for delegation tokens.
const TOKEN_ROUNDS: NonZeroU32 = NonZeroU32::new(ROUNDS_MIN as u32).expect("above 0");
/// More rounds than anybody may set.
const ROUNDS_MAX: i32 = 16384;
/// The length of the salts that we make up.
const SALT_BYTES: usize = 16;
/// Longer than any message that somebody means.
const MESSAGE_BYTES_MAX: usize = 8 * 1024;

/// The extension of clients that show a delegation token (KIP-48).
const TOKEN: &str = "tokenauth=true";

const WRONG: Refusal = Refusal("invalid credentials");

/// Stands in for users who do not exist, so that nobody finds out who does.
pub struct Decoys(hmac::Key);

impl Decoys {
    /// Makes up a key for this process.
    pub fn new(random: &dyn Random) -> Self {
        let mut secret = [0; 32];
        random.fill(&mut secret);
        Self(hmac::Key::new(hmac::HMAC_SHA256, &secret))
    }

    fn of(&self, user: &str, mechanism: ScramMechanism) -> ScramCredential {
        let tag = |purpose: &str| {
            let text = format!("{purpose},{mechanism},{user}");
            Bytes::copy_from_slice(hmac::sign(&self.0, text.as_bytes()).as_ref())
        };
        ScramCredential {
            salt: tag("salt").slice(..SALT_BYTES),
            stored_key: tag("stored"),
            server_key: tag("server"),
            iterations: ROUNDS_MIN,
        }
    }
}

impl Decoys {
    /// Makes the credential of a delegation token from its password. The salt stays the same at
    /// every try, like that of a user.
    pub fn token_credential(
        &self,
        id: &str,
        mechanism: ScramMechanism,
        password: &[u8],
    ) -> ScramCredential {
        let salt = self.of(id, mechanism).salt;
        derive(mechanism, TOKEN_ROUNDS, salt, &STANDARD.encode(password))
    }
}

/// Makes the credential of a password.
fn derive(
    mechanism: ScramMechanism,
    rounds: NonZeroU32,
    salt: Bytes,
    password: &str,
) -> ScramCredential {
    let (algorithm, stretching) = match mechanism {
        ScramMechanism::Sha256 => (hmac::HMAC_SHA256, pbkdf2::PBKDF2_HMAC_SHA256),
        ScramMechanism::Sha512 => (hmac::HMAC_SHA512, pbkdf2::PBKDF2_HMAC_SHA512),
    };
    let mut salted = vec![0; algorithm.digest_algorithm().output_len()];
    pbkdf2::derive(stretching, rounds, &salt, password.as_bytes(), &mut salted);
    let sign = |text: &str| hmac::sign(&hmac::Key::new(algorithm, &salted), text.as_bytes());
    let stored = digest::digest(algorithm.digest_algorithm(), sign("Client Key").as_ref());
    ScramCredential {
        salt,
        stored_key: Bytes::copy_from_slice(stored.as_ref()),
        server_key: Bytes::copy_from_slice(sign("Server Key").as_ref()),
        iterations: rounds.get() as i32,
    }
}

/// Reports whether a password that came as it is belongs to a user of this mechanism. A user who
/// does not exist takes as long.
pub(super) fn is_password_of(
    user: &str,
    password: &str,
    mechanism: ScramMechanism,
    credentials: &dyn Credentials,
) -> bool {
    let decoy = credentials.decoys().of(user, mechanism);
    let found = credentials.scram(user, mechanism);
    let found = found.filter(|it| (ROUNDS_MIN..=ROUNDS_MAX).contains(&it.iterations));
    let exists = found.is_some();
    let credential = found.unwrap_or(decoy);
    let rounds = u32::try_from(credential.iterations).ok().and_then(NonZeroU32::new);
    let rounds = rounds.unwrap_or(TOKEN_ROUNDS);
    let shown = derive(mechanism, rounds, credential.salt.clone(), password);
    equal(&shown.stored_key, &credential.stored_key) && exists
}

impl fmt::Debug for Decoys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decoys")
    }
}

/// One authentication by SCRAM.
#[derive(Debug)]
pub struct Scram {
    mechanism: ScramMechanism,
    our_nonce: String,
    asked: Option<Asked>,
}

/// What was said in the first two messages.
#[derive(Debug)]
struct Asked {
    user: String,
    credential: ScramCredential,
    exists: bool,
    /// Whom a delegation token stands for, and its end.
    token: Option<(Str, i64)>,
    /// The header of the client's first message, which its last must repeat.
    header: String,
    nonce: String,
    /// `client-first-bare , server-first`.
    messages: String,
}

impl Scram {
    pub(super) fn begin(mechanism: ScramMechanism, random: &dyn Random) -> Self {
        let mut nonce = [0; 24];
        random.fill(&mut nonce);
        Self::with_nonce(mechanism, STANDARD.encode(nonce))
    }

    fn with_nonce(mechanism: ScramMechanism, our_nonce: String) -> Self {
        Self { mechanism, our_nonce, asked: None }
    }

    pub(super) fn step(
        &mut self,
        message: &[u8],
        credentials: &dyn Credentials,
    ) -> Result<Step, Refusal> {
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(Refusal("the message is too long"));
        }
        let message = std::str::from_utf8(message).map_err(|_| Refusal("not a text"))?;
        match self.asked.take() {
            None => self.first(message, credentials).map(Step::Challenge),
            Some(asked) => self.last(message, asked),
        }
    }

    fn first(&mut self, message: &str, credentials: &dyn Credentials) -> Result<Bytes, Refusal> {
        const FORM: Refusal = Refusal("the first message of SCRAM cannot be read");
        let (binding, rest) = message.split_once(',').ok_or(FORM)?;
        let (authorization_id, bare) = rest.split_once(',').ok_or(FORM)?;
        if binding != "n" && binding != "y" {
            return Err(Refusal("channel binding is not served"));
        }
        let mut attributes = bare.split(',');
        let user = attributes.next().and_then(|text| text.strip_prefix("n=")).ok_or(FORM)?;
        let nonce = attributes.next().and_then(|text| text.strip_prefix("r=")).ok_or(FORM)?;
        let extensions: Vec<&str> = attributes.collect();
        if nonce.is_empty() || !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(FORM);
        }
        let user = unescaped(user).filter(|user| !user.is_empty()).ok_or(FORM)?;
        if !authorization_id.is_empty() {
            let named = authorization_id.strip_prefix("a=").ok_or(FORM)?;
            if unescaped(named).as_ref() != Some(&user) {
                return Err(Refusal(
                    "Client requested an authorization id that is different from username",
                ));
            }
        }
        // The decoy is made in either case, so that the time taken does not tell.
        let decoy = credentials.decoys().of(&user, self.mechanism);
        let mut token = None;
        let found = if extensions.contains(&TOKEN) {
            let found = credentials.token(&user, self.mechanism);
            found.map(|found| {
                token = Some((found.owner, found.until_ms));
                found.credential
            })
        } else {
            credentials.scram(&user, self.mechanism)
        };
        let found = found.filter(|it| (ROUNDS_MIN..=ROUNDS_MAX).contains(&it.iterations));
        let exists = found.is_some();
        let credential = found.unwrap_or(decoy);
        let nonce = format!("{nonce}{}", self.our_nonce);
        let salt = STANDARD.encode(&credential.salt);
        let answer = format!("r={nonce},s={salt},i={}", credential.iterations);
        self.asked = Some(Asked {
            user,
            credential,
            exists,
            token,
            header: format!("{binding},{authorization_id},"),
            nonce,
            messages: format!("{bare},{answer}"),
        });
        Ok(answer.into())
    }

    fn last(&self, message: &str, asked: Asked) -> Result<Step, Refusal> {
        const FORM: Refusal = Refusal("the last message of SCRAM cannot be read");
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(FORM)?;
        let mut attributes = without_proof.split(',');
        let header = attributes.next().and_then(|text| text.strip_prefix("c=")).ok_or(FORM)?;
        let nonce = attributes.next().and_then(|text| text.strip_prefix("r=")).ok_or(FORM)?;
        // The whole nonce, ours included: otherwise an overheard exchange could be played again
        // (CVE-2024-56128).
        if nonce != asked.nonce {
            return Err(Refusal("the nonce is another"));
        }
        if STANDARD.decode(header).ok().as_deref() != Some(asked.header.as_bytes()) {
            return Err(Refusal("the channel binding is another"));
        }
        let proof = STANDARD.decode(proof).map_err(|_| FORM)?;
        let algorithm = match self.mechanism {
            ScramMechanism::Sha256 => hmac::HMAC_SHA256,
            ScramMechanism::Sha512 => hmac::HMAC_SHA512,
        };
        let messages = format!("{},{without_proof}", asked.messages);
        let sign = |key: &[u8]| hmac::sign(&hmac::Key::new(algorithm, key), messages.as_bytes());
        let signature = sign(&asked.credential.stored_key);
        let ours = sign(&asked.credential.server_key);
        if proof.len() != signature.as_ref().len() {
            return Err(WRONG);
        }
        let client_key: Vec<u8> =
            proof.iter().zip(signature.as_ref()).map(|(proof, byte)| proof ^ byte).collect();
        let stored_key = digest::digest(algorithm.digest_algorithm(), &client_key);
        let matches = equal(stored_key.as_ref(), &asked.credential.stored_key);
        if !matches || !asked.exists {
            return Err(WRONG);
        }
        let message = format!("v={}", STANDARD.encode(ours)).into();
        let (owner, until_ms) = asked.token.unzip();
        Ok(Step::Done { user: asked.user, message, until_ms, owner })
    }
}

/// Compares in a time that does not depend on where the two differ.
fn equal(left: &[u8], right: &[u8]) -> bool {
    let difference = left.iter().zip(right).fold(0, |sum, (left, right)| sum | (left ^ right));
    left.len() == right.len() && std::hint::black_box(difference) == 0
}

/// Reads a name in which `,` and `=` are escaped; `None` if it is not well escaped.
fn unescaped(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut text = parts.next()?.to_owned();
    for part in parts {
        let (character, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return None,
        };
        text.push(character);
        text.push_str(rest);
    }
    Some(text)
}

#[cfg(test)]
#[path = "scram_tests.rs"]
mod tests;
