//! Keys on elliptic curves as `keytool` makes them: without their public half, which the library that signs wants beside
//! the private one. The certificate has it.
//!
//! ```text
//! key (PKCS8):  SEQUENCE { INTEGER, SEQUENCE algorithm, OCTET STRING inner, ... }
//! inner (SEC1): SEQUENCE { INTEGER 1, OCTET STRING secret, [0] curve?, [1] { BIT STRING public }? }
//! certificate:  SEQUENCE { SEQUENCE { [0] version?, INTEGER serial, SEQUENCE signature, SEQUENCE issuer,
//!                          SEQUENCE validity, SEQUENCE subject, SEQUENCE { SEQUENCE algorithm, BIT STRING public } ...
//! ```

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::{OCTET_STRING, Reader, SEQUENCE, armor};

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT_IDENTIFIER: u8 = 0x06;
/// What stands in brackets above.
const FIRST: u8 = 0xA0;
const SECOND: u8 = 0xA1;
/// `id-ecPublicKey`, 1.2.840.10045.2.1.
const EC_PUBLIC_KEY: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01];

const KEY: &str = "PRIVATE KEY";
const CERTIFICATE: &str = "CERTIFICATE";

/// Puts the public key of the first certificate beside the private key, where that is on an elliptic curve and lacks it.
/// Everything else stays as it is, whatever it is.
pub(crate) fn complete(pem: Vec<u8>) -> Vec<u8> {
    let completed = std::str::from_utf8(&pem).ok().and_then(|text| {
        let (before, key, after) = block(text, KEY)?;
        let (_, certificate, _) = block(text, CERTIFICATE)?;
        let key = with_public_key(&key, &certificate)?;
        Some([before, &armor(KEY, &key), after].concat().into_bytes())
    });
    completed.unwrap_or(pem)
}

/// Finds the first block with this label: what stands before it, what is in it, and what comes after it.
fn block<'a>(text: &'a str, label: &str) -> Option<(&'a str, Vec<u8>, &'a str)> {
    let (before, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, after) = rest.split_once(&format!("-----END {label}-----"))?;
    let body: String = body.split_whitespace().collect();
    Some((before, STANDARD.decode(body).ok()?, after))
}

fn with_public_key(key: &[u8], certificate: &[u8]) -> Option<Vec<u8>> {
    let mut info = Reader(Reader(key).der(SEQUENCE).ok()?);
    info.der(INTEGER).ok()?;
    let algorithm = info.der(SEQUENCE).ok()?;
    if Reader(algorithm).der(OBJECT_IDENTIFIER).ok()? != EC_PUBLIC_KEY {
        return None;
    }
    let mut inner = Reader(Reader(info.der(OCTET_STRING).ok()?).der(SEQUENCE).ok()?);
    inner.der(INTEGER).ok()?;
    let secret = inner.der(OCTET_STRING).ok()?;
    if inner.0.first() == Some(&FIRST) {
        inner.der(FIRST).ok()?;
    }
    let (of_certificate, public) = public_key_of(certificate)?;
    if !inner.0.is_empty() || of_certificate != algorithm {
        return None;
    }
    let public = element(SECOND, &[&element(BIT_STRING, &[public])]);
    let inner = element(
        SEQUENCE,
        &[&element(INTEGER, &[&[1]]), &element(OCTET_STRING, &[secret]), &public],
    );
    let algorithm = element(SEQUENCE, &[algorithm]);
    let inner = element(OCTET_STRING, &[&inner]);
    Some(element(SEQUENCE, &[&element(INTEGER, &[&[0]]), &algorithm, &inner]))
}

/// Returns the algorithm and the bits of a certificate's key.
fn public_key_of(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut body = Reader(Reader(Reader(certificate).der(SEQUENCE).ok()?).der(SEQUENCE).ok()?);
    if body.0.first() == Some(&FIRST) {
        body.der(FIRST).ok()?;
    }
    body.der(INTEGER).ok()?;
    // Signature algorithm, issuer, validity and subject.
    for _ in 0..4 {
        body.der(SEQUENCE).ok()?;
    }
    let mut key = Reader(body.der(SEQUENCE).ok()?);
    Some((key.der(SEQUENCE).ok()?, key.der(BIT_STRING).ok()?))
}

/// Makes a DER element of parts.
fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len().to_be_bytes();
    let length = &length[length.iter().position(|byte| *byte != 0).unwrap_or(length.len() - 1)..];
    let mut element = vec![tag];
    if content.len() >= 0x80 {
        element.push(0x80 | length.len() as u8);
    }
    element.extend_from_slice(length);
    element.extend(content);
    element
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
    };

    use super::*;
    use crate::{Passwords, StoreKind, key_and_chain};

    /// Made by keytool of JDK 17, see the file `README` beside them.
    #[test]
    fn keys_of_keytool_on_elliptic_curves_can_sign() {
        let stores = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata");
        let passwords = Passwords { store: Some("changeit"), key: None };
        for (name, kind, algorithm) in [
            ("p256.p12", StoreKind::Pkcs12, &ECDSA_P256_SHA256_ASN1_SIGNING),
            ("p384.p12", StoreKind::Pkcs12, &ECDSA_P384_SHA384_ASN1_SIGNING),
            ("p256.jks", StoreKind::Jks, &ECDSA_P256_SHA256_ASN1_SIGNING),
        ] {
            let bytes = std::fs::read(format!("{stores}/{name}")).expect(name);
            let pem = key_and_chain(kind, &bytes, passwords).expect(name);
            let pem = String::from_utf8(pem).expect("text");
            let (_, key, after) = block(&pem, KEY).expect("a key");
            EcdsaKeyPair::from_pkcs8(algorithm, &key, &SystemRandom::new()).expect(name);
            assert!(after.contains("BEGIN CERTIFICATE"), "{name}");
            // What is whole stays as it is, as do parts of it.
            let whole = pem.clone().into_bytes();
            assert_eq!(complete(whole.clone()), whole);
            for end in 0..whole.len() {
                assert_eq!(complete(whole[..end].to_vec()), &whole[..end]);
            }
        }
    }

    #[test]
    fn another_certificate_leaves_the_key_as_it_is() {
        let stores = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata");
        let passwords = Passwords { store: Some("changeit"), key: None };
        let open = |name: &str| {
            let bytes = std::fs::read(format!("{stores}/{name}")).expect(name);
            let pem = key_and_chain(StoreKind::Pkcs12, &bytes, passwords).expect(name);
            String::from_utf8(pem).expect("text")
        };
        let (first, other) = (open("p256.p12"), open("p384.p12"));
        let (_, key, _) = block(&first, KEY).expect("a key");
        let (_, certificate, _) = block(&other, CERTIFICATE).expect("a certificate");
        assert_eq!(with_public_key(&key, &certificate), None);
        for end in 0..certificate.len() {
            assert_eq!(public_key_of(&certificate[..end]), None);
        }
    }
}
