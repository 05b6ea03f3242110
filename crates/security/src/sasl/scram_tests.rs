//! Tests of SCRAM: the standard's example, and everything that must not get in.

use std::num::NonZeroU32;

use fleuve_os::OsRandom;
use proptest::prelude::*;
use ring::pbkdf2;

use super::*;
use crate::oauth::Bearer;
use crate::sasl::{Exchange, Mechanism, PlainUsers, TokenCredential};

struct Known {
    plain: PlainUsers,
    decoys: Decoys,
    user: &'static str,
    credential: ScramCredential,
}

impl Credentials for Known {
    fn plain(&self) -> &PlainUsers {
        &self.plain
    }

    fn scram(&self, user: &str, _: ScramMechanism) -> Option<ScramCredential> {
        (user == self.user).then(|| self.credential.clone())
    }

    fn token(&self, id: &str, mechanism: ScramMechanism) -> Option<TokenCredential> {
        (id == TOKEN_ID).then(|| TokenCredential {
            credential: self.decoys.token_credential(id, mechanism, TOKEN_PASSWORD),
            owner: Str::from("User:owner"),
            until_ms: 4711,
        })
    }

    fn bearer(&self, _: &str) -> Option<Bearer> {
        None
    }

    fn decoys(&self) -> &Decoys {
        &self.decoys
    }
}

const TOKEN_ID: &str = "token-id";
const TOKEN_PASSWORD: &[u8] = b"the token's password";

fn algorithms(mechanism: ScramMechanism) -> (hmac::Algorithm, pbkdf2::Algorithm) {
    match mechanism {
        ScramMechanism::Sha256 => (hmac::HMAC_SHA256, pbkdf2::PBKDF2_HMAC_SHA256),
        ScramMechanism::Sha512 => (hmac::HMAC_SHA512, pbkdf2::PBKDF2_HMAC_SHA512),
    }
}

fn salted(mechanism: ScramMechanism, password: &str, salt: &[u8], rounds: i32) -> hmac::Key {
    let (hmac_algorithm, pbkdf2_algorithm) = algorithms(mechanism);
    let mut salted = vec![0; hmac_algorithm.digest_algorithm().output_len()];
    let rounds = NonZeroU32::new(rounds as u32).expect("not zero");
    pbkdf2::derive(pbkdf2_algorithm, rounds, salt, password.as_bytes(), &mut salted);
    hmac::Key::new(hmac_algorithm, &salted)
}

/// Knows `user` with the password `pencil`.
fn known(mechanism: ScramMechanism, user: &'static str, salt: &[u8], rounds: i32) -> Known {
    let key = salted(mechanism, "pencil", salt, rounds);
    let client_key = hmac::sign(&key, b"Client Key");
    let hash = algorithms(mechanism).0.digest_algorithm();
    let credential = ScramCredential {
        salt: Bytes::copy_from_slice(salt),
        stored_key: Bytes::copy_from_slice(digest::digest(hash, client_key.as_ref()).as_ref()),
        server_key: Bytes::copy_from_slice(hmac::sign(&key, b"Server Key").as_ref()),
        iterations: rounds,
    };
    Known {
        plain: PlainUsers::new([], &OsRandom),
        decoys: Decoys::new(&OsRandom),
        user,
        credential,
    }
}

/// The client's last message to a challenge.
fn answer(mechanism: ScramMechanism, password: &str, bare: &str, challenge: &str) -> String {
    let part = |name: &str| {
        challenge.split(',').find_map(|part| part.strip_prefix(name)).expect("in the challenge")
    };
    let salt = STANDARD.decode(part("s=")).expect("base64");
    let key = salted(mechanism, password, &salt, part("i=").parse().expect("a number"));
    let client_key = hmac::sign(&key, b"Client Key");
    let (algorithm, _) = algorithms(mechanism);
    let stored_key = digest::digest(algorithm.digest_algorithm(), client_key.as_ref());
    let without_proof = format!("c=biws,r={}", part("r="));
    let messages = format!("{bare},{challenge},{without_proof}");
    let stored_key = hmac::Key::new(algorithm, stored_key.as_ref());
    let signature = hmac::sign(&stored_key, messages.as_bytes());
    let proof: Vec<u8> =
        client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
    format!("{without_proof},p={}", STANDARD.encode(proof))
}

