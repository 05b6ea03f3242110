//! SCRAM (RFC 5802) as Kafka speaks it: both sides prove that they know the password, and neither
//! says it.
//!
//! ```text
//! client-first   n,,n=USER,r=NONCE[,tokenauth=true]
//! server-first   r=NONCE+THEIRS,s=SALT,i=ROUNDS
//! client-final   c=biws,r=NONCE+THEIRS,p=PROOF
//! server-final   v=SIGNATURE, or e=ERROR
//! ```

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fleuve_os::{OsRandom, Random};
use ring::{digest, hmac, pbkdf2};

use crate::config::{ScramCredentials, Secret};

/// One authentication by SCRAM.
pub(super) struct Scram {
    hmac: hmac::Algorithm,
    pbkdf2: pbkdf2::Algorithm,
    password: Secret,
    nonce: String,
    client_first_bare: String,
    step: Step,
}

enum Step {
    AwaitServerFirst,
    AwaitServerFinal { signature: Vec<u8> },
    Done,
}

/// Fewer rounds would make guessing passwords cheap for whoever pretends to be a broker.
const ROUNDS_MIN: u32 = 4096;
/// More rounds would keep us busy for as long as the other side likes.
const ROUNDS_MAX: u32 = 1 << 20;

/// Makes a nonce for [`Scram::begin`].
pub(super) fn new_nonce() -> String {
    let mut bytes = [0; 24];
    OsRandom.fill(&mut bytes);
    STANDARD.encode(bytes)
}

impl Scram {
    /// Begins with the first message.
    pub(super) fn begin(
        hmac: hmac::Algorithm,
        pbkdf2: pbkdf2::Algorithm,
        credentials: &ScramCredentials,
        nonce: &str,
    ) -> (Self, Bytes) {
        let user = credentials.user.replace('=', "=3D").replace(',', "=2C");
        let mut client_first_bare = format!("n={user},r={nonce}");
        if credentials.is_delegation_token {
            client_first_bare.push_str(",tokenauth=true");
        }
        let message = format!("n,,{client_first_bare}");
        let scram = Self {
            hmac,
            pbkdf2,
            password: credentials.password.clone(),
            nonce: nonce.to_owned(),
            client_first_bare,
            step: Step::AwaitServerFirst,
        };
        (scram, message.into())
    }

    /// Takes the server's message and returns ours, `None` at the end.
    pub(super) fn next(&mut self, said: &[u8]) -> Result<Option<Bytes>, String> {
        let said = std::str::from_utf8(said).map_err(|_| "SCRAM: not a text".to_owned())?;
        match &self.step {
            Step::AwaitServerFirst => self.answer(said).map(Some),
            Step::AwaitServerFinal { signature } => {
                if let Some(reason) = attribute(said, 'e') {
                    return Err(format!("SCRAM: {reason}"));
                }
                let theirs = attribute(said, 'v').and_then(|text| STANDARD.decode(text).ok());
                if theirs.as_deref() != Some(signature) {
                    return Err("SCRAM: the broker does not know the password".to_owned());
                }
                self.step = Step::Done;
                Ok(None)
            }
            Step::Done => Err("SCRAM: a message after the last".to_owned()),
        }
    }

    fn answer(&mut self, server_first: &str) -> Result<Bytes, String> {
        let bad = |what: &str| format!("SCRAM: {what}");
        if let Some(reason) = attribute(server_first, 'e') {
            return Err(bad(reason));
        }
        let nonce = attribute(server_first, 'r').ok_or_else(|| bad("no nonce"))?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(bad("the nonce is not ours with theirs added"));
        }
        let salt = attribute(server_first, 's').and_then(|text| STANDARD.decode(text).ok());
        let salt = salt.ok_or_else(|| bad("no salt"))?;
        let rounds: Option<u32> = attribute(server_first, 'i').and_then(|text| text.parse().ok());
        let rounds = rounds.filter(|rounds| (ROUNDS_MIN..=ROUNDS_MAX).contains(rounds));
        let rounds = rounds
            .and_then(NonZeroU32::new)
            .ok_or_else(|| bad("a number of rounds outside 4096 and 1048576"))?;

