//! Tests of tokens: one that is right, and each way to be wrong.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use super::*;

const NOW_MS: i64 = 1_800_000_000_000;
const NOW: i64 = NOW_MS / 1000;

/// An issuer with a key on P-256.
struct Issuer {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).expect("a key");
        Self { pair, random }
    }

    fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        json!({"kty": "EC", "crv": "P-256", "kid": "one", "use": "sig", "alg": "ES256", "x": x, "y": y})
    }

    fn keys(&self) -> KeySet {
        KeySet::parse(json!({"keys": [self.jwk()]}).to_string().as_bytes()).expect("keys")
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let message = unsigned(header, claims);
        let signed = self.pair.sign(&self.random, message.as_bytes()).expect("signed");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signed))
    }
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", encode(header), encode(claims))
}

fn expectations() -> Expectations {
    Expectations {
        issuer: "https://issuer".to_owned(),
        audiences: vec!["kafka".to_owned(), "fleuve".to_owned()],
        clock_skew_seconds: 30,
        subject_claim: "sub".to_owned(),
        scope_claim: "scope".to_owned(),
    }
}

fn header() -> Value {
    json!({"alg": "ES256", "kid": "one"})
}

fn claims() -> Value {
    json!({"iss": "https://issuer", "aud": ["kafka"], "sub": "ada", "iat": NOW, "exp": NOW + 60})
}

fn with(mut value: Value, name: &str, claim: Value) -> Value {
    match claim {
        Value::Null => {
            value.as_object_mut().expect("an object").remove(name);
        }
        claim => value[name] = claim,
    }
    value
}

#[test]
fn a_token_that_says_what_it_must_gets_in_until_its_end() {
    let issuer = Issuer::new();
    let token = issuer.token(&header(), &claims());
    let check = |now_ms| expectations().check(&token, &issuer.keys(), now_ms);
    let bearer = Bearer { subject: "ada".to_owned(), expires_ms: NOW_MS + 60_000 };
    assert_eq!(check(NOW_MS), Ok(bearer.clone()));
    assert_eq!(check(NOW_MS + 89_999), Ok(bearer), "within the skew");
    assert_eq!(check(NOW_MS + 90_000), Err(BearerError::Expired));
}

#[test]
fn every_claim_is_checked() {
    let issuer = Issuer::new();
    for (name, claim, expected) in [
        ("iss", json!("https://other"), BearerError::Issuer),
        ("iss", Value::Null, BearerError::Issuer),
        ("aud", json!("other"), BearerError::Audience),
        ("aud", json!(["other"]), BearerError::Audience),
        ("aud", Value::Null, BearerError::Audience),
        ("exp", json!(NOW - 31), BearerError::Expired),
        ("exp", Value::Null, BearerError::Claim("exp")),
        ("exp", json!("tomorrow"), BearerError::Claim("exp")),
        ("nbf", json!(NOW + 31), BearerError::TooEarly),
        ("iat", Value::Null, BearerError::Claim("iat")),
        ("sub", json!(" "), BearerError::Claim("sub")),
        ("sub", Value::Null, BearerError::Claim("sub")),
        ("scope", json!(5), BearerError::Claim("scope")),
    ] {
        let token = issuer.token(&header(), &with(claims(), name, claim.clone()));
        let checked = expectations().check(&token, &issuer.keys(), NOW_MS);
        assert_eq!(checked, Err(expected), "{name} = {claim}");
    }
    for (name, claim) in
        [("aud", json!("fleuve")), ("nbf", json!(NOW + 29)), ("scope", json!(["a", "b"]))]
    {
        let token = issuer.token(&header(), &with(claims(), name, claim));
        assert!(expectations().check(&token, &issuer.keys(), NOW_MS).is_ok(), "{name}");
    }
}

#[test]
fn only_signatures_by_private_keys_count() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let check = |token: &str| expectations().check(token, &keys, NOW_MS);
    for algorithm in ["none", "None", "NONE", ""] {
        let message = unsigned(&json!({"alg": algorithm, "kid": "one"}), &claims());
        assert_eq!(check(&format!("{message}.")), Err(BearerError::Algorithm), "{algorithm}");
    }
    // The public key as a shared secret.
    let message = unsigned(&json!({"alg": "HS256", "kid": "one"}), &claims());
    let key = hmac::Key::new(hmac::HMAC_SHA256, issuer.pair.public_key().as_ref());
    let tag = URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes()));
    assert_eq!(check(&format!("{message}.{tag}")), Err(BearerError::Algorithm));
    // Somebody else's signature, a signature of something else, and the key's other algorithms.
    let other = Issuer::new().token(&header(), &claims());
    assert_eq!(check(&other), Err(BearerError::Signature));
    let token = issuer.token(&header(), &claims());
    let (_, signed) = token.rsplit_once('.').expect("three parts");
    let changed = unsigned(&header(), &with(claims(), "sub", json!("root")));
    assert_eq!(check(&format!("{changed}.{signed}")), Err(BearerError::Signature));
    for algorithm in ["RS256", "PS256", "ES384"] {
        let token = issuer.token(&json!({"alg": algorithm, "kid": "one"}), &claims());
        assert_eq!(check(&token), Err(BearerError::Signature), "{algorithm}");
    }
    let token = issuer.token(&json!({"alg": "ES256", "kid": "two"}), &claims());
    assert_eq!(check(&token), Err(BearerError::UnknownKey));
    let token = issuer.token(&json!({"alg": "ES256", "kid": "one", "crit": ["x"]}), &claims());
    assert_eq!(check(&token), Err(BearerError::Algorithm));
    let token = issuer.token(&json!({"alg": "ES256"}), &claims());
    assert!(check(&token).is_ok(), "a token need not name its key");
    for token in ["", ".", "..", "a.b.c", "....", &token[..token.len() - 1]] {
        assert!(check(token).is_err(), "{token}");
    }
}

#[test]
fn documents_without_keys_for_signatures_are_refused() {
    let issuer = Issuer::new();
    for (document, expected) in [
        ("", KeySetError::NotJwks),
        ("{}", KeySetError::NotJwks),
        ("{\"keys\": []}", KeySetError::NoKeys),
        ("{\"keys\": [{\"kty\": \"oct\", \"k\": \"c2VjcmV0\"}]}", KeySetError::NoKeys),
        (
            "{\"keys\": [{\"kty\": \"EC\", \"crv\": \"P-256\", \"x\": \"AA\", \"y\": \"AA\"}]}",
            KeySetError::NoKeys,
        ),
    ] {
        assert_eq!(KeySet::parse(document.as_bytes()).err(), Some(expected), "{document}");
    }
    let encrypts = with(issuer.jwk(), "use", json!("enc"));
    let document = json!({"keys": [encrypts]}).to_string();
    assert_eq!(KeySet::parse(document.as_bytes()).err(), Some(KeySetError::NoKeys));
}
