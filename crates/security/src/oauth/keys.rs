//! A JWKS document (RFC 7517), and signatures by its keys.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::Value;

/// More keys than an issuer has.
const KEYS_MAX: usize = 256;

/// The public keys of an issuer.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

/// Why a document is no set of keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// It is not JSON, or has no list `keys`.
    #[error("it is no JWKS document")]
    NotJwks,
    /// There is no key in it that could verify a signature.
    #[error("it holds no key for RS256, RS384, RS512, PS256, PS384, PS512, ES256 or ES384")]
    NoKeys,
}

#[derive(Clone, Debug)]
struct Key {
    id: Option<String>,
    /// The only algorithm it is for, if it says so.
    algorithm: Option<String>,
    material: Material,
}

#[derive(Clone, Debug)]
enum Material {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// A point on P-256 or P-384, uncompressed.
    Curve {
        bits: u16,
        point: Vec<u8>,
    },
}

impl KeySet {
    /// Reads a document; keys of other kinds, and those that are for encryption, are passed over.
    pub fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        let document: Value = serde_json::from_slice(text).map_err(|_| KeySetError::NotJwks)?;
        let list = document.get("keys").and_then(Value::as_array).ok_or(KeySetError::NotJwks)?;
        let keys: Vec<Key> = list.iter().take(KEYS_MAX).filter_map(Key::read).collect();
        if keys.is_empty() { Err(KeySetError::NoKeys) } else { Ok(Self { keys }) }
    }

    /// Reports whether a key of this id is in it, or any key if none is named.
    pub fn has(&self, id: Option<&str>) -> bool {
        id.is_none() || self.keys.iter().any(|key| key.id.as_deref() == id)
    }

    /// Reports whether a key of this id, or any key if none is named, made the signature.
    pub(super) fn verify(
        &self,
        id: Option<&str>,
        algorithm: &str,
        message: &[u8],
        signed: &[u8],
    ) -> bool {
        let named = self.keys.iter().filter(|key| id.is_none() || key.id.as_deref() == id);
        let mut fitting =
            named.filter(|key| key.algorithm.as_deref().is_none_or(|only| only == algorithm));
        fitting.any(|key| key.material.verify(algorithm, message, signed))
    }
}

impl Key {
    fn read(key: &Value) -> Option<Self> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?.trim_end_matches('=')).ok();
        if text("use").is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let material = match text("kty")? {
            "RSA" => {
                let strip = |bytes: Vec<u8>| -> Vec<u8> {
                    bytes.into_iter().skip_while(|byte| *byte == 0).collect()
                };
                Material::Rsa { modulus: strip(bytes("n")?), exponent: strip(bytes("e")?) }
            }
            "EC" => {
                let bits = match text("crv")? {
                    "P-256" => 256,
                    "P-384" => 384,
                    _ => return None,
                };
                let (x, y) = (bytes("x")?, bytes("y")?);
                let width = usize::from(bits / 8);
                if x.len() != width || y.len() != width {
                    return None;
                }
                Material::Curve { bits, point: [&[4][..], &x, &y].concat() }
            }
            _ => return None,
        };
        let algorithm = text("alg").map(str::to_owned);
        Some(Self { id: text("kid").map(str::to_owned), algorithm, material })
    }
}

impl Material {
    /// Verifies by one of the algorithms that are allowed, and by no other.
    fn verify(&self, algorithm: &str, message: &[u8], signed: &[u8]) -> bool {
        match self {
            Self::Rsa { modulus, exponent } => {
                let parameters = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
                    "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
                    "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                let key = RsaPublicKeyComponents { n: modulus, e: exponent };
                key.verify(parameters, message, signed).is_ok()
            }
            Self::Curve { bits, point } => {
                let parameters = match (algorithm, bits) {
                    ("ES256", 256) => &signature::ECDSA_P256_SHA256_FIXED,
                    ("ES384", 384) => &signature::ECDSA_P384_SHA384_FIXED,
                    _ => return false,
                };
                UnparsedPublicKey::new(parameters, point).verify(message, signed).is_ok()
            }
        }
    }
}