fn challenge(scram: &mut Scram, first: &str, known: &Known) -> String {
    match scram.step(first.as_bytes(), known) {
        Ok(Step::Challenge(bytes)) => String::from_utf8(bytes.to_vec()).expect("a text"),
        other => panic!("{other:?}"),
    }
}

fn log_in(mechanism: ScramMechanism, known: &Known, name: &str, password: &str) -> Option<String> {
    let bare = format!("n={name},r=abc");
    let mut exchange = Exchange::begin(Mechanism::Scram(mechanism), &OsRandom);
    let first = exchange.step(format!("n,,{bare}").as_bytes(), known).expect("a first message");
    let Step::Challenge(challenge) = first else { panic!("not yet") };
    let challenge = String::from_utf8(challenge.to_vec()).expect("a text");
    let last = answer(mechanism, password, &bare, &challenge);
    match exchange.step(last.as_bytes(), known) {
        Ok(Step::Done { user, message, .. }) => {
            assert!(message.starts_with(b"v="));
            assert!(exchange.step(last.as_bytes(), known).is_err(), "only once");
            Some(user)
        }
        Ok(Step::Challenge(_)) => panic!("it has no third question"),
        Err(error) => {
            assert_eq!(error, WRONG);
            None
        }
    }
}

/// The exchange that RFC 7677 prints.
#[test]
fn the_standards_example_comes_out() {
    let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
    let known = known(ScramMechanism::Sha256, "user", &salt, 4096);
    let nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned();
    let mut scram = Scram::with_nonce(ScramMechanism::Sha256, nonce);
    assert_eq!(
        challenge(&mut scram, "n,,n=user,r=rOprNGfwEbeRWgbNEkqO", &known),
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    );
    let last = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    let message = Bytes::from("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    let done = Step::Done { user: "user".to_owned(), message, until_ms: None, owner: None };
    assert_eq!(scram.step(last, &known), Ok(done));
}

#[test]
fn only_the_right_password_gets_in() {
    for mechanism in [ScramMechanism::Sha256, ScramMechanism::Sha512] {
        let known = known(mechanism, "a=b,c", b"salt", 4096);
        assert_eq!(log_in(mechanism, &known, "a=3Db=2Cc", "pencil").as_deref(), Some("a=b,c"));
        assert_eq!(log_in(mechanism, &known, "a=3Db=2Cc", "eraser"), None);
        assert_eq!(log_in(mechanism, &known, "nobody", "pencil"), None);
    }
}

#[test]
fn a_credential_with_too_few_or_too_many_rounds_lets_nobody_in() {
    for rounds in [1, ROUNDS_MIN - 1, ROUNDS_MAX + 1] {
        let known = known(ScramMechanism::Sha256, "user", b"salt", rounds);
        assert_eq!(log_in(ScramMechanism::Sha256, &known, "user", "pencil"), None);
    }
}

/// CVE-2024-56128: the nonce of the last message must be the one that was agreed upon.
#[test]
fn an_overheard_exchange_cannot_be_played_again() {
    let known = known(ScramMechanism::Sha256, "user", b"salt", 4096);
    let bare = "n=user,r=abc";
    let mut scram = Scram::begin(ScramMechanism::Sha256, &OsRandom);
    let asked = challenge(&mut scram, &format!("n,,{bare}"), &known);
    let last = answer(ScramMechanism::Sha256, "pencil", bare, &asked);
    assert!(matches!(scram.step(last.as_bytes(), &known), Ok(Step::Done { .. })));

    let mut scram = Scram::begin(ScramMechanism::Sha256, &OsRandom);
    challenge(&mut scram, &format!("n,,{bare}"), &known);
    assert_eq!(scram.step(last.as_bytes(), &known), Err(Refusal("the nonce is another")));
}

#[test]
fn users_who_do_not_exist_are_asked_like_others() {
    let known = known(ScramMechanism::Sha256, "user", &[7; SALT_BYTES], 4096);
    let asked = |name: &str| {
        let mut scram = Scram::with_nonce(ScramMechanism::Sha256, "ours".to_owned());
        challenge(&mut scram, &format!("n,,n={name},r=abc"), &known)
    };
    assert_eq!(asked("nobody"), asked("nobody"), "the same salt at every try");
    assert_ne!(asked("nobody"), asked("somebody"));
    assert_eq!(asked("nobody").len(), asked("user").len());
}

#[test]
fn what_is_not_scram_is_refused() {
    let known = known(ScramMechanism::Sha256, "user", b"salt", 4096);
    for first in [
        "",
        "n",
        "n,",
        "n,,",
        "n,,n=user",
        "n,,n=,r=abc",
        "n,,n=user,r=",
        "n,,n=us=er,r=abc",
        "n,,n=us=2,r=abc",
        "p=tls-unique,,n=user,r=abc",
        "n,a=other,n=user,r=abc",
        "n,x,n=user,r=abc",
        "n,,m=x,n=user,r=abc",
    ] {
        let mut scram = Scram::begin(ScramMechanism::Sha256, &OsRandom);
        assert!(scram.step(first.as_bytes(), &known).is_err(), "{first}");
    }
    for last in ["", "c=biws", "c=biws,r=abcours", "c=eSws,r=abcours,p=QUJD", "c=biws,r=abcours,p="]
    {
        let mut scram = Scram::with_nonce(ScramMechanism::Sha256, "ours".to_owned());
        challenge(&mut scram, "n,,n=user,r=abc", &known);
        assert!(scram.step(last.as_bytes(), &known).is_err(), "{last}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_let_anybody_in(
        first in proptest::collection::vec(any::<u8>(), 0..60),
        last in "c=[a-zA-Z]{0,4},r=[a-z]{0,8},p=[A-Za-z0-9+/=]{0,50}",
    ) {
        let known = known(ScramMechanism::Sha512, "user", b"salt", 4096);
        let mut scram = Scram::with_nonce(ScramMechanism::Sha512, "ours".to_owned());
        let _ = scram.step(&first, &known);
        scram.asked = None;
        challenge(&mut scram, "n,,n=user,r=abc", &known);
        prop_assert!(scram.step(last.as_bytes(), &known).is_err());
    }
}

#[test]
fn a_delegation_token_stands_for_its_owner() {
    for mechanism in [ScramMechanism::Sha256, ScramMechanism::Sha512] {
        let known = known(mechanism, "user", b"salt", 4096);
        let log_in = |id: &str, password: &str, extension: &str| {
            let bare = format!("n={id},r=abc{extension}");
            let mut scram = Scram::begin(mechanism, &OsRandom);
            let asked = challenge(&mut scram, &format!("n,,{bare}"), &known);
            let last = answer(mechanism, password, &bare, &asked);
            match scram.step(last.as_bytes(), &known) {
                Ok(Step::Done { user, until_ms, owner, .. }) => Some((user, until_ms, owner)),
                _ => None,
            }
        };
        let password = STANDARD.encode(TOKEN_PASSWORD);
        let owner = Some(Str::from("User:owner"));
        let done = (TOKEN_ID.to_owned(), Some(4711), owner);
        assert_eq!(log_in(TOKEN_ID, &password, ",tokenauth=true"), Some(done));
        assert_eq!(log_in(TOKEN_ID, &password, ""), None, "a token is no user");
        assert_eq!(log_in(TOKEN_ID, "wrong", ",tokenauth=true"), None);
        assert_eq!(log_in("user", "pencil", ",tokenauth=true"), None, "a user is no token");
        assert_eq!(log_in("user", "pencil", ""), Some(("user".to_owned(), None, None)));
    }
}
