//! TLS settings of a listener, from PEM to rustls.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedCipherSuite};

use crate::certificate::CertificateNames;

/// `ssl.client.auth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Clients are not asked for a certificate.
    None,
    /// Clients without a certificate may connect, too.
    Requested,
    /// Clients need a certificate.
    Required,
}

/// Certificates and keys of a listener, as PEM.
pub struct TlsMaterial {
    /// The certificate chain, the server's own first.
    pub chain: Vec<u8>,
    /// The private key.
    pub key: Vec<u8>,
    /// The certificates that clients' certificates must descend from.
    pub trusted: Option<Vec<u8>>,
    /// Whether clients need a certificate.
    pub client_auth: ClientAuth,
    /// Whether TLS 1.2 is spoken.
    pub allow_tls12: bool,
    /// Whether TLS 1.3 is spoken.
    pub allow_tls13: bool,
    /// The only cipher suites that are spoken, by their IANA names; all there are if none is named.
    pub cipher_suites: Vec<String>,
}

impl TlsMaterial {
    /// Whose the certificate is that a server shows.
    pub fn names(&self) -> Option<CertificateNames> {
        CertificateNames::of(certificates(&self.chain)?.first()?)
    }
}

impl fmt::Debug for TlsMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsMaterial")
            .field("client_auth", &self.client_auth)
            .finish_non_exhaustive()
    }
}

/// Why TLS cannot be set up so. Never holds what was in a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The keystore holds no certificate.
    #[error("the keystore holds no certificate")]
    NoCertificate,
    /// The keystore holds no key.
    #[error("the keystore holds no private key that can be read")]
    NoKey,
    /// The truststore is missing, or empty.
    #[error("ssl.client.auth needs a truststore with certificates in PEM")]
    NoTrust,
    /// A cipher suite that is not served, old ones among them.
    #[error("ssl.cipher.suites: `{name}` is not served; there are {}", known.join(", "))]
    UnknownSuite {
        /// As it was written.
        name: String,
        /// Those that are served.
        known: Vec<String>,
    },
    /// Certificate and key do not work.
    #[error("{0}")]
    Unusable(String),
}

/// Makes what a TLS server needs.
pub fn server_config(material: &TlsMaterial) -> Result<Arc<ServerConfig>, TlsError> {
    let unusable = |error: &dyn fmt::Display| TlsError::Unusable(error.to_string());
    let chain = certificates(&material.chain).ok_or(TlsError::NoCertificate)?;
    let key = PrivateKeyDer::from_pem_slice(&material.key).map_err(|_| TlsError::NoKey)?;
    let provider = Arc::new(provider(&material.cipher_suites)?);
    let mut versions = Vec::new();
    if material.allow_tls13 {
        versions.push(&rustls::version::TLS13);
    }
    if material.allow_tls12 {
        versions.push(&rustls::version::TLS12);
    }
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(|error| unusable(&error))?;
    let builder = match material.client_auth {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Requested | ClientAuth::Required => {
            let trusted = material.trusted.as_deref().and_then(certificates);
            let mut roots = RootCertStore::empty();
            for certificate in trusted.ok_or(TlsError::NoTrust)? {
                roots.add(certificate).map_err(|error| unusable(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match material.client_auth {
                ClientAuth::Requested => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| unusable(&error))?)
        }
    };
    let config = builder.with_single_cert(chain, key).map_err(|error| unusable(&error))?;
    Ok(Arc::new(config))
}

/// The cryptography that is served, with no other cipher suites than those that are named.
fn provider(names: &[String]) -> Result<CryptoProvider, TlsError> {
    let mut provider = rustls::crypto::ring::default_provider();
    let known: Vec<String> = provider.cipher_suites.iter().map(iana_name).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(name)) {
        return Err(TlsError::UnknownSuite { name: name.clone(), known });
    }
    if !names.is_empty() {
        provider.cipher_suites.retain(|suite| names.contains(&iana_name(suite)));
    }
    Ok(provider)
}

/// The name of a suite as Java and the register have it, where those of TLS 1.3 look like all others.
fn iana_name(suite: &SupportedCipherSuite) -> String {
    let name = suite.suite().as_str().unwrap_or_default();
    name.replacen("TLS13_", "TLS_", 1)
}

/// Reads certificates; `None` if there are none or one is broken.
fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    read.ok().filter(|certificates| !certificates.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn material(chain: &str, key: &str) -> TlsMaterial {
        TlsMaterial {
            chain: chain.as_bytes().to_vec(),
            key: key.as_bytes().to_vec(),
            trusted: None,
            client_auth: ClientAuth::None,
            allow_tls12: true,
            allow_tls13: true,
            cipher_suites: Vec::new(),
        }
    }

    #[test]
    fn only_the_cipher_suites_that_are_named_are_spoken() {
        let names = |names: &[&str]| -> Vec<String> {
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        let of = |wanted: &[&str]| -> Vec<String> {
            let provider = provider(&names(wanted)).expect("they are served");
            provider.cipher_suites.iter().map(iana_name).collect()
        };
        assert!(of(&[]).len() > 5);
        let some = ["TLS_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"];
        assert_eq!(of(&some), names(&some));
        for old in ["TLS_RSA_WITH_AES_128_CBC_SHA", "TLS13_AES_256_GCM_SHA384", ""] {
            let error = provider(&names(&[some[0], old])).expect_err(old).to_string();
            assert!(error.contains(old) && error.contains(some[1]), "{error}");
        }
    }

    #[test]
    fn what_is_missing_is_named_and_nothing_is_shown() {
        let some = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let locked =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert_eq!(server_config(&material("", "")).err(), Some(TlsError::NoCertificate));
        assert_eq!(server_config(&material("hunter2", "")).err(), Some(TlsError::NoCertificate));
        assert_eq!(server_config(&material(some, locked)).err(), Some(TlsError::NoKey));
        assert!(!format!("{:?}", material("hunter2", "hunter2")).contains("hunter2"));
    }
}