        let algorithm = self.hmac.digest_algorithm();
        let mut salted = vec![0; algorithm.output_len()];
        let password = self.password.expose().as_bytes();
        pbkdf2::derive(self.pbkdf2, rounds, &salt, password, &mut salted);
        let salted_key = hmac::Key::new(self.hmac, &salted);
        let client_key = hmac::sign(&salted_key, b"Client Key");
        let stored_key = digest::digest(algorithm, client_key.as_ref());
        // `biws` is the header `n,,` in base64: no channel binding.
        let without_proof = format!("c=biws,r={nonce}");
        let messages = format!("{},{server_first},{without_proof}", self.client_first_bare);
        let messages = messages.as_bytes();
        let client_signature =
            hmac::sign(&hmac::Key::new(self.hmac, stored_key.as_ref()), messages);
        let proof: Vec<u8> = client_key
            .as_ref()
            .iter()
            .zip(client_signature.as_ref())
            .map(|(key, signature)| key ^ signature)
            .collect();
        let server_key = hmac::sign(&salted_key, b"Server Key");
        let signature = hmac::sign(&hmac::Key::new(self.hmac, server_key.as_ref()), messages);
        self.step = Step::AwaitServerFinal { signature: signature.as_ref().to_vec() };
        Ok(format!("{without_proof},p={}", STANDARD.encode(proof)).into())
    }
}

/// Finds an attribute in a message.
fn attribute(message: &str, name: char) -> Option<&str> {
    message.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> ScramCredentials {
        ScramCredentials {
            user: "user".to_owned(),
            password: Secret::new("pencil"),
            is_delegation_token: false,
        }
    }

    /// The exchange that RFC 7677 prints.
    #[test]
    fn the_standards_example_comes_out() {
        let (mut scram, first) = Scram::begin(
            hmac::HMAC_SHA256,
            pbkdf2::PBKDF2_HMAC_SHA256,
            &credentials(),
            "rOprNGfwEbeRWgbNEkqO",
        );
        assert_eq!(first, "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let server_first = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
            s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let last = scram.next(server_first).expect("valid").expect("one more");
        assert_eq!(
            last,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        let end = scram.next(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(end, Ok(None));
    }

    #[test]
    fn a_broker_that_does_not_prove_itself_is_refused() {
        let begin = || {
            let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
            Scram::begin(hmac::HMAC_SHA256, algorithm, &credentials(), "abc").0
        };
        for (said, expected) in [
            (&b"r=other,s=QUJD,i=4096"[..], "nonce"),
            (b"r=abc,s=QUJD,i=4096", "nonce"),
            (b"r=abcd,s=***,i=4096", "salt"),
            (b"r=abcd,s=QUJD,i=1", "rounds"),
            (b"r=abcd,s=QUJD,i=2000000000", "rounds"),
            (b"e=unknown-user", "unknown-user"),
            (b"\xff", "not a text"),
            (b"", "no nonce"),
        ] {
            let error = begin().next(said).expect_err("refused");
            assert!(error.contains(expected), "{error}");
        }
        let mut scram = begin();
        scram.next(b"r=abcd,s=QUJD,i=4096").expect("valid").expect("one more");
        let error = scram.next(b"v=QUJD").expect_err("a wrong signature");
        assert!(error.contains("does not know the password"), "{error}");
    }

    #[test]
    fn names_are_escaped() {
        let user = ScramCredentials { user: "a=b,c".to_owned(), ..credentials() };
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA512;
        let (_, first) = Scram::begin(hmac::HMAC_SHA512, algorithm, &user, "x");
        assert_eq!(first, "n,,n=a=3Db=2Cc,r=x");
    }
}
